"""The datum guard: whose datum is wrong is named, whoever is right is not, however reports are batched.

Reports of an invented traffic over the sample city, so that everything about them is known.
"""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geo.datum import from_wgs84, to_wgs84
from geo.plane import distance_m, metres_per_degree
from packs import make_sample
from streams.datum_guard import BY_NAME, DATUMS, REGISTRY, DatumGround, DatumGuard, Finding, _surprise, others
from streams.datum_kernels import (
    BUCKETS,
    CLOSE_MS,
    EVIDENCE,
    MOST_OF_SQUARE,
    MOST_SENDERS,
    NEAR_DM,
    NOBODY,
    PAUSE_MS,
    REMEMBERED,
    REPORT,
    VIEWS,
    count_views,
    take_reports,
)
from streams.intake import Intake, IntakePack, SourceRecord
from streams.messages import SOURCES
from streams.pack import load_pack
from streams.privacy import TEST_KEY
from streams.reports import LocatedReports

START_MS = 1_780_000_000_000
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
GROUPS = 6


@pytest.fixture(scope="module")
def made() -> IntakePack:
    return IntakePack(load_pack(Path(make_sample.__file__).parent / "sample"))


@pytest.fixture(scope="module")
def ground(made: IntakePack) -> DatumGround:
    return made.ground


# ------------------------------------------------------------------------------------------------- invented traffic


@dataclass(frozen=True)
class Sender:
    """Who reports, what datum it declares, and what it sends."""

    source: str
    declared: str = "gcj02"
    really: str = ""
    platform: str = ""
    share: float = 0.6
    """Of the events that it reports."""
    wrong: float = 1.0
    """Share of its positions that are in ``really``."""
    sigma_m: float = 15.0

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.source, self.platform, self.declared, self.really


@dataclass(frozen=True)
class Said:
    """One report: where it says that it is, read in its declared datum."""

    sender: Sender
    lon: float
    lat: float
    group: int
    time_ms: int
    came_ms: int
    device: str = ""
    address: str = ""
    placed_by: int | None = None


def somewhere(chance: random.Random) -> tuple[float, float]:
    return chance.uniform(119.935, 119.975), chance.uniform(38.735, 38.765)


def said_at(sender: Sender, lon: float, lat: float, chance: random.Random) -> tuple[float, float]:
    m_lon, m_lat = (float(one) for one in metres_per_degree(lat))
    lon += chance.gauss(0, sender.sigma_m) / m_lon
    lat += chance.gauss(0, sender.sigma_m) / m_lat
    if sender.really and chance.random() < sender.wrong:
        lon, lat = (float(one) for one in to_wgs84(*from_wgs84(lon, lat, sender.really), sender.declared))
    return lon, lat


def traffic(
    ground: DatumGround, senders: Sequence[Sender], hours: float, seed: int = 1, *, start_ms: int = START_MS
) -> list[Said]:
    """An event every three minutes, anywhere; each sender reports its share of them within half an hour."""
    chance = random.Random(seed)
    told: list[Said] = []
    for number in range(round(hours * 20)):
        at_ms = start_ms + number * 3 * MINUTE_MS
        lon, lat = somewhere(chance)
        group = chance.randrange(GROUPS)
        for sender in senders:
            if chance.random() < sender.share:
                time_ms = at_ms + chance.randrange(30 * MINUTE_MS)
                told.append(Said(sender, *said_at(sender, lon, lat, chance), group, time_ms, time_ms + 5_000))
    return sorted(told, key=lambda one: one.came_ms)


def take(guard: DatumGuard, told: Sequence[Said]) -> None:
    rows = len(told)
    reports = LocatedReports.from_columns(
        source=[SOURCES.index(one.sender.source) for one in told],
        platform=np.array([one.sender.platform for one in told], np.object_),
        device=np.array([one.device for one in told], np.object_),
        address=np.array([one.address for one in told], np.object_),
        lon_e7=[round(one.lon * 1e7) for one in told],
        lat_e7=[round(one.lat * 1e7) for one in told],
        time_ms=[one.time_ms for one in told],
        ingested_ms=[one.came_ms for one in told],
        mark_ms=[one.came_ms for one in told],
        accuracy_cm=np.full(rows, 3_000),
        **dict.fromkeys(("partition", "offset", "index", "category", "cell", "key_hi", "key_lo"), np.zeros(rows)),
        **dict.fromkeys(("report_id", "witness", "asset_id", "text"), np.full(rows, "", np.object_)),
    )
    placed_by = [DATUMS.index(one.sender.declared) if one.placed_by is None else one.placed_by for one in told]
    group = np.array([one.group for one in told], np.int32)
    guard.take(reports, np.array(placed_by, np.int8), group, np.arange(rows))


def found(ground: DatumGround, told: Sequence[Said], batch: int = 1_000) -> DatumGuard:
    guard = DatumGuard(ground)
    for start in range(0, len(told), batch):
        take(guard, told[start : start + batch])
    return guard


def keys(findings: Iterable[Finding]) -> list[tuple[str, str, str, str]]:
    return [(one.source, one.platform, one.declared, one.really) for one in findings]


RIGHT = (Sender("hotline", "gcj02"), Sender("video", "bd09"), Sender("patrol", "wgs84"))


# --------------------------------------------------------------------------------------------------- who is named


@pytest.mark.parametrize("source", ["hotline", "video", "patrol"])
@pytest.mark.parametrize(("declared", "really"), [(one, other) for one in DATUMS for other in DATUMS if one != other])
def test_a_source_that_sends_another_datum_is_named_with_it_and_nobody_else_is(ground, source, declared, really):
    wrong = Sender(source, declared, really)
    senders = [one for one in RIGHT if one.source != source]
    guard = found(ground, traffic(ground, [*senders, wrong], hours=24))
    assert keys(guard.findings) == [wrong.key]
    (finding,) = guard.findings
    there = said_at(replace(wrong, sigma_m=0), 119.955, 38.75, random.Random(0))
    assert finding.offset_m == pytest.approx(float(distance_m(119.955, 38.75, *there)), rel=0.02)
    assert 300 <= finding.offset_m <= 1_400
    assert finding.borne_out > 5 * finding.by_chance
    assert finding.borne_out > 5 * finding.as_declared
    assert finding.or_else == ""


def test_one_platform_of_a_source_is_named_and_the_source_is_not(ground):
    wrong = Sender("video", "bd09", "gcj02", platform="tingshi", share=0.3)
    guard = found(ground, traffic(ground, [*RIGHT, wrong], hours=24))
    assert keys(guard.findings) == [wrong.key]
    assert guard.findings[0].sender == "video/tingshi"


def test_two_that_are_wrong_at_once_are_both_named(ground):
    senders = [Sender("hotline", "gcj02", "bd09"), Sender("iot", "wgs84", "gcj02"), RIGHT[1], RIGHT[2]]
    guard = found(ground, traffic(ground, senders, hours=24))
    assert keys(guard.findings) == [senders[0].key, senders[1].key]


@pytest.mark.parametrize("seed", range(12))
def test_nobody_is_named_where_everybody_is_right(ground, seed):
    assert found(ground, traffic(ground, RIGHT, hours=48, seed=seed)).findings == ()


@pytest.mark.parametrize("wrong", [0.004, 0.05, 0.2])
def test_a_source_with_some_positions_in_another_datum_is_not_named(ground, wrong):
    partly = Sender("hotline", "gcj02", "bd09", wrong=wrong)
    assert found(ground, traffic(ground, [partly, *RIGHT[1:]], hours=48)).findings == ()


@pytest.mark.parametrize("sigma_m", [400, 1_000, 5_000])
@pytest.mark.parametrize("seed", range(3))
def test_a_source_that_scatters_widely_is_not_named_nor_is_anybody_for_it(ground, sigma_m, seed):
    gross = Sender("hotline", sigma_m=sigma_m)
    assert found(ground, traffic(ground, [gross, *RIGHT[1:]], hours=48, seed=seed)).findings == ()


def test_a_source_that_places_everything_at_its_own_door_is_not_named(ground):
    """Even where another datum would have its door on the busiest square of the city."""
    lon, lat = 119.955, 38.75
    square = to_wgs84(*from_wgs84(lon, lat, "gcj02"), "bd09")
    chance = random.Random(4)
    door, patrol, video = Sender("hotline", "gcj02"), Sender("patrol", "wgs84"), Sender("video", "wgs84")
    told = []
    for number in range(2_000):
        time_ms = START_MS + number * 3 * MINUTE_MS
        group = chance.randrange(GROUPS)
        told.append(Said(door, lon, lat, group, time_ms, time_ms))
        told += [Said(one, float(square[0]), float(square[1]), group, time_ms, time_ms) for one in (patrol, video)]
    assert found(ground, told).findings == ()


def test_two_alone_who_contradict_each_other_are_each_named_as_the_other_s_alternative(ground):
    """One of them declares GCJ-02 and sends BD-09, or the other declares BD-09 and sends GCJ-02: nobody can know."""
    senders = [Sender("hotline", "gcj02", "bd09"), Sender("video", "bd09")]
    guard = found(ground, traffic(ground, senders, hours=24))
    assert keys(guard.findings) == [("hotline", "", "gcj02", "bd09"), ("video", "", "bd09", "gcj02")]
    assert [one.or_else for one in guard.findings] == ["video", "hotline"]
    assert "or else video is wrong" in str(guard.findings[0])


def test_what_cannot_be_explained_by_another_datum_of_its_own_is_the_other_s_fault(ground):
    """A source in WGS-84 would have to be shifted the other way; no datum does that."""
    senders = [Sender("hotline", "gcj02", "bd09"), Sender("patrol", "wgs84")]
    guard = found(ground, traffic(ground, senders, hours=24))
    assert keys(guard.findings) == [senders[0].key]
    assert guard.findings[0].or_else == ""


# ------------------------------------------------------------------------------------------------ devices and places


def alarms(ground: DatumGround, devices: Sequence[Any], sender: Sender, *, east_m: float = 0.0) -> list[Said]:
    """Each device says something once, and where it is, to fifteen metres."""
    chance = random.Random(7)
    told = []
    for number, device in enumerate(devices):
        lon, lat = said_at(sender, device.lon + east_m / 86_900, device.lat, chance)
        time_ms = START_MS + number * 10 * MINUTE_MS
        told.append(Said(sender, lon, lat, -1, time_ms, time_ms, device.id))
    return told


def devices_of(made: IntakePack, kind: str) -> list[Any]:
    return [one for one in made.pack.devices.values() if one.kind == kind]


def test_devices_alone_convict_the_platform_that_places_them(made):
    wrong = Sender("video", "wgs84", "bd09")
    guard = found(made.ground, alarms(made.ground, devices_of(made, "camera"), wrong))
    assert keys(guard.findings) == [wrong.key]
    assert found(made.ground, alarms(made.ground, devices_of(made, "camera"), Sender("video", "wgs84"))).findings == ()


def test_one_device_is_one_witness_however_often_it_speaks(made):
    wrong = Sender("video", "wgs84", "bd09")
    few = devices_of(made, "camera")[:7] * 50
    assert found(made.ground, alarms(made.ground, few, wrong)).findings == ()


def test_devices_decide_between_two_who_contradict_each_other(made):
    ground = made.ground
    hotline, video = Sender("hotline", "gcj02", "bd09"), Sender("video", "bd09")
    told = sorted(
        [*traffic(ground, [hotline, video], hours=24), *alarms(ground, devices_of(made, "camera"), video)],
        key=lambda one: one.came_ms,
    )
    guard = found(ground, told)
    assert keys(guard.findings) == [hotline.key]
    assert guard.findings[0].or_else == ""


def test_tickets_with_coordinates_and_a_known_place_convict_the_map_they_were_placed_on(made):
    places = [one for one in made.pack.places if one.accuracy_m <= 100][:40]
    chance = random.Random(3)

    def tickets(sender: Sender) -> list[Said]:
        told = []
        for number, place in enumerate(places):
            time_ms = START_MS + number * 3 * HOUR_MS
            lon, lat = said_at(sender, place.lon, place.lat, chance)
            told.append(Said(sender, lon, lat, 1, time_ms, time_ms, address=f"{place.name}门口"))
        return told

    wrong = Sender("hotline", "gcj02", "bd09", sigma_m=60)
    assert keys(found(made.ground, tickets(wrong)).findings) == [wrong.key]
    assert found(made.ground, tickets(replace(wrong, really=""))).findings == ()


@pytest.mark.parametrize("east_m", [-450, 900])
def test_an_offset_that_no_datum_explains_is_named_as_one(made, east_m):
    guard = found(made.ground, alarms(made.ground, devices_of(made, "camera"), Sender("video", "wgs84"), east_m=east_m))
    (finding,) = guard.findings
    assert keys([finding]) == [("video", "", "wgs84", "")]
    assert finding.east_m == pytest.approx(east_m, abs=20)
    assert finding.north_m == pytest.approx(0, abs=20)
    assert "no datum explains" in str(finding)


@pytest.mark.parametrize("east_m", [0, 150, 2_000])
def test_an_offset_that_is_inaccuracy_or_another_city_s_is_none(made, east_m):
    told = alarms(made.ground, devices_of(made, "camera"), Sender("video", "wgs84"), east_m=east_m)
    assert found(made.ground, told).findings == ()


def test_devices_that_scatter_have_no_offset(made):
    told = alarms(made.ground, devices_of(made, "camera"), Sender("video", "wgs84", sigma_m=700))
    assert found(made.ground, told).findings == ()


# --------------------------------------------------------------------------------------------------- how it ends


def test_a_finding_goes_when_the_sender_is_put_right(ground):
    wrong = Sender("hotline", "gcj02", "bd09")
    right = replace(wrong, really="")
    guard = DatumGuard(ground)
    take(guard, traffic(ground, [wrong, *RIGHT[1:]], hours=24))
    assert keys(guard.findings) == [wrong.key]
    take(guard, traffic(ground, [right, *RIGHT[1:]], hours=48, start_ms=START_MS + DAY_MS))
    assert guard.findings == ()


def test_a_finding_goes_three_days_after_its_sender_was_last_heard(ground):
    """So it is with a platform that declares what it sends from now on: under the old name nothing comes any more."""
    wrong = Sender("hotline", "gcj02", "bd09")
    guard = DatumGuard(ground)
    take(guard, traffic(ground, [wrong, *RIGHT[1:]], hours=24))
    take(guard, traffic(ground, RIGHT[1:], hours=48, start_ms=START_MS + DAY_MS, seed=2))
    assert keys(guard.findings) == [wrong.key]
    take(guard, traffic(ground, RIGHT[1:], hours=48, start_ms=START_MS + 3 * DAY_MS, seed=3))
    assert guard.findings == ()


# ------------------------------------------------------------------------------------------ determinism and bounds


@pytest.fixture(scope="module")
def mixed(made: IntakePack) -> list[Said]:
    """All that can be evidence, with findings that come, change and go."""
    ground = made.ground
    hotline = Sender("hotline", "gcj02", "bd09")
    told = traffic(ground, [hotline, *RIGHT[1:]], hours=12)
    told += alarms(ground, devices_of(made, "camera"), Sender("video", "wgs84"), east_m=600)
    told += traffic(ground, [replace(hotline, really=""), *RIGHT[1:]], hours=24, start_ms=START_MS + 12 * HOUR_MS)
    return sorted(told, key=lambda one: one.came_ms)


def history(ground: DatumGround, told: Sequence[Said], cuts: Sequence[int]) -> list[tuple[Finding, ...]]:
    """What is found at each cut."""
    guard = DatumGuard(ground)
    states = []
    for start, end in zip([0, *cuts], cuts, strict=False):
        take(guard, told[start:end])
        states.append(guard.findings)
    return states


@given(st.lists(st.integers(1, 2_000), max_size=30, unique=True))
@example([])
@example(list(range(1, 900)))
def test_how_reports_are_batched_changes_nothing(made, mixed, cuts):
    """At each cut that two ways of batching share the same is known."""
    marks = list(range(100, len(mixed), 100))
    cuts = sorted({*marks, *(cut for cut in cuts if cut < len(mixed))})
    states = dict(zip(cuts, history(made.ground, mixed, cuts), strict=True))
    expected = dict(zip(marks, _plainly(made.ground, mixed, marks), strict=True))
    assert {mark: states[mark] for mark in marks} == expected


_PLAIN: dict[int, list[tuple[Finding, ...]]] = {}


def _plainly(ground: DatumGround, told: Sequence[Said], marks: Sequence[int]) -> list[tuple[Finding, ...]]:
    if len(told) not in _PLAIN:
        _PLAIN[len(told)] = history(ground, told, marks)
        assert len(set(_PLAIN[len(told)])) > 3, "something is found, and changes"
    return _PLAIN[len(told)]


def test_one_report_at_a_time_finds_the_same(made, mixed):
    assert history(made.ground, mixed, range(1, len(mixed)))[-1] == history(made.ground, mixed, [len(mixed) - 1])[-1]


def test_senders_beyond_the_bound_are_not_looked_at_and_harm_nobody(ground):
    """Whoever invents a platform for each message."""
    wrong = Sender("hotline", "gcj02", "bd09")
    known = traffic(ground, [wrong, *RIGHT[1:]], hours=12)
    more = traffic(ground, RIGHT[1:], hours=12, start_ms=START_MS + 12 * HOUR_MS, seed=2)
    noise = [
        replace(one, sender=replace(one.sender, platform=f"p{number}"))
        for number, one in enumerate(traffic(ground, RIGHT, hours=36, seed=3, start_ms=START_MS + 12 * HOUR_MS))
    ]
    guard = found(ground, sorted([*known, *more, *noise], key=lambda one: one.came_ms))
    assert keys(guard.findings) == [wrong.key]
    assert len(guard._senders) == MOST_SENDERS
    assert len(guard._platforms) <= 1_000
    assert guard.memory_bytes < 4 << 20


def test_more_reports_than_are_remembered_are_taken(ground):
    """More than that come before any of them has waited long enough; each event is in a group of its own."""
    wrong = Sender("hotline", "gcj02", "bd09")
    chance = random.Random(5)
    told = []
    for event in range(23_000):
        time_ms = START_MS + event * 600
        lon, lat = somewhere(chance)
        told += [
            Said(sender, *said_at(sender, lon, lat, chance), event, time_ms, time_ms) for sender in (wrong, *RIGHT[1:])
        ]
    assert told[REMEMBERED].came_ms - told[0].came_ms < 2 * HOUR_MS
    told.append(replace(told[-1], group=23_000, came_ms=told[-1].came_ms + 3 * HOUR_MS))
    assert keys(found(ground, told, batch=10_000).findings) == [wrong.key]


# ---------------------------------------------------------------------------------------------------------- shifts


@given(st.floats(119.935, 119.965), st.floats(38.735, 38.765), st.sampled_from(DATUMS), st.sampled_from([0, 1]))
def test_a_view_is_where_the_other_datum_has_the_position(made, lon, lat, declared, which):
    """To seven metres, by the lattice; the conversions themselves are tested with `geo.datum`."""
    ground = made.ground
    number = DATUMS.index(declared)
    there = to_wgs84(*from_wgs84(lon, lat, declared), DATUMS[others(number)[which]])
    x, y = ground.plane_dm(round(lon * 1e7), round(lat * 1e7))
    expected = ground.plane_dm(round(float(there[0]) * 1e7), round(float(there[1]) * 1e7))
    shift = ground.shifts[ground.lattice(round(lon * 1e7), round(lat * 1e7)), number, 1 + which]
    assert math.hypot(x + shift[0] - expected[0], y + shift[1] - expected[1]) <= 70


def test_where_datums_agree_there_is_nothing_to_be_told_apart(made):
    """Outside China GCJ-02 is WGS-84; Baidu's own shift is everywhere."""
    abroad = DatumGround((-71.2, 42.2, -70.9, 42.4), {}, made.gazetteer)
    wgs84 = abroad.shifts[:, DATUMS.index("wgs84")]
    assert (wgs84[:, [1, 3, 4]] == 0).all()
    assert (wgs84[:, 2] != 0).all()


def test_a_city_of_any_size_has_a_lattice_of_bounded_size(made):
    wide = DatumGround((73.5, 18.2, 135.0, 53.5), {}, made.gazetteer)
    assert len(wide.shifts) <= 201 * 201
    assert wide.lattice(-1_800_000_000, -900_000_000) == 0
    assert wide.lattice(1_800_000_000, 900_000_000) == len(wide.shifts) - 1


# --------------------------------------------------------------------------------------------------------- kernels

_SHIFTS = np.zeros((1, len(DATUMS), VIEWS, 2), np.int32)
_SHIFTS[0, :, 1:] = [(3_000, 0), (0, 4_200), (0, 3_000), (0, -3_000), (-4_200, 0), (4_200, 0)]
_SHIFTS[0, 2, 1] = 0  # a datum that is not told apart here

row = st.tuples(
    st.integers(0, 4),  # sender
    st.integers(-8, 8),  # east
    st.integers(-8, 8),  # north
    st.integers(0, 1),  # group
    st.integers(0, 40),  # event time
    st.integers(0, 20),  # how long after the one before it comes
)
# Source and declared datum of each sender; the last one does not place itself.
_OF_SENDER = [(0, 0), (1, 1), (1, 2), (2, 0), (3, -1)]
# So that steps meet the bounds, and the pause is within one or not.
_STEP_DM, _STEP_MS, _GAP_MS = NEAR_DM // 2, CLOSE_MS // 8, PAUSE_MS // 2


def laid_out(rows: Sequence[tuple[int, ...]]) -> list[dict[str, int]]:
    reports = []
    arrived_ms = 0
    for sender, east, north, group, time, gap in rows:
        arrived_ms += gap * _GAP_MS
        source, datum = _OF_SENDER[sender]
        one = {"x_dm": east * _STEP_DM, "y_dm": north * _STEP_DM, "group": group, "time_ms": time * _STEP_MS}
        reports.append({**one, "sender": sender, "source": source, "datum": datum, "arrived_ms": arrived_ms})
    return reports


def as_columns(reports: Sequence[dict[str, int]]) -> tuple[np.ndarray[Any, Any], ...]:
    """In the order of the kernel; a unit of longitude or latitude is a decimetre here, for the layout says so."""

    def column(name: str, dtype: Any) -> np.ndarray[Any, Any]:
        return np.array([one[name] for one in reports], dtype)

    datum = column("datum", np.int8)
    return (
        np.arange(len(reports)), column("source", np.int8), column("sender", np.int16),
        np.where(datum < 0, np.int8(REGISTRY), datum), column("group", np.int32), column("x_dm", np.int32),
        column("y_dm", np.int32), np.zeros(len(reports), np.int32), column("time_ms", np.int64),
        column("arrived_ms", np.int64),
    )  # fmt: skip


def evidence_by_definition(reports: Sequence[dict[str, int]], wait_ms: int) -> dict[int, list[list[int]]]:
    """The plain double loop: of each sender the masks of every report of it that somebody is near to in some view."""
    came: list[Any] = []
    tried: set[int] = set()
    tried_ms: dict[int, int] = {}
    evidence: dict[int, list[list[int]]] = defaultdict(list)

    def alike(one: Any, other: Any, x: int, y: int) -> bool:
        away = (int(other["x_dm"]) - x) ** 2 + (int(other["y_dm"]) - y) ** 2
        is_close = abs(int(one["time_ms"]) - int(other["time_ms"])) <= CLOSE_MS
        return bool(one["group"] == other["group"] and is_close and away <= NEAR_DM**2)

    def look(number: int) -> None:
        one = came[number]
        x, y = int(one["x_dm"]), int(one["y_dm"])
        own = [at for at in tried if came[at]["sender"] == one["sender"] and alike(one, came[at], x, y)]
        sender, arrived_ms = int(one["sender"]), int(one["arrived_ms"])
        is_soon = sender in tried_ms and arrived_ms - tried_ms[sender] < PAUSE_MS
        if one["datum"] < 0 or own or is_soon:
            return
        tried.add(number)
        tried_ms[sender] = arrived_ms
        masks = []
        for view, (east, north) in enumerate(_SHIFTS[0, one["datum"]].tolist()):
            near = [it for it in came if it["source"] != one["source"] and alike(one, it, x + east, y + north)]
            mask = 0
            for it in near if view == 0 or (east, north) != (0, 0) else []:
                mask |= 1 << int(it["sender"])
            masks.append(mask)
        if any(masks):
            evidence[sender].append(masks)

    first = 0
    for report in reports:
        while first < len(came) and report["arrived_ms"] - came[first]["arrived_ms"] >= wait_ms:
            look(first)
            first += 1
        came.append(report)
    return evidence


@given(st.lists(row, max_size=40), st.sampled_from([0, 4 * _GAP_MS, 40 * _GAP_MS]), st.integers(1, 40))
@example([(0, 0, 0, 0, 0, 0), (1, 2, 0, 0, 8, 0), (3, 5, 0, 0, 0, 20), (3, 8, 8, 1, 0, 20)], 0, 1)  # at every bound
def test_the_kernel_finds_the_neighbours_of_the_plain_double_loop(rows, wait_ms, cut):
    reports = laid_out(rows)
    state = (
        np.array([0, 0, 10**6, 1, 1]), np.ones(2), np.zeros(REMEMBERED, REPORT), np.full(BUCKETS, -1, np.int64),
        np.array([0, 0, -(2**62), 2**62]), _SHIFTS, np.zeros((MOST_SENDERS, EVIDENCE, VIEWS), np.int64),
        np.zeros((MOST_SENDERS, EVIDENCE), np.int64), np.zeros(MOST_SENDERS, np.int64),
        np.zeros(MOST_SENDERS, np.int64), np.full(MOST_SENDERS, -(2**62)), np.zeros(MOST_SENDERS, np.bool_),
    )  # fmt: skip
    for part in (reports[:cut], reports[cut:]):
        start, who = 0, 0
        while who != NOBODY:
            start, who = take_reports(start, len(part), *state, wait_ms, *as_columns(part))
    masks, counts = state[6], state[8]
    expected = evidence_by_definition(reports, wait_ms)
    got = {sender: masks[sender, : counts[sender]].tolist() for sender in np.flatnonzero(counts).tolist()}
    assert got == expected


seen = st.tuples(st.integers(0, 5), st.lists(st.integers(0, 7), min_size=VIEWS, max_size=VIEWS))


@given(st.lists(seen, max_size=60), st.integers(0, 7))
@example([(0, [1] * VIEWS)] * (EVIDENCE + 10), 0)
def test_views_are_counted_as_by_hand_and_no_square_counts_more_than_four_times(rows, excluded):
    masks, squares = np.zeros((1, EVIDENCE, VIEWS), np.int64), np.zeros((1, EVIDENCE), np.int64)
    for number, (square, mask) in enumerate(rows):
        masks[0, number % EVIDENCE], squares[0, number % EVIDENCE] = mask, square * 100_003 - 7
    into = np.ones(VIEWS + 4, np.int64)
    count_views(0, excluded, masks, squares, np.array([len(rows)]), into)
    held: dict[tuple[int, int], int] = defaultdict(int)
    for square, mask in rows[-EVIDENCE:]:
        near = [bool(one & ~excluded) for one in mask]
        kinds = [
            *near, near[1] and not near[0], near[2] and not near[0], near[0] and not near[1], near[0] and not near[2]
        ]  # fmt: skip
        for kind, holds in enumerate(kinds):
            held[square, kind] += holds
    expected = [
        sum(min(MOST_OF_SQUARE, count) for (_, of), count in held.items() if of == kind) for kind in range(VIEWS + 4)
    ]
    assert into.tolist() == expected


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([1 / 2, 1 / 3]))
def test_a_surprise_is_never_greater_than_the_exact_odds_allow(hits, misses, share):
    """The chance of so many hits or more, summed up term by term, is at most e to minus it."""
    of = hits + misses
    tail = sum(math.comb(of, n) * share**n * (1 - share) ** (of - n) for n in range(hits, of + 1))
    assert tail <= math.exp(-_surprise(hits, of, share)) * (1 + 1e-9)


def test_positions_of_the_registry_and_of_names_are_witnesses_and_no_suspects(ground):
    """What a camera reports from where it stands convicts a hotline, and is not convicted by it."""
    wrong = Sender("hotline", "wgs84", "gcj02")
    told = [
        replace(one, placed_by={"video": REGISTRY, "patrol": BY_NAME}.get(one.sender.source))
        for one in traffic(ground, [wrong, *RIGHT[1:]], hours=24)
    ]
    guard = found(ground, told)
    assert keys(guard.findings) == [wrong.key]
    assert guard.findings[0].or_else == ""


# -------------------------------------------------------------------------------------------------------- in intake


def seen_by(made: IntakePack, crs: str, really: str, *, only_outside: bool = False) -> Intake:
    """Every camera of the pack says once where it saw something: at its own place."""
    intake = Intake(made, TEST_KEY)
    records = []
    for number, camera in enumerate(devices_of(made, "camera")):
        at_ms = START_MS + number * 10 * MINUTE_MS
        lon, lat = (float(one) for one in from_wgs84(camera.lon, camera.lat, really))
        read = to_wgs84(lon, lat, crs)
        if only_outside and made.pack.grid.locate(*(np.array([float(one)]) for one in read))[0] >= 0:
            continue
        event = {
            "id": f"V{number}", "time": at_ms, "camera_id": camera.id, "event_type": "garbage_exposed",
            "confidence": 0.9, "lon": lon, "lat": lat, "crs": crs,
        }  # fmt: skip
        records.append(SourceRecord("video.events", 0, number, at_ms, None, json.dumps(event).encode()))
    batch = intake.take(records)
    assert len(batch.reports) + len(batch.dead_letters) == len(records) > 10
    assert not (only_outside and len(batch.reports))
    return intake


def test_cgcs2000_counts_as_wgs84(made):
    """They differ by less than a metre, so neither can be told from the other."""
    (finding,) = seen_by(made, "cgcs2000", "gcj02").datum_findings
    assert keys([finding]) == [("video", "", "wgs84", "gcj02")]
    assert seen_by(made, "cgcs2000", "wgs84").datum_findings == ()


def test_what_another_datum_puts_outside_of_the_city_is_evidence_too(made):
    """Of such a platform nothing but dead letters may come, and still they say what is wrong."""
    (finding,) = seen_by(made, "wgs84", "bd09", only_outside=True).datum_findings
    assert keys([finding]) == [("video", "", "wgs84", "bd09")]


def test_another_pack_begins_anew(made):
    """It may be the one that declares what is sent."""
    intake = seen_by(made, "wgs84", "bd09")
    assert intake.datum_findings
    intake.use(made)
    assert intake.datum_findings == ()
