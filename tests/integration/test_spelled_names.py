"""One account of a real Dovecot that ignores domains, guessed at under as many names as there are guesses."""

from pathlib import Path

import pytest

from .conftest import Events
from .dovecot import Account, Dovecot
from .popclient import Attempt, PopClient
from .proxy import configured_proxy

pytestmark = pytest.mark.integration

GUESSES = 60
LIMIT = 5


def guessed(dovecot: Dovecot, account: Account, folder: Path, events: Path, users: str) -> int:
    """Guess at an account, each time with another domain; return how many guesses the server judged."""
    folder.mkdir()
    configuration = f"""
listen = [{{ endpoint = "tcp:0:interface=127.0.0.1", tls = "none" }}]
upstream = "tcp:127.0.0.1:{dovecot.port}"
[events]
path = "{events}"
[policy.users]
{users}
[[policy.rules]]
name = "account"
by = "user"
limits = [{{ count = {LIMIT}, seconds = 600 }}]
action = "deny"
"""
    with configured_proxy(configuration, folder) as proxy:
        for number in range(GUESSES):
            name = f"{account.user}@d{number}.example"
            with PopClient(proxy.port) as client:
                assert not client.log_in(Attempt(name, f"wrong{number}", "USER/PASS"))
                assert client.ask("QUIT")
    return sum(
        one.user.partition("@")[0] == account.user and not one.success
        for one in dovecot.judged_logins()
    )


@pytest.mark.parametrize(
    ("users", "seen"),
    [('server = "dovecot"', GUESSES), ('server = "dovecot"\ndrop_domain = true', LIMIT)],
    ids=["as it comes", "as this server is configured"],
)
def test_guesses_under_other_spellings_are_guesses_at_the_account(
    users: str, seen: int, dovecot: Dovecot, events_in: Events, tmp_path: Path
) -> None:
    account = dovecot.new_account()
    with PopClient(dovecot.port) as client:
        # The names are spellings: the server takes one with any domain for the account.
        right = Attempt(f"{account.user}@any.example", account.password, "USER/PASS")
        assert client.log_in(right)
    events = events_in(f"spelled-{seen}").path
    assert guessed(dovecot, account, tmp_path / "proxy", events, users) == seen
