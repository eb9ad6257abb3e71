"""What a configuration may say, and what is said of each mistake in it."""

import importlib
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path
from textwrap import dedent
from uuid import uuid4

import pytest
from twisted.internet.testing import MemoryReactorClock

from pop3proxy.analyzer.events import Connection, Request, State, Tls
from pop3proxy.config import Config, ConfigError, load
from pop3proxy.hooks.api import Deny, Hook
from pop3proxy.hooks.dispatcher import Dispatcher
from pop3proxy.hooks.logging.jsonlines import JsonLines
from pop3proxy.hooks.policy.commands import CommandRules
from pop3proxy.loading import GROUP, load_hooks

from .hooks.examples import TS, connection

LEAST = 'listen = ["tcp:1110"]\nupstream = "tcp:127.0.0.1:110"\n'
JSON_LINES = "pop3proxy.hooks.logging.jsonlines:JsonLines"
DENY = LEAST + '[[rules.deny]]\ncommands = ["DELE"]\n'
REFUSAL = LEAST + "[[analyzer.refusals]]\ntext = 'mailbox locked'\n"
USERS = LEAST + "[policy.users]\n"
HOOK = LEAST + f'[[hooks]]\nname = "{JSON_LINES}"\noptions = {{path = "b"}}\n'


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
    config = loaded(tmp_path, LEAST, upstream={"endpoint": "tcp:127.0.0.1:1"})
    assert config.upstream.endpoint == "tcp:127.0.0.1:1"


def test_another_mail_server_on_the_command_line_is_spoken_to_in_the_same_way(
    tmp_path: Path,
) -> None:
    text = relaying('tls = "starttls", name = "mail.example.org"')
    config = loaded(tmp_path, text, upstream={"endpoint": "tcp:127.0.0.1:1"})
    assert config.upstream.endpoint == "tcp:127.0.0.1:1"
    assert (config.upstream.tls, config.upstream.name) == ("starttls", "mail.example.org")


def test_listeners_are_strings_and_tables(tmp_path: Path) -> None:
    text = """
        upstream = "tcp:127.0.0.1:110"
        listen = ["tcp:1110", { endpoint = "tcp:1995", tls = "implicit", proxies = ["::/0"] }]
        [[tls.certificates]]
        chain = "mail.pem"
    """
    first, second = loaded(tmp_path, text).listen
    assert (first.endpoint, first.tls, first.proxies) == ("tcp:1110", "pass", ())
    assert (second.endpoint, second.tls) == ("tcp:1995", "implicit")
    assert second.proxies == (IPv6Network("::/0"),)


def listening(options: str) -> str:
    return f'listen = [{{ endpoint = "tcp:1110", {options} }}]\nupstream = "tcp:127.0.0.1:110"\n'


def relaying(options: str) -> str:
    return f'listen = ["tcp:1110"]\nupstream = {{ endpoint = "tcp:127.0.0.1:110", {options} }}\n'


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
        (listening('tls = "on"'), "listen[0].tls", "'implicit', 'terminate' or 'require'"),
        (listening('tsl = "none"'), "listen[0].tsl", "listen.tls"),
        (listening('tls = "implicit"'), "listen[0].tls", "[[tls.certificates]]"),
        (listening('proxies = ["10.0.0.1/8"]'), "listen[0].proxies[0]", "clear the bits"),
        (listening("proxies = [10]"), "listen[0].proxies[0]", "192.0.2.0/24"),
        (listening('proxies = ["mail"]'), "listen[0].proxies[0]", "192.0.2.0/24"),
        (listening('proxy_header = "inside_tls"'), "listen[0]", 'tls = "implicit"'),
        (listening('tls = "none", trust_tls = true'), "listen[0]", "trust_tls needs proxies"),
        (
            listening('proxies = ["10.0.0.1"], trust_tls = true'),
            "listen[0]",
            'set tls = "none", "terminate", "require" or "implicit"',
        ),
        (listening('trust_tls = "yes"'), "listen[0].trust_tls", "true or false"),
        ('listen = [{}]\nupstream = "tcp:127.0.0.1:110"\n', "listen[0].endpoint", '"tcp:1110"'),
        ('listen = [5]\nupstream = "tcp:127.0.0.1:110"\n', "listen[0]", "a string or a table"),
        (relaying('tls = "STLS"'), "upstream.tls", "'plain', 'tls' or 'starttls'"),
        (relaying("verify = false"), "upstream", 'tls = "tls" or "starttls"'),
        (relaying('tls = "tls", key = "x"'), "upstream", "certificate"),
        (relaying('proxy_protocol = "v3"'), "upstream.proxy_protocol", "'off', 'v1' or 'v2'"),
        (relaying("xclient = 1"), "upstream.xclient", "true or false"),
        (LEAST + "[[tls.certificates]]\nkey = 'x'\n", "tls.certificates[0].chain", ".pem"),
        (LEAST + "[tls]\nminimum = 1.2\n", "tls.minimum", "'1.2' or '1.3'"),
        (LEAST + "[tls]\nclient_certificate = 'required'\n", "tls", "client_ca"),
        (LEAST + "[[hooks]]\n", "hooks[0].name", "package.module:Class"),
        ('listen = "tcp:1110"\nupstream = "tcp:127.0.0.1:110"\n', "listen", "list"),
        ('listen = ["tcp:1110"]\nupstream = 5\n', "upstream", "string or a table"),
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
        (LEAST + "rules = true\n", "rules", "table"),
        (LEAST + "[rules]\nxclent = 'pass'\n", "rules.xclent", "rules.xclient"),
        (LEAST + "[rules]\nxclient = 'allow'\n", "rules.xclient", "'deny' or 'pass'"),
        (
            LEAST + "[rules]\nplaintext_logins = false\n",
            "rules.plaintext_logins",
            "'pass' or 'deny'",
        ),
        (LEAST + "[[rules.deny]]\n", "rules.deny[0].commands", '["DELE"]'),
        (LEAST + "[[rules.deny]]\ncommands = []\n", "rules.deny[0].commands", '["DELE"]'),
        (LEAST + "[[rules.deny]]\ncommands = 'DELE'\n", "rules.deny[0].commands", "list"),
        (
            LEAST + "[[rules.deny]]\ncommands = ['RETR', 'DEEL']\n",
            "rules.deny[0].commands[1]",
            "DELE",
        ),
        (DENY + "state = 'update'\n", "rules.deny[0].state", "'authorization' or 'transaction'"),
        (DENY + "tls = 'no'\n", "rules.deny[0].tls", "true or false"),
        (DENY + "reply = 'no'\n", "rules.deny[0].reply", "begins with -ERR"),
        (DENY + 'reply = "-ERR a\\nb"\n', "rules.deny[0].reply", "one printable line"),
        (DENY + f"reply = '-ERR {'x' * 510}'\n", "rules.deny[0].reply", "510 octets"),
        (DENY + "stat = 'transaction'\n", "rules.deny[0].stat", "rules.deny.state"),
        (REFUSAL + "reason = 'denied'\n", "analyzer.refusals[0].reason", "'in_use'"),
        (REFUSAL, "analyzer.refusals[0].reason", 'it could be "in_use"'),
        (
            LEAST + "[[analyzer.refusals]]\nreason = 'in_use'\n",
            "analyzer.refusals[0].text",
            'it could be "mailbox locked"',
        ),
        (
            LEAST + "[[analyzer.refusals]]\ntext = '*'\nreason = 'in_use'\n",
            "analyzer.refusals[0]: text",
            'such as "mailbox locked"',
        ),
        (
            REFUSAL + "reason = 'in_use'\ncharset = 'klingon'\n",
            "analyzer.refusals[0]: charset",
            'there is no "klingon"; write a name like "gbk"',
        ),
        (
            REFUSAL + "reason = 'in_use'\ncharset = 'hex'\n",
            "analyzer.refusals[0]: charset",
            'there is no "hex"',
        ),
        (
            REFUSAL + "reason = 'in_use'\ncharset = 'utf-16'\n",
            "analyzer.refusals[0]: charset",
            "does not write ASCII as ASCII",
        ),
        (REFUSAL + "reason = 'in_use'\ncharset = 8\n", "analyzer.refusals[0].charset", "a string"),
        (
            REFUSAL + "reason = 'in_use'\nsource = ''\n",
            "analyzer.refusals[0].source",
            "no known key",
        ),
        (
            LEAST + "[[analyzer.refusals]]\ntext = 'lock busy'\nreason = 'in_use'\n" * 201,
            "analyzer.refusals",
            "has 201 rows; write 200 at most",
        ),
        (LEAST + "[policy]\nignore_case = true\n", "policy.ignore_case", "under [policy.users]"),
        (
            LEAST + "[policy]\ndefault_domain = 'a'\n",
            "policy.default_domain",
            "policy.users.default_",
        ),
        (
            LEAST + "[policy]\nplus_address = true\n",
            "policy.plus_address",
            "policy.users.plus_address",
        ),
        (
            LEAST + "[policy]\ndrop_domain = true\n",
            "policy.drop_domain",
            "policy.users.drop_domain",
        ),
        (LEAST + "[policy]\nusers = true\n", "policy.users", "a table"),
        (USERS + "server = 'exim'\n", "policy.users.server", "'cyrus' or 'exchange'"),
        (USERS + "server = 5\n", "policy.users.server", "'cyrus' or 'exchange'"),
        (USERS + "drop_domains = true\n", "policy.users.drop_domains", "policy.users.drop_domain"),
        (USERS + "separators = '%@'\n", "policy.users.separators", "is no separator"),
        (USERS + "separators = '%x'\n", "policy.users.separators", '"x" is no separator'),
        (USERS + "separators = ['%']\n", "policy.users.separators", "a string"),
        (USERS + "strip_prefix = 'b'\n", "policy.users.strip_prefix", '"recent:"'),
        (USERS + f"strip_prefix = '{'x' * 64}:'\n", "policy.users.strip_prefix", '"recent:"'),
        (USERS + "master_separator = '**'\n", "policy.users.master_separator", '"*"'),
        (USERS + "master_separator = '+'\n", "policy.users.master_separator", '"*"'),
        (
            USERS + "drop_domain = true\ndefault_domain = 'example.org'\n",
            "policy.users",
            "leave default_domain out",
        ),
        (
            USERS + "server = 'exchange'\ndefault_domain = 'example.org'\n",
            "policy.users",
            'server = "exchange" sets it',
        ),
        (
            USERS + "domain_first = true\nseparators = '%/'\n",
            "policy.users",
            "those of domain_first; leave them out",
        ),
        (
            USERS + "domain_first = true\nmaster_separator = '/'\n",
            "policy.users",
            "those of domain_first; write another",
        ),
        (
            USERS + "separators = '%*'\nmaster_separator = '*'\n",
            "policy.users",
            '"*" is the master_separator',
        ),
        (LEAST + "[verdicts]\non_blind = 'deny'\n", "verdicts.on_blind", "'drop' or 'pass'"),
        (LEAST + "[verdicts]\ndelayed = -1\n", "verdicts.delayed", "at least 0"),
        (LEAST + "[verdicts]\ndelayed = 1.5\n", "verdicts.delayed", "whole number"),
        (HOOK + "time_limit = 0\n", "hooks[0].time_limit", "more than 0 (seconds)"),
        (HOOK + "time_limit = 'long'\n", "hooks[0].time_limit", "a number (seconds)"),
        (HOOK + "on_error = 'drop'\n", "hooks[0].on_error", "'pass' or 'deny'"),
    ],
)
def test_a_mistake_names_its_key_and_what_would_be_right(
    tmp_path: Path, text: str, key: str, hint: str
) -> None:
    (line,) = mistakes(tmp_path, text)
    assert key in line
    assert hint in line
    assert "\n" not in line


def test_a_secret_is_not_shown_when_it_is_wrong(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, LEAST + "[policy]\nfingerprint_key = 5711\n")
    assert line == "policy.fingerprint_key: must be a string"


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
        ("raise SystemExit('no\\nway')\n", "fails with SystemExit: no way"),
        ("class Own(Hook):\n    def pop3_data(self): ...\n", "Own.pop3_data takes ()"),
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


def install(tmp_path: Path, module: str) -> None:
    """Installs a package that announces the module's ``Own`` as ``own-hook``."""
    metadata = tmp_path / "own-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\nown-hook = {module}:Own\n")


def test_an_installed_package_announces_hooks_by_short_names(
    tmp_path: Path, own_module: Callable[[str], str]
) -> None:
    install(tmp_path, own_module("class Own(Hook): ...\n"))
    assert type(load_hook(tmp_path, "own-hook")).__name__ == "Own"


# --- hooks that decide --------------------------------------------------------------------------------

BLOCKING = """
    from pop3proxy.hooks.api import Delay, Deny, Drop
    class Own(Hook):
        blocking = True
        {method}
"""


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (
            "def pop3_login_failure(self, event) -> Deny | None: ...",
            "Own.pop3_login_failure returns Deny; pop3_login_failure can get Delay, Drop, Pass",
        ),
        (
            "async def pop3_data(self, event) -> Delay: ...",
            "Own.pop3_data returns Delay; pop3_data can get Drop, Pass",
        ),
        (
            "def pop3_session(self, event) -> Drop: ...",
            "Own.pop3_session returns Drop; pop3_session can get no verdict",
        ),
        (
            "blocking = False\n        def pop3_request(self, event) -> Deny: ...",
            "Own.pop3_request returns Deny, but the hook only listens; set blocking = True",
        ),
    ],
)
def test_a_hook_that_asks_for_what_its_event_cannot_get_is_refused_by_name(
    tmp_path: Path, own_module: Callable[[str], str], method: str, said: str
) -> None:
    module = own_module(dedent(BLOCKING).format(method=method.replace("\n        ", "\n    ")))
    install(tmp_path, module)
    for name in (f"{module}:Own", "own-hook"):
        with pytest.raises(ConfigError) as caught:
            load_hook(tmp_path, name)
        assert caught.value.mistakes == (f"hooks[0]: {name}: {said}",)


def test_a_verdict_that_its_event_can_get_is_no_mistake(
    tmp_path: Path, own_module: Callable[[str], str]
) -> None:
    method = "def pop3_login_attempt(self, event) -> Deny | Delay | Drop | None: ..."
    module = own_module(dedent(BLOCKING).format(method=method))
    assert load_hook(tmp_path, f"{module}:Own").blocking


def adjusted(tmp_path: Path, name: str, settings: str) -> Hook:
    (hook,) = load_hooks(loaded(tmp_path, LEAST + f'[[hooks]]\nname = "{name}"\n{settings}'))
    return hook


def test_the_configuration_sets_a_hooks_time_limit_and_what_its_failure_means(
    tmp_path: Path, own_module: Callable[[str], str]
) -> None:
    module = own_module("class Own(Hook):\n    blocking = True\n    time_limit = 7.0\n")
    hook = adjusted(tmp_path, f"{module}:Own", 'time_limit = 0.25\non_error = "deny"\n')
    assert (hook.time_limit, hook.on_error) == (0.25, "deny")


def test_without_a_setting_a_hooks_own_time_limit_stays(
    tmp_path: Path, own_module: Callable[[str], str]
) -> None:
    text = "class Own(Hook):\n    blocking, time_limit, on_error = True, 7.0, 'deny'\n"
    hook = adjusted(tmp_path, f"{own_module(text)}:Own", "")
    assert (hook.time_limit, hook.on_error) == (7.0, "deny")


def test_a_hook_that_only_listens_can_have_no_on_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hooks\[0\]: .*JsonLines: only listens, .* on_error"):
        load_hooks(loaded(tmp_path, HOOK + 'on_error = "pass"\n'))


def test_a_hook_whose_time_limit_cannot_be_set_is_named(
    tmp_path: Path, own_module: Callable[[str], str]
) -> None:
    module = own_module("class Own(Hook):\n    time_limit = property(lambda self: 5.0)\n")
    with pytest.raises(ConfigError, match=r"Own: lets nobody set its time_limit"):
        adjusted(tmp_path, f"{module}:Own", "time_limit = 3\n")


def test_without_rules_and_hooks_nothing_blocks(tmp_path: Path) -> None:
    hooks = load_hooks(loaded(tmp_path, LEAST + '[events]\npath = "a"\n'))
    assert not Dispatcher(hooks).has_blocking


def test_rules_come_behind_the_file_of_events_and_before_the_other_hooks(tmp_path: Path) -> None:
    hooks = load_hooks(loaded(tmp_path, HOOK + '[events]\npath = "a"\n[rules]\n'))
    assert [type(hook) for hook in hooks] == [JsonLines, CommandRules, JsonLines]


def asked(tmp_path: Path, rules: str, command: str, c: Connection | None = None) -> Deny | None:
    """What the rules of a configuration make of a command."""
    (hook,) = load_hooks(loaded(tmp_path, LEAST + rules))
    assert isinstance(hook, CommandRules)
    return hook.pop3_request(Request(c or connection(), TS, command, "x"))


@pytest.mark.parametrize("command", ["XCLIENT", "XOIP"])
def test_an_empty_table_of_rules_refuses_claimed_addresses(tmp_path: Path, command: str) -> None:
    assert asked(tmp_path, "[rules]\n", command) == Deny("-ERR Unknown command.")


@pytest.mark.parametrize("command", ["PASS", "DELE", "XPUSH"])
def test_an_empty_table_of_rules_passes_the_rest(tmp_path: Path, command: str) -> None:
    assert asked(tmp_path, "[rules]\n", command) is None


def test_claimed_addresses_can_be_passed(tmp_path: Path) -> None:
    rules = '[rules]\nxclient = "pass"\nplaintext_logins = "deny"\n'
    assert asked(tmp_path, rules, "XCLIENT") is None


def test_rules_that_deny_nothing_load_nothing(tmp_path: Path) -> None:
    assert load_hooks(loaded(tmp_path, LEAST + '[rules]\nxclient = "pass"\n')) == []


def test_plaintext_logins_can_be_refused(tmp_path: Path) -> None:
    answer = asked(tmp_path, '[rules]\nplaintext_logins = "deny"\n', "PASS")
    assert answer is not None
    assert answer.reply.startswith("-ERR [AUTH] TLS is required")


def test_a_rule_is_made_of_all_that_the_configuration_says(tmp_path: Path) -> None:
    rules = """
        [[rules.deny]]
        commands = ["dele", "unknown"]
        state = "transaction"
        tls = false
        reply = "-ERR not from here"
    """
    plain = replace(connection(), state=State.TRANSACTION)
    own = Deny("-ERR not from here")
    assert asked(tmp_path, rules, "DELE", plain) == own
    assert asked(tmp_path, rules, "XPUSH", plain) == own
    assert asked(tmp_path, rules, "RETR", plain) is None
    assert asked(tmp_path, rules, "DELE", replace(plain, tls=Tls("TLSv1.3", ""))) is None
    assert asked(tmp_path, rules, "DELE", replace(plain, state=State.AUTHORIZATION)) is None


def test_an_operators_own_reply_comes_before_the_built_in_ones(tmp_path: Path) -> None:
    rules = """
        [rules]
        plaintext_logins = "deny"
        [[rules.deny]]
        commands = ["PASS", "XCLIENT"]
        reply = "-ERR own"
    """
    assert asked(tmp_path, rules, "PASS") == asked(tmp_path, rules, "XCLIENT") == Deny("-ERR own")


def test_a_session_that_nobody_inspects_any_more_is_dropped_by_default(tmp_path: Path) -> None:
    verdicts = loaded(tmp_path, LEAST).verdicts
    assert (verdicts.on_blind, verdicts.delayed) == ("drop", 1000)


def test_mistakes_in_rules_and_hooks_are_all_told_at_once(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        HOOK
        + "time_limit = -1\n[verdicts]\ndelayed = -1\n"
        + "[[rules.deny]]\ncommands = ['DEEL', 'TOPP']\nreply = ''\n[[rules.deny]]\ntls = 1\n",
    )
    assert sorted(line.partition(": ")[0] for line in found) == [
        "hooks[0].time_limit",
        "rules.deny[0].commands[0]",
        "rules.deny[0].commands[1]",
        "rules.deny[0].reply",
        "rules.deny[1].commands",
        "rules.deny[1].tls",
        "verdicts.delayed",
    ]
