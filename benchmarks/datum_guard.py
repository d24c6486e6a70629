"""Who is named when a sender's datum is wrong, how soon, and who is named when none is.

    python -m benchmarks.datum_guard [--seeds N] [--days] [--save]

Workload: simulated weeks of the sample city (with ``--days``, its dense demonstration days), seeds 1 to N.  What one
source says is rewritten on the way: its positions are in another datum than before, all of them or a share; they are
scattered, moved, or all the same.  Only intake and its guard are run.  Told of each case: in how many of the runs the
source was named with what is true, after how many hours first (median), and in how many anybody was named wrongly at
any time.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from benchmarks.results_file import tell
from geo.datum import from_wgs84, to_wgs84
from geo.plane import metres_per_degree
from streams.datum_guard import Finding
from streams.error_model import SCENARIOS, read_error_model, shipped_text
from streams.intake import Intake, IntakePack, SourceRecord
from streams.messages import platform_named, source_of
from streams.pack import load_pack, parse_pack, read_pack_files
from streams.privacy import TEST_KEY
from streams.recording import RecordedMessage
from streams.simulation import simulate

SAMPLE = Path(__file__).resolve().parent.parent / "packs" / "sample"
START = datetime.fromisoformat("2026-06-01T00:00:00+08:00")
BATCH = 500
HOUR_MS = 3_600_000

Rewrite = Callable[[dict[str, Any], str], None]
"""Changes a message, given the datum that it declares."""
# These name their fields their own way; what they send is read as another datum by another pack.
_MAPPED = ("tingwu", "tingshi")


def in_other_datum(datum_of: dict[str, str], share: float, seed: int = 0) -> Rewrite:
    """A share of the positions is in another datum than declared, by the one declared."""
    chance = random.Random(seed)

    def rewrite(message: dict[str, Any], declared: str) -> None:
        if chance.random() < share:
            lon, lat = to_wgs84(message["lon"], message["lat"], declared)
            lon, lat = from_wgs84(lon, lat, datum_of["wgs84" if declared == "cgcs2000" else declared])
            message["lon"], message["lat"] = round(float(lon), 7), round(float(lat), 7)

    return rewrite


def scattered(sigma_m: float, seed: int = 0) -> Rewrite:
    """Positions are anywhere within some hundred metres or kilometres."""
    chance = random.Random(seed)

    def rewrite(message: dict[str, Any], _declared: str) -> None:
        m_lon, m_lat = (float(one) for one in metres_per_degree(message["lat"]))
        message["lon"] += chance.gauss(0, sigma_m) / m_lon
        message["lat"] += chance.gauss(0, sigma_m) / m_lat

    return rewrite


def moved(east_m: float, north_m: float) -> Rewrite:
    """Positions lie off by a constant."""

    def rewrite(message: dict[str, Any], _declared: str) -> None:
        m_lon, m_lat = (float(one) for one in metres_per_degree(message["lat"]))
        message["lon"] += east_m / m_lon
        message["lat"] += north_m / m_lat

    return rewrite


def at_one_point(message: dict[str, Any], _declared: str) -> None:
    """Positions are all that of one building."""
    message["lon"], message["lat"] = 119.957, 38.7515


def rewritten(
    messages: Iterable[RecordedMessage], made: IntakePack, source: str, rewrite: Rewrite
) -> Iterator[RecordedMessage]:
    """The messages, with every position of a source's own format rewritten."""
    entry = made.pack.sources[source].crs
    for message in messages:
        if source_of(message.topic) != source or platform_named(message.headers) in _MAPPED:
            yield message
            continue
        try:
            value = orjson.loads(message.value)
        except orjson.JSONDecodeError:
            yield message
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict) and isinstance(one.get("lon"), float) and isinstance(one.get("lat"), float):
                declared = one.get("crs") or entry
                if declared in ("wgs84", "cgcs2000", "gcj02", "bd09") and abs(one["lat"]) < 85:
                    rewrite(one, declared)
        yield replace(message, value=orjson.dumps(value))


def history(messages: Iterable[RecordedMessage], made: IntakePack) -> list[tuple[float, tuple[Finding, ...]]]:
    """What the guard finds, each time that changes, and after how many hours."""
    intake = Intake(made, TEST_KEY, one_clock=True)
    records = [
        SourceRecord(
            one.topic, one.partition or 0, one.offset or 0, one.timestamp_ms, one.key, one.value,
            platform_named(one.headers),
        )
        for one in messages
    ]  # fmt: skip
    first_ms = records[0].timestamp_ms or 0
    told: list[tuple[float, tuple[Finding, ...]]] = []
    known: list[tuple[str, str, str]] = []
    for start in range(0, len(records), BATCH):
        batch = records[start : start + BATCH]
        intake.take(batch)
        now = [key(one) for one in intake.datum_findings]
        if now != known:
            known = now
            told.append((((batch[-1].timestamp_ms or 0) - first_ms) / HOUR_MS, intake.datum_findings))
    return told


def key(finding: Finding) -> tuple[str, str, str]:
    return finding.sender, finding.declared, finding.really


# From the datum declared to the one that is sent: a neighbour, and the other one.
NEXT = {"wgs84": "gcj02", "gcj02": "bd09", "bd09": "gcj02"}
FAR = {"wgs84": "bd09", "gcj02": "wgs84", "bd09": "wgs84"}

Case = tuple[str, str, Rewrite | None, dict[str, str] | None]
"""Name, source, what happens to its positions, and what is then true of each declared datum; None: nothing is wrong
that should be named, "" that no datum explains it."""


def cases() -> Iterator[Case]:
    yield "as it is", "hotline", None, None
    for source in ("hotline", "video", "patrol", "iot"):
        yield f"{source}: a neighbouring datum", source, in_other_datum(NEXT, 1.0), NEXT
        yield f"{source}: a far datum", source, in_other_datum(FAR, 1.0), FAR
    for source in ("hotline", "video", "patrol"):
        yield f"{source}: moved by 800 m", source, moved(-650, 450), dict.fromkeys(NEXT, "")
    for source in ("hotline", "video", "patrol"):
        for share in (0.05, 0.25):
            yield f"{source}: {share:.0%} in another datum", source, in_other_datum(NEXT, share), None
        for sigma_m in (800, 5_000):
            yield f"{source}: scattered by {sigma_m:,} m", source, scattered(sigma_m), None
        yield f"{source}: all at one point", source, at_one_point, None


def pack_that_errs() -> IntakePack:
    """The sample pack, but for the datum of the video platform that it maps."""
    files = read_pack_files(SAMPLE)
    before, section, after = files["city.toml"].partition(b"[platform.tingshi]")
    return IntakePack(parse_pack({**files, "city.toml": before + section + after.replace(b'"bd09"', b'"gcj02"', 1)}))


def main() -> None:
    seeds = int(sys.argv[sys.argv.index("--seeds") + 1]) if "--seeds" in sys.argv else 1
    days = "--days" in sys.argv
    made, erring = IntakePack(load_pack(SAMPLE)), pack_that_errs()
    model = read_error_model() if days else read_error_model(shipped_text(SCENARIOS["normal-week"]))
    found: dict[str, dict[str, list[float]]] = {}

    def score(name: str, told: list[tuple[float, tuple[Finding, ...]]], true: set[tuple[str, str, str]]) -> None:
        """``true``: source or sender, declared and true datum."""
        of_case = found.setdefault(name, {"hours": [], "wrongly": []})
        named = [(hours, one) for hours, findings in told for one in findings]
        is_right = [
            bool({(who, one.declared, one.really) for who in (one.source, one.sender)} & true) for _, one in named
        ]
        of_case["hours"] += [hours for (hours, _), right in zip(named, is_right, strict=True) if right][:1]
        of_case["wrongly"] += [hours for (hours, _), right in zip(named, is_right, strict=True) if not right][:1]

    for seed in range(1, seeds + 1):
        messages = simulate(made.pack, model, seed=seed, start=START, hours=24 if days else 168).messages
        for name, source, rewrite, true in cases():
            changed = messages if rewrite is None else list(rewritten(messages, made, source, rewrite))
            score(name, history(changed, made), {(source, *pair) for pair in (true or {}).items()})
        score("video/tingshi: the pack errs", history(messages, erring), {("video/tingshi", "gcj02", "bd09")})
    result = {
        name: {
            "named": len(one["hours"]),
            "hours_to_first": round(statistics.median(one["hours"]), 1) if one["hours"] else None,
            "anybody_named_wrongly": len(one["wrongly"]),
        }
        for name, one in found.items()
    }
    tell("datum_guard_days" if days else "datum_guard", {"runs": seeds, "cases": result})


if __name__ == "__main__":
    main()
