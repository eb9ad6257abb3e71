"""What a mail server takes for one account has one key, under the settings that docs/policy.md names.

The models here are the servers' own steps in their own order, written from their documentation.
"""

import re
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pop3proxy.analyzer.events import Connection, LoginAttempt, LoginFailure, Reason
from pop3proxy.config import Config
from pop3proxy.hooks.api import PASS, Deny
from pop3proxy.hooks.policy.config import Policy
from pop3proxy.hooks.policy.failedlogins import FailedLogins
from pop3proxy.hooks.policy.names import BLANKS, DENIALS, PRESETS
from pop3proxy.hooks.policy.users import MAX_NAME, Users

from ...proxy.live import CHECKOUT

DENY = {"action": "deny"}
LEAST = {"listen": ["tcp:110"], "upstream": "tcp:localhost:110"}

Model = Callable[[str], str | None]
"""A server: the account that it judges under a name; None for a name that can be no account's."""


def users(**settings: Any) -> Users:
    return Users(Policy.model_validate({"users": settings}))


# --- models -------------------------------------------------------------------------------------------------


def one_at(account: str) -> str | None:
    """Return an account as a database has it: a local part, and at most one domain."""
    local, at, domain = account.partition("@")
    return account if local and (not at or domain) and "@" not in domain else None


def dovecot(realm: str = "", translated: str = "", drop: bool = False, master: str = "") -> Model:
    """auth_master_user_separator, auth_default_realm, auth_username_translation, auth_username_format."""

    def account(name: str) -> str | None:
        if master:
            name = name.partition(master)[0]
        if realm and "@" not in name:
            name += f"@{realm}"
        name = "".join("@" if letter in translated else letter for letter in name).lower()
        return (name.partition("@")[0] or None) if drop else one_at(name)

    return account


def courier(domain: str, separators: str) -> Model:
    """DEFDOMAIN and DOMAINSEP of its pop3d."""

    def account(name: str) -> str | None:
        bare = not set(separators) & set(name)
        return one_at(name + domain if bare else name)

    return account


def cyrus(domain: str) -> Model:
    """popd_canon_user with popsubfolders, then username_tolower, virtdomains and defaultdomain."""

    def account(name: str) -> str | None:
        if "+" in name:
            plus = name.index("+")
            at = name.find("@", plus)
            name = name[:plus] + (name[at:] if at >= 0 else "")
        found = re.fullmatch("(.*?)(?:[@%]([^@%]*))?", name.lower())
        assert found
        return one_at(f"{found[1]}@{found[2] or domain}")

    return account


def exchange(logon_domain: str, suffix: str) -> Model:
    """Logon domain, user and alias by slashes, a UPN with or without an alias, or a user alone."""

    def account(name: str) -> str | None:
        first, *others = re.split(r"[\\/]", name.lower())
        if others and "@" not in first:
            user = others[0] if first == logon_domain else ""
        else:
            user, at, domain = first.partition("@")
            user = user if not at or domain == suffix else ""
        return user or None

    return account


def gmail(name: str) -> str | None:
    """What is known of its "recent mode"."""
    return one_at(re.sub("^recent:", "", name.lower()))


SERVERS: dict[str, tuple[dict[str, Any], Model]] = {
    "dovecot": ({"server": "dovecot"}, dovecot()),
    "dovecot with a realm": (
        {"server": "dovecot", "default_domain": "example.org"},
        dovecot(realm="example.org"),
    ),
    "dovecot that ignores domains": (
        {"server": "dovecot", "drop_domain": True},
        dovecot(drop=True),
    ),
    "dovecot that translates": (
        {"server": "dovecot", "separators": "%:\\"},
        dovecot(translated="%:\\"),
    ),
    "dovecot that translates and ignores domains": (
        {"server": "dovecot", "separators": "%", "drop_domain": True},
        dovecot(translated="%", drop=True),
    ),
    "dovecot with master users": (
        {"server": "dovecot", "master_separator": "*", "default_domain": "example.org"},
        dovecot(realm="example.org", master="*"),
    ),
    "courier": (
        {"server": "courier", "default_domain": "example.org"},
        courier("@example.org", "@"),
    ),
    "cyrus": ({"server": "cyrus", "default_domain": "example.org"}, cyrus("example.org")),
    "exchange": ({"server": "exchange"}, exchange("example", "example.org")),
    "gmail": ({"strip_prefix": "recent:"}, gmail),
}

PIECES = [
    *("bob", "BOB", "x", "@", "%", ":", "\\", "/", "*", "+"),
    *("example.org", "EXAMPLE.org", "example", "recent:", "master"),
]
SPELLINGS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)


# A list for all servers at once: pytest-twisted runs no property for several parameters.
@given(names=st.lists(SPELLINGS, min_size=2, max_size=40))
@example(names=["bob", "BOB@example.org", "bob%example.org", "bob*master", "bob*x"])
@example(names=["bob", "example\\BOB", "example/bob/x", "bob@example.org/x", "bob@EXAMPLE.org\\x"])
@example(names=["bob@example.org", "recent:bob@example.org", "Recent:bob@example.org"])
@example(names=["bob+x%a", "bob+x%b", "bob+y@example.org", "bob"])
def test_spellings_of_one_account_have_one_key(names: list[str]) -> None:
    for server, (settings, account) in SERVERS.items():
        key = users(**settings).key
        seen: dict[str, str] = {}
        for name in names:
            whose = account(name)
            if whose is not None:
                assert key(name) == seen.setdefault(whose, key(name)) != "", server


@pytest.mark.parametrize("server", SERVERS)
def test_other_accounts_have_other_keys(server: str) -> None:
    settings, account = SERVERS[server]
    names = ["bob", "alice", "bob@example.com", "bob@example.org", "bobby"]
    found = {account(name) for name in names} - {None}
    key = users(**settings).key
    assert len(found) > 1
    assert len({key(name) for name in names if account(name)}) == len(found)


UNSEEN = dict.fromkeys((0xAD, 0x34F, 0x1806, 0x2060, 0xFEFF, *range(0x180B, 0x180E)))
UNSEEN |= dict.fromkeys((*range(0x200B, 0x200E), *range(0xFE00, 0xFE10)))


@given(name=st.one_of(st.text(max_size=300), SPELLINGS))
@example(name="@")
@example(name="recent:")
@example(name="*master")
@example(name="/")
@example(name="example/")
@example(name="@bob")
@example(name="@@")
@example(name="@%")
def test_an_attempt_at_any_name_is_counted(name: str) -> None:
    """A name that no setting leaves anything of has a key of its own, of a bounded length."""
    for server, (settings, _) in SERVERS.items():
        key = users(**settings).key(name)
        assert len(key) <= MAX_NAME
        # A NUL ends a name; nothing is seen of the others.
        assert key or not name.partition("\0")[0].translate(UNSEEN).strip(), server


def test_a_prefix_that_is_repeated_is_no_other_user_and_takes_no_time() -> None:
    assert users(strip_prefix="recent:").key("recent:" * 100_000 + "bob") == "bob"


# --- the tables of docs/policy.md ---------------------------------------------------------------------------

CHAPTER = (CHECKOUT / "docs" / "policy.md").read_text(encoding="utf-8")


def rows(head: str) -> list[list[str]]:
    """Return the cells of a table of the chapter."""
    table = CHAPTER.partition(head)[2].partition("\n\n")[0]
    return [line.strip("|").split(" | ") for line in table.splitlines()[2:]]


def settings_in(cell: str) -> dict[str, Any]:
    """Return the settings that a cell names as TOML."""
    return tomllib.loads("\n".join(re.findall(r"`(\w+ = [^`]+)`", cell)))


def test_names_are_counted_as_the_chapter_says() -> None:
    counted = 0
    for _, setting, spellings, account in rows("| what the server does | setting |"):
        settings = settings_in(setting)
        for spelling in re.findall(r"`([^`]+)`", spellings):
            assert f"`{users(**settings).key(spelling)}`" == account.strip(), spelling
            assert settings == {"ignore_case": True} or users().key(spelling) != account.strip(" `")
            counted += 1
    assert counted == 10


def test_presets_are_what_the_chapter_says() -> None:
    for _, line, sets in rows("| server, as it comes |"):
        server = settings_in(line)["server"]
        named = {key for key in re.findall(r"`(\w+)", sets) if key != "verdicts"}
        assert named == set(PRESETS[server])
        assert ("blanks_in_names" in sets) == (server in BLANKS)


def test_lines_that_match_a_server_are_some() -> None:
    found = [settings_in(lines) for _, lines, _ in rows("| setting of the server |")]
    assert len(found) > 10
    for settings in found:
        Policy.model_validate({"users": settings})


# --- presets ------------------------------------------------------------------------------------------------


def test_what_is_written_wins_over_the_preset() -> None:
    config = Config.model_validate(
        LEAST
        | {
            "policy": {"users": {"server": "exchange", "drop_domain": False}},
            "verdicts": {"blanks_in_names": "deny"},
        }
    )
    assert config.policy is not None
    assert (config.policy.users.domain_first, config.policy.users.drop_domain) == (True, False)
    assert config.guard().blanks_in_names == "deny"


@pytest.mark.parametrize(
    ("server", "blanks"),
    [("dovecot", "whole"), ("courier", "both"), ("cyrus", "both"), ("exchange", "both")],
)
def test_a_preset_says_how_blanks_are_read(server: str, blanks: str) -> None:
    config = Config.model_validate(LEAST | {"policy": {"users": {"server": server}}})
    assert config.guard().blanks_in_names == blanks


def test_without_a_preset_blanks_are_read_both_ways() -> None:
    assert Config.model_validate(LEAST).guard().blanks_in_names == "both"
    assert Config.model_validate(LEAST | {"policy": {}}).guard().blanks_in_names == "both"


def test_a_denied_login_is_told_what_the_server_says_of_a_wrong_password() -> None:
    texts = {
        name: reply.strip(" `")
        for first, reply in rows("| `server` | what a denied login is told |")
        for name in re.findall(r"`(\w+)`", first)
    }
    assert texts == dict(DENIALS)
    for server, reply in texts.items():
        policy = Policy.model_validate(
            {
                "users": {"server": server},
                "rules": [{"name": "a"}, {"name": "b", "reply": "-ERR no"}],
                "trap_users": ["admin"],
            }
        )
        assert [rule.reply for rule in policy.rules_in_force] == [reply, "-ERR no", reply]


@pytest.mark.parametrize("server", DENIALS)
def test_the_server_s_own_words_deny_who_is_banned_and_guesses_too_much(server: str) -> None:
    hook = FailedLogins(
        Policy.model_validate(
            {"users": {"server": server}, "rules": [{"name": "a", "limits": [{"count": 1}]} | DENY]}
        ),
        live=False,
    )
    for number, denied in enumerate((False, True)):
        c = Connection("C1", "192.0.2.1", 1, "198.51.100.4", 110)
        login = (c, 1_764_000_000.0, "bob", f"{number}", "PLAIN")
        verdict = hook.pop3_login_attempt(LoginAttempt(*login))
        assert verdict == (Deny(DENIALS[server]) if denied else PASS)
        hook.pop3_login_failure(LoginFailure(*login, Reason.CREDENTIALS))
    hook.engine.ban("user:bob", 60, "", 1_764_000_000.0)
    login = (Connection("C2", "203.0.113.9", 1, "h", 110), 1_764_000_000.0, "bob", "x", "PLAIN")
    assert hook.pop3_login_attempt(LoginAttempt(*login)) == Deny(DENIALS[server])
