"""The demo: its script shows the events of a failed and of a successful login, and ends by itself."""

import os
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
