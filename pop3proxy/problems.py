"""Names what went wrong for the log, without what may be secret in it; handles nothing."""

import traceback
from types import TracebackType
from typing import Final

LONGEST: Final = 500
"""Characters of an exception's text that are shown where that text may be shown."""


def described(problem: object) -> str:
    """Return an exception's type, and the file and line where it was raised.

    Its text and its frames may hold what a client sent, and with it a password.
    """
    trace = trace_of(problem)
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    return f"{type(problem).__name__}{where}"


def trace_of(problem: object) -> TracebackType | None:
    """Return the traceback of a problem; None for what a Deferred failed with and is no exception."""
    return problem.__traceback__ if isinstance(problem, BaseException) else None


def in_one_line(problem: BaseException) -> str:
    """Return an exception's type and text, for what was raised before any client was there."""
    text = text_in_one_line(problem)
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__


def text_in_one_line(problem: BaseException) -> str:
    """Return an exception's text; empty for one whose text cannot be had."""
    try:
        return " ".join(str(problem).split())[:LONGEST]
    # What a hook raises may have an author of its own.
    except Exception:
        return ""


def traced(problem: object, trace: TracebackType | None) -> str:
    """Return the places that a traceback leads through, a line each, and the exception's type behind them.

    As a traceback is printed, but without the exception's text.
    """
    kind = type(problem)
    places = "".join(traceback.format_tb(trace))
    return f"Traceback (most recent call last):\n{places}{kind.__module__}.{kind.__qualname__}\n"
