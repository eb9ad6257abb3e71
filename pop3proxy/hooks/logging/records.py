"""Renders an event as a line of JSON; no masking and no files.

Each event has a function here that spells its parameters out, because this is the costliest thing done
for every event: a dictionary and a general encoder take five times as long. A test holds the
functions against the events' ``parameters``.
"""

import codecs
from collections.abc import Callable
from functools import lru_cache
from json.encoder import encode_basestring as _text
from typing import Any, Final

from ...analyzer.events import (
    Connect,
    Connection,
    Data,
    DataRun,
    Event,
    LoginAttempt,
    LoginFailure,
    LoginSuccess,
    Policy,
    Reply,
    Request,
    SessionEnd,
    StartTLS,
    Tls,
    Unexpected,
)
from ...analyzer.text import decode

VERSION: Final = 1
"""The ``v`` of every record: raised when a field changes its name or meaning."""


_BEGINNING: Final = f'{{"v":{VERSION},"ts":'


def line(event: Event) -> bytes:
    r"""Render the event as one JSON object in UTF-8 that ends in a line feed.

    Text is escaped as JSON demands and no further. Bytes that were no UTF-8 (surrogates, see
    ``pop3proxy.analyzer.events``) are shown as ``\xNN``. Times are in seconds with six decimals.
    """
    return RENDERERS[type(event)](event)


def _renderer(kind: type[Event], own: Callable[[Any], str]) -> Callable[[Event], bytes]:
    """Return what renders events of one kind; ``own`` renders the parameters that only this kind has."""
    name = f',"event":"{kind.name}",'

    def render(event: Event) -> bytes:
        c = event.c
        return (
            f"{_BEGINNING}{event.ts:.6f}{name}"
            f"{_connection(c.uid, c.orig_h, c.orig_p, c.resp_h, c.resp_p, c.tls, c.orig_unknown)}"
            f"{own(event)}}}\n"
        ).encode("utf-8", _BYTES_AS_TEXT)

    return render


def with_fingerprint(record: bytes, fingerprint: str) -> bytes:
    """Add ``password_fp`` to the record of a login; an empty one adds nothing."""
    if not fingerprint:
        return record
    return b'%b,"password_fp":"%b"}\n' % (record[:-2], fingerprint.encode())


def lines(run: DataRun) -> bytes:
    """Render the ``pop3_data`` of a run as ``line`` does each of them."""
    data = run.data
    if not data.isascii() or _needs_escaping(data, len(run.lines)):
        return b"".join(line(Data(run.c, run.ts, decode(text))) for text in run.lines)
    before = line(Data(run.c, run.ts, ""))[: -len(_AFTER_DATA)]
    return before + (_AFTER_DATA + before).join(run.lines) + _AFTER_DATA


def _needs_escaping(data: bytes, lines: int) -> bool:
    if len(data.translate(None, _ESCAPED)) != len(data):
        return True
    # A CR that ends no line.
    return data.count(b"\r") != (lines if data[-2:-1] == b"\r" else 0)


# What JSON escapes, but for the ends of lines; a CR is looked for apart.
_ESCAPED: Final = bytes({*range(0x20), 0x22, 0x5C} - {0x0A, 0x0D})
_AFTER_DATA: Final = b'"}\n'


# Rendered once a session and not ten times; bounded, at half a megabyte or so. Looked up by value, since
# the server may change after pop3_connect, and TLS begin after it.
@lru_cache(maxsize=1024)
def _connection(
    uid: str, orig_h: str, orig_p: int, resp_h: str, resp_p: int, tls: Tls | None, unknown: bool
) -> str:
    orig_unknown = ',"orig_unknown":true' if unknown else ""
    return (
        f'"uid":{_text(uid)},"id.orig_h":{_text(orig_h)},"id.orig_p":{orig_p},'
        f'"id.resp_h":{_text(resp_h)},"id.resp_p":{resp_p}'
        f"{orig_unknown}{_tls(tls) if tls is not None else ''}"
    )


def _tls(tls: Tls) -> str:
    """Render what is known of a client's TLS: version and cipher, and of the rest what there is."""
    shown = f',"tls_version":{_text(tls.version)},"tls_cipher":{_text(tls.cipher)}'
    if tls.server_name:
        shown += f',"tls_server_name":{_text(tls.server_name)}'
    if tls.next_protocol:
        shown += f',"tls_next_protocol":{_text(tls.next_protocol)}'
    if tls.client:
        shown += f',"tls_client":{_text(tls.client)}'
    return shown


LISTENED: Final = frozenset({Connect, LoginAttempt, LoginSuccess, LoginFailure, SessionEnd})
"""The events whose records name the listener that the client came to."""


def _listener(c: Connection) -> str:
    return _named_listener(c.listener, c.listener_h, c.listener_p) if c.listener else ""


# There are few listeners.
@lru_cache(maxsize=64)
def _named_listener(name: str, host: str, port: int) -> str:
    return f',"listener":{_text(name)},"listener.h":{_text(host)},"listener.p":{port}'


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _connect(event: Connect) -> str:
    return _listener(event.c)


def _nothing(_: Event) -> str:
    return ""


def _request(event: Request) -> str:
    return f',"is_orig":true,"command":{_text(event.command)},"arg":{_text(event.arg)}'


def _reply(event: Reply) -> str:
    denial = ',"denial":true' if event.denial else ""
    return f',"is_orig":false,"cmd":{_text(event.cmd)},"msg":{_text(event.msg)}{denial}'


def _data(event: Data) -> str:
    return f',"is_orig":{_flag(event.is_orig)},"data":{_text(event.data)}'


def _credentials(event: LoginAttempt | LoginSuccess | LoginFailure) -> str:
    return (
        f'{_listener(event.c)},"is_orig":{_flag(event.is_orig)},"user":{_text(event.user)},'
        f'"password":{_text(event.password)},"mechanism":{_text(event.mechanism)}'
    )


def _login(event: LoginAttempt | LoginSuccess) -> str:
    return f'{_credentials(event)},"attempt":{event.attempt}'


def _login_failure(event: LoginFailure) -> str:
    return (
        f'{_credentials(event)},"reason":{_text(event.reason)},"code":{_text(event.code)},'
        f'"attempt":{event.attempt}'
    )


def _unexpected(event: Unexpected) -> str:
    attempt = f',"attempt":{event.attempt}' if event.attempt else ""
    return (
        f',"is_orig":{_flag(event.is_orig)},"msg":{_text(event.msg)},'
        f'"detail":{_text(event.detail)}{attempt}'
    )


def _session_end(event: SessionEnd) -> str:
    return (
        f'{_listener(event.c)},"user":{_text(event.user)},"mechanism":{_text(event.mechanism)},'
        f'"outcome":{_text(event.outcome)},"commands":{event.commands},'
        f'"retr":{event.retr},"top":{event.top},"dele":{event.dele},'
        f'"deleted":{event.deleted},"denied":{event.denied},'
        f'"orig_octets":{event.orig_octets},"resp_octets":{event.resp_octets},'
        f'"duration":{event.duration:.6f},"reason":{_text(event.reason)},'
        f'"unexpected":{event.unexpected},"inspected":{_text(event.inspected)}'
    )


def _policy(event: Policy) -> str:
    by_hand = f',"by":{_text(event.by)},"reason":{_text(event.reason)}' if event.by else ""
    return (
        f',"rule":{_text(event.rule)},"action":{_text(event.action)},"key":{_text(event.key)},'
        f'"counted":{_text(event.counted)},"count":{event.count},"limit":{event.limit},'
        f'"window":{event.window:.6f},"seconds":{event.seconds:.6f},"dry_run":{_flag(event.dry_run)}'
        f"{by_hand}"
    )


_PARAMETERS: Final[dict[type[Event], Callable[[Any], str]]] = {
    Connect: _connect,
    Request: _request,
    Reply: _reply,
    Data: _data,
    LoginAttempt: _login,
    LoginSuccess: _login,
    LoginFailure: _login_failure,
    StartTLS: _nothing,
    Unexpected: _unexpected,
    SessionEnd: _session_end,
    Policy: _policy,
}

RENDERERS: Final = {kind: _renderer(kind, own) for kind, own in _PARAMETERS.items()}
"""What renders the events of each kind, as ``line`` does."""


def _bytes_as_text(error: UnicodeError) -> tuple[str, int]:
    r"""Encode surrogates as the bytes that they stand for, each a ``\xNN`` with JSON's two backslashes."""
    assert isinstance(error, UnicodeEncodeError)
    octets = b"".join(map(_octets, error.object[error.start : error.end]))
    return "".join(f"\\\\x{octet:02x}" for octet in octets), error.end


def _octets(surrogate: str) -> bytes:
    if "\udc80" <= surrogate <= "\udcff":
        return surrogate.encode("utf-8", "surrogateescape")
    # No byte of a peer becomes such a one, but half a pair in UTF-16 may: a record must not fail on it.
    return surrogate.encode("utf-8", "surrogatepass")


_BYTES_AS_TEXT: Final = "pop3proxy.bytes_as_text"
codecs.register_error(_BYTES_AS_TEXT, _bytes_as_text)
