"""The documents say what the code says; run as a script, this file writes their tables anew."""

import ast
import dataclasses
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from pop3proxy.analyzer import guard, sasl, saslforms
from pop3proxy.analyzer.events import ALL, Oddity, Reason
from pop3proxy.analyzer.grammar import COMMANDS, Form
from pop3proxy.analyzer.limits import Limits
from pop3proxy.analyzer.refusalrow import WORDED
from pop3proxy.analyzer.refusaltable import BUILT_IN
from pop3proxy.analyzer.secrets import WORDS
from pop3proxy.config import Config
from pop3proxy.hooks.api import VERDICTS, Hook, Verdict
from pop3proxy.hooks.dispatcher import Dispatcher
from pop3proxy.hooks.policy.config import DEFAULT_RULES
from pop3proxy.reports.questions import GROUPS, shipped
from pop3proxy.reports.views import VIEWS

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _markdown(text: str | None) -> str:
    """Put a docstring into one table cell."""
    return " ".join((text or "").replace("``", "`").replace("|", "\\|").split())


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _events() -> Iterator[tuple[str, ...]]:
    for kind in sorted(ALL, key=lambda kind: kind.name):
        flags = (f"`{name}` where it is true" for name in kind.flags)
        parameters = ", ".join((*(f"`{name}`" for name in kind.parameters), *flags)) or "none"
        yield f"`{kind.name}`", parameters, _markdown(inspect.getdoc(kind))


def _oddities() -> Iterator[tuple[str, ...]]:
    for oddity in Oddity:
        yield f"`{oddity.value}`", _markdown(oddity.text)


def _keys(table: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, ...]]:
    """Yield a row for each key that is no table itself."""
    for name, field in table.model_fields.items():
        models = [
            kind
            for kind in (field.annotation, *get_args(field.annotation))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        if models:
            mark = "[]" if get_origin(field.annotation) is tuple else ""
            yield from _keys(models[0], f"{prefix}{name}{mark}.")
        else:
            default = "required" if field.is_required() else _default(field.default)
            yield f"`{prefix}{name}`", default, _markdown(field.description)


def _default(value: Any) -> str:
    if value is None or value == "":
        return "none"
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{shown}`"


# Tests have kinds of their own.
_VERDICTS = {
    kind.__name__: kind
    for kind in Verdict.__subclasses__()
    if kind.__module__ == Verdict.__module__
}


def _verdicts() -> Iterator[tuple[str, ...]]:
    """Yield a row for each event that can get verdicts, those that can get most first."""
    for kind, verdicts in sorted(VERDICTS.items(), key=lambda row: -len(row[1])):
        yes = ("yes" if verdict in verdicts else "no" for verdict in _VERDICTS.values())
        yield f"`{kind.name}`", *yes


def _verdict_heads() -> tuple[str, ...]:
    return "event", *(f"`{'PASS' if name == 'Pass' else name}`" for name in _VERDICTS)


def _example(name: str) -> Callable[[], str]:
    return lambda: f"```python\n{(EXAMPLES / name).read_text(encoding='utf-8')}```\n"


def _refusals() -> Iterator[tuple[str, ...]]:
    for row in BUILT_IN:
        yield f"`{row.text}`", f"`{row.reason}`", row.charset, _markdown(row.source)


def _rules() -> Iterator[tuple[str, ...]]:
    for rule in DEFAULT_RULES:
        limits = ", ".join(f"{limit.count} in {limit.seconds:g} s" for limit in rule.limits)
        action = f"`{rule.action}`" + (f", but one each {rule.trickle:g} s" if rule.trickle else "")
        regular = "regular " if rule.regular is not None else ""
        yield f"`{rule.name}`", f"{regular}{rule.counts} by {rule.by}", limits, action


_FORMS = {
    Form.ALONE: "nothing",
    Form.NAME: "a name: 8-bit bytes, and blanks inside or after it, too",
    Form.PASSWORD: "everything",
    Form.NAME_AND_DIGEST: "a name, a blank, 32 hexadecimal digits",
    Form.MECHANISM: "nothing; or a mechanism; or that, a blank, and base64 or `=`",
    Form.LANGUAGE: "nothing; or a language tag or `*`",
    Form.NUMBER: "a number",
    Form.MAYBE_NUMBER: "nothing; or a number",
    Form.TWO_NUMBERS: "two numbers",
    Form.TEXT: "any text",
}


def _guarded() -> Iterator[tuple[str, ...]]:
    """Yield a row for each form of a command line: what passes before the login, and only behind it."""
    for form, text in _FORMS.items():
        rows = [row for row in COMMANDS.values() if row.form is form]
        before = ", ".join(f"`{row.name}`" for row in rows if row.before_login)
        behind = ", ".join(f"`{row.name}`" for row in rows if not row.before_login)
        yield text, before or "none", behind or "none"


def _mechanisms() -> Iterator[tuple[str, ...]]:
    """Yield a row for each mechanism that passes."""
    for name, form in sorted(saslforms._FORMS.items()):
        responses = "any number" if form.endless else str(len(form.responses))
        yield (
            f"`{name}`",
            responses,
            "yes" if form.initial else "no",
            "yes" if form.report else "no",
        )


def _words() -> Iterator[tuple[str, ...]]:
    for protocol, words in WORDS.items():
        yield protocol, ", ".join(f"`{word}`" for word in words.split())


def _questions() -> Iterator[tuple[str, ...]]:
    """Yield a row for each question, in the order of `pop3proxy ask`."""
    questions = sorted(shipped().values(), key=lambda each: (GROUPS.index(each.group), each.name))
    for question in questions:
        parameters = (f"`{each.name}={each.default}`" for each in question.parameters)
        yield f"`{question.name}`", _markdown(question.says), ", ".join(parameters) or "none"


def _views() -> Iterator[tuple[str, ...]]:
    for view in VIEWS:
        yield (
            f"`{view.name}`",
            _markdown(view.says),
            ", ".join(f"`{name}`" for name in view.columns),
        )


GENERATED: dict[str, tuple[str, Callable[[], str]]] = {
    "events": ("events.md", lambda: _table(("event", "parameters", "what it says"), _events())),
    "oddities": ("events.md", lambda: _table(("`msg`", "what it says"), _oddities())),
    "guard": (
        "guard.md",
        lambda: _table(("argument", "passes", "passes only after the login"), _guarded()),
    ),
    "mechanisms": (
        "guard.md",
        lambda: _table(
            (
                *("mechanism", "responses", "the first on the AUTH line"),
                "a last, empty one after the server's report or proof",
            ),
            _mechanisms(),
        ),
    ),
    "keys": ("operating.md", lambda: _table(("key", "default", "what it says"), _keys(Config))),
    "questions": (
        "auditing.md",
        lambda: _table(("question", "what it answers", "parameters"), _questions()),
    ),
    "views": ("auditing.md", lambda: _table(("view", "rows", "columns"), _views())),
    "refusals": (
        "refusals.md",
        lambda: _table(("text", "`reason`", "charset", "source"), _refusals()),
    ),
    "words": ("events.md", lambda: _table(("protocol", "words that are shown"), _words())),
    "rules": ("policy.md", lambda: _table(("rule", "counts", "limits", "action"), _rules())),
    "verdicts": ("hooks.md", lambda: _table(_verdict_heads(), _verdicts())),
    **{path.name: ("hooks.md", _example(path.name)) for path in sorted(EXAMPLES.glob("*.py"))},
}


def _part(document: str, name: str) -> re.Match[str]:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    found = re.search(rf"(<!-- {name}: [^\n]*-->\n)(.*?)(?=<!-- end -->)", text, re.S)
    assert found, f"docs/{document} has no part {name}"
    return found


def _first_cells(text: str) -> list[str]:
    """Return what stands in backticks in the first cell of each row."""
    cells = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", text, re.M)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def _rows_under(document: str, head: str) -> list[str]:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    return _first_cells(text.partition(head)[2].partition("\n\n")[0].partition("|---")[2])


@pytest.mark.parametrize("name", GENERATED)
def test_generated_table_is_what_the_code_says(name: str) -> None:
    document, generate = GENERATED[name]
    assert _part(document, name)[2] == generate()


def test_every_form_of_a_command_line_is_explained() -> None:
    assert set(_FORMS) == set(Form)


def test_every_reply_of_the_guard_is_explained() -> None:
    replies = {
        value.reply.decode("ascii").rstrip()
        for value in vars(guard).values()
        if isinstance(value, guard.LocalReply)
    }
    assert set(_rows_under("guard.md", "| reply | cause |")) == replies


def test_every_reason_of_a_failure_is_explained() -> None:
    assert sorted(_rows_under("events.md", "| `reason` | when |")) == sorted(Reason)


def test_every_reason_of_a_row_is_named() -> None:
    text = (ROOT / "docs" / "refusals.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"^`reason` is (.*?)\. At most", text, re.M | re.S)
    assert sorted(re.findall(r"`(\w+)`", named)) == sorted(WORDED)


def test_rows_of_the_chapter_on_refusals_are_some() -> None:
    text = (ROOT / "docs" / "refusals.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```", text, re.M | re.S)
    config = Config.model_validate(
        {"listen": ["tcp:110"], "upstream": "tcp:localhost:110"} | tomllib.loads(block)
    )
    table = config.analyzer.table()
    said = "登录太频繁!".encode("gbk")
    assert table.reason(said, "bob", "x", True, False) == (Reason.LOGIN_DELAY, "")
    assert table.reason(b"Please wait 15 minutes", "bob", "x", True, False)[0] == "login_delay"


def test_every_mechanism_is_explained() -> None:
    known = {"USER/PASS", "APOP", "RPOP", "SCRAM-*", *sasl._MECHANISMS}
    assert set(_rows_under("events.md", "| `mechanism` |")) == known


def test_every_limit_of_the_analyzer_has_its_value() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", _part("operating.md", "limits")[2], re.M)
    values = {field.name: str(field.default) for field in dataclasses.fields(Limits)}
    assert dict(rows) == values


def test_every_time_limit_is_explained() -> None:
    limits = Config.model_fields["timeouts"].default
    assert set(_rows_under("operating.md", "| limit | runs |")) == set(type(limits).model_fields)


def test_every_count_is_explained() -> None:
    explained = set(_rows_under("operating.md", "| count | of what |"))
    assert set(_counted()) <= explained


def _counted() -> Iterator[str]:
    """Yield the names that the source counts by, as far as they are written out there."""
    for path in (ROOT / "pop3proxy" / "proxy").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "count"
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and isinstance(node.args[0].value, str)
            ):
                yield node.args[0].value


def test_first_screen_of_the_readme_says_that_stls_hides_logins() -> None:
    first = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:24]
    assert "The proxy cannot see logins inside a passed-through STLS session." in "\n".join(first)


def test_session_of_the_readme_has_the_parameters_of_its_events() -> None:
    kinds = {kind.name: kind for kind in ALL}
    for line in _blocks("json")[0].splitlines():
        record = json.loads(line)
        own = [name for name in record if name not in {"ts", "event", "uid", "id.orig_h"}]
        assert own == list(kinds[record["event"]].parameters)


def _blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def test_hook_of_the_readme_is_a_hook() -> None:
    names: dict[str, Any] = {}
    (code,) = _blocks("python")
    exec(code, names)
    hook = names["Announce"](**_readme_config().hooks[0].options)
    assert isinstance(hook, Hook)
    assert {kind.name for kind in Dispatcher([hook]).wants} == {"pop3_login_failure"}


def _readme_config() -> Config:
    """Return the configuration that names the hook."""
    return Config.model_validate(tomllib.loads(_blocks("toml")[-1]))


def test_configurations_of_the_readme_are_some() -> None:
    assert _readme_config().hooks[0].name == "announce:Announce"
    least = {"listen": ["tcp:110"], "upstream": "tcp:localhost:110"}
    front, policy, _ = (
        Config.model_validate(least | tomllib.loads(block)) for block in _blocks("toml")
    )
    assert [listener.tls for listener in front.listen] == ["terminate", "implicit"]
    assert policy.policy is not None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^):]+)\)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_layout_names_every_module() -> None:
    layout = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
    modules = [
        path.name
        for room in ("analyzer", "hooks", "proxy", "replay", "reports")
        for path in (ROOT / "pop3proxy" / room).glob("*.py")
        if not path.name.startswith("__")
    ]
    assert [name for name in modules if f" {name} " not in layout] == []


def _write_tables() -> None:
    for name, (document, generate) in GENERATED.items():
        part = _part(document, name)
        path = ROOT / "docs" / document
        path.write_text(
            part.string[: part.start(2)] + generate() + part.string[part.end(2) :], encoding="utf-8"
        )


if __name__ == "__main__":
    _write_tables()
