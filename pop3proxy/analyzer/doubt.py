"""What is known while the server's lines are out of step with the commands; raises nothing itself."""

from .status import Status


class Doubt:
    """What is known while the server's lines are out of step with the commands.

    Doubt ends in one of two ways. Behind a line of one dot come as many status lines as replies are owed, and
    nothing else; this way is closed if commands of the client are missing (``counted`` is False). Or the
    client sent one command since, one status line came, and then the client went on.
    """

    __slots__ = ("after_dot", "answer", "client_spoke", "commands", "counted", "lines")

    def __init__(self, counted: bool = True) -> None:
        self.counted = counted
        self.after_dot: list[Status] | None = (
            None  # the status lines behind the last dot, if nothing else
        )
        self.commands = 0  # sent in the client's last run, if that began in doubt
        self.lines = 0  # that the server sent since
        self.answer: Status | None = None  # the only one of them, if it is a status line
        self.client_spoke = False  # since the server's last line

    @property
    def answered(self) -> bool:
        """Whether one status line, and nothing else, came for one command."""
        return self.commands == 1 and self.lines == 1 and self.answer is not None
