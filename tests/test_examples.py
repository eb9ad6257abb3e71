"""Runs the hooks of the chapter "Write a hook" as it says: named by a configuration, in plays, on sockets."""

import importlib
import json
import re
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from pop3proxy.analyzer.events import Connection, LoginFailure, Reason
from pop3proxy.hooks.api import Delay
from pop3proxy.testing import Play

DOCS = Path(__file__).parent.parent / "docs"
CHAPTER = (DOCS / "hooks.md").read_text(encoding="utf-8")
EXAMPLES = sorted(path.stem for path in (DOCS / "examples").glob("*.py"))
HOOKS = [name for name in EXAMPLES if not name.startswith("test_")]

FAILED_LOGIN = """
    C: USER bob
    S: +OK
    C: PASS wrong
    S: -ERR [AUTH] no
"""


@pytest.fixture(autouse=True)
def _beside_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the examples be found as files beside the configuration are."""
    monkeypatch.syspath_prepend(str(DOCS / "examples"))


def _configured(module: str) -> dict[str, Any]:
    """Return the configuration that the chapter shows for an example."""
    shown = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", CHAPTER, re.S)]
    (found,) = [
        config
        for config in shown
        if config.get("hooks", [{}])[0].get("name", "").startswith(f"{module}:")
    ]
    return found


def _play(module: str, **options: Any) -> Play:
    config = _configured(module)
    config["hooks"][0].setdefault("options", {}).update(options)
    return Play(config=config)


@pytest.mark.parametrize("module", HOOKS)
def test_an_example_has_its_configuration_in_the_chapter(module: str) -> None:
    with _play(module) as play:
        play.say("S: +OK ready\n" + FAILED_LOGIN)
        play.client_leaves()
        assert play.reason == "client_closed"


def _tests_of_examples() -> Iterator[tuple[str, str]]:
    for module in set(EXAMPLES).difference(HOOKS):
        text = (DOCS / "examples" / f"{module}.py").read_text(encoding="utf-8")
        for name in re.findall(r"^def (test_\w+)", text, re.M):
            yield module, name


@pytest.mark.parametrize(("module", "name"), sorted(_tests_of_examples()))
def test_the_tests_of_the_examples_pass(module: str, name: str) -> None:
    getattr(importlib.import_module(module), name)()


def test_the_first_hook_of_the_chapter_counts_logins() -> None:
    block = re.search(r"```python\n(.*?)```", CHAPTER, re.S)
    assert block
    names: dict[str, Any] = {}
    exec(block[1], names)
    hook = names["CountLogins"]()
    with Play(hook) as play:
        play.say("S: +OK ready\nC: USER bob\nS: +OK\nC: PASS secret\nS: +OK")
    assert hook.logins == {"bob": 1}


# --- office hours ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "open_"),
    [
        ("2026-01-05T06:29:59+00:00", False),
        ("2026-01-05T06:30:00+00:00", True),  # half past seven in Berlin
        ("2026-01-05T16:59:59+00:00", True),
        ("2026-01-05T17:00:00+00:00", False),
        ("2026-07-06T05:30:00+00:00", True),  # in summer
        ("2026-01-10T12:00:00+00:00", False),  # a Saturday
    ],
)
def test_office_hours_are_those_of_the_zone(moment: str, open_: bool) -> None:
    with Play(config=_configured("office_hours"), at=datetime.fromisoformat(moment)) as play:
        play.say("S: +OK ready\nC: AUTH PLAIN {b64 \\0bob\\0secret}")
        assert (b"AUTH" in play.to_server) is open_
        assert (b"during office hours only" in play.to_client) is not open_


# --- slow failures --------------------------------------------------------------------------------------


def _delays(play: Play) -> list[float]:
    return [verdict.seconds for _, verdict in play.verdicts if isinstance(verdict, Delay)]


def test_delays_double_up_to_the_longest() -> None:
    with _play("slow_failures", longest=5.0) as play:
        play.say("S: +OK ready")
        for _ in range(5):
            play.say(FAILED_LOGIN + "T: 5")
        assert _delays(play) == [1, 2, 4, 5, 5]


def test_a_refusal_is_held_back_for_that_long() -> None:
    with _play("slow_failures") as play:
        play.say("S: +OK ready\n" + FAILED_LOGIN + "T: 0.9")
        assert b"-ERR" not in play.to_client
        play.advance(0.1)
        assert play.to_client.endswith(b"-ERR [AUTH] no\r\n")


def test_pipelined_guesses_are_slowed_down_too() -> None:
    with _play("slow_failures") as play:
        play.server("+OK ready")
        play.client(
            b"".join(b"AUTH PLAIN AGJvYgB%d\r\n" % guess for guess in (11111, 22222, 33333))
        )
        play.say("S: -ERR no\nT: 0.9")
        assert play.to_server == b"AUTH PLAIN AGJvYgB11111\r\n"
        play.say("T: 0.1\nS: -ERR no\nT: 1.9")
        assert play.to_server == b"AUTH PLAIN AGJvYgB11111\r\nAUTH PLAIN AGJvYgB22222\r\n"


def test_each_address_has_its_own_delay_and_a_new_session_changes_nothing() -> None:
    with _play("slow_failures") as play:
        again, other = play.another(), play.another("192.0.2.77")
        for session in (play, again, other):
            session.say("S: +OK ready\n" + FAILED_LOGIN)
        assert [_delays(session) for session in (play, again, other)] == [[1], [2], [1]]


def test_an_address_that_is_quiet_is_forgotten() -> None:
    with _play("slow_failures", forget=60.0) as play:
        play.say("S: +OK ready\n" + FAILED_LOGIN + "T: 61\n" + FAILED_LOGIN)
        assert _delays(play) == [1, 1]


def test_no_more_addresses_are_remembered_than_it_says() -> None:
    with _play("slow_failures", addresses=2) as play:
        sessions = [play.another(f"192.0.2.{host}") for host in (11, 12, 13, 12, 11)]
        for session in sessions:
            session.say("S: +OK ready\n" + FAILED_LOGIN)
        assert [_delays(session) for session in sessions] == [[1], [1], [1], [2], [1]]


# --- the webhook ----------------------------------------------------------------------------------------


class _Agent:
    """Takes requests, and answers none of them."""

    def __init__(self) -> None:
        self.requests: list[tuple[Any, ...]] = []
        self.cancelled = 0

    def request(self, *request: Any) -> Deferred[Any]:
        self.requests.append(request)
        return Deferred(self._cancel)

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled += 1


def _webhook(url: str, most: int = 20) -> Any:
    return importlib.import_module("announce_webhook").AnnounceWebhook(url, most)


def test_nobody_waits_for_the_webhook() -> None:
    hook, agent = _webhook("http://192.0.2.9/"), _Agent()
    with Play(hook) as play:
        hook.agent = agent
        play.say("S: +OK ready\n" + FAILED_LOGIN)
        assert play.to_client.endswith(b"-ERR [AUTH] no\r\n")
        assert [request[:2] for request in agent.requests] == [(b"POST", b"http://192.0.2.9/")]
        play.advance(10)
        assert agent.cancelled == 1
        assert len(play.failed) == 1


def test_no_more_is_posted_at_a_time_than_it_says() -> None:
    hook, agent = _webhook("http://192.0.2.9/", most=2), _Agent()
    with Play(hook) as play:
        hook.agent = agent
        play.say("S: +OK ready\n" + 5 * FAILED_LOGIN)
        assert len(agent.requests) == 2
        assert (hook.under_way, hook.left_out) == (2, 3)
        play.say("T: 10\n" + FAILED_LOGIN)
        assert (hook.under_way, hook.left_out) == (1, 0)


class _Receiver(Resource):
    """Keeps what is posted; answers with a status, and with text that never ends."""

    isLeaf = True

    def __init__(self, status: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.status = status
        self.posted: list[tuple[bytes | None, Any]] = []
        self.left: Deferred[Any] = Deferred()

    def render_POST(self, request: Any) -> int:
        self.posted.append((request.getHeader(b"content-type"), json.load(request.content)))
        request.setResponseCode(self.status)
        request.notifyFinish().addBoth(lambda _: self.left.callback(None))
        request.write(b"an answer that ")
        return NOT_DONE_YET


async def _post(hook_status: int) -> _Receiver:
    receiver = _Receiver(hook_status)
    loop: Any = reactor
    port = loop.listenTCP(0, Site(receiver), interface="127.0.0.1")
    try:
        hook = _webhook(f"http://127.0.0.1:{port.getHost().port}/failed")
        hook.start(loop)
        c = Connection("Cuid", "192.0.2.1", 4000, "198.51.100.1", 110)
        await hook.pop3_login_failure(
            LoginFailure(c, 17.5, "b\udcffb", "secret", "USER/PASS", Reason.CREDENTIALS, "AUTH")
        )
        return receiver
    finally:
        await receiver.left
        await (port.stopListening() or succeed(None))


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_the_webhook_is_told_in_json_and_without_the_password() -> None:
    receiver = await _post(200)
    assert receiver.posted == [
        (
            b"application/json",
            {
                "time": 17.5,
                "address": "192.0.2.1",
                "user": "b\udcffb",
                "mechanism": "USER/PASS",
                "reason": "credentials",
                "left_out": 0,
            },
        )
    ]


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_webhook_that_refuses_is_a_failure() -> None:
    with pytest.raises(RuntimeError, match="answered 503"):
        await _post(503)
