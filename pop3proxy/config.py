"""What a configuration may say, and what its author is told about mistakes in it; nothing acts on it here."""

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from twisted.internet.endpoints import clientFromString, serverFromString

from .analyzer.events import Reason, State
from .analyzer.grammar import COMMANDS
from .analyzer.guard import GuardOptions
from .analyzer.refusalrow import Refusal
from .analyzer.refusals import DEFAULT_REFUSALS, Refusals
from .hooks.policy.commands import command_name
from .hooks.policy.config import Policy
from .hooks.policy.names import BlanksInNames
from .values import Count, DenialReply, Network, Seconds, SecondsOrNone, Switch, Table, shown


class ConfigError(ValueError):
    """Mistakes in a configuration; the text has one line each: the key, and what would be right."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


def _checked_by(make: Callable[[Any, str], object], example: str) -> AfterValidator:
    """Check an endpoint string by making the endpoint, without using it.

    That needs a reactor; where the validation's context has none, the string is taken as it is.
    """

    def check(text: str, info: ValidationInfo) -> str:
        if info.context is not None:
            problem = _endpoint_problem(make, info.context["reactor"], text)
            if problem:
                raise ValueError(f"{json.dumps(text)}: {problem}; write it like {example}")
        return text

    return AfterValidator(check)


ServerEndpoint = Annotated[
    str, _checked_by(serverFromString, '"tcp:1110" or "tcp:1110:interface=127.0.0.1"')
]
ClientEndpoint = Annotated[
    str, _checked_by(clientFromString, '"tcp:mail.example.org:110" or "tls:mail.example.org:995"')
]


def _at_least_one(found: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse an empty list. A minimal length would also complain of a list whose items are refused."""
    if not found:
        raise PydanticCustomError("missing", "is missing")
    return found


CommandName = Annotated[str, AfterValidator(command_name)]


def _guard_word(text: str) -> str:
    """Refuse what can be no command that the guard does not pass anyway (RFC 2449 section 4)."""
    word = text.upper()
    if not re.fullmatch("[A-Z][A-Z0-9]{2,15}", word):
        raise ValueError(
            f'{shown(text)} is no command; write 3 to 16 letters or digits like "XFOO"'
        )
    known = COMMANDS.get(word.encode("ascii"))
    if known is not None and known.before_login:
        raise ValueError(f"{word} passes the guard anyway; leave it out")
    if known is not None and State.AUTHORIZATION not in known.states:
        raise ValueError(f"{word} is a command for clients that have logged in; leave it out")
    return word


GuardWord = Annotated[str, AfterValidator(_guard_word)]
"""The first word of a command line, in any case."""


class _Place(Table):
    """A table that can be written as its endpoint string alone."""

    @model_validator(mode="before")
    @classmethod
    def _from_endpoint_alone(cls, found: object) -> object:
        return {"endpoint": found} if isinstance(found, str) else found


class Listener(_Place):
    """Where clients connect, and what is offered to them there."""

    endpoint: ServerEndpoint
    """Where clients connect: a Twisted server endpoint string. One that stands alone needs no table."""
    tls: Literal["pass", "none", "implicit", "terminate", "require"] = "pass"
    """`pass`: STLS is between client and server; `none`: STLS is hidden and refused; `implicit`: TLS from the
    first byte, as on port 995; `terminate`: the proxy answers STLS; `require`: so it does, and nobody logs in
    before it."""
    proxies: tuple[Network, ...] = ()
    """Networks of proxies before this one: who comes from there must send a PROXY header, others must not."""
    proxy_header: Literal["before_tls", "inside_tls"] = "before_tls"
    """Where the PROXY header is on an `implicit` listener."""
    trust_tls: Switch = False
    """Clients whose TLS ended at one of `proxies`, by its PROXY header of version 2, are clients with TLS."""

    @model_validator(mode="after")
    def _header_has_its_place(self) -> Self:
        if self.proxy_header == "inside_tls" and (self.tls != "implicit" or not self.proxies):
            raise ValueError('proxy_header = "inside_tls" needs tls = "implicit", and proxies')
        return self

    @model_validator(mode="after")
    def _trusts_somebody(self) -> Self:
        if self.trust_tls and not self.proxies:
            raise ValueError(
                "trust_tls needs proxies: name the networks of the load balancers that end TLS"
            )
        if self.trust_tls and self.tls == "pass":
            raise ValueError(
                'trust_tls with tls = "pass" would let an STLS inside the load balancer\'s TLS hide logins;'
                ' set tls = "none", "terminate", "require" or "implicit"'
            )
        return self


class Upstream(_Place):
    """The mail server, and how it is spoken to."""

    endpoint: ClientEndpoint
    """The mail server: a Twisted client endpoint string. One that stands alone needs no table."""
    tls: Literal["plain", "tls", "starttls"] = "plain"
    """`tls`: from the first byte, as on port 995; `starttls`: by STLS, and never without."""
    name: str | None = None
    """The name or IP address that its certificate must be for; without it the endpoint's host."""
    ca: str | None = None
    """A file of the authorities to trust, as PEM; without it those of the system."""
    certificate: str | None = None
    """A file with the proxy's own certificate and its chain, as PEM, to show to the mail server."""
    key: str | None = None
    """The file of its key, as PEM; without it the certificate's."""
    verify: Switch = True
    """`false` trusts whoever answers: then nobody is kept from reading along."""
    proxy_protocol: Literal["off", "v1", "v2"] = "off"
    """The PROXY header that tells the mail server the client's address."""
    xclient: Switch = False
    """Tell the mail server the client's address by XCLIENT, as Dovecot has it."""

    @model_validator(mode="after")
    def _has_tls_to_verify(self) -> Self:
        if self.tls == "plain":
            named = self.model_fields_set & {"name", "ca", "certificate", "key", "verify"}
            if named:
                names = ", ".join(sorted(named))
                raise ValueError(f'{names}: nothing without TLS; set tls = "tls" or "starttls"')
        if self.key is not None and self.certificate is None:
            raise ValueError("a key without its certificate; name that too")
        return self


class Certificate(Table):
    """One certificate of the proxy; clients that name a server get the one that is for that name."""

    chain: str
    """A file with the certificate and what is between it and a trusted authority, as PEM."""
    key: str | None = None
    """The file of its key, as PEM; without it the chain's."""


class TlsOptions(Table):
    """How listeners whose `tls` is `implicit`, `terminate` or `require` talk TLS."""

    certificates: tuple[Certificate, ...] = ()
    """The first is for clients that name no server, or one that no certificate is for."""
    client_ca: str | None = None
    """A file of authorities, as PEM; clients are asked for a certificate of theirs."""
    client_certificate: Literal["optional", "required"] = "optional"
    """Whether a client without a certificate is refused, if `client_ca` is set."""
    minimum: Literal["1.2", "1.3"] = "1.2"
    """The oldest version of TLS that is spoken."""

    @model_validator(mode="after")
    def _asks_before_it_requires(self) -> Self:
        if self.client_certificate == "required" and self.client_ca is None:
            raise ValueError(
                'client_certificate = "required" needs client_ca, the authorities to trust'
            )
        return self


class Events(Table):
    """Where events are written down, and what of them."""

    path: str | None = None
    """The file of events, as JSON Lines; ``-`` is standard output. Without it nothing is written."""
    data: Switch = False
    """Write pop3_data too, which is the mail itself."""
    show_secrets: Switch = False
    """Write passwords and other secrets in clear."""
    on_error: Literal["pass", "deny"] = "pass"
    """What becomes of a login while its record cannot be written: it goes on, or its session ends."""

    @model_validator(mode="after")
    def _data_goes_somewhere(self) -> Self:
        if self.data and self.path is None:
            raise ValueError(
                "data is on, but nothing is written: name a file (events.path, or --events)"
            )
        return self


class ConnectionLimits(Table):
    """How many clients are served at a time; those beyond it get ``-ERR [SYS/TEMP]``."""

    connections: Count = Field(default=8_000, ge=1)
    """Sessions in all."""
    connections_per_address: Count = Field(default=0, ge=0)
    """Sessions of one client address; 0 sets no limit, since many users may share an address."""


class Timeouts(Table):
    """How long is waited, in seconds, named for what each guards."""

    connect: Seconds = 10
    """Until the mail server has accepted the connection."""
    greeting: Seconds = 30
    """From there until its first words."""
    login: Seconds = 180
    """From the connection to the mail server until a login succeeds; not after STLS."""
    idle: Seconds = Field(default=600, ge=600)
    """Without a byte either way; RFC 1939 section 3 asks for 10 minutes at least once logged in."""
    handshake: Seconds = 15
    """Until a TLS handshake is complete, on either side."""
    proxy_header: Seconds = 5
    """From the connection until a PROXY header is complete."""
    drain: SecondsOrNone = 30
    """Until what is still on its way when a session ends, or when the proxy stops, is given up."""


class RefusalRow(Table):
    """What the mail server says when it refuses a login, and what it means by it."""

    text: str
    """Words of the refusal: found anywhere in it, in any case of letters; `*` stands for any others."""
    reason: Literal[
        "credentials",
        "in_use",
        "temporary",
        "login_delay",
        "account",
        "tls_required",
        "malformed",
        "unsupported",
        "unknown",
    ]
    """The `reason` of `pop3_login_failure` then."""
    charset: str = "utf-8"
    """The charset in which the server says it, such as `gbk`."""

    @model_validator(mode="after")
    def _can_be_looked_up(self) -> Self:
        self.refusal()
        return self

    def refusal(self) -> Refusal:
        """Return it as the analyzer has it. Raises ValueError with one line."""
        return Refusal(self.text, Reason(self.reason), charset=self.charset)


def _refusals(rows: tuple[RefusalRow, ...]) -> tuple[RefusalRow, ...]:
    """Refuse rows that make no table."""
    _table(rows)
    return rows


def _table(rows: Sequence[RefusalRow]) -> Refusals:
    return Refusals([row.refusal() for row in rows]) if rows else DEFAULT_REFUSALS


class AnalyzerOptions(Table):
    """What inspection cannot find out by itself."""

    auth_resp_code: Switch = False
    """The server announces AUTH-RESP-CODE (RFC 3206): a refusal without a code is no wrong password."""
    refusals: Annotated[tuple[RefusalRow, ...], AfterValidator(_refusals)] = ()
    """What refused logins mean by their words; asked before the built-in table (docs/refusals.md)."""

    def table(self) -> Refusals:
        """Return the table by which refused logins are read."""
        return _table(self.refusals)


class DenyRule(Table):
    """Commands that clients may not send; all that the rule says must hold."""

    commands: Annotated[tuple[CommandName, ...], AfterValidator(_at_least_one)]
    """Names, in any case: `DELE`, `AUTH NTLM`, `XTND XMIT`, `unknown`, `unknown XPUSH`."""
    state: Literal["authorization", "transaction"] | None = None
    """`authorization`: until a login has succeeded; `transaction`: once a login was sent; else both."""
    tls: Switch | None = None
    """`true`: only from clients that talk TLS to the proxy; `false`: only from the others; else both."""
    reply: DenialReply | None = None
    """The answer, one line that begins with `-ERR`; without it that to an unknown command."""


class Rules(Table):
    """Commands that are not passed to the mail server; without this table all are."""

    xclient: Literal["deny", "pass"] = "deny"
    """XCLIENT and XOIP, by which a client claims another address; proxies before this one need them."""
    plaintext_logins: Literal["pass", "deny"] = "pass"
    """USER, PASS, APOP, and AUTH by PLAIN, LOGIN, OAUTHBEARER and XOAUTH2, from clients without TLS."""
    deny: tuple[DenyRule, ...] = ()
    """Further rules; they come before the two above, and the first that applies gives the answer."""


class Verdicts(Table):
    """What becomes of sessions that hooks decide about."""

    on_blind: Literal["drop", "pass"] = "drop"
    """What becomes of a session whose inspection ends for any reason but STLS while a blocking hook is
    loaded."""
    delayed: Count = Field(default=1_000, ge=0)
    """Sessions that a Delay holds at a time; a Delay beyond that is a Drop."""
    words: dict[GuardWord, Literal["line", "body"]] = Field(default={})
    """Further commands that the guard passes before the login, and whether their +OK opens a body."""
    unknown_mechanisms: Literal["deny", "pass"] = "deny"
    """What becomes of an AUTH mechanism that cannot be read: passed, hooks are asked about an empty user."""
    blanks_in_names: BlanksInNames | None = None
    """How hooks are asked about a user name with a blank in it. `both`: as a whole and as servers read it
    that stop at the blank; `whole`: only as a whole (Dovecot, Domino); `deny`: such names are denied. Without
    it as `policy.users.server` reads them, or else `both`."""

    def guard(self, xclient: bool, blanks: BlanksInNames) -> GuardOptions:
        """Return what the guard passes: XCLIENT and XOIP, too, if proxies before this one may send them.

        ``blanks`` is how the mail server reads blanks in names, for an operator who says nothing of it.
        """
        words = {word.encode("ascii"): reply for word, reply in self.words.items()}
        claims: dict[bytes, Literal["line", "body"]] = {b"XCLIENT": "line", b"XOIP": "line"}
        return GuardOptions(
            words=claims | words if xclient else words,
            unknown_mechanisms=self.unknown_mechanisms == "pass",
            blanks_in_names=self.blanks_in_names or blanks,
            mailbox_before_login=self.on_blind == "pass",
        )


class HookEntry(Table):
    """One hook, by name, and what its constructor is given."""

    name: str
    """``package.module:Class``, or the name of an entry point of the group ``pop3proxy.hooks``."""
    options: dict[str, Any] = Field(default={})
    """Keyword arguments."""
    time_limit: Seconds | None = None
    """Seconds that an answer may take; without it what the hook says, or else 5."""
    on_error: Literal["pass", "deny"] | None = None
    """What a blocking hook that fails stands for; without it what the hook says, or else `pass`."""


_BEHIND_PROXIES = re.compile(r"unix:|haproxy:|systemd:.*\bdomain=UNIX\b")
"""Endpoints whose clients are programs on this machine, or are named by PROXY headers."""


class Config(Table):
    """A whole configuration: values only, checked."""

    listen: Annotated[tuple[Listener, ...], AfterValidator(_at_least_one)]
    """Where clients connect: endpoint strings, or tables."""
    upstream: Upstream
    """The mail server: an endpoint string, or a table."""
    tls: TlsOptions = TlsOptions()
    events: Events = Events()
    limits: ConnectionLimits = ConnectionLimits()
    timeouts: Timeouts = Timeouts()
    analyzer: AnalyzerOptions = AnalyzerOptions()
    rules: Rules | None = None
    policy: Policy | None = None
    verdicts: Verdicts = Verdicts()
    hooks: tuple[HookEntry, ...] = ()
    """Hooks besides the file of events, in the order in which they hear each event."""

    @model_validator(mode="after")
    def _tls_has_a_certificate(self) -> Self:
        for index, listener in enumerate(self.listen):
            if listener.tls in ("implicit", "terminate", "require") and not self.tls.certificates:
                raise ValueError(
                    f'listen[{index}].tls = "{listener.tls}" needs a certificate;'
                    ' name its files: [[tls.certificates]], chain = "…", key = "…"'
                )
        return self

    @model_validator(mode="after")
    def _bans_whom_a_firewall_sees(self) -> Self:
        if self.policy is not None and self.policy.export is not None:
            problem = self._clients_behind_proxies()
            if problem is not None:
                raise ValueError(
                    f"policy.export: {problem}, so a firewall here sees the load balancer's address"
                    " and not the banned client's; leave [policy.export] out, and ban at the load balancer"
                )
        return self

    def _clients_behind_proxies(self) -> str | None:
        """Say where clients come through proxies before this one; None if they do not."""
        for index, listener in enumerate(self.listen):
            if listener.proxies:
                return f"listen[{index}].proxies names load balancers"
            if _BEHIND_PROXIES.match(listener.endpoint):
                return f'clients of listen[{index}] ("{listener.endpoint}") come through a proxy'
        if self.rules is not None and self.rules.xclient == "pass":
            return 'rules.xclient = "pass" is for clients that are proxies'
        return None

    def guard(self) -> GuardOptions:
        """Return what the guard passes before a login."""
        xclient = self.rules is not None and self.rules.xclient == "pass"
        return self.verdicts.guard(xclient, self.policy.users.blanks if self.policy else "both")


def load(path: str | None, overrides: Mapping[str, Any], reactor: Any = None) -> Config:
    """Read a configuration file and lay the command line over it.

    ``path`` names a TOML file, or is None for no file. ``overrides`` is shaped like the file, and wins.
    ``reactor`` is what endpoint strings are tried with; the global one if None.

    Raises ConfigError with every mistake.
    """
    if reactor is None:
        from twisted.internet import reactor
    values = _merged({} if path is None else _read(path), overrides)
    try:
        return Config.model_validate(values, context={"reactor": reactor})
    except ValidationError as problems:
        raise ConfigError(_explain(error) for error in problems.errors()) from None


def load_apart(path: str) -> Config:
    """Read a configuration file for what neither listens nor dials, beside the proxy or without one.

    Raises ConfigError with every mistake, but for listeners and a mail server that are not there.
    """
    return load(path, {"listen": ["tcp:0"], "upstream": {"endpoint": "tcp:localhost:110"}})


def _read(path: str) -> dict[str, Any]:
    text = ""
    try:
        text = Path(path).read_text(encoding="utf-8")
        return tomllib.loads(text)
    except OSError as problem:
        mistake = f"{path}: cannot be read: {problem.strerror}"
    except UnicodeDecodeError as problem:
        line = problem.object[: problem.start].count(b"\n") + 1
        mistake = f"{path}: line {line}: is not UTF-8, as TOML must be"
    except tomllib.TOMLDecodeError as problem:
        end = f"at line {len(text.splitlines())}, the end of the file"
        mistake = f"{path}: is not TOML: {problem}".replace("at end of document", end)
    raise ConfigError([mistake])


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one tree of tables over another; a mistaken non-table below stays, to be reported."""
    merged = dict(below)
    for key, value in above.items():
        if not isinstance(value, Mapping):
            merged[key] = value
        elif isinstance(under := _as_table(key, below.get(key, {})), Mapping):
            merged[key] = _merged(under, value)
    return merged


def _as_table(key: str, value: object) -> object:
    """Write an upstream that is an endpoint string alone as a table, so that another can be laid over it."""
    return {"endpoint": value} if key == "upstream" and isinstance(value, str) else value


_MUST_BE = {
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "string_unicode": "must be UTF-8",
    "literal_error": "must be {expected}",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
}

_SECRETS = ("fingerprint_key", "password")
"""Keys whose value is not shown, even if it is wrong."""

_EXAMPLES = {
    "listen": '["tcp:1110"], or on the command line --listen tcp:1110',
    "upstream": '"tcp:mail.example.org:110", or on the command line --upstream tcp:mail.example.org:110',
    "name": '"package.module:Class"',
    "endpoint": '"tcp:1110" to listen, "tcp:mail.example.org:110" for the mail server',
    "chain": '"/etc/ssl/mail.example.org.pem"',
    "commands": '["DELE"]',
    "text": '"mailbox locked"',
    "reason": '"in_use"',
}
"""What could stand where a key without a default is missing."""


def _explain(error: ErrorDetails) -> str:
    """Turn one of pydantic's errors into the line that the configuration's author reads."""
    place = _dotted(error["loc"])
    # What concerns several tables names them itself.
    return f"{place}: {_what_would_be_right(error)}" if place else _what_would_be_right(error)


def _what_would_be_right(error: ErrorDetails) -> str:
    kind, place, context = error["type"], error["loc"], error.get("ctx", {})
    if kind == "model_type" and place[0] in ("listen", "upstream"):
        return f"must be a string or a table, not {shown(error['input'])}"
    if kind == "extra_forbidden":
        return _nearest_key(place)
    if kind == "missing":
        return f"is missing; it could be {_EXAMPLES[str(place[-1])]}"
    if kind == "value_error":
        return str(context["error"])
    must_be = _MUST_BE[kind].format_map(context)
    unit = " (seconds)" if place[0] == "timeouts" or place[-1] == "time_limit" else ""
    if place[-1] in _SECRETS:
        return must_be
    return f"{must_be}{unit}, not {shown(error['input'])}"


def _dotted(place: Iterable[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


_MOVED = {
    f"policy.{key}": f"policy.users.{key}"
    for key in ("ignore_case", "default_domain", "plus_address")
}
"""Keys of former versions, and what is written now."""


def _nearest_key(place: tuple[str | int, ...]) -> str:
    """Name the known key that was probably meant: one of the same table, else one of any table."""
    key = _dotted(part for part in place if isinstance(part, str))
    if key in _MOVED:
        table, _, name = _MOVED[key].rpartition(".")
        return f"has moved to {_MOVED[key]}; write {name} under [{table}]"
    table, _, name = key.rpartition(".")
    known = list(_keys(Config))
    siblings = [k for k in known if k.rpartition(".")[0] == table]
    for candidates in (siblings, known):
        names = {candidate.rpartition(".")[2]: candidate for candidate in candidates}
        nearest = difflib.get_close_matches(name, names, n=1)
        if nearest:
            return f"is no known key; did you mean {names[nearest[0]]}?"
    return f"is no known key; known are {', '.join(siblings)}"


def _keys(table: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield all keys in dotted form, tables included."""
    for name, field in table.model_fields.items():
        yield prefix + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _keys(kind, f"{prefix}{name}.")


def _endpoint_problem(make: Callable[[Any, str], object], reactor: Any, text: str) -> str | None:
    """Say in a few words why an endpoint string makes no endpoint; None if it makes one."""
    try:
        make(reactor, text)
    except OSError as problem:
        return f"{problem.strerror or type(problem).__name__}: {problem.filename}"
    except LookupError:
        return "systemd has passed no such socket"
    except TypeError as problem:
        return _call_problem(str(problem))
    # Kinds of endpoints are plug-ins, and each has errors of its own.
    except Exception as problem:
        return str(problem) or type(problem).__name__
    return _port_problem(text)


def _call_problem(text: str) -> str:
    """Reword a complaint about a call's arguments: they are what stood between the colons."""
    if missing := re.search(r"missing \d+ required positional arguments?: (.*)", text):
        return f"lacks {missing[1]}".replace("'", "")
    if unknown := re.search(r"unexpected keyword argument '(.*)'", text):
        return f"has no option {unknown[1]}"
    return "has a part too many, or an unknown option"


def _port_problem(text: str) -> str | None:
    """Find a port that no endpoint can use; Twisted would not look at it before listening."""
    for part in text.split(":")[1:]:
        number = part.removeprefix("port=")
        if re.fullmatch(r"-?\d+", number) and not 0 <= int(number) <= 65535:
            return f"port {number} is not between 0 and 65535"
    return None
