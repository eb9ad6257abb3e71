"""Which hook hears what, in which order, and what a failing hook costs."""

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.logger import capturedLogs

from pop3proxy.analyzer.events import (
    Event,
    LoginFailure,
    LoginSuccess,
    Policy,
    Reason,
    Reply,
    Request,
)
from pop3proxy.hooks.api import EndSession, Hook
from pop3proxy.hooks.dispatcher import Dispatcher, UnknownEvent

from .examples import TS, connection

C = connection()

Heard = list[tuple[str, str]]


class Listener(Hook):
    """Notes what it hears under its name."""

    def __init__(self, name: str, heard: Heard) -> None:
        self._name = name
        self._heard = heard

    def pop3_request(self, event: Request) -> None:
        self._heard.append((self._name, event.command))

    def pop3_reply(self, event: Reply) -> None:
        self._heard.append((self._name, event.cmd))


class Failing(Hook):
    """Fails on every reply, with the event in the exception's text."""

    def pop3_reply(self, event: Reply) -> None:
        raise RuntimeError(f"cannot bear {event}")


class Ending(Hook):
    """Gives up every session that logs in."""

    def pop3_login_success(self, event: LoginSuccess) -> None:
        raise EndSession("enough")


def logged(events: Sequence[Any]) -> str:
    """All that a log could print of captured events."""
    return "\n".join(str(event) for event in events)


def test_hooks_are_told_in_their_order_event_by_event() -> None:
    heard: Heard = []
    dispatcher = Dispatcher([Listener("first", heard), Listener("second", heard)])
    dispatcher.dispatch([Request(C, TS, "NOOP", ""), Reply(C, TS, "OK", "")])
    assert heard == [("first", "NOOP"), ("second", "NOOP"), ("first", "OK"), ("second", "OK")]


def test_a_hook_hears_only_what_it_has_a_method_for() -> None:
    heard: Heard = []
    Dispatcher([Listener("it", heard)]).dispatch([LoginSuccess(C, TS, "bob", "", "APOP")])
    assert heard == []


def test_wanted_is_what_any_hook_listens_to() -> None:
    dispatcher = Dispatcher([Listener("it", []), Ending()])
    assert dispatcher.wants == {Request, Reply, LoginSuccess}


def test_nothing_is_wanted_without_hooks() -> None:
    assert Dispatcher([]).wants == frozenset()


def test_a_listener_may_be_an_attribute_of_the_instance() -> None:
    """So a hook can decide by its options what it listens to."""
    heard: list[Event] = []
    hook = Hook()
    hook.pop3_login_failure = heard.append  # type: ignore[attr-defined]
    dispatcher = Dispatcher([hook])
    event = LoginFailure(C, TS, "bob", "", "APOP", Reason.CREDENTIALS)
    dispatcher.dispatch([event])
    assert dispatcher.wants == {LoginFailure}
    assert heard == [event]


def test_a_method_named_after_no_event_is_refused_and_the_events_are_listed() -> None:
    class Misspelt(Hook):
        def pop3_login_sucess(self, event: Event) -> None:
            pass

    with pytest.raises(UnknownEvent, match=r"Misspelt\.pop3_login_sucess .* pop3_login_success"):
        Dispatcher([Misspelt()])


def test_a_failing_hook_keeps_no_event_from_the_others() -> None:
    heard: Heard = []
    dispatcher = Dispatcher([Failing(), Listener("it", heard)])
    with capturedLogs():
        dispatcher.dispatch([Reply(C, TS, "OK", ""), Request(C, TS, "QUIT", "")])
    assert heard == [("it", "OK"), ("it", "QUIT")]


def test_failures_are_counted_by_hook() -> None:
    dispatcher = Dispatcher([Failing()])
    with capturedLogs():
        dispatcher.dispatch([Reply(C, TS, "OK", "")] * 3)
    assert dispatcher.failures == {"Failing": 3}


def test_a_hook_with_a_label_is_counted_under_it() -> None:
    class Labelled(Failing):
        label = "the broken one"

    dispatcher = Dispatcher([Labelled()])
    with capturedLogs():
        dispatcher.dispatch([Reply(C, TS, "OK", "")])
    assert dispatcher.failures == {"the broken one": 1}


def test_a_failure_is_logged_with_its_type_and_place() -> None:
    with capturedLogs() as logs:
        Dispatcher([Failing()]).dispatch([Reply(C, TS, "OK", "")])
    (log,) = logs
    assert log["event"] == "pop3_reply"
    assert log["problem"].startswith(f"RuntimeError at {__file__}:")


def test_a_failure_is_logged_without_what_the_event_held() -> None:
    with capturedLogs() as logs:
        Dispatcher([Failing()]).dispatch([Reply(C, TS, "ERR", "what is hunter2?")])
    assert "hunter2" not in logged(logs)


def test_a_hook_that_goes_on_failing_is_logged_ever_more_seldom() -> None:
    with capturedLogs() as logs:
        Dispatcher([Failing()]).dispatch([Reply(C, TS, "OK", "")] * 20)
    assert [log["count"] for log in logs] == [1, 2, 4, 8, 16]


def test_a_session_is_ended_after_all_have_heard_all() -> None:
    heard: Heard = []
    dispatcher = Dispatcher([Ending(), Listener("it", heard)])
    with pytest.raises(EndSession):
        dispatcher.dispatch([LoginSuccess(C, TS, "bob", "", "APOP"), Reply(C, TS, "OK", "")])
    assert heard == [("it", "OK")]


def test_the_wish_to_end_a_session_is_no_failure() -> None:
    dispatcher = Dispatcher([Ending()])
    with capturedLogs() as logs, pytest.raises(EndSession):
        dispatcher.dispatch([LoginSuccess(C, TS, "bob", "", "APOP")])
    assert dispatcher.failures == {}
    assert logs == []


class Judge(Hook):
    """Decides, and says so by an event of its own."""

    blocking = True

    def __init__(self) -> None:
        self.heard: list[str] = []

    def pop3_policy(self, event: Policy) -> None:
        self.heard.append(event.rule)

    def say(self, rule: str) -> None:
        found = ("address:192.0.2.17", "failures", 5, 5, 60.0, 0.0, False)
        self.emit(Policy(C, TS, rule, "log", *found))


class Tired(Hook):
    """Wants each session ended that a policy decides about."""

    def pop3_policy(self, event: Policy) -> None:
        raise EndSession("enough")


def test_what_a_hook_tells_is_heard_by_all_and_decides_nothing() -> None:
    judge, other = Judge(), Judge()
    dispatcher = Dispatcher([judge, Tired(), other])
    judge.say("guessing")
    assert (judge.heard, other.heard) == (["guessing"], ["guessing"])
    assert not dispatcher.failures


def test_without_a_dispatcher_nobody_hears_and_nothing_ends() -> None:
    judge = Judge()
    judge.say("guessing")
    judge.end_sessions({"C1"})
    assert judge.heard == []
