"""What a configuration may say, and what is said of each mistake in it."""

import importlib
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from twisted.internet.testing import MemoryReactorClock

from pop3proxy.config import Config, ConfigError, load
from pop3proxy.hooks.api import Hook
from pop3proxy.hooks.logging.jsonlines import JsonLines
from pop3proxy.loading import GROUP, load_hooks

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
        (LEAST + "[limits]\nconnections = 1.5\n", "limits.connections", "whole number"),
        (LEAST + "[timeouts]\nconnect = nan\n", "timeouts.connect", "finite"),
        (LEAST + '[events]\npath = "x"\ndata = "yes"\n', "events.data", "true or false"),
        (LEAST + "events = 5\n", "events", "table"),
        (LEAST + "idle = 700\n", "idle", "timeouts.idle"),
        (LEAST + "zzz = 1\n", "zzz", "known are listen, upstream"),
        (LEAST + "[[hooks]]\n", "hooks[0].name", "package.module:Class"),
        ('listen = "tcp:1110"\nupstream = "tcp:127.0.0.1:110"\n', "listen", "list"),
        ('listen = ["tcp:1110"]\nupstream = 5\n', "upstream", "string"),
        ('listen = ["tcp:99999"]\nupstream = "tcp:127.0.0.1:110"\n', "listen[0]", "65535"),
        ('listen = ["tcp:1", "tcp"]\nupstream = "tcp:127.0.0.1:110"\n', "listen[1]", "lacks port"),
        ('listen = ["tcp:1:x=1"]\nupstream = "tcp:127.0.0.1:110"\n', "listen[0]", "no option x"),
        (
            'listen = ["ssl:1:privateKey=/nowhere"]\nupstream = "tcp:127.0.0.1:110"\n',
            "listen[0]",
            "/nowhere",
        ),
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


def test_the_end_of_a_file_that_is_cut_off_is_a_line(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, LEAST + "x =")
    assert "line 3" in line


def test_a_file_that_is_not_utf_8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "latin-1.toml"
    path.write_bytes(LEAST.encode() + b"# caf\xe9\n")
    with pytest.raises(ConfigError, match="line 3"):
        load(str(path), {}, MemoryReactorClock())


def test_the_command_line_leaves_the_rest_of_a_table_alone(tmp_path: Path) -> None:
    config = loaded(tmp_path, LEAST + "[events]\ndata = true\n", events={"path": "-"})
    assert (config.events.path, config.events.data) == ("-", True)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load(str(tmp_path / "nowhere.toml"), {}, MemoryReactorClock())


def test_the_file_of_events_is_a_hook_before_the_others(tmp_path: Path) -> None:
    text = (
        LEAST
        + f'[events]\npath = "a"\n[[hooks]]\nname = "{JSON_LINES}"\noptions = {{path = "b"}}\n'
    )
    hooks = load_hooks(loaded(tmp_path, text))
    assert [type(hook) for hook in hooks] == [JsonLines, JsonLines]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("no.such.module:Hook", "{}", "no.such.module"),
        ("pop3proxy.hooks.api:Nothing", "{}", "Nothing"),
        ("pop3proxy.config:Config", "{}", "Hook"),
        ("nosuchentry", "{}", "nosuchentry"),
        (JSON_LINES, "{path = 'x', colour = 3}", "colour"),
    ],
)
def test_a_hook_that_cannot_be_loaded_is_named(
    tmp_path: Path, name: str, options: str, said: str
) -> None:
    text = LEAST + f'[[hooks]]\nname = "{name}"\noptions = {options}\n'
    with pytest.raises(ConfigError, match=said):
        load_hooks(loaded(tmp_path, text))


def test_all_hooks_that_cannot_be_loaded_are_listed(tmp_path: Path) -> None:
    text = LEAST + '[[hooks]]\nname = "no:One"\n[[hooks]]\nname = "neither"\n'
    with pytest.raises(ConfigError) as caught:
        load_hooks(loaded(tmp_path, text))
    first, second = caught.value.mistakes
    assert first.startswith("hooks[0]: no:One: ")
    assert second.startswith("hooks[1]: neither: ")


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module of a user's hooks, and gives its name."""

    def write(text: str) -> str:
        name = f"own_hooks_{uuid4().hex}"
        (tmp_path / f"{name}.py").write_text("from pop3proxy.hooks.api import Hook\n" + text)
        importlib.invalidate_caches()
        return name

    monkeypatch.syspath_prepend(tmp_path)
    return write


def load_hook(tmp_path: Path, name: str, options: str = "{}") -> Hook:
    text = LEAST + f'[[hooks]]\nname = "{name}"\noptions = {options}\n'
    (hook,) = load_hooks(loaded(tmp_path, text))
    return hook


def test_a_hook_is_given_its_options(tmp_path: Path, own_module: Callable[[str], str]) -> None:
    module = own_module(
        "class Own(Hook):\n    def __init__(self, **options):\n        self.options = options\n"
    )
    hook = load_hook(tmp_path, f"{module}:Own", '{colour = "red"}')
    assert getattr(hook, "options", None) == {"colour": "red"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class Own(Hook):\n    def pop3_logn(self, event): ...\n", "pop3_logn is no event"),
        ("import no_such_module\n", "there is no module no_such_module"),
        ("Own = 3 +\n", "SyntaxError"),
        (
            "class Own(Hook):\n    def __init__(self):\n        raise ValueError('no\\nway')\n",
            "no way",
        ),
        ("class Own(Hook):\n    def __init__(self, place): ...\n", "option place is missing"),
        ("def Own(): ...\n", "is no hook"),
    ],
)
def test_what_is_wrong_with_a_hook_of_ones_own_is_said_in_one_line(
    tmp_path: Path, own_module: Callable[[str], str], text: str, said: str
) -> None:
    module = own_module(text)
    with pytest.raises(ConfigError) as caught:
        load_hook(tmp_path, f"{module}:Own")
    (line,) = caught.value.mistakes
    assert said in line
    assert "\n" not in line


def test_an_installed_package_announces_hooks_by_short_names(
    tmp_path: Path, own_module: Callable[[str], str]
) -> None:
    module = own_module("class Own(Hook): ...\n")
    metadata = tmp_path / "own-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\nown-hook = {module}:Own\n")
    assert type(load_hook(tmp_path, "own-hook")).__name__ == "Own"
