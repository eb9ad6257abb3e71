"""A person at telnet, who types character by character or line by line, with slips, and gets in all the same.

Source: guides that have readers test a mailbox by hand, such as "Using Telnet with a POP3 Mail Server" (M.
Santovec): local echo, no backspace ("STS(bs)AT" is an error), HELP tried, lower case.
"""

from collections.abc import Callable

import pytest

from pop3proxy.analyzer.guard import MAX_NOT_PASSED

from .audit import Login, assert_let_in
from .clients import Job
from .popclient import PopClient

pytestmark = pytest.mark.integration

Say = Callable[[PopClient, bytes], None]
WAYS = [
    pytest.param(PopClient.write, id="line-by-line"),
    pytest.param(PopClient.type, id="character-by-character"),
]


class Person:
    """Types lines at a terminal, and reads what is answered."""

    def __init__(self, client: PopClient, say: Say, end: bytes = b"\r\n") -> None:
        self._client = client
        self._say = say
        self._end = end

    def types(self, line: str) -> bool:
        """Whether the answer is +OK."""
        self._say(self._client, line.encode() + self._end)
        return self._client.accepted()


@pytest.mark.parametrize("say", WAYS)
@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["crlf", "lf"])
def test_whoever_types_gets_in(tame_job: Job, say: Say, end: bytes) -> None:
    account = tame_job.account
    with PopClient(tame_job.port) as client:
        person = Person(client, say, end)
        assert person.types(f"user {account.user}")
        assert person.types(f"pass {account.password}")
        assert person.types("list")
        client.body()
        assert person.types("retr 1")
        client.body()
        assert person.types("dele 1")
        assert person.types("quit")
        client.read_to_the_end()
    assert_let_in(tame_job.visit(), Login(account.user, "USER/PASS"))


@pytest.mark.parametrize("say", WAYS)
@pytest.mark.parametrize("slip", ["", "help", "usre somebody", "USER\t", "?"])
def test_whoever_slips_before_the_login_gets_in(tame_job: Job, say: Say, slip: str) -> None:
    account = tame_job.account
    with PopClient(tame_job.port) as client:
        person = Person(client, say)
        assert not person.types(slip)
        assert person.types(f"user {account.user}")
        assert person.types(f"pass {account.password}")
        assert person.types("quit")
        client.read_to_the_end()
    visit = tame_job.visit(*[slip.encode() + b"\r\n"] * tame_job.guarded)
    oddity = "not_passed" if tame_job.guarded else "unknown_command"
    assert_let_in(visit, Login(account.user, "USER/PASS"), unexpected=[oddity])


@pytest.mark.parametrize("say", WAYS)
@pytest.mark.parametrize("slip", ["", "help", "sat"])
def test_whoever_slips_between_name_and_password_gets_in(
    tame_job: Job, say: Say, slip: str
) -> None:
    """Lines that the proxy has answered do not take the name away; Dovecot keeps it, too."""
    account = tame_job.account
    with PopClient(tame_job.port) as client:
        person = Person(client, say)
        assert person.types(f"user {account.user}")
        assert not person.types(slip)
        assert person.types(f"pass {account.password}")
        assert person.types("quit")
        client.read_to_the_end()
    visit = tame_job.visit(*[slip.encode() + b"\r\n"] * tame_job.guarded)
    oddity = "not_passed" if tame_job.guarded else "unknown_command"
    assert_let_in(visit, Login(account.user, "USER/PASS"), unexpected=[oddity])


@pytest.mark.parametrize("say", WAYS)
def test_whoever_corrects_a_name_by_backspace_types_it_again_and_gets_in(
    tame_job: Job, say: Say
) -> None:
    account = tame_job.account
    slip = f"user x\b{account.user}"
    with PopClient(tame_job.port) as client:
        person = Person(client, say)
        # To Dovecot any name is right until there is a password.
        assert person.types(slip) != tame_job.guarded
        assert person.types(f"user {account.user}")
        assert person.types(f"pass {account.password}")
        assert person.types("quit")
        client.read_to_the_end()
    visit = tame_job.visit(*[slip.encode() + b"\r\n"] * tame_job.guarded)
    oddities = ["not_passed"] * tame_job.guarded
    assert_let_in(visit, Login(account.user, "USER/PASS"), unexpected=oddities)


@pytest.mark.parametrize("say", WAYS)
def test_whoever_mistypes_the_password_has_failed_once_and_gets_in_at_the_second_try(
    tame_job: Job, say: Say
) -> None:
    account = tame_job.account
    with PopClient(tame_job.port) as client:
        person = Person(client, say)
        assert person.types(f"user {account.user}")
        assert not person.types("pass correct house")
        assert person.types(f"user {account.user}")
        assert person.types(f"pass {account.password}")
        assert person.types("quit")
        client.read_to_the_end()
    logins = Login(account.user, "USER/PASS", success=False), Login(account.user, "USER/PASS")
    assert_let_in(tame_job.visit(), *logins)


@pytest.mark.parametrize("guarding", ["guarded"], indirect=True)
def test_whoever_slips_many_times_still_gets_in(tame_job: Job) -> None:
    """Without a guard Dovecot ends the session after three."""
    account = tame_job.account
    with PopClient(tame_job.port) as client:
        person = Person(client, PopClient.write)
        assert not any(person.types("help") for _ in range(MAX_NOT_PASSED))
        assert person.types(f"user {account.user}")
        assert person.types(f"pass {account.password}")
        assert person.types("quit")
        client.read_to_the_end()
    visit = tame_job.visit(*[b"help\r\n"] * MAX_NOT_PASSED)
    assert_let_in(
        visit, Login(account.user, "USER/PASS"), unexpected=["not_passed"] * MAX_NOT_PASSED
    )


@pytest.mark.parametrize("guarding", ["guarded"], indirect=True)
def test_whoever_slips_once_too_often_is_shown_out(job: Job) -> None:
    with PopClient(job.port) as client:
        person = Person(client, PopClient.write)
        assert not any(person.types("help") for _ in range(MAX_NOT_PASSED))
        client.send("help")
        client.read_to_the_end()
    (recorded,) = job.recorded()
    assert recorded.end["reason"] == "not_passed"


@pytest.mark.parametrize("say", WAYS)
def test_whoever_gives_up_has_not_failed(job: Job, say: Say) -> None:
    with PopClient(job.port) as client:
        person = Person(client, say)
        assert person.types(f"user {job.account.user}")
        assert person.types("quit")
        client.read_to_the_end()
    visit = job.visit()
    assert_let_in(visit)
    assert visit.recorded.end["outcome"] == "none"
