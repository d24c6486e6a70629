"""`citybrain explain`: why a report went where it went, or what an incident consists of."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO
from urllib.parse import SplitResult, quote, urlsplit

import click
import msgspec
from rich.console import Console
from rich.table import Table

from agents.commands.console import cannot_read, counted, fail, json_option, progress
from sinks.errors import DsnError, SinkError
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
)
from streams.messages import Assignment, Incident, Outcome

_TIMEOUT_S = 10.0
_MAX_ANSWER_BYTES = 64 << 20
_LINES_PER_STEP = 10_000
_WIDTH_IN_A_PIPE = 200
_MADE_BY_THE_ENGINE = "metadata"


@click.command(
    epilog="""\b
Examples:
  citybrain explain T20260601-0007 --from build/monday
  citybrain explain hotline:T20260601-0007 --from http://localhost:6066
  citybrain explain 990100-refuse-0f3a… --from clickhouse://reader@db:8123/citybrain --json
"""
)
@click.argument("asked", metavar="ID")
@click.option(
    "--from",
    "place",
    required=True,
    metavar="DIR|DSN|URL",
    help="A replay's folder, ClickHouse (clickhouse://… or chdb:///…), or a running worker (http://host:port).",
)
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
        fail(f"nothing is known of {_printable(asked)!r} in {_shown(place)}: neither an incident nor a report")
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))
    else:
        _show(asked, answer)


# ------------------------------------------------------------------------------------------------------- asking


def _ask(asked: str, place: str, limit: int) -> Explained:
    scheme, separator, _ = place.partition("://")
    if not separator:
        return _ask_folder(asked, Path(place), limit)
    if scheme in ("http", "https"):
        return _ask_worker(asked, place, limit)
    if scheme in ("chdb", "clickhouse"):
        return _ask_clickhouse(asked, place, limit)
    raise click.BadParameter(
        f"{scheme}:// is neither a folder, nor clickhouse://, chdb:///, http:// or https://", param_hint="'--from'"
    )


def _ask_folder(asked: str, folder: Path, limit: int) -> Explained:
    paths = [folder / ASSIGNMENTS_FILE, folder / INCIDENTS_FILE]
    if not folder.is_dir():
        fail(f"there is no folder {folder}; name the --out folder of `citybrain replay`")
    for path in paths:
        if not path.is_file():
            unfinished = path.with_name(path.name + ".part").is_file()
            why = "its replay has not finished" if unfinished else "it is not the --out folder of a `citybrain replay`"
            fail(f"there is no {path.name} in {folder}: {why}")
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
    # Imported here: the driver takes a second, and a folder or a worker needs none of it.
    from sinks.clickhouse import ClickHouseSink
    from sinks.clickhouse_dsn import Dsn

    try:
        dsn = Dsn.parse(dsn_text)
    except DsnError as error:
        raise click.BadParameter(str(error), param_hint="'--from'") from error
    # The engine would make the folder, and an empty database in it: a question must leave nothing behind.
    if dsn.embedded and not (Path(dsn.path) / _MADE_BY_THE_ENGINE).is_dir():
        fail(f"there is no embedded ClickHouse in {dsn.path}; name the folder that the worker writes to")
    sink = ClickHouseSink(dsn)
    try:
        return explain_from_sink(sink, asked, limit)
    except SinkError as error:
        fail(str(error))
    finally:
        sink.close()


def _ask_worker(asked: str, url: str, limit: int) -> Explained:
    parts = urlsplit(url)
    if not parts.hostname or "@" in parts.netloc or not _has_port(parts):
        raise click.BadParameter("a worker's address looks like http://host:6066", param_hint="'--from'")
    # Whatever the id holds, a slash or a question mark, is part of the id.
    address = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/api/explain/{quote(asked, safe='')}"
    request = urllib.request.Request(f"{address}?limit={limit}", headers={"Accept": "application/json"})
    handlers = [urllib.request.ProxyHandler({})] if parts.hostname in ("localhost", "127.0.0.1", "::1") else []
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S) as response:
            body = response.read(_MAX_ANSWER_BYTES + 1)
    except urllib.error.HTTPError as error:
        with error:
            body = error.read(_MAX_ANSWER_BYTES + 1)
        if error.code != 404 or not _is_answer(body):
            fail(f"{url} answers {error.code} {error.reason}: {_told(body) or _is_it_a_worker(error.code)}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        # urllib wraps what happened in a URLError.
        reason = getattr(error, "reason", error)
        said = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
        fail(f"cannot reach a worker at {url}: {said.lower() or 'no answer'}; is it running there?")
    if len(body) > _MAX_ANSWER_BYTES:
        fail(f"{url} answers with more than {_MAX_ANSWER_BYTES >> 20} MB; ask for less with --limit")
    try:
        answer = msgspec.json.decode(body, type=Explained)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        fail(f"{url} does not answer as a worker does; is it the address of `citybrain worker`?")
    if len(answer.assignments) > limit:
        answer = Explained(incident=answer.incident, assignments=answer.assignments[:limit], truncated=True)
    return answer


def _has_port(parts: SplitResult) -> bool:
    """Whether its port, if it names one, is a number."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _is_answer(body: bytes) -> bool:
    """Whether a 404 is the worker's word for an unknown id, and not a server's for an unknown page."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return isinstance(said, dict) and {"incident", "assignments"} <= said.keys()


def _told(body: bytes) -> str | None:
    """What a worker that cannot answer says of it."""
    try:
        said = msgspec.json.decode(body, type=dict[str, str]).get("error")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return None if said is None else _printable(said)


def _is_it_a_worker(status: int) -> str:
    if status == 503:
        return "it cannot answer now; ask again when its /readyz says ready"
    return "is it the address of `citybrain worker`?" if status < 500 else "look into the worker's log"


def _shown(place: str) -> str:
    """The place without a password."""
    if place.startswith(("clickhouse://", "chdb://")):
        from sinks.clickhouse_dsn import Dsn

        return str(Dsn.parse(place))
    return place


# ------------------------------------------------------------------------------------------------------ showing


def _show(asked: str, answer: Explained) -> None:
    # A pipe has no width; the default of 80 would fold ids.
    width = None if Console().is_terminal else _WIDTH_IN_A_PIPE
    console = Console(markup=False, emoji=False, highlight=False, width=width)
    with console.capture() as captured:
        _show_on(console, asked, answer)
    # Tables pad their last column.
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _show_on(console: Console, asked: str, answer: Explained) -> None:
    if answer.incident is not None and answer.incident.incident_id == asked:
        _show_incident(console, answer.incident, answer)
        return
    for number, assignment in enumerate(answer.assignments):
        if number:
            console.print()
        _show_report(console, assignment, answer.incident)
    if answer.truncated:
        console.print("\nThere are more reports of that id; see them with --limit, or name the source: source:id")


def _show_report(console: Console, assignment: Assignment, incident: Incident | None) -> None:
    why = assignment.why
    console.print(_printable(f"{assignment.source}:{assignment.report_id} {in_words(assignment)}."), soft_wrap=True)
    rows = [("reported", f"{_time(assignment.event_time)}, category {assignment.category}")]
    if incident is not None:
        rows.append(("incident", f"{incident.category_name}, {incident.status}, {_counts(incident)}"))
        rows.append(("where", _where(incident)))
    if assignment.distance_m is not None:
        rows.append(("distance", distance_text(assignment.distance_m) + _allowed(distance_text, why.radius_m)))
    if assignment.gap_s is not None:
        rows.append(("time gap", duration_text(assignment.gap_s) + _allowed(duration_text, why.window_s)))
    if assignment.score is not None:
        rows.append(("score", f"{assignment.score} of 1000 (1000 at the founding report, 0 at the edge)"))
        second = "no other incident was within reach"
        if why.runner_up is not None:
            runner_up = why.runner_up
            second = f"{runner_up.incident_id}, {distance_text(runner_up.distance_m)}, score {runner_up.score}"
        rows.append(("runner-up", second))
    correction = f", correction {assignment.revision}" if assignment.revision else ""
    rows.append(("record", assignment.origin + correction))
    console.print(_two_columns(rows))


def _show_incident(console: Console, incident: Incident, answer: Explained) -> None:
    console.print(_printable(f"incident {incident.incident_id} is {incident.status}."), soft_wrap=True)
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
    console.print(_reports_table(answer.assignments))
    if answer.truncated:
        told = incident.report_count + incident.repeat_count
        console.print(f"The earliest {len(answer.assignments)} of {told}; see more with --limit")


_BECAME: dict[str, str] = {
    Outcome.OPENED: "founded it",
    Outcome.JOINED: "joined",
    Outcome.REPEAT: "same id again",
    Outcome.REOPENED: "reopened it",
}


def _reports_table(assignments: list[Assignment]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("time", "report", "became"):
        table.add_column(name, overflow="fold")
    for name in ("distance", "time gap", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    for assignment in assignments:
        became = _BECAME.get(assignment.outcome)
        if assignment.outcome == Outcome.LATE:
            became = "came late, joined" if assignment.why.found else "came late, founded it"
        table.add_row(
            _time(assignment.event_time),
            _printable(f"{assignment.source}:{assignment.report_id}"),
            became or _printable(assignment.outcome),
            "" if assignment.distance_m is None else distance_text(assignment.distance_m),
            "" if assignment.gap_s is None else duration_text(assignment.gap_s),
            "" if assignment.score is None else str(assignment.score),
        )
    return table


def _two_columns(rows: list[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, _printable(value))
    return table


def _allowed(text: Callable[[float], str], most: float | None) -> str:
    return "" if most is None else f" ({text(most)} allowed)"


def _counts(incident: Incident) -> str:
    by_source = ", ".join(f"{source} {count}" for source, count in sorted(incident.sources.items()))
    repeats = f", {counted(incident.repeat_count, 'repeat')}" if incident.repeat_count else ""
    return f"{counted(incident.report_count, 'report')} ({by_source}){repeats}"


def _where(incident: Incident) -> str:
    codes = (incident.grid_code, incident.community_code, incident.street_code, incident.county_code)
    code = next((code for code in codes if code), None)
    if incident.lon is None or incident.lat is None:
        return "no position; a person must place it"
    return f"{incident.lon:.6f}, {incident.lat:.6f}" + (f", cell {code}" if code else "")


def _time(text: str) -> str:
    """RFC 3339 UTC as people read it; other text as it is."""
    return text[:19].replace("T", " ") + " UTC" if text.endswith("Z") else text


def _printable(text: str) -> str:
    """Text of strangers without what would move a terminal's cursor or turn the line around."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
