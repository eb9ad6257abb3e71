"""What is known of addresses: how they are written, their network, country and provider; no SQL is asked.

The engine has no type for addresses without an extension that it would download. So the distinct addresses
of the records are worked out here, and compared as integers.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from .problems import ReportError, Unanswerable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

IPV4_NETWORK: Final = 24
IPV6_NETWORK: Final = 48
"""The prefixes of what is called a network, as in `[policy]`."""

UNKNOWN: Final = "unknown@"
"""What the source of a client without an address begins with; its listener follows."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one source. The last three are None without a file that knows them."""

    source: str
    address: str
    network: str | None
    country: str | None = None
    asn: int | None = None
    as_name: str | None = None


def network(text: str) -> Network:
    """Read an address or network that was asked for. Raises Unanswerable."""
    try:
        found = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise Unanswerable(
            f"--address {text}: is no address; write it like 192.0.2.7 or 2001:db8::/32"
        ) from None
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= 96:
        mapped = found.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network((mapped, found.prefixlen - 96), strict=False)
    return found


def read(source: str) -> Address | None:
    """Read the source of a record; None for a path, an unknown client, or what is no address."""
    try:
        found = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


class Wanted:
    """The networks that were asked for, as ranges of integers."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._ranges = [
            (each.version, int(each.network_address), int(each.broadcast_address))
            for each in networks
        ]

    def __contains__(self, address: Address | None) -> bool:
        if address is None:
            return False
        number, version = int(address), address.version
        return any(version == of and first <= number <= last for of, first, last in self._ranges)


class Places:
    """Local files of MaxMind's format that know where addresses are."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Open the files. Raises ReportError."""
        self._readers: list[tuple[str, Any]] = []
        for path in paths:
            self._readers.append((path, _opened(path)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _, reader in self._readers:
            reader.close()

    def known(self, source: str, address: Address | None) -> Known:
        """Return what is known of a source, whose address is as read."""
        if address is None:
            return Known(source, source, None)
        written = str(address)
        prefix = IPV4_NETWORK if address.version == 4 else IPV6_NETWORK
        around = str(ipaddress.ip_network((address, prefix), strict=False))
        country, asn, as_name = self._place(address)
        return Known(source, written, around, country, asn, as_name)

    def _place(self, address: Address) -> tuple[str | None, int | None, str | None]:
        country, asn, as_name = None, None, None
        for path, reader in self._readers:
            said = _looked_up(path, reader, address)
            country = country or _text(_table(said, "country").get("iso_code"))
            number = said.get("autonomous_system_number")
            asn = asn or (number if isinstance(number, int) else None)
            as_name = as_name or _text(said.get("autonomous_system_organization"))
        return country, asn, as_name


def _looked_up(path: str, reader: Any, address: Address) -> dict[str, Any]:
    """Return what a file says of an address; nothing if there is nothing."""
    try:
        said = reader.get(address)
    except ValueError:
        return {}  # an IPv6 address, and a file of IPv4 alone
    # The library's own exception, which cannot be named here without importing it.
    except RuntimeError:
        raise ReportError(f"{path}: is damaged; download it again") from None
    return said if isinstance(said, dict) else {}


def _table(said: dict[str, Any], key: str) -> dict[str, Any]:
    found = said.get(key)
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _opened(path: str) -> Any:
    try:
        import maxminddb
    except ModuleNotFoundError:
        raise ReportError(
            "--geo needs the package maxminddb; install it with pip install 'pop3proxy[geo]'"
        ) from None
    try:
        return maxminddb.open_database(path)
    except OSError as problem:
        raise ReportError(
            f"{path}: cannot be read: {problem.strerror}; name a file like GeoLite2-Country.mmdb"
        ) from None
    except (maxminddb.InvalidDatabaseError, ValueError):
        raise ReportError(
            f"{path}: is no MaxMind file; name a file like GeoLite2-Country.mmdb"
        ) from None
