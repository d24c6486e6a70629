"""What one device says through two platforms counts once, whichever comes first and however it is batched."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from city_scenario import KEY
from hypothesis import given
from hypothesis import strategies as st
from platform_scenario import NOON_MS, PACK

from streams.blocks import decode_block, encode_blocks
from streams.intake import Intake, SourceRecord
from streams.platform_writer import PlatformWriter
from streams.shard import Shard
from streams.terms import Terms

THINGS = PlatformWriter(PACK, "things")
NATIVE = "iot.readings"


def alarm(number: int, *, at_ms: int = NOON_MS, device: str = "cover-1", alarm: str = "cover_open") -> dict[str, Any]:
    return {"id": f"id{number}", "time": at_ms, "device_id": device, "alarm": alarm}


def reading(number: int, value: float, *, at_ms: int, device: str = "cover-1") -> dict[str, Any]:
    said = {"metric": "depth", "value": value, "unit": "cm"}
    return {"id": f"id{number}", "time": at_ms, "device_id": device} | said


class TwoWays:
    """Sends messages natively or as the platform says them, each way from its own offset 0, through intake and fold."""

    def __init__(self) -> None:
        self.intake = Intake(PACK, KEY)
        self.shard = Shard(Terms(PACK.code))
        self.outcomes: list[str] = []
        self.quiet = self.redelivered = 0
        self._offsets = {NATIVE: 0, THINGS.topic: 0}

    def record(self, topic: str, message: dict[str, Any]) -> SourceRecord:
        said = THINGS.write(message) if topic == THINGS.topic else message
        offset = self._offsets[topic]
        self._offsets[topic] += 1
        return SourceRecord(topic, 0, offset, NOON_MS + 300_000, None, json.dumps(said).encode())

    def take(self, *records: SourceRecord) -> None:
        batch = self.intake.take(records)
        assert batch.dead_letters == []
        self.quiet += batch.quiet_readings
        for data in encode_blocks(self.intake.terms, batch.reports, []):
            decisions = self.shard.apply_block(decode_block(data, self.shard.terms))
            self.outcomes += [assignment.outcome for assignment in decisions.assignments]
            self.quiet += decisions.quiet_readings
            self.redelivered += decisions.redelivered
        self.shard.dedupe.check()

    def counts(self) -> list[tuple[int, int]]:
        """Reports and repeats of each incident."""
        return [(incident.report_count, incident.repeat_count) for incident in self.shard.incidents()]


BOTH_ORDERS = pytest.mark.parametrize("topics", [(NATIVE, THINGS.topic), (THINGS.topic, NATIVE)])


@BOTH_ORDERS
@pytest.mark.parametrize("together", [False, True], ids=["in two batches", "in one batch"])
def test_an_alarm_that_comes_both_ways_is_one_report_and_its_repeat(topics, together):
    """Both records stand at offset 0 of their topic: an origin without its topic took the copy for a redelivery."""
    city = TwoWays()
    records = [city.record(topic, alarm(number)) for number, topic in enumerate(topics)]
    for batch in [records] if together else [records[:1], records[1:]]:
        city.take(*batch)
    assert city.outcomes == ["opened", "repeat"]
    assert city.counts() == [(1, 1)]


@BOTH_ORDERS
def test_milliseconds_that_one_platform_cuts_off_make_no_second_report(topics):
    city = TwoWays()
    for number, topic in enumerate(topics):
        city.take(city.record(topic, alarm(number, at_ms=NOON_MS + (417 if topic == NATIVE else 0))))
    assert city.outcomes == ["opened", "repeat"]


@BOTH_ORDERS
def test_a_reading_that_comes_both_ways_raises_one_alarm(topics):
    """150.1 mm through the one and 15.01 cm through the other; each hears of the flood, and that it is over, twice."""
    city = TwoWays()
    for number, value in enumerate([2, 15.01, 20, 2, 15.01]):
        for way, topic in enumerate(topics):
            city.take(city.record(topic, reading(2 * number + way, value, at_ms=NOON_MS + number * 60_000)))
    assert city.outcomes == ["opened", "joined"]
    assert city.quiet == 8


def test_a_judged_reading_is_no_copy_of_an_alarm():
    """They mean one kind of event in one second, but neither platform has repeated what the other said."""
    city = TwoWays()
    city.take(city.record(THINGS.topic, reading(0, 20, at_ms=NOON_MS)))
    city.take(city.record(NATIVE, alarm(1, alarm="other")))
    assert city.counts() == [(2, 0)]


def test_what_one_platform_says_twice_under_two_ids_is_said_twice():
    city = TwoWays()
    city.take(*(city.record(topic, alarm(n)) for n, topic in enumerate([NATIVE, NATIVE, THINGS.topic, THINGS.topic])))
    assert city.outcomes == ["opened", "joined", "repeat", "repeat"]


@pytest.mark.parametrize(
    ("other", "outcome"),
    [
        ({}, "repeat"),
        ({"alarm": "manhole"}, "repeat"),
        ({"alarm": "cover-noise"}, "joined"),
        ({"time": NOON_MS + 1000}, "joined"),
        ({"device_id": "new", "lon": -0.001, "lat": 0.001}, "joined"),
    ],
    ids=["the same", "another word for it", "something else", "a second later", "another device"],
)
def test_only_the_same_of_the_same_device_and_second_is_a_copy(other, outcome):
    city = TwoWays()
    city.take(city.record(NATIVE, alarm(0)))
    city.take(city.record(THINGS.topic, alarm(1) | other))
    assert city.outcomes == ["opened", outcome]


def test_a_copy_that_the_log_delivers_again_is_a_redelivery():
    city = TwoWays()
    records = [city.record(topic, alarm(number)) for number, topic in enumerate([NATIVE, THINGS.topic])]
    city.take(*records)
    city.take(*records)
    assert city.outcomes == ["opened", "repeat"]
    assert city.redelivered == 2
    assert city.counts() == [(1, 1)]


@given(st.data())
def test_no_order_of_the_platforms_and_no_batching_changes_what_is_counted(data):
    """Each platform keeps the order of its messages; which is ahead, and where a batch ends, is anybody's guess."""
    events = data.draw(
        st.lists(st.tuples(st.sampled_from(["cover-1", "cam-1"]), st.sampled_from([None, 2.0, 20.0])), max_size=8)
    )
    city = TwoWays()
    waiting = {
        topic: [
            alarm(number, at_ms=NOON_MS + number * 1000, device=device)
            if value is None
            else reading(number, value, at_ms=NOON_MS + number * 1000, device=device)
            for number, (device, value) in enumerate(events)
        ]
        for topic in (NATIVE, THINGS.topic)
    }
    records = []
    while any(waiting.values()):
        topic = data.draw(st.sampled_from([topic for topic, messages in waiting.items() if messages]))
        records.append(city.record(topic, waiting[topic].pop(0)))
    cuts = data.draw(st.sets(st.integers(0, len(records)), max_size=4))
    for start, end in pairwise(sorted({0, len(records), *cuts})):
        city.take(*records[start:end])

    raised: dict[str, bool] = {}
    expected = 0
    for device, value in events:
        expected += value is None or (value == 20 and not raised.get(device, False))
        if value is not None:
            raised[device] = value == 20
    alarms = sum(value is None for _, value in events)
    assert sum(reports for reports, _ in city.counts()) == expected
    assert city.outcomes.count("repeat") == alarms
    assert len(city.outcomes) + city.quiet == 2 * len(events)
    assert city.redelivered == 0
