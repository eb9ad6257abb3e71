"""What `[policy.users]` may say: which ways to write a user name are one account; no name is read here."""

import re
import string
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, model_validator

from ...values import Switch, Table, shown
from ..api import Deny

Server = Literal["dovecot", "courier", "cyrus", "exchange"]

BlanksInNames = Literal["both", "whole", "deny"]

PRESETS: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        # auth_username_format is %Lu: the whole name, in lower case.
        "dovecot": {"ignore_case": True},
        # Databases of LDAP and SQL ignore case; where one does not, other cases are no accounts.
        "courier": {"ignore_case": True},
        # imapd.conf(5): username_tolower; virtdomains reads "%" as "@"; popsubfolders reads user+folder.
        "cyrus": {"ignore_case": True, "separators": "%", "plus_address": True},
        # A logon domain (EXAMPLE) and the suffix of a UPN (example.org) differ in text, and mean the same.
        "exchange": {"ignore_case": True, "domain_first": True, "drop_domain": True},
    }
)
"""What each server does unless it is configured otherwise; docs/policy.md has the sources."""

BLANKS: Final[Mapping[str, BlanksInNames]] = MappingProxyType({"dovecot": "whole"})
"""How a server is known to read blanks in names, where that is known."""

DENIALS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "dovecot": "-ERR [AUTH] Authentication failed.",
        "courier": "-ERR Login failed.",
        "cyrus": "-ERR [AUTH] Invalid login",
        "exchange": "-ERR Logon failure: unknown user name or bad password.",
    }
)
"""What each server says of a wrong password: Dovecot 2.3, Courier 1.0, Cyrus IMAP 3.6, Exchange 2019."""

DOMAIN_FIRST: Final = "\\/"
"""The characters behind the domain in Windows' and Exchange's way to write a name."""

_SIGNS: Final = frozenset(string.punctuation) - set("@+-._")
"""What can separate parts of a name; those left out stand in names themselves."""


def _signs(text: str) -> str:
    """Refuse what cannot stand for an `@`."""
    for sign in text:
        if sign not in _SIGNS:
            raise ValueError(f'{shown(sign)} is no separator; write characters like "%:"')
    return text


def _master_sign(text: str) -> str:
    """Refuse what cannot stand before a master user's name."""
    if text and (len(text) > 1 or text not in _SIGNS):
        raise ValueError(f'{shown(text)} is no separator; write one character like "*"')
    return text


def _prefix(text: str) -> str:
    """Refuse what cannot stand before a name, or is one itself."""
    if text and not re.fullmatch(r"[!-?A-~]{0,63}[!-/:-?\[-`{-~]", text):
        raise ValueError(
            f"{shown(text)} is no prefix; write up to 64 visible characters without @,"
            ' the last of them no letter or digit, like "recent:"'
        )
    return text


class PolicyUsers(Table):
    """Which ways to write a user name are one account, as the mail server has it."""

    @model_validator(mode="before")
    @classmethod
    def _laid_over_the_preset(cls, found: object) -> object:
        if not isinstance(found, Mapping):
            return found
        server = found.get("server")
        preset: Mapping[str, Any] = PRESETS.get(server, {}) if isinstance(server, str) else {}
        return {**preset, **found}

    server: Server | None = None
    """The mail server: sets the keys below, `verdicts.blanks_in_names` and what denied logins are told, as it
    does unless configured otherwise; what is written besides wins."""
    ignore_case: Switch = True
    """Users that differ in case only are one."""
    default_domain: str = ""
    """Added to users without a domain, as the mail server does."""
    drop_domain: Switch = False
    """`bob@example.org` and `bob@example.com` are `bob`: the mail server ignores domains."""
    separators: Annotated[str, AfterValidator(_signs)] = ""
    """Further characters that stand for `@`: by `%:` `bob%example.org` is `bob@example.org`."""
    domain_first: Switch = False
    r"""`EXAMPLE\bob`, `EXAMPLE/bob` and `EXAMPLE/bob/alias` are `bob@EXAMPLE`, and `bob@example.org/alias` is
    `bob@example.org`, as Exchange has it."""
    strip_prefix: Annotated[str, AfterValidator(_prefix)] = ""
    """What may stand before a name: by `recent:` `recent:bob` is `bob`."""
    master_separator: Annotated[str, AfterValidator(_master_sign)] = ""
    """What stands before a master user's name: by `*` a failed login as `bob*master` counts as bob's."""
    plus_address: Switch = False
    """`bob+lists@example.org` is `bob@example.org`."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.drop_domain and self.default_domain:
            by_preset = "drop_domain" in PRESETS.get(self.server or "", {})
            preset = f' (server = "{self.server}" sets it)' if by_preset else ""
            raise ValueError(
                f"drop_domain drops default_domain, too{preset}; leave default_domain out,"
                " or set drop_domain = false"
            )
        if self.domain_first and set(DOMAIN_FIRST) & set(self.separators):
            raise ValueError(
                r"separators: \ and / are those of domain_first; leave them out, or set that to false"
            )
        if self.master_separator and self.master_separator in self.separators:
            raise ValueError(
                f"separators: {shown(self.master_separator)} is the master_separator; leave one out"
            )
        if self.domain_first and self.master_separator in tuple(DOMAIN_FIRST):
            raise ValueError(
                r"master_separator: \ and / are those of domain_first; write another like" ' "*"'
            )
        return self

    @property
    def denial(self) -> str:
        """What a denied login is told where no rule says it: as of a wrong password."""
        return DENIALS.get(self.server or "", Deny().reply)

    @property
    def blanks(self) -> BlanksInNames:
        """How the mail server reads blanks in names, as far as is known."""
        return BLANKS.get(self.server or "", "both")
