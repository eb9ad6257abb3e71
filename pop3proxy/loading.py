"""Finds and makes the hooks that a configuration names; what they hear is the dispatcher's business."""

import inspect
import re
from collections.abc import Iterator, Mapping
from functools import reduce
from importlib import import_module
from importlib.metadata import entry_points
from inspect import Parameter
from typing import Any

from .analyzer.events import State
from .config import Config, ConfigError, HookEntry, Rules
from .hooks.api import Deny, Hook
from .hooks.dispatcher import UnusableHook, methods_of
from .hooks.logging.jsonlines import Fingerprint, JsonLines
from .hooks.policy.commands import (
    CLAIMED_ADDRESSES,
    DENIED,
    PLAINTEXT_LOGINS,
    CommandRules,
    Rule,
)
from .hooks.policy.config import Policy
from .hooks.policy.failedlogins import FailedLogins, PolicyUnusable
from .hooks.policy.users import Passwords
from .hooks.policy.watchedfiles import PolicyFileError
from .problems import in_one_line

GROUP = "pop3proxy.hooks"
"""The entry-point group in which packages announce hooks by a short name."""


_ANY = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class _Unusable(Exception):
    """A hook cannot be had; the text says what would be right."""


def load_hooks(config: Config, live: bool = True) -> list[Hook]:
    """Make the hooks of a configuration: the file of events, the rules, the policy, then the others.

    Not ``live``, for a replay, the policy leaves its files alone. Nothing is started
    yet. Raises ConfigError with every mistake.
    """
    hooks: list[Hook] = []
    mistakes: list[str] = []
    if config.events.path is not None:
        try:
            file = _made(JsonLines, config.events.model_dump())
            if isinstance(file, JsonLines) and config.policy is not None:
                file.fingerprint = _fingerprint(config.policy)
            hooks.append(file)
        except _Unusable as problem:
            mistakes.append(f"events.path: {problem}")
    if config.rules is not None and (rules := tuple(_rules(config.rules))):
        hooks.append(CommandRules(rules))
    if config.policy is not None:
        try:
            policy = FailedLogins(config.policy, live=live)
            hooks += (*policy.ears, policy)
        except (PolicyFileError, PolicyUnusable) as problem:
            mistakes.append(str(problem))
    for index, entry in enumerate(config.hooks):
        try:
            hooks.append(_adjusted(_made(_found(entry.name), entry.options), entry))
        except _Unusable as problem:
            mistakes.append(f"hooks[{index}]: {entry.name}: {problem}")
    if mistakes:
        raise ConfigError(mistakes)
    return hooks


def _fingerprint(policy: Policy) -> Fingerprint | None:
    """Return what login records name passwords by; with a key made at each start that would tell nothing."""
    key = policy.fingerprint_key
    return None if key is None else Passwords(key.encode()).fingerprint


def _rules(config: Rules) -> Iterator[Rule]:
    """Yield the operator's own rules before the others, so that their replies are what clients see."""
    for rule in config.deny:
        yield Rule(
            frozenset(rule.commands),
            None if rule.state is None else State(rule.state),
            rule.tls,
            DENIED if rule.reply is None else Deny(rule.reply),
        )
    if config.plaintext_logins == "deny":
        yield PLAINTEXT_LOGINS
    if config.xclient == "deny":
        yield CLAIMED_ADDRESSES


def _found(name: str) -> type[Hook]:
    """Import the class that a name stands for."""
    target = name if ":" in name else _announced(name)
    if not re.fullmatch(r"[\w.]+:[\w.]+", target):
        raise _Unusable('is no name of a hook; write it like "package.module:Class"')
    module, _, path = target.partition(":")
    try:
        found = reduce(getattr, path.split("."), _imported(module))
    except AttributeError:
        raise _Unusable(f"the module {module} has no {path}") from None
    if not (isinstance(found, type) and issubclass(found, Hook)):
        raise _Unusable("is no hook; derive the class from pop3proxy.hooks.api.Hook")
    return found


def _announced(name: str) -> str:
    """Look a short name up among those that installed packages announce."""
    known = {point.name: point.value for point in entry_points(group=GROUP)}
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise _Unusable(
            f'no installed package announces it; write it like "package.module:Class" (announced: {names})'
        )
    return known[name]


def _imported(module: str) -> object:
    try:
        return import_module(module)
    except ModuleNotFoundError as problem:
        raise _Unusable(
            f"there is no module {problem.name}; install it, or mend the name"
        ) from None
    except KeyboardInterrupt:
        raise
    # Importing runs the module, which can fail in any way, by SystemExit too.
    except BaseException as problem:
        raise _Unusable(f"importing {module} fails with {in_one_line(problem)}") from None


def _made(kind: type[Hook], options: dict[str, Any]) -> Hook:
    """Make a hook, and see that all its methods for events are named after one."""
    _check_options(inspect.signature(kind).parameters, options)
    try:
        hook = kind(**options)
        methods_of(hook)
    except UnusableHook as problem:
        raise _Unusable(str(problem)) from None
    except KeyboardInterrupt:
        raise
    # What its author lets the constructor raise.
    except BaseException as problem:
        raise _Unusable(f"its options are refused with {in_one_line(problem)}") from None
    return hook


def _adjusted(hook: Hook, entry: HookEntry) -> Hook:
    """Set what the configuration says about the hook in place of its author."""
    if entry.on_error is not None and not hook.blocking:
        raise _Unusable("only listens, so it can have no on_error; leave that out")
    for name in ("time_limit", "on_error"):
        value = getattr(entry, name)
        if value is None:
            continue
        try:
            setattr(hook, name, value)
        except AttributeError:
            raise _Unusable(f"lets nobody set its {name}; leave that out") from None
    return hook


def _check_options(takes: Mapping[str, Parameter], options: Mapping[str, object]) -> None:
    """Hold options against the constructor's parameters."""
    kinds = {parameter.kind for parameter in takes.values()}
    unknown = [name for name in options if name not in takes]
    missing = [
        name
        for name, parameter in takes.items()
        if name not in options
        and parameter.default is Parameter.empty
        and parameter.kind not in _ANY
    ]
    complaints = [f"option {name} is missing" for name in missing]
    if Parameter.VAR_KEYWORD not in kinds:
        complaints += [f"there is no option {name}" for name in unknown]
    if complaints:
        raise _Unusable(f"{', '.join(complaints)}; it takes {', '.join(takes) or 'none'}")
