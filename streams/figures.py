"""The figures of a city's day: what is in work, what was collapsed, how long it took, how new it is.

The same as the views of ``sinks/migrations/005_figures.sql`` and those after it, in plain Python over incidents,
assignments and dead letters: for a replay's files, and as the oracle of the views.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from streams.messages import Assignment, DeadLetterRecord, Incident, Outcome, Status

NOT_IN_WORK = (Status.SUSPECTED.value, Status.CLOSED.value, Status.REJECTED.value)
"""Nobody has been told of what is suspected."""


class OpenByLevel(msgspec.Struct, frozen=True, order=True):
    """Incidents in work under one code of one level; ``city`` without a code are those that nobody has placed."""

    level: str
    code: str | None
    incidents: int
    urgent: int
    """Of priority 1."""
    oldest_opened_at: str


class OpenByCell(msgspec.Struct, frozen=True, order=True):
    """Incidents in work by the finest cell that covers them."""

    grid_code: str
    incidents: int
    urgent: int
    oldest_opened_at: str


class OpenByCategory(msgspec.Struct, frozen=True, order=True):
    """Incidents in work of one category of one department, and how far each has come."""

    category: str
    category_name: str
    department: str
    open: int
    accepted: int
    dispatched: int
    disposed: int
    incidents: int
    oldest_opened_at: str


class SuspectedByCategory(msgspec.Struct, frozen=True, order=True):
    """Incidents of which too little is known to tell anybody."""

    category: str
    category_name: str
    department: str
    incidents: int
    oldest_opened_at: str


class ReportsByHour(msgspec.Struct, frozen=True, order=True):
    """Raw and merged counts of one hour (UTC, event time), category and source, by the first answers."""

    hour: str
    category: str
    source: str
    reports: int
    """Neither repeats nor amendments nor about no event."""
    repeats: int
    amended: int
    not_events: int
    incidents: int
    """Founded by one of the reports."""
    collapsed: int
    """The other reports."""
    corrected: int
    """Reports whose first answer was taken back; they stay collapsed."""


class TimeToClose(msgspec.Struct, frozen=True, order=True):
    """From opening to closing, seconds, of one category and department."""

    category: str
    category_name: str
    department: str
    closed: int
    median_s: int
    p90_s: int


class CameAgain(msgspec.Struct, frozen=True, order=True):
    """What came again after it had ended: reports that reopened, incidents that are a recurrence."""

    category: str
    reopened: int
    recurred: int


class DeadLettersByReason(msgspec.Struct, frozen=True, order=True):
    """Messages that could not be used."""

    source: str
    reason: str
    dead_letters: int
    newest_ingested_at: str


class Freshness(msgspec.Struct, frozen=True, order=True):
    """The newest of a kind: ingestion time of incidents and dead letters, event time of reports that were answered."""

    of: str
    newest: str
    rows: int


class Figures(msgspec.Struct, kw_only=True):
    """All of them, each sorted; what ``GET /api/status`` returns."""

    open_by_level: list[OpenByLevel]
    open_by_cell: list[OpenByCell]
    open_by_category: list[OpenByCategory]
    suspected_by_category: list[SuspectedByCategory]
    reports_by_hour: list[ReportsByHour]
    time_to_close: list[TimeToClose]
    came_again: list[CameAgain]
    dead_letters_by_reason: list[DeadLettersByReason]
    freshness: list[Freshness]


VIEWS: dict[str, type[msgspec.Struct]] = {
    "open_by_level": OpenByLevel,
    "open_by_cell": OpenByCell,
    "open_by_category": OpenByCategory,
    "suspected_by_category": SuspectedByCategory,
    "reports_by_hour": ReportsByHour,
    "time_to_close": TimeToClose,
    "came_again": CameAgain,
    "dead_letters_by_reason": DeadLettersByReason,
    "freshness": Freshness,
}
"""Each figure has a view of its name in ClickHouse."""


def figures_of(
    incidents: Iterable[Incident], assignments: Iterable[Assignment], dead_letters: Iterable[DeadLetterRecord]
) -> Figures:
    """The figures of incidents as they stand, answers and dead letters; each may come more than once.

    Of an incident the highest version counts (of equal ones the highest repeat count), of an answer its origin and
    revision, of a dead letter its origin and reason.  Memory for all of them.
    """
    standing: dict[str, Incident] = {}
    for incident in incidents:
        other = standing.get(incident.incident_id)
        if other is None or (other.version, other.repeat_count) <= (incident.version, incident.repeat_count):
            standing[incident.incident_id] = incident
    answers = {(one.origin, one.revision): one for one in assignments}
    letters = {(one.origin, one.reason): one for one in dead_letters}
    all_incidents = list(standing.values())
    first_answers = [one for one in answers.values() if one.revision == 0]
    in_work = [incident for incident in all_incidents if incident.status not in NOT_IN_WORK]
    suspected = [incident for incident in all_incidents if incident.status == Status.SUSPECTED]
    return Figures(
        open_by_level=_open_by_level(in_work),
        open_by_cell=[
            OpenByCell(code, len(some), _urgent(some), _oldest(some))
            for code, some in _grouped((one.grid_code, one) for one in in_work if one.grid_code is not None)
        ],
        open_by_category=[
            OpenByCategory(
                category,
                some[0].category_name,
                department,
                _at(some, Status.OPEN),
                _at(some, Status.ACCEPTED),
                _at(some, Status.DISPATCHED),
                _at(some, Status.DISPOSED),
                len(some),
                _oldest(some),
            )
            for (category, department), some in _grouped(((one.category, one.department), one) for one in in_work)
        ],
        suspected_by_category=[
            SuspectedByCategory(category, some[0].category_name, department, len(some), _oldest(some))
            for (category, department), some in _grouped(((one.category, one.department), one) for one in suspected)
        ],
        reports_by_hour=[
            _reports_by_hour(hour, category, source, some)
            for (hour, category, source), some in _grouped(
                ((one.event_time[:13] + ":00:00Z", one.category, one.source), one) for one in answers.values()
            )
        ],
        time_to_close=_time_to_close(all_incidents),
        came_again=_came_again(all_incidents, first_answers),
        dead_letters_by_reason=[
            DeadLettersByReason(source, reason, len(some), max(one.ingested_at for one in some))
            for (source, reason), some in _grouped(((one.source, one.reason), one) for one in letters.values())
        ],
        freshness=[
            Freshness(
                "assignments",
                _newest(one.event_time for one in answers.values()),
                len({one.origin for one in answers.values()}),
            ),
            Freshness("dead_letters", _newest(one.ingested_at for one in letters.values()), len(letters)),
            Freshness("incidents", _newest(one.updated_at for one in all_incidents), len(all_incidents)),
        ],
    )


def _grouped(pairs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, list[Any]]]:
    groups: defaultdict[Any, list[Any]] = defaultdict(list)
    for key, one in pairs:
        groups[key].append(one)
    return sorted(groups.items(), key=lambda item: item[0])


def _at(incidents: Iterable[Incident], status: Status) -> int:
    return sum(one.status == status.value for one in incidents)


def _urgent(incidents: Iterable[Incident]) -> int:
    return sum(one.priority == 1 for one in incidents)


def _oldest(incidents: Iterable[Incident]) -> str:
    return min(one.opened_at for one in incidents)


def _newest(times: Iterable[str]) -> str:
    return max(times, default="1970-01-01T00:00:00.000Z")


def _open_by_level(in_work: list[Incident]) -> list[OpenByLevel]:
    placed = []
    for one in in_work:
        if one.grid_code is None:
            placed.append((("city", ""), one))
        for level, code in (
            ("county", one.county_code),
            ("street", one.street_code),
            ("community", one.community_code),
        ):
            if code is not None:
                placed.append(((level, code), one))
    return [
        OpenByLevel(level, code or None, len(some), _urgent(some), _oldest(some))
        for (level, code), some in _grouped(placed)
    ]


def _reports_by_hour(hour: str, category: str, source: str, answers: list[Assignment]) -> ReportsByHour:
    corrected = len({one.origin for one in answers if one.revision > 0})
    answers = [one for one in answers if one.revision == 0]
    repeats = sum(one.outcome == Outcome.REPEAT for one in answers)
    amended = sum(one.outcome == Outcome.AMENDED for one in answers)
    not_events = sum(one.outcome == Outcome.NOT_AN_EVENT for one in answers)
    reports = len(answers) - repeats - amended - not_events
    founded = sum(
        one.outcome == Outcome.OPENED or (one.outcome == Outcome.LATE and not one.why.found) for one in answers
    )
    return ReportsByHour(
        hour, category, source, reports, repeats, amended, not_events, founded, reports - founded, corrected
    )


def _time_to_close(incidents: list[Incident]) -> list[TimeToClose]:
    closed = [one for one in incidents if one.status == Status.CLOSED and one.closed_at is not None]
    rows = []
    for (category, department), some in _grouped(((one.category, one.department), one) for one in closed):
        seconds = sorted(_whole_seconds(one.closed_at) - _whole_seconds(one.opened_at) for one in some)
        median, p90 = (seconds[min(int(share * len(seconds)), len(seconds) - 1)] for share in (0.5, 0.9))
        rows.append(TimeToClose(category, some[0].category_name, department, len(some), median, p90))
    return rows


def _came_again(incidents: list[Incident], answers: list[Assignment]) -> list[CameAgain]:
    reopened: defaultdict[str, int] = defaultdict(int)
    recurred: defaultdict[str, int] = defaultdict(int)
    for answer in answers:
        reopened[answer.category] += answer.why.rule == "reopened"
    for incident in incidents:
        recurred[incident.category] += incident.recurrence_of is not None
    return [
        CameAgain(category, reopened[category], recurred[category])
        for category in sorted(reopened.keys() | recurred.keys())
        if reopened[category] or recurred[category]
    ]


def _whole_seconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() // 1)
