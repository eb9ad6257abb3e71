"""The hook that prints events for people to read as they come."""

from typing import TextIO

from ..analyzer.events import ALL, Event
from ..hooks.api import Hook
from ..hooks.logging.reading import coloured, line_to_read
from ..hooks.masking import masked


class Printer(Hook):
    """Prints one line for every event, its secrets masked."""

    def __init__(self, out: TextIO, colour: bool) -> None:
        """Print to ``out``; ``colour`` says that it is a terminal whose user likes colours."""
        self._out = out
        self._colour = colour
        # Listeners are what the dispatcher finds by name.
        for kind in ALL:
            setattr(self, kind.name, self._print)

    def _print(self, event: Event) -> None:
        text = line_to_read(masked(event))
        self._out.write((coloured(text, event) if self._colour else text) + "\n")
        self._out.flush()
