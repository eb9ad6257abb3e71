"""The chapter on TLS: its tables are those that sessions are held against, and no message lacks advice."""

import ast
import inspect
import re
from collections.abc import Iterator

import pytest

from pop3proxy.proxy import tls

from .integration.tls_table import CHAPTER, committed, tables


@pytest.mark.parametrize("name", sorted(tables()))
def test_a_table_of_the_chapter_is_what_the_tests_expect(name: str) -> None:
    assert committed(name) == tables()[name], "write it: python -m tests.integration.tls_table"


def advised() -> list[str]:
    """The messages, or parts of messages, that the chapter has advice for."""
    _, _, part = CHAPTER.read_text(encoding="utf-8").partition("## What the log says")
    heads = re.findall(r"^\| (.+?) \|", part, re.MULTILINE)
    return [text.strip(" …") for head in heads for text in re.findall(r"`([^`]+)`", head)]


def messages() -> Iterator[str]:
    """Every text of a refused certificate or a failed handshake, and of a mistake in a file."""
    yield from tls._REFUSED.values()
    yield from dict(tls._REASONS).values()
    for node in ast.walk(ast.parse(inspect.getsource(tls))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "TlsError":
            parts = (part for part in ast.walk(node) if isinstance(part, ast.Constant))
            yield "".join(str(part.value) for part in parts)


def test_every_message_has_advice() -> None:
    known = advised()
    assert [text for text in messages() if not any(part in text for part in known)] == []
