"""The ClickHouse schema as numbered SQL files, applied in order, each once.

``sinks/migrations/NNN_name.sql`` holds statements that end with ``;`` at the end of a line.  ClickHouse has neither
transactions over DDL nor locks, so every statement must bear being run twice (``IF NOT EXISTS``): a migration that
was cut in the middle, or that two workers started at once, is simply run again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sinks.errors import MigrationError

FOLDER = Path(__file__).with_name("migrations")

_FILE_NAME = re.compile(r"(\d{3})_([a-z0-9_]+)\.sql")
_STATEMENT_END = re.compile(r";[ \t]*$", re.MULTILINE)

_CREATE_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    version UInt32,
    name String,
    checksum String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY version
"""


@dataclass(frozen=True)
class Migration:
    """One numbered step: its statements in order, and the SHA-256 of its text."""

    version: int
    name: str
    checksum: str
    statements: tuple[str, ...]

    def __str__(self) -> str:
        """Give the file's name without its ending."""
        return f"{self.version:03d}_{self.name}"


@cache
def read_migrations(folder: Path = FOLDER) -> tuple[Migration, ...]:
    """Every migration of a folder, by number.

    Raises
    ------
    MigrationError
        A file that is not named NNN_name.sql, numbers that do not run 1, 2, 3 …, or no file at all.
    """
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path}: a migration is named NNN_name.sql, for example 004_views.sql")
        text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        statements = tuple(part.strip() for part in _STATEMENT_END.split(text) if _without_comments(part))
        checksum = hashlib.sha256(text.encode()).hexdigest()
        found.append(Migration(int(match[1]), match[2], checksum, statements))
    if not found:
        raise MigrationError(f"{folder}: no migrations there: the installation is incomplete, install it again")
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"{folder}: the numbers of migrations must run 001, 002, 003 … without gap or double")
    return tuple(found)


def _without_comments(statement: str) -> str:
    return re.sub(r"--[^\n]*", "", statement).strip()


def migrate(client: Any, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """Bring the client's current database up to date; return what was applied now, in order.

    Nothing is created or written when all is applied already, so a worker without rights to change the schema can
    start on a schema that somebody else keeps.

    Parameters
    ----------
    client
        A clickhouse-connect client whose database exists.
    migrations
        Steps in order; the package's own by default.

    Raises
    ------
    MigrationError
        The database is newer than this program, or an applied migration has another checksum here.
    """
    pending = pending_migrations(client, migrations)
    if pending and not _has_ledger(client):
        client.command(_CREATE_LEDGER)
    for step in pending:
        for statement in step.statements:
            client.command(statement)
        client.insert(
            "schema_migrations",
            [[step.version], [step.name], [step.checksum]],
            column_names=["version", "name", "checksum"],
            column_type_names=["UInt32", "String", "String"],
            column_oriented=True,
        )
    return pending


def pending_migrations(client: Any, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """The steps that the client's database lacks, in order; nothing is changed.

    Raises
    ------
    MigrationError
        As :func:`migrate`.
    """
    steps = read_migrations() if migrations is None else migrations
    applied = {}
    if _has_ledger(client):
        rows = client.query("SELECT version, name, checksum FROM schema_migrations FINAL ORDER BY version").result_rows
        applied = {version: (name, checksum) for version, name, checksum in rows}
    _check(applied, steps, str(client.database))
    return [step for step in steps if step.version not in applied]


def _has_ledger(client: Any) -> bool:
    return bool(int(client.command("EXISTS TABLE schema_migrations")))


def _check(applied: dict[int, tuple[str, str]], steps: Sequence[Migration], database: str) -> None:
    newest_known = max((step.version for step in steps), default=0)
    newest_applied = max(applied, default=0)
    if newest_applied > newest_known:
        raise MigrationError(
            f"database {database} has schema {newest_applied:03d}_{applied[newest_applied][0]}, this program "
            f"knows up to {newest_known:03d}: upgrade city-brain-streams, or use another database"
        )
    for step in steps:
        if step.version in applied and applied[step.version][1] != step.checksum:
            raise MigrationError(
                f"migration {step} was changed after it had been applied to database {database} (checksum "
                f"{applied[step.version][1][:12]} there, {step.checksum[:12]} here): restore the file and put the "
                "change into a new migration"
            )
