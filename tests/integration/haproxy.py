"""A real HAProxy, on sockets that the test opens for it, so that no port is guessed."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from string import Template

from .processes import program, stopped_at_the_end


@contextmanager
def running_haproxy(configuration: str, folder: Path, *names: str) -> Iterator[dict[str, int]]:
    """Run it with a configuration in which ``$NAME`` stands for what a frontend binds; lend their ports.

    It listens already when it is started: clients wait in the queue of the socket.
    """
    with ExitStack() as stack:
        sockets = {
            name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in names
        }
        numbers = {name: listening.fileno() for name, listening in sockets.items()}
        binds = {name: f"fd@{number}" for name, number in numbers.items()}
        path = folder / "haproxy.cfg"
        path.write_text(Template(configuration).substitute(binds))
        with (folder / "haproxy.log").open("wb") as output:
            process = subprocess.Popen(
                [program("haproxy"), "-db", "-f", path],
                stdout=output,
                stderr=output,
                pass_fds=tuple(numbers.values()),
            )
        stack.enter_context(stopped_at_the_end(process))
        yield {name: listening.getsockname()[1] for name, listening in sockets.items()}
        assert process.poll() is None, (folder / "haproxy.log").read_text()
