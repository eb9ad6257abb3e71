"""The texts that mail servers have built in, which no client can put into their mouths; masks nothing."""

import re
from functools import lru_cache
from typing import Final

TEXTS: Final = (
    # Dovecot 2.3: src/pop3-login, src/login-common, src/pop3
    "Dovecot ready",
    "Dovecot (Debian) ready",
    "Dovecot (Ubuntu) ready",
    "Logged in",
    "Logging out",
    "Authentication failed",
    "Unknown command",
    "No username given",
    "Unsupported authentication mechanism",
    "Temporary authentication failure",
    "Internal login failure",
    "Invalid base64 data",
    "Plaintext authentication disallowed on non-secure (SSL/TLS) connections",
    "Begin TLS negotiation now",
    "Logging out, messages deleted",
    "Marked to be deleted",
    "Message is deleted",
    "Authentication aborted",
    "Disconnected for inactivity",
    "Disconnected: Inactivity",
    "Mailbox is locked",
    "Too many bad commands",
    "Authentication failed, aborting",
    "Invalid arguments",
    "TLS is already active",
    # Courier 1.0: courier/module.local, imap/pop3login.c, imap/pop3dserver.c
    "Hello there",
    "Password required",
    "Login failed",
    "Invalid command",
    "Bye-bye",
    "Authentication required",
    "POP3 clients that break here, they violate STD53",
    "Authorization first",
    "Temporary problem",
    # Cyrus 3.6: imap/pop3d.c
    "Invalid login",
    "Name is a valid mailbox",
    "Mailbox locked and ready",
    "Must give PASS command",
    "authenticating: authentication failure",
    "Unrecognized command",
    "Missing argument",
    "message deleted",
    "Must give USER command",
    "Unexpected extra argument",
    "Already authenticated",
    # GNU mailutils 3.15, popa3d 1.0.3, solid-pop3d 0.15, qpopper 4.1, qmail's and netqmail's pop3d
    "POP3 Ready",
    "Bad login",
    "Authentication failed (bad password?)",
    "Bad or missing argument",
    "Maildrop ready",
    "Server ready",
    "POP3 server ready",
    "Password required for user",
    "Bad command",
    "authorization failed",
    "authorization first",
    "unimplemented",
    "syntax error",
    "no such message",
    "Maildrop locked and ready",
    "Invalid command, try one of: USER name, PASS string, QUIT",
    # Exchange 2000 to 2019: [MS-OXPOP3]; Gmail, Outlook.com, Yahoo
    "Logon failure: unknown user name or bad password",
    "User successfully logged on",
    "Bye",
    "Command is not valid in this state",
    "Protocol error. Connection is closed",
    "User successfully authenticated",
    "Username and password not accepted",
    "send PASS",
    "Welcome",
    "Farewell",
    "Web login required",
    "invalid user name or password",
    "invalid username or password",
    "invalid password",
    "wrong password",
    "incorrect password",
    "password incorrect",
    "invalid login or password",
    "login incorrect",
    "bad password",
    "authentication failure",
    "access denied",
    "permission denied",
    "unknown user or incorrect password",
    "authentication successful",
    "login successful",
    "login ok",
    "password ok",
    "user ok",
    "user accepted",
    # What this proxy says in a server's place
    "the mail server cannot be reached, please try again later",
    "too many connections, please try again later",
)
"""In any case of letters, with or without a response code before them and a full stop behind them."""

CODES: Final = ("AUTH", "IN-USE", "LOGIN-DELAY", "PRIVACYREQUIRED", "SYS/PERM", "SYS/TEMP", "UTF8")
"""The response codes that are registered (RFC 2449, 2595, 3206, 6856), and Dovecot's."""

_KNOWN: Final = frozenset(text.lower() for text in (*TEXTS, *CODES))
_CODE: Final = re.compile(rf"\[(?:{'|'.join(CODES)})\]\s*", re.IGNORECASE)


@lru_cache(maxsize=1024)
def is_ordinary(text: str) -> bool:
    """Return whether a text is one of those that servers have built in, or a response code."""
    code = _CODE.match(text)
    said = text[code.end() :] if code is not None else text
    return said.strip(" .!\t").lower() in _KNOWN
