"""How many reports a second one core carries: `python -m benchmarks.replay_throughput [--save]`.

Workload: the hotline tickets and grid workers' reports of simulated days in the sample city (seeded), those with
coordinates, through `streams.replay` in process, kernels compiled.  The rival does the same work a message at a time:
`json`, a shapely STRtree, a dict of grid squares; it knows radius and window, no score.  Where the pack weighs nothing,
both must put nearly the same reports together; the service is timed with the pack as it is, score and all.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import shapely

from benchmarks.results_file import tell
from geo.datum import to_wgs84
from geo.plane import metres_per_degree
from streams.error_model import read_error_model
from streams.messages import SOURCE_OF_TOPIC
from streams.pack import CityPack, load_pack
from streams.pack_entries import YEAR_S
from streams.privacy import TEST_KEY
from streams.recording import RecordedMessage
from streams.replay import Replay
from streams.simulation import simulate

ROOT = Path(__file__).resolve().parent.parent
RUNS = 5
BATCH = 10_000
TOPICS = ("hotline.tickets", "patrol.reports")


def workload(pack: CityPack) -> list[RecordedMessage]:
    """Tickets and patrol reports of two days at three times the usual rate, seed 1; only whole, single messages.

    Those without coordinates are left out, for the rival knows no place names.
    """
    start = datetime.fromisoformat("2026-06-01T00:00:00+08:00")
    day = simulate(pack, read_error_model(), seed=1, start=start, hours=48, rate=3.0)
    messages = [message for message in day.messages if message.topic in TOPICS and message.value.startswith(b"{")]
    # Refusing bad messages is not what is compared: only those that become reports are in the workload.
    assignments, _ = Replay(pack, TEST_KEY).take(messages)
    good = {each.origin for each in assignments}
    return [each for each in messages if origin_of(each) in good and "lon" in json.loads(each.value)]


def origin_of(message: RecordedMessage) -> str:
    return f"{message.topic}:{message.partition}:{message.offset}:0"


def ours(pack: CityPack, messages: list[RecordedMessage]) -> dict[str, str]:
    """Report origin to incident, by the service's pipeline."""
    replay = Replay(pack, TEST_KEY)
    incident_of: dict[str, str] = {}
    for start in range(0, len(messages), BATCH):
        assignments, _ = replay.take(messages[start : start + BATCH])
        incident_of |= {each.origin: each.incident_id for each in assignments if each.incident_id}
    return incident_of


def rival(pack: CityPack, messages: list[RecordedMessage]) -> dict[str, str]:
    """The same, one message at a time, as one would write it first."""
    tree = shapely.STRtree(pack.grid.geometries)
    squares: defaultdict[tuple[str, int, int], list[list[float]]] = defaultdict(list)
    names: list[str] = []
    known: dict[tuple[str, str, str], int] = {}
    incident_of: dict[str, str] = {}
    for message in messages:
        source = SOURCE_OF_TOPIC[message.topic]
        origin = origin_of(message)
        report = json.loads(message.value)
        when = report["time"]
        if isinstance(when, str):
            when = datetime.fromisoformat(when).timestamp() * 1000
        entry = pack.sources[source]
        kind = pack.category_of(source, report["category"])
        if kind < 0:
            kind = pack.category_index(entry.fallback_category or "")
        accuracy = float(report.get("accuracy_m", entry.accuracy_m))
        lon, lat = report.get("lon"), report.get("lat")
        if lon is not None:
            lons, lats = to_wgs84(np.array([lon]), np.array([lat]), report.get("crs") or entry.crs)
            lon, lat = float(lons[0]), float(lats[0])
            cell = tree.query(shapely.Point(lon, lat), predicate="intersects").min()
            assert cell >= 0
        category = pack.categories[kind]
        name = (category.group, source, report["id"])
        if name in known:
            if known[name] >= 0:
                incident_of[origin] = names[known[name]]
            continue
        known[name] = -1
        if not category.event:
            continue
        best, best_key = -1, (float("inf"), 0.0)
        if lon is not None:
            m_lon, m_lat = (float(each) for each in metres_per_degree(lat))
            side = 400.0
            column, row = int(lon * 86_000 // side), int(lat * 111_000 // side)
            for x in (column - 1, column, column + 1):
                for y in (row - 1, row, row + 1):
                    for other in squares.get((category.group, x, y), ()):
                        of = pack.categories[int(other[3])]
                        d = ((other[0] - lon) * m_lon) ** 2 + ((other[1] - lat) * m_lat) ** 2
                        reach = of.radius_m + min(max(accuracy, other[6]), of.accuracy_cap_m)
                        if (
                            d <= reach * reach
                            and abs(when - other[2]) <= of.window_s * 1000
                            and (d, other[5]) < best_key
                        ):
                            best, best_key = int(other[4]), (d, other[5])
                            found = other
        if best < 0:
            best = len(names)
            names.append(origin)
            if lon is not None:
                squares[category.group, column, row].append([lon, lat, when, kind, best, when, accuracy])
        else:
            found[2] = max(found[2], when)
            if 2 * accuracy <= found[6] != 0:  # placed better than before
                square = (category.group, int(found[0] * 86_000 // side), int(found[1] * 111_000 // side))
                squares[square].remove(found)
                found[0], found[1], found[6] = lon, lat, accuracy
                squares[category.group, column, row].append(found)
        known[name] = best
        incident_of[origin] = names[best]
    return incident_of


def same_partition(one: dict[str, str], other: dict[str, str]) -> float:
    """Share of reports that are put together with the same reports by both."""
    groups: list[dict[str, frozenset[str]]] = []
    for answer in (one, other):
        members: defaultdict[str, set[str]] = defaultdict(set)
        for origin, incident in answer.items():
            members[incident].add(origin)
        groups.append({origin: frozenset(members[incident]) for origin, incident in answer.items()})
    assert one.keys() == other.keys(), sorted(one.keys() ^ other.keys())[:5]
    return sum(groups[0][origin] == groups[1][origin] for origin in one) / len(one)


def unweighed(pack: CityPack) -> CityPack:
    """The pack with radius and window alone: no threshold, and of those near the nearest."""
    categories = []
    for category in pack.categories:
        match = replace(
            category.match, prior=None, spread_m=5_000.0, decay_s=YEAR_S, gap_percent=0, rhythm_percent=0, same_place=0,
            same_place_window_s=category.window_s, text_percent=0, unrelated=1.0, sigmas=1, rethink_s=0.0, pairs={},
            again={},
        )  # fmt: skip
        categories.append(replace(category, match=match, accuracy_cap_m=30.0))
    return replace(pack, categories=tuple(categories), related=())


def main() -> None:
    pack = load_pack(ROOT / "packs" / "sample")
    messages = workload(pack)
    # The rival knows no watermark: what comes late it may still put with an incident that we no longer hold.
    plain = unweighed(pack)
    agreement = same_partition(ours(plain, messages), rival(plain, messages))
    assert agreement > 0.99, agreement
    expected = ours(pack, messages)  # also compiles the kernels
    seconds: dict[str, list[float]] = {"ours": [], "rival": []}
    for _ in range(RUNS):
        for name, run in (("ours", ours), ("rival", rival)):
            started = time.process_time()
            answer = run(pack, messages)
            seconds[name].append(time.process_time() - started)
            assert len(answer) == len(expected)
    rate = {name: round(len(expected) / statistics.median(times)) for name, times in seconds.items()}
    result: dict[str, object] = {
        "reports": len(expected),
        "reports_per_cpu_second": rate,
        "ratio": round(rate["ours"] / rate["rival"], 1),
        "agreement": round(agreement, 5),
        "runs": RUNS,
    }
    tell("replay_throughput", result)


if __name__ == "__main__":
    main()
