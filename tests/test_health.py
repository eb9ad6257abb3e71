"""The health check: what counts as a greeting, and what is said of anything else."""

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from pop3proxy.cli import main
from pop3proxy.health import LONGEST_LINE, Unhealthy, check

from .integration.certificates import Certificates
from .proxy.live import PATIENCE, MailServer, receive_all, running

Act = Callable[[socket.socket], None]


@contextmanager
def listener(act: Act) -> Iterator[int]:
    """Serve one connection, and lend the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)

        def serve() -> None:
            connection, _ = listening.accept()
            connection.settimeout(PATIENCE)
            with connection, suppress(OSError):
                act(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            thread.join(PATIENCE)
        assert not thread.is_alive()


def saying(data: bytes) -> Act:
    """Greet so, and wait until the client leaves."""

    def act(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        receive_all(connection)

    return act


def problem(act: Act, seconds: float = PATIENCE, *, tls: bool = False) -> str:
    """What is said of a listener that is not healthy."""
    with listener(act) as port, pytest.raises(Unhealthy) as raised:
        check("127.0.0.1", port, tls=tls, seconds=seconds)
    return str(raised.value)


def test_a_positive_greeting_is_healthy_and_the_session_ends_by_quit() -> None:
    said: list[bytes] = []

    def act(connection: socket.socket) -> None:
        connection.sendall(b"+OK ready\r\n")
        said.append(connection.recv(100))
        connection.sendall(b"+OK bye\r\n")
        said.append(receive_all(connection))

    with listener(act) as port:
        assert check("127.0.0.1", port, seconds=PATIENCE) == "+OK ready"
    assert said == [b"QUIT\r\n", b""]


@pytest.mark.parametrize("greeting", [b"+OK\r\n", b"+OK\n", b"+OK \xff\r\n", b"+OK a\r\n+OK b\r\n"])
def test_a_greeting_may_be_any_line_that_begins_with_the_indicator(greeting: bytes) -> None:
    with listener(saying(greeting)) as port:
        assert check("127.0.0.1", port, seconds=PATIENCE).startswith("+OK")


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (b"-ERR [SYS/TEMP] try later\r\n", "the greeting is -ERR [SYS/TEMP] try later"),
        (b"+OKAY\r\n", "the greeting is +OKAY"),
        (b"+OK rea", "the greeting is +OK rea"),
        (b"220 mail ESMTP\r\n", "the greeting is 220 mail ESMTP"),
        (b"-ERR \x1b[2J\xff\r\n", "the greeting is -ERR .[2J\\xff"),
        (b"", "no greeting: the connection was closed"),
    ],
)
def test_any_other_is_unhealthy_and_told_in_one_line(greeting: bytes, said: str) -> None:
    assert problem(saying(greeting)) == said


def test_a_line_without_end_is_read_no_further_than_a_greeting_may_be_long() -> None:
    taken: list[int] = []

    def act(connection: socket.socket) -> None:
        connection.sendall(b"+OK " + b"a" * LONGEST_LINE)
        taken.append(len(receive_all(connection)))

    assert problem(act) == "the greeting is +OK " + "a" * 116
    assert taken == [0]


def test_a_silent_listener_is_unhealthy() -> None:
    def act(connection: socket.socket) -> None:
        receive_all(connection)

    assert problem(act, 0.1) == "no greeting within 0.1 seconds"


def test_bytes_that_trickle_do_not_lengthen_the_time() -> None:
    def act(connection: socket.socket) -> None:
        gone = threading.Event()
        while not gone.wait(0.02):
            connection.sendall(b"+")

    assert problem(act, 0.2) == "no greeting within 0.2 seconds"


def test_a_listener_that_never_answers_quit_is_healthy() -> None:
    def act(connection: socket.socket) -> None:
        connection.sendall(b"+OK ready\r\n")
        receive_all(connection)

    with listener(act) as port:
        assert check("127.0.0.1", port, seconds=0.5) == "+OK ready"


def test_nobody_listening_is_unhealthy() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(Unhealthy, match="no greeting: Connection refused"):
            check("127.0.0.1", bound.getsockname()[1], seconds=PATIENCE)


def test_what_can_be_no_name_is_unhealthy() -> None:
    with pytest.raises(Unhealthy, match="can be no host's name"):
        check("a" * 64, 110)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A listener's TLS, with a certificate that nobody trusts."""
    made = Certificates.made_in(tmp_path_factory.mktemp("certificates"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server, made.server_key)
    return context


def test_over_tls_any_certificate_will_do(secure: ssl.SSLContext) -> None:
    said: list[bytes] = []

    def act(connection: socket.socket) -> None:
        with secure.wrap_socket(connection, server_side=True) as over_tls:
            over_tls.sendall(b"+OK ready\r\n")
            said.append(over_tls.recv(100))

    with listener(act) as port:
        assert check("127.0.0.1", port, tls=True, seconds=PATIENCE) == "+OK ready"
    assert said == [b"QUIT\r\n"]


def test_tls_to_a_listener_in_clear_is_unhealthy() -> None:
    assert problem(saying(b"+OK ready\r\n"), tls=True).startswith("no greeting: TLS fails: ")


def test_the_time_is_for_the_handshake_too() -> None:
    def act(connection: socket.socket) -> None:
        receive_all(connection)

    assert problem(act, 0.2, tls=True) == "no greeting within 0.2 seconds"


def status(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["health", *arguments])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert isinstance(ended.value.code, int)
    return ended.value.code, printed.err


def test_the_proxy_is_as_healthy_as_its_mail_server(capsys: pytest.CaptureFixture[str]) -> None:
    server = MailServer()
    answered: list[bytes] = []

    def answer() -> None:
        with server.accept() as upstream:
            upstream.sendall(b"+OK ready\r\n")
            answered.append(upstream.recv(100))
            upstream.sendall(b"+OK bye\r\n")

    with running(server.port) as proxy:
        where = f"127.0.0.1:{proxy.port}"
        thread = threading.Thread(target=answer)
        thread.start()
        assert status(capsys, where, "--seconds", "10") == (0, "")
        thread.join(PATIENCE)
        assert answered == [b"QUIT\r\n"]
        server.close()
        code, said = status(capsys, where, "--seconds", "10")
        assert code == 1
        assert re.fullmatch(r"pop3proxy: the greeting is -ERR \[SYS/TEMP\] .*\n", said)
        proxy.stop()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("1110", "write it like"),
        (":1110", "write it like"),
        ("::1:1110", "write it like"),
        ("127.0.0.1:pop3", "write it like"),
        ("127.0.0.1:0", "between 1 and 65535"),
        ("127.0.0.1:65536", "between 1 and 65535"),
    ],
)
def test_what_is_no_host_and_port_is_wrong_usage(
    where: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = status(capsys, where)
    assert code == 2
    assert said in printed


def test_an_ipv6_address_stands_in_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        bound = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("there is no IPv6 here")
    port = bound.getsockname()[1]
    bound.close()
    assert status(capsys, f"[::1]:{port}") == (1, "pop3proxy: no greeting: Connection refused\n")
