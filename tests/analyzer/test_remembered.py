"""What counts as a repetition of a secret, and what happens when there are more than can be remembered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3proxy.analyzer.limits import Limits
from pop3proxy.analyzer.remembered import (
    LONG,
    LONG_PIECE,
    MAIL_PIECE,
    NOTHING_REMEMBERED,
    PIECE,
    Remembered,
)


def remembering(*secrets: bytes) -> Remembered:
    remembered = Remembered(Limits().secrets, Limits().secret_bytes)
    for secret in secrets:
        remembered.add(secret)
    return remembered


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (b"SecretTail", "unknown command SecretTail"),
        (b"SecretTail", "unknown command cretTail"),
        (b"SecretTail", "unknown command SECRETTA"),
        (b"SecretTail", "unknown command 'SecretTa'"),
        (b"SecretTail", '"retTai"'),
        # A word that is the beginning or the end, as of a server that shows four letters of a command.
        (b"SecretTail", "unknown command SECR"),
        (b"SecretTail", "unknown command: Tail"),
        (b"a secret of many words", "what is y word?"),
        (b"four", "xfourx"),
        (b"fiver", "xFIVERx"),
        (b"abc", "what is abc?"),
        (b"first\rsecond", "no command: second"),
        (b"first\0two", "no command: two"),
        ("straße1".encode(), "STRASSE1"),
        ("пароль".encode(), "ПАРОЛЬ?"),
        # The server has cut a letter in two.
        ("xäöüx".encode(), "what is \udca4öüx?"),
        (b"\xff\xfe\xfd\xfc\xfb\xfa", "what is \udcff\udcfe\udcfd\udcfc\udcfb\udcfa"),
        (b"x" * 40 + b"MIDDLE-OF-A-LONG-ONE" + b"y" * 40, "at MIDDLE-OF-A-LONG-ONE"),
    ],
)
def test_a_repetition_is_found(secret: bytes, text: str) -> None:
    assert remembering(secret).repeated_in(text)
    # Beside so many others it is looked for in another way.
    others = [b"%d-of-the-others-%d" % (number, number) for number in range(20)]
    assert remembering(secret, *others).repeated_in(text)


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (b"SecretTail", "a cretin has retailed it"),
        (b"SecretTail", "detail"),
        (b"abc", "xabc"),
        (b"abc", "abc_"),
        (b"OK", "TOKEN OKAY"),
        (b"hunter2", "Logged in."),
        (b"hunter2", ""),
        (b"", "Logged in."),
        (b"   ", "Logged in."),
        (b"x" * 40 + b"MIDDLE-OF-A-LONG-ONE" + b"y" * 40, "at MIDDLE-"),
    ],
)
def test_what_is_no_repetition_is_not_taken_for_one(secret: bytes, text: str) -> None:
    assert not remembering(secret).repeated_in(text)
    others = [b"%d-of-the-others-%d" % (number, number) for number in range(20)]
    assert not remembering(secret, *others).repeated_in(text)


def test_nothing_is_repeated_where_nothing_is_remembered() -> None:
    assert not NOTHING_REMEMBERED.repeated_in("Logged in.")
    assert not NOTHING_REMEMBERED.repeated_in_mail("Logged in.")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("your password is SecretTail", True),
        ("your password is ecretTai", True),
        ("your password is cretTai", False),
        ("Secret", False),
        ("mail of fiver", False),
    ],
)
def test_in_mail_a_longer_piece_is_looked_for(text: str, found: bool) -> None:
    remembered = remembering(b"SecretTail", b"fiver")
    assert remembered.repeated_in_mail(text) is found
    assert remembered.repeated_in_mail(text.encode()) is found


def _pieces(size: int) -> st.SearchStrategy[tuple[bytes, str]]:
    """Make a secret and a piece of it, in a case of letters of its own."""

    def piece_of(secret: bytes) -> st.SearchStrategy[tuple[bytes, str]]:
        begin = st.integers(0, len(secret) - size)
        return begin.map(lambda at: (secret, secret[at : at + size].decode().swapcase()))

    least = LONG + 1 if size == LONG_PIECE else size
    most = 400 if size == LONG_PIECE else LONG
    printable = st.text(
        st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=least, max_size=most
    )
    return printable.map(str.encode).flatmap(piece_of)


@given(_pieces(PIECE), st.text(max_size=9), st.text(max_size=9))
def test_every_piece_of_a_secret_is_found(
    found: tuple[bytes, str], before: str, behind: str
) -> None:
    assert remembering(found[0]).repeated_in(before + found[1] + behind)


@given(_pieces(LONG_PIECE), st.text(max_size=9), st.text(max_size=9))
def test_every_piece_of_a_long_secret_is_found(
    found: tuple[bytes, str], before: str, behind: str
) -> None:
    assert remembering(found[0]).repeated_in(before + found[1] + behind)


@given(_pieces(MAIL_PIECE), st.text(max_size=9), st.text(max_size=9))
def test_every_piece_in_mail_is_found(found: tuple[bytes, str], before: str, behind: str) -> None:
    assert remembering(found[0]).repeated_in_mail(before + found[1] + behind)


def test_with_one_secret_more_than_can_be_remembered_all_is_taken_for_a_repetition() -> None:
    most = Limits().secrets
    remembered = remembering(*(b"guess-%d" % number for number in range(most)))
    assert not remembered.repeated_in("Logged in.")
    remembered.add(b"one more")
    assert remembered.repeated_in("Logged in.")
    assert not remembered.repeated_in("")
    assert not remembered.repeated_in_mail("Subject: hello")
    assert remembered.repeated_in_mail("it was guess-63")


def test_a_secret_that_is_known_takes_no_room() -> None:
    remembered = remembering(*[b"hunter2"] * (Limits().secrets + 1))
    assert not remembered.lost


def test_a_secret_that_is_too_long_is_lost() -> None:
    remembered = remembering(b"x" * Limits().secret_bytes)
    assert not remembered.lost
    remembered.add(b"y")
    assert remembered.lost


def test_what_was_not_read_whole_is_taken_to_be_repeated() -> None:
    remembered = remembering(b"hunter2")
    remembered.lose()
    assert remembered.repeated_in("Logged in.")


def test_a_secret_of_very_many_parts_is_lost_beyond_those_that_have_room() -> None:
    remembered = remembering(b"\r".join(b"part-%d" % number for number in range(1000)))
    assert remembered.lost
    assert remembered.repeated_in_mail("this is part-999")
