"""The hook: what the dispatcher gives it and gets, its snapshot, its socket; and its configuration."""

import json
import socket
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from pop3proxy import policytest
from pop3proxy.analyzer.events import (
    Connect,
    Connection,
    Event,
    LoginAttempt,
    LoginFailure,
    Reason,
    SessionEnd,
    Side,
)
from pop3proxy.bans import bans
from pop3proxy.config import ConfigError, load
from pop3proxy.hooks.api import PASS, Deny, Hook
from pop3proxy.hooks.dispatcher import Dispatcher
from pop3proxy.hooks.logging.schema import schema
from pop3proxy.hooks.policy import keeping
from pop3proxy.hooks.policy.byhand import ByHand
from pop3proxy.hooks.policy.config import DEFAULT_RULES, Policy, PolicyRule
from pop3proxy.hooks.policy.control import DISK_TIME, MAX_LINE, Control, ControlError
from pop3proxy.hooks.policy.decisions import Decisions
from pop3proxy.hooks.policy.engine import Engine
from pop3proxy.hooks.policy.explanations import Explanations
from pop3proxy.hooks.policy.failedlogins import FailedLogins
from pop3proxy.hooks.policy.memory import MemoryStore
from pop3proxy.hooks.policy.penalties import Decision
from pop3proxy.hooks.policy.snapshot import SnapshotError
from pop3proxy.loading import load_hooks
from pop3proxy.policytest import FORMATS
from pop3proxy.policytest import test as policy_test

from ...replay.making import Said, frames, pcap, segments

NOW = 1_764_000_000.0
RULE: dict[str, Any] = {
    "name": "r",
    "counts": "failures",
    "limits": [{"count": 2, "seconds": 60.0}],
    "action": "ban",
}


class Ear(Hook):
    """Hears what a policy decides."""

    def __init__(self) -> None:
        self.heard: list[Event] = []

    def pop3_policy(self, event: Event) -> None:
        self.heard.append(event)


def policy(**more: Any) -> Policy:
    return Policy.model_validate({"rules": [RULE], **more})


def client(host: str = "192.0.2.1", uid: str = "C1") -> Connection:
    return Connection(uid, host, 1, "198.51.100.4", 110)


def guess(dispatcher: Dispatcher, c: Connection, password: str) -> Any:
    """Ask about a wrong login; return the verdict on the attempt."""
    question = dispatcher.ask([LoginAttempt(c, NOW, "bob", password, "PLAIN")])
    assert question is not None
    if question.verdict is PASS:
        dispatcher.ask([LoginFailure(c, NOW, "bob", password, "PLAIN", Reason.CREDENTIALS, "AUTH")])
    return question.verdict


def test_the_hook_asks_the_engine_tells_everybody_and_ends_sessions() -> None:
    ended: list[Any] = []
    ear, hook = Ear(), FailedLogins(policy(), live=False)
    dispatcher = Dispatcher([ear, hook], ended.append)
    dispatcher.start(Clock())
    other = client(uid="C2")
    dispatcher.ask([Connect(other, NOW)])
    assert [guess(dispatcher, client(), f"{n}") for n in range(3)] == [PASS, PASS, Deny()]
    question = dispatcher.ask([Connect(client(), NOW)])
    assert question is not None
    assert question.verdict == Deny(hook.policy.banned_reply)
    actions = [getattr(event, "action", "") for event in ear.heard]
    assert actions == ["ban", "banned", "banned"]
    assert ended == [{"C2"}]
    none = (0, 0, 0, 0, 0, 0)
    dispatcher.inform([SessionEnd(other, NOW, "", "none", *none, 0.0, "quit", 0, "whole")])
    dispatcher.stop()


def test_a_login_is_held_for_as_long_as_is_configured_and_then_told_to_come_again() -> None:
    clock, hook = Clock(), FailedLogins(policy(wait=20.0), live=False)
    dispatcher = Dispatcher([hook])
    dispatcher.start(clock)
    for number in range(2):
        c = client(uid=f"A{number}")
        question = dispatcher.ask([LoginAttempt(c, NOW, f"{number}", "x", "PLAIN", 1)])
        assert question is not None
        assert question.verdict is PASS
    # The server is slow, but it answers others.
    held = dispatcher.ask([LoginAttempt(client(uid="C2"), NOW, "bob", "x", "PLAIN", 1)])
    assert held is not None
    met: list[Any] = []
    held.settled = met.append
    clock.advance(19.9)
    assert (held.verdict, met) == (None, [])
    hook.engine._server_answers(NOW + 19.9)
    clock.advance(0.2)
    # Those before it count as failed for want of an answer.
    assert met == [Deny()]
    assert not hook.counts["hook_failures"]
    dispatcher.stop()
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"dry_run": True}, ["policy dry run; without it would have been done: r ban 2, r deny 1"]),
        ({}, []),
    ],
)
def test_the_log_says_at_the_end_of_a_dry_run_what_would_have_been_done(
    more: dict[str, Any], said: list[str]
) -> None:
    hook = FailedLogins(policy(**more))
    dispatcher = Dispatcher([hook])
    dispatcher.start(Clock())
    for number in range(3):
        guess(dispatcher, client(), f"{number}")
    with capturedLogs() as events:
        dispatcher.stop()
    lines = [formatEvent(event) for event in events]
    assert [line for line in lines if line.startswith("policy dry run")] == said


def test_login_records_name_a_password_by_its_hash_where_the_key_is_configured(
    tmp_path: Path,
) -> None:
    text = '[events]\npath = "{}"\n[policy]\nfingerprint_key = "0123456789abcdef"'
    path = tmp_path / "events.jsonl"
    (writer, *_) = load_hooks(config_of(tmp_path, text.format(path)))
    dispatcher = Dispatcher([writer])
    dispatcher.start(Clock())
    known = jsonschema.Draft202012Validator(schema())
    for password in ("x", "x", "y", ""):
        event = LoginFailure(client(), NOW, "bob", password, "PLAIN", Reason.CREDENTIALS)
        dispatcher.dispatch([event, LoginAttempt(client(), NOW, "bob", password, "PLAIN")])
    dispatcher.dispatch([Connect(client(), NOW)])
    dispatcher.stop()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        known.validate(record)
    one, _, two, _, other, _, none, _, connect = [r.get("password_fp") for r in records]
    assert one == two != other
    assert len(one) == 16
    assert (none, connect) == (None, None)


# --- snapshot ---------------------------------------------------------------------------------------------


def test_bans_survive_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    for expected in (None, "address:192.0.2.1"):
        hook = FailedLogins(policy(snapshot=path))
        hook.start(Clock())
        found = hook.store.ban_of(("address:192.0.2.1",), NOW)
        assert (found and found.key) == expected
        hook.engine.ban("address:192.0.2.1", 100.0, "", NOW)
        hook.stop()


def test_a_snapshot_is_written_at_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "there" / "state", Clock()
    path.parent.mkdir()
    # In its turn; that threads can do it is for test_memory.py, and the program, to show.
    monkeypatch.setattr(keeping, "deferToThread", maybeDeferred)
    hook = FailedLogins(policy(snapshot=str(path), snapshot_interval=10.0))
    hook.start(clock)
    hook.engine.ban("address:192.0.2.1", 100.0, "", NOW)
    clock.advance(10)
    assert "address:192.0.2.1" in path.read_text()
    path.parent.rename(tmp_path / "elsewhere")
    clock.advance(10)
    assert hook.counts["snapshot_failed"] == 1
    (tmp_path / "elsewhere").rename(path.parent)
    hook.stop()
    assert hook.counts["snapshot_failed"] == 1


def test_passwords_of_a_try_are_forgotten_soon_after_it() -> None:
    clock = Clock()
    hook = FailedLogins(policy(same_try=10.0), now=lambda: NOW + clock.seconds())
    hook.start(clock)
    hook.pop3_login_failure(
        LoginFailure(client(), NOW, "bob", "wrong", "PLAIN", Reason.CREDENTIALS)
    )
    clock.advance(10)
    assert len(hook.engine.tries) == 1
    clock.advance(10)
    assert len(hook.engine.tries) == 0
    hook.stop()
    assert clock.getDelayedCalls() == []


def test_tries_of_no_time_are_looked_for_once_a_second() -> None:
    clock = Clock()
    hook = FailedLogins(policy(same_try=0.0))
    hook.start(clock)
    assert [call.getTime() for call in clock.getDelayedCalls()] == [1.0]
    hook.stop()


def test_a_broken_snapshot_is_no_silent_loss_of_bans(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("{")
    with pytest.raises(SnapshotError, match="move it away"):
        FailedLogins(policy(snapshot=str(tmp_path / "state"))).start(Clock())


# --- control ----------------------------------------------------------------------------------------------


def control(kept: Any = lambda: succeed(None)) -> tuple[Control, Engine, list[set[str]]]:
    engine = Engine(policy(), MemoryStore(1000, 100, 1e6), b"key")
    ended: list[set[str]] = []
    explanations = Explanations(engine, Decisions(), lambda: succeed(None))
    by_hand = ByHand(engine, explanations, lambda _: None, ended.append, lambda: NOW)
    return Control(engine, explanations, by_hand, kept), engine, ended


def answered(one: Control, line: bytes) -> dict[str, Any]:
    """Return the answer, which has to be there at once."""
    found: list[str] = []
    one.answer(line, "uid:7").addCallback(found.append)
    answer: dict[str, Any] = json.loads(found[0])
    return answer


def do(one: Control, **request: Any) -> dict[str, Any]:
    return answered(one, json.dumps(request).encode())


def test_bans_by_hand_are_added_listed_explained_and_removed() -> None:
    one, engine, ended = control()
    engine.connect(Connect(client(), NOW))
    places = ("192.0.2.1", "192.0.2.0/24", "2001:db8::1", "2001:db8::/64", "::ffff:192.0.2.9")
    for what in (*places, "user:Bob", "pair:2001:db8::2|Bob"):
        (ban,) = do(one, do="add", what=what, seconds=60, reason="a test")["bans"]
        assert ban["evidence"] == ["by uid:7: a test"]
    assert ended[:2] == [{"C1"}, {"C1"}]
    keys = [ban["key"] for ban in do(one, do="list")["bans"]]
    assert keys == [
        *("address:192.0.2.1", "network:192.0.2.0/24", "address:2001:db8::/64"),
        *("address:192.0.2.9", "user:bob", "pair:2001:db8::/64|bob"),
    ]
    explained = do(one, do="why", what="192.0.2.1")["why"]["bans"]
    assert [ban["key"] for ban in explained] == ["address:192.0.2.1", "network:192.0.2.0/24"]
    said = do(one, do="remove", what="192.0.2.1")["said"]
    assert said == (
        "ended the ban of address:192.0.2.1, no rule bans or refuses address:192.0.2.1 until"
        " 2025-11-24T17:00:00Z; ended the ban of network:192.0.2.0/24, no rule bans or refuses"
        " network:192.0.2.0/24 until 2025-11-24T17:00:00Z"
    )
    assert engine.connect(Connect(client(), NOW)).verdict is PASS


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"", "one line of JSON"),
        (b"[]", "an object"),
        (b"[" * 4000, "one line of JSON"),
        (b'{"do":"x"}', "list, denied, why, add, remove, allow, disallow"),
        (b'{"do":[]}', "list, denied, why, add, remove, allow, disallow"),
        (b'{"do":"why"}', "lacks what"),
        (b'{"do":"why","what":"192.0.2.300"}', "write an address"),
        (b'{"do":"add","what":"bob","seconds":1}', "write an address"),
        (b'{"do":"why","what":"pair:192.0.2.1"}', "is no pair"),
        (b'{"do":"why","what":"pair:bob|bob"}', "is no pair"),
        (b'{"do":"why","what":"192.0.0.0/16"}', "write 192.0.0.0/24"),
        (b'{"do":"remove","what":"192.0.2.1"}', "nothing is held against"),
        *(
            (b'{"do":"%b","what":"user:%b","seconds":1}' % (do, name), error)
            for do in (b"add", b"remove", b"why")
            for name, error in (
                (rb"\ud800x", "half a character"),
                (b" ", "nothing is left"),
                (rb"\u0000", "nothing is left"),
            )
        ),
        (b'{"do":"add","what":"192.0.2.1"}', "number of seconds"),
        (b'{"do":"add","what":"192.0.2.1","seconds":true}', "number of seconds"),
        (b'{"do":"add","what":"192.0.2.1","seconds":NaN}', "number of seconds"),
        (b'{"do":"add","what":"192.0.2.1","seconds":1e99}', "number of seconds"),
        (b'{"do":"add","what":"192.0.2.1","seconds":1,"reason":"a\\nb"}', "one line"),
        (b'{"do":"add","what":"192.0.2.1","seconds":1,"reason":7}', "one line"),
        (b'{"do":"add","what":"192.0.2.1","seconds":1,"why":"x"}', '"why" is called "reason" now'),
        (b'{"do":"allow","what":"bob","seconds":1}', "write an address or a network"),
        (b'{"do":"allow","what":"192.0.2.1"}', "number of seconds"),
        (b'{"do":"disallow","what":"192.0.2.1"}', "is not allowed by command"),
    ],
)
def test_a_mistaken_request_is_told_what_would_be_right(line: bytes, error: str) -> None:
    one, engine, _ = control()
    assert error in answered(one, line)["error"]
    assert engine.store.bans(NOW) == []


def test_an_answer_waits_until_what_was_done_is_on_disk() -> None:
    waiting: list[Deferred[None]] = []

    def kept() -> "Deferred[None]":
        waiting.append(Deferred())
        return waiting[-1]

    one, _, _ = control(kept)
    answers: list[str] = []
    for request in ({"do": "add", "seconds": 60}, {"do": "remove"}):
        line = json.dumps({**request, "what": "192.0.2.1"}).encode()
        one.answer(line, "").addCallback(answers.append)
        assert len(answers) < len(waiting)
        waiting[-1].callback(None)
    assert [list(json.loads(answer)) for answer in answers] == [["bans"], ["removed", "said"]]
    one.answer(b'{"do":"add","what":"192.0.2.1","seconds":60}', "").addCallback(answers.append)
    waiting[-1].errback(SnapshotError("the disk is full"))
    said = "address:192.0.2.1 is banned, but a kill may undo it: the disk is full"
    assert json.loads(answers[-1]) == {"error": said}


def test_an_answer_waits_for_a_slow_disk_no_longer_than_it_may(tmp_path: Path) -> None:
    one, _, _ = control(Deferred)
    reactor = UnixReactor()
    one.listen(reactor, str(tmp_path / "socket"))
    protocol, transport = connected(reactor)
    protocol.dataReceived(b'{"do":"add","what":"192.0.2.1","seconds":60}\n{"do":"list"}\n')
    assert transport.written == b""
    reactor.advance(DISK_TIME)
    assert b"but a kill may undo it: the disk took longer than 3 s" in transport.written
    assert (transport.written.count(b"\n"), transport.ended) == (1, "closed")
    protocol.connectionLost()
    assert not reactor.getDelayedCalls()


class Transport:
    """What the socket's protocol writes to."""

    disconnecting = False

    def getHandle(self) -> Any:
        """Be a socket whose peer is user 7."""
        return self

    def getsockopt(self, level: int, name: int, size: int) -> bytes:
        assert (level, name, size) == (socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return struct.pack("3i", 99, 7, 8)

    def __init__(self) -> None:
        self.written = b""
        self.ended = ""

    def write(self, data: bytes) -> None:
        self.written += data

    def loseConnection(self) -> None:
        self.ended = "closed"

    def abortConnection(self) -> None:
        self.ended = "aborted"


class UnixReactor(Clock):
    """Keeps the factory that would listen."""

    def listenUNIX(self, path: str, factory: Any, mode: int) -> Any:
        assert mode == 0o600
        self.factory = factory
        return self

    def stopListening(self) -> None:
        self.factory = None


def connected(reactor: UnixReactor) -> tuple[Any, Transport]:
    protocol, transport = reactor.factory.buildProtocol(None), Transport()
    protocol.callLater = reactor.callLater
    protocol.makeConnection(transport)
    return protocol, transport


def test_the_socket_s_clients_are_bounded_in_number_octets_and_time(tmp_path: Path) -> None:
    one, _, _ = control()
    reactor = UnixReactor()
    one.listen(reactor, str(tmp_path / "socket"))
    protocol, transport = connected(reactor)
    protocol.dataReceived(b'{"do":"list"}\n')
    assert (transport.written, transport.ended) == (b'{"bans": []}\n', "closed")
    long, gone = connected(reactor)
    long.dataReceived(b"x" * (MAX_LINE + 1))
    assert gone.ended == "closed"
    slow, late = connected(reactor)
    reactor.advance(6)
    assert late.ended == "aborted"
    for each in (protocol, long, slow):
        each.connectionLost()
    many = [connected(reactor) for _ in range(17)]
    assert [transport.ended for _, transport in many] == [""] * 16 + ["aborted"]
    one.close()
    assert all(transport.ended == "aborted" for _, transport in many)
    for each, _ in many:
        each.connectionLost()
    assert not reactor.getDelayedCalls()


def test_what_is_decided_is_remembered_by_address_and_user(tmp_path: Path) -> None:
    rule = {**RULE, "counts": "users", "by": "password", "action": "deny"}
    hook = FailedLogins(policy(rules=[rule], control=str(tmp_path / "socket")))
    dispatcher = Dispatcher([ear := Ear(), hook])
    reactor = UnixReactor()
    dispatcher.start(reactor)
    for user in ("alice", "bob", "carl"):
        c = client(uid=f"C-{user}")
        question = dispatcher.ask([LoginAttempt(c, NOW, user, "summer", "PLAIN")])
        if question is not None and question.verdict is PASS:
            failed = LoginFailure(c, NOW, user, "summer", "PLAIN", Reason.CREDENTIALS)
            dispatcher.ask([failed])
    for asked, sessions in (("192.0.2.1", ["C-carl"]), ("carl", ["C-carl"]), ("bob", [])):
        protocol, transport = connected(reactor)
        protocol.dataReceived(json.dumps({"do": "why", "what": asked}).encode() + b"\n")
        decided = json.loads(transport.written)["why"]["decisions"]
        assert [each["session"] for each in decided] == sessions
        protocol.connectionLost()
    protocol, transport = connected(reactor)
    protocol.dataReceived(b'{"do":"add","what":"user:bob","seconds":60,"reason":"left"}\n')
    assert "name a file as policy.snapshot" in json.loads(transport.written)["note"]
    protocol.connectionLost()
    told = [(event.action, event.by, event.reason) for event in ear.heard]  # type: ignore[attr-defined]
    assert told == [("deny", "", ""), ("ban", "uid:7", "left")]
    dispatcher.stop()


def test_an_error_behind_the_socket_is_answered(tmp_path: Path) -> None:
    one, engine, _ = control()
    reactor = UnixReactor()
    one.listen(reactor, str(tmp_path / "socket"))

    def broken(now: float) -> Any:
        raise RuntimeError("hunter2")

    engine.allowances.all = broken  # type: ignore[method-assign]
    protocol, transport = connected(reactor)
    with capturedLogs() as said:
        protocol.dataReceived(b'{"do":"denied"}\n')
    assert b"an error in the proxy, which its log has" in transport.written
    assert transport.ended == "closed"
    assert len(said) == 1
    protocol.connectionLost()


def test_no_other_file_is_removed_and_no_other_proxy_put_out(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(ControlError, match="is no socket"):
        control()[0].listen(UnixReactor(), str(path))
    assert path.read_text() == "precious"
    taken, stale = str(tmp_path / "taken"), str(tmp_path / "stale")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(taken)
        listening.listen()
        with pytest.raises(ControlError, match="another proxy"):
            control()[0].listen(UnixReactor(), taken)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(stale)
    control()[0].listen(UnixReactor(), stale)
    assert not Path(stale).exists()


def test_a_proxy_that_is_not_there_is_said(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        bans, ["list", "--control", str(tmp_path / "none")], standalone_mode=False
    )
    assert (result.return_value, "is the proxy running" in result.stderr) == (1, True)


# --- configuration ----------------------------------------------------------------------------------------


def config_of(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "test.toml"
    path.write_text(f'listen = ["tcp:0"]\nupstream = "tcp:localhost:110"\n{text}')
    return load(str(path), {})


def test_an_empty_table_protects(tmp_path: Path) -> None:
    assert config_of(tmp_path, "[policy]").policy.rules == DEFAULT_RULES
    assert config_of(tmp_path, "").policy is None


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[[policy.rules]]", "policy.rules[0]: name: must be a word"),
        ('[[policy.rules]]\nname = "a|b"', "must be a word"),
        ('[[policy.rules]]\nname = "a"\nlimits = []', "needs one at least"),
        ('[[policy.rules]]\nname = "a"\n[[policy.rules]]\nname = "a"', "two are called"),
        ('[[policy.rules]]\nname = "a"\ncounts = "users"\nby = "user"', "always 1"),
        ('[[policy.rules]]\nname = "a"\naction = "ban"\nban = "user"', "lock a user out"),
        ('[[policy.rules]]\nname = "a"\nreply = "+OK"', "begins with -ERR"),
        (
            '[[policy.rules]]\nname = "a"\naction = "deny"\nregular = {}',
            'regular: is for rules that count "failures"',
        ),
        (
            '[[policy.rules]]\nname = "a"\ncounts = "users"\nregular = {}',
            'regular: is for rules that count "failures"',
        ),
        (
            '[[policy.rules]]\nname = "a"\nlimits = [{ count = 4 }]\nregular = {}',
            "a count below 5 says nothing of regularity",
        ),
        (
            '[[policy.rules]]\nname = "a"\nregular = { interval = 60 }',
            "policy.rules[0].regular.interval: ",
        ),
        ('[[policy.rules]]\nname = "a"\naction = "ban"\ntrickle = 9', 'whose action is "deny"'),
        (
            '[[policy.rules]]\nname = "a"\ncounts = "successes"\naction = "deny"\ntrickle = 9',
            "trickle: is for rules on failed logins",
        ),
        ('[[policy.rules]]\nname = "a"\nactoin = "ban"', "did you mean policy.rules.action"),
        ('[policy]\nallow = ["office"]', "is no network"),
        ("[policy]\nipv4_prefix = 20", "fewer bits"),
        ('[policy]\nfingerprint_key = "secret"', "too short"),
        ("[policy]\ngrace = -1.0", "at least 0"),
        ("[policy]\nsame_try = 61.0", "policy.same_try: must be at most 60"),
        ("[policy]\nban_jitter = 2.0", "at most 1"),
        ('[policy]\nbanned = "kill"', "must be 'deny' or 'drop'"),
    ],
)
def test_a_mistake_is_told_with_what_would_be_right(
    tmp_path: Path, text: str, mistake: str
) -> None:
    with pytest.raises(ConfigError) as told:
        config_of(tmp_path, text)
    assert mistake in str(told.value)
    assert "secret" not in str(told.value)


def test_default_rules_are_rules_that_a_file_could_name() -> None:
    for rule in DEFAULT_RULES:
        assert PolicyRule.model_validate(rule.model_dump()) == rule
    with pytest.raises(ValidationError):
        PolicyRule(name="a b")


# --- policy test ------------------------------------------------------------------------------------------


def log_of(tmp_path: Path, fingerprints: bool) -> str:
    path = tmp_path / "events.jsonl"
    lines = []
    for n in range(30):
        record: dict[str, Any] = {
            "v": 1,
            "ts": NOW + n,
            "uid": f"C{n}",
            "id.orig_h": "192.0.2.1",
            "id.orig_p": 1,
            "id.resp_h": "198.51.100.4",
            "id.resp_p": 110,
            "user": "bob",
            "password": "(masked)",
            "mechanism": "PLAIN",
        }
        if fingerprints:
            record["password_fp"] = f"{n:016x}"
        lines.append({**record, "event": "pop3_login_attempt"})
        more = {"event": "pop3_login_failure", "reason": "credentials", "code": ""}
        lines.append({**record, **more})
        lines.append({**record, "event": "pop3_reply"})
        lines.append({**record, "event": "pop3_session", "reason": "quit"})
    path.write_text("".join(json.dumps(record) + "\n" for record in lines))
    return str(path)


def judged(tmp_path: Path, source: str, *more: str) -> Any:
    config = tmp_path / "test.toml"
    config.write_text("[policy]\n")
    arguments = [source, "--config", str(config), *more]
    return CliRunner().invoke(policy_test, arguments, standalone_mode=False)


def test_an_old_log_is_judged_by_its_own_time(tmp_path: Path) -> None:
    result = judged(tmp_path, log_of(tmp_path, fingerprints=True))
    assert result.return_value == 0
    decisions = [json.loads(line) for line in result.stdout.splitlines()]
    (ban,) = [each for each in decisions if each["action"] == "ban"]
    assert (ban["rule"], ban["ts"], ban["key"]) == ("brute-force", NOW + 19, "address:192.0.2.1")
    assert "brute-force" in result.stderr


def test_what_would_have_been_done_is_summed_up_by_rule_and_action(tmp_path: Path) -> None:
    result = judged(tmp_path, log_of(tmp_path, fingerprints=True))
    first, head, *rows = result.stderr.splitlines()
    assert first == "30 login attempts, 30 of them failed; would have been done:"
    assert head.split() == ["rule", "action", "times", "keys"]
    times = {(rule, action): int(count) for rule, action, count, _ in map(str.split, rows)}
    decisions = [json.loads(line) for line in result.stdout.splitlines()]
    assert times == Counter((each["rule"], each["action"]) for each in decisions)
    assert ("brute-force", "ban") in times


def test_that_nothing_would_have_been_done_is_said(tmp_path: Path) -> None:
    source = Path(log_of(tmp_path, fingerprints=True))
    source.write_text("".join(source.read_text().splitlines(keepends=True)[:4]))
    result = judged(tmp_path, str(source))
    said = "1 login attempts, 1 of them failed; nothing would have been done\n"
    assert (result.return_value, result.stdout, result.stderr) == (0, "", said)


def test_a_configuration_without_policy_has_nothing_to_try(tmp_path: Path) -> None:
    config = tmp_path / "test.toml"
    config.write_text("")
    given = [log_of(tmp_path, fingerprints=True), "--config", str(config)]
    command = [sys.executable, "-m", "pop3proxy", "policy", "test", *given]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, text=True)
    said = f"pop3proxy: {config}: has no [policy] to try; add [policy] for the default rules\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_the_help_names_every_format() -> None:
    text = " ".join(CliRunner().invoke(policy_test, ["--help"]).output.split())
    for name in ("JSON Lines", "pcap", "pcapng", "gzipped or not"):
        assert name in text


def test_a_log_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    source = Path(log_of(tmp_path, fingerprints=True))
    result = judged(tmp_path, str(source.rename(tmp_path / "mail.log")))
    assert (result.return_value, "brute-force" in result.stderr) == (0, True)


@pytest.mark.parametrize("name", ["none.jsonl", "none.log", "none.pcap"])
def test_a_file_that_is_not_there_is_named_with_what_can_be_read(tmp_path: Path, name: str) -> None:
    result = judged(tmp_path, str(tmp_path / name))
    assert (result.return_value, result.stderr.count("\n")) == (1, 1)
    assert f"{name}: cannot be read: No such file or directory; give {FORMATS}" in result.stderr


def test_rules_that_a_log_says_too_little_for_are_named(tmp_path: Path) -> None:
    source = log_of(tmp_path, fingerprints=False)
    result = judged(tmp_path, source)
    assert result.return_value == 1
    assert (
        "brute-force, neighbours, guesses, common-password, misconfigured cannot be judged"
        in result.stderr
    )
    result = judged(tmp_path, source, "--partial")
    assert result.return_value == 0
    assert "brute-force      not judged" in result.stderr
    assert '"rule":"brute-force"' not in result.stdout


def test_a_rule_for_one_listener_is_not_judged_by_a_log_that_names_none(tmp_path: Path) -> None:
    source, config = log_of(tmp_path, fingerprints=True), tmp_path / "test.toml"
    rule = 'name = "here"\nlistener = "tcp:110"\nlimits = [{ count = 1, seconds = 60 }]'
    config.write_text(f"[[policy.rules]]\n{rule}\n")
    arguments = [source, "--config", str(config)]
    result = CliRunner().invoke(policy_test, arguments, standalone_mode=False)
    assert "here  not judged" in result.stderr


def test_a_rule_for_one_listener_is_judged_by_a_log_that_names_it(tmp_path: Path) -> None:
    source, config = Path(log_of(tmp_path, fingerprints=True)), tmp_path / "test.toml"
    named = '"listener": "tcp:110", "listener.h": "0.0.0.0", "listener.p": 110, "user"'
    source.write_text(source.read_text().replace('"user"', named))
    rules = [
        f'[[policy.rules]]\nname = "{name}"\nlistener = "{listener}"\n'
        "limits = [{ count = 1, seconds = 60 }]\n"
        for name, listener in (("here", "tcp:110"), ("there", "tcp:995"))
    ]
    config.write_text("".join(rules))
    arguments = [str(source), "--config", str(config)]
    result = CliRunner().invoke(policy_test, arguments, standalone_mode=False)
    assert "not judged" not in result.stderr
    assert {json.loads(line)["rule"] for line in result.stdout.splitlines()} == {"here"}


def test_sessions_of_a_log_that_never_end_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(log_of(tmp_path, fingerprints=True))
    kept = [line for line in source.read_text().splitlines() if "login_attempt" in line]
    source.write_text("\n".join(kept))
    ended: list[str] = []
    monkeypatch.setattr(policytest, "MAX_SESSIONS", 10)

    def note(_: Engine, event: SessionEnd) -> Decision:
        ended.append(event.c.uid)
        return Decision()

    monkeypatch.setattr(Engine, "ended", note)
    assert judged(tmp_path, str(source)).return_value == 0
    assert ended == [f"C{n}" for n in range(20)]


def at_once(tmp_path: Path, many: int, succeed: bool) -> str:
    """Write a log of logins at as many accounts, all tried before the first is answered."""
    begin, end = [], []
    for n in range(many):
        record: dict[str, Any] = {
            "v": 1,
            "uid": f"C{n}",
            "id.orig_h": "192.0.2.1",
            "id.orig_p": 1,
            "id.resp_h": "198.51.100.4",
            "id.resp_p": 110,
            "mechanism": "PLAIN",
            "user": f"user{n}",
            "password": "(masked)",
            "password_fp": f"{n:016x}",
            "attempt": 1,
        }
        begin.append({**record, "ts": NOW, "event": "pop3_login_attempt"})
        answer = {"event": f"pop3_login_{'success' if succeed else 'failure'}", "ts": NOW + 1}
        end.append({**record, **answer, "reason": "credentials", "code": ""})
        end.append({**record, "ts": NOW + 1, "event": "pop3_session", "reason": "quit"})
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in begin + end))
    return str(path)


def test_logins_at_once_in_an_old_log_are_held_as_they_would_have_been(tmp_path: Path) -> None:
    result = judged(tmp_path, at_once(tmp_path, 40, succeed=True))
    assert (result.return_value, result.stdout) == (0, "")
    result = judged(tmp_path, at_once(tmp_path, 40, succeed=False))
    actions = Counter(json.loads(line)["action"] for line in result.stdout.splitlines())
    # Fifteen fail, and the others, held until then, are refused.
    assert actions == {"ban": 1, "deny": 25}


@pytest.mark.parametrize(
    "text",
    [
        *("x", "[]", '{"event":"pop3_connect"}', "[" * 100_000),
        '{"event":"pop3_connect","ts":NaN}',
        '{"event":"pop3_connect","ts":1e999}',
        '{"event":"pop3_connect","ts":1' + "0" * 4000 + "}",
        '{"x":"' + "x" * policytest.MAX_LINE + '"}',
    ],
    ids=range(8),
)
def test_what_is_no_log_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(text + "\n")
    result = judged(tmp_path, str(path))
    assert result.return_value == 1
    assert "line 1" in result.stderr
    assert FORMATS in result.stderr or "lacks what its event needs" in result.stderr


GUESSES = [
    Said(Side.SERVER, b"+OK ready\r\n"),
    *(
        said
        for n in range(4)
        for said in (
            Said(Side.CLIENT, b"USER bob\r\n"),
            Said(Side.SERVER, b"+OK\r\n"),
            Said(Side.CLIENT, b"PASS guess%d\r\n" % n),
            Said(Side.SERVER, b"-ERR [AUTH] no\r\n"),
        )
    ),
    Said(Side.CLIENT, None),
    Said(Side.SERVER, None),
]


def test_a_capture_is_judged_and_its_replay_writes_what_was_decided(tmp_path: Path) -> None:
    path, config = tmp_path / "test.pcap", tmp_path / "test.toml"
    path.write_bytes(pcap(frames(segments(GUESSES))))
    config.write_text(
        '[[policy.rules]]\nname = "here"\naction = "ban"\nlimits = [{ count = 2, seconds = 60 }]\n'
        '[[policy.rules]]\nname = "there"\nlistener = "tcp:110"\n'
    )
    given = ["--config", str(config)]
    result = CliRunner().invoke(policy_test, [str(path), *given], standalone_mode=False)
    assert (result.return_value, result.exception) == (0, None)
    assert "there  not judged" in result.stderr
    decided = [json.loads(line)["action"] for line in result.stdout.splitlines()]
    assert decided == ["ban", "banned", "banned"]
    assert "guess" not in result.stdout + result.stderr
    command = [sys.executable, "-m", "pop3proxy", "replay", str(path), "--events", "-", *given]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["action"] for r in records if r["event"] == "pop3_policy"] == decided


def test_a_capture_is_judged_by_the_words_that_the_configuration_knows(tmp_path: Path) -> None:
    path, config = tmp_path / "test.pcap", tmp_path / "test.toml"
    runs = [
        run._replace(data=b"-ERR moving house\r\n") if run.data == b"-ERR [AUTH] no\r\n" else run
        for run in GUESSES
    ]
    path.write_bytes(pcap(frames(segments(runs))))
    rule = 'name = "here"\naction = "ban"\nlimits = [{ count = 2, seconds = 60 }]\n'
    words = '[[analyzer.refusals]]\ntext = "moving house"\nreason = "temporary"\n'
    given = [str(path), "--config", str(config)]
    for text, decides in (("", True), (words, False)):
        config.write_text(f"[[policy.rules]]\n{rule}{text}")
        result = CliRunner().invoke(policy_test, given, standalone_mode=False)
        assert (result.return_value, bool(result.stdout)) == (0, decides)
    command = [sys.executable, "-m", "pop3proxy", "replay", *given, "--events", "-"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    failures = [r for r in records if r["event"] == "pop3_login_failure"]
    assert [failure["reason"] for failure in failures] == ["temporary"] * 4


@pytest.mark.parametrize(("password", "decided"), [(b"tanstaaf", 0), (b"other", 1)])
def test_in_a_capture_one_password_by_two_mechanisms_is_one_failure(
    tmp_path: Path, password: bytes, decided: int
) -> None:
    """The example of RFC 1939 section 7, and the password behind it or another."""
    lines = (
        (Side.SERVER, b"+OK POP3 server ready <1896.697170952@dbc.mtview.ca.us>"),
        (Side.CLIENT, b"APOP mrose c4c9334bac560ecc979e58001b3e22fb"),
        (Side.SERVER, b"-ERR [AUTH] no"),
        (Side.CLIENT, b"USER mrose"),
        (Side.SERVER, b"+OK"),
        (Side.CLIENT, b"PASS " + password),
        (Side.SERVER, b"-ERR [AUTH] no"),
    )
    runs = [Said(side, line + b"\r\n") for side, line in lines]
    runs += [Said(Side.CLIENT, None), Said(Side.SERVER, None)]
    (tmp_path / "test.pcap").write_bytes(pcap(frames(segments(runs))))
    rule = 'name = "two"\nby = "pair"\nlimits = [{ count = 2, seconds = 60 }]\n'
    (tmp_path / "test.toml").write_text(f"[[policy.rules]]\n{rule}")
    given = [str(tmp_path / "test.pcap"), "--config", str(tmp_path / "test.toml")]
    result = CliRunner().invoke(policy_test, given, standalone_mode=False)
    assert "2 login attempts, 2 of them failed" in result.stderr
    assert len(result.stdout.splitlines()) == decided


def test_a_capture_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test.pcap").write_bytes(b"no capture")
    result = judged(tmp_path, str(tmp_path / "test.pcap"))
    assert result.return_value == 1
    assert result.stderr.count("\n") == 1
    assert FORMATS in result.stderr
