"""Mail clients, each run once: what to fetch from where, who asks, and what it has written down."""

import os
import pty
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from .dovecot import Account
from .processes import program
from .proxy import Visit, Watch
from .records import RecordedSession

TIME_LIMIT = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a client ended, and what it said about it."""

    status: int
    output: str


@dataclass(frozen=True, slots=True)
class Job:
    """An errand for one client: fetch the mail of ``account`` from 127.0.0.1, ``port``."""

    port: int
    account: Account
    folder: Path
    watch: Watch | None = None
    server: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, name: str, *arguments: str | Path, stdin: str = "") -> Outcome:
        home = {"HOME": str(self.folder), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [program(name), *arguments],
            cwd=self.folder,
            env={**os.environ, **home, **self.environment},
            input=stdin.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIME_LIMIT,
            check=False,
        )
        return Outcome(done.returncode, done.stdout.decode(errors="replace"))

    def run_at_a_terminal(self, name: str, *arguments: str | Path) -> Outcome:
        """Run a program that wants to see a terminal; its output is what the screen gets."""
        screen, terminal = pty.openpty()
        shown = bytearray()
        watcher = threading.Thread(target=_read_to_the_end, args=(screen, shown))
        home = {"HOME": str(self.folder), "LC_ALL": "C.UTF-8", "TERM": "vt100"}
        try:
            with subprocess.Popen(
                [program(name), *arguments],
                cwd=self.folder,
                env={**os.environ, **home, **self.environment},
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
                start_new_session=True,
            ) as process:
                os.close(terminal)
                watcher.start()
                try:
                    status = process.wait(TIME_LIMIT)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise
            watcher.join()
        finally:
            os.close(screen)
        return Outcome(status, shown.decode(errors="replace"))

    @property
    def guarded(self) -> bool:
        return self.watch is not None and self.watch.guarded

    def recorded(self, count: int = 1) -> list[RecordedSession]:
        """The records of so many sessions that the client made of it."""
        assert self.watch, "nobody has listened"
        return self.watch.recorded(count)

    def visit(self, *withheld: bytes) -> Visit:
        """The one session that the client made of it, and the lines that the server was not to see."""
        assert self.watch, "nobody has listened"
        return self.watch.visit(*withheld)


def _read_to_the_end(screen: int, shown: bytearray) -> None:
    # A terminal that nobody has open any more ends with an error.
    with suppress(OSError):
        while data := os.read(screen, 2**16):
            shown.extend(data)


def curl(job: Job, messages: str, *options: str | Path) -> Outcome:
    """Fetch a message, or several given like ``[1-3]`` over one connection."""
    output = job.folder / ("mail-#1" if messages.startswith("[") else "mail-1")
    target = f"pop3://127.0.0.1:{job.port}/{messages}"
    return job.run("curl", "--silent", "--show-error", *options, "--output", output, target)


def fetched_by_curl(job: Job) -> list[bytes]:
    """In order."""
    return _contents(sorted(job.folder.glob("mail-*")))


def _delivery_program(job: Job) -> Path:
    """Stores what it reads as a file in ``incoming``; for clients that hand mail on."""
    incoming = job.folder / "incoming"
    incoming.mkdir()
    path = job.folder / "deliver"
    path.write_text(f"#!/bin/sh\nexec cat >\"$(mktemp '{incoming}/XXXXXX')\"\n")
    path.chmod(0o700)
    return path


def fetched_by_delivery(job: Job) -> list[bytes]:
    """In no certain order."""
    return _contents((job.folder / "incoming").iterdir())


def fetchmail(
    job: Job, options: str, tls: str = "sslproto ''", more: Sequence[str] = ()
) -> Outcome:
    """Fetch everything, and delete it there."""
    settings = job.folder / "fetchmailrc"
    settings.write_text(
        f"poll 127.0.0.1 port {job.port} {options}"
        f' username "{job.account.user}" password "{job.account.password}"'
        f' {tls} fetchall no rewrite mda "{_delivery_program(job)}"\n'
    )
    settings.chmod(0o600)
    return job.run(
        *("fetchmail", "--fetchmailrc", settings, "--pidfile", job.folder / "pid"),
        *("--nosyslog", "--invisible", *more),
    )


def mpop(job: Job, auth: str, password: str, *settings: str) -> Outcome:
    """Fetch everything into a Maildir."""
    for name in ("cur", "new", "tmp"):
        (job.folder / "mail" / name).mkdir(parents=True)
    path = job.folder / "mpoprc"
    path.write_text(
        "account test\n"
        f"host 127.0.0.1\nport {job.port}\nauth {auth}\n"
        f'user {job.account.user}\npassword "{password}"\n'
        "keep on\nonly_new off\nreceived_header off\n"
        f"uidls_file {job.folder / 'uidls'}\ndelivery maildir {job.folder / 'mail'}\n"
        + "".join(f"{line}\n" for line in settings or ("tls off",))
    )
    path.chmod(0o600)
    return job.run("mpop", "--file", path, "test")


def getmail(
    job: Job, *settings: str, kind: str = "SimplePOP3Retriever", options: Sequence[str] = ()
) -> Outcome:
    """Fetch everything, and leave it there but for other ``options``."""
    (job.folder / "getmailrc").write_text(
        f"[retriever]\ntype = {kind}\n"
        f"server = 127.0.0.1\nport = {job.port}\n"
        f"username = {job.account.user}\npassword = {job.account.password}\n"
        + "".join(f"{line}\n" for line in settings)
        + f"[destination]\ntype = MDA_external\npath = {_delivery_program(job)}\n"
        "allow_root_commands = true\n"
        "[options]\nread_all = true\nreceived = false\ndelivered_to = false\n"
        + "".join(f"{line}\n" for line in options or ("delete = false",))
    )
    return job.run("getmail", f"--getmaildir={job.folder}", "--rcfile=getmailrc")


def mutt(job: Job, settings: str, arguments: Sequence[str], keys: str) -> Outcome:
    """Type keys until it ends; ``mail`` is its Maildir."""
    for name in ("cur", "new", "tmp"):
        (job.folder / "mail" / name).mkdir(parents=True)
    path = job.folder / "muttrc"
    path.write_text(
        f'set pop_user="{job.account.user}" pop_pass="{job.account.password}"\n'
        f"set mbox_type=Maildir folder={job.folder} spoolfile={job.folder / 'mail'}\n"
        "set confirmappend=no confirmcreate=no delete=yes move=no wait_key=no mark_old=no\n"
        "unset header_cache message_cachedir record ssl_starttls ssl_force_tls\n"
        f"{settings}\n"
        f'push "{keys}"\n'
    )
    return job.run_at_a_terminal("mutt", "-n", "-F", path, *arguments)


def snail(job: Job, settings: str, commands: str) -> Outcome:
    """Give it commands on standard input."""
    account = f"{job.account.user}:{quote(job.account.password)}"
    path = job.folder / "mailrc"
    path.write_text(f"set v15-compat nokeep\nset folder={job.folder}\n{settings}\n")
    arguments = ("-:/", "-#", "-X", f"source {path}")
    target = f"pop3://{account}@127.0.0.1:{job.port}"
    return job.run("s-nail", *arguments, "-f", target, stdin=commands)


def net_pop3(job: Job, script: str) -> Outcome:
    """Run lines of Perl with a connected Net::POP3 in ``$pop``."""
    begin = "use strict; use warnings; use Net::POP3; $| = 1;\n"
    connect = f"my $pop = Net::POP3->new('127.0.0.1', Port => {job.port}) or die 'no connection';\n"
    path = job.folder / "client.pl"
    path.write_text(begin + connect + script)
    return job.run("perl", path)


def fetched_into_maildir(job: Job) -> list[bytes]:
    """In no certain order."""
    return _contents((job.folder / "mail" / "new").iterdir())


def _contents(paths: Iterable[Path]) -> list[bytes]:
    return [path.read_bytes() for path in paths]
