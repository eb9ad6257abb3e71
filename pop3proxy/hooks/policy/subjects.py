"""What operators ask about, by the names that they write; knows nothing of it."""

from ipaddress import ip_network
from typing import Any, NamedTuple

from .engine import Engine
from .users import UNKNOWN


class Subject(NamedTuple):
    """What is asked about: ``keys`` such as ``address:192.0.2.1``, and all pairs of an address or a user."""

    keys: tuple[str, ...]
    address: str = ""
    user: str = ""

    def has_pair(self, pair: str) -> bool:
        """Return whether a pair is one of the address or user."""
        place, _, user = pair.partition("|")
        return bool(
            (self.address and self.address == place) or (self.user and user and self.user == user)
        )

    def concerns(self, key: str) -> bool:
        """Return whether a decision about a key says something of it: not if that is another pair."""
        pair = self.keys[0]
        return not (pair.startswith("pair:") and key.startswith("pair:")) or key == pair


def keys_of(engine: Engine, name: str) -> list[str]:
    """Return the keys that a name stands for: of an address that of its network, too. Raises ValueError."""
    key = engine.addresses.ban_key(f"pair:{name}" if _is_pair(name) else name)
    kind, _, value = key.partition(":")
    if kind == "user":
        return [f"user:{_account(engine, value)}"]
    if kind == "pair":
        host, _, user = value.partition("|")
        return [f"pair:{host}|{_account(engine, user)}"]
    if kind == "address":
        return [key, f"network:{engine.addresses.network(value.partition('/')[0])}"]
    return [key]


def _account(engine: Engine, user: str) -> str:
    account = engine.users.key(user)
    if not account:
        raise ValueError(
            "nothing is left of the user's name once it is normalised; name an account"
        )
    return account


def subject_of(engine: Engine, name: str) -> Subject:
    """Return what a name is about: what is no address, network or pair is a user. Raises ValueError."""
    keys = keys_of(engine, f"user:{name}" if _is_user(name) else name)
    kind, _, value = keys[0].partition(":")
    if kind == "pair":
        host, _, user = value.partition("|")
        there = () if host.startswith(UNKNOWN) else keys_of(engine, host)
        return Subject((*keys, *there, f"user:{user}"))
    if kind == "address":
        return Subject(tuple(keys), address=value)
    return Subject(tuple(keys), user=value if kind == "user" else "")


def _is_pair(name: str) -> bool:
    """Return whether a name is an address, a bar and a user."""
    host, bar, _ = name.partition("|")
    return bool(bar) and is_place(host)


def _is_user(name: str) -> bool:
    """Return whether a name is of a user: not what begins like a key or is meant for an address."""
    if name.partition(":")[0] in ("address", "network", "user", "pair"):
        return False
    return not is_place(name) and not _is_pair(name) and not set(name) <= set("0123456789./")


def is_place(name: str) -> bool:
    """Return whether a name is an address or a network."""
    try:
        ip_network(name, strict=False)
    except ValueError:
        return False
    return True


def overlap(key: str, place: str) -> bool:
    """Return whether two keys of addresses or networks have an address in common; no other keys have one."""
    kind, _, value = key.partition(":")
    if kind not in ("address", "network") or not is_place(value):
        return False
    one: Any = ip_network(value)
    other: Any = ip_network(place.partition(":")[2])
    return one.version == other.version and bool(one.overlaps(other))
