"""The client's address: told to a Dovecot by PROXY headers and XCLIENT, learned from a real HAProxy."""

import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from .certificates import Certificates
from .conftest import Events
from .dovecot import Account, Dovecot
from .front import FETCHED, Front, Settings, fetch, new_mailbox, running_front, trusting
from .haproxy import running_haproxy
from .popclient import PopClient, ServerGoneError
from .processes import eventually

pytestmark = pytest.mark.integration

FROM_PROXIES = {"proxies": ["127.0.0.0/8"]}
LISTENERS: Mapping[str, Settings] = {
    "direct": {"tls": "terminate"},
    "proxied": {"tls": "terminate", **FROM_PROXIES},
    "proxied_pop3s": {"tls": "implicit", **FROM_PROXIES},
    "inside_tls": {"tls": "implicit", "proxy_header": "inside_tls", **FROM_PROXIES},
    "stranger": {"tls": "terminate", "proxies": ["192.0.2.0/24"]},
}


def ways_out(dovecot: Dovecot, certificates: Certificates) -> dict[str, Settings]:
    """Every way to tell the server, before and behind TLS."""
    plain, plain_proxied = dovecot.ports.pop3, dovecot.ports.pop3_behind_proxies
    verified = {"ca": certificates.authority}
    return {
        "v1": {"endpoint": f"tcp:127.0.0.1:{plain_proxied}", "proxy_protocol": "v1"},
        "v2": {"endpoint": f"tcp:127.0.0.1:{plain_proxied}", "proxy_protocol": "v2"},
        "xclient": {"endpoint": f"tcp:127.0.0.1:{plain}", "xclient": True},
        "v2-tls": {
            "endpoint": f"tcp:127.0.0.1:{dovecot.ports.pop3s_behind_proxies}",
            "proxy_protocol": "v2",
            "tls": "tls",
            **verified,
        },
        "v1-starttls": {
            "endpoint": f"tcp:127.0.0.1:{plain_proxied}",
            "proxy_protocol": "v1",
            "tls": "starttls",
            **verified,
        },
        "xclient-starttls": {
            "endpoint": f"tcp:127.0.0.1:{plain}",
            "xclient": True,
            "tls": "starttls",
            **verified,
        },
    }


WAYS_OUT = ("v1", "v2", "xclient", "v2-tls", "v1-starttls", "xclient-starttls")


@pytest.fixture(scope="module")
def fronts(
    tls_dovecot: Dovecot,
    certificates: Certificates,
    proxy_certificate: tuple[Path, Path],
    events_in: Events,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mapping[str, Front]]:
    """A proxy for every way to tell the server."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                running_front(
                    tmp_path_factory.mktemp(name),
                    events_in(f"address-{name}"),
                    LISTENERS,
                    upstream,
                    certificates=[proxy_certificate],
                )
            )
            for name, upstream in ways_out(tls_dovecot, certificates).items()
        }


@pytest.fixture
def account(tls_dovecot: Dovecot) -> Account:
    """Someone with one message."""
    return new_mailbox(tls_dovecot)


def header_v1(source: str, source_port: int) -> bytes:
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {source} {source_port} 110\r\n".encode()


def header_v2(source: str, source_port: int) -> bytes:
    packed = ip_address(source).packed
    family = 0x21 if len(packed) == 16 else 0x11
    addresses = packed * 2 + struct.pack("!HH", source_port, 110)
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, family, len(addresses)) + addresses


def assert_told(
    front: Front, start: int, dovecot: Dovecot, account: Account, client: tuple[str, int]
) -> None:
    """The proxy's events and the server's log have the client's address."""
    (recorded,) = front.sessions(start)
    assert recorded.said("pop3_login_success", "user") == [(account.user,)]
    found = {(record["id.orig_h"], record["id.orig_p"]) for record in recorded.records}
    assert found == {client}
    judged = eventually(
        lambda: [one for one in dovecot.judged_logins() if one.user == account.user],
        "the server has logged the login",
    )
    assert [(one.address, one.port) for one in judged] == [client]


@pytest.mark.parametrize("way_out", WAYS_OUT)
def test_the_server_is_told_where_a_client_comes_from(
    fronts: Mapping[str, Front], tls_dovecot: Dovecot, account: Account, way_out: str
) -> None:
    front = fronts[way_out]
    start = front.events.size
    with PopClient(front.ports["direct"], address="127.0.0.7") as client:
        assert fetch(client, account) == FETCHED
        address = (client.address, client.port)
    assert_told(front, start, tls_dovecot, account, address)


@pytest.mark.parametrize("way_out", WAYS_OUT)
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("address", ["2001:db8::7", "198.51.100.7"])
def test_an_address_from_a_header_is_passed_on_whatever_its_family(
    fronts: Mapping[str, Front],
    tls_dovecot: Dovecot,
    account: Account,
    way_out: str,
    version: str,
    address: str,
) -> None:
    header = {"v1": header_v1, "v2": header_v2}[version]
    front = fronts[way_out]
    start = front.events.size
    with PopClient(front.ports["proxied"], first=header(address, 40_000)) as client:
        assert fetch(client, account) == FETCHED
    assert_told(front, start, tls_dovecot, account, (address, 40_000))


@pytest.mark.parametrize(
    ("listener", "first"),
    [
        pytest.param("proxied", b"CAPA\r\n", id="none-from-a-proxy"),
        pytest.param("stranger", header_v1("198.51.100.7", 40_000), id="one-from-a-stranger"),
        pytest.param("stranger", header_v2("198.51.100.7", 40_000), id="v2-from-a-stranger"),
    ],
)
def test_a_header_that_is_missing_or_not_believed_ends_the_connection(
    fronts: Mapping[str, Front], listener: str, first: bytes
) -> None:
    front = fronts["xclient"]
    start = front.events.size
    said = b"USER somebody\r\nPASS secret\r\n"
    # The greeting may come, since a server speaks first; the end must.
    with (
        suppress(ServerGoneError, ConnectionResetError),
        PopClient(front.ports[listener], first=first + said) as client,
    ):
        client.read_to_the_end()
    records = front.events.records(start)
    assert [one for one in records if one["event"] == "pop3_login_attempt"] == []


@pytest.mark.parametrize(
    ("settings", "explained"),
    [
        pytest.param({"xclient": True}, "it refuses XCLIENT: ", id="xclient-untrusted"),
        pytest.param({"tls": "starttls"}, "it refuses STLS, ", id="no-stls"),
    ],
)
def test_a_dovecot_that_refuses_what_is_set_is_explained(
    dovecot: Dovecot,
    events_in: Events,
    tmp_path: Path,
    settings: Settings,
    explained: str,
    request: pytest.FixtureRequest,
) -> None:
    """It trusts 127.0.0.1 only, and has no TLS."""
    endpoint = f"tcp:127.0.0.1:{dovecot.port}:bindAddress=127.0.0.2"
    events = events_in(request.node.callspec.id)
    upstream = {"endpoint": endpoint, **settings}
    with running_front(tmp_path, events, {"plain": {"tls": "none"}}, upstream) as front:
        with PopClient(front.ports["plain"]) as client:
            assert client.greeting.startswith("-ERR [SYS/TEMP] ")
            client.read_to_the_end()
        front.proxy.logged(explained)
        (recorded,) = front.sessions(0)
    assert recorded.of("pop3_reply", "pop3_login_attempt") == []


def test_a_header_inside_tls_is_believed_too(
    fronts: Mapping[str, Front],
    tls_dovecot: Dovecot,
    certificates: Certificates,
    account: Account,
) -> None:
    front = fronts["v2-tls"]
    start = front.events.size
    inside = header_v2("2001:db8::7", 40_000)
    port = front.ports["inside_tls"]
    with PopClient(port, trusting(certificates), first_inside=inside) as client:
        assert fetch(client, account) == FETCHED
    assert_told(front, start, tls_dovecot, account, ("2001:db8::7", 40_000))


# --- behind HAProxy -------------------------------------------------------------------------------------

HAPROXY = """
defaults
    mode tcp
    timeout connect 10s
    timeout client 10m
    timeout server 10m
listen v1
    bind $v1
    server pop3proxy 127.0.0.1:{proxied} send-proxy
listen v2
    bind $v2
    server pop3proxy 127.0.0.1:{proxied} send-proxy-v2
listen pop3s
    bind $pop3s
    server pop3proxy 127.0.0.1:{proxied_pop3s} send-proxy-v2
listen ended_tls
    bind $ended_tls ssl crt {pair}
    server pop3proxy 127.0.0.1:{proxied} send-proxy-v2-ssl-cn
"""
ROADS = ("v1", "v2", "pop3s", "ended_tls")


@pytest.fixture(scope="module")
def haproxy(
    fronts: Mapping[str, Front],
    proxy_certificate: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mapping[str, int]]:
    """A HAProxy before the proxy that speaks XCLIENT, with a port for every road."""
    folder = tmp_path_factory.mktemp("haproxy")
    pair = folder / "pair.pem"
    pair.write_bytes(b"".join(path.read_bytes() for path in proxy_certificate))
    ports = fronts["xclient"].ports
    configuration = HAPROXY.format(pair=pair, **ports)
    with running_haproxy(configuration, folder, *ROADS) as haproxy:
        yield haproxy


@pytest.mark.parametrize("road", ROADS)
def test_the_client_before_a_haproxy_is_the_one_in_the_events_and_in_the_servers_log(
    fronts: Mapping[str, Front],
    haproxy: Mapping[str, int],
    tls_dovecot: Dovecot,
    certificates: Certificates,
    account: Account,
    road: str,
) -> None:
    front = fronts["xclient"]
    start = front.events.size
    context = trusting(certificates) if road in ("pop3s", "ended_tls") else None
    with PopClient(haproxy[road], context, address="127.0.0.9") as client:
        assert fetch(client, account) == FETCHED
        address = (client.address, client.port)
    assert_told(front, start, tls_dovecot, account, address)
