"""What can be wrong with a question, its files or its engine: each is one line that says what to change."""


class ReportError(Exception):
    """The question cannot be answered; the text is one line."""


class EngineError(ReportError):
    """The engine cannot do what it was asked to; the text is its own."""


class Unanswerable(ReportError):
    """The question itself is wrong, or how it was asked."""
