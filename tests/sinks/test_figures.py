"""The views of ClickHouse say what the plain script over the same rows says."""

from __future__ import annotations

import random

import sink_rows as rows
from sink_places import Place

from streams.figures import Figures, figures_of
from streams.messages import SOURCES, Outcome, Reason, Status, Why

CATEGORIES = [("90001", "道路积水", "市政"), ("06010", "暴露垃圾", "环卫"), ("01002", "污水井盖", "排水")]


def at(minute: int) -> str:
    day, rest = divmod(minute, 1440)
    return f"2026-06-{1 + day:02}T{rest // 60:02}:{rest % 60:02}:{minute % 59:02}.{minute % 999:03}Z"


def a_week(seed: int):
    """Rows as a worker writes them: several versions of an incident, some rows twice, in no order."""
    chance = random.Random(seed)
    incidents, assignments, letters = [], [], []
    for number in range(60):
        category, name, department = chance.choice(CATEGORIES)
        county = chance.choice(["361002", "361003", None])
        opened = chance.randrange(9000)
        for version in range(1, chance.randrange(2, 6)):
            status = chance.choice(list(Status))
            incidents.append(
                rows.incident(
                    number,
                    version=version,
                    repeat_count=chance.randrange(3),
                    status=status.value,
                    category=category,
                    category_name=name,
                    department=department,
                    priority=chance.choice([1, 3]),
                    grid_code=county and f"{county}00100100{number % 7}",
                    community_code=county and f"{county}001001",
                    street_code=county and f"{county}001",
                    county_code=county,
                    opened_at=at(opened),
                    updated_at=at(opened + version),
                    closed_at=at(opened + chance.randrange(4000)) if status == Status.CLOSED else None,
                    recurrence_of=rows.incident(1).incident_id if number % 9 == 0 else None,
                )
            )
    for number in range(400):
        outcome = chance.choice(list(Outcome))
        found = chance.choice([True, False]) if outcome == Outcome.LATE else None
        rule = "reopened" if outcome == Outcome.REOPENED or (found and number % 3 == 0) else "best_open"
        assignments.append(
            rows.assignment(
                number,
                revision=chance.choice([0, 0, 0, 1]),
                source=chance.choice(SOURCES),
                event_time=at(chance.randrange(9000)),
                outcome=outcome.value,
                category=chance.choice(CATEGORIES)[0],
                why=Why(rule=rule, found=found),
            )
        )
    for number in range(50):
        letters.append(
            rows.dead_letter(
                number,
                reason=chance.choice(list(Reason)).value,
                source=chance.choice([*SOURCES, "dispatch.feedback"]),
                ingested_at=at(chance.randrange(9000)),
            )
        )
    for some in (incidents, assignments, letters):
        some += chance.choices(some, k=len(some) // 4)
    chance.shuffle(incidents)
    return incidents, assignments, letters


def test_every_view_agrees_with_the_plain_script(place: Place) -> None:
    incidents, assignments, letters = a_week(seed=5)
    sink = place.sink()
    sink.prepare()
    # In two parts, so that rows of one key lie in different parts until ClickHouse merges them.
    half = len(incidents) // 2
    sink.write(assignments, incidents[:half], letters)
    sink.flush()
    sink.write(assignments[:100], incidents[half:], letters[:10])
    sink.flush()
    expected = figures_of(incidents, assignments, letters)
    got = sink.figures()
    for name in Figures.__struct_fields__:
        assert sorted(getattr(got, name), key=repr) == sorted(getattr(expected, name), key=repr), name
        assert getattr(expected, name), f"{name} has something to compare"


def test_raw_and_merged_counts_add_up() -> None:
    _, assignments, _ = a_week(seed=6)
    hours = figures_of([], assignments, []).reports_by_hour
    first = {one.origin: one for one in assignments if one.revision == 0}
    corrected = {one.origin for one in assignments if one.revision == 1}
    assert sum(one.reports + one.repeats + one.amended + one.not_events for one in hours) == len(first)
    assert all(one.reports == one.incidents + one.collapsed for one in hours)
    assert sum(one.corrected for one in hours) == len(corrected) > 0


def test_a_corrected_report_counts_once_and_stands_where_it_went_in_the_end(place: Place) -> None:
    first = rows.assignment(1, incident_id="left")
    second = rows.assignment(1, revision=1, incident_id="joined", why=Why(rule="second_thoughts"))
    other = rows.assignment(2, incident_id="left")
    sink = place.sink()
    sink.prepare()
    sink.write([second, other], [], [])
    sink.flush()
    sink.write([first, second], [], [])
    sink.flush()
    told = "SELECT origin, revision, incident_id FROM assignments_current ORDER BY origin"
    rows_told = sink._ask(lambda client: client.query(told).result_rows)
    assert [tuple(row) for row in rows_told] == [(first.origin, 1, "joined"), (other.origin, 0, "left")]
    (hour,) = sink.figures().reports_by_hour
    assert (hour.reports, hour.collapsed, hour.corrected) == (2, 2, 1)
    assert sink.assignment_of_report(None, first.report_id) == [first, second], "the first answer stays on record"


def test_an_empty_city_has_no_figures_but_says_so(place: Place) -> None:
    sink = place.sink()
    sink.prepare()
    assert sink.figures() == figures_of([], [], [])
