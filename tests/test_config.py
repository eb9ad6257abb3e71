"""What a configuration may say, and what is said of each mistake in it."""

from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock

from pop3proxy.config import Config, ConfigError, load
from pop3proxy.hooks.logging.jsonlines import JsonLines
from pop3proxy.loading import load_hooks

LEAST = 'listen = ["tcp:1110"]\nupstream = "tcp:127.0.0.1:110"\n'
JSON_LINES = "pop3proxy.hooks.logging.jsonlines:JsonLines"


def loaded(tmp_path: Path, text: str, **overrides: object) -> Config:
    path = tmp_path / "pop3proxy.toml"
    path.write_text(text)
    return load(str(path), overrides, MemoryReactorClock())


def mistakes(tmp_path: Path, text: str, **overrides: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text, **overrides)
    return caught.value.mistakes


def test_the_least_has_defaults_for_the_rest(tmp_path: Path) -> None:
    config = loaded(tmp_path, LEAST)
    assert (config.timeouts.login, config.timeouts.idle, config.timeouts.drain) == (180, 600, 30)
    assert config.limits.connections_per_address == 0
    assert config.events.path is None


def test_the_command_line_wins(tmp_path: Path) -> None:
    config = loaded(tmp_path, LEAST, upstream="tcp:127.0.0.1:1")
    assert config.upstream == "tcp:127.0.0.1:1"


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        (LEAST + "[timeouts]\nidle = 5\n", "timeouts.idle", "600"),
        (LEAST + "[timeouts]\nlogn = 5\n", "timeouts.logn", "login"),
        (LEAST + '[timeouts]\nlogin = "soon"\n', "timeouts.login", "number"),
        (LEAST + "[limits]\nconnections = 0\n", "limits.connections", "1"),
        (LEAST + '[events]\npath = "x"\non_error = "stop"\n', "events.on_error", "deny"),
        (LEAST + "[events]\ndata = true\n", "events", "events.path"),
        ('listen = []\nupstream = "tcp:127.0.0.1:110"\n', "listen", "1"),
        ('listen = ["tpc:1110"]\nupstream = "tcp:127.0.0.1:110"\n', "listen", "tpc"),
        ('listen = ["tcp:1110"]\nupstream = "127.0.0.1"\n', "upstream", "tcp"),
        ('listen = ["tcp:1110"]\n', "upstream", "upstream"),
    ],
)
def test_a_mistake_names_its_key_and_what_would_be_right(
    tmp_path: Path, text: str, key: str, hint: str
) -> None:
    (line,) = mistakes(tmp_path, text)
    assert key in line
    assert hint in line
    assert "\n" not in line


def test_every_mistake_is_listed(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "[timeouts]\nidle = 5\nlogin = -1\n[limits]\nconections = 3\n")
    for key in ("listen", "upstream", "timeouts.idle", "timeouts.login", "limits.conections"):
        assert any(key in line for line in found)


def test_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, "listen = [\n")
    assert "pop3proxy.toml" in line
    assert "line" in line


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load(str(tmp_path / "nowhere.toml"), {}, MemoryReactorClock())


def test_the_file_of_events_is_a_hook_before_the_others(tmp_path: Path) -> None:
    text = LEAST + f'[events]\npath = "a"\n[[hooks]]\nname = "{JSON_LINES}"\noptions = {{path = "b"}}\n'
    hooks = load_hooks(loaded(tmp_path, text))
    assert [type(hook) for hook in hooks] == [JsonLines, JsonLines]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("no.such.module:Hook", "{}", "no.such.module"),
        ("pop3proxy.hooks.api:Nothing", "{}", "Nothing"),
        ("pop3proxy.config:Config", "{}", "Hook"),
        ("nosuchentry", "{}", "nosuchentry"),
        (JSON_LINES, "{colour = 3}", "colour"),
    ],
)
def test_a_hook_that_cannot_be_loaded_is_named(
    tmp_path: Path, name: str, options: str, said: str
) -> None:
    text = LEAST + f'[[hooks]]\nname = "{name}"\noptions = {options}\n'
    with pytest.raises(ConfigError, match=said):
        load_hooks(loaded(tmp_path, text))
