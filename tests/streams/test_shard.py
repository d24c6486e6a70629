"""What one shard makes of reports, told as things that happen in a city."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise

import msgspec
import pytest
from city_scenario import CATALOGUE_TOML, CITY_TOML, KEY, City, at_ms, make_pack, opened
from dedupe_definition import gap_points, log_points, rival_points
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import dedupe_kernels
from streams.blocks import Mark, decode_block, encode_blocks
from streams.intake import Intake, SourceRecord
from streams.messages import TOPIC_OF_SOURCE, Assignment, Evidence, RunnerUp
from streams.reports import LocatedReports
from streams.shard import Decisions, Shard

PACK = make_pack()
INTAKE = Intake(PACK, KEY)
TERMS = INTAKE.terms


@pytest.fixture
def city() -> City:
    return City(PACK)


# --------------------------------------------------------------------------------------------------------- scenarios


def test_a_camera_and_a_call_about_one_cover_make_one_incident(city):
    """A camera sees an open manhole; a citizen phones four minutes later, 20 m off."""
    city.report(at="00:00", source="video", category="manhole", where=(0, 0))
    city.report(at="04:00", source="hotline", category="manhole", where=(20, 0))
    city.report(at="04:05", source="hotline", category="street-light", where=(20, 0))
    assert city.incidents() == [
        opened("manhole", at="00:00", sources=["video", "hotline"]),
        opened("street-light", at="04:05", sources=["hotline"]),
    ]


def test_two_covers_in_one_street_are_two_incidents(city):
    city.report(at="00:00", source="patrol", category="manhole", where=(0, 0))
    city.report(at="01:00", source="patrol", category="manhole", where=(60, 0))
    city.report(at="02:00", source="hotline", category="manhole", where=(35, 0))
    assert city.incidents() == [
        opened("manhole", at="00:00", sources=["patrol"]),
        opened("manhole", at="01:00", sources=["patrol", "hotline"]),
    ]


def test_a_vague_caller_does_not_swallow_the_next_street(city):
    """His 500 m count as the 10 m of the category's cap."""
    city.report(at="00:00", source="patrol", category="manhole", where=(0, 0))
    city.report(at="01:00", source="hotline", category="manhole", where=(49.9, 0), accuracy_m=500)
    city.report(at="02:00", source="hotline", category="manhole", where=(0, 50.1), accuracy_m=500)
    assert [seen.reports for seen in city.incidents()] == [2, 1]


def test_those_who_come_later_do_not_drag_the_incident_along(city):
    """Distance is from where it is anchored, so a chain of reports does not wander down the street."""
    outcomes = [
        city.report(at=f"0{step}:00", source="patrol", category="manhole", where=(30 * step, 0)) for step in range(4)
    ]
    assert outcomes == ["opened", "joined", "opened", "joined"]


def test_as_long_as_reports_come_the_window_slides(city):
    for hour in range(4):
        city.report(at=f"{hour}:50:00", source="hotline", category="manhole", where=(0, 0))
    city.report(at="5:50:01", source="hotline", category="manhole", where=(0, 0))
    assert [seen.reports for seen in city.incidents()] == [4, 1]


def test_a_gateway_that_sends_twice_counts_once(city):
    for at in ("00:00", "00:10", "00:20"):
        city.report(at=at, source="iot", category="cover_open", where=(0, 0), report_id="alarm-7")
    assert city.outcomes == ["opened", "repeat", "repeat"]
    assert city.incidents() == [opened("manhole", at="00:00", sources=["iot"], repeats=2)]


def test_a_ticket_amended_to_another_group_is_another_group_s_report(city):
    """Groups know nothing of each other, or the number of shards would change results."""
    city.report(at="00:00", source="hotline", category="manhole", report_id="t")
    city.report(at="00:10", source="hotline", category="street-light", report_id="t")
    assert city.outcomes == ["opened", "opened"]


def test_a_question_opens_nothing(city):
    assert city.report(at="00:00", source="hotline", category="question") == "not_an_event"
    assert city.report(at="00:10", source="hotline", category="question", report_id="r1") == "repeat"
    assert city.incidents() == []


def test_a_ticket_without_a_place_opens_an_incident_of_its_own(city):
    city.report(at="00:00", source="hotline", category="manhole", where=None)
    city.report(at="00:10", source="hotline", category="manhole", where=None)
    city.report(at="00:20", source="hotline", category="manhole", where=(0, 0))
    assert city.outcomes == ["opened"] * 3
    placeless = [one for one in city.shard.incidents() if one.lon is None]
    assert len(placeless) == 2
    assert {(one.lat, one.accuracy_m, one.grid_code, one.county_code) for one in placeless} == {(None,) * 4}


def test_a_worker_without_network_reports_late_and_still_joins(city):
    """He saw it at 00:05 and sent it at 00:50; meanwhile the city went on."""
    city.report(at="00:00", source="video", category="manhole", where=(0, 0))
    city.report(at="50:00", source="patrol", category="street-light", where=(900, 0))
    city.report(at="50:00", source="video", category="street-light", where=(-900, 0))
    city.report(at="05:00", heard="50:00", source="patrol", category="manhole", where=(5, 0))
    city.report(at="05:00", heard="50:00", source="patrol", category="manhole", where=(500, 0))
    assert city.outcomes == ["opened", "opened", "opened", "late", "late"]
    assert [seen.reports for seen in city.incidents() if seen.category == "manhole"] == [2, 1]


# ------------------------------------------------------------------------------------------------------------ outputs


def assignments_of(city: City, *reports: dict[str, object]) -> list[Assignment]:
    """Fold reports in one block; returns the assignments."""
    records = []
    for number, fields in enumerate(reports):
        source = str(fields.pop("source"))
        records.append(SourceRecord(TOPIC_OF_SOURCE[source], 0, number, fields.pop("heard", fields["time"]), None,
                                    json.dumps({"id": str(number), "accuracy_m": 0, **fields}).encode()))  # fmt: skip
    batch = city.intake.take(records)
    assert not batch.dead_letters
    (data,) = encode_blocks(city.intake.terms, batch.reports)
    return city.shard.apply_block(decode_block(data, city.shard.terms)).assignments


def patrol(east_m: float, *, at: str = "00:00", **fields: object) -> dict[str, object]:
    place = {"lon": east_m / 111_319.491, "lat": 0.0}
    return {"source": "patrol", "worker_id": "w", "category": "manhole", "time": at_ms(at), **place, **fields}


def test_an_assignment_says_why(city):
    far, near, between = assignments_of(city, patrol(0), patrol(-50), patrol(-20, at="02:30", accuracy_m=500))
    assert (far.outcome, far.why.rule, far.score, far.distance_m, far.gap_s) == (
        "opened",
        "nothing_near",
        None,
        None,
        None,
    )
    assert (far.origin, far.revision, far.report_id) == ("patrol.reports:0:0:0", 0, "0")
    assert (near.outcome, near.why.radius_m, near.why.window_s) == ("opened", 40.0, 3600)
    assert (between.outcome, between.why.rule, between.incident_id) == ("joined", "best_open", far.incident_id)
    assert (between.distance_m, between.gap_s, between.why.radius_m) == (20.0, 150.0, 50.0)
    # By the formula of docs/contract.md: σ² of 500 m and half the radius, 20 m off, and no word of one place.
    variance_cm2 = 50_000**2 + 2000**2
    nearness = round(-100 * math.log10(2 * math.pi / (math.pi * 4000**2))) - log_points(variance_cm2)
    distance = -(2000**2 * 21_715 // (variance_cm2 * 1000))
    gap = -gap_points(150_000, 3_600_000)
    runner_up = between.why.runner_up
    rival = rival_points(runner_up.score)
    named = {"nearness": nearness, "distance": distance, "gap": gap, "rival": rival}
    assert between.why.terms == {name: points for name, points in named.items() if points}
    assert between.score == nearness + distance + gap + rival
    assert (runner_up.incident_id, runner_up.distance_m) == (near.incident_id, 30.0)


WEIGHED = make_pack(
    catalogue=CATALOGUE_TOML
    + """
[match]
prior = -60
spread_m = 12
alike_km2 = 40
same_place = 70
rethink = 20
rethink_s = 3600
[match.pairs]
patrol-patrol = -150
"""
)


def test_a_second_thought_is_an_answer_of_its_own_and_the_first_stays():
    """A caller may mean the worker's heap, 20 m off; then another worker files one right where the caller stood."""
    city = City(WEIGHED)
    said = [
        patrol(0),
        {**patrol(20, at="01:00"), "source": "hotline"},
        patrol(21, at="02:00"),
        {**patrol(20, at="02:30"), "source": "hotline", "id": "1"},
    ]
    batch = assignments_of(city, *said)
    first, caller, second, again, repeat = batch
    assert [one.outcome for one in batch] == ["opened", "joined", "opened", "joined", "repeat"]
    assert [one.revision for one in batch] == [0, 0, 0, 1, 0]
    assert (again.origin, again.report_id, again.event_time) == (caller.origin, "1", caller.event_time)
    assert (caller.incident_id, again.incident_id) == (first.incident_id, second.incident_id)
    assert repeat.incident_id == second.incident_id, "what it says next is of where it is now"
    assert (second.why.rule, second.why.runner_up.incident_id) == ("not_enough", first.incident_id)
    assert second.why.runner_up.score < 0
    assert (again.why.rule, again.why.same_place) == ("second_thoughts", "spot")
    assert again.why.runner_up == RunnerUp(first.incident_id, caller.score, None)
    assert again.score == sum(again.why.terms.values()) >= caller.score + 20
    states = {one.incident_id: one for one in city.shard.incidents()}
    left, joined = states[first.incident_id], states[second.incident_id]
    assert (left.report_count, left.sources, left.version) == (1, {"patrol": 1}, 3)
    assert (joined.report_count, joined.sources, joined.version) == (2, {"patrol": 1, "hotline": 1}, 2)
    assert left.evidence == [Evidence("patrol", "0")]
    assert joined.evidence == [Evidence("patrol", "2"), Evidence("hotline", "1")]


def test_consumers_are_told_of_both_incidents_of_a_second_thought():
    city = City(WEIGHED)
    city.report(at="00:00", source="patrol", category="manhole")
    city.report(at="01:00", source="hotline", category="manhole", where=(20, 0))
    city.told.clear()
    city.report(at="02:00", source="patrol", category="manhole", where=(21, 0))
    assert [(one.report_count, one.version) for one in city.told] == [(1, 3), (2, 2)]
    before = city.shard.incidents()
    city.restart()
    assert city.shard.incidents() == before, "the same log, the same second thoughts"


def test_a_late_assignment_says_how_late_and_whether_it_found_anything(city):
    *_, found, alone = assignments_of(
        city,
        patrol(0),
        patrol(2000, at="30:00"),
        patrol(1, at="01:00", heard=at_ms("30:00")),
        patrol(500, at="01:00", heard=at_ms("30:00")),
    )
    assert (found.outcome, found.why.late_s, found.why.found) == ("late", 1740.0, True)
    assert (alone.outcome, alone.why.late_s, alone.why.found) == ("late", 1740.0, False)


def test_rolls_up_to_the_levels_that_cover_the_point(city):
    """In the west all four; in the east the county is all there is, and so the finest cell hit."""
    city.report(at="00:00", source="patrol", category="manhole", where=(-500, 500))
    city.report(at="00:10", source="patrol", category="manhole", where=(500, 500))
    west, east = sorted(city.shard.incidents(), key=lambda one: one.opened_at)
    assert (west.grid_code, west.community_code, west.street_code, west.county_code) == (
        "990101001001002", "990101001001", "990101001", "990101",
    )  # fmt: skip
    assert (east.grid_code, east.community_code, east.street_code, east.county_code) == ("990102", None, None, "990102")


def test_evidence_is_the_first_and_the_latest_report_however_many_there_are(city):
    for number in range(5):
        city.report(
            at=f"0{number}:00", source=["video", "hotline"][number % 2], category="manhole", report_id=f"n{number}"
        )
    city.report(at="06:00", source="hotline", category="manhole", report_id="n1")  # a repeat is no evidence
    (incident,) = city.shard.incidents()
    assert [(one.source, one.report_id) for one in incident.evidence] == [("video", "n0"), ("video", "n4")]
    assert (incident.version, incident.report_count, incident.repeat_count) == (5, 5, 1)
    assert incident.sources == {"video": 3, "hotline": 2}


def test_the_times_of_an_incident_are_those_of_its_reports(city):
    city.report(at="10:00", source="video", category="manhole")
    city.report(at="04:00", heard="12:00", source="hotline", category="manhole")
    (incident,) = city.shard.incidents()
    minute = "2026-03-01T00:{}:00.000Z".format
    assert (incident.opened_at, incident.first_report_at, incident.last_report_at, incident.updated_at) == (
        minute("10"), minute("04"), minute("10"), minute("12"),
    )  # fmt: skip


def test_an_incident_s_name_depends_on_its_founding_report_alone(city):
    city.report(at="00:00", source="video", category="manhole", report_id="founder")
    other = City(PACK)
    other.report(at="00:00", source="hotline", category="street-light")
    other.report(at="07:00", source="video", category="manhole", report_id="founder", where=(700, 0))
    (one,) = city.shard.incidents()
    assert one.incident_id.startswith("990100-covers-")
    assert one.incident_id in [incident.incident_id for incident in other.shard.incidents()]


# ------------------------------------------------------------------------------------------------ the fold as a fold


def day(count: int, seed: int) -> LocatedReports:
    """Reports of all sources around a few places, some twice, some late, some without a place."""
    chance = random.Random(seed)
    records = []
    for number in range(count):
        source = chance.choice(list(TOPIC_OF_SOURCE))
        at = at_ms("00:00") + number * 20_000
        fields = {
            "id": str(chance.randrange(count)), "time": at - chance.choice([0, 0, 1000, 900_000]),
            "accuracy_m": chance.choice([0, 8, 300]), "device_id": "cover-1", "camera_id": "cam-1", "worker_id": "w",
            "confidence": 1, "lon": chance.randrange(-8, 8) * 2e-4, "lat": chance.randrange(-8, 8) * 2e-4,
        }  # fmt: skip
        category = chance.choice(["manhole", "manhole", "cover-noise", "street-light", "question"])
        fields |= {"alarm": category} if source == "iot" else {"event_type": category, "category": category}
        if source == "hotline" and chance.random() < 0.2:
            del fields["lon"], fields["lat"]
        records.append(SourceRecord(TOPIC_OF_SOURCE[source], number % 2, number, at, None, json.dumps(fields).encode()))
    batch = INTAKE.take(records)
    assert not batch.dead_letters
    return batch.reports


def shard() -> Shard:
    return Shard(TERMS)


def bytes_of(*things: object) -> bytes:
    return msgspec.json.encode(things)


REPORTS = day(400, seed=3)


@settings(max_examples=20)
@given(st.sets(st.integers(0, len(REPORTS)), max_size=6))
def test_folding_encoded_blocks_is_folding_the_columns(cuts):
    """However the log is cut into blocks, and through bytes or not."""
    direct, through = shard(), shard()
    expected = direct.apply(REPORTS, PACK.version)
    edges = [0, *sorted(cuts), len(REPORTS)]
    got: list[Decisions] = []
    for start, end in pairwise(edges):
        for data in encode_blocks(TERMS, REPORTS.take(slice(start, end))):
            got.append(through.apply_block(decode_block(data, TERMS)))
    assert bytes_of(*[a for decisions in got for a in decisions.assignments]) == bytes_of(*expected.assignments)
    assert bytes_of(*through.incidents()) == bytes_of(*direct.incidents())


def test_what_is_told_leads_to_what_stands_in_the_end():
    """Per incident the versions rise, each opening and each further source is told, and the last told is the state."""
    fold, told = shard(), {}
    for start in range(0, len(REPORTS), 37):
        for incident in fold.apply(REPORTS.take(slice(start, start + 37)), PACK.version).incidents:
            before = told.setdefault(incident.incident_id, [])
            if before:
                assert (incident.version, incident.repeat_count) > (before[-1].version, before[-1].repeat_count)
            before.append(incident)
    for history in told.values():
        assert history[0].version == 1
        for before, after in pairwise(history):
            new = after.sources.keys() - before.sources.keys()
            assert len(new) <= 1
            assert all(after.sources[source] == 1 for source in new)
    assert bytes_of(*(told[one][-1] for one in sorted(told))) == bytes_of(*fold.incidents())


def test_a_silent_fold_leaves_the_same_state_and_says_nothing():
    """As after a restart: the first half again, silently."""
    loud, quiet = shard(), shard()
    first, second = REPORTS.take(slice(0, 200)), REPORTS.take(slice(200, None))
    loud.apply(first, PACK.version)
    decisions = quiet.apply(first, PACK.version, silent=True)
    assert (decisions.assignments, decisions.incidents) == ([], [])
    assert bytes_of(loud.apply(second, PACK.version).assignments) == bytes_of(
        quiet.apply(second, PACK.version).assignments
    )
    assert bytes_of(loud.incidents()) == bytes_of(quiet.incidents())


def test_what_the_log_delivers_again_is_counted_and_changes_nothing():
    fold = shard()
    first = fold.apply(REPORTS, PACK.version)
    before = bytes_of(fold.incidents())
    again = fold.apply(REPORTS, PACK.version)
    assert first.redelivered == 0
    assert (again.redelivered, again.assignments, again.incidents) == (len(REPORTS), [], [])
    assert bytes_of(fold.incidents()) == before


def test_every_row_has_its_assignment_and_every_report_counts_once():
    fold = shard()
    decisions = fold.apply(REPORTS, PACK.version)
    outcomes = decisions.outcomes()
    assert len(decisions.assignments) == len(REPORTS)
    assert decisions.rows.tolist() == list(range(len(REPORTS)))
    incidents = fold.incidents()
    assert sum(one.report_count for one in incidents) == sum(outcomes[word] for word in ("opened", "joined", "late"))
    joined_an_incident = sum(a.outcome == "repeat" and a.incident_id is not None for a in decisions.assignments)
    assert sum(one.repeat_count for one in incidents) == joined_an_incident
    assert len({one.incident_id for one in incidents}) == len(incidents) == len(fold)


def test_a_tick_moves_the_watermark_and_marks_of_other_topics_do_not():
    fold = shard()
    fold.mark([Mark("hotline.tickets", 0, 1000, False), Mark("dispatch.feedback", 0, 1, False)])
    assert fold.dedupe.watermark_ms == 1000
    fold.mark([Mark("hotline.tickets", 1, 5000, False), Mark("hotline.tickets", 0, 1000, True)])
    assert fold.dedupe.watermark_ms == 5000


def test_the_pack_that_founded_an_incident_stays_stamped_on_it():
    older = make_pack(city=CITY_TOML.replace("试验市", "旧城"))
    fold = shard()
    fold.apply(REPORTS.take(slice(0, 60)), older.version)
    fold.apply(REPORTS.take(slice(60, None)), PACK.version)
    assert {one.pack_version for one in fold.incidents()} == {older.version, PACK.version}


def test_the_kernel_is_compiled_once():
    """Columns of a block and columns of intake are one type to it; a second would take seconds at every start."""
    shard().apply(REPORTS, PACK.version)
    (data,) = encode_blocks(TERMS, REPORTS)
    shard().apply_block(decode_block(data, TERMS))
    assert len(dedupe_kernels.decide.signatures) == 1
