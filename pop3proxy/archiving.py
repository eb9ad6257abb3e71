"""The command `pop3proxy archive`: how old files must be to be archived, and how long days are kept."""

from datetime import UTC, datetime
from pathlib import Path

import click

from .ask import complain
from .reports.archive import Archive
from .reports.database import DEFAULT_MEMORY, Database, memory
from .reports.moments import span
from .reports.problems import ReportError, Unanswerable


def add_archive(commands: click.Group) -> None:
    """Add the command to those of the program."""
    commands.add_command(archive)


@click.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--older-than", metavar="TIME", required=True, help="All records must be older, such as 7d."
)
@click.option("--keep", metavar="TIME", help="Remove archived days that are older, such as 365d.")
@click.option("--memory", "most", metavar="SIZE", default=DEFAULT_MEMORY, show_default=True)
def archive(folder: str, older_than: str, keep: str | None, most: str) -> int:
    """Move the old files of events in a folder to Parquet, one file a day.

    An original is removed after its days were read back and compared. Exits with 1 if a file had to be kept
    that should have been archived.
    """
    try:
        age, kept = span(older_than), None if keep is None else span(keep)
        if kept is not None and kept <= age:
            raise Unanswerable(f"--keep {keep} is not longer than --older-than {older_than}")
        with Database(memory(most)) as database:
            found = Archive(Path(folder), database, datetime.now(UTC), click.echo)
            found.run(age, kept)
    except ReportError as problem:
        return complain(problem)
    outcome = found.outcome
    click.echo(
        f"files archived {outcome.archived}, records {outcome.records}, files kept {outcome.kept},"
        f" days removed {outcome.removed}"
    )
    return 1 if outcome.kept else 0
