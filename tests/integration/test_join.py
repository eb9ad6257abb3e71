"""The proxy's login events and Dovecot's own log, joined record by record.

Every session tells Dovecot its client's port by XCLIENT, which the proxy passes on like any command; so both
records know the client by the same port.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pytest

from .dovecot import Dovecot, JudgedLogin
from .mechanisms import Ran
from .popclient import Attempt, PopClient
from .processes import eventually, stopped_at_the_end
from .proxy import start_proxy
from .records import EventsFile, RecordedSession

pytestmark = pytest.mark.integration

SESSIONS = 800
AT_A_TIME = 50
FEWEST_LOGINS = 1_000

ANSWERED_AT_ONCE = [
    ("USER/PASS", False),
    ("APOP", False),
    ("PLAIN", False),
    ("PLAIN", True),
    ("LOGIN", False),
    ("LOGIN", True),
]
WITH_PASSWORD = [
    *ANSWERED_AT_ONCE,
    ("CRAM-MD5", False),
    ("DIGEST-MD5", False),
    ("SCRAM-SHA-1", False),
    ("SCRAM-SHA-1", True),
    ("SCRAM-SHA-256", False),
    ("SCRAM-SHA-256", True),
]
WITH_TOKEN = [("XOAUTH2", False), ("XOAUTH2", True), ("OAUTHBEARER", False), ("OAUTHBEARER", True)]


@dataclass(slots=True)
class Told:
    """What the clients know: logins answered, and logins that they did not wait for."""

    answered: list[JudgedLogin] = field(default_factory=list)
    unanswered: list[JudgedLogin] = field(default_factory=list)


Play = Callable[[PopClient, Told], None]


class Plan:
    """Draws sessions: users never seen before, every mechanism, right and wrong, well-behaved and not."""

    def __init__(self, server: Dovecot, seed: int) -> None:
        self._server = server
        self._random = random.Random(seed)
        self.users: set[str] = set()

    def session(self) -> Play:
        """Each kind several times in ten."""
        kinds = [self._patient] * 5 + [self._pipelined] * 3 + [self._aborted] * 2
        return self._random.choice(kinds)()

    def _patient(self) -> Play:
        return partial(log_in_patiently, self._attempts(WITH_PASSWORD + WITH_TOKEN))

    def _pipelined(self) -> Play:
        return partial(log_in_without_waiting, self._attempts(ANSWERED_AT_ONCE))

    def _aborted(self) -> Play:
        how = self._random.choice(
            [leave_after_user, leave_after_challenge, cancel, half_close, leave]
        )
        return partial(how, self._attempt(ANSWERED_AT_ONCE, right=True))

    def _attempts(self, ways: Sequence[tuple[str, bool]]) -> list[Attempt]:
        """Up to two that fail, and mostly one that does not."""
        failures = [self._attempt(ways, right=False) for _ in range(self._random.randrange(3))]
        successes = [self._attempt(ways, right=True)][: self._random.randrange(5)]
        return failures + successes

    def _attempt(self, ways: Sequence[tuple[str, bool]], right: bool) -> Attempt:
        mechanism, initial_response = way = self._random.choice(ways)
        account = self._server.new_account()
        user, secret = account.user, account.token if way in WITH_TOKEN else account.password
        if not right:
            user, secret = self._random.choice([(user, "wrong"), (f"no-{user}", secret)])
        self.users.add(user)
        return Attempt(user, secret, mechanism, initial_response)


def as_told(client: PopClient, attempt: Attempt, success: bool) -> JudgedLogin:
    return JudgedLogin(attempt.user, client.port, attempt.mechanism, success)


def log_in_patiently(attempts: Sequence[Attempt], client: PopClient, told: Told) -> None:
    assert client.ask(f"XCLIENT ADDR=127.0.0.1 PORT={client.port}")
    for attempt in attempts:
        told.answered.append(as_told(client, attempt, client.log_in(attempt)))
    assert client.ask("QUIT")


def log_in_without_waiting(attempts: Sequence[Attempt], client: PopClient, told: Told) -> None:
    """Everything from XCLIENT to QUIT in one segment."""
    lines = [client.in_one_go(attempt) for attempt in attempts]
    client.send(
        f"XCLIENT ADDR=127.0.0.1 PORT={client.port}",
        *(line for some in lines for line in some),
        "QUIT",
    )
    assert client.accepted()
    for attempt in attempts:
        if attempt.mechanism == "USER/PASS":
            assert client.accepted()
        told.answered.append(as_told(client, attempt, client.accepted()))
    assert client.accepted()


def leave_after_user(attempt: Attempt, client: PopClient, _: Told) -> None:
    client.ask(f"USER {attempt.user}")
    client.reset()


def leave_after_challenge(_: Attempt, client: PopClient, __: Told) -> None:
    client.send("AUTH PLAIN")
    client.line()


def cancel(attempt: Attempt, client: PopClient, told: Told) -> None:
    """An exchange that the client ends itself, and then a login."""
    assert client.ask(f"XCLIENT ADDR=127.0.0.1 PORT={client.port}")
    client.send("AUTH CRAM-MD5")
    client.line()
    assert not client.ask("*")
    told.answered.append(as_told(client, attempt, client.log_in(attempt)))


def half_close(attempt: Attempt, client: PopClient, told: Told) -> None:
    """The client says that it will say no more, and listens on."""
    client.send(f"XCLIENT ADDR=127.0.0.1 PORT={client.port}", *client.in_one_go(attempt))
    told.unanswered.append(as_told(client, attempt, success=True))
    client.say_no_more()
    client.read_to_the_end()


def leave(attempt: Attempt, client: PopClient, told: Told) -> None:
    client.send(f"XCLIENT ADDR=127.0.0.1 PORT={client.port}", *client.in_one_go(attempt))
    told.unanswered.append(as_told(client, attempt, success=True))


def play(port: int, session: Play) -> Told:
    told = Told()
    with PopClient(port) as client:
        session(client, told)
    return told


@dataclass(frozen=True, slots=True)
class Evidence:
    """The three accounts of the same logins."""

    told: list[Told]
    recorded: list[RecordedSession]
    logged: list[JudgedLogin]

    @property
    def answered(self) -> list[JudgedLogin]:
        return [login for told in self.told for login in told.answered]

    @property
    def unanswered(self) -> list[JudgedLogin]:
        return [login for told in self.told for login in told.unanswered]

    @property
    def verdicts(self) -> list[JudgedLogin]:
        """The proxy's."""
        return [
            JudgedLogin(
                record["user"],
                record["id.orig_p"],
                record["mechanism"],
                record["event"] == "pop3_login_success",
            )
            for session in self.recorded
            for record in session.of("pop3_login_success", "pop3_login_failure")
        ]


def as_dovecot_logs(login: JudgedLogin) -> JudgedLogin:
    """Dovecot judges USER and PASS by PLAIN."""
    mechanism = "PLAIN" if login.mechanism == "USER/PASS" else login.mechanism
    return JudgedLogin(login.user, login.port, mechanism, login.success)


def logged_by_now(server: Dovecot) -> list[JudgedLogin]:
    """Dovecot's log up to a login that is made only to mark its end."""
    last = server.new_account()
    with PopClient(server.port) as client:
        assert client.log_in(Attempt(last.user, last.password, "PLAIN"))

    def complete() -> list[JudgedLogin]:
        logins = server.judged_logins()
        return logins if any(login.user == last.user for login in logins) else []

    return eventually(complete, "Dovecot has logged the last login")


@pytest.fixture(scope="session")
def evidence(
    dovecot: Dovecot,
    events_in: Callable[[str], EventsFile],
    tmp_path_factory: pytest.TempPathFactory,
) -> Evidence:
    """Of one run of many clients at a time."""
    events = events_in("join")
    plan = Plan(dovecot, seed=2)
    sessions = [plan.session() for _ in range(SESSIONS)]
    proxy = start_proxy(dovecot.port, events.path, tmp_path_factory.mktemp("join") / "log")
    with stopped_at_the_end(proxy.process), ThreadPoolExecutor(AT_A_TIME) as pool:
        told = list(pool.map(partial(play, proxy.port), sessions))
        recorded = events.sessions(0, SESSIONS)
    proxy.assert_untroubled()
    logged = [login for login in logged_by_now(dovecot) if login.user in plan.users]
    return Evidence(told, recorded, logged)


def test_the_run_is_large_and_mixed(evidence: Evidence) -> None:
    logins = evidence.answered
    assert len(logins) >= FEWEST_LOGINS
    mechanisms = {mechanism for mechanism, _ in WITH_PASSWORD + WITH_TOKEN}
    assert {(login.mechanism, login.success) for login in logins} == {
        (mechanism, success) for mechanism in mechanisms for success in (True, False)
    }


def test_every_login_that_a_client_saw_is_recorded_once_and_as_it_ended(evidence: Evidence) -> None:
    unasked = Counter(evidence.verdicts) - Counter(evidence.answered)
    assert Counter(evidence.answered) - Counter(evidence.verdicts) == Counter()
    assert unasked <= Counter(evidence.unanswered)


def test_the_proxys_verdicts_are_those_of_dovecots_log(
    evidence: Evidence, ran: Ran, dovecot: Dovecot
) -> None:
    """On user, client port, mechanism and outcome; of logins that a client left, either may lack one."""
    recorded = Counter(map(as_dovecot_logs, evidence.verdicts))
    logged = Counter(evidence.logged)
    assert recorded - logged == Counter()
    assert logged - recorded <= Counter(map(as_dovecot_logs, evidence.unanswered))
    for login in evidence.answered:
        if login.success:
            ran(
                login.mechanism, "the tests' own client", dovecot.title, "joined with Dovecot's log"
            )


def test_every_success_follows_an_attempt_of_the_same_user(evidence: Evidence) -> None:
    for session in evidence.recorded:
        attempts = session.said("pop3_login_attempt", "user", "mechanism")
        assert set(session.said("pop3_login_success", "user", "mechanism")) <= set(attempts[-1:])


def test_every_failure_follows_an_attempt_of_the_same_user(evidence: Evidence) -> None:
    """But one of SCRAM, where the server may refuse the user before the client has proved anything."""
    for session in evidence.recorded:
        attempts = session.said("pop3_login_attempt", "user", "mechanism")
        failures = session.said("pop3_login_failure", "user", "mechanism")
        assert all(one in attempts or one[1].startswith("SCRAM") for one in failures)


def test_sessions_are_inspected_to_the_end(evidence: Evidence) -> None:
    assert {session.end["inspected"] for session in evidence.recorded} == {"whole"}
