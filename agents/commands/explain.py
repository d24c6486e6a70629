"""`citybrain explain`: why a report went where it went, or what an incident consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO
from urllib.parse import quote

import click
import msgspec
from rich.console import Console
from rich.table import Table

from agents.commands.answers import ask_worker, from_option, kind_of, open_sink, plain_console, printable, replay_files
from agents.commands.console import cannot_read, counted, fail, json_option, progress
from sinks.files import ASSIGNMENTS_FILE, INCIDENTS_FILE
from streams.explanation import (
    MAX_LIMIT,
    Explained,
    UnreadableLine,
    distance_text,
    duration_text,
    explain_from_lines,
    explain_from_sink,
    in_words,
    left,
    likelier_text,
    points_text,
    terms_in_words,
)
from streams.messages import Assignment, Incident, Outcome

_LINES_PER_STEP = 10_000


@click.command(
    epilog="""\b
Examples:
  citybrain explain T20260601-0007 --from build/monday
  citybrain explain hotline:T20260601-0007 --from http://localhost:6066
  citybrain explain 990100-refuse-0f3a… --from clickhouse://reader@db:8123/citybrain --json
"""
)
@click.argument("asked", metavar="ID")
@from_option
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, MAX_LIMIT), help="Reports shown, the earliest."
)
@json_option
def explain(asked: str, place: str, limit: int, as_json: bool) -> None:
    """Say why the report ID went to its incident, or what the incident ID consists of.

    ID is an incident's id, a report's id, or source:id where several sources use the same (source is iot, video,
    hotline or patrol).  An id that is not known there exits 1.
    """
    answer = _ask(asked, place, limit)
    if not answer.known:
        fail(f"nothing is known of {printable(asked)!r} in {_shown(place)}: neither an incident nor a report")
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))
    else:
        _show(asked, answer)


# ------------------------------------------------------------------------------------------------------- asking


def _ask(asked: str, place: str, limit: int) -> Explained:
    kind = kind_of(place)
    if kind == "folder":
        return _ask_folder(asked, Path(place), limit)
    if kind == "worker":
        return _ask_worker(asked, place, limit)
    return _ask_clickhouse(asked, place, limit)


def _ask_folder(asked: str, folder: Path, limit: int) -> Explained:
    paths = replay_files(folder, ASSIGNMENTS_FILE, INCIDENTS_FILE)
    reading = paths[0]

    def lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
        nonlocal reading
        reading = path
        while chunk := list(islice(file, _LINES_PER_STEP)):
            yield from chunk
            advance(len(chunk))

    try:
        with ExitStack() as stack:
            assignments, incidents = (stack.enter_context(path.open("rb")) for path in paths)
            advance = stack.enter_context(progress("looking", "lines"))
            return explain_from_lines(asked, lines(assignments, paths[0]), lines(incidents, paths[1]), limit)
    except UnreadableLine as error:
        fail(f"{reading}:{error.line}: {error.problem}; replay the recording again")
    except OSError as error:
        cannot_read(reading, error)


def _ask_clickhouse(asked: str, dsn_text: str, limit: int) -> Explained:
    with open_sink(dsn_text) as sink:
        return explain_from_sink(sink, asked, limit)


def _ask_worker(asked: str, url: str, limit: int) -> Explained:
    # Whatever the id holds, a slash or a question mark, is part of the id.
    page = f"/api/explain/{quote(asked, safe='')}?limit={limit}"
    answer = ask_worker(url, page, Explained, unknown=_is_answer, too_long="ask for less with --limit")
    if len(answer.assignments) > limit:
        answer = Explained(incident=answer.incident, assignments=answer.assignments[:limit], truncated=True)
    return answer


def _is_answer(body: bytes) -> bool:
    """Whether a 404 is the worker's word for an unknown id, and not a server's for an unknown page."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return isinstance(said, dict) and {"incident", "assignments"} <= said.keys()


def _shown(place: str) -> str:
    """The place without a password."""
    if place.startswith(("clickhouse://", "chdb://")):
        from sinks.clickhouse_dsn import Dsn

        return str(Dsn.parse(place))
    return place


# ------------------------------------------------------------------------------------------------------ showing


def _show(asked: str, answer: Explained) -> None:
    with plain_console() as console:
        _show_on(console, asked, answer)


def _show_on(console: Console, asked: str, answer: Explained) -> None:
    if answer.incident is not None and answer.incident.incident_id == asked:
        _show_incident(console, answer.incident, answer)
        return
    for number, assignment in enumerate(answer.assignments):
        if number:
            console.print()
        is_taken_back = any(
            other.origin == assignment.origin and other.revision > assignment.revision for other in answer.assignments
        )
        _show_report(console, assignment, answer.incident, is_taken_back=is_taken_back)
    if answer.truncated:
        console.print("\nThere are more reports of that id; see them with --limit, or name the source: source:id")


def _show_report(console: Console, assignment: Assignment, incident: Incident | None, *, is_taken_back: bool) -> None:
    why = assignment.why
    console.print(printable(f"{assignment.source}:{assignment.report_id} {in_words(assignment)}."), soft_wrap=True)
    rows = [("reported", f"{_time(assignment.event_time)}, category {assignment.category}")]
    if incident is not None:
        rows.append(("incident", f"{incident.category_name}, {incident.status}, {_counts(incident)}"))
        rows.append(("where", _where(incident)))
    if assignment.distance_m is not None:
        rows.append(("distance", distance_text(assignment.distance_m) + _allowed(distance_text, why.radius_m)))
    if assignment.gap_s is not None:
        rows.append(("time gap", duration_text(assignment.gap_s) + _allowed(duration_text, why.window_s)))
    if assignment.score is not None:
        whatever = "; of what is near the best is joined, whatever its score" if assignment.score < 0 else ""
        rows.append(("score", f"{points_text(assignment.score)} points{whatever}"))
    if why.runner_up is not None:
        runner_up = why.runner_up
        away = "" if runner_up.distance_m is None else f"{distance_text(runner_up.distance_m)}, "
        name = "had joined" if left(assignment) is not None else "runner-up"
        rows.append((name, f"{runner_up.incident_id}, {away}{points_text(runner_up.score)} points"))
    elif assignment.score is not None:
        rows.append(("runner-up", "no other incident was near"))
    correction = f", correction {assignment.revision}" if assignment.revision else ""
    rows.append(("record", assignment.origin + correction + (", taken back later, see below" * is_taken_back)))
    console.print(_two_columns(rows))
    if why.terms and assignment.score is not None:
        console.print()
        console.print(_terms_table(assignment, assignment.score))


def _terms_table(assignment: Assignment, score: int) -> Table:
    """What speaks for a report and its incident being one event, and what against it."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
    table.add_column("what speaks for it", overflow="fold")
    table.add_column("points", justify="right", no_wrap=True)
    table.add_column("one event is", no_wrap=True)
    for about, points, likelier in terms_in_words(assignment):
        table.add_row(printable(about), points_text(points), likelier)
    table.add_row("together", points_text(score), likelier_text(score), style="bold")
    return table


def _show_incident(console: Console, incident: Incident, answer: Explained) -> None:
    console.print(printable(f"incident {incident.incident_id} is {incident.status}."), soft_wrap=True)
    rows = [
        ("what", f"{incident.category_name} ({incident.category}), priority {incident.priority}"),
        ("department", incident.department or "–"),
        ("where", _where(incident)),
        ("opened", _time(incident.opened_at)),
        ("last report", _time(incident.last_report_at)),
        ("reports", _counts(incident)),
    ]
    for name, value in (
        ("closed", incident.closed_at and _time(incident.closed_at)),
        ("due", incident.sla_due_at and _time(incident.sla_due_at)),
        ("merged into", incident.merged_into),
        ("recurrence of", incident.recurrence_of),
    ):
        if value:
            rows.append((name, value))
    rows.append(("version", f"{incident.version}, city pack {incident.pack_version}"))
    console.print(_two_columns(rows))
    console.print()
    console.print(_reports_table(answer.assignments, incident.incident_id))
    if answer.truncated:
        told = incident.report_count + incident.repeat_count
        console.print(f"The earliest {len(answer.assignments)} of {told}; see more with --limit")


_BECAME: dict[str, str] = {
    Outcome.OPENED: "founded it",
    Outcome.JOINED: "joined",
    Outcome.REPEAT: "same id again",
    Outcome.AMENDED: "amended",
    Outcome.REOPENED: "reopened it",
}


def _reports_table(assignments: list[Assignment], incident_id: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("time", "report", "became"):
        table.add_column(name, overflow="fold")
    for name in ("distance", "time gap", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    for assignment in assignments:
        became = _BECAME.get(assignment.outcome)
        if assignment.outcome == Outcome.LATE:
            became = "came late, joined" if assignment.why.found else "came late, founded it"
        if assignment.revision:
            became = "came over to it" if assignment.incident_id == incident_id else "left for another"
        table.add_row(
            _time(assignment.event_time),
            printable(f"{assignment.source}:{assignment.report_id}"),
            became or printable(assignment.outcome),
            "" if assignment.distance_m is None else distance_text(assignment.distance_m),
            "" if assignment.gap_s is None else duration_text(assignment.gap_s),
            "" if assignment.score is None else points_text(assignment.score),
        )
    return table


def _two_columns(rows: list[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, printable(value))
    return table


def _allowed(text: Callable[[float], str], most: float | None) -> str:
    return "" if most is None else f" ({text(most)} allowed)"


def _counts(incident: Incident) -> str:
    by_source = ", ".join(f"{source} {count}" for source, count in sorted(incident.sources.items()))
    repeats = f", {counted(incident.repeat_count, 'repeat')}" if incident.repeat_count else ""
    told = f"{counted(incident.report_count, 'report')} ({by_source}){repeats}"
    if incident.witness_count is not None:
        told += f", {incident.witness_count:,} {'witness' if incident.witness_count == 1 else 'witnesses'}"
    return told if incident.confidence is None else f"{told}, confidence {incident.confidence:.3g}"


def _where(incident: Incident) -> str:
    codes = (incident.grid_code, incident.community_code, incident.street_code, incident.county_code)
    code = next((code for code in codes if code), None)
    if incident.lon is None or incident.lat is None:
        return "no position; a person must place it"
    return f"{incident.lon:.6f}, {incident.lat:.6f}" + (f", cell {code}" if code else "")


def _time(text: str) -> str:
    """RFC 3339 UTC as people read it; other text as it is."""
    return text[:19].replace("T", " ") + " UTC" if text.endswith("Z") else text
