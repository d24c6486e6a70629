"""Sensors in a simulated city: what water does to them, what is wrong with them, and through whom they speak."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import orjson
import pytest

from geo.datum import to_wgs84
from packs import make_sample
from streams.error_model import FAULTS, read_error_model
from streams.pack import Device, load_pack
from streams.replay import Replay
from streams.simulated_city import metres, moved
from streams.simulated_events import Event
from streams.simulation import World, simulate

START = datetime.fromisoformat("2026-06-01T08:00:00+08:00")
START_MS = round(START.timestamp() * 1000)
HOUR_MS = 3_600_000
NOTHING = """
events.per_day = 0
storm.per_day = 0
iot.false_alarms = 0
iot.two_platforms = 0
iot.late = 0
iot.sent_again = 0
iot.faults.share = 0
iot.platforms.tingwu.share = 0
broken.share = 0
"""


@pytest.fixture(scope="module")
def mapped():
    """The sample city, two platforms of which have their own names for everything."""
    return load_pack(Path(make_sample.__file__).parent / "sample")


@pytest.fixture(scope="module")
def pack(mapped):
    """The same city, all of whose platforms use our names."""
    return replace(mapped, platforms={})


def model(more=""):
    """Nothing happens and nothing is wrong, but for what the lines ``more`` say."""
    lines = dict(line.split(" = ", 1) for line in f"{NOTHING}{more}".splitlines() if line.strip())
    return read_error_model("\n".join(f"{key} = {value}" for key, value in lines.items()))


def measured(pack, error_model, events=(), hours=6.0):
    """Messages and truth of a world in which just these events happen."""
    world = World(pack, error_model, seed=1, start=START, hours=hours)
    for event in events:
        world.sensors.report(event)
    world.sensors.measure()
    messages = [world.wire.send(batch) for batch in world.wire.batches(world.said())]
    return world.result(messages)


def elements(messages):
    """Decoded elements of all that is JSON, with their record."""
    for message in messages:
        try:
            value = orjson.loads(message.value)
        except orjson.JSONDecodeError:
            continue
        for element in value if isinstance(value, list) else [value]:
            yield message, element


def readings_of(messages, device):
    return [(e["time"], e["value"]) for _, e in elements(messages) if e.get("device_id") == device and "metric" in e]


def decided(pack, got):
    """What the service makes of it, once it is found to count as the simulation does."""
    run = Replay(pack, b"a key")
    assignments, _ = run.take(got.messages)
    assert run.counts.dead_letters == got.sent.broken
    assert run.counts.quiet_readings == got.sent.quiet
    assert run.counts.outcomes["repeat"] == got.sent.repeats
    assert run.counts.outcomes["amended"] == got.sent.amended
    assert {a.report_id for a in assignments} == {row.report_id for row in got.truth}
    return assignments


def flood_at(pack, device, number=0, from_h=2.0, until_h=4.0, code="90001", extent_m=10.0):
    category = next(c for c in pack.categories if c.code == code)
    at = pack.devices[device]
    start_ms, end_ms = (START_MS + round(h * HOUR_MS) for h in (from_h, until_h))
    return Event(number, category, at.lon, at.lat, start_ms, end_ms, end_ms, extent_m=extent_m)


# ---------------------------------------------------------------------------------------------- water and rules


def test_a_gauge_under_water_shows_it_before_during_and_after(pack):
    flood = flood_at(pack, "IOT-JS-0001")
    quiet = model("iot.alarms_itself = 0\niot.readings.road_water.during = { '90001' = [40, 41] }")
    got = measured(pack, quiet, [flood])
    shown = readings_of(got.messages, "IOT-JS-0001")
    ramp_ms = quiet.iot.rise_s * 1000
    before = [v for t, v in shown if t < flood.start_ms]
    during = [v for t, v in shown if flood.start_ms + ramp_ms < t < flood.end_ms]
    after = [v for t, v in shown if t > flood.end_ms + ramp_ms]
    assert max(before + after) <= 6 < 30 < min(during)
    assert min(map(len, (before, during, after))) >= 8
    (row,) = got.truth
    assert (row.cluster_id, row.event_category) == (flood.cluster_id, "90001")
    (told,) = decided(pack, got)
    first = next(t for t, v in shown if v > 15)
    completing = next(t for t, v in shown if t >= first + 120_000)
    assert datetime.fromisoformat(told.event_time).timestamp() * 1000 == completing


def test_water_that_stays_under_the_bound_is_measured_and_not_reported(pack):
    shallow = model("iot.alarms_itself = 0\niot.readings.road_water.during = { '90001' = [11, 12] }")
    got = measured(pack, shallow, [flood_at(pack, "IOT-JS-0001")])
    assert max(v for _, v in readings_of(got.messages, "IOT-JS-0001")) > 9
    assert got.truth == []
    assert decided(pack, got) == []


def test_neighbouring_sensors_about_one_spot_are_one_event(pack):
    near = pack.devices["IOT-JS-0001"]
    beside = [
        Device(f"IOT-T-{n}", kind, *moved(near.lon, near.lat, 20.0 * n, 0.0), 3.0, None, None)
        for n, kind in ((1, "road_water"), (2, "sewer_level"), (9, "road_water"))
    ]
    more = replace(pack, devices={**pack.devices, **{device.id: device for device in beside}})
    high = model(
        "iot.alarms_itself = 0\niot.readings.road_water.during = { '90001' = [40, 41] }\n"
        "iot.readings.sewer_level.during = { '90001' = [3, 3.1] }"
    )
    got = measured(more, high, [flood_at(more, "IOT-JS-0001", extent_m=30.0)])
    assert len(got.truth) == 3, "two gauges and a sewer; the gauge 180 m away stays dry"
    assert {row.cluster_id for row in got.truth} == {"e000000"}
    assert {a.category for a in decided(more, got)} == {"90001", "90006"}


def test_an_event_that_was_repaired_is_not_measured_any_more(pack):
    flood = flood_at(pack, "IOT-JS-0001", until_h=5.0)
    flood.repaired_ms = START_MS + round(3 * HOUR_MS)
    got = measured(pack, model("iot.alarms_itself = 0"), [flood])
    assert max(v for t, v in readings_of(got.messages, "IOT-JS-0001") if t > flood.repaired_ms) <= 6
    decided(pack, got)


def test_in_the_rain_water_is_measured_ten_times_as_often_and_higher(pack):
    got = simulate(pack, model("storm.per_day = 1"), seed=3, start=START, hours=12)
    (storm,) = got.storms
    wet = [d for d in pack.devices.values() if d.kind == "road_water" and storm.covers(d.lon, d.lat)]
    dry = [d for d in pack.devices.values() if d.kind == "road_water" and not storm.covers(d.lon, d.lat)]
    assert wet
    assert dry
    gaps = Counter()
    for device in wet:
        times = [t for t, _ in readings_of(got.messages, device.id) if storm.start_ms <= t <= storm.dry_ms]
        gaps.update(late - early for early, late in itertools.pairwise(times))
    assert gaps.most_common(1)[0][0] == 72_000
    mean = defaultdict(list)
    for device in [*wet, *dry]:
        for t, v in readings_of(got.messages, device.id):
            if storm.wetness(t) == 1:
                mean[device in wet].append(v)
    assert sum(mean[True]) / len(mean[True]) > sum(mean[False]) / len(mean[False]) + 1
    decided(pack, got)


# ------------------------------------------------------------------------------------------------------- faults


@pytest.fixture(scope="module")
def at_fault(pack):
    """By kind of fault: a day in which about a third of the sensors have it for an hour or two."""

    def of(kind):
        others = "\n".join(f"iot.faults.kinds.{name} = {int(name == kind)}" for name in FAULTS)
        return simulate(pack, model(f"iot.faults.share = 1\niot.faults.lasts_s = 9000\n{others}"), seed=1, start=START,
                        hours=8)  # fmt: skip

    return {kind: of(kind) for kind in FAULTS}


@pytest.mark.parametrize("kind", FAULTS)
def test_the_service_counts_the_messages_of_sensors_at_fault_as_the_truth_does(pack, at_fault, kind):
    decided(pack, at_fault[kind])
    assert all(row.cluster_id.startswith("f") and row.event_category == "" for row in at_fault[kind].truth)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("not_a_number", "malformed_json"), ("wrong_unit", "out_of_range"), ("clock_ahead", "future_time"),
     ("far_away", "outside_city")],
)  # fmt: skip
def test_what_faults_make_unusable_is_refused_for_its_reason(at_fault, kind, reason):
    assert at_fault[kind].sent.broken[reason] > 20
    assert at_fault[kind].sent.broken.total() == at_fault[kind].sent.broken[reason]


def values_by_device(got):
    by_device = defaultdict(list)
    for _, element in elements(got.messages):
        if "metric" in element:
            by_device[element["device_id"]].append(element)
    return by_device


def test_a_stuck_sensor_shows_one_value_again_and_again(at_fault):
    longest = 0
    for series in values_by_device(at_fault["stuck"]).values():
        run = 1
        for one, following in itertools.pairwise(series):
            run = run + 1 if one["value"] == following["value"] else 1
            longest = max(longest, run)
    assert longest >= 5


def test_a_silent_sensor_leaves_a_gap(pack, at_fault):
    widest_ms = max(
        late["time"] - early["time"]
        for series in values_by_device(at_fault["silent"]).values()
        for early, late in itertools.pairwise(series)
    )
    assert widest_ms > 3 * 720_000


def test_a_clock_that_jumped_back_states_times_long_before_the_arrival(at_fault):
    behind = [
        message.timestamp_ms - element["time"]
        for message, element in elements(at_fault["clock_behind"].messages) if "metric" in element
    ]  # fmt: skip
    assert any(7_200_000 <= late_ms < 7_300_000 for late_ms in behind)


def test_a_unit_that_is_not_said_is_a_false_alarm_of_one_cluster(at_fault):
    rows = at_fault["wrong_unit"].truth
    assert rows, "three centimetres in millimetres are thirty"
    silent = [e for _, e in elements(at_fault["wrong_unit"].messages) if "metric" in e and "unit" not in e]
    assert {e["metric"] for e in silent} >= {"road_water_cm"}


def test_a_value_that_trembles_round_the_bound_is_reported_seldom_though_often_beyond(at_fault):
    got = at_fault["trembling"]
    water = [e for _, e in elements(got.messages) if e.get("metric") == "road_water_cm"]
    beyond = {e["id"] for e in water if e["value"] > 15}
    reported = {row.report_id for row in got.truth} & {e["id"] for e in water}
    assert reported < beyond
    assert 0 < 3 * len(reported) < len(beyond)


def test_an_alarm_that_flaps_is_raised_again_and_again_and_is_one_cluster(at_fault):
    of_cluster = Counter(row.cluster_id for row in at_fault["flapping"].truth)
    assert max(of_cluster.values()) >= 3
    states = Counter(e.get("state", "raised") for _, e in elements(at_fault["flapping"].messages) if "alarm" in e)
    assert min(states["cleared"], states["raised"]) > 50


def test_an_alarm_about_something_flaps_within_its_event(pack):
    flood = flood_at(pack, "IOT-JS-0001")
    got = measured(pack, model("iot.alarms_itself = 1\niot.flaps = 1\niot.seen = 1\niot.cleared = 1"), [flood])
    assert {row.cluster_id for row in got.truth} == {flood.cluster_id}
    assert got.sent.errors["flapping"] >= 1
    decided(pack, got)


# ---------------------------------------------------------------------------------------------------- platforms


TWO = "iot.two_platforms = 1\niot.platforms.tingwu.share = 0.5\niot.platforms.tingwu.crs = 'bd09'\n"


def test_what_one_device_says_through_two_platforms_counts_once(pack):
    floods = [flood_at(pack, f"IOT-JS-{n:04d}", number=n, extent_m=0.0) for n in range(1, 15)]
    got = measured(pack, model(TWO + "iot.own_position = 1\niot.alarms_itself = 1\niot.seen = 1"), floods)
    ways = defaultdict(set)
    for _, element in elements(got.messages):
        if element["time"] < START_MS + 5.9 * HOUR_MS:  # of what comes later the second may come too late
            ways[element["id"]].add(element.get("platform"))
    assert all(way == {None, "tingwu"} for way in ways.values()), "each device's each message comes twice"
    assert got.sent.by_rule > 5
    assert got.sent.repeats >= len(got.truth) - got.sent.by_rule > 10
    assert len({row.report_id for row in got.truth}) == len(got.truth)
    decided(pack, got)


def test_a_platform_names_itself_and_places_in_its_own_datum(pack):
    several = read_error_model("hotline.platforms.wangge_app.share = 0.5\nbroken.share = 0\n")
    crs_of = {"wangge_app": "gcj02", "tingshi": "bd09", "tingwu": "gcj02"}
    got = simulate(pack, several, seed=1, start=START, hours=2)
    named = Counter()
    for message, element in elements(got.messages):
        platform = element.get("platform")
        assert message.headers == ([("platform", platform.encode())] if platform else [])
        named[platform] += 1
        if platform and "lon" in element:
            assert element["crs"] == crs_of[platform]
            lon, lat = to_wgs84(element["lon"], element["lat"], element["crs"])
            assert pack.grid.locate([lon], [lat])[0] >= 0 or got.sent.broken["outside_city"]
    assert set(named) == {None, *crs_of}
    decided(pack, got)


def test_platforms_that_the_pack_maps_write_their_own_way_and_are_understood(mapped):
    more = f"{TWO}iot.own_position = 0.3\nvideo.platforms.tingshi.share = 0.5\nevents.per_day = 1500\n"
    got = simulate(mapped, model(f"{more}broken.share = 0.02"), seed=1, start=START, hours=4)
    shapes = Counter()
    for message in got.messages:
        platform = dict(message.headers).get("platform", b"").decode()
        assert (b'"msgId"' in message.value) == (platform == "tingwu")
        assert (b'"gbId"' in message.value) == (platform == "tingshi")
        shapes[platform, message.value[:1]] += 1
    assert set(shapes) >= {("tingwu", b"{"), ("tingshi", b"{"), ("wangge_app", b"{"), ("", b"{")}
    assert got.sent.repeats > 50
    decided(mapped, got)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_sensor_at_fault_is_counted_alike_through_a_platform_that_the_pack_maps(mapped, kind):
    others = "\n".join(f"iot.faults.kinds.{name} = {int(name == kind)}" for name in FAULTS)
    more = "iot.platforms.tingwu.share = 1\niot.two_platforms = 0.5\niot.faults.share = 1\niot.faults.lasts_s = 9000\n"
    got = simulate(mapped, model(more + others), seed=1, start=START, hours=6)
    assert got.sent.broken.total() > 10 or kind not in ("not_a_number", "wrong_unit", "clock_ahead", "far_away")
    decided(mapped, got)


def test_both_ways_of_a_message_lie_in_one_place(pack):
    got = measured(pack, model(TWO + "iot.own_position = 1\niot.alarms_itself = 1\niot.seen = 1"),
                   [flood_at(pack, "IOT-JS-0001")])  # fmt: skip
    where = defaultdict(list)
    for _, element in elements(got.messages):
        if "lon" in element:
            where[element["id"]].append(to_wgs84(element["lon"], element["lat"], element.get("crs", "wgs84")))
    assert where
    for one, other in where.values():
        assert metres(*one, *other) < 0.1


def test_an_hour_without_devices_is_an_hour_without_readings(pack):
    got = simulate(replace(pack, devices={}), model(), seed=1, start=START + timedelta(hours=1), hours=1)
    assert got.messages == []
