"""What `[policy.export]` may say, and where it is refused."""

from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor

from pop3proxy.config import Config, ConfigError, load

FILE = 'nft_file = "/run/pop3proxy/bans.nft"'


def loaded(folder: Path, listen: str, export: str, rules: str = "") -> Config:
    path = folder / "export.toml"
    path.write_text(
        f'listen = {listen}\nupstream = "tcp:127.0.0.1:110"\n{rules}\n[policy.export]\n{export}\n'
    )
    return load(str(path), {}, reactor)


def mistake(folder: Path, listen: str, export: str, rules: str = "") -> str:
    with pytest.raises(ConfigError) as raised:
        loaded(folder, listen, export, rules)
    (line,) = raised.value.mistakes
    return line


@pytest.mark.parametrize(
    "export",
    [FILE, 'command = ["/usr/sbin/nft", "-f", "/x"]', f'{FILE}\ncommand = ["/x", "{{changes}}"]'],
)
def test_a_file_or_a_command_or_both_are_taken(tmp_path: Path, export: str) -> None:
    config = loaded(tmp_path, '["tcp:110", { endpoint = "tcp6:110", tls = "none" }]', export)
    assert config.policy is not None
    assert config.policy.export is not None


@pytest.mark.parametrize(
    ("export", "said"),
    [
        ("", "policy.export: exports nothing; name nft_file"),
        ('command = ["nft", "-f"]', "command: must begin with the whole path"),
        ('command = ["{changes}"]', "must begin with the whole path"),
        ('command = ["/bin/x", "a\\u0000b"]', "no argument can hold a NUL"),
        (f"{FILE}\ninterval = 0", "policy.export.interval: must be more than 0"),
        (f"{FILE}\ntime_limit = 61", "policy.export.time_limit: must be at most 60"),
        (f"{FILE}\nnft_table = 'a b'", 'policy.export.nft_table: "a b" is no name of a table'),
    ],
)
def test_a_mistake_says_what_would_be_right(tmp_path: Path, export: str, said: str) -> None:
    assert said in mistake(tmp_path, '["tcp:110"]', export)


@pytest.mark.parametrize(
    ("listen", "rules", "said"),
    [
        (
            '["tcp:110", { endpoint = "tcp:111", proxies = ["192.0.2.1"] }]',
            "",
            "listen[1].proxies names load balancers",
        ),
        ('["haproxy:tcp:110"]', "", 'clients of listen[0] ("haproxy:tcp:110")'),
        ('["unix:/run/pop3"]', "", 'clients of listen[0] ("unix:/run/pop3") come through a proxy'),
        ('["tcp:110"]', '[rules]\nxclient = "pass"', 'rules.xclient = "pass" is for clients'),
    ],
)
def test_it_is_refused_where_the_firewall_sees_a_load_balancer(
    tmp_path: Path, listen: str, rules: str, said: str
) -> None:
    line = mistake(tmp_path, listen, FILE, rules)
    assert line.startswith("policy.export: ")
    assert said in line
    assert "leave [policy.export] out, and ban at the load balancer" in line


@pytest.mark.parametrize(
    ("endpoint", "refused"),
    [
        ("systemd:domain=UNIX:index=0", True),
        ("systemd:index=0:domain=UNIX", True),
        ("systemd:domain=INET:index=0", False),
    ],
)
def test_a_socket_of_systemd_is_refused_if_its_clients_have_no_address(
    endpoint: str, refused: bool
) -> None:
    # Without a reactor the endpoint is not tried: systemd has passed none.
    tables: dict[str, Any] = {
        "listen": [endpoint],
        "upstream": "tcp:127.0.0.1:110",
        "policy": {"export": {"nft_file": "x"}},
    }
    if refused:
        with pytest.raises(ValueError, match="come through a proxy"):
            Config.model_validate(tables)
    else:
        Config.model_validate(tables)
