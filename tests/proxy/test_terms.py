"""What each mode of a listener answers, refuses and shows, before TLS and inside it."""

from typing import Any

import pytest

from pop3proxy.analyzer.dialogue import Analyzer
from pop3proxy.analyzer.events import LoginAttempt, Request, Side, StartTLS
from pop3proxy.analyzer.steps import Step
from pop3proxy.config import Listener, Upstream
from pop3proxy.hooks.api import Deny
from pop3proxy.hooks.policy.commands import TLS_REQUIRED
from pop3proxy.proxy.capabilities import Edits
from pop3proxy.proxy.terms import ALREADY_ON, NO_TLS, Terms, terms_for

from ..analyzer.player import new_connection


def terms(mode: Any, upstream: Any = "plain") -> Terms:
    found = terms_for(
        Listener(endpoint="tcp:1110", tls=mode),
        Upstream(endpoint="tcp:localhost:110", tls=upstream),
    )
    assert found is not None
    return found


def step(line: bytes) -> Step:
    analyzer = Analyzer(new_connection(), gated=frozenset({StartTLS}))
    analyzer.feed(Side.SERVER, b"+OK\r\n", 0.0)
    assert analyzer.next(Side.SERVER)
    analyzer.feed(Side.CLIENT, line + b"\r\n", 0.0)
    found = analyzer.next(Side.CLIENT)
    assert found is not None
    return found


def test_who_has_no_part_in_tls_has_no_terms() -> None:
    listener, upstream = Listener(endpoint="tcp:1110"), Upstream(endpoint="tcp:localhost:110")
    assert terms_for(listener, upstream) is None


@pytest.mark.parametrize(
    ("mode", "secure", "answer"),
    [
        ("none", False, NO_TLS),
        ("none", True, ALREADY_ON),
        ("implicit", True, ALREADY_ON),
        ("terminate", True, ALREADY_ON),
        ("require", True, ALREADY_ON),
        ("terminate", False, None),
        ("require", False, None),
    ],
)
def test_stls_is_taken_or_refused(mode: str, secure: bool, answer: Deny | None) -> None:
    assert terms(mode).denial(step(b"stls"), secure) is answer
    assert terms(mode).takes_stls(secure) is (answer is None)


@pytest.mark.parametrize("upstream", ["tls", "starttls"])
def test_stls_that_is_passed_stays_the_server_s_before_tls_of_ours(upstream: str) -> None:
    passing = terms("pass", upstream)
    assert passing.denial(step(b"STLS"), False) is None
    assert passing.denial(step(b" STLS"), False) is None
    assert not passing.takes_stls(False)
    assert passing.gates(False) == frozenset()
    assert passing.edits(False) == Edits(bound=True)


@pytest.mark.parametrize("line", [b" STLS", b"STLS\t", b"\x01stls"])
def test_stls_to_some_servers_is_stls(line: bytes) -> None:
    assert terms("none").denial(step(line), False) is NO_TLS
    assert terms("terminate").denial(step(line), False) is None
    assert step(line).stls


@pytest.mark.parametrize("line", [b"\0stls", b"NOOP\rSTLS", b"STLS\0x", b"NOOP\r"])
def test_a_line_that_is_not_one_line_to_every_server_does_not_pass(line: bytes) -> None:
    assert step(line).refusal is not None


@pytest.mark.parametrize("line", [b"STLSX", b"NOOP STLS", b"XSTLS", b"NOOP", b""])
def test_what_is_stls_to_nobody_passes(line: bytes) -> None:
    assert terms("terminate").denial(step(line), False) is None


@pytest.mark.parametrize(
    "line",
    [b"USER bob", b"pass x", b"APOP bob 1", b"RPOP bob", b"AUTH", b"AUTH PLAIN", b"AUTH X ="],
)
def test_only_require_refuses_logins_and_only_before_tls(line: bytes) -> None:
    assert terms("require").denial(step(line), False) is TLS_REQUIRED
    for mode in ("none", "implicit", "terminate"):
        assert terms(mode).denial(step(line), False) is None
    assert terms("require").denial(step(line), True) is None


@pytest.mark.parametrize("line", [b"CAPA", b"QUIT", b"NOOP", b"XCLIENT ADDR=1", b"LANG"])
def test_require_passes_what_is_no_login(line: bytes) -> None:
    assert terms("require").denial(step(line), False) is None


def test_what_is_held_for_the_sake_of_tls() -> None:
    logins = {Request, LoginAttempt}
    assert terms("require").gates(False) == {StartTLS} | logins
    assert terms("require").gates(True) == {StartTLS}
    assert terms("terminate").gates(False) == {StartTLS}
    assert terms("none").gates(False) == {StartTLS}


@pytest.mark.parametrize(
    ("mode", "upstream", "secure", "edits"),
    [
        ("none", "plain", False, Edits(stls=False)),
        ("none", "tls", False, Edits(stls=False, bound=True)),
        ("implicit", "plain", True, Edits(stls=False, bound=True)),
        ("terminate", "plain", False, Edits(stls=True, bound=True, answers=True)),
        ("terminate", "starttls", True, Edits(stls=False, bound=True, answers=True)),
        ("require", "plain", False, Edits(True, user=True, sasl=True, bound=True, answers=True)),
        ("require", "plain", True, Edits(stls=False, bound=True, answers=True)),
    ],
)
def test_what_capa_shows(mode: str, upstream: str, secure: bool, edits: Edits) -> None:
    assert terms(mode, upstream).edits(secure) == edits
