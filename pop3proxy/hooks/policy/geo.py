"""Looks up in which country and autonomous system a client is, in local MaxMind files; decides nothing."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from .config import Policy
from .watchedfiles import PolicyFileError, WatchedFiles

MAX_OCTETS: Final = 512 * 1024 * 1024
"""Octets of a file at the most; MaxMind's largest have some 120 MB."""

_KEPT: Final = 4096
"""Addresses whose places are kept."""


class Place(NamedTuple):
    """Where an address is: a country by ISO 3166, and an AS number, both empty if they are not known."""

    country: str = ""
    asn: str = ""


NOWHERE: Final = Place()


class Geo:
    """The MaxMind files of a policy."""

    def __init__(self, policy: Policy) -> None:
        """Read the files. Raises PolicyFileError."""
        self._paths = policy.geo_files
        self._readers: Sequence[Any] = ()
        self.place = lru_cache(maxsize=_KEPT)(self._place)
        self.files = WatchedFiles(self._paths, self._read, self._use)

    def _read(self) -> list[Any]:
        """Open the files. Raises PolicyFileError."""
        if not self._paths:
            return []
        maxminddb = _library()
        return [_opened(maxminddb, path) for path in self._paths]

    def _use(self, readers: list[Any]) -> str:
        self._readers = readers
        self.place.cache_clear()
        return ", ".join(str(reader.metadata().database_type) for reader in readers)

    def _place(self, host: str) -> Place:
        country = asn = ""
        for reader in self._readers:
            found = _record(reader, host)
            country = country or _country(found)
            asn = asn or _number(found)
        return Place(country, asn)


def _library() -> ModuleType:
    try:
        import maxminddb
    except ModuleNotFoundError as problem:
        if problem.name != "maxminddb":
            raise
        raise PolicyFileError("policy.geo_files needs maxminddb; install pop3proxy[geo]") from None
    return maxminddb


def _opened(maxminddb: Any, path: str) -> Any:
    """Open a file. Raises PolicyFileError."""
    try:
        size = Path(path).stat().st_size
        if size > MAX_OCTETS:
            raise PolicyFileError(
                f"policy.geo_files: {path} has more than {MAX_OCTETS} octets; name a smaller one"
            )
        # Read as a whole: of a file that is mapped, and then written over in place, a look-up would be the
        # end of the process.
        return maxminddb.open_database(path, maxminddb.MODE_MEMORY)
    except maxminddb.InvalidDatabaseError:
        raise PolicyFileError(
            f"policy.geo_files: {path} is no MaxMind DB file;"
            " name one like GeoLite2-Country.mmdb or GeoLite2-ASN.mmdb"
        ) from None
    except PolicyFileError:
        raise
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or "it has no file name"
        raise PolicyFileError(
            f"policy.geo_files: cannot read {path}: {why}; name a file that we may read"
        ) from None


def _record(reader: Any, host: str) -> Mapping[str, Any]:
    """Look an address up; what is damaged, or no address of this file, says nothing."""
    try:
        found = reader.get(host)
    # InvalidDatabaseError is a RuntimeError; a damaged file can make the reader stumble over anything.
    except (ValueError, RuntimeError, LookupError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _country(record: Mapping[str, Any]) -> str:
    """Return the country, or else that in which the network is registered."""
    for name in ("country", "registered_country"):
        country = record.get(name)
        code = country.get("iso_code") if isinstance(country, dict) else None
        if isinstance(code, str) and code:
            return code.upper()
    return ""


def _number(record: Mapping[str, Any]) -> str:
    number = record.get("autonomous_system_number")
    return str(number) if isinstance(number, int) else ""
