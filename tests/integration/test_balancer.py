"""A real HAProxy that ends TLS before the proxy, and one that only looks whether the proxy is there."""

import re
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .conftest import Events
from .dovecot import Dovecot
from .front import ANY_PORT, FETCHED, Front, fetch, new_mailbox, running_front, trusting
from .haproxy import running_haproxy
from .popclient import PopClient
from .processes import eventually
from .proxy import configured_proxy
from .records import Record
from .tls_table import chapter_block

pytestmark = pytest.mark.integration

DEFAULTS = """
defaults
    mode tcp
    timeout connect 10s
    timeout client 1m
    timeout server 1m
"""

CLEAR = """
listen pop3
    bind $pop3
    server proxy1 127.0.0.1:{port} send-proxy-v2 proxy-v2-options ssl,crc32c
listen again
    bind $again ssl crt {pair}
    server proxy1 127.0.0.1:{implicit} ssl verify none send-proxy-v2 proxy-v2-options ssl,crc32c
listen again_clear
    bind $again_clear
    server proxy1 127.0.0.1:{implicit} ssl verify none send-proxy-v2 proxy-v2-options ssl,crc32c
"""

TRUSTING = {"proxies": ["127.0.0.0/8"], "trust_tls": True}


@pytest.fixture(scope="module")
def front(
    tls_dovecot: Dovecot,
    proxy_certificate: tuple[Path, Path],
    events_in: Events,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Front]:
    """A proxy that trusts what a load balancer says of TLS."""
    with running_front(
        tmp_path_factory.mktemp("front"),
        events_in("balancer"),
        {
            "require": {"tls": "require", **TRUSTING},
            "implicit": {"tls": "implicit", **TRUSTING},
        },
        {"endpoint": f"tcp:127.0.0.1:{tls_dovecot.port}"},
        certificates=[proxy_certificate],
    ) as front:
        yield front


@pytest.fixture(scope="module")
def haproxy(
    front: Front,
    certificates: Certificates,
    proxy_certificate: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, int]]:
    """A HAProxy as the chapter has it, which asks its clients for certificates besides."""
    folder = tmp_path_factory.mktemp("balancer")
    pair = folder / "pair.pem"
    pair.write_bytes(b"".join(path.read_bytes() for path in proxy_certificate))
    port = front.ports["require"]
    chapter = chapter_block("haproxy-tls")
    for place, other in {
        "bind :995": "bind $pop3s",
        "ssl crt /etc/haproxy/pop.example.org.pem": (
            f"ssl crt {pair} ca-file {certificates.authority} verify optional"
        ),
        "192.0.2.21:1110": f"127.0.0.1:{port}",
    }.items():
        assert place in chapter
        chapter = chapter.replace(place, other)
    clear = CLEAR.format(port=port, implicit=front.ports["implicit"], pair=pair)
    names = ("pop3s", "pop3", "again", "again_clear")
    with running_haproxy(DEFAULTS + chapter + clear, folder, *names) as ports:
        yield ports


class Naming(ssl.SSLContext):
    """A client's context that calls every server by the same name."""

    def wrap_socket(self, sock: socket.socket, **more: object) -> ssl.SSLSocket:  # type: ignore[override]
        return super().wrap_socket(sock, server_hostname="pop.example.org")


def naming(certificates: Certificates, user: str) -> ssl.SSLContext:
    """A client that shows a certificate."""
    context = Naming(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificates.authority)
    context.load_cert_chain(*certificates.client(user))
    return context


def tls_of(front: Front, start: int) -> dict[str, str]:
    """What the record of the only login says of TLS; health checks are sessions, too."""

    def logins() -> list[Record]:
        return [one for one in front.events.records(start) if one["event"] == "pop3_login_success"]

    (login,) = eventually(logins, "the login is recorded")
    return {key: value for key, value in login.items() if key.startswith("tls_") and value}


def test_tls_that_ends_at_the_load_balancer_is_in_the_records_and_enough_to_log_in(
    front: Front, haproxy: dict[str, int], tls_dovecot: Dovecot, certificates: Certificates
) -> None:
    start, account = front.events.size, new_mailbox(tls_dovecot)
    with PopClient(haproxy["pop3s"], naming(certificates, "bob")) as client:
        assert not client.ask("STLS")
        assert fetch(client, account) == FETCHED
    assert tls_of(front, start) == {
        "tls_version": "TLSv1.3",
        "tls_cipher": "TLS_AES_256_GCM_SHA384",
        "tls_server_name": "pop.example.org",
        "tls_client": "CN=bob",
    }


def test_a_client_in_clear_at_the_load_balancer_turns_tls_on_at_the_proxy(
    front: Front, haproxy: dict[str, int], tls_dovecot: Dovecot, certificates: Certificates
) -> None:
    start, account = front.events.size, new_mailbox(tls_dovecot)
    with PopClient(haproxy["pop3"]) as client:
        assert not client.ask(f"USER {account.user}")
        assert client.ask("STLS")
        client.turn_tls(trusting(certificates))
        assert fetch(client, account) == FETCHED
    assert tls_of(front, start)["tls_version"] == "TLSv1.3"


@pytest.mark.parametrize(("road", "secure"), [("again", True), ("again_clear", False)])
def test_a_load_balancer_that_encrypts_again_says_what_its_client_has(
    front: Front,
    haproxy: dict[str, int],
    tls_dovecot: Dovecot,
    certificates: Certificates,
    road: str,
    secure: bool,
) -> None:
    start, account = front.events.size, new_mailbox(tls_dovecot)
    with PopClient(haproxy[road], trusting(certificates) if secure else None) as client:
        assert fetch(client, account) == FETCHED
    assert ("tls_version" in tls_of(front, start)) is secure


# --- health checks --------------------------------------------------------------------------------------

CHECKED = """
listen checks
    bind $checks
    server port 127.0.0.1:{implicit} check inter 50ms
    server header 127.0.0.1:{behind} send-proxy-v2 check check-send-proxy inter 50ms
    server line 127.0.0.1:{behind} send-proxy check check-send-proxy inter 50ms
    server silent 127.0.0.1:{behind} check inter 50ms
    server witness 127.0.0.1:{witness} send-proxy-v2 check inter 50ms
"""
CHECKS = 10


def test_health_checks_of_implicit_listeners_are_counted_and_make_no_line(
    proxy_certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    chain, key = proxy_certificate
    configuration = (
        f'listen = [{{ endpoint = "{ANY_PORT}", tls = "implicit" }},'
        f' {{ endpoint = "{ANY_PORT}", tls = "implicit", proxies = ["127.0.0.1"] }}]\n'
        'upstream = "tcp:127.0.0.1:1"\n'
        f'[[tls.certificates]]\nchain = "{chain}"\nkey = "{key}"\n'
    )
    with configured_proxy(configuration, tmp_path) as proxy:
        implicit, behind = proxy.ports(2)
        with socket.create_server(("127.0.0.1", 0)) as witness:
            witness.settimeout(60)
            ports = {"implicit": implicit, "behind": behind, "witness": witness.getsockname()[1]}
            checked = DEFAULTS + CHECKED.format(**ports)
            with running_haproxy(checked, tmp_path, "checks"):
                for _ in range(CHECKS):
                    witness.accept()[0].close()
        proxy.process.send_signal(signal.SIGTERM)
        (counted,) = proxy.logged(r"stopped; counted: left_early (\d+)$").groups()
    # Those with a header are made as often as the witness's, give or take what is on its way at the end. The
    # others most often end before the handshake of TCP is complete, and are not accepted.
    assert int(counted) >= 2 * (CHECKS - 2)
    log = (tmp_path / "pop3proxy.log").read_text()
    own = re.compile("nobody hears|listening on|ending;|stopped;")
    assert [line for line in log.splitlines() if not own.search(line)] == []
