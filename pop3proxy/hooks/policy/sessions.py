"""Which sessions are open, by the keys for which they end when these are banned."""

from collections.abc import Iterable


class OpenSessions:
    """The keys of each open session, and the sessions of each key."""

    def __init__(self) -> None:
        self._keys: dict[str, set[str]] = {}
        self._open: dict[str, set[str]] = {}

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._keys)

    def remember(self, uid: str, keys: Iterable[str]) -> None:
        """Note that a session has these keys, too."""
        # Of each connection, and a flood has many: without a set that is made in vain.
        held = self._keys.get(uid)
        if held is None:
            held = self._keys[uid] = set()
        held.update(keys)
        for key in keys:
            uids = self._open.get(key)
            if uids is None:
                self._open[key] = {uid}
            else:
                uids.add(uid)

    def forget(self, uid: str) -> None:
        """Forget a session that has ended."""
        for key in self._keys.pop(uid, ()):
            uids = self._open[key]
            uids.discard(uid)
            if not uids:
                del self._open[key]

    def of(self, key: str) -> set[str]:
        """Return the sessions of a key."""
        return set(self._open.get(key, ()))
