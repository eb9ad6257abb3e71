"""The images and the compose file: built and run, with a session through them."""

import json
import poplib
import re
import ssl
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pop3proxy.config import load

from .engine import Engine, running_engine
from .processes import eventually, unavailable
from .proxy import CHECKOUT, TROUBLE
from .records import RecordedSession, RecordSchema, grouped

DOCKER = CHECKOUT / "docker"
DOCKERFILES = (DOCKER / "Dockerfile", DOCKER / "dovecot" / "Dockerfile")
USER, _, PASSWORD = (DOCKER / "dovecot" / "users").read_text().strip().partition(":{PLAIN}")
MAIL = (DOCKER / "dovecot" / "welcome.eml").read_bytes()
PATIENCE = 60

SOON = """
services:
  proxy:
    healthcheck:
      test: [CMD, pop3proxy, health, "127.0.0.1:1110"]
      interval: 1s
      retries: 2
"""
"""Laid over the compose file, so that nobody has to wait for the health check."""

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def tag(engine: Engine) -> Iterator[str]:
    """The tag of both images, which are gone in the end; what they were built from stays in the cache."""
    tag = f"test-{uuid.uuid4().hex[:12]}"
    images = {
        f"pop3proxy:{tag}": ("--file", str(DOCKERFILES[0]), str(CHECKOUT)),
        f"pop3proxy-dovecot:{tag}": (str(DOCKER / "dovecot"),),
    }
    try:
        for image, source in images.items():
            # Not every engine has a network for builds.
            engine.docker("build", "--network", "host", "--tag", image, *source)
        yield tag
    finally:
        engine.attempt("image", "rm", "--force", *images)


@dataclass(frozen=True, slots=True)
class Composed:
    """The services of the compose file."""

    engine: Engine
    files: tuple[str, ...]
    variables: dict[str, str]

    def compose(self, *arguments: str) -> str:
        files = (part for file in self.files for part in ("--file", file))
        return self.engine.docker("compose", *files, *arguments, **self.variables)

    def inside(self, *command: str) -> str:
        """Run a command beside the proxy, in its container."""
        return self.compose("exec", "--no-TTY", "proxy", *command)

    @property
    def proxy(self) -> dict[str, Any]:
        """What the engine knows of the proxy's container."""
        number = self.compose("ps", "--all", "--quiet", "proxy").strip()
        found: dict[str, Any] = json.loads(self.engine.docker("inspect", number))[0]
        return found

    @property
    def health(self) -> str:
        return str(self.proxy["State"]["Health"]["Status"])

    def becomes(self, health: str) -> None:
        eventually(lambda: self.health == health, f"the proxy becomes {health}", PATIENCE)

    def port(self, inside: int) -> int:
        """The port of this machine that leads to one of the proxy's."""
        return int(self.compose("port", "proxy", str(inside)).rpartition(":")[2])

    def trust(self) -> ssl.SSLContext:
        """Trust the certificate that was made, and nothing else."""
        return ssl.create_default_context(cadata=self.inside("cat", "tls/tls.crt"))

    def log(self) -> list[str]:
        return self.engine.docker("logs", self.proxy["Id"]).splitlines()

    def logins(self) -> dict[str, RecordedSession]:
        """The sessions with a login, by uid, as far as they have ended.

        Docker's own proxy is between a client here and the container, so the client's port tells nothing.
        """
        sessions = grouped([json.loads(line) for line in self.log() if line.startswith("{")])
        return {
            one.records[0]["uid"]: one
            for one in sessions
            if one.names[-1] == "pop3_session" and one.of("pop3_login_attempt")
        }


@contextmanager
def up(engine: Engine, tag: str, folder: Path) -> Iterator[Composed]:
    soon = folder / "soon.yaml"
    soon.write_text(SOON)
    variables = {
        "COMPOSE_PROJECT_NAME": f"pop3proxy-{tag}",
        "POP3PROXY_TAG": tag,
        "POP3PROXY_PORT": "0",
        "POP3PROXY_TLS_PORT": "0",
        "POP3PROXY_FILES": "1024",
    }
    composed = Composed(engine, (str(DOCKER / "compose.yaml"), str(soon)), variables)
    try:
        composed.compose("up", "--detach", "--wait", "--no-build", "--pull", "never")
        yield composed
    finally:
        composed.compose("down", "--volumes", "--timeout", "5")


@pytest.fixture(scope="module")
def composed(
    engine: Engine, tag: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Composed]:
    with up(engine, tag, tmp_path_factory.mktemp("compose")) as composed:
        yield composed


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        unavailable("hadolint is not installed")
    done = subprocess.run([hadolint, dockerfile], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_variable_of_the_compose_file_is_explained() -> None:
    used = set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text()))
    explained = (CHECKOUT / "docs" / "containers.md").read_text().partition("| variable |")[2]
    assert set(re.findall(r"`(POP3PROXY_\w+)`", explained.partition("\n\n")[0])) == used


def test_the_configuration_is_one_for_the_ports_of_the_image() -> None:
    config = load(str(DOCKER / "pop3proxy.toml"), {})
    ports = [listener.endpoint.removeprefix("tcp:") for listener in config.listen]
    assert f"EXPOSE {' '.join(ports)}\n" in DOCKERFILES[0].read_text()


def test_compose_takes_its_file(engine: Engine) -> None:
    assert engine.docker("compose", "--file", str(DOCKER / "compose.yaml"), "config", "-q") == ""


def test_the_image_has_nothing_that_installs_or_builds(engine: Engine, tag: str) -> None:
    script = (
        "for tool in pip pip3 gcc cc make git; do command -v $tool; done;"
        "for module in pip ensurepip setuptools; do"
        ' python -c "import $module" 2>/dev/null && echo $module; done;'
        "ls /source 2>/dev/null; id -u"
    )
    run = ("run", "--rm", "--network", "none", "--entrypoint", "sh", f"pop3proxy:{tag}")
    assert engine.docker(*run, "-c", script) == "10001\n"


def test_sigterm_ends_the_container_with_status_0(engine: Engine, tag: str) -> None:
    name = f"pop3proxy-{tag}-alone"
    hardened = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    options = ("--listen", "tcp:1110", "--upstream", "tcp:127.0.0.1:110", "--events", "-")
    try:
        engine.docker(
            *("run", "--detach", "--name", name, "--network", "none", *hardened),
            *("--ulimit", "nofile=1024", f"pop3proxy:{tag}", "serve", *options),
        )
        eventually(lambda: "listening on" in engine.docker("logs", name), "it listens", PATIENCE)
        engine.docker("stop", "--time", str(PATIENCE), name)
        state = json.loads(engine.docker("inspect", name))[0]["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 0)
        assert "stopped; counted" in engine.docker("logs", name)
    finally:
        engine.attempt("rm", "--force", name)


def fetched(client: poplib.POP3) -> bytes:
    """Log in, fetch the one mail there is, and leave."""
    client.user(USER)
    client.pass_(PASSWORD)
    assert client.stat()[0] == 1
    _, lines, _ = client.retr(1)
    client.quit()
    return b"".join(line + b"\n" for line in lines)


@contextmanager
def one_inspected_session(composed: Composed) -> Iterator[list[RecordedSession]]:
    """In the block somebody logs in and fetches the mail, over TLS; the proxy must have seen it.

    The session is in the list when the block is over.
    """
    before = composed.logins()
    seen: list[RecordedSession] = []
    yield seen
    after = eventually(
        lambda: (now := composed.logins()).keys() - before.keys() and now, "the session is recorded"
    )
    assert after
    (session,) = (after[uid] for uid in after.keys() - before.keys())
    assert session.said("pop3_login_success", "user", "password") == [(USER, "(masked)")]
    assert session.end["inspected"] == "whole"
    assert session.end["retr"] == 1
    assert PASSWORD not in "\n".join(composed.log())
    seen.append(session)


def test_a_session_by_stls_is_inspected(composed: Composed) -> None:
    with one_inspected_session(composed) as seen:
        client = poplib.POP3("localhost", composed.port(1110), timeout=PATIENCE)
        assert "STLS" in client.capa()
        client.stls(composed.trust())
        assert fetched(client) == MAIL
    # What the proxy takes for the client, Dovecot does too, by XCLIENT.
    address = re.escape(seen[0].records[0]["id.orig_h"])
    log = composed.compose("logs", "dovecot")
    assert re.search(rf"Login: user=<{USER}>.* rip={address}, ", log), log


def test_a_session_with_tls_from_the_first_byte_is_inspected(composed: Composed) -> None:
    context, port = composed.trust(), composed.port(1995)
    with one_inspected_session(composed):
        assert (
            fetched(poplib.POP3_SSL("localhost", port, timeout=PATIENCE, context=context)) == MAIL
        )


def test_both_listeners_are_healthy_to_the_check(composed: Composed) -> None:
    assert composed.health == "healthy"
    assert composed.inside("pop3proxy", "health", "127.0.0.1:1110") == ""
    assert composed.inside("pop3proxy", "health", "127.0.0.1:1995", "--tls") == ""


def test_the_proxy_has_no_capability_and_no_place_to_write(composed: Composed) -> None:
    host = composed.proxy["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    status = composed.inside("cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Uid"].split() == ["10001"] * 4
    # Its own folders, which it could write to otherwise.
    for folder in ("/var/log/pop3proxy", "/var/lib/pop3proxy/tls"):
        with pytest.raises(AssertionError, match="Read-only file system"):
            composed.inside("touch", f"{folder}/written")


def test_dovecot_is_reached_through_the_proxy_only(composed: Composed) -> None:
    number = composed.compose("ps", "--quiet", "dovecot").strip()
    dovecot = json.loads(composed.engine.docker("inspect", number))[0]
    assert not any(dovecot["NetworkSettings"]["Ports"].values())
    assert [name.rpartition("_")[2] for name in dovecot["NetworkSettings"]["Networks"]] == [
        "servers"
    ]


def test_the_certificate_that_is_there_is_kept(composed: Composed) -> None:
    before = composed.inside("cat", "tls/tls.crt")
    composed.compose("up", "--no-build", "--pull", "never", "--no-deps", "certificate")
    assert composed.inside("cat", "tls/tls.crt") == before


def test_the_proxy_is_as_healthy_as_its_mail_server(composed: Composed) -> None:
    composed.becomes("healthy")
    composed.compose("stop", "dovecot")
    composed.becomes("unhealthy")
    last = composed.proxy["State"]["Health"]["Log"][-1]
    assert last["ExitCode"] == 1
    assert last["Output"].startswith("pop3proxy: ")
    composed.compose("start", "dovecot")
    composed.becomes("healthy")


def test_the_services_log_no_error(composed: Composed) -> None:
    log = composed.log()
    assert any("listening on 0.0.0.0:1110" in line for line in log)
    assert any("listening on 0.0.0.0:1995" in line for line in log)
    assert TROUBLE.search("\n".join(log).encode()) is None


def test_what_it_prints_are_records_of_the_schema(
    composed: Composed, record_schema: RecordSchema
) -> None:
    # The health check's own sessions are there at the least.
    records = [json.loads(line) for line in composed.log() if line.startswith("{")]
    assert records
    for record in records:
        record_schema.validate(record)
