"""What is expected of every listener mode before every upstream mode, and of every client with TLS.

The tests of test_tls_matrix.py hold each cell against a session through a real Dovecot, and test_tls_table.py
holds the tables of docs/tls.md against these. Run as a module, this one writes
them anew.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

CHAPTER = Path(__file__).parents[2] / "docs" / "tls.md"

UPSTREAMS = ("plain", "tls", "starttls")
LISTENERS = ("pass", "none", "implicit", "terminate", "require")

CLEAR, STLS, AT_ONCE = "no TLS", "STLS", "TLS at once"
WAYS = (CLEAR, STLS, AT_ONCE)
"""How a client begins."""

SEEN = "mail; login seen"
UNSEEN = "mail; login not seen"
NO_STLS = "STLS refused"
NO_LOGIN = "login refused"
NO_SESSION = "no session"

_REGARDLESS = {
    ("pass", CLEAR): SEEN,
    ("pass", AT_ONCE): NO_SESSION,
    ("none", CLEAR): SEEN,
    ("none", STLS): NO_STLS,
    ("none", AT_ONCE): NO_SESSION,
    ("implicit", CLEAR): NO_SESSION,
    ("implicit", STLS): NO_SESSION,
    ("implicit", AT_ONCE): SEEN,
    ("terminate", CLEAR): SEEN,
    ("terminate", STLS): SEEN,
    ("terminate", AT_ONCE): NO_SESSION,
    ("require", CLEAR): NO_LOGIN,
    ("require", STLS): SEEN,
    ("require", AT_ONCE): NO_SESSION,
}


def expected(listener: str, way: str, upstream: str) -> str:
    """What becomes of a client that begins in a way."""
    if (listener, way) == ("pass", STLS):
        # Behind TLS of the proxy's own the mail server offers no other.
        return UNSEEN if upstream == "plain" else NO_STLS
    return _REGARDLESS[listener, way]


CLIENTS = ("curl", "fetchmail", "mpop", "getmail", "openssl s_client", "poplib")
CLIENT_MODES = ("terminate", "implicit")
NOT_ABLE = "cannot do STLS"


def expected_of(client: str, mode: str) -> str:
    """What becomes of a client that is told to use TLS."""
    return NOT_ABLE if (client, mode) == ("getmail", "terminate") else SEEN


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = tuple(head)
    lines = (heads, ("---",) * len(heads), *rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _mode_rows() -> Iterator[tuple[str, ...]]:
    for listener in LISTENERS:
        for way in WAYS:
            cells = (expected(listener, way, upstream) for upstream in UPSTREAMS)
            yield f"`{listener}`", way, *cells


def _client_rows() -> Iterator[tuple[str, ...]]:
    for client in CLIENTS:
        yield client, *(expected_of(client, mode) for mode in CLIENT_MODES)


def tables() -> dict[str, str]:
    """The tables by the names of their places in the chapter."""
    before = (f"before `{upstream}`" for upstream in UPSTREAMS)
    modes = _table(("listener", "client begins with", *before), _mode_rows())
    clients = _table(("client", *(f"`{mode}`" for mode in CLIENT_MODES)), _client_rows())
    return {"modes": modes, "clients": clients}


def _place(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name}: [^\n]*-->\n)(.*?)(?=<!-- end -->)", re.DOTALL)


def committed(name: str) -> str:
    """A table as it stands in the chapter."""
    found = _place(name).search(CHAPTER.read_text(encoding="utf-8"))
    assert found, f"{CHAPTER.name} has no part {name}"
    return found[2]


def chapter_block(language: str) -> str:
    """The only code block of the chapter in a language."""
    text = CHAPTER.read_text(encoding="utf-8")
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(found)


def _write() -> None:
    text = CHAPTER.read_text(encoding="utf-8")
    for name, table in tables().items():
        found = _place(name).search(text)
        assert found, f"{CHAPTER.name} has no part {name}"
        text = text[: found.start(2)] + table + text[found.end(2) :]
    CHAPTER.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _write()
