"""Explanations: where a report went and why, or what an incident consists of; found, and said in plain words.

The same question is asked of a replay's files, of ClickHouse and of a running worker, and has one answer:
:class:`Explained`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import msgspec

from streams.messages import SOURCES, Assignment, Incident, Outcome

MAX_LIMIT = 10_000
"""No answer holds more assignments than this."""


class Explained(msgspec.Struct, kw_only=True):
    """The answer about one id; what ``GET /api/explain/{id}`` returns.

    Attributes
    ----------
    incident
        The incident of that id; for a report the incident it went to.  None where there is none, and where several
        reports of that id went to different ones.
    assignments
        Every answer by which a report came to the incident or left it, or every answer to reports of that id; by event
        time, then origin and revision.
    truncated
        There are more assignments than were asked for.
    """

    incident: Incident | None = None
    assignments: list[Assignment] = []
    truncated: bool = False

    @property
    def known(self) -> bool:
        """Whether anything is known by that id."""
        return self.incident is not None or bool(self.assignments)


class Answers(Protocol):
    """Who can be asked: the ClickHouse sink.  At most ``limit`` assignments, the earliest by event time."""

    def incident(self, incident_id: str) -> Incident | None:
        """One incident as it stands."""
        ...

    def assignments_of(self, incident_id: str, limit: int = ...) -> list[Assignment]:
        """What an incident consists of, and what has left it again (`left`)."""
        ...

    def assignment_of_report(self, source: str | None, report_id: str, limit: int = ...) -> list[Assignment]:
        """Every answer to reports of that id; of all sources where ``source`` is None."""
        ...


class UnreadableLine(ValueError):  # noqa: N818 - it is named for what it is about
    """A line that is not what the file should hold; ``line`` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.problem = problem


def left(assignment: Assignment) -> str | None:
    """The incident that a report has left, where it was answered a second time."""
    runner_up = assignment.why.runner_up
    return runner_up.incident_id if assignment.revision and runner_up is not None else None


def reports_meant(asked: str) -> list[tuple[str | None, str]]:
    """The (source, report id) that an id may mean, the likeliest first; source None is any.

    >>> reports_meant("hotline:T-7")
    [('hotline', 'T-7'), (None, 'hotline:T-7')]
    >>> reports_meant("T-7")
    [(None, 'T-7')]
    """
    source, colon, report_id = asked.partition(":")
    named = [(source, report_id)] if colon and source in SOURCES and report_id else []
    return [*named, (None, asked)]


def explain_from_sink(sink: Answers, asked: str, limit: int) -> Explained:
    """Ask a sink about an incident's id, a report's id or ``source:report_id``, in that order.

    ``limit``, 1 to `MAX_LIMIT`, bounds the assignments.  Raises what the sink raises, ``ValueError`` for the limit.
    """
    _require_limit(limit)
    incident = sink.incident(asked)
    if incident is not None:
        return _explained(incident, sink.assignments_of(asked, limit + 1), limit)
    for source, report_id in reports_meant(asked):
        found = sink.assignment_of_report(source, report_id, limit + 1)
        if found:
            went_to = _one_incident(found[:limit])
            return _explained(sink.incident(went_to) if went_to is not None else None, found, limit)
    return Explained()


def explain_from_lines(
    asked: str, assignment_lines: Iterable[bytes], incident_lines: Iterable[bytes], limit: int
) -> Explained:
    """Look through ``assignments.jsonl``, then ``incidents.jsonl``, for what `explain_from_sink` asks a sink for.

    One pass over each; memory for a few times ``limit`` assignments.  Only lines that hold the id's text are decoded,
    so faults elsewhere do not matter.  Raises :class:`UnreadableLine` for one that does and cannot be.
    """
    _require_limit(limit)
    meant = reports_meant(asked)
    of_incident = _Earliest(limit + 1)
    of_report = [_Earliest(limit + 1) for _ in meant]
    # The first is the shortest: where `hotline:T-7` stands, `T-7` stands too.
    for assignment in _lines_with(meant[0][1], assignment_lines, _ASSIGNMENT):
        if asked in (assignment.incident_id, left(assignment)):
            of_incident.add(assignment)
        for (source, report_id), found in zip(meant, of_report, strict=True):
            if assignment.report_id == report_id and source in (None, assignment.source):
                found.add(assignment)

    reports = next((found for found in of_report if found), _Earliest(1)).rows()
    went_to = _one_incident(reports[:limit])
    its_incident: Incident | None = None
    for incident in _lines_with(asked, incident_lines, _INCIDENT, went_to):
        if incident.incident_id == asked:
            return _explained(incident, of_incident.rows(), limit)
        if incident.incident_id == went_to:
            its_incident = incident
    return _explained(its_incident, reports, limit)


def _require_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"limit is {limit}; it must be 1 to {MAX_LIMIT}")


def _explained(incident: Incident | None, assignments: Sequence[Assignment], limit: int) -> Explained:
    return Explained(incident=incident, assignments=list(assignments[:limit]), truncated=len(assignments) > limit)


def _one_incident(assignments: Sequence[Assignment]) -> str | None:
    """The incident that all of them went to."""
    ids = {assignment.incident_id for assignment in assignments}
    return ids.pop() if len(ids) == 1 else None


class _Earliest:
    """The earliest assignments of any number, by event time, origin and revision; holds four times as many at most."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rows: list[Assignment] = []

    def add(self, assignment: Assignment) -> None:
        self._rows.append(assignment)
        if len(self._rows) >= 4 * self._size:
            self._rows = self.rows()

    def __bool__(self) -> bool:
        return bool(self._rows)

    def rows(self) -> list[Assignment]:
        return sorted(self._rows, key=lambda row: (row.event_time, row.origin, row.revision))[: self._size]


_Kind = TypeVar("_Kind")
_ASSIGNMENT = msgspec.json.Decoder(Assignment)
_INCIDENT = msgspec.json.Decoder(Incident)


def _lines_with(
    text: str, lines: Iterable[bytes], decoder: msgspec.json.Decoder[_Kind], or_text: str | None = None
) -> Iterator[_Kind]:
    """Decode the lines that hold one of the texts: looking for bytes is ten times as fast as decoding."""
    wanted = [msgspec.json.encode(one)[1:-1] for one in (text, or_text) if one is not None]
    for number, line in enumerate(lines, start=1):
        if any(one in line for one in wanted):
            try:
                yield decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise UnreadableLine(number, str(error)) from error


# ----------------------------------------------------------------------------------------------------- plain words


def in_words(assignment: Assignment) -> str:
    """What became of a report, and why, in one sentence that a dispatcher understands; without a full stop."""
    incident = f"incident {assignment.incident_id}"
    match assignment.outcome:
        case Outcome.OPENED:
            return f"opened {incident}: {_why_new(assignment)}"
        case Outcome.JOINED if left(assignment) is not None:
            return (
                f"went to {incident} after all, which was founded later: {_how_near(assignment)}; "
                f"it suits it better than incident {left(assignment)}, which it had joined"
            )
        case Outcome.JOINED:
            return f"joined {incident}: {_how_near(assignment)}"
        case Outcome.REOPENED:
            return f"reopened {incident}: {_how_near(assignment)}"
        case Outcome.LATE:
            late = "came late"
            if assignment.why.late_s is not None:
                late += f", {duration_text(assignment.why.late_s)} behind the newest then read"
            if assignment.why.found:
                return f"{late}; joined {incident}: {_how_near(assignment)}"
            return f"{late}; opened {incident}: {_why_new(assignment)}"
        case Outcome.REPEAT:
            if assignment.incident_id is None:
                return "repeats, under the same id, a report that is no event"
            return f"repeats, under the same id, a report of {incident}"
        case Outcome.AMENDED:
            if assignment.incident_id is None:
                return "amends, under the same id, a report that is no event"
            return f"amends, under the same id, a report of {incident}"
        case Outcome.NOT_AN_EVENT:
            return "is no event: its category opens no incident"
    went = f"{assignment.outcome}, {incident}" if assignment.incident_id is not None else assignment.outcome
    return f"{went} (rule {assignment.why.rule})"


def _how_near(assignment: Assignment) -> str:
    why = assignment.why
    parts = []
    if why.same_place in _SAME_PLACES:
        parts.append(_SAME_PLACES[why.same_place])
    if assignment.distance_m is not None:
        allowed = f" ({distance_text(why.radius_m)} allowed)" if why.radius_m is not None else ""
        parts.append(f"{distance_text(assignment.distance_m)} from its place{allowed}")
    if assignment.gap_s is not None:
        allowed = f" ({duration_text(why.window_s)} allowed)" if why.window_s is not None else ""
        # Not "after": the gap has no sign, and a report may come in before one that was seen earlier.
        parts.append(f"{duration_text(assignment.gap_s)} from its latest report{allowed}")
    return ", ".join(parts) or f"by the rule {why.rule}"


def _why_new(assignment: Assignment) -> str:
    why = assignment.why
    if why.rule == "no_position":
        return "it has no position, so nothing can be near it and a person must place it"
    if why.rule == "recurrence":
        return f"it has come back, for incident {why.recurrence_of} was here before"
    if why.rule == "not_enough" and why.runner_up is not None:
        return (
            f"the best one near, incident {why.runner_up.incident_id}, is not likely enough to be the same "
            f"({points_text(why.runner_up.score)} points, and 0 are needed)"
        )
    if why.rule != "nothing_near":
        return f"by the rule {why.rule}"
    reach = ""
    if why.radius_m is not None and why.window_s is not None:
        reach = f" (its own category reaches {distance_text(why.radius_m)} and {duration_text(why.window_s)})"
    return f"no incident of its kind was near enough in place and time{reach}"


_SAME_PLACES = {
    "spot": "the very spot",
    "device": "the same device",
    "asset": "the same asset",
    "address": "the same address",
}
_TERMS = {
    "nearness": "how well both places are known, and how rare such events are",
    "distance": "how far apart they lie",
    "gap": "how long after the others it comes",
    "category": "how alike the categories are",
    "sources": "how often these two sources see one event",
    "same_place": "it is at the same place",
    "text": "how alike the words are",
    "again": "who reports it has reported it before",
    "prior": "before all evidence",
    "busy": "other incidents of the kind are near",
    "rival": "another incident is nearly as likely",
}


def terms_in_words(assignment: Assignment) -> list[tuple[str, int, str]]:
    """What a score is the sum of, in its own order: what it is about, points, and how much likelier that makes it."""
    terms = assignment.why.terms or {}
    known = [name for name in _TERMS if name in terms]
    told = []
    for name in [*known, *sorted(terms.keys() - _TERMS.keys())]:
        about = _TERMS.get(name, name)
        if name == "same_place" and assignment.why.same_place in _SAME_PLACES:
            about = f"it is at {_SAME_PLACES[assignment.why.same_place]}"
        told.append((about, terms[name], likelier_text(terms[name])))
    return told


def points_text(points: int) -> str:
    """Points with their sign.

    >>> points_text(12), points_text(0), points_text(-3)
    ('+12', '0', '−3')
    """
    return f"{points:+}".replace("-", "−") if points else "0"


def likelier_text(points: int) -> str:
    """How much likelier so many points make it that two reports speak of one event; 100 points are ten times.

    >>> likelier_text(100), likelier_text(-30), likelier_text(2), likelier_text(700)
    ('10 times likelier', '2 times less likely', 'as likely', 'over 1,000 times likelier')
    """
    times = 10 ** (abs(points) / 100)
    if times < 1.05:
        return "as likely"
    text = "over 1,000" if times > 1000 else f"{times:,.0f}" if times >= 10 else f"{times:.1f}".removesuffix(".0")
    return f"{text} times {'likelier' if points > 0 else 'less likely'}"


def distance_text(distance_m: float) -> str:
    """Metres as people read them.

    >>> distance_text(80.0), distance_text(23.1), distance_text(1234.5)
    ('80 m', '23.1 m', '1,234.5 m')
    """
    return f"{distance_m:,.1f}".removesuffix(".0") + " m"


def duration_text(duration_s: float) -> str:
    """A duration by its two largest units, rounded down.

    >>> duration_text(172800), duration_text(5400), duration_text(86461), duration_text(12.5)
    ('2 days', '1 h 30 min', '1 day', '12.5 s')
    """
    if duration_s < 60:
        return f"{duration_s:.1f}".removesuffix(".0") + " s"
    rest = int(duration_s)
    counts = []
    for unit_s in (86_400, 3_600, 60, 1):
        count, rest = divmod(rest, unit_s)
        counts.append(count)
    largest = next(place for place, count in enumerate(counts) if count)
    names = ("day" if counts[0] == 1 else "days", "h", "min", "s")
    return " ".join(
        f"{counts[place]} {names[place]}" for place in (largest, largest + 1) if place < 4 and counts[place]
    )
