"""The JSON Schema of the records, made from the events' definitions; nothing is validated here."""

import inspect
from enum import StrEnum
from typing import Any, ClassVar, Final, get_origin, get_type_hints

from ...analyzer.events import ALL, Event, Policy, Unexpected
from .records import LISTENED, VERSION

_PORT: Final = {"type": "integer", "minimum": 0, "maximum": 65535}
_TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number"}
_TLS: Final = {
    "tls_version": {"type": "string", "description": "like TLSv1.3; only in the client's TLS"},
    "tls_cipher": {"type": "string", "description": "the cipher suite, by OpenSSL's name"},
    "tls_server_name": {"type": "string", "description": "what the client called the server"},
    "tls_next_protocol": {"type": "string", "description": "the protocol agreed on by ALPN"},
    "tls_client": {"type": "string", "description": "the subject of the client's certificate"},
}
"""What records have besides while the client talks TLS to the proxy; the last three where they are known."""

_UNKNOWN: Final = {
    "orig_unknown": {
        "const": True,
        "description": "the client's address is not known; id.orig_h is that of a proxy, or a path",
    }
}
"""What records have besides of a client without an address."""

_LISTENER: Final = {
    "listener": {"type": "string", "description": "the endpoint string of the client's listener"},
    "listener.h": {"type": "string", "description": "the address that it is bound to"},
    "listener.p": _PORT,
}
"""What records of connections, logins and sessions have besides where there is a listener."""

_BY_HAND: Final = {
    "by": {"type": "string", "description": "the operator who commanded it, such as uid:0"},
    "reason": {"type": "string", "description": "the reason that the operator gave, or empty"},
}
"""What a ``pop3_policy`` has besides that an operator commanded."""


def schema() -> dict[str, Any]:
    """Describe the records in JSON Schema (2020-12): one definition an event, and nothing else allowed."""
    kinds = sorted(ALL, key=lambda kind: kind.name)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A record of pop3proxy: one event",
        "oneOf": [{"$ref": f"#/$defs/{kind.name}"} for kind in kinds],
        "$defs": {kind.name: _record(kind) for kind in kinds},
    }


def _record(kind: type[Event]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    common = _common(kind)
    listener = _LISTENER if kind in LISTENED else {}
    parameters = {name: _parameter(kind, name, hints[name]) for name in kind.parameters}
    flags = {name: {"const": True} for name in kind.flags}
    by_hand = _BY_HAND if kind is Policy else {}
    return {
        "description": inspect.getdoc(kind),
        "type": "object",
        "properties": common
        | _UNKNOWN
        | _TLS
        | listener
        | parameters
        | flags
        | _fingerprint(kind)
        | _outcome(kind)
        | by_hand,
        "required": [*common, *parameters],
        "dependentRequired": {name: ["tls_version", "tls_cipher"] for name in _TLS}
        | {name: [*listener] for name in listener}
        | {name: [*by_hand] for name in by_hand},
        "additionalProperties": False,
    }


def _fingerprint(kind: type[Event]) -> dict[str, Any]:
    """Describe what the records of logins have besides, where the policy has a key of its own."""
    if "password" not in kind.parameters:
        return {}
    what = "the same for the same password, under policy.fingerprint_key"
    return {"password_fp": {"type": "string", "pattern": "^[0-9a-f]{16}$", "description": what}}


def _outcome(kind: type[Event]) -> dict[str, Any]:
    """Describe what a ``pop3_unexpected`` has besides that is the outcome of a login attempt."""
    if kind is not Unexpected:
        return {}
    return {"attempt": {"type": "integer", "minimum": 1, "description": "whose outcome this is"}}


def _common(kind: type[Event]) -> dict[str, Any]:
    """Describe what every record begins with, in its order."""
    return {
        "v": {"const": VERSION},
        "ts": {"type": "number", "description": "seconds since the epoch"},
        "event": {"const": kind.name},
        "uid": {"type": "string", "description": "the session: the same in all of its records"},
        "id.orig_h": {"type": "string", "description": "the client's address"},
        "id.orig_p": _PORT,
        "id.resp_h": {"type": "string", "description": "the mail server's address"},
        "id.resp_p": _PORT,
    }


def _parameter(kind: type[Event], name: str, hint: Any) -> dict[str, Any]:
    if get_origin(hint) is ClassVar:
        return {"const": getattr(kind, name)}
    if issubclass(hint, StrEnum):
        return {"enum": [member.value for member in hint]}
    return {"type": _TYPES[hint]}
