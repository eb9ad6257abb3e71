"""Dialogues drawn from a seed: what a client sends, in which groups, and whether it waits for answers."""

import random
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from . import oracle
from .servers import Fuzzed

BORDERS = (
    40,
    100,
    128,
    250,
    254,
    255,
    256,
    300,
    512,
    1000,
    1024,
    1030,
    2048,
    4096,
    8190,
    8191,
    8192,
)
"""Sizes of buffers that servers are known to have, and their neighbours: commands are hidden behind them."""

END = b"\r\n*\r\nQUIT\r\n"
"""Ends an open line, an exchange and the session, so that the server closes whatever was said before."""

TAME_END = b"QUIT\r\n"
"""The same where no line and no exchange is open."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Bytes in one write, or cut into several; ``waits``: the next step comes behind an answer."""

    data: bytes
    waits: bool = True
    cuts: tuple[int, ...] = ()

    def __str__(self) -> str:
        shown = repr(self.data) if len(self.data) < 200 else _abridged(self.data)
        return f"{shown}{'' if self.waits else ', and does not wait'}"


@dataclass(frozen=True, slots=True)
class Begin:
    """Begins an exchange whose responses are computed; APOP is a whole login."""

    mechanism: str
    user: str
    password: str

    def __str__(self) -> str:
        return f"AUTH {self.mechanism} for {self.user} with {self.password}"


@dataclass(frozen=True, slots=True)
class Respond:
    """Answers the last challenge as the mechanism has it, and waits."""

    def __str__(self) -> str:
        return "the response"


Step = Sent | Begin | Respond


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What a client does. ``leaves``: it does not wait for the last answers. ``tame``: all is strict."""

    lane: int
    steps: tuple[Step, ...]
    leaves: bool = False
    tame: bool = False


def _abridged(data: bytes) -> str:
    out, at = [], 0
    while at < len(data):
        end = at + 1
        while end < len(data) and data[end] == data[at]:
            end += 1
        if end - at > 12:
            out.append(f"{data[at : at + 1]!r}*{end - at}")
        elif out and not out[-1].endswith(tuple("0123456789")):
            out[-1] += repr(data[at:end])[2:-1]
        else:
            out.append(repr(data[at:end]))
        at = end
    return " ".join(out)


def drawn(seed: int, number: int, server: Fuzzed) -> Dialogue:
    """Draw the dialogue of a number for a server; the same arguments give the same dialogue."""
    return _Drawing(random.Random(f"{seed} {number}"), number % oracle.LANES, server).dialogue()


Line = bytes | Begin | Respond


class _Drawing:
    """One dialogue as it is drawn: lines first, then how they are sent."""

    def __init__(self, source: random.Random, lane: int, server: Fuzzed) -> None:
        self.source = source
        self.lane = lane
        self.mechanisms = server.mechanisms
        self.authzid = server.authzid
        # How often a line is damaged; at 0 the dialogue is tame.
        self.oddness = source.choice((0.0, 0.0, 0.1, 0.3, 0.6))
        self.tame = self.oddness == 0.0
        # Tame dialogues are compared with each other: what a server may lose is not sent too early.
        self.pipelined = not server.patience or not self.tame

    def dialogue(self) -> Dialogue:
        source = self.source
        lines: list[Line] = []
        for _ in range(source.choice((1, 1, 2, 2, 3, 4))):
            if source.random() < 0.4:
                lines += self._interlude()
            lines += self._login()
        if source.random() < 0.5:
            lines += self._interlude()
        return Dialogue(
            self.lane,
            tuple(self._sent(lines)),
            leaves=source.random() < 0.08,
            tame=self.tame,
        )

    # --- how lines are sent ---------------------------------------------------------------------------

    def _sent(self, lines: Sequence[Line]) -> Iterator[Step]:
        """Join lines at random into writes; computed ones stand alone."""
        source, patience = self.source, self.source.choice((0.0, 0.5, 1.0))
        if not self.pipelined:
            patience = 1.0
        held = b""
        for line in lines:
            if not isinstance(line, bytes):
                if held:
                    yield self._write(held, waits=True)
                    held = b""
                yield line
                continue
            held += line
            if source.random() < 0.3 + 0.7 * patience:
                yield self._write(held, waits=source.random() < 0.2 + 0.8 * patience)
                held = b""
        if held:
            yield self._write(held, waits=True)

    def _write(self, data: bytes, waits: bool) -> Sent:
        cuts: tuple[int, ...] = ()
        if self.source.random() < 0.15 and len(data) > 1:
            points = {
                self.source.randrange(1, len(data)) for _ in range(self.source.choice((1, 3)))
            }
            cuts = tuple(sorted(points))
        return Sent(data, waits, cuts)

    # --- users and passwords --------------------------------------------------------------------------

    def _name(self) -> str:
        return oracle.user(self.source.choice(oracle.NAMES), self.lane)

    def _password(self, user: str) -> str:
        wrong = ("guess", "guess two", "right-", "gü€ss", "tail ")
        return (
            oracle.right_password(user)
            if self.source.random() < 0.35
            else self.source.choice(wrong)
        )

    # --- logins ---------------------------------------------------------------------------------------

    def _login(self) -> list[Line]:
        user = self._name()
        password = self._password(user)
        kinds: list[tuple[int, Callable[[str, str], list[Line]]]] = [
            (5, self._user_pass),
            (2 if self.tame else 3, self._plain),
            (2, self._login_mechanism),
            (2, self._proof),
        ]
        if not self.tame:
            kinds += [(2, self._refused_in_between), (2, self._second_user), (1, self._hidden)]
            kinds += [(1, self._stray), (1, self._bad_exchange), (1, self._twice)]
        weights = [weight for weight, _ in kinds]
        (_, make), *_ = self.source.choices(kinds, weights)
        return make(user, password)

    def _user_pass(self, user: str, password: str) -> list[Line]:
        lines: list[Line] = [self._line(f"USER {user}")]
        if self.source.random() < 0.2:
            lines.append(self._line(self.source.choice(("CAPA", "NOOP", "CAPA"))))
        return [*lines, self._line(f"PASS {password}")]

    def _plain(self, user: str, password: str) -> list[Line]:
        if "PLAIN" not in self.mechanisms:
            return self._user_pass(user, password)
        message = b"\0".join((b"", user.encode(), password.encode()))
        if not self.tame and self.source.random() < 0.25:
            message = self._damaged_message(message)
        if self.source.random() < 0.5:
            return [self._line(b"AUTH PLAIN " + self._base64(message))]
        return [self._line("AUTH PLAIN"), self._line(self._base64(message))]

    def _login_mechanism(self, user: str, password: str) -> list[Line]:
        if "LOGIN" not in self.mechanisms:
            return self._user_pass(user, password)
        one, two = self._base64(user.encode()), self._base64(password.encode())
        if self.source.random() < 0.3:
            return [self._line(b"AUTH LOGIN " + one), self._line(two)]
        return [self._line("AUTH LOGIN"), self._line(one), self._line(two)]

    def _proof(self, user: str, password: str) -> list[Line]:
        proofs = [name for name in self.mechanisms if name not in ("PLAIN", "LOGIN")]
        if not proofs:
            return self._user_pass(user, password)
        name = self.source.choice(proofs)
        if name == "APOP":
            return [Begin(name, user, password)]
        steps = 1 if name == "CRAM-MD5" else 2 if name == "DIGEST-MD5" else 3
        if not self.tame and self.source.random() < 0.2:
            steps = self.source.choice((0, 1, 2, 4))
        return [Begin(name, user, password), *[Respond()] * steps]

    # --- trouble --------------------------------------------------------------------------------------

    def _refused_in_between(self, user: str, password: str) -> list[Line]:
        between = self.source.choice(
            (
                "AUTH X AAAA",
                "AUTH FOO",
                "AUTH",
                "AUTH ",
                "AUTH PLAIN =",
                "AUTH PLAIN !!!",
                "AUTH CRAM-MD5\r\n*",
                "AUTH PLAIN\r\n*",
                f"APOP {self._name()} {'0' * 32}",
                f"APOP {self._name()} zz",
                "STLS",
                "RSET",
                "EHLO me",
                "PASS",
                f"USER  {self._name()}",
                "USER",
                "XCLIENT ADDR=192.0.2.1",
                "LANG",
                "UTF8",
                "STAT",
                "",
            )
        )
        return [self._line(f"USER {user}"), self._line(between), self._line(f"PASS {password}")]

    def _second_user(self, user: str, password: str) -> list[Line]:
        other = self._name()
        return [
            self._line(f"USER {other}"),
            self._line(f"USER {user}"),
            self._line(f"PASS {password}"),
        ]

    def _twice(self, user: str, password: str) -> list[Line]:
        again = [self._line(f"PASS {self._password(user)}")]
        return [self._line(f"USER {user}"), self._line(f"PASS {password}"), *again]

    def _stray(self, user: str, password: str) -> list[Line]:
        """Send a login in which the words that name it are doubled, glued or by another end."""
        blob = self._base64(b"\0%b\0%b" % (user.encode(), password.encode()))
        return [
            self.source.choice(
                (
                    b"AUTH  PLAIN " + blob + b"\r\n",
                    b"AUTH  PLAIN\r\n" + blob + b"\r\n",
                    b"AUTH PLAIN  " + blob + b"\r\n",
                    b"AUTH\tPLAIN\t" + blob + b"\r\n",
                    b" AUTH PLAIN " + blob + b"\r\n",
                    b"AUTH PLAIN " + blob + b" \r\n",
                    b"AUTH PLAIN " + blob + b" extra\r\n",
                    b"AUTH PLAIN=" + blob + b"\r\n",
                    b"AUTH plain " + blob + b"\r\n",
                    b"AUTH PLAIN =\r\n" + blob + b"\r\n",
                    b"AUTH PLAIN \r\n" + blob + b"\r\n",
                    b"AUTH PLAIN\0 " + blob + b"\r\n",
                    b"AUTH PLAIN\r\r\n" + blob + b"\r\n",
                    b"AUTH PLAIN\r\n\r\n" + blob + b"\r\n",
                    f"USER {user} {self._name()}\r\nPASS {password}\r\n".encode(),
                    f"USER {user}\rPASS {password}\r\n".encode(),
                    f"USER {user}\nPASS {password}\n".encode(),
                    f"USER {user}\r\rPASS {password}\r".encode(),
                    f"USER {user}\0x\r\nPASS {password}\0y\r\n".encode(),
                    f"USER\t{user}\r\n PASS\t{password}\r\n".encode(),
                    f" USER {user}\r\nPASS  {password}\r\n".encode(),
                    f"USER {user}\r\nPASS {password}\rSTAT\r\n".encode(),
                    f"\0USER {user}\r\nPASS {password}\r\n".encode(),
                    f"USERX {user}\r\nUSE {user}\r\nPASS {password}\r\n".encode(),
                    f"USER {user}\r\nPASS {password}\r\nDELE 1\r\nQUIT\r\n\rX".encode(),
                    f"EHLO me\r\nUSER {user}\r\nPASS {password}\r\n".encode(),
                    f"GET / HTTP/1.0\r\nUSER {user}\r\nPASS {password}\r\n".encode(),
                    f"\x16\x03\x01\r\nUSER {user}\r\nPASS {password}\r\n".encode(),
                )
            )
        ]

    def _hidden(self, user: str, password: str) -> list[Line]:
        """Hide a command behind the end of a buffer, in a line that looks like another."""
        blob = self._base64(b"\0%b\0%b" % (user.encode(), password.encode()))
        hidden = self.source.choice(
            (f"USER {user}".encode(), f"PASS {password}".encode(), b"AUTH PLAIN " + blob)
        )
        size = self.source.choice(BORDERS) + self.source.choice((-2, -1, 0, 0, 1, 2))
        first = self.source.choice(
            (b"NOOP ", b"PASS ", b"USER ", b"AUTH PLAIN ", b"X", b"CAPA ", b"")
        )
        filler = self.source.choice((b"x", b"A", b" "))
        line = first + filler * max(0, size - len(first)) + hidden
        end = self.source.choice((b"\r\n", b"\r\n", b"\n", b""))
        return [self._line(f"USER {user}"), line + end, self._line(f"PASS {password}")]

    def _bad_exchange(self, user: str, password: str) -> list[Line]:
        name = self.source.choice(
            ("PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "EXTERNAL", "ANONYMOUS", "NTLM", "GSSAPI")
        )
        lines = [self._line(f"AUTH {name}")]
        for _ in range(self.source.choice((1, 2, 3))):
            answer = self.source.choice(
                (
                    b"*",
                    b"=",
                    b"",
                    b"!!!!",
                    b"AAAA",
                    self._base64(user.encode()),
                    self._base64(b"\0%b\0%b" % (user.encode(), password.encode())),
                    self._base64(b"%b %032d" % (user.encode(), 0)),
                    f"USER {user}".encode(),
                )
            )
            lines.append(self._line(answer))
        return [*lines, self._line(f"USER {user}"), self._line(f"PASS {password}")]

    def _interlude(self) -> list[Line]:
        tame = ("CAPA", "NOOP", "CAPA")
        odd = (
            "STAT",
            "LIST",
            "UIDL",
            "RETR 1",
            "LANG",
            "UTF8",
            "AUTH",
            "XFOO",
            "",
            "RSET",
            "EHLO me",
            "STLS",
            "*",
            "=",
        )
        words = tame if self.tame else tame + odd + odd
        return [self._line(self.source.choice(words)) for _ in range(self.source.choice((1, 1, 2)))]

    # --- lines and what is wrong with them ------------------------------------------------------------

    def _line(self, text: str | bytes) -> bytes:
        data = text.encode() if isinstance(text, str) else text
        if self.source.random() >= self.oddness:
            return data + b"\r\n"
        damages: tuple[Callable[[], bytes], ...] = (
            lambda: data.replace(b" ", b"  ", 1) + b"\r\n",
            lambda: data.replace(b" ", b"\t", 1) + b"\r\n",
            lambda: b" " + data + b"\r\n",
            lambda: data + b" \r\n",
            lambda: data.lower() + b"\r\n",
            lambda: data.title() + b"\r\n",
            lambda: data + b"\n",
            lambda: data + b"\r",
            lambda: data + b"\r\r\n",
            lambda: data + b"\n\r",
            lambda: data + b"",
            lambda: data + b"\0\r\n",
            lambda: self._inserted(data, b"\0") + b"\r\n",
            lambda: self._inserted(data, b"\r") + b"\r\n",
            lambda: self._inserted(data, b"\n") + b"\r\n",
            lambda: self._inserted(data, b" ") + b"\r\n",
            lambda: self._inserted(data, b"\x7f") + b"\r\n",
            lambda: self._inserted(data, b"\x08") + b"\r\n",
            lambda: data + b" " + b"x" * self._border(len(data)) + b"\r\n",
            lambda: data + b" " * self._border(len(data)) + b"\r\n",
            lambda: data + data + b"\r\n",
            lambda: b"\r\n" + data + b"\r\n",
        )
        return self.source.choice(damages)()

    def _border(self, used: int) -> int:
        return max(0, self.source.choice(BORDERS) - used + self.source.choice((-3, -2, -1, 0, 1)))

    def _inserted(self, data: bytes, what: bytes) -> bytes:
        at = self.source.randrange(len(data) + 1)
        return data[:at] + what + data[at:]

    def _base64(self, message: bytes) -> bytes:
        text = b64encode(message)
        if self.tame or self.source.random() > 0.2:
            return text
        at = self.source.randrange(len(text) + 1)
        return self.source.choice(
            (
                text.rstrip(b"="),
                text + b"=",
                text[:at] + b" " + text[at:],
                text + b" ",
                text[:at] + b"\0" + text[at:],
                text + b"AAAA",
                text[:-1],
            )
        )

    def _damaged_message(self, message: bytes) -> bytes:
        other = self._name().encode()
        return self.source.choice(
            (
                other + message if self.authzid else message,
                message + b"\0",
                message + b"\0more",
                message[1:],
                message.replace(b"\0", b"\0\0", 1),
                message + b"\n",
                message.rpartition(b"\0")[0] + b"\0",
                b" " + message if self.authzid else message,
            )
        )
