"""What refusals mean by their words, and that a client's choice of user or password changes nothing of it."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pop3proxy.analyzer.events import Reason
from pop3proxy.analyzer.limits import Limits
from pop3proxy.analyzer.refusalrow import MAX_TEXT, WORDED, Refusal, charset_of
from pop3proxy.analyzer.refusals import (
    DEFAULT_REFUSALS,
    MASK,
    MAX_CHARSETS,
    MAX_CUSTOM,
    TEXT_MASKED,
    TEXT_READ,
    WHOLE_WORD,
    Refusals,
)
from pop3proxy.analyzer.refusaltable import BUILT_IN

CREDENTIALS = Reason.CREDENTIALS


def meaning(
    text: str | bytes,
    user: str = "bob",
    password: str = "hunter2",
    *,
    complete: bool = True,
    announced: bool = False,
    table: Refusals = DEFAULT_REFUSALS,
) -> Reason:
    """Return the reason of a refusal; by default after complete credentials, from a server without codes."""
    data = text.encode() if isinstance(text, str) else text
    return table.reason(data, user, password, complete, announced)[0]


# --- what servers say -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Logon failure: unknown user name or bad password.", "credentials"),
        ("Authentication failed.", "credentials"),
        ("Invalid user name or password. Too many invalid logon attempts.", "credentials"),
        (
            "Login fail. Account is abnormal, service is not open, password is incorrect, login frequency"
            " limited, or system is busy.",
            "credentials",
        ),
        ("Your mailbox is already locked", "in_use"),
        ("/var/mail/.bob.pop lock busy! Is another session active? (11)", "in_use"),
        ("Can't get lock.  Mailbox in use", "in_use"),
        ("login allowed only every 15 minutes", "login_delay"),
        ("Exceeded the login limit for a 15 minute period. Reduce the frequency.", "login_delay"),
        ("Server Unavailable. 21", "temporary"),
        ("mail storage services unavailable, wait a few minutes and try again", "temporary"),
        ("Temporary problem, please try again later", "temporary"),
        ("pop access not enabled for account", "account"),
        ("POP3 access disabled for this account.", "account"),
        ("POP3 access disabled via insecure connection.", "tls_required"),
        ("[AUTH] Plaintext authentication disallowed on non-secure connections.", "tls_required"),
        ("[AUTH] USER command only available under a layer", "tls_required"),
        ("A SSL/TLS-connection is required for authentication.", "tls_required"),
        ("[AUTH] Must give USER command", "malformed"),
        ("[AUTH] Invalid characters in MD5 response.", "malformed"),
        ("USER first", "malformed"),
        ("No username given.", "malformed"),
        ("Invalid command in current state.", "malformed"),
        ("Command is not valid in this state.", "malformed"),
        ("Unknown command.", "unsupported"),
        ("invalid command", "unsupported"),
        ("Unrecognized command", "unsupported"),
        ("command not implemented yet", "unsupported"),
        ("unimplemented", "unsupported"),
        ("[AUTH] Unsupported authentication mechanism.", "unsupported"),
        ("mechanism not supported", "unsupported"),
    ],
)
def test_what_a_real_server_says_gives_the_reason(said: str, reason: str) -> None:
    assert meaning(said) == reason


@pytest.mark.parametrize(
    ("quoted", "reason"),
    [
        # As Python shows what 163.com said: github.com/zhangyunhao116/zmail/issues/30.
        (b"\xb5\xc7\xc2\xbc\xcc\xab\xc6\xb5\xb7\xb1!\xc7\xeb\xbc\xec\xb2\xe9", "login_delay"),
        (
            b"\xc4\xfa\xc3\xbb\xd3\xd0\xc8\xa8\xcf\xde\xca\xb9\xd3\xc3pop3\xb9\xa6\xc4\xdc",
            "account",
        ),
        (
            b"\xc4\xfa\xc3\xbb\xd3\xd0\xc8\xa8\xcf\xde\xca\xb9\xd3\xc3POP3\xb9\xa6\xc4\xdc",
            "account",
        ),
    ],
)
def test_what_a_server_says_in_gbk_is_read_as_gbk(quoted: bytes, reason: str) -> None:
    assert meaning(quoted) == reason


@pytest.mark.parametrize("row", BUILT_IN, ids=lambda row: row.text)
def test_each_built_in_row_gives_its_reason_in_any_case(row: Refusal) -> None:
    for text in (row.text, row.text.upper(), f"x{row.text.title()}x".replace("*", " is quite ")):
        assert meaning(text.encode(row.charset)) == row.reason


@pytest.mark.parametrize("row", BUILT_IN, ids=lambda row: row.text)
def test_each_built_in_row_has_its_source(row: Refusal) -> None:
    assert len(row.source) > len("RFC 1939")


# --- codes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("[IN-USE] Unsupported", "in_use"),
        ("[AUTH] mailbox locked", "credentials"),
        ("[AUTH/X] mailbox locked", "credentials"),
        ("[SYS/TEMP] USER first", "temporary"),
        ("[SYS/PERM] lock busy", "account"),
        ("[LOGIN-DELAY] password is incorrect", "login_delay"),
        # A code that says nothing leaves it to the words.
        ("[X-LOCK] mailbox locked", "in_use"),
        ("[X-WRONG] password is incorrect", "unknown"),
    ],
)
def test_a_response_code_beats_the_words(said: str, reason: str) -> None:
    assert meaning(said) == reason


def test_the_code_is_given_as_sent() -> None:
    code = DEFAULT_REFUSALS.reason(b"[x-Lock/1] no", "x-lock", "", True, False)[1]
    assert code == "x-Lock/1"


def test_words_of_a_wrong_password_are_none_if_the_server_announced_codes() -> None:
    assert meaning("password is incorrect", announced=True) is Reason.UNKNOWN
    assert meaning("mailbox locked", announced=True) is Reason.IN_USE


def test_incomplete_credentials_are_not_wrong() -> None:
    assert meaning("password is incorrect", complete=False) is Reason.UNKNOWN
    assert meaning("mechanism not supported", complete=False) is Reason.UNSUPPORTED


# --- rows of one's own ----------------------------------------------------------------------------------


def row(text: str, reason: Reason = Reason.TEMPORARY, charset: str = "utf-8") -> Refusal:
    return Refusal(text, reason, charset=charset)


def test_a_custom_row_comes_before_the_built_in_ones() -> None:
    table = Refusals([row("mailbox locked", Reason.ACCOUNT), row("unknown command", CREDENTIALS)])
    assert meaning("mailbox locked", table=table) is Reason.ACCOUNT
    assert meaning("unknown command", table=table) is CREDENTIALS


def test_the_first_of_two_rows_wins_wherever_their_words_stand() -> None:
    table = Refusals([row("second", Reason.IN_USE), row("first", Reason.ACCOUNT)])
    assert meaning("first and second", table=table) is Reason.IN_USE


@pytest.mark.parametrize(
    "said", ["please wait 15 minutes", "PLEASE WAIT minutes", "xplease wait  minutesx"]
)
def test_a_wildcard_is_any_run_of_bytes(said: str) -> None:
    assert meaning(said, table=Refusals([row("please wait*minutes")])) is Reason.TEMPORARY


@pytest.mark.parametrize("said", ["minutes please wait", "please wait", "please waminutes"])
def test_what_a_wildcard_stands_between_keeps_its_order(said: str) -> None:
    assert meaning(said, table=Refusals([row("please wait*minutes")])) is CREDENTIALS


@pytest.mark.parametrize("meta", ["a.cd", "(abc", "[abc]", "ab+c", "\\abcd", "a?cd"])
def test_nothing_but_the_wildcard_is_special(meta: str) -> None:
    table = Refusals([row(meta)])
    assert meaning(f"x {meta.upper()} x", table=table) is Reason.TEMPORARY
    assert meaning("abcd abc axcd abbc", table=table) is CREDENTIALS


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("utf-8", "Ящик занят"),
        ("koi8-r", "Ящик занят"),
        ("cp1251", "ящик ЗАНЯТ"),
        ("latin-1", "gesperrt für"),
    ],
)
def test_letters_of_other_charsets_have_case_too(charset: str, text: str) -> None:
    table = Refusals([row(text, charset=charset)])
    for said in (text, text.upper(), text.lower()):
        assert meaning(said.encode(charset), table=table) is Reason.TEMPORARY


def test_a_row_is_found_only_in_its_charset() -> None:
    assert (
        meaning("Ящик занят".encode("cp1251"), table=Refusals([row("Ящик занят")])) is CREDENTIALS
    )


@pytest.mark.parametrize(
    "name", ["gbk", "GB2312", "latin-1", "koi8_r", "euc-kr", "shift_jis", "big5", "utf8"]
)
def test_a_charset_that_holds_ascii_can_be_used(name: str) -> None:
    row("mailbox locked", charset=name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("klingon", 'there is no "klingon"'),
        ("hex", 'there is no "hex"'),
        ("rot13", 'there is no "rot13"'),
        ("a\0b", "there is no"),
        ("", 'there is no ""'),
        ("utf-16", "does not write ASCII as ASCII"),
        ("utf-7", "does not write ASCII as ASCII"),
        ("cp037", "does not write ASCII as ASCII"),
        ("punycode", "does not write ASCII as ASCII"),
    ],
)
def test_another_cannot(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        charset_of(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "charset", "said"),
    [
        ("*", "utf-8", "fewer than 4 bytes"),
        ("", "utf-8", "fewer than 4 bytes"),
        ("a * b * c", "utf-8", "fewer than 4 bytes"),
        ("lock\0busy", "utf-8", "control character"),
        ("lock\tbusy", "utf-8", "control character"),
        ("x" * (MAX_TEXT + 1), "utf-8", "longer than 200"),
        ("登录太频繁", "latin-1", '"登" is not in the charset latin-1'),
    ],
)
def test_a_row_that_cannot_be_looked_up_is_refused(text: str, charset: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        row(text, charset=charset)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["x" * MAX_TEXT, "a*b*c*d", "锁定"])
def test_a_row_at_its_limits_is_not(text: str) -> None:
    row(text)


@pytest.mark.parametrize("reason", sorted(set(Reason) - set(WORDED)))
def test_what_the_server_cannot_say_is_no_reason_of_a_row(reason: Reason) -> None:
    with pytest.raises(ValueError, match=f"no words mean {reason}"):
        row("mailbox locked", reason)


def test_a_table_has_its_limits() -> None:
    Refusals([row("mailbox locked")] * MAX_CUSTOM)
    with pytest.raises(ValueError, match="201 rows; write 200 at most"):
        Refusals([row("mailbox locked")] * (MAX_CUSTOM + 1))


def test_a_table_has_so_many_charsets() -> None:
    names = ["koi8-r", "cp1251", "latin-1", "big5", "euc-kr", "euc-jp", "shift_jis"]
    rows = [row("mailbox locked", charset=name) for name in names]
    assert len({"utf-8", *(each.codec for each in BUILT_IN)}) == MAX_CHARSETS - len(names) + 1
    Refusals(rows[:-1])
    with pytest.raises(ValueError, match="in 9 charsets; use 8 at most"):
        Refusals(rows)


# --- how much is read -----------------------------------------------------------------------------------


def test_only_the_first_512_bytes_are_read() -> None:
    room = TEXT_READ - len("mailbox locked")
    assert meaning("x" * room + "mailbox locked" + "x" * 1000) is Reason.IN_USE
    assert meaning("x" * (room + 1) + "mailbox locked") is CREDENTIALS


def test_words_of_a_wrong_password_are_read_further() -> None:
    assert meaning("mailbox locked" + "x" * 600 + "wrong password") is CREDENTIALS


def test_a_refusal_over_all_limits_has_no_words() -> None:
    said = "mailbox locked" + "x" * TEXT_MASKED
    assert meaning(said[:TEXT_MASKED]) is Reason.IN_USE
    assert meaning(said[: TEXT_MASKED + 1]) is CREDENTIALS
    assert Limits().status_line > TEXT_MASKED


HOSTILE = Refusals([row(("a*" * 99) + "zz")] * 100 + [row("ab*cd*ef*gh*ij" * 14)] * 100)


@pytest.mark.parametrize(
    ("said", "user"),
    [
        (b"a" * TEXT_READ, "x"),
        (b"a b" * 170, "b"),
        (b"ab" * 2048, "ab" * 1024),
        (b"\xc3\xa4" * 2048, "\u00e4" * 300),
        (b"\xff\xfe" * 2048, "\udcff" * 300),
        (b"[" * TEXT_MASKED, "["),
        (b" " * TEXT_MASKED, " "),
    ],
    ids=repr,
)
def test_no_text_takes_long(said: bytes, user: str) -> None:
    # Some milliseconds; what goes back and forth over such a text takes hours.
    begun = time.process_time()
    HOSTILE.reason(said, user, user, True, False)
    assert time.process_time() - begun < 1


# --- echoes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "user", "password"),
    [
        ("no such user: mailbox locked", "mailbox locked", "x"),
        ("no such user: MAILBOX Locked", "mailbox locked", "x"),
        ("user <mailbox locked> with <unknown command>", "mailbox locked", "unknown command"),
        ("nosuchuser:xmailbox lockedx", "mailbox locked", "x"),
        ("mailbox locked", "mailbox", "x"),
        ("mailbox locked", "x", "locked"),
        ("mailbox locked out", "mailbox", "x"),
        ("mailbox locked", "mailbox ", "x"),
        ("mailbox 'locked", "'", "locked"),
        ("[IN-USE] no", "[IN-USE]", "x"),
        ("[IN-USE] no", "in-use", "x"),
        ("[mailbox/in-use] mailbox in use", "mailbox/in-use", "mailbox in use"),
        ("no account mailbox locked", "mailbox locked@example.org", "x"),
        ("lock busy busy", "lock", "busy"),
        ("lock busybusy", "busy", "x"),
        ("mailbox xxxlocked", "x" * 600, "xxx"),
        ("server error" + "x" * 600 + "wrong password", "x" * 600, "y"),
        ("temporarily unavailable " + "x" * 5000, "x" * 5000, "temporarily"),
    ],
)
def test_an_echo_gives_no_reason(said: str, user: str, password: str) -> None:
    assert meaning(said, user, password) in (CREDENTIALS, Reason.UNKNOWN)


@pytest.mark.parametrize("sent", ["utf-8", "gbk"])
@pytest.mark.parametrize("echoed", ["utf-8", "gbk"])
def test_an_echo_in_another_charset_gives_no_reason(sent: str, echoed: str) -> None:
    table = Refusals([row("登录太频繁")])
    name = "登录太频繁".encode(sent).decode("utf-8", "surrogateescape")
    said = "没有用户".encode(echoed) + "登录太频繁".encode(echoed)
    assert meaning(said, name, table=table) is CREDENTIALS


def test_no_wildcard_goes_over_an_echo() -> None:
    table = Refusals([row("please*wait")])
    assert meaning("please do wait", table=table) is Reason.TEMPORARY
    assert meaning("please bob wait", "bob", table=table) is CREDENTIALS


@pytest.mark.parametrize(
    "user", ["x", "a", "o", "lo", "bob", "mail@example.org", "box@example.org"]
)
def test_a_short_name_and_a_part_of_a_name_hide_no_word(user: str) -> None:
    assert meaning("mailbox locked", user, user) is Reason.IN_USE


def test_a_name_in_a_code_that_says_nothing_leaves_it_saying_nothing() -> None:
    assert meaning("[REFERRAL/bob@example.net] try there", "bob") is Reason.UNKNOWN


def test_a_user_named_as_the_code_of_wrong_credentials_is_no_exception() -> None:
    assert meaning("[AUTH] no", "auth", announced=True) is CREDENTIALS


PIECES = sorted(
    {part for each in BUILT_IN for part in each.text.split()}
    | {each.text for each in BUILT_IN if each.text.isascii()}
    | {
        "[AUTH]",
        "[IN-USE]",
        "[SYS/TEMP]",
        "[X/",
        "[",
        "]",
        "/",
        "mail",
        "box",
        "lock",
        "ed",
        "*",
        " ",
        ":",
    }
)
CUSTOM = Refusals(
    [
        row("please*wait"),
        row("to*of*ten", Reason.LOGIN_DELAY),
        row("Ящик*занят", Reason.IN_USE),
        row("登录*频繁", Reason.LOGIN_DELAY, "gbk"),
        row("no*luck", CREDENTIALS),
        row("denied", Reason.ACCOUNT),
    ]
)
PIECES += [
    "please",
    "wait",
    "to",
    "of",
    "ten",
    "Ящик ",
    "ЗАНЯТ",
    "登录",
    "频繁",
    "no",
    "luck",
    "denied",
]

piece = st.one_of(
    st.sampled_from(PIECES).map(str.encode),
    st.sampled_from(PIECES).map(lambda text: text.encode("gbk", "ignore")),
    st.tuples(st.sampled_from(PIECES), st.integers(0, 8), st.integers(1, 12)).map(
        lambda cut: cut[0][cut[1] : cut[1] + cut[2]].encode()
    ),
    st.binary(max_size=3),
    st.just(b"x" * TEXT_READ),
)
fixed = st.lists(piece, max_size=3).map(b"".join).filter(lambda text: MASK not in text)
name = (
    st.lists(piece, min_size=1, max_size=3)
    .map(b"".join)
    .filter(lambda text: bool(text) and MASK not in text)
)
Slots = Sequence[tuple[int, int]]
slots = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=4)
_CASES = (bytes, bytes.upper, bytes.swapcase)


def _is_glued(text: bytes, at: int, size: int) -> bool:
    """Return whether a part of a text goes on in a letter or digit."""
    word = [chr(byte).isalnum() and byte < 128 for byte in text]
    end = at + size
    return (at > 0 and word[at - 1] and word[at]) or (
        end < len(text) and word[end] and word[end - 1]
    )


@settings(max_examples=500, deadline=None)
@example([b"mailbox ", b""], [(0, 0)], (b"locked", b"x"), True, False)
@example([b"[", b"] no"], [(0, 1)], (b"in-use", b"x"), True, False)
@example([b"[AUTH] ", b""], [(0, 0)], (b"unsupported", b"auth"), True, True)
@example([b"no luck, denied ", b""], [(0, 0)], (b"luck", b"x"), True, False)
@example([b"busy lock ", b""], [(0, 0)], (b"busy lock busy", b"x"), True, False)
@example([b"denied", b"no luck"], [(0, 0)], (b"x" * 3 * TEXT_READ, b"x"), True, False)
@example([b"\xd0", b""], [(0, 0)], (b"\x9fmailbox locked", b"x"), True, False)
@given(
    st.lists(fixed, min_size=2, max_size=5),
    slots,
    st.tuples(name, name),
    st.booleans(),
    st.booleans(),
)
def test_no_user_and_no_password_makes_another_reason_of_credentials(
    texts: list[bytes],
    echoes: Slots,
    names: tuple[bytes, bytes],
    complete: bool,
    announced: bool,
) -> None:
    """A server repeats user and password anywhere among words of its own, glued to them or not, in any case.

    What it would say without their words, with one byte that no row matches in place of each, is wrong
    credentials: then that is what it says of every user and password.
    """
    said = without = texts[0]
    places = []
    for (whose, case), text in zip(echoes, [*texts[1:], *[b""] * len(echoes)], strict=False):
        echo = _CASES[case](names[whose])
        places.append((len(said), len(echo)))
        said += echo + text
        without += MASK + text
    assume(not any(size < WHOLE_WORD and _is_glued(said, at, size) for at, size in places))
    user, password = (each.decode("utf-8", "surrogateescape") for each in names)
    for table in (DEFAULT_REFUSALS, CUSTOM):
        unnamed = table.reason(without, "", "", complete, announced)[0]
        if unnamed is CREDENTIALS:
            assert table.reason(said, user, password, complete, announced)[0] is CREDENTIALS


# --- farewells ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", [b"Disconnected for inactivity.", b"[SYS/TEMP] Server shutting down."]
)
def test_a_farewell_answers_nothing(said: bytes) -> None:
    assert DEFAULT_REFUSALS.is_farewell(said)


def test_a_refusal_is_no_farewell() -> None:
    assert not any(
        DEFAULT_REFUSALS.is_farewell(each.text.encode(each.charset)) for each in BUILT_IN
    )


def test_an_echo_of_the_user_is_no_farewell() -> None:
    said = b"disconnected: no such user"
    assert DEFAULT_REFUSALS.is_farewell(said)
    assert not DEFAULT_REFUSALS.is_farewell(said, "disconnected", "secret")
    assert not DEFAULT_REFUSALS.is_farewell(said, "bob", "disconnected")
