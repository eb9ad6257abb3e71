"""Bans, counts, decisions and explanations as lines for people to read."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any


def written(lines: Iterator[str]) -> str:
    """Return lines that steer no terminal: users' names come from peers."""
    return "\n".join(
        "".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines
    )


def ban_in_words(ban: dict[str, Any]) -> Iterator[str]:
    """Yield a ban, and its evidence."""
    state = "until" if ban["in_force"] else "was until"
    times = f"times {ban['times']}" if ban["times"] else "removed"
    yield (
        f"{ban['key']}  {ban['rule']}  since {_time(ban['since'])}"
        f"  {state} {_time(ban['until'])}  {times}"
    )
    for line in ban["evidence"]:
        yield f"    {line}"


def denied_in_words(found: dict[str, Any]) -> Iterator[str]:
    """Yield all that is refused now, and what is allowed."""
    for ban in found["bans"]:
        spared = ", but allowed" if ban["allowed"] else ""
        yield f"{ban['key']}  banned by {ban['rule']}  until {_time(ban['until'])}{spared}"
    for count in found["denied"]:
        yield f"{_refusing(count)}: {_counted(count)}"
    for allowance in found["allowed"]:
        yield _allowed(allowance)
    yield from _left_out(found)


def why_in_words(why: dict[str, Any]) -> Iterator[str]:
    """Yield all that is known of what was asked about."""
    yield ", ".join(why["about"])
    if why["allowed"]:
        yield f"  {_allowed(why['allowed'])}: nothing is refused, and nothing counted"
    yield from _under("bans", (line for ban in why["bans"] for line in ban_in_words(ban)))
    refusing = [count for count in why["counts"] if count["refuses"]]
    yield from _under("refused", (f"{_refusing(each)}: {_counted(each)}" for each in refusing))
    yield from _under("to be let in", iter(dict.fromkeys(why["lets_in"])))
    others = (each for each in why["counts"] if not each["refuses"])
    yield from _under(
        "counted", (f"{each['key']}  {_named(each)}: {_counted(each)}" for each in others)
    )
    flying = (
        f"{each['key']}: {each['flying']} wait for the mail server's answer, {each['held']} are held"
        for each in why["in_flight"]
    )
    yield from _under("in flight", flying)
    yield from _under(
        "in grace",
        (f"{each['key']} until {_time(each['until'])}: not refused" for each in why["graces"]),
    )
    yield from _under("welcome, as there was a login before", iter(why["welcome"]))
    yield from _under("last decisions", map(_decision, why["decisions"]))
    yield from _left_out(why)
    if not any(ban["in_force"] for ban in why["bans"]) and not refusing:
        yield "  nothing is refused now"


def _under(head: str, lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        if not number:
            yield f"  {head}:"
        yield f"    {line}"


def _refusing(count: dict[str, Any]) -> str:
    but = f" but one each {count['trickle']:g} s" if count.get("trickle") else ""
    refuses = f"{count['rule']} refuses {count['refuses']}{but}"
    return f"{count['key']}  {refuses} until {_time(count['until'])}"


def _named(count: dict[str, Any]) -> str:
    return f"{count['rule']} ({count['action']}{', dry run' if count['dry_run'] else ''})"


def _counted(count: dict[str, Any]) -> str:
    return ", ".join(
        f"{window['count']} of {window['limit']} {count['counted']} in {window['seconds']:g} s"
        for window in count["windows"]
    )


def _allowed(allowance: dict[str, Any]) -> str:
    if "until" not in allowance:
        return f"{allowance['key']} is allowed by {allowance['by']}"
    reason = f": {allowance['reason']}" if allowance["reason"] else ""
    return f"{allowance['key']}  allowed until {_time(allowance['until'])} by {allowance['by']}{reason}"


def _decision(decided: dict[str, Any]) -> str:
    """Write a decision with its evidence."""
    if decided["by"]:
        evidence = f"by {decided['by']}: {decided['reason'] or 'no reason given'}"
    elif decided["action"] == "banned":
        evidence = f"its ban number {decided['count']}; session {decided['session']}"
    else:
        evidence = (
            f"{decided['count']} of {decided['limit']} {decided['counted']}"
            f" in {decided['window']:g} s; session {decided['session']}"
        )
    word = "each" if decided["action"] == "log" else "for"
    lasting = f" {word} {decided['seconds']:g} s" if decided["seconds"] else ""
    action = f"{decided['action']}{lasting}{' (dry run)' if decided['dry_run'] else ''}"
    return f"{_time(decided['at'])} {action} by {decided['rule']}: {decided['key']} {evidence}"


def _left_out(found: dict[str, Any]) -> Iterator[str]:
    if found["left_out"]:
        yield f"and {found['left_out']} more"


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g}"
