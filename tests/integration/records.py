"""The file of events as a reader has it: every record checked against the schema, sessions put together."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema.validators import validator_for

from .processes import eventually

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RecordedSession:
    """The records of one uid, in the file's order."""

    records: list[Record]

    @property
    def names(self) -> list[str]:
        return [record["event"] for record in self.records]

    @property
    def end(self) -> Record:
        (end,) = self.of("pop3_session")
        return end

    def of(self, *names: str) -> list[Record]:
        return [record for record in self.records if record["event"] in names]

    def said(self, name: str, *parameters: str) -> list[tuple[Any, ...]]:
        """Some parameters of every event of a name."""
        return [tuple(record[parameter] for parameter in parameters) for record in self.of(name)]


class RecordSchema:
    """The JSON Schema that the proxy prints: one branch an event.

    A record is held against its event's branch alone, since to try all costs ten times as much.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        kind = validator_for(schema)
        kind.check_schema(schema)
        definitions = schema["$defs"]
        branches = {name: {"$ref": f"#/$defs/{name}"} for name in definitions}
        assert list(branches.values()) == schema["oneOf"]
        for name, definition in definitions.items():
            assert definition["properties"]["event"] == {"const": name}
        self._branches = {
            name: kind({"$defs": definitions, **branch}) for name, branch in branches.items()
        }

    def validate(self, record: Record) -> None:
        self._branches[record["event"]].validate(record)


class EventsFile:
    """A file that a proxy appends to; each record is validated before a test sees it."""

    def __init__(self, path: Path, schema: RecordSchema) -> None:
        self.path = path
        self._schema = schema
        self._valid = 0

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def validate(self) -> None:
        """Hold what was written since the last time against the schema."""
        for line in self._whole_lines(self._valid):
            self._schema.validate(json.loads(line))
            self._valid += len(line) + 1

    def records(self, start: int = 0) -> list[Record]:
        """Every record behind an offset."""
        self.validate()
        return [json.loads(line) for line in self._whole_lines(start)]

    def _whole_lines(self, start: int) -> list[bytes]:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read().split(b"\n")[:-1]

    def sessions(self, start: int, count: int) -> list[RecordedSession]:
        """The sessions begun behind an offset, as soon as that many have ended; there must be no others."""
        begun: list[RecordedSession] = []

        def over() -> bool:
            begun[:] = (
                one for one in grouped(self.records(start)) if one.names[0] == "pop3_connect"
            )
            return len(begun) >= count and all(one.names[-1] == "pop3_session" for one in begun)

        eventually(over, f"{count} sessions are in {self.path.name}")
        assert len(begun) == count
        return begun


def grouped(records: list[Record]) -> list[RecordedSession]:
    """Records put together by uid, in the order of the sessions' beginnings."""
    by_uid: dict[str, list[Record]] = {}
    for record in records:
        by_uid.setdefault(record["uid"], []).append(record)
    return [RecordedSession(records) for records in by_uid.values()]


def as_recorded(data: bytes) -> str:
    r"""How bytes are written in a record: as UTF-8, and ``\xNN`` for what is not."""
    return data.decode("utf-8", "backslashreplace")
