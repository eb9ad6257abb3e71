"""Makes up two-sided sessions for the properties: well-formed, malformed, pipelined and interleaved."""

import base64

from hypothesis import strategies as st

from pop3proxy.analyzer.events import Side

Run = tuple[Side, bytes]


def _b64(text: bytes) -> bytes:
    return base64.b64encode(text)


_CLIENT = st.sampled_from(
    [
        b"USER bob",
        b"user b\xf6b",
        b"PASS",
        b"PASS x",
        b"PASS  x ",
        b"APOP bob c4c9334bac560ecc979e58001b3e22fb",
        b"APOP bob",
        b"RPOP bob",
        b"AUTH",
        b"AUTH FOO",
        b"AUTH PLAIN",
        b"AUTH PLAIN =",
        b"AUTH PLAIN " + _b64(b"\0bob\0x"),
        b"AUTH LOGIN",
        b"AUTH CRAM-MD5",
        b"AUTH SCRAM-SHA-1 " + _b64(b"n,,n=bob,r=1"),
        b"AUTH XOAUTH2 " + _b64(b"user=bob\x01auth=Bearer t\x01\x01"),
        b"AUTH GSSAPI YII=",
        b"AUTH NTLM " + _b64(b"NTLMSSP\0\x03\0\0\0" + bytes(60)),
        _b64(b"bob"),
        _b64(b"bob 0123456789abcdef"),
        _b64(b"c=biws,r=1,p=x"),
        b"*",
        b"=",
        b"",
        b"STLS",
        b"CAPA",
        b"STAT",
        b"LIST",
        b"LIST 1",
        b"RETR 1",
        b"TOP",
        b"NOOP",
        b"QUIT",
        b"XTND XMIT",
        b"XTND XLST From",
        b"XTND OTHER",
        b"LANG",
        b"XYZZY " + b"y" * 40,
        b".",
        b"..",
        b"\0\xff\r",
        b"EHLO me",
        b"\x16\x03\x01\x00\x05",
    ]
)

_SERVER = st.sampled_from(
    [
        b"+OK",
        b"+OK ready <1.2@example.org>",
        b"+ok fine",
        b" +OK",
        b"-ERR",
        b"-ERR [AUTH] no",
        b"-ERR [IN-USE] busy",
        b"-ERR Disconnected for inactivity.",
        b"+ERR no",
        b"+",
        b"+ ",
        b"+ " + _b64(b'{"status":"401"}'),
        b"+ go ahead",
        b"+OKAY",
        b".",
        b"..",
        b". ",
        b".x",
        b"AUTH-RESP-CODE",
        b"Subject: a mail",
        b"",
        b"z" * 80,
        b"\0\xfe\r",
        b"* OK IMAP4rev1",
        b"\x15\x03\x03\x00\x02",
    ]
)

_END = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r\r\n", b""])


def _bytes_of(lines: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    line = st.tuples(st.one_of(lines, lines, lines, st.binary(max_size=12)), _END).map(b"".join)
    return st.lists(line, min_size=1, max_size=6).map(b"".join).filter(bool)


_RUN = st.one_of(
    st.tuples(st.just(Side.CLIENT), _bytes_of(_CLIENT)),
    st.tuples(st.just(Side.SERVER), _bytes_of(_SERVER)),
)


_BODY = _bytes_of(_SERVER).map(lambda lines: b"+OK\r\n" + lines + b"\r\n.\r\n")

# What only a client and a server that understand each other get to.
_DIALOGUE = st.one_of(
    st.tuples(st.just((Side.CLIENT, b"RETR 1\r\n")), st.tuples(st.just(Side.SERVER), _BODY)),
    st.tuples(st.just((Side.CLIENT, b"CAPA\r\n")), st.tuples(st.just(Side.SERVER), _BODY)),
    st.tuples(
        st.just((Side.CLIENT, b"AUTH LOGIN\r\n")),
        st.just((Side.SERVER, b"+ \r\n")),
        _RUN,
        st.just((Side.SERVER, b"+ \r\n")),
        _RUN,
    ),
    st.tuples(
        st.just((Side.CLIENT, b"XTND XMIT\r\n")), st.just((Side.SERVER, b"+OK\r\n")), _RUN, _RUN
    ),
)


def _joined(runs: list[Run]) -> list[Run]:
    """Make one run of what one side says without the other in between."""
    joined: list[Run] = []
    for side, data in runs:
        before = joined.pop()[1] if joined and joined[-1][0] is side else b""
        joined.append((side, before + data))
    return joined


def sessions() -> st.SearchStrategy[list[Run]]:
    """Sessions as runs of alternating sides; most begin with a greeting."""
    greeting = st.sampled_from([[(Side.SERVER, b"+OK ready\r\n")]] * 3 + [[]])
    part = st.one_of(_RUN.map(lambda run: (run,)), _DIALOGUE)
    return st.tuples(greeting, st.lists(part, max_size=8)).map(
        lambda parts: _joined([*parts[0], *(run for part in parts[1] for run in part)])
    )


class Flood(bytes):
    """Bytes of which nobody wants to see all when a test fails."""

    def __repr__(self) -> str:
        return f"{self[:40]!r}... ({len(self)} octets)"


def floods() -> st.SearchStrategy[list[Run]]:
    """Sessions that say one thing again and again, until it is twice what an analyzer may keep."""
    flood = st.tuples(
        _RUN,
        st.sampled_from([1, 100, 5_000]),
        st.sampled_from([1, 3_000]),
    ).map(lambda f: (f[0][0], (f[0][1] + f[0][1].rstrip(b"\r\n")[-1:] * f[2]) * f[1]))
    short = flood.map(lambda run: (run[0], run[1][:150_000]))
    return st.lists(short, min_size=1, max_size=4).map(
        lambda runs: [
            (side, Flood(data)) for side, data in _joined([(Side.SERVER, b"+OK\r\n"), *runs])
        ]
    )
