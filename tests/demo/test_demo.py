"""The demo: its script shows the events of a failed and of a successful login, and ends by itself."""

import os
import poplib
import re
import signal
import subprocess
import sys


def shown(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pop3proxy", "demo", "--once"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_script_shows_a_failure_then_a_success_then_the_mail() -> None:
    out = shown()
    places = [
        out.index(text)
        for text in (
            "pop3_connect",
            "pop3_login_failure",
            "pop3_login_success",
            "Lunch on Friday?",
            "pop3_session",
        )
    ]
    assert places == sorted(places)


def test_passwords_are_masked_and_colours_are_for_terminals() -> None:
    out = shown()
    assert "correct-horse" not in out
    assert "correct-house" not in out
    assert "\x1b[" not in out


def test_it_stays_for_a_client_of_ones_own_until_it_is_interrupted() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "pop3proxy", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        try:
            url = next(line for line in demo.stdout if "pop3://" in line)
            port = int(re.sub(r".*pop3://127\.0\.0\.1:(\d+)/1\n", r"\1", url))
            client = poplib.POP3("127.0.0.1", port, timeout=20)
            client.user("bob")
            client.pass_("correct-horse")
            assert client.stat()[0] == 3
            assert client.retr(3)[1][-1] == "Snö överallt. Vi ses på måndag!".encode()
            client.quit()
            assert any("pop3_session" in line for line in demo.stdout)
            demo.send_signal(signal.SIGINT)
            _, err = demo.communicate(timeout=20)
        finally:
            demo.kill()
    assert (demo.returncode, err) == (0, "")
