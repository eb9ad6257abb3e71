"""The columns of the records as the engine sees them, made from the record schema and never from the data.

A type that is guessed turns users like ``2024-01-01`` into dates, and loses keys that first appear late.
"""

from typing import Any, Final

from ..hooks.logging.schema import schema

_SQL: Final = {"string": "VARCHAR", "boolean": "BOOLEAN", "integer": "BIGINT", "number": "DOUBLE"}
_CONSTANTS: Final = {str: "VARCHAR", bool: "BOOLEAN", int: "BIGINT"}


def _columns() -> dict[str, str]:
    found: dict[str, str] = {}
    for definition in schema()["$defs"].values():
        for name, said in definition["properties"].items():
            kind = _sql_type(said)
            if found.setdefault(name, kind) != kind:
                raise ValueError(f"the records have {name} as {found[name]} and as {kind}")
    return found


def _sql_type(said: dict[str, Any]) -> str:
    """Return the type of a property of the schema: by its type, its constant, or a list of words."""
    if "type" in said:
        return _SQL[said["type"]]
    if "enum" in said:
        return "VARCHAR"
    return _CONSTANTS[type(said["const"])]


COLUMNS: Final = _columns()
"""Each field of the records, with its SQL type."""

WITH_COLUMN: Final = {
    column: tuple(
        sorted(
            event
            for event, definition in schema()["$defs"].items()
            if column in definition["properties"]
        )
    )
    for column in COLUMNS
}
"""Each field, with the events whose records can have it."""

EVENTS: Final = tuple(sorted(schema()["$defs"]))
"""The names of all events."""

FIRST_TIME: Final = 0
LAST_TIME: Final = 253_402_300_799
"""Times that a record can have: 1970 to 9999. Others are no times, and would stop a query."""


def quoted(name: str) -> str:
    """Write the name of a column as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Write text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def listed(texts: "tuple[str, ...] | list[str]") -> str:
    """Write texts as a list of SQL, in parentheses."""
    return f"({', '.join(map(literal, texts))})"
