"""STLS passed through: the mail arrives unchanged, and the record ends where the session turns to TLS."""

import poplib
import ssl
from contextlib import closing

import pytest

from .audit import assert_dialogue_recorded, assert_end_recorded
from .certificates import Certificates
from .clients import (
    Job,
    curl,
    fetched_by_curl,
    fetched_by_delivery,
    fetched_into_maildir,
    fetchmail,
    mpop,
)
from .mail import ODD_MAILS, TAME_MAILS, Mail
from .mechanisms import Ran, with_version

pytestmark = pytest.mark.integration

INSIDE = "mail fetched after STLS, where the proxy sees nothing"


def assert_record_ends_with_starttls(job: Job) -> None:
    visit = job.visit()
    assert_dialogue_recorded(visit)
    assert visit.transcript.starttls
    assert visit.recorded.names[-2:] == ["pop3_starttls", "pop3_session"]
    assert_end_recorded(visit, "until_tls")


def test_the_record_of_curls_session_ends_where_tls_begins(
    tls_job: Job, certificates: Certificates
) -> None:
    user = f"{tls_job.account.user}:{tls_job.account.password}"
    trust = ("--ssl-reqd", "--cacert", certificates.authority)
    outcome = curl(tls_job, f"[1-{len(ODD_MAILS)}]", *trust, "--user", user)
    assert outcome.status == 0, outcome.output
    assert fetched_by_curl(tls_job) == [mail.sent for mail in ODD_MAILS]
    assert_record_ends_with_starttls(tls_job)


def test_a_login_of_curl_by_certificate_is_not_seen(
    tls_job: Job, certificates: Certificates, ran: Ran
) -> None:
    certificate, key = certificates.client(tls_job.account.user)
    trust = ("--ssl-reqd", "--cacert", certificates.authority, "--cert", certificate, "--key", key)
    login = ("--login-options", "AUTH=EXTERNAL", "--user", f"{tls_job.account.user}:")
    outcome = curl(tls_job, f"[1-{len(ODD_MAILS)}]", *trust, *login)
    assert outcome.status == 0, outcome.output
    assert fetched_by_curl(tls_job) == [mail.sent for mail in ODD_MAILS]
    assert_record_ends_with_starttls(tls_job)
    ran("EXTERNAL", with_version("curl"), tls_job.server, INSIDE)


def test_a_login_of_mpop_by_certificate_is_not_seen(
    tls_job: Job, certificates: Certificates, ran: Ran
) -> None:
    certificate, key = certificates.client(tls_job.account.user)
    trust = ("tls on", "tls_starttls on", f"tls_trust_file {certificates.authority}")
    mine = (f"tls_cert_file {certificate}", f"tls_key_file {key}")
    outcome = mpop(tls_job, "external", "none", *trust, *mine)
    assert outcome.status == 0, outcome.output
    assert sorted(fetched_into_maildir(tls_job)) == sorted(
        mail.with_bare_newlines for mail in ODD_MAILS
    )
    assert_record_ends_with_starttls(tls_job)
    ran("EXTERNAL", with_version("mpop"), tls_job.server, INSIDE)


def test_the_record_of_fetchmails_session_ends_where_tls_begins(
    tame_tls_job: Job, certificates: Certificates
) -> None:
    trust = f'sslproto tls1.2+ sslcertck sslcertfile "{certificates.authority}"'
    outcome = fetchmail(tame_tls_job, "protocol POP3 auth password", tls=trust)
    assert outcome.status == 0, outcome.output
    delivered = sorted(mail.with_bare_newlines for mail in TAME_MAILS)
    assert sorted(fetched_by_delivery(tame_tls_job)) == delivered
    assert_record_ends_with_starttls(tame_tls_job)


def test_the_record_of_poplibs_session_ends_where_tls_begins(
    tls_job: Job, certificates: Certificates
) -> None:
    with closing(poplib.POP3("127.0.0.1", tls_job.port)) as client:
        client.stls(ssl.create_default_context(cafile=str(certificates.authority)))
        client.user(tls_job.account.user)
        client.pass_(tls_job.account.password)
        _, lines, _ = client.retr(1 + ODD_MAILS.index(TAME_MAILS[0]))
        client.quit()
    assert b"".join(line + b"\r\n" for line in lines) == TAME_MAILS[0].sent
    assert_record_ends_with_starttls(tls_job)


def test_the_record_of_openssls_session_ends_where_tls_begins(
    tls_job: Job, certificates: Certificates
) -> None:
    said = f"USER {tls_job.account.user}\r\nPASS {tls_job.account.password}\r\nRETR 2\r\nQUIT\r\n"
    options = ("-quiet", "-verify_return_error", "-CAfile", certificates.authority)
    place = ("-starttls", "pop3", "-connect", f"127.0.0.1:{tls_job.port}")
    outcome = tls_job.run("openssl", "s_client", *options, *place, stdin=said)
    assert ODD_MAILS[1].stored.decode() in outcome.output.replace("\r\n", "\n").replace(
        "\n..", "\n."
    )
    assert_record_ends_with_starttls(tls_job)


def test_a_message_of_10_mb_arrives_unchanged_inside_tls(
    large_tls_job: Job, certificates: Certificates, large: Mail
) -> None:
    user = f"{large_tls_job.account.user}:{large_tls_job.account.password}"
    trust = ("--ssl-reqd", "--cacert", certificates.authority)
    outcome = curl(large_tls_job, "1", *trust, "--user", user)
    assert outcome.status == 0, outcome.output
    assert fetched_by_curl(large_tls_job) == [large.sent]
    assert_record_ends_with_starttls(large_tls_job)
