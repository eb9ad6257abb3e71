"""The proxies that are compared: how each is configured, started and found to be ready."""

import contextlib
import functools
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processes

READY_S = 15.0
"""How long a proxy may take from its start to the first greeting."""

OURS = (
    "pop3proxy serve --listen tcp:{port}:interface=127.0.0.1"
    " --upstream tcp:127.0.0.1:{upstream} --events {events}"
)

OURS_TLS = "pop3proxy serve --config {tls} --events {events}"

ASKING = Path(__file__).with_name("asking.toml")
"""A configuration with one blocking hook."""

POLICY = Path(__file__).with_name("policy.toml")
"""A configuration with the kinds of the default rules for failed logins."""

# Where a user's search path often doesn't lead.
PROGRAMS = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"]
)


class PeerError(Exception):
    """A proxy that can't take part; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of 127.0.0.1: the proxy's two, then the stub's two."""

    listen: int
    opaque: int
    upstream: int
    auth: int


@dataclass(frozen=True, slots=True)
class Peer:
    """One proxy: ``command`` writes its configuration to the folder and returns what to run."""

    name: str
    title: str
    program: str
    remedy: str
    command: Callable[[Ports, Path], list[str]] | None
    opaque_apart: bool = False
    """Whether opaque bytes have a port of their own."""
    command_tls: Callable[[Ports, Path, Path], list[str]] | None = None
    """The same where it ends TLS, with the certificate and key in one file; None: it has no part in that."""


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that has greeted."""

    pid: int
    listen: int
    opaque: int


def find(program: str) -> str | None:
    """Return where ``program`` is installed, beside this Python or on the search path."""
    return shutil.which(program, path=PROGRAMS)


def known(ours: str, ours_tls: str = OURS_TLS) -> list[Peer]:
    """Return all peers; ``ours`` and ``ours_tls``: templates of our command lines, the latter to end TLS."""
    return [
        Peer(
            "haproxy",
            "HAProxy",
            "haproxy",
            "apt install haproxy",
            _haproxy,
            command_tls=_haproxy_tls,
        ),
        Peer(
            "haproxy-256k",
            "HAProxy, 256 KiB buffers",
            "haproxy",
            "apt install haproxy",
            functools.partial(_haproxy, tuning="tune.bufsize 262144"),
            command_tls=functools.partial(_haproxy_tls, tuning="tune.bufsize 262144"),
        ),
        Peer(
            "nginx",
            "nginx",
            "nginx",
            "apt install nginx libnginx-mod-mail libnginx-mod-stream, or leave it out of --peers",
            _nginx,
            opaque_apart=True,
        ),
        Peer(
            "portforward",
            "portforward",
            sys.executable,
            "pip install twisted",
            _portforward,
            command_tls=_portforward_tls,
        ),
        from_template("ours", "pop3proxy", ours, ours_tls),
        from_template("ours-asked", "pop3proxy, asked", f"{ours} --config {{asking}}"),
        from_template("ours-policy", "pop3proxy, policy", f"{ours} --config {{policy}}"),
    ]


def from_template(name: str, title: str, template: str, template_tls: str = "") -> Peer:
    """Return a peer whose command line is ``template``, with {port}, {upstream}, {events}.

    ``template_tls`` is for ending TLS, with {tls}, {events}. A ``template`` with {tls} is for that alone.
    """
    templates = [template_tls, template] if template_tls else [template]
    if "{tls}" in template and not template_tls:
        template, template_tls = "", template
    program = ""
    for given in templates:
        try:
            program = _filled(given, Ports(0, 0, 0, 0), Path())[0]
        except (IndexError, KeyError, ValueError) as error:
            raise PeerError(
                f"{title}: not a command with {{port}}, {{upstream}} and {{events}},"
                f" or with {{tls}} and {{events}}: {given!r}"
            ) from error
    return Peer(
        name,
        title,
        program,
        "install it in this environment, or leave it out",
        functools.partial(_filled, template) if template else None,
        command_tls=functools.partial(_filled_tls, template_tls) if template_tls else None,
    )


def check(peer: Peer) -> None:
    """Raise `PeerError` unless the peer's program is installed."""
    if find(peer.program) is None:
        raise PeerError(f"{peer.title}: there is no program {peer.program}: {peer.remedy}")


@contextlib.contextmanager
def running(
    peer: Peer, upstream: int, auth: int, core: int, certificate: Path | None = None
) -> Iterator[Running]:
    """Run the peer, new and in a folder of its own, on ``core``, in front of the stub's ports.

    With the ``certificate`` it ends TLS.
    """
    listen, opaque = processes.free_ports(2)
    with tempfile.TemporaryDirectory(prefix="pop3proxy-benchmark-") as name:
        folder = Path(name)
        # nginx's worker is another user's when the master is root's.
        folder.chmod(0o755)
        ports = Ports(listen, opaque, upstream, auth)
        if certificate is not None:
            assert peer.command_tls is not None
            command = peer.command_tls(ports, folder, certificate)
        else:
            assert peer.command is not None
            command = peer.command(ports, folder)
        command[0] = find(command[0]) or command[0]
        log = folder / "errors"
        with processes.started(command, core, log) as process:
            _await_greeting(peer, process, listen, log, certificate is not None)
            yield Running(process.pid, listen, opaque if peer.opaque_apart else listen)


def _await_greeting(
    peer: Peer, process: subprocess.Popen[str], port: int, log: Path, tls: bool
) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        if _greets(port, tls):
            return
        time.sleep(0.02)
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise PeerError(f"{peer.title} did not start: {said[-1] if said else 'it said nothing'}")


def _greets(port: int, tls: bool) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as client:
            if not tls:
                return client.recv(512).startswith(b"+OK")
            # Whom it talks to is the loader's to check.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            with context.wrap_socket(client) as secure:
                return secure.recv(512).startswith(b"+OK")
    except OSError:
        return False


def _haproxy(ports: Ports, folder: Path, tuning: str = "", binding: str = "") -> list[str]:
    config = folder / "haproxy.cfg"
    config.write_text(
        f"""\
global
    nbthread 1
    maxconn 4000
    {tuning}
defaults
    mode tcp
    timeout connect 10s
    timeout client 1m
    timeout server 1m
listen pop3
    bind 127.0.0.1:{ports.listen} {binding}
    server stub 127.0.0.1:{ports.upstream}
""",
        encoding="ascii",
    )
    return ["haproxy", "-db", "-f", str(config)]


def _haproxy_tls(ports: Ports, folder: Path, certificate: Path, tuning: str = "") -> list[str]:
    return _haproxy(ports, folder, tuning, f"ssl crt {certificate}")


def _nginx(ports: Ports, folder: Path) -> list[str]:
    config = folder / "nginx.conf"
    config.write_text(
        f"""\
{_nginx_modules()}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/errors crit;
worker_processes 1;
events {{
    worker_connections 8000;
}}
mail {{
    server_name localhost;
    auth_http 127.0.0.1:{ports.auth}/;
    server {{
        listen 127.0.0.1:{ports.listen};
        protocol pop3;
    }}
}}
stream {{
    server {{
        listen 127.0.0.1:{ports.opaque};
        proxy_pass 127.0.0.1:{ports.upstream};
    }}
}}
""",
        encoding="ascii",
    )
    return ["nginx", "-p", str(folder), "-e", str(folder / "errors"), "-c", str(config)]


@functools.cache
def _nginx_modules() -> str:
    """Return the directives that load mail and stream where this nginx has them as modules."""
    program = find("nginx")
    assert program is not None
    told = subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stderr
    options = dict(word.lstrip("-").partition("=")[::2] for word in told.split())
    folder = options.get("modules-path", f"{options.get('prefix', '')}/modules")
    return "\n".join(
        f"load_module {folder}/ngx_{name}_module.so;"
        for name in ("mail", "stream")
        if options.get(f"with-{name}") == "dynamic"
    )


def _portforward(ports: Ports, folder: Path) -> list[str]:
    script = Path(__file__).with_name("forward.py")
    return [sys.executable, str(script), str(ports.listen), str(ports.upstream)]


def _portforward_tls(ports: Ports, folder: Path, certificate: Path) -> list[str]:
    return [*_portforward(ports, folder), str(certificate)]


def _filled(template: str, ports: Ports, folder: Path) -> list[str]:
    values = {
        "port": ports.listen,
        "upstream": ports.upstream,
        "events": folder / "events.jsonl",
        "asking": ASKING,
        "tls": folder / "tls.toml",
        "policy": POLICY,
    }
    return [word.format(**values) for word in shlex.split(template)]


def _filled_tls(template: str, ports: Ports, folder: Path, certificate: Path) -> list[str]:
    (folder / "tls.toml").write_text(
        f"""\
[[listen]]
endpoint = "tcp:{ports.listen}:interface=127.0.0.1"
tls = "implicit"

[upstream]
endpoint = "tcp:127.0.0.1:{ports.upstream}"

[[tls.certificates]]
chain = "{certificate}"
""",
        encoding="ascii",
    )
    return _filled(template, ports, folder)
