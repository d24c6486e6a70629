"""Numbered migrations, each applied once, on the embedded engine and on a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sink_rows as rows
from sink_places import Place

from sinks.clickhouse import ClickHouseSink
from sinks.errors import MigrationError, SinkRefused
from sinks.migrations import Migration, migrate, read_migrations


def client_of(sink: ClickHouseSink) -> Any:
    return sink._ask(lambda client: client)


def folder_of(root: Path, **files: str) -> tuple[Migration, ...]:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / f"{name.lstrip('_')}.sql").write_text(text)
    return read_migrations(root)


def test_they_are_applied_in_order_and_once(place: Place) -> None:
    sink = place.sink()
    assert [step.version for step in sink.prepare()] == [step.version for step in read_migrations()]
    assert sink.prepare() == []
    sink.close()
    assert place.sink().prepare() == []
    ledger = client_of(sink).query("SELECT version, name, checksum FROM schema_migrations ORDER BY version").result_rows
    assert ledger == [(step.version, step.name, step.checksum) for step in read_migrations()]


def test_a_new_migration_is_applied_to_rows_that_are_there(place: Place, tmp_path: Path) -> None:
    sink = place.sink()
    sink.prepare()
    sink.write([], [rows.incident()], [])
    sink.flush()
    more = folder_of(
        tmp_path / "more", _001_note="ALTER TABLE incidents ADD COLUMN IF NOT EXISTS note String DEFAULT 'x';\n"
    )
    known = read_migrations()
    added = Migration(len(known) + 1, "note", more[0].checksum, more[0].statements)
    assert migrate(client_of(sink), [*known, added]) == [added]
    assert migrate(client_of(sink), [*known, added]) == []
    assert client_of(sink).query("SELECT note FROM incidents").result_rows == [("x",)]
    # The running version writes on beside a column it does not know.
    sink.write([], [rows.incident(2)], [])
    sink.flush()
    assert sink.counts()["incidents"] == 2


def test_every_statement_bears_being_run_twice(place: Place) -> None:
    """A migration cut in the middle, or started by two workers at once, is simply run again."""
    sink = place.sink()
    sink.prepare()
    sink.write([], [rows.incident()], [])
    sink.flush()
    for step in read_migrations():
        for statement in step.statements:
            client_of(sink).command(statement)
    assert sink.incidents() == [rows.incident()]


def test_a_cut_migration_is_run_again_whole(place: Place, tmp_path: Path) -> None:
    sink = place.sink()
    whole = "CREATE TABLE IF NOT EXISTS a (x UInt8) ENGINE = MergeTree ORDER BY x;\n"
    with pytest.raises(Exception, match="INCORRECT_QUERY"):
        migrate(client_of(sink), folder_of(tmp_path / "cut", _001_a=whole + "CREATE TABLE nonsense;\n"))
    assert client_of(sink).query("SELECT version FROM schema_migrations").result_rows == []
    steps = folder_of(tmp_path / "mended", _001_a=whole + "CREATE VIEW IF NOT EXISTS b AS SELECT x FROM a;\n")
    assert migrate(client_of(sink), steps) == list(steps)


def test_a_changed_migration_is_refused_in_one_line(place: Place) -> None:
    sink = place.sink()
    sink.prepare()
    first, *rest = read_migrations()
    changed = Migration(first.version, first.name, "0" * 64, first.statements)
    with pytest.raises(MigrationError) as caught:
        migrate(client_of(sink), [changed, *rest])
    assert f"migration 001_incidents was changed after it had been applied to database {sink.dsn.database}" in str(
        caught.value
    )
    assert "put the change into a new migration" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SinkRefused)


def test_a_database_newer_than_the_program_is_refused_in_one_line(place: Place) -> None:
    sink = place.sink()
    sink.prepare()
    *older, newest = read_migrations()
    with pytest.raises(MigrationError) as caught:
        migrate(client_of(sink), older)
    assert f"has schema {newest}, this program knows up to {older[-1].version:03d}: upgrade" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_schema_that_is_up_to_date_is_only_read(server: Place) -> None:
    """Somebody else may keep the schema, and the worker's user have no right to change it."""
    server.sink().prepare()
    read_only = ClickHouseSink(server.dsn)
    client_of(read_only).set_client_setting("readonly", 2)
    assert read_only.prepare() == []
    read_only.close()


def test_numbers_run_without_gap_and_names_are_checked(tmp_path: Path) -> None:
    one = "SELECT 1;\n"
    with pytest.raises(MigrationError, match="without gap or double"):
        folder_of(tmp_path / "gap", _001_a=one, _003_b=one)
    with pytest.raises(MigrationError, match="without gap or double"):
        folder_of(tmp_path / "double", _001_a=one, _001_b=one)
    with pytest.raises(MigrationError, match="the installation is incomplete"):
        folder_of(tmp_path / "empty")
    with pytest.raises(MigrationError, match=r"1_a\.sql: a migration is named NNN_name\.sql"):
        folder_of(tmp_path / "name", _1_a=one)


def test_statements_end_at_line_ends_and_comments_are_no_statements(tmp_path: Path) -> None:
    text = "-- a note; with a semicolon\nSELECT ';',\n  2;\n\nSELECT 3; \n-- the end\n"
    (step,) = folder_of(tmp_path, _001_a=text)
    assert [line.split("\n")[-1] for line in step.statements] == ["  2", "SELECT 3"]
    assert folder_of(tmp_path / "crlf", _001_a=text.replace("\n", "\r\n"))[0].checksum == step.checksum
