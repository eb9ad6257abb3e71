"""How users, addresses and passwords become keys: what counts as the same; nothing is counted here."""

import hashlib
import hmac
import re
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from socket import AF_INET, inet_ntop, inet_pton
from typing import Final

from .config import Policy

MAX_NAME: Final = 128
"""Letters of a user in a key; of a longer one the key has a hash, so that keys stay small."""

UNKNOWN: Final = "unknown@"
"""What begins the place of a client whose address is not known."""

MAX_NUMBERED: Final = 10_000
"""Passwords that have a number at a time."""

GLOB: Final = frozenset("*?[")
"""What makes a pattern of a name."""

_BLANKS: Final = "\0\t\n\v\f\r "

_NOTHING: Final = dict.fromkeys(
    [
        *(0xAD, 0x34F, 0x1806, *range(0x180B, 0x180E), *range(0x200B, 0x200E)),
        *(0x2060, *range(0xFE00, 0xFE10), 0xFEFF),
    ]
)
"""What is not seen in a name: mapped to nothing by SASLprep (RFC 4013 section 2.1, RFC 3454 table B.1)."""


class Users:
    """Reads which account a user name means, and names it by a key.

    Whitespace around a name is trimmed, and what follows a NUL, a dot at the end of the domain and an @ with
    nothing behind it are cut off, as servers do. Spellings in Unicode are one as by SASLprep (RFC 4013). What
    else is one account is configured (``[policy.users]``). Any text is taken, also what was no UTF-8. A rule
    that would leave nothing of a name is not applied to it: an attempt at it must count, too.
    """

    def __init__(self, policy: Policy) -> None:
        users = policy.users
        self._ignore_case = users.ignore_case
        self._domain = users.default_domain.casefold()
        self._prefix = users.strip_prefix.lower() if users.ignore_case else users.strip_prefix
        self._master = users.master_separator
        self._separators = str.maketrans(dict.fromkeys(users.separators, "@"))
        # In this order. A + is cut off before separators are read: Cyrus takes "bob+x%example.org" for
        # "bob", and every domain there would be another key of it.
        steps: tuple[tuple[object, Callable[[str], str]], ...] = (
            (self._prefix, self._without_prefix),
            (self._master, self._without_master),
            (users.domain_first, _domain_behind),
            (users.plus_address, _without_detail),
            (users.separators, self._with_at),
            (users.drop_domain, _without_domain),
        )
        self._steps = tuple(step for wanted, step in steps if wanted)
        self._without_domains = users.drop_domain
        self.aliases: Mapping[str, str] = {}

    def key(self, user: str) -> str:
        """Return the name under which a user is counted, behind all aliases; empty if there is none."""
        name = self.name(user)
        return self.aliases.get(name, name)

    def pattern(self, text: str) -> str:
        """Return what a name has to be like, of a name or a pattern as of files."""
        if not GLOB & set(text):
            return self.name(text)
        text = text.casefold() if self._ignore_case else text
        local, at, _ = text.partition("@")
        if self._without_domains:
            return local
        return text if at or not self._domain else f"{text}@{self._domain}"

    def name(self, user: str) -> str:
        """Return the name that a user is counted under if it is no alias; empty if there is none."""
        name = self._folded(user)
        for step in self._steps:
            name = step(name).strip() or name
        local, at, domain = name.rpartition("@")
        domain = domain.rstrip(".")
        if at and not domain and (alone := local.rstrip("@")):
            name, at = alone, ""
        if not at:
            local, domain = name, ""
        if local and not at and self._domain:
            at, domain = "@", self._domain
        name = f"{local}{at}{domain}"
        if len(name) > MAX_NAME:
            digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
            name = f"{name[:16]}...{digest[:32]}"
        return name

    def _folded(self, user: str) -> str:
        """Trim a name, and write it as all its spellings in Unicode, and in case if that is ignored."""
        name = user.lstrip(_BLANKS).partition("\0")[0].rstrip(_BLANKS)
        if name.isascii():
            return name.lower() if self._ignore_case else name
        name = unicodedata.normalize("NFKC", name.translate(_NOTHING))
        if self._ignore_case:
            name = unicodedata.normalize("NFKC", name.casefold())
        return name.strip()

    def _without_prefix(self, name: str) -> str:
        """Cut the prefix off, as often as it stands there."""
        begin, prefix = 0, self._prefix
        while name.startswith(prefix, begin):
            begin += len(prefix)
        return name[begin:]

    def _without_master(self, name: str) -> str:
        """Cut a master user's name off: what stands before it is the account."""
        return name.partition(self._master)[0]

    def _with_at(self, name: str) -> str:
        """Write each separator as an @."""
        return name.translate(self._separators)


def _without_detail(name: str) -> str:
    """Cut off what stands between the first + and the domain; a + at the beginning is part of the name."""
    plus = name.find("+", 1)
    if plus < 0:
        return name
    at = name.rfind("@", plus)
    return name[:plus] + (name[at:] if at > 0 else "")


def _without_domain(name: str) -> str:
    """Cut off what stands behind the first @."""
    return name.partition("@")[0]


def _domain_behind(name: str) -> str:
    """Write Exchange's DOMAIN/user/alias as user@DOMAIN, and user@domain/alias without the alias."""
    first, *others = re.split(r"[\\/]", name, maxsplit=2)
    if not others or "@" in first:
        return first
    # Nothing stands between two slashes or behind the last: then the first is all there is.
    user = others[0]
    if not user:
        return first
    return f"{user}@{first}" if first and "@" not in user else user


def unknown_place(listener: str) -> str:
    """Return the place of all clients of a listener whose address is not known, as in keys of pairs."""
    return f"{UNKNOWN}{listener}"[:MAX_NAME]


class Addresses:
    """Says which addresses mean the same client, and which belong together."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._allowed = policy.allow
        # Each address of a session is asked for several times.
        self.address = lru_cache(maxsize=4096)(self._address)
        self.network = lru_cache(maxsize=4096)(self._network)
        # The keys of both, as of bans.
        self.places = lru_cache(maxsize=4096)(self._places)
        self._is_allowed = lru_cache(maxsize=4096)(self._find_allowed)

    def _places(self, host: str) -> tuple[str, str]:
        octets = _octets(host)
        if octets is None:
            return f"address:{self.address(host)}", f"network:{self.network(host)}"
        bits = self._policy.ipv4_network
        network = f"network:{_masked(octets, bits)}/{bits}"
        bits = self._policy.ipv4_prefix
        if bits == 32:
            return f"address:{host}", network
        return f"address:{_masked(octets, bits)}/{bits}", network

    def _address(self, host: str) -> str:
        found = _parsed(host)
        if found is None:
            return host[:MAX_NAME]
        bits = self._policy.ipv4_prefix if found.version == 4 else self._policy.ipv6_prefix
        return _with_prefix(found, bits)

    def _network(self, host: str) -> str:
        found = _parsed(host)
        if found is None:
            return host[:MAX_NAME]
        bits = self._policy.ipv4_network if found.version == 4 else self._policy.ipv6_network
        return _with_bits(found, bits)

    def allowed(self, host: str) -> bool:
        """Say whether a client is never counted."""
        return bool(self._allowed) and self._is_allowed(host)

    def _find_allowed(self, host: str) -> bool:
        found = _parsed(host)
        return found is not None and any(
            found.version == network.version and found in network for network in self._allowed
        )

    def ban_key(self, text: str) -> str:
        """Return the key of what an operator names: an address, a network, or a key itself.

        Raises ValueError.
        """
        kind, _, value = text.partition(":")
        if kind == "user" and value:
            return text
        if kind == "pair":
            host, _, user = value.partition("|")
            if user and host.startswith(UNKNOWN):
                return text
            if user and _parsed(host.partition("/")[0]) is not None:
                return f"pair:{self.address(host.partition('/')[0])}|{user}"
            raise ValueError(f"{text} is no pair; write it like pair:192.0.2.1|bob")
        if kind in ("address", "network") and value:
            text = value
        try:
            network: IPv4Network | IPv6Network = ip_network(text, strict=False)
        except ValueError:
            raise ValueError(
                f'{text} is nothing that can be banned; write an address, a network or "user:NAME"'
            ) from None
        host = str(network.network_address)
        if "/" not in text:
            return f"address:{self.address(host)}"
        for kind, own in (("address", self.address(host)), ("network", self.network(host))):
            if str(ip_network(own)) == str(network):
                return f"{kind}:{own}"
        bits = f"/{network.prefixlen}"
        raise ValueError(f"{bits} is not what is banned; write {self.network(host)}, or an address")


def _octets(host: str) -> int | None:
    """Read a plain IPv4 address, ten times as fast as ``ipaddress``: a flood never asks for one twice."""
    try:
        return int.from_bytes(inet_pton(AF_INET, host))
    except (OSError, ValueError):
        return None


def _masked(octets: int, bits: int) -> str:
    """Write what ``bits`` leave of it."""
    return inet_ntop(AF_INET, (octets >> 32 - bits << 32 - bits).to_bytes(4))


@lru_cache(maxsize=64)
def _parsed(host: str) -> IPv4Address | IPv6Address | None:
    """Read an address; one of IPv4 that is written as IPv6 (RFC 4291 section 2.5.5.2) is of IPv4."""
    try:
        found = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def _with_prefix(address: IPv4Address | IPv6Address, bits: int) -> str:
    if bits == address.max_prefixlen:
        return str(address)
    return _with_bits(address, bits)


def _with_bits(address: IPv4Address | IPv6Address, bits: int) -> str:
    """Write a network. The module for addresses would take five times as long for it."""
    rest = address.max_prefixlen - bits
    return f"{type(address)(int(address) >> rest << rest)}/{bits}"


class Passwords:
    """Keyed hashes of passwords, of 64 bits, and numbers to name them by."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._last = 0

    def fingerprint(self, password: str) -> str:
        """Return the hash, or nothing for a login that shows no password."""
        if not password:
            return ""
        octets = password.encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, octets, "sha256")[:8].hex()

    def named(self, fingerprint: str) -> str:
        """Return a name that tells nothing but which are the same, such as ``password#3``."""
        number = self._numbers.get(fingerprint)
        if number is None:
            self._last += 1
            number = self._numbers[fingerprint] = self._last
            if len(self._numbers) > MAX_NUMBERED:
                self._numbers.popitem(last=False)
        return f"password#{number}"
