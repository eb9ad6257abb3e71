"""node-pop3, a client for Node.js: it has USER and PASS, and every command behind them."""

import json
from pathlib import Path

import pytest

from .audit import Login, assert_every_event_recorded
from .clients import Job, Outcome
from .mail import TAME_MAILS, Mail
from .mechanisms import Ran
from .processes import unavailable

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent / "node"
PACKAGE = HERE / "node_modules" / "node-pop3" / "package.json"


@pytest.fixture
def client() -> str:
    """Its name and version."""
    if not PACKAGE.exists():
        unavailable(f"node-pop3 is not installed: run npm ci in {HERE}")
    return f"node-pop3 {json.loads(PACKAGE.read_text())['version']}"


def fetch(job: Job) -> Outcome:
    account = job.account
    return job.run(
        "node", HERE / "fetch.mjs", str(job.port), account.user, account.password, job.folder
    )


def as_written(mail: Mail) -> str:
    """Node-pop3 leaves dots stuffed and the last line without its end, and reads text as UTF-8."""
    text = mail.sent.decode(errors="replace").removesuffix("\r\n")
    return "\r\n".join("." * line.startswith(".") + line for line in text.split("\r\n"))


def test_mail_arrives_unchanged_and_every_event_is_recorded(
    tame_job: Job, client: str, ran: Ran
) -> None:
    outcome = fetch(tame_job)
    assert outcome.status == 0, outcome.output
    fetched = [path.read_bytes().decode() for path in sorted(tame_job.folder.glob("mail-*"))]
    assert fetched == [as_written(mail) for mail in TAME_MAILS]
    assert_every_event_recorded(tame_job.visit(), Login(tame_job.account.user, "USER/PASS"))
    ran("USER/PASS", client, tame_job.server, "mail fetched")


def test_a_wrong_password_is_recorded_as_a_failure(
    strangers_job: Job, client: str, ran: Ran
) -> None:
    assert fetch(strangers_job).status != 0
    login = Login(strangers_job.account.user, "USER/PASS", success=False)
    assert_every_event_recorded(strangers_job.visit(), login)
    ran("USER/PASS", client, strangers_job.server, "wrong password")
