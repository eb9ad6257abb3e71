"""The habits of a made mail server: how real servers read the same bytes differently, one switch each.

The defaults are those of a server that follows the RFCs. ``DEVIATIONS`` are the other values: a property
draws some of them, or a value for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, NamedTuple


class LineEnd(Enum):
    """Where a line ends. A server that waits for another end than the client sends waits for ever."""

    LF = "at LF, one CR before it is taken off"
    CR = "at CR, an LF at the beginning of a line is skipped"
    CRLF = "at CR LF only"
    EITHER = "at CR LF, CR or LF"


class Blank(Enum):
    """What sets a word apart from its argument."""

    SPACE = b" "
    TAB = b" \t"
    CONTROL = bytes(range(0x21))


class Rest(Enum):
    """What becomes of the bytes of a line that do not fit into the buffer."""

    LINE = "they are read as one more line"
    CUT = "they are dropped, and the beginning counts"
    REFUSED = "they are dropped, and the line is refused"
    CLOSED = "the server closes the connection"


class Nul(Enum):
    """What a NUL in a line or a name does."""

    KEPT = "it is a byte like others"
    ENDS = "it ends the string"
    SKIPPED = "it is dropped"


class Named(Enum):
    """What becomes of the name of USER behind a login that failed."""

    DROPPED = "it is forgotten"
    KEPT = "it stays"
    TAKEN = "the name of the failed login takes its place"


class SecondUser(Enum):
    """What a USER behind a USER does."""

    WINS = "its name counts"
    REFUSED = "it is refused, and the first name stays"


class UnknownUser(Enum):
    """What the server says to a USER that it does not know."""

    ACCEPTED = "+OK: the password is asked for all the same"
    REFUSED = "-ERR: no name is set"
    REFUSED_AND_KEPT = "-ERR: an earlier name stays"


class Initial(Enum):
    """What becomes of an initial response (RFC 5034 section 4; RFC 1734 has none)."""

    USED = "it is the first response"
    IGNORED = "the server asks for it again"
    REFUSED = "the AUTH is refused"


class Base64(Enum):
    """How base64 is decoded."""

    STRICT = "as RFC 4648 has it"
    SKIPS = "what is no base64 is skipped, padding may be missing"
    STOPS = "what is no base64 ends it, padding may be missing"


class Star(Enum):
    """What a ``*`` in an exchange does (RFC 5034 section 4)."""

    CANCELS = "it ends the exchange"
    ASKED_AGAIN = "the server repeats its challenge"


class Which(Enum):
    """Which of two fields of the same name counts."""

    FIRST = "the first"
    LAST = "the last"


class OkContinues(Enum):
    """When a +OK asks for the first response of an exchange."""

    NEVER = "never"
    NTLM = "with AUTH NTLM, as Exchange 2000 to 2007"
    ALWAYS = "with any mechanism"


class Extra(Enum):
    """A status line more, in the same write behind a reply."""

    NOTHING = b""
    OK = b"+OK as well\r\n"
    ERR = b"-ERR as well\r\n"
    FAREWELL = b"-ERR Disconnected for inactivity.\r\n"


class Swallows(Enum):
    """Which lines are not answered at all."""

    NOTHING = "none"
    EMPTY = "empty ones"
    UNKNOWN = "unknown commands"


@dataclass(frozen=True, slots=True)
class Habits:
    """How a made server differs from others. Sizes are bytes of a line without its end."""

    line_end: LineEnd = LineEnd.LF
    blank: Blank = Blank.SPACE
    skips_leading_blanks: bool = False
    skips_blanks_behind_the_word: bool = False
    trims_the_end: bool = False
    any_case: bool = True
    four_letters: bool = False  # a word is its first four letters: PASSsecret is PASS secret
    command_buffer: int = 8191
    auth_has_the_sasl_buffer: bool = True  # an AUTH line may be as long as a SASL response
    sasl_buffer: int = 65535
    rest: Rest = Rest.CUT
    nul: Nul = Nul.KEPT
    after_pass: Named = Named.DROPPED
    after_auth: Named = Named.DROPPED
    after_apop: Named = Named.DROPPED
    after_other: Named = Named.KEPT  # a refused STLS, an unknown command
    second_user: SecondUser = SecondUser.WINS
    unknown_user: UnknownUser = UnknownUser.ACCEPTED
    names_stop_at_a_blank: bool = False  # where one follows the name as well: USER, APOP, CRAM-MD5
    skips_blanks_before_names: bool = False  # in SASL messages
    joins_the_realm: bool = False  # DIGEST-MD5: the account is name@realm
    ntlm_is_oem: bool = False  # the server chooses OEM names, whatever the client says later
    initial: Initial = Initial.USED
    base64: Base64 = Base64.STRICT
    which: Which = Which.FIRST
    ok_continues: OkContinues = OkContinues.NEVER
    bare_auth_lists: bool = True
    two_blanks_are_a_bare_auth: bool = False
    star: Star = Star.CANCELS
    asks_again: bool = False  # LOGIN: for an empty name, and for the password after a wrong one
    tells_failures: bool = False  # by a challenge before the -ERR (RFC 7628, RFC 5802)
    final_apart: bool = False  # SCRAM's server-final comes as a challenge of its own
    knows_rpop: bool = False
    knows_extensions: bool = True  # LANG, UTF8, NOOP before the login
    extra: Extra = Extra.NOTHING
    extra_behind: bytes = b"USER"
    swallows: Swallows = Swallows.NOTHING
    bad_commands: int = 0  # how many end the session; 0 for none
    writes_apart: bool = False  # each reply is a write of its own, as late as can be

    @property
    def reads_as_most(self) -> bool:
        """Whether what it makes of odd lines shows in its replies, or is what most servers make of them."""
        return (
            self.line_end is LineEnd.LF
            and self.nul is Nul.KEPT
            and self.base64 is Base64.STRICT
            and self.which is Which.FIRST
            and self.star is Star.CANCELS
            and self.ok_continues is not OkContinues.ALWAYS
            and Named.TAKEN not in (self.after_auth, self.after_apop)
            and not (self.four_letters or self.names_stop_at_a_blank or self.asks_again)
            and not self.knows_rpop
            and not self.two_blanks_are_a_bare_auth
            and not self.keeps_a_name_that_no_reply_shows
            and not (self.skips_blanks_before_names or self.joins_the_realm or self.ntlm_is_oem)
        )

    @property
    def keeps_a_name_that_no_reply_shows(self) -> bool:
        """Whether a failed PASS leaves a name to which the next USER, refused, changes nothing."""
        refuses = self.second_user is SecondUser.REFUSED
        keeps = self.unknown_user is UnknownUser.REFUSED_AND_KEPT
        return self.after_pass is not Named.DROPPED and (refuses or keeps)

    @property
    def one_reply_a_line(self) -> bool:
        """Whether each line gets one reply, so that a client can count."""
        return self.extra is Extra.NOTHING and self.swallows is Swallows.NOTHING


BUFFERS = (253, 255, 512, 1024)
"""Of commands: RFC 2449 section 4 with and without CR LF, and what servers have."""

SASL_BUFFERS = (4094, 4096, 8191)

_CHOICES: dict[str, Sequence[Any]] = {
    "command_buffer": (*BUFFERS, 8191),
    "sasl_buffer": (*SASL_BUFFERS, 65535),
    "extra_behind": (b"USER", b"PASS", b"AUTH", b"NOOP", b""),
    "bad_commands": (0, 3),
}


class Deviation(NamedTuple):
    """One switch that does not stand as the RFCs have it."""

    name: str
    value: Any


def values_of(name: str) -> Sequence[Any]:
    """Return all that a switch can be set to."""
    if name in _CHOICES:
        return _CHOICES[name]
    default = getattr(Habits(), name)
    return list(type(default)) if isinstance(default, Enum) else (False, True)


SWITCHES: Sequence[str] = tuple(field.name for field in fields(Habits))

DEVIATIONS: Sequence[Deviation] = [
    Deviation(name, value)
    for name in SWITCHES
    for value in values_of(name)
    if value != getattr(Habits(), name)
]


def deviating(deviations: Sequence[Deviation]) -> Habits:
    """Return the habits that differ so from the defaults; of two values for a switch the last counts."""
    return replace(Habits(), **dict(deviations))


def told(habits: Habits) -> str:
    """Return what of the habits differs from the defaults, for a failure's message."""
    different = {
        name: getattr(habits, name)
        for name in SWITCHES
        if getattr(habits, name) != getattr(Habits(), name)
    }
    return ", ".join(f"{name}={value}" for name, value in different.items()) or "the RFCs' habits"
