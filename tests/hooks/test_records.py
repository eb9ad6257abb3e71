"""What a record looks like: valid JSON, the fields in their order, nothing lost."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3proxy.analyzer.events import (
    ALL,
    Connect,
    Connection,
    Event,
    Policy,
    Reply,
    Request,
    SessionEnd,
    Tls,
)
from pop3proxy.hooks.logging.records import line
from pop3proxy.hooks.logging.schema import schema

from .examples import TS, connection, every_event

COMMON = ["v", "ts", "event", "uid", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p"]

TLS = ["tls_version", "tls_cipher", "tls_server_name", "tls_next_protocol", "tls_client"]

C = connection()

VALID = jsonschema.Draft202012Validator(schema())


def record(event: Event) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(line(event))
    return loaded


def data_of(text: str) -> Any:
    return record(Reply(C, TS, "OK", text))["msg"]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_record_is_what_all_have_and_then_the_parameters_by_name(kind: type[Event]) -> None:
    (event,) = (event for event in every_event(C) if type(event) is kind)
    common = [1, TS, kind.name, C.uid, C.orig_h, C.orig_p, C.resp_h, C.resp_p]
    own = [getattr(event, name) for name in kind.parameters]
    names = [*COMMON, *kind.parameters]
    # As pairs: the order counts, and two keys of one name would be seen.
    assert json.loads(line(event), object_pairs_hook=list) == [
        *zip(names, [*common, *own], strict=True)
    ]


def test_what_an_operator_commanded_ends_with_who_did_it_and_why() -> None:
    none = ("", 0, 0, 0.0, 3600.0, False)
    event = Policy(Connection("", "", 0, "", 0), TS, "manual", "remove", "user:bob", *none)
    assert "by" not in record(event)
    event.by, event.reason = "uid:0", 'the "helpdesk"\udcff'
    found = record(event)
    VALID.validate(found)
    assert list(found)[-2:] == ["by", "reason"]
    assert (found["by"], found["reason"]) == ("uid:0", 'the "helpdesk"\\xff')
    assert not VALID.is_valid({name: found[name] for name in found if name != "reason"})


FULL = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", "mail.example.org", "pop3", "CN=b\xf6b")


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_what_is_known_of_tls_comes_before_the_parameters(kind: type[Event]) -> None:
    c = connection()
    c.tls = FULL
    (event,) = (event for event in every_event(c) if type(event) is kind)
    assert list(record(event)) == [*COMMON, *TLS, *kind.parameters]
    assert [record(event)[name] for name in TLS] == [
        "TLSv1.3",
        "TLS_AES_256_GCM_SHA384",
        "mail.example.org",
        "pop3",
        "CN=böb",
    ]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_client_without_an_address_is_said_in_each_record(kind: type[Event]) -> None:
    c = connection()
    c.tls, c.orig_unknown = FULL, True
    (event,) = (event for event in every_event(c) if type(event) is kind)
    assert list(record(event)) == [*COMMON, "orig_unknown", *TLS, *kind.parameters]
    assert record(event)["orig_unknown"] is True
    VALID.validate(record(event))


def test_of_tls_only_what_is_known_is_in_a_record() -> None:
    c = connection()
    c.tls = Tls("TLSv1.2", "x")
    assert list(record(Connect(c, TS))) == [*COMMON, "tls_version", "tls_cipher"]


def test_tls_that_begins_within_a_session_is_in_its_later_records() -> None:
    c = connection()
    assert "tls_version" not in record(Connect(c, TS))
    c.tls = FULL
    assert record(Connect(c, TS))["tls_version"] == "TLSv1.3"
    c.tls = None
    assert "tls_version" not in record(Connect(c, TS))


LISTENER = ["listener", "listener.h", "listener.p"]
NAMED = {
    *("pop3_connect", "pop3_login_attempt", "pop3_login_success", "pop3_login_failure"),
    "pop3_session",
}


@pytest.mark.parametrize("tls", [None, FULL], ids=["clear", "TLS"])
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_the_listener_is_in_records_of_connections_logins_and_sessions(
    kind: type[Event], tls: Tls | None
) -> None:
    c = connection()
    c.tls = tls
    c.listener, c.listener_h, c.listener_p = "unix:/run/p\u00f6p", "/run/p\u00f6p", 0
    (event,) = (event for event in every_event(c) if type(event) is kind)
    named = LISTENER if kind.name in NAMED else []
    assert list(record(event)) == [*COMMON, *(TLS if tls else []), *named, *kind.parameters]
    if named:
        values = [record(event)[name] for name in LISTENER]
        assert values == [c.listener, c.listener_h, c.listener_p]


def test_the_reply_of_a_denial_says_so_and_no_other_reply_does() -> None:
    assert record(Reply(C, TS, "ERR", "no", denial=True))["denial"] is True
    assert "denial" not in record(Reply(C, TS, "ERR", "no"))


def test_the_last_record_counts_deletions_and_denials() -> None:
    none = (0, 0, 0, 0, 0, 0)
    end = SessionEnd(
        *(C, TS, "bob", "failure", *none, 1.0, "quit", 0, "whole"),
        mechanism="PLAIN",
        deleted=3,
        denied=2,
    )
    shown = record(end)
    assert (shown["mechanism"], shown["deleted"], shown["denied"]) == ("PLAIN", 3, 2)


def test_a_record_is_one_line_of_compact_json() -> None:
    assert line(Request(C, TS, "USER", "bob")) == (
        b'{"v":1,"ts":1764000000.123456,"event":"pop3_request","uid":"CHhAvVGS1DHFjwGM9",'
        b'"id.orig_h":"192.0.2.17","id.orig_p":51234,"id.resp_h":"198.51.100.4","id.resp_p":110,'
        b'"is_orig":true,"command":"USER","arg":"bob"}\n'
    )


def test_the_server_that_is_known_after_connect_is_in_later_records() -> None:
    c = connection()
    c.resp_h, c.resp_p = "", 0
    before = record(Connect(c, TS))
    c.resp_h, c.resp_p = "2001:db8::4", 995
    after = record(Reply(c, TS, "OK", ""))
    assert (before["id.resp_h"], before["id.resp_p"]) == ("", 0)
    assert (after["id.resp_h"], after["id.resp_p"]) == ("2001:db8::4", 995)


@pytest.mark.parametrize("ts", [0.0, 0.000001, 1764000000.999999, 1764000000.0, 4102444799.123456])
def test_microseconds_are_kept(ts: float) -> None:
    assert record(Connect(C, ts))["ts"] == ts


def test_a_duration_is_a_number_without_an_exponent() -> None:
    event = SessionEnd(C, TS, "", "none", 0, 0, 0, 0, 0, 0, 1e-05, "quit", 0, "whole")
    assert b'"duration":0.000010,' in line(event)


def test_bytes_that_are_no_utf8_are_shown_in_hexadecimal() -> None:
    text = b"m\xfcller \xff\xfe".decode("utf-8", "surrogateescape")
    assert data_of(text) == r"m\xfcller \xff\xfe"


def test_utf8_is_written_as_it_is() -> None:
    assert '"msg":"grüße 日本 😀"'.encode() in line(Reply(C, TS, "OK", "grüße 日本 😀"))


@pytest.mark.parametrize(
    "text", ["a\\b", r"\x41", "\x00\x01\x1f", "\x7f", 'say "hi"', "\r\t", "</"]
)
def test_other_text_is_escaped_by_json_alone(text: str) -> None:
    assert data_of(text) == text


def test_half_a_pair_of_utf16_fails_no_record() -> None:
    assert data_of("\ud83d!") == r"\xed\xa0\xbd!"


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    assert data_of(text) == text


@given(st.binary())
def test_any_bytes_come_back(octets: bytes) -> None:
    """Save for a peer that sends such an escape itself: a backslash stays a backslash."""
    octets = octets.replace(b"\\", b"")
    shown: str = data_of(octets.decode("utf-8", "surrogateescape"))
    parts = shown.split("\\x")
    back = parts[0].encode() + b"".join(
        bytes.fromhex(part[:2]) + part[2:].encode() for part in parts[1:]
    )
    assert back == octets


@given(st.binary())
def test_a_record_is_one_line_whatever_it_holds(octets: bytes) -> None:
    written = line(Reply(C, TS, "OK", octets.decode("utf-8", "surrogateescape")))
    assert written.count(b"\n") == 1
    assert written.endswith(b"}\n")
