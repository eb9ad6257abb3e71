"""A list of capabilities is edited where it must be, and stays octet for octet as it was elsewhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3proxy.proxy.capabilities import Edits, edited, listed

BODY = [
    b"TOP",
    b"USER",
    b"SASL PLAIN EXTERNAL SCRAM-SHA-1 SCRAM-SHA-1-PLUS",
    b"STLS",
    b"IMPLEMENTATION x",
]

SHOW = Edits(stls=True)
HIDE = Edits(stls=False)
BOUND = Edits(bound=True)
REQUIRE = Edits(stls=True, user=True, sasl=True, bound=True)


def reply(*lines: bytes, end: bytes = b"\r\n") -> bytes:
    return end.join([b"+OK Capability list follows", *lines, b".", b""])


def capabilities(text: bytes) -> list[bytes]:
    return text.split(b"\r\n")[1:-2]


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        (Edits(), BODY),
        (SHOW, BODY),
        (HIDE, [*BODY[:3], BODY[4]]),
        (BOUND, [*BODY[:2], b"SASL PLAIN SCRAM-SHA-1", *BODY[3:]]),
        (Edits(user=True), [BODY[0], *BODY[2:]]),
        (REQUIRE, [BODY[0], *BODY[3:]]),
    ],
)
def test_what_is_hidden_is_hidden_and_all_else_stays(edits: Edits, expected: list[bytes]) -> None:
    assert edited(reply(*BODY), edits) == reply(*expected)


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_stls_is_added_before_the_dot_with_its_line_end(end: bytes) -> None:
    assert edited(reply(b"TOP", end=end), SHOW) == reply(b"TOP", b"STLS", end=end)
    assert edited(reply(end=end), SHOW) == reply(b"STLS", end=end)


@pytest.mark.parametrize("line", [b"stls", b"  STLS", b"STLS\t", b"Stls now", b"STLS\r"])
def test_stls_is_known_in_any_case_and_among_blanks(line: bytes) -> None:
    assert edited(reply(line), SHOW) == reply(line)
    assert edited(reply(line), HIDE) == reply()


@pytest.mark.parametrize(
    "line", [b"STLSX", b"X STLS", b".STLS", b"USERS", b"SASLX EXTERNAL", b"", b". "]
)
def test_what_only_looks_like_it_stays(line: bytes) -> None:
    assert edited(reply(line), Edits(False, True, True, True)) == reply(line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"SASL\tPLAIN  EXTERNAL \t LOGIN ", [b"SASL\tPLAIN \t LOGIN "]),
        (b" sasl external  plain", [b" sasl  plain"]),
        (b"SASL EXTERNAL", []),
        (b"SASL scram-sha-256-plus\r", []),
        (b"SASL", [b"SASL"]),
        (
            b"SASL PLAIN XEXTERNAL SCRAM-X PLUS X-PLUS",
            [b"SASL PLAIN XEXTERNAL SCRAM-X PLUS X-PLUS"],
        ),
    ],
)
def test_mechanisms_that_hang_on_one_tls_are_hidden(line: bytes, expected: list[bytes]) -> None:
    assert edited(reply(line), BOUND) == reply(*expected)


def test_every_sasl_line_is_edited_and_one_without_mechanisms_goes_with_them() -> None:
    text = reply(b"SASL PLAIN", b"SASL EXTERNAL LOGIN", b"SASL ")
    assert edited(text, BOUND) == reply(b"SASL PLAIN", b"SASL LOGIN", b"SASL ")
    assert edited(text, Edits(sasl=True)) == reply()


def test_the_status_line_is_no_capability() -> None:
    text = b"USER\r\nUSER\r\n.\r\n"
    assert edited(text, REQUIRE) == b"USER\r\nSTLS\r\n.\r\n"


def test_to_what_has_no_end_nothing_is_added() -> None:
    assert edited(b"+OK\r\nTOP\r\n", SHOW) == b"+OK\r\nTOP\r\n"
    assert edited(b"+OK\r\nTOP\r\n.", SHOW) == b"+OK\r\nTOP\r\n."
    assert edited(b"", SHOW) == b""


EDITS = st.builds(
    Edits, st.sampled_from([True, False, None]), st.booleans(), st.booleans(), st.booleans()
)
LINES = st.one_of(
    st.sampled_from([*BODY, b"stls", b"SASL", b"\tSASL EXTERNAL", b".", b"\r", b"RESP-CODES"]),
    st.binary(max_size=20),
).map(lambda line: line.replace(b"\n", b""))
REPLIES = st.lists(st.tuples(LINES, st.sampled_from([b"\r\n", b"\n"])), max_size=8).map(
    lambda lines: b"+OK\r\n" + b"".join(map(b"".join, lines)) + b".\r\n"
)
FOREIGN = st.lists(
    st.binary(max_size=20)
    .map(lambda line: line.replace(b"\n", b""))
    .filter(lambda line: line.split()[:1] not in ([], [b"."]) and b"s" not in line.lower()),
    max_size=6,
)


@given(REPLIES, EDITS)
def test_nothing_is_invented_and_the_order_stays(text: bytes, edits: Edits) -> None:
    """All octets of the result are those of the reply in their order, but for one STLS before the dot."""
    rest = iter(text)
    result = edited(text, edits)
    if edits.stls:
        result = result.removesuffix(b"STLS\r\n.\r\n") + b".\r\n" * result.endswith(
            b"STLS\r\n.\r\n"
        )
    assert all(octet in rest for octet in result)


@given(REPLIES, EDITS)
def test_editing_twice_is_editing_once(text: bytes, edits: Edits) -> None:
    once = edited(text, edits)
    assert edited(once, edits) == once


@given(REPLIES, EDITS)
def test_what_is_hidden_is_not_there(text: bytes, edits: Edits) -> None:
    for line in edited(text, edits).split(b"\n")[1:]:
        words = line.upper().split()
        if edits.stls is False:
            assert words[:1] != [b"STLS"]
        if edits.user:
            assert words[:1] != [b"USER"]
        if edits.sasl:
            assert words[:1] != [b"SASL"]
        elif edits.bound and words[:1] == [b"SASL"]:
            assert b"EXTERNAL" not in words
            assert not any(word.startswith(b"SCRAM-") and word.endswith(b"-PLUS") for word in words)


@given(FOREIGN, EDITS)
def test_capabilities_that_are_not_known_stay_as_they_are(lines: list[bytes], edits: Edits) -> None:
    added = [b"STLS"] if edits.stls else []
    assert edited(reply(*lines), edits) == reply(*lines, *added)


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize(
    ("edits", "names"),
    [
        (Edits(answers=True), [b"TOP", b"UIDL", b"USER"]),
        (Edits(answers=True, stls=True), [b"TOP", b"UIDL", b"USER", b"STLS"]),
        (Edits(answers=True, stls=True, user=True, sasl=True), [b"TOP", b"UIDL", b"STLS"]),
    ],
)
def test_a_list_in_place_of_a_refusal_shows_what_may_be_shown(
    end: bytes, edits: Edits, names: list[bytes]
) -> None:
    assert listed(b"-ERR unknown" + end, edits) == reply(*names, end=end)


@pytest.mark.parametrize("edits", [Edits(), SHOW, Edits(stls=False, bound=True)])
def test_a_refusal_stays_where_it_is_not_answered(edits: Edits) -> None:
    assert listed(b"-ERR unknown\r\n", edits) == b"-ERR unknown\r\n"
