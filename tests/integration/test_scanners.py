"""What scanners, printers and old scripts say that log in by POP3 before they send, as a client of the tests.

Source: PHPMailer, src/POP3.php at 016e6330d402 ("POP before SMTP"; its QUIT has no line end). The rest is
what servers had to learn to bear: lines that end in LF alone, or in CR CR LF (from a library that makes CR LF
of the LF in a CR LF), blanks behind a command, names of Windows domains, names and passwords in Latin-1.
"""

import pytest

from .audit import Login, assert_let_in, assert_logins_recorded
from .clients import Job
from .popclient import PopClient

pytestmark = pytest.mark.integration

TIMES = 10


def leave(client: PopClient) -> None:
    assert client.ask("QUIT")
    client.read_to_the_end()


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def login_of(job: Job, success: bool = True) -> Login:
    return Login(job.account.user, "USER/PASS", success)


@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["crlf", "lf"])
@pytest.mark.parametrize(
    "words", ["user pass stat list retr dele quit", "User Pass Stat List Retr Dele Quit"]
)
def test_words_in_any_case_and_lines_that_end_in_lf_alone_pass(
    tame_job: Job, words: str, end: bytes
) -> None:
    user, password, stat, listing, retrieve, delete, leaving = (
        word.encode() for word in words.split()
    )
    account = tame_job.account
    with PopClient(tame_job.port) as client:
        assert client.answered(user + b" " + account.user.encode() + end)
        assert client.answered(password + b" " + account.password.encode() + end)
        assert client.answered(stat + end)
        assert client.answered(listing + end)
        client.body()
        assert client.answered(retrieve + b" 1" + end)
        client.body()
        assert client.answered(delete + b" 1" + end)
        assert client.answered(leaving + end)
        client.read_to_the_end()
    visit = tame_job.visit()
    assert_let_in(visit, login_of(tame_job))
    assert visit.recorded.end["dele"] == 1


def test_a_login_whose_lines_end_in_lf_passes_in_one_write(tame_job: Job) -> None:
    account = tame_job.account
    lines = f"user {account.user}\npass {account.password}\nstat\nquit\n"
    with PopClient(tame_job.port) as client:
        client.write(lines.encode())
        assert all(client.accepted() for _ in range(4))
        client.read_to_the_end()
    assert_let_in(tame_job.visit(), login_of(tame_job))


@pytest.mark.parametrize("line", [b"CAPA \r\n", b"AUTH \r\n", b"CAPA  \r\n", b"capa \n"])
def test_blanks_behind_a_word_that_stands_alone_pass(tame_job: Job, line: bytes) -> None:
    account = tame_job.account
    with PopClient(tame_job.port) as client:
        assert client.answered(line)
        assert "PLAIN" in " ".join(client.body())
        assert client.ask(f"USER {account.user}")
        assert client.ask(f"PASS {account.password}")
        assert client.answered(b"STAT \r\n")
        assert client.answered(b"QUIT \r\n")
        client.read_to_the_end()
    assert_let_in(tame_job.visit(), login_of(tame_job))


@pytest.mark.parametrize("word", [b"CAPA", b"AUTH"])
def test_a_session_goes_on_behind_a_line_that_ends_in_cr_cr_lf(tame_job: Job, word: bytes) -> None:
    """Under guard the proxy refuses the line, since not all servers read it alike; Dovecot takes it."""
    account, line = tame_job.account, word + b"\r\r\n"
    with PopClient(tame_job.port) as client:
        assert client.answered(line) != tame_job.guarded
        if not tame_job.guarded:
            client.body()
        assert client.ask(f"USER {account.user}")
        assert client.ask(f"PASS {account.password}")
        leave(client)
    visit = tame_job.visit(*[line] * tame_job.guarded)
    assert_logins_recorded(visit.recorded, login_of(tame_job))
    assert visit.recorded.end["reason"] == "server_closed"
    if tame_job.guarded:
        assert_let_in(visit, login_of(tame_job), unexpected=["not_passed"])


def test_odd_names_and_passwords_pass_as_they_are(odd_job: Job) -> None:
    r"""``DOMAIN\user``, UTF-8, Latin-1, two names with a blank, a password of blanks, tabs and any bytes."""
    account = odd_job.account
    with PopClient(odd_job.port) as client:
        assert client.answered(b"USER " + as_bytes(account.user) + b"\r\n")
        assert client.answered(b"PASS " + as_bytes(account.password) + b"\r\n")
        assert client.ask("STAT")
        leave(client)
    assert_let_in(odd_job.visit(), login_of(odd_job))


def test_a_quit_without_a_line_end_before_the_client_leaves_is_no_fault(tame_job: Job) -> None:
    """PHPMailer logs in, so that its SMTP is let through, and no more."""
    account = tame_job.account
    with PopClient(tame_job.port) as client:
        assert client.ask(f"USER {account.user}")
        assert client.ask(f"PASS {account.password}")
        client.write(b"QUIT")
    (recorded,) = tame_job.recorded()
    assert_logins_recorded(recorded, login_of(tame_job))
    assert recorded.end["reason"] == "client_closed"


def test_a_scanner_that_logs_in_every_time_and_reads_nothing_is_let_in_each_time(job: Job) -> None:
    account = job.account
    for _ in range(TIMES):
        with PopClient(job.port) as client:
            assert client.ask(f"USER {account.user}")
            assert client.ask(f"PASS {account.password}")
            leave(client)
    for recorded in job.recorded(TIMES):
        assert_logins_recorded(recorded, login_of(job))
