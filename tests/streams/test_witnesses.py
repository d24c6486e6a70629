"""Who counts as a witness, when anybody is told, and what an amended ticket changes, from messages to incidents."""

from __future__ import annotations

import json
import math
from random import Random

import numpy as np
import pytest
from city_scenario import (
    CITY_TOML,
    DAY_MS,
    DOUBTING_CATALOGUE_TOML,
    DOUBTING_CITY_TOML,
    KEY,
    City,
    make_pack,
)
from hypothesis import given
from hypothesis import strategies as st

from streams.messages import SOURCES, TOPIC_OF_SOURCE
from streams.recording import RecordedMessage
from streams.replay import Replay
from streams.witnesses import UNKNOWN_ODDS, confidence_of, odds_of, odds_of_column, witness_keys

DOUBTING_PACK = make_pack(city=DOUBTING_CITY_TOML, catalogue=DOUBTING_CATALOGUE_TOML)


@pytest.fixture
def city():
    return City(DOUBTING_PACK)


def told(city: City) -> list[tuple[int, str]]:
    return [(one.version, one.status) for one in city.told]


# ----------------------------------------------------------------------------------------------------- what odds are


@given(st.floats(0, 1))
def test_a_confidence_comes_back_as_it_went_to_three_decimals_and_never_beyond_the_hundredth(confidence):
    back = confidence_of(odds_of(confidence))
    assert abs(back - min(max(confidence, 0.01), 0.99)) <= 0.0005 + 1e-9


def test_the_table_of_odds_is_the_logarithm_and_none_of_its_values_lies_near_a_half():
    """A last bit that differs from machine to machine makes no other whole number."""
    for thousandths in range(1001):
        share = min(max(thousandths / 1000, 0.01), 0.99)
        exact = 1000 * math.log(share / (1 - share))
        assert abs(abs(exact - math.floor(exact)) - 0.5) > 1e-6
        assert odds_of(thousandths / 1000) == round(exact)


def test_a_column_says_what_its_values_say():
    values = [0.0, 0.3, 0.62, 0.8, 0.999, 1.0]
    column = odds_of_column(np.array([*values, np.nan], np.float32))
    assert column.tolist() == [*map(odds_of, values), UNKNOWN_ODDS]


def test_a_witness_is_told_by_source_and_name():
    names = np.array(["a", "a", "b", "", "a"], np.object_)
    keys = witness_keys(np.array([0, 1, 0, 0, 0], np.int8), names).tolist()
    assert keys[0] == keys[4]
    assert len(set(keys)) == 4
    assert keys[3] == 0


# ------------------------------------------------------------------------------------------------------- who counts


def test_one_caller_is_one_witness_however_he_writes_his_number(city):
    for minute, caller in enumerate(["13800005678", "+86 138-0000-5678", "13800005678"]):
        city.report(at=f"{minute:02}:00", source="hotline", category="manhole", caller=caller)
    assert (city.one().report_count, city.one().witness_count) == (3, 1)
    city.report(at="04:00", source="hotline", category="manhole", caller="13800005679")
    city.report(at="05:00", source="hotline", category="manhole")
    assert (city.one().report_count, city.one().witness_count) == (5, 3)


def test_a_camera_on_two_platforms_is_one_witness(city):
    city.report(at="00:00", source="video", category="manhole", camera_id="cam-1", platform="a")
    city.report(at="00:30", source="video", category="manhole", camera_id="cam-1", platform="b")
    assert (city.one().report_count, city.one().witness_count) == (2, 1)


def test_a_flapping_sensor_is_one_witness_and_as_sure_as_one(city):
    for minute in range(0, 60, 5):
        city.report(at=f"{minute:02}:00", source="iot", category="manhole", device_id="cover-1")
    assert (city.one().report_count, city.one().witness_count, city.one().confidence) == (12, 1, 0.9)


@pytest.mark.parametrize(("witness", "count"), [("none", 1), ("id", 3), ("worker_id", 2)])
def test_what_the_pack_calls_a_witness(witness, count):
    """`none`: nothing tells the source's reporters apart, so together they are one; `id`: each report is its own."""
    pack = make_pack(city=CITY_TOML + f'witness = "{witness}"\n')
    city = City(pack)
    for minute, worker in enumerate(["w1", "w1", "w2"]):
        city.report(at=f"{minute:02}:00", source="patrol", category="manhole", worker_id=worker)
    assert city.one().witness_count == count
    assert city.one().confidence is None, "the pack does not say how far it believes anybody"


# ------------------------------------------------------------------------------------------------------ who is told


def test_a_call_confirms_what_one_camera_saw(city):
    city.report(at="00:00", source="video", category="manhole", camera_id="a")
    city.report(at="01:00", source="video", category="manhole", camera_id="a")
    city.report(at="02:00", source="patrol", category="manhole", worker_id="w")
    assert told(city) == [(1, "suspected"), (2, "suspected"), (3, "open")]
    assert city.one().confidence == 0.987


def test_feedback_confirms_it_and_may_reject_it(city):
    city.report(at="00:00", source="video", category="manhole")
    assert city.say("accept", city.one().incident_id, at="01:00") == "applied"
    city.report(at="00:00", source="video", category="manhole", where=(900, 0))
    other = next(one for one in city.shard.incidents() if one.status == "suspected")
    assert city.say("reject", other.incident_id, at="02:00") == "applied"
    assert [status for _, status in told(city)] == ["suspected", "accepted", "suspected", "rejected"]


def test_a_call_at_a_suspected_place_is_one_incident_with_it(city):
    """Suspected or not, an incident is matched alike."""
    city.report(at="00:00", source="video", category="manhole")
    assert city.report(at="01:00", source="hotline", category="manhole", where=(20, 0)) == "joined"


def test_after_a_restart_it_is_as_suspected_as_before(city):
    city.report(at="00:00", source="video", category="manhole", camera_id="a")
    before = city.shard.incidents()
    city.restart(intake=True)
    assert city.shard.incidents() == before
    city.report(at="01:00", source="video", category="manhole", camera_id="a")
    assert (city.one().status, city.one().witness_count) == ("suspected", 1)


def test_what_a_pack_asked_when_an_incident_was_founded_goes_on_being_asked(city):
    """The terms travel in the log: an edited pack neither tells nor hides what stands."""
    city.report(at="00:00", source="video", category="manhole")
    city.change(make_pack(city=DOUBTING_CITY_TOML))
    city.report(at="00:30", source="video", category="manhole", where=(900, 0))
    assert sorted(one.status for one in city.shard.incidents()) == ["open", "suspected"]
    city.restart()
    assert sorted(one.status for one in city.shard.incidents()) == ["open", "suspected"]


# ------------------------------------------------------------------------------------------------------- amendments


def call(city: City, at: str, **changes: object) -> str:
    fields = {"category": "井盖", "report_id": "T1", "text": "井盖没了", "address": "一号路"} | changes
    return city.report(at=at, source="hotline", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "became"),
    [
        ({}, "repeat"),
        ({"category": "manhole"}, "amended"),  # another word, though of the same meaning
        ({"category": "cover-noise"}, "amended"),
        ({"text": "井盖没了,有人摔倒"}, "amended"),
        ({"address": "二号路"}, "amended"),
        ({"asset_id": "C-9"}, "amended"),
        ({"where": (5, 0)}, "amended"),
        ({"caller": "13800005678"}, "repeat"),  # who said it is not what was said
        ({"accuracy_m": 30}, "repeat"),
        ({"text": "井盖没了", "category": "井盖"}, "repeat"),
    ],
)
def test_which_fields_amend_a_ticket(city, changes, became):
    assert call(city, "00:00") == "opened"
    assert call(city, "10:00", **changes) == became
    amends = became == "amended"
    assert (city.one().version, city.one().report_count, city.one().repeat_count) == (1 + amends, 1, not amends)
    assert call(city, "11:00", **changes) == "repeat"


def test_an_amended_category_is_told_with_all_that_hangs_on_it(city):
    call(city, "00:00")
    call(city, "10:00", category="cover-noise", where=(900, 0))
    one = city.told[-1]
    assert (one.version, one.category, one.category_name, one.priority) == (2, "cover-noise", "井盖异响", 3)
    assert (one.lon, one.report_count, one.incident_id) == (0.0, 1, city.told[0].incident_id), "the place stays"
    assert one.updated_at.endswith("00:10:00.000Z")


def test_a_ticket_that_nobody_could_place_is_placed_when_it_says_where(city):
    call(city, "00:00", where=None)
    assert city.one().grid_code is None
    call(city, "10:00", where=(-30, 30), accuracy_m=25)
    assert (city.one().grid_code, city.one().accuracy_m) == ("990101001001002", 25)
    assert city.report(at="11:00", source="patrol", category="manhole", where=(-20, 30)) == "joined"


def test_another_report_s_amendment_changes_nothing_but_the_version(city):
    city.report(at="00:00", source="patrol", category="manhole")
    call(city, "01:00")
    call(city, "02:00", category="cover-noise", where=(5, 0))
    assert (city.one().category, city.one().version, city.one().report_count) == ("manhole", 3, 2)


def test_a_number_in_the_text_that_is_masked_amends_nothing_for_it_never_got_that_far(city):
    call(city, "00:00", text="请联系13800005678")
    assert call(city, "01:00", text="请联系13800015678") == "repeat"


def test_an_edited_pack_makes_no_amendment_of_what_is_sent_again(city):
    """The label means another category now, but the ticket says what it said."""
    call(city, "00:00")
    catalogue = DOUBTING_CATALOGUE_TOML.replace('hotline = ["井盖"]', 'hotline = ["井盖缺失"]').replace(
        "video = 0.4\nhotline = 0.65\n", 'video = 0.4\nhotline = 0.65\n[category.labels]\nhotline = ["井盖"]\n'
    )
    city.change(make_pack(city=DOUBTING_CITY_TOML, catalogue=catalogue))
    assert call(city, "01:00") == "repeat"
    assert city.one().category == "manhole"


def test_a_ticket_amended_into_another_group_founds_an_incident_there(city):
    """The limit of it: groups are shards, and none knows the ids of another (decision 017)."""
    call(city, "00:00")
    assert call(city, "01:00", category="street-light") == "opened"
    assert len(city.shard.incidents()) == 2


# --------------------------------------------------------------------------------------------- however it is cut up


def test_neither_batches_nor_shards_make_a_difference():
    """A street full of doubtful and amended reports; what is said and how it stands in the end, byte for byte."""
    chance = Random(5)
    records = []
    for number in range(300):
        source, at_ms = chance.choice(SOURCES), DAY_MS + number * 600_000
        label = chance.choice(["manhole", "manhole", "cover-noise", "street-light", "question"])
        message = {
            "id": f"r{chance.randrange(100)}", "time": at_ms, "accuracy_m": 5, "lon": chance.randrange(6) * 2e-4,
            "lat": 0, "category": label, "event_type": label, "alarm": label, "confidence": chance.choice([0.4, 0.9]),
            "worker_id": "w", "camera_id": chance.choice("ab"), "device_id": f"d{number}",
            "caller": chance.choice("ab"),
        }  # fmt: skip
        value = json.dumps(message).encode()
        records.append(RecordedMessage(TOPIC_OF_SOURCE[source], value, 0, number, at_ms))
    seen = set()
    for shards in (1, 3):
        for size in (1, 7, 300):
            replay = Replay(DOUBTING_PACK, KEY, shards=shards)
            assignments = []
            for start in range(0, len(records), size):
                assignments += replay.take(records[start : start + size])[0]
            seen.add((repr(assignments), repr(replay.incidents())))
            assert {"amended", "repeat", "joined"} <= {one.outcome for one in assignments}
            assert {"suspected", "open"} == {one.status for one in replay.incidents()}
    assert len(seen) == 1
