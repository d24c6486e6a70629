"""Incidents, assignments and dead letters for the tests of sinks: one plain, and any that the contract allows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from streams.messages import SOURCES, Assignment, DeadLetterRecord, Evidence, Incident, Outcome, Reason, RunnerUp, Why


def incident(number: int = 1, **changes: Any) -> Incident:
    fields: dict[str, Any] = {
        "incident_id": f"361000-road-{number:032x}",
        "version": 1,
        "status": "open",
        "category": "90001",
        "category_name": "道路积水",
        "priority": 1,
        "department": "市政",
        "grid_code": "361002001001001",
        "community_code": "361002001001",
        "street_code": "361002001",
        "county_code": "361002",
        "layer_codes": {"综治": "36100200100100000001"},
        "lon": 116.358,
        "lat": 27.984,
        "accuracy_m": 5.0,
        "opened_at": "2026-06-01T00:00:00.000Z",
        "first_report_at": "2026-06-01T00:00:00.000Z",
        "last_report_at": "2026-06-01T00:00:00.000Z",
        "updated_at": "2026-06-01T00:00:01.250Z",
        "report_count": 1,
        "repeat_count": 0,
        "sources": {"hotline": 1},
        "pack_version": "0f3a",
        "evidence": [Evidence("hotline", f"T{number}")],
    }
    return Incident(**{**fields, **changes})


def assignment(number: int = 1, **changes: Any) -> Assignment:
    fields: dict[str, Any] = {
        "origin": f"hotline.tickets:0:{number}:0",
        "revision": 0,
        "source": "hotline",
        "report_id": f"T{number}",
        "event_time": "2026-06-01T00:00:00.000Z",
        "incident_id": incident(1).incident_id,
        "outcome": "joined",
        "score": 73,
        "distance_m": 13.3,
        "gap_s": 60.0,
        "category": "90001",
        "why": Why(rule="best_open", radius_m=55.0, window_s=3600, terms={"nearness": 120, "distance": -47}),
    }
    return Assignment(**{**fields, **changes})


def dead_letter(number: int = 1, **changes: Any) -> DeadLetterRecord:
    fields: dict[str, Any] = {
        "origin": f"iot.readings:0:{number}:0",
        "reason": "missing_field",
        "field": "time",
        "detail": "time is missing",
        "source": "iot",
        "sha256": "ab" * 32,
        "size_bytes": 17,
        "excerpt": '{"id":"1"}',
        "ingested_at": "2026-06-01T00:00:00.000Z",
        "service_version": "0.1.0",
    }
    return DeadLetterRecord(**{**fields, **changes})


def rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


# Without surrogates, which are no text, but with quotes, tabs, line ends, NUL and what lies beyond the first plane.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
counts = st.integers(0, 2**32 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
times = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(rfc3339)
maybe_text = st.none() | texts

incidents = st.builds(
    Incident,
    incident_id=st.integers(1, 6).map(lambda number: f"361000-road-{number:032x}"),
    version=st.integers(1, 4),
    status=texts,
    category=texts,
    category_name=texts,
    priority=st.integers(1, 4),
    department=texts,
    grid_code=maybe_text,
    community_code=maybe_text,
    street_code=maybe_text,
    county_code=maybe_text,
    layer_codes=st.dictionaries(texts, texts, max_size=2),
    lon=st.none() | floats,
    lat=st.none() | floats,
    accuracy_m=st.none() | floats,
    opened_at=times,
    first_report_at=times,
    last_report_at=times,
    updated_at=times,
    closed_at=st.none() | times,
    report_count=counts,
    repeat_count=st.integers(0, 2),
    sources=st.dictionaries(st.sampled_from(SOURCES), counts),
    witness_count=st.none() | counts,
    confidence=st.none() | st.floats(0, 1),
    sla_due_at=st.none() | times,
    overdue=st.none() | st.booleans(),
    merged_into=maybe_text,
    recurrence_of=maybe_text,
    pack_version=texts,
    evidence=st.lists(st.builds(Evidence, source=st.sampled_from(SOURCES), report_id=texts), max_size=3),
)

whys = st.builds(
    Why,
    rule=texts,
    radius_m=st.none() | floats,
    window_s=st.none() | st.integers(0, 10**6),
    late_s=st.none() | floats,
    found=st.none() | st.booleans(),
    runner_up=st.none() | st.builds(RunnerUp, incident_id=texts, score=st.integers(0, 2000), distance_m=floats),
)


@st.composite
def assignments(draw: st.DrawFn) -> Assignment:
    """Any assignment; as in a log, whatever has the same origin has the same report and the same event time."""
    number, revision = draw(st.integers(0, 9)), draw(st.integers(0, 2))
    return Assignment(
        origin=f"hotline.tickets:0:{number}:0",
        revision=revision,
        source=SOURCES[number % 4],
        report_id=f"T{number}",
        event_time=rfc3339(datetime(1990 + number * 11, 1 + number, 28, 23, 59, 59, 999000, tzinfo=UTC)),
        incident_id=draw(maybe_text),
        outcome=draw(st.sampled_from(Outcome)).value,
        score=draw(st.none() | st.integers(-(2**63), 2**63 - 1)),
        distance_m=draw(st.none() | floats),
        gap_s=draw(st.none() | floats),
        category=draw(texts),
        why=draw(whys),
    )


dead_letters = st.builds(
    DeadLetterRecord,
    origin=st.integers(0, 9).map(lambda number: f"iot.readings:0:{number}:0"),
    reason=st.sampled_from(Reason).map(str),
    field=maybe_text,
    detail=texts,
    source=st.sampled_from(SOURCES),
    sha256=st.just("ab" * 32),
    size_bytes=st.integers(0, 2**40),
    excerpt=texts,
    ingested_at=times,
    service_version=texts,
)
