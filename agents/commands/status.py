"""`citybrain status`: what is in work, what was collapsed, how long it took, how new it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table

from agents.commands.answers import ask_worker, from_option, kind_of, open_sink, plain_console, printable, replay_files
from agents.commands.console import cannot_read, fail, json_option
from sinks.files import ASSIGNMENTS_FILE, DEAD_LETTERS_FILE, INCIDENTS_FILE
from streams.figures import Figures, figures_of
from streams.messages import Assignment, DeadLetterRecord, Incident

T = TypeVar("T")


@click.command(
    epilog="""\b
Examples:
  citybrain status --from build/monday
  citybrain status --from http://localhost:6066
  citybrain status --from clickhouse://reader@db:8123/citybrain --json
"""
)
@from_option
@click.option(
    "--rows",
    default=10,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Rows shown of each table, the largest.",
)
@json_option
def status(place: str, rows: int, as_json: bool) -> None:
    """Say how the city stands: incidents in work, raw and merged counts, time to close, dead letters, freshness.

    In work is what is neither suspected nor closed nor rejected.  Merging changes what is reported and what is
    accepted, so reports and incidents always stand side by side.  --json has every row.
    """
    kind = kind_of(place)
    if kind == "folder":
        figures = _from_folder(Path(place))
    elif kind == "worker":
        figures = ask_worker(place, "/api/status", Figures)
    else:
        with open_sink(place) as sink:
            figures = sink.figures()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(figures), indent=2))
        return
    with plain_console() as console:
        _show(console, figures, rows)


def _from_folder(folder: Path) -> Figures:
    incidents, assignments, dead_letters = replay_files(folder, INCIDENTS_FILE, ASSIGNMENTS_FILE, DEAD_LETTERS_FILE)
    return figures_of(
        _lines(incidents, Incident), _lines(assignments, Assignment), _lines(dead_letters, DeadLetterRecord)
    )


def _lines(path: Path, kind: type[T]) -> Iterator[T]:
    decoder = msgspec.json.Decoder(kind)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield decoder.decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    fail(f"{path}:{number}: {error}; replay the recording again")
    except OSError as error:
        cannot_read(path, error)


# ------------------------------------------------------------------------------------------------------ showing


def _show(console: Console, figures: Figures, rows: int) -> None:
    by_source: defaultdict[str, list[int]] = defaultdict(lambda: [0] * 7)
    for hour in figures.reports_by_hour:
        for at, count in enumerate(
            (hour.reports, hour.incidents, hour.collapsed, hour.corrected, hour.repeats, hour.amended, hour.not_events)
        ):
            by_source[hour.source][at] += count
    total = [sum(counts) for counts in zip(*by_source.values(), strict=True)] or [0] * 7
    _table(
        console,
        "Reports, raw and merged",
        ("source", "reports", "incidents founded", "collapsed", "corrected", "repeats", "amended", "no event"),
        [[source, *counts] for source, counts in [*sorted(by_source.items()), ("all", total)]],
        len(by_source) + 1,
    )
    departments: defaultdict[str, list[int]] = defaultdict(lambda: [0] * 5)
    for one in figures.open_by_category:
        for at, count in enumerate((one.open, one.accepted, one.dispatched, one.disposed, one.incidents)):
            departments[one.department][at] += count
    steps = ("open", "accepted", "dispatched", "disposed", "in work")
    _table(
        console,
        "In work by department",
        ("department", *steps),
        sorted(([name or "–", *counts] for name, counts in departments.items()), key=lambda row: -int(row[-1])),
        rows,
    )
    _table(
        console,
        "In work by category",
        ("category", "name", "in work", "oldest"),
        sorted(
            ([one.category, one.category_name, one.incidents, _time(one.oldest_opened_at)]
             for one in figures.open_by_category),
            key=lambda row: -int(row[2]),
        ),
        rows,
    )  # fmt: skip
    _table(
        console,
        "Suspected by category",
        ("category", "name", "suspected", "oldest"),
        sorted(
            ([one.category, one.category_name, one.incidents, _time(one.oldest_opened_at)]
             for one in figures.suspected_by_category),
            key=lambda row: -int(row[2]),
        ),
        rows,
    )  # fmt: skip
    _table(
        console,
        "In work by level",
        ("level", "code", "in work", "priority 1", "oldest"),
        sorted(
            ([one.level, one.code or "not placed", one.incidents, one.urgent, _time(one.oldest_opened_at)]
             for one in figures.open_by_level),
            key=lambda row: (_LEVELS.index(str(row[0])), -int(row[2])),
        ),
        rows,
    )  # fmt: skip
    _table(
        console,
        "Busiest cells",
        ("cell", "in work", "priority 1", "oldest"),
        sorted(
            ([one.grid_code, one.incidents, one.urgent, _time(one.oldest_opened_at)] for one in figures.open_by_cell),
            key=lambda row: -int(row[1]),
        ),
        rows,
    )
    _table(
        console,
        "Time to close",
        ("category", "name", "closed", "median", "90 % within"),
        sorted(
            ([one.category, one.category_name, one.closed, _duration(one.median_s), _duration(one.p90_s)]
             for one in figures.time_to_close),
            key=lambda row: -int(row[2]),
        ),
        rows,
    )  # fmt: skip
    _table(
        console,
        "Came again after an end",
        ("category", "reopened", "recurred"),
        sorted(([one.category, one.reopened, one.recurred] for one in figures.came_again), key=_last_two),
        rows,
    )
    _table(
        console,
        "Dead letters",
        ("source", "reason", "count", "newest"),
        sorted(
            ([one.source, one.reason, one.dead_letters, _time(one.newest_ingested_at)]
             for one in figures.dead_letters_by_reason),
            key=lambda row: -int(row[2]),
        ),
        rows,
    )  # fmt: skip
    _table(
        console,
        "Freshness",
        ("of", "newest", "rows"),
        [[one.of, _time(one.newest) if one.rows else "–", one.rows] for one in figures.freshness],
        rows,
    )


_LEVELS = ("city", "county", "street", "community")


def _last_two(row: Sequence[str | int]) -> int:
    return -int(row[1]) - int(row[2])


def _table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str | int]], most: int
) -> None:
    if not rows:
        console.print(f"{title}: none\n")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title, title_justify="left")
    for at, column in enumerate(columns):
        is_number = isinstance(rows[0][at], int)
        table.add_column(column, justify="right" if is_number else "left", no_wrap=True, style=None if at else "bold")
    for row in rows[:most]:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else printable(cell) for cell in row))
    console.print(table)
    console.print(f"… and {len(rows) - most:,} more\n" if len(rows) > most else "")


def _time(text: str) -> str:
    return text[:19].replace("T", " ")


def _duration(seconds: int) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours // 24} d {hours % 24} h" if hours >= 48 else f"{hours} h {minutes:02} min"
