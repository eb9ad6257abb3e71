"""Random dialogues to real servers: what was judged, what hooks were asked, and what events said of it."""

import subprocess
import sys

import pytest

from .fuzzservers import NOT_INSTALLED
from .processes import program
from .proxy import CHECKOUT

pytestmark = pytest.mark.integration

DIALOGUES = 300
TIME_LIMIT = 900.0
"""Seconds; a hunt takes one or two minutes where nothing else runs."""

NEEDED = {
    "dovecot": ("dovecot", "pop3-login"),
    "courier": ("couriertcpd", "unshare", "mount"),
    "cyrus": (),
    "twisted": (),
}


@pytest.mark.parametrize("server", NEEDED)
def test_random_dialogues_are_judged_asked_about_and_told_alike(server: str) -> None:
    for name in NEEDED[server]:
        program(name)
    hunt = subprocess.run(
        [
            *(sys.executable, "-m", "tests.integration.fuzzservers"),
            *("--server", server, "--dialogues", str(DIALOGUES), "--seed", "1", "--most", "5"),
        ],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIME_LIMIT,
        check=False,
    )
    output = hunt.stdout.decode(errors="replace")
    if hunt.returncode == NOT_INSTALLED:
        pytest.skip(output)
    assert hunt.returncode == 0, output
