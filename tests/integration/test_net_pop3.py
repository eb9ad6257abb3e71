"""Net::POP3 of Perl's libnet: its ways to log in, and every command that it has."""

import subprocess

import pytest

from .audit import Login, assert_every_event_recorded, assert_let_in
from .clients import Job, Outcome, net_pop3
from .mail import TAME_MAILS
from .mechanisms import Ran
from .processes import program, unavailable

pytestmark = pytest.mark.integration

MECHANISMS = ["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5"]


def client() -> str:
    command = [program("perl"), "-MNet::POP3", "-e", "print Net::POP3->VERSION"]
    return f"Net::POP3 {subprocess.check_output(command, text=True)}"


@pytest.fixture
def sasl() -> None:
    """Perl's SASL, for ``auth``."""
    command = [program("perl"), "-MAuthen::SASL", "-MDigest::HMAC_MD5", "-e", "1"]
    if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode:
        unavailable("Perl has no SASL: install libauthen-sasl-perl and libdigest-hmac-perl")


def words(job: Job) -> str:
    """Account and password as Perl's arguments."""
    return f"'{job.account.user}', '{job.account.password}'"


def with_sasl(job: Job, mechanism: str) -> str:
    callback = f"{{ user => '{job.account.user}', pass => '{job.account.password}' }}"
    return f"""
        use Authen::SASL;
        my $sasl = Authen::SASL->new(mechanism => '{mechanism}', callback => {callback});
        defined $pop->auth($sasl) && $pop->code == 200 or die 'refused: ' . $pop->message;
    """


def fetch(job: Job, login: str) -> Outcome:
    """Log in, and write each message into a file of its own."""
    return net_pop3(
        job,
        f"""
        {login}
        my $mails = $pop->list;
        for my $number (sort keys %$mails) {{
            open(my $file, '>:raw', '{job.folder}/' . "mail-$number") or die;
            print $file @{{ $pop->get($number) }};
            close($file);
            $pop->delete($number);
        }}
        $pop->quit;
        """,
    )


def assert_mail_fetched(job: Job, outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.output
    fetched = [path.read_bytes() for path in sorted(job.folder.glob("mail-*"))]
    assert fetched == [mail.with_bare_newlines for mail in TAME_MAILS]


@pytest.mark.parametrize(
    ("call", "mechanism"), [("login", "USER/PASS"), ("apop", "APOP")], ids=["login", "apop"]
)
def test_mail_arrives_unchanged_and_every_event_is_recorded(
    tame_job: Job, call: str, mechanism: str, ran: Ran
) -> None:
    outcome = fetch(tame_job, f"defined $pop->{call}({words(tame_job)}) or die 'refused';")
    assert_mail_fetched(tame_job, outcome)
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, mechanism))
    ran(mechanism, client(), tame_job.server, "mail fetched")


@pytest.mark.usefixtures("sasl")
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_mail_arrives_unchanged_after_auth_and_every_event_is_recorded(
    tame_job: Job, mechanism: str, ran: Ran
) -> None:
    outcome = fetch(tame_job, with_sasl(tame_job, mechanism))
    assert_mail_fetched(tame_job, outcome)
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, mechanism))
    ran(mechanism, client(), tame_job.server, "mail fetched")


def test_every_command_is_recorded(tame_job: Job) -> None:
    """LAST is none of RFC 1939 any more; Dovecot does not know it."""
    outcome = net_pop3(
        tame_job,
        f"""
        $pop->capa->{{UIDL}} // die 'no capabilities';
        $pop->user('{tame_job.account.user}') or die;
        $pop->pass('{tame_job.account.password}') or die;
        $pop->popstat; $pop->list; $pop->list(1); $pop->uidl; $pop->uidl(1);
        $pop->top(1, 3); $pop->last;
        $pop->delete(1); $pop->reset; $pop->get(2);
        $pop->quit;
        """,
    )
    assert outcome.status == 0, outcome.output
    login = Login(tame_job.account.user, "USER/PASS")
    assert_every_event_recorded(tame_job.visit(), login)


def test_a_command_that_no_rfc_has_is_answered_by_the_server_behind_the_login(
    tame_job: Job,
) -> None:
    """``ping`` sends PING, which some servers had."""
    outcome = net_pop3(
        tame_job,
        f"$pop->login({words(tame_job)}) or die; $pop->ping('somebody'); $pop->list or die; $pop->quit;",
    )
    assert outcome.status == 0, outcome.output
    visit = tame_job.visit()
    login = Login(tame_job.account.user, "USER/PASS")
    assert_let_in(visit, login, unexpected=["unknown_command"])


@pytest.mark.parametrize(
    ("call", "mechanism"), [("login", "USER/PASS"), ("apop", "APOP")], ids=["login", "apop"]
)
def test_a_wrong_password_is_recorded_as_a_failure(
    strangers_job: Job, call: str, mechanism: str, ran: Ran
) -> None:
    outcome = net_pop3(
        strangers_job, f"die 'let in' if $pop->{call}({words(strangers_job)}); $pop->quit;"
    )
    assert outcome.status == 0, outcome.output
    login = Login(strangers_job.account.user, mechanism, success=False)
    assert_every_event_recorded(strangers_job.visit(), login)
    ran(mechanism, client(), strangers_job.server, "wrong password")
