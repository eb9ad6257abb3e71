"""Secrets in every form that a client can send them in: nothing that the program writes shows one."""

import base64
import socket
import threading
from pathlib import Path

import pytest

from .proxy.live import PATIENCE, running

PASSWORD = "hunter2-in-clear"
TOKEN = "ya29.bearer-token-of-bob-0123456789"
DIGEST = "c4c9334bac560ecc979e58001b3e22fb"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


PLAIN = b64(f"\0bob\0{PASSWORD}")
XOAUTH2 = b64(f"user=bob\x01auth=Bearer {TOKEN}\x01\x01")

LINES = (
    "USER bob",
    f"PASS {PASSWORD}",
    f"pass  {PASSWORD} ",
    f"APOP bob {DIGEST}",
    f"AUTH PLAIN {PLAIN}",
    f"AUTH XOAUTH2 {XOAUTH2}",
    f"AUTH {PLAIN}",
    # Refused, so that the response is a command for the server.
    "AUTH FOO",
    PLAIN,
    f"PASSS {PASSWORD}",
    f"PASS\t{PASSWORD}",
    f": {PASSWORD}",
    # Answered by a challenge.
    "AUTH LOGIN",
    b64("bob"),
    b64(PASSWORD),
    "AUTH PLAIN",
    PLAIN,
    "QUIT",
)

SECRETS = (PASSWORD, TOKEN, DIGEST, PLAIN, XOAUTH2, b64(PASSWORD), PLAIN.upper()[:16])


def echo(server: socket.socket) -> None:
    """Refuse everything, and repeat it, as careless servers do."""
    connection, _ = server.accept()
    connection.settimeout(PATIENCE)
    with connection, connection.makefile("rwb", buffering=0) as stream:
        stream.write(b"+OK ready\r\n")
        challenges = 0
        for line in stream:
            text = line.rstrip(b"\r\n")
            if challenges:
                challenges -= 1
                stream.write(b"+ more\r\n" if challenges else b"-ERR [AUTH] refused: " + line)
            elif text == b"USER bob":
                stream.write(b"+OK\r\n")
            elif text == b"AUTH LOGIN":
                challenges = 2
                stream.write(b"+ VXNlcm5hbWU6\r\n")
            elif text == b"AUTH PLAIN":
                challenges = 1
                stream.write(b"+ \r\n")
            else:
                stream.write(b"-ERR what is " + line)
            if text == b"QUIT":
                return


def everything_written(folder: Path, *arguments: str) -> str:
    """Play the lines through the proxy and return its file of events and its log."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        answering = threading.Thread(target=echo, args=(server,))
        answering.start()
        events = str(folder / "events")
        with running(
            server.getsockname()[1], "--events", events, *arguments, folder=folder
        ) as proxy:
            with proxy.connect() as client, client.makefile("rwb", buffering=0) as stream:
                assert stream.readline() == b"+OK ready\r\n"
                for line in LINES:
                    stream.write(line.encode() + b"\r\n")
                    assert stream.readline()
            answering.join(PATIENCE)
            log = proxy.stop()
    return (folder / "events").read_text() + log


def test_no_secret_is_written(tmp_path: Path) -> None:
    written = everything_written(tmp_path)
    assert written.count('"event":"pop3_login_failure"') >= 6
    assert [secret for secret in SECRETS if secret in written] == []


def test_secrets_are_written_only_if_asked_for_in_so_many_words(tmp_path: Path) -> None:
    (tmp_path / "shown.toml").write_text("[events]\nshow_secrets = true\n")
    written = everything_written(tmp_path, "--config", str(tmp_path / "shown.toml"))
    for secret in (PASSWORD, TOKEN, DIGEST, PLAIN):
        assert secret in written


@pytest.mark.parametrize("secret", [PASSWORD, DIGEST])
def test_a_mask_that_is_left_out_is_noticed(
    tmp_path: Path, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: without masking the same lines do show their secrets."""
    (tmp_path / "sitecustomize.py").write_text(
        "import pop3proxy.hooks.masking as masking\nmasking.masked = masking.in_clear\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert secret in everything_written(tmp_path)
