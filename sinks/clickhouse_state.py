"""What stands between a worker and its ClickHouse, asked without leaving anything there: for `citybrain doctor`."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from sinks.clickhouse import COLUMNS_OF_TABLE, database_exists, explained, open_client
from sinks.clickhouse_dsn import Dsn
from sinks.errors import MigrationError, SinkError
from sinks.migrations import pending_migrations


@dataclass(frozen=True, slots=True)
class ClickHouseState:
    """A ClickHouse that answers.

    Attributes
    ----------
    version : str
        The server's.
    ahead_s : float
        Its clock minus this machine's, seconds; off by at most ``within_s``, half the time the answer took.
    has_database : bool
        Whether the address's database is there; what follows is empty if not.
    pending : tuple of str
        Names of migrations that are not applied.
    schema_fault : str or None
        Why the schema there and this program's migrations cannot be brought together.
    unwritable : tuple of str
        Why rows cannot be written, for each table they cannot be written to.
    """

    version: str
    ahead_s: float
    within_s: float
    has_database: bool
    pending: tuple[str, ...] = ()
    schema_fault: str | None = None
    unwritable: tuple[str, ...] = ()


def read_clickhouse_state(dsn: Dsn, now_s: Callable[[], float] = time.time) -> ClickHouseState:
    """Ask ClickHouse how it is; ``now_s`` is this machine's clock, Unix seconds.

    An embedded engine's folder must be there: opening it would make it.

    Raises
    ------
    SinkUnavailable, SinkRefused
        It cannot be asked.
    """
    try:
        with closing(open_client(dsn)) as client:
            return _read(client, dsn, now_s)
    except (ClickHouseError, OSError) as error:
        raise explained(dsn, error) from error


def _read(client: Any, dsn: Dsn, now_s: Callable[[], float]) -> ClickHouseState:
    before_s = now_s()
    there_ms = int(client.command("SELECT toUnixTimestamp64Milli(now64(3))", use_database=False))
    after_s = now_s()
    ahead_s, within_s = there_ms / 1000 - (before_s + after_s) / 2, abs(after_s - before_s) / 2
    version = str(client.server_version)
    if not database_exists(client, dsn.database):
        return ClickHouseState(version, ahead_s, within_s, has_database=False)
    client.database = dsn.database
    pending: tuple[str, ...] = ()
    schema_fault = None
    try:
        pending = tuple(str(step) for step in pending_migrations(client))
    except MigrationError as error:
        schema_fault = str(error)
    lacking = [_why_unwritable(client, dsn, table) for table in COLUMNS_OF_TABLE if _exists(client, table)]
    unwritable = tuple(str(reason) for reason in lacking if reason is not None)
    return ClickHouseState(version, ahead_s, within_s, True, pending, schema_fault, unwritable)


def _exists(client: Any, table: str) -> bool:
    return bool(int(client.command(f"EXISTS TABLE {table}")))


def _why_unwritable(client: Any, dsn: Dsn, table: str) -> SinkError | None:
    """None if the user may read and write the table."""
    try:
        # Passes all that an insert must pass, grants and read-only servers included, and inserts no row.
        client.command(f"INSERT INTO {table} SELECT * FROM {table} WHERE 0")
    except ClickHouseError as error:
        return explained(dsn, error)
    return None
