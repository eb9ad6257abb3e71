"""Knows which accounts there are, which names mean the same one, and which are traps; counts nothing."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import translate
from typing import Final

from ...values import shown
from .config import Policy
from .users import GLOB, Users
from .watchedfiles import PolicyFileError, WatchedFiles

MAX_NAMES: Final = 1_000_000
"""Names of a file; a million of them take some 100 MB of memory."""

MAX_LINE: Final = 1024
"""Letters of a line."""

_NO_NAME: Final = frozenset(",|/:\"' \t")
"""What is in several recipients, a program, a file or an include."""

_DEEPEST: Final = 10
"""Aliases of aliases that are followed."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the files say: all accounts, None if no file names them, and which names stand for which."""

    accounts: frozenset[str] | None
    aliases: Mapping[str, str]


class Accounts:
    """The accounts that a policy's files name, and the names that are traps."""

    def __init__(self, policy: Policy, users: Users) -> None:
        """Read the files; ``users`` learns the aliases. Raises PolicyFileError."""
        self._users = users
        self._users_file = policy.users_file
        self._aliases_file = policy.aliases_file
        self._trap = _compiled(map(users.pattern, policy.trap_users))
        self._names = Names(None, {})
        paths = [path for path in (policy.users_file, policy.aliases_file) if path is not None]
        self.files = WatchedFiles(paths, self._read, self._use)

    def is_trap(self, user: str) -> bool:
        """Return whether nobody but a guesser would try to log in as ``user``."""
        if self._trap is None or not user:
            return False
        return any(map(self._trap.fullmatch, (self._users.name(user), self._users.key(user))))

    def is_unknown(self, user: str) -> bool:
        """Return whether ``user`` has no account, as far as that is known."""
        key, accounts = self._users.key(user), self._names.accounts
        return bool(key) and accounts is not None and key not in accounts

    def _use(self, names: Names) -> str:
        self._names = names
        self._users.aliases = names.aliases
        accounts = "no" if names.accounts is None else len(names.accounts)
        return f"{accounts} accounts, {len(names.aliases)} aliases"

    def _read(self) -> Names:
        """Read the files. Raises PolicyFileError."""
        aliases: Mapping[str, str] = {}
        accounts: frozenset[str] | None = None
        if (path := self._aliases_file) is not None:
            aliases = _followed(dict(_aliases(path, self._users.name)), path)
            self._refuse_traps(aliases, "policy.aliases_file", path)
        if (path := self._users_file) is not None:
            found = {self._users.name(text) for _, text in _lines("policy.users_file", path)}
            if not found:
                raise PolicyFileError(f"policy.users_file: {path} has no names; write one a line")
            self._refuse_traps(found, "policy.users_file", path)
            accounts = frozenset(aliases.get(name, name) for name in found)
        return Names(accounts, aliases)

    def _refuse_traps(self, names: Iterable[str], place: str, path: str) -> None:
        """Refuse an account that is a trap: its owner would be banned."""
        if self._trap is None:
            return
        for name in names:
            if self._trap.fullmatch(name):
                raise PolicyFileError(
                    f"{place}: {shown(name)} in {path} is one of policy.trap_users;"
                    " take it out of one of them"
                )


def _compiled(patterns: Iterable[str]) -> re.Pattern[str] | None:
    parts = [translate(each) if GLOB & set(each) else re.escape(each) for each in patterns]
    return re.compile("|".join(f"(?:{part})" for part in parts)) if parts else None


def _lines(place: str, path: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that say something, with their numbers. Raises PolicyFileError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), ""), 1):
                if number > MAX_NAMES:
                    raise PolicyFileError(f"{place}: {path} has more than {MAX_NAMES} lines")
                if len(line) > MAX_LINE or "\0" in line:
                    raise PolicyFileError(
                        f"{place}: line {number} of {path} is no name; write one a line,"
                        f" of {MAX_LINE} letters at most"
                    )
                if line.strip() and not line.startswith("#"):
                    yield number, line.rstrip("\r\n")
    except PolicyFileError:
        raise
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or "it has no file name"
        raise PolicyFileError(
            f"{place}: cannot read {path}: {why}; name a file that we may read"
        ) from None


def _entries(path: str) -> Iterator[tuple[int, str]]:
    """Yield the entries of a file of aliases: a line that begins with a blank goes on with the one before."""
    number, entry = 0, ""
    for at, line in _lines("policy.aliases_file", path):
        if line[0] not in " \t":
            if entry:
                yield number, entry
            number, entry = at, line
        elif len(entry) <= MAX_LINE:
            entry += line
    if entry:
        yield number, entry


def _aliases(path: str, name_of: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Yield each alias with what it stands for; those of several recipients, or of programs, are none."""
    for number, entry in _entries(path):
        alias, colon, target = entry.partition(":")
        if not colon:
            alias, target = (*entry.split(maxsplit=1), "")[:2]
        alias, target = alias.strip().strip('"'), target.strip()
        if not alias or not target:
            raise PolicyFileError(
                f"policy.aliases_file: line {number} of {path} is no alias;"
                ' write it like "sales: bob"'
            )
        if not _NO_NAME & set(target):
            yield name_of(alias), name_of(target)


def _followed(aliases: Mapping[str, str], path: str) -> dict[str, str]:
    """Follow aliases of aliases to their ends. Raises PolicyFileError for those that have none."""
    found = {}
    for alias in aliases:
        account = _end_of(aliases, alias)
        if account is None:
            raise PolicyFileError(
                f"policy.aliases_file: {shown(alias)} in {path} leads to no account within"
                f" {_DEEPEST} steps; take the circle out"
            )
        found[alias] = account
    return found


def _end_of(aliases: Mapping[str, str], name: str) -> str | None:
    for _ in range(_DEEPEST + 1):
        further = aliases.get(name, name)
        if further == name:
            return name
        name = further
    return None
