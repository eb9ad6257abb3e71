"""Two wires joined: bytes of one are written to the other, unchanged; nobody looks at them here."""

from ..analyzer.events import CLIENT, Side
from .wire import Wire


class Tunnel:
    """Passes bytes both ways with back-pressure: at most one chunk is on its way in each direction."""

    __slots__ = ("client", "from_client", "from_server", "server")

    def __init__(self, client: Wire, server: Wire) -> None:
        """Join two wires."""
        self.client = client
        self.server = server
        self.from_client = 0  # octets passed
        self.from_server = 0

    def data(self, side: Side, data: bytes) -> None:
        """Pass bytes on, and stop reading where they come from until they are gone."""
        if side is CLIENT:
            self.from_client += len(data)
            source, sink = self.client, self.server
        else:
            self.from_server += len(data)
            source, sink = self.server, self.client
        sink.write(data)
        if sink.unsent:
            source.pause()

    def drained(self, side: Side) -> None:
        """Read on what goes to ``side``."""
        (self.server if side is CLIENT else self.client).resume()

    def ended(self, side: Side) -> None:
        """Pass on the end of one side's bytes."""
        (self.server if side is CLIENT else self.client).end()
