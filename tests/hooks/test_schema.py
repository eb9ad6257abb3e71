"""The schema says of each record exactly what is written, and allows nothing else."""

import json
from typing import Any

import jsonschema
import pytest

from pop3proxy.analyzer.events import ALL, Event, Oddity, Reason
from pop3proxy.hooks.logging.records import LISTENED, line
from pop3proxy.hooks.logging.schema import schema
from pop3proxy.hooks.masking import masked

from .examples import connection, every_event


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema())


def record_of(kind: type[Event]) -> dict[str, Any]:
    (event,) = (event for event in every_event(connection("hunter2")) if type(event) is kind)
    loaded: dict[str, Any] = json.loads(line(masked(event)))
    return loaded


def test_it_is_a_schema_and_prints_as_json() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(json.dumps(schema())))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_record_of_every_event_is_valid(
    kind: type[Event], validator: jsonschema.Draft202012Validator
) -> None:
    validator.validate(record_of(kind))


TLS = {"tls_version": "TLSv1.3", "tls_cipher": "TLS_AES_256_GCM_SHA384"}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_record_of_tls_is_valid(
    kind: type[Event], validator: jsonschema.Draft202012Validator
) -> None:
    names = ("tls_server_name", "tls_next_protocol", "tls_client", "tls_ja4")
    for more in ({}, *({name: "a"} for name in names)):
        validator.validate(record_of(kind) | TLS | more)
        for name in TLS:
            some = {key: value for key, value in (TLS | more).items() if key != name}
            assert not validator.is_valid(record_of(kind) | some)


LISTENER = {"listener": "tcp:110", "listener.h": "0.0.0.0", "listener.p": 110}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_record_with_a_listener_is_valid_where_there_may_be_one(
    kind: type[Event], validator: jsonschema.Draft202012Validator
) -> None:
    named = kind in LISTENED
    assert validator.is_valid(record_of(kind) | LISTENER) == named
    for name in LISTENER:
        some = {key: value for key, value in LISTENER.items() if key != name}
        assert not validator.is_valid(record_of(kind) | some)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_record_that_says_more_is_not_valid(
    kind: type[Event], validator: jsonschema.Draft202012Validator
) -> None:
    assert not validator.is_valid(record_of(kind) | {"secret": "hunter2"})


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_flag_is_valid_only_where_it_is_true(
    kind: type[Event], validator: jsonschema.Draft202012Validator
) -> None:
    for name in kind.flags:
        validator.validate(record_of(kind) | {name: True})
        assert not validator.is_valid(record_of(kind) | {name: False})
    assert validator.is_valid(record_of(kind) | {"denial": True}) == ("denial" in kind.flags)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_record_that_says_less_is_not_valid(
    kind: type[Event], validator: jsonschema.Draft202012Validator
) -> None:
    record = record_of(kind)
    for name in record:
        assert not validator.is_valid({key: record[key] for key in record if key != name}), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("v", 2),
        ("ts", "1764000000"),
        ("event", "pop3_novelty"),
        ("id.orig_p", 65536),
        ("is_orig", True),
        ("user", None),
        ("reason", "bad_luck"),
    ],
)
def test_a_value_of_another_kind_is_not_valid(
    name: str, value: Any, validator: jsonschema.Draft202012Validator
) -> None:
    (failure,) = (kind for kind in ALL if kind.name == "pop3_login_failure")
    assert not validator.is_valid(record_of(failure) | {name: value})


def test_the_closed_lists_are_listed() -> None:
    definitions = schema()["$defs"]
    assert definitions["pop3_unexpected"]["properties"]["msg"] == {"enum": [*Oddity]}
    assert definitions["pop3_login_failure"]["properties"]["reason"] == {"enum": [*Reason]}


def test_every_event_is_described() -> None:
    for definition in schema()["$defs"].values():
        assert definition["description"]
