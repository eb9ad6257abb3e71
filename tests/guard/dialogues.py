"""Makes up what clients say to get past a guard: logins, and lines that servers read in different ways."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from .habits import BUFFERS, DEVIATIONS, SASL_BUFFERS, SWITCHES, Habits, deviating, values_of
from .mechanisms import RIGHT, RIGHT_DIGEST, WRONG_DIGEST

CRLF = b"\r\n"


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What the client says, group after group.

    The lines of a group are written at once, in pieces of ``piece`` bytes or whole (0); before the next group
    the server answers. ``greets_late``: the first group is there before the greeting. ``refuses`` are the
    numbers of the attempts, from 0 on, that a hook denies; ``later``: a hook answers later, not at once.
    """

    groups: tuple[tuple[bytes, ...], ...]
    piece: int = 0
    greets_late: bool = False
    refuses: frozenset[int] = frozenset()
    later: bool = False
    decides_requests: bool = False
    reply_piece: int = 0


# --- what a login says ----------------------------------------------------------------------------------

_NAMES = (b"bob", b"zed", b"bob", b"zed", b"bob smith", b"alice", b"b\xf6b")
_PASSWORDS = (
    RIGHT,
    b"wrong",
    RIGHT,
    b"wrong",
    b"wrong",
    b" right",
    b"right right",
    b"wr\tong",
    b"STLS",
)

Drawing = Callable[[st.SearchStrategy[int]], int]


class Choice:
    """Draws of one line or login, by small numbers; 0 is the plainest."""

    def __init__(self, draw: Drawing) -> None:
        self._draw = draw

    def of(self, size: int) -> int:
        """Draw a number below ``size``."""
        return self._draw(_BELOW[size])

    def one(self, values: Sequence[bytes]) -> bytes:
        return values[self.of(len(values))]

    def rarely(self, times: int = 6) -> bool:
        return self.of(times) == times - 1

    def name(self) -> bytes:
        return self.one(_NAMES)

    def password(self) -> bytes:
        return self.one(_PASSWORDS)

    def digest(self) -> bytes:
        return RIGHT_DIGEST if self.of(2) else WRONG_DIGEST

    def proof(self) -> bytes:
        return RIGHT if self.of(2) else b"wrong"


_BELOW = [st.integers(0, max(size - 1, 0)) for size in range(100)]


def _auth(choice: Choice, mechanism: bytes, first: bytes, *more: bytes) -> list[bytes]:
    """Say an AUTH with the first response on its line or behind it; more than one round has more."""
    later = [b64encode(response) for response in more]
    if choice.of(2):
        return [b"AUTH " + mechanism, b64encode(first), *later]
    return [b"AUTH " + mechanism + b" " + (b64encode(first) or b"="), *later]


def _user_pass(choice: Choice) -> list[bytes]:
    return [b"USER " + choice.name(), b"PASS " + choice.password()]


def _user(choice: Choice) -> list[bytes]:
    return [b"USER " + choice.name()]


def _pass(choice: Choice) -> list[bytes]:
    return [b"PASS " + choice.password()]


def _apop(choice: Choice) -> list[bytes]:
    digest = b"zz" if choice.rarely() else choice.digest()
    return [b"APOP " + choice.name() + b" " + digest]


def _plain(choice: Choice) -> list[bytes]:
    separator = b"\0"
    parts = [choice.one((b"", b"", b"admin")), choice.name(), choice.password()]
    if choice.rarely():
        parts.append(choice.name())
    return _auth(choice, b"PLAIN", separator.join(parts))


def _login(choice: Choice) -> list[bytes]:
    name = b"" if choice.rarely() else choice.name()
    more = [choice.password()] if choice.rarely(4) else []
    return _auth(choice, b"LOGIN", name, choice.password(), *more)


def _cram_md5(choice: Choice) -> list[bytes]:
    return _auth(choice, b"CRAM-MD5", choice.name() + b" " + choice.digest())


def _digest_md5(choice: Choice) -> list[bytes]:
    fields = [b'username="' + choice.name() + b'"', b'realm="made"', b"nonce=1"]
    if choice.rarely(4):
        fields.append(b'username="' + choice.name() + b'"')
    fields.append(b"response=" + choice.digest())
    return _auth(choice, b"DIGEST-MD5", b",".join(fields), b"")


def _scram(choice: Choice) -> list[bytes]:
    name = b"n=" + choice.name() + b","
    if choice.rarely(4):
        name += b"n=" + choice.name() + b","
    header = choice.one((b"n,,", b"y,a=admin,", b"n,,m=x,"))
    final = b"c=biws,r=1,p=" + choice.proof()
    more = [b""] if choice.of(2) else []
    return _auth(choice, b"SCRAM-SHA-1", header + name + b"r=1", final, *more)


def _xoauth2(choice: Choice) -> list[bytes]:
    names = [b"user=" + choice.name()]
    if choice.rarely(4):
        names.append(b"user=" + choice.name())
    data = b"\x01".join([*names, b"auth=Bearer " + choice.proof(), b"", b""])
    return _auth(choice, b"XOAUTH2", data, *([b""] if choice.of(2) else []))


def _oauthbearer(choice: Choice) -> list[bytes]:
    names = [b"a=" + choice.name()]
    if choice.rarely(4):
        names.append(b"a=" + choice.name())
    header = b"n," + b",".join(names) + b","
    data = b"\x01".join([header, b"host=made", b"auth=Bearer " + choice.proof(), b"", b""])
    return _auth(choice, b"OAUTHBEARER", data, *([b"\x01"] if choice.of(2) else []))


def _external(choice: Choice) -> list[bytes]:
    return _auth(choice, b"EXTERNAL", choice.one((b"", *_NAMES)))


def _anonymous(choice: Choice) -> list[bytes]:
    return _auth(choice, b"ANONYMOUS", choice.one((b"bob@made", b"", b"zed")))


NTLM_NEGOTIATE = b"NTLMSSP\0\x01\0\0\0" + bytes(20)


def ntlm_authenticate(user: bytes, proof: bytes) -> bytes:
    """Return an AUTHENTICATE message ([MS-NLMP] 2.2.1.3) of a user, with what stands for a proof."""
    name = user.decode().encode("utf-16-le")
    size = len(name).to_bytes(2, "little")
    head = b"NTLMSSP\0\x03\0\0\0" + bytes(24) + size + size + (64).to_bytes(4, "little")
    return head.ljust(60, b"\0") + b"\x01\0\0\0" + name + proof


def _ntlm(choice: Choice) -> list[bytes]:
    third = ntlm_authenticate(choice.one((b"bob", b"zed", b"alice")), choice.proof())
    return _auth(choice, b"NTLM", NTLM_NEGOTIATE, third)


def _gssapi(choice: Choice) -> list[bytes]:
    return _auth(choice, b"GSSAPI", b"first token", choice.proof())


_LOGINS = (
    _user_pass,
    _user,
    _pass,
    _apop,
    _plain,
    _login,
    _cram_md5,
    _digest_md5,
    _scram,
    _xoauth2,
    _oauthbearer,
    _external,
    _anonymous,
    _ntlm,
    _gssapi,
)

_SINGLE = (
    b"NOOP",
    b"CAPA",
    b"AUTH",
    b"AUTH ",
    b"LANG",
    b"LANG de",
    b"UTF8",
    b"STLS",
    b"QUIT",
    b"STAT",
    b"LIST",
    b"RETR 1",
    b"DELE 1",
    b"",
    b"*",
    b"=",
    b"EHLO me",
    b"HELP",
    b"RPOP bob",
    b"USER",
    b"PASS",
    b"AUTH FOO",
    b"AUTH FOO AAAA",
    b"AUTH PLAIN",
    b"AUTH LOGIN",
    b"AUTH NTLM",
    b"AUTH PLAIN =",
    b"AUTH LOGIN =",
    b64encode(b"bob"),
    b64encode(RIGHT),
    b64encode(b"\0zed\0wrong"),
)

# --- what servers read in different ways ----------------------------------------------------------------

_HIDDEN = (
    b"USER zed",
    b"PASS right",
    b"PASS wrong",
    b"AUTH PLAIN " + b64encode(b"\0zed\0wrong"),
    b"APOP zed " + WRONG_DIGEST,
    b"QUIT",
    b"NOOP",
    b"AUTH",
    b"",
    b64encode(b"\0zed\0wrong"),
)


def _in_front(*what: bytes) -> Callable[[Choice, bytes], bytes]:
    return lambda choice, line: choice.one(what) + line


def _behind(*what: bytes) -> Callable[[Choice, bytes], bytes]:
    return lambda choice, line: line + choice.one(what)


def _for_the_blank(*what: bytes) -> Callable[[Choice, bytes], bytes]:
    """Put something else in the place of the first blank, or of the last."""

    def odd(choice: Choice, line: bytes) -> bytes:
        instead = choice.one(what)
        head, blank, tail = line.partition(b" ") if choice.of(2) else line.rpartition(b" ")
        return head + instead + tail if blank else line + instead

    return odd


def _another_behind(choice: Choice, line: bytes) -> bytes:
    """Hide a command behind what ends a line, or a string, for some."""
    return line + choice.one((b"\r", b"\0", b"\r\r", b"\t", b"\n\r")) + choice.one(_HIDDEN)


def _another_beyond_the_buffer(choice: Choice, line: bytes) -> bytes:
    """Hide a command where the rest of the line begins for some."""
    sizes = BUFFERS + SASL_BUFFERS
    size = sizes[choice.of(len(sizes))]
    filler = choice.one((b"x", b"A", b" ", b"="))
    if not choice.of(2):
        line += b" "
    return line.ljust(size, filler) + choice.one(_HIDDEN)


def _long(choice: Choice, line: bytes) -> bytes:
    sizes = BUFFERS + SASL_BUFFERS
    return line + b"A" * sizes[choice.of(len(sizes))]


def _other_case(choice: Choice, line: bytes) -> bytes:
    word, blank, rest = line.partition(b" ")
    return word.swapcase() + blank + rest


def _in_base64(choice: Choice, line: bytes) -> bytes:
    """Put into the last word what decoders read differently."""
    head, blank, word = line.rpartition(b" ")
    at = choice.of(5)
    what = choice.one((b"!", b" ", b"=", b"\0", b"\t", b"*", b"-", b"==" + b64encode(b"zed")))
    return head + blank + word[:at] + what + word[at:]


def _without_padding(choice: Choice, line: bytes) -> bytes:
    return line.rstrip(b"=")


_ODDITIES = (
    _in_front(b" ", b"\t", b"\0", b"\r", b"\n", b"  ", b"\x01"),
    _behind(b" ", b"  ", b"\t", b"\r", b"\0", b"\x0b", b"=", b"=="),
    _for_the_blank(b"  ", b"\t", b"", b"\x0b", b"\0", b" \t", b"\r"),
    _another_behind,
    _another_beyond_the_buffer,
    _long,
    _other_case,
    _in_base64,
    _without_padding,
)
_ENDS = (CRLF,) * 13 + (b"\n", b"\r", b"")


@st.composite
def _part(draw: Drawing) -> list[bytes]:
    """A login, or a line of another kind; with chance one of its lines is odd."""
    choice = Choice(draw)
    if choice.of(5) < 2:
        lines = [choice.one(_SINGLE)]
    else:
        lines = _LOGINS[choice.of(len(_LOGINS))](choice)
        if choice.rarely(8):
            lines.pop()
    said = []
    for line in lines:
        text = line
        if choice.rarely(5):
            text = _ODDITIES[choice.of(len(_ODDITIES))](choice, line)
        end = _ENDS[choice.of(len(_ENDS))] if choice.rarely(4) else CRLF
        said.append(text + end)
    return said


@st.composite
def _grouped(draw: Drawing) -> tuple[tuple[bytes, ...], ...]:
    """A dialogue's lines, some written together."""
    parts: list[list[bytes]] = draw(_PARTS)  # type: ignore[arg-type, assignment]
    lines = [line for part in parts for line in part]
    pipelining = draw(_BELOW[3])
    groups: list[list[bytes]] = []
    for line in lines:
        if groups and (pipelining == 2 or (pipelining == 1 and draw(_BELOW[2]))):
            groups[-1].append(line)
        else:
            groups.append([line])
    return tuple(map(tuple, groups))


_PARTS = st.lists(_part(), min_size=1, max_size=7)


def parts() -> st.SearchStrategy[list[bytes]]:
    """Lines of a login, or of something else."""
    return _part()


def dialogues() -> st.SearchStrategy[Dialogue]:
    """Dialogues of clients that mean no good, and of such as do."""
    return st.builds(
        Dialogue,
        groups=_grouped(),
        piece=st.sampled_from([0, 0, 1, 7]),
        greets_late=st.booleans(),
        refuses=st.frozensets(st.integers(0, 4), max_size=2),
        later=st.booleans(),
        decides_requests=st.booleans(),
        reply_piece=st.sampled_from([0, 0, 1, 5]),
    )


def habits() -> st.SearchStrategy[Habits]:
    """Habits of servers: most differ from the RFCs in a few, some in as many as there are."""
    few = st.lists(st.sampled_from(DEVIATIONS), max_size=5).map(deviating)
    many = st.fixed_dictionaries({name: st.sampled_from(values_of(name)) for name in SWITCHES})
    return st.one_of(few, few, few, many.map(lambda values: Habits(**values)))
