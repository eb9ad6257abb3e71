"""The example configurations with TLS: each is started, changed in its places only, and serves clients."""

from collections.abc import Mapping
from pathlib import Path
from string import Template

import pytest

from .certificates import Certificates
from .conftest import Events
from .dovecot import Dovecot
from .front import ANY_PORT, FETCHED, fetch, new_mailbox, trusting
from .haproxy import running_haproxy
from .popclient import Attempt, PopClient
from .processes import eventually
from .proxy import CHECKOUT, configured_proxy
from .tls_table import chapter_block

pytestmark = pytest.mark.integration


def example(name: str, places: Mapping[str, str]) -> str:
    """An example of ``conf/`` with other places in it."""
    text = (CHECKOUT / "conf" / name).read_text(encoding="utf-8")
    return replaced(text, places)


def replaced(text: str, places: Mapping[str, str]) -> str:
    for place, other in places.items():
        assert place in text
        text = text.replace(place, other)
    return text


def test_the_example_in_front_of_dovecot_serves_both_ports_and_tells_the_address(
    tls_dovecot: Dovecot,
    certificates: Certificates,
    proxy_certificate: tuple[Path, Path],
    events_in: Events,
    tmp_path: Path,
) -> None:
    chain, key = proxy_certificate
    events = events_in("front-dovecot")
    configuration = example(
        "front-dovecot.toml",
        {
            '"tcp:110"': f'"{ANY_PORT}"',
            '"tcp:995"': f'"{ANY_PORT}"',
            '"tcp:127.0.0.1:1110"': f'"tcp:127.0.0.1:{tls_dovecot.port}"',
            "/etc/pop3proxy/mail.example.org.pem": str(chain),
            "/etc/pop3proxy/mail.example.org.key": str(key),
            '"pop3-events.jsonl"': f'"{events.path}"',
        },
    )
    context = trusting(certificates)
    with configured_proxy(configuration, tmp_path) as proxy:
        pop3, pop3s = proxy.ports(2)
        with PopClient(pop3, address="127.0.0.5") as client:
            assert not client.ask("XCLIENT ADDR=198.51.100.1")
            assert client.ask("STLS")
            client.turn_tls(context)
            first = new_mailbox(tls_dovecot)
            assert fetch(client, first) == FETCHED
        with PopClient(pop3s, context, address="127.0.0.6") as client:
            second = new_mailbox(tls_dovecot)
            assert fetch(client, second) == FETCHED
        seen = [
            one.said("pop3_login_success", "id.orig_h", "user") for one in events.sessions(0, 2)
        ]
    users = {first.user: "127.0.0.5", second.user: "127.0.0.6"}
    assert seen == [[(address, user)] for user, address in users.items()]
    assert_server_knows(tls_dovecot, users)


def assert_server_knows(dovecot: Dovecot, users: Mapping[str, str]) -> None:
    """Its log has the clients' addresses."""

    def logged() -> bool:
        judged = {one.user: one.address for one in dovecot.judged_logins() if one.user in users}
        return judged == users

    eventually(logged, "the server has logged the clients' addresses")


def test_the_example_behind_haproxy_learns_the_address_and_passes_it_on(
    tls_dovecot: Dovecot,
    certificates: Certificates,
    proxy_certificate: tuple[Path, Path],
    events_in: Events,
    tmp_path: Path,
) -> None:
    """The authority is one of the system's here: the example names none."""
    chain, key = proxy_certificate
    events = events_in("behind-haproxy")
    configuration = example(
        "behind-haproxy.toml",
        {
            '"tcp:1110"': f'"{ANY_PORT}"',
            '"tcp:1995"': f'"{ANY_PORT}"',
            '"192.0.2.10", "192.0.2.11"': '"127.0.0.1"',
            "tcp:mail.example.org:110": f"tcp:127.0.0.1:{tls_dovecot.port}",
            "/etc/pop3proxy/pop.example.org.pem": str(chain),
            "/etc/pop3proxy/pop.example.org.key": str(key),
            '"pop3-events.jsonl"': f'"{events.path}"',
        },
    )
    system = {"SSL_CERT_FILE": str(certificates.authority)}
    context = trusting(certificates)
    with configured_proxy(configuration, tmp_path, system) as proxy:
        pop3, pop3s = proxy.ports(2)
        haproxy = replaced(
            chapter_block("haproxy"),
            {
                "bind :110": "bind $pop3",
                "bind :995": "bind $pop3s",
                "192.0.2.21:1110": f"127.0.0.1:{pop3}",
                "192.0.2.22:1110": f"127.0.0.1:{pop3}",
                "192.0.2.21:1995": f"127.0.0.1:{pop3s}",
                "192.0.2.22:1995": f"127.0.0.1:{pop3s}",
            },
        )
        assert Template(haproxy).is_valid()
        with running_haproxy(haproxy, tmp_path, "pop3", "pop3s") as ports:
            with PopClient(ports["pop3"], address="127.0.0.5") as client:
                assert client.ask("STLS")
                client.turn_tls(context)
                first = new_mailbox(tls_dovecot)
                assert fetch(client, first) == FETCHED
            with PopClient(ports["pop3s"], context, address="127.0.0.6") as client:
                second = new_mailbox(tls_dovecot)
                assert fetch(client, second) == FETCHED
        seen = [
            one.said("pop3_login_success", "id.orig_h", "user") for one in events.sessions(0, 2)
        ]
    users = {first.user: "127.0.0.5", second.user: "127.0.0.6"}
    assert seen == [[(address, user)] for user, address in users.items()]
    assert_server_knows(tls_dovecot, users)


def test_the_example_with_policy_takes_no_password_in_clear_and_says_what_it_would_do(
    tls_dovecot: Dovecot,
    certificates: Certificates,
    proxy_certificate: tuple[Path, Path],
    events_in: Events,
    tmp_path: Path,
) -> None:
    chain, key = proxy_certificate
    events = events_in("policy")
    configuration = example(
        "policy.toml",
        {
            '{ endpoint = "tcp:1110"': f'{{ endpoint = "{ANY_PORT}"',
            '{ endpoint = "tcp:1995"': f'{{ endpoint = "{ANY_PORT}"',
            '"tcp:127.0.0.1:110"': f'"tcp:127.0.0.1:{tls_dovecot.port}"',
            "/etc/pop3proxy/mail.example.org.pem": str(chain),
            "/etc/pop3proxy/mail.example.org.key": str(key),
            '"pop3-events.jsonl"': f'"{events.path}"',
        },
    )
    context = trusting(certificates)
    account = new_mailbox(tls_dovecot)
    with configured_proxy(configuration, tmp_path) as proxy:
        pop3, pop3s = proxy.ports(2)
        with PopClient(pop3, address="127.0.0.5") as client:
            assert not client.ask(f"USER {account.user}")
            assert client.ask("STLS")
            client.turn_tls(context)
            guesses = [Attempt(account.user, f"wrong{n}", "PLAIN", True) for n in range(6)]
            assert not any(map(client.log_in, guesses))
            # A dry run refuses nobody.
            assert fetch(client, account) == FETCHED
        with PopClient(pop3s, context, address="127.0.0.6") as client:
            assert fetch(client, account) == FETCHED
        first, second = events.sessions(0, 2)
    judged = [one for one in tls_dovecot.judged_logins() if one.user == account.user]
    assert len(judged) == 6 + 2
    assert ("guessing", "deny", True) in first.said("pop3_policy", "rule", "action", "dry_run")
    # The right password from elsewhere, behind six wrong ones, is worth a line.
    said = second.said("pop3_policy", "rule", "action", "dry_run")
    assert said == [("likely-guessed", "log", True)]
    # The state of the policy is where the example says.
    assert (tmp_path / "pop3-policy.json").exists()
