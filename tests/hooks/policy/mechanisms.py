"""What clients and servers exchange by each mechanism, for tests that need failed logins of any."""

from pop3proxy.analyzer.events import Exchanged

from ...integration.sasl import MECHANISMS

SHOWN = ("PLAIN", "LOGIN", "USER/PASS")
PROVING = ("SCRAM-SHA-256", "SCRAM-SHA-1", "DIGEST-MD5", "CRAM-MD5")
MAILKIT = ("NTLM", *PROVING, *SHOWN)
ROUNDS = 100


def exchanged(mechanism: str, password: str, rounds: int = ROUNDS) -> Exchanged:
    """Return what client and server say by a mechanism that proves a password."""
    if mechanism not in PROVING:
        return ()
    client = MECHANISMS[mechanism]("bob", password)
    next(client)
    if not mechanism.startswith("SCRAM-"):
        challenge = b'nonce="abc",qop="auth"'
        return ((challenge, client.send(challenge)),)
    first = client.send(b"")
    challenge = b"r=%sserver,s=c2FsdA==,i=%d" % (first.rpartition(b"r=")[2], rounds)
    return ((b"", first), (challenge, client.send(challenge)))
