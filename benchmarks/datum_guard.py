"""Who is named when a sender's datum is wrong, how soon, and who is named when none is.

    python -m benchmarks.datum_guard [--seeds N] [--save]

Workload: simulated weeks and days of the sample city.  What a sender says is rewritten on the way: its positions are in
another datum than before, all of them or a share; or they are scattered.  Only intake and the guard are run, with the
records as they came.  A case is right if every sender rewritten wholly is named with its true datum, and nobody else.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.results_file import tell
from geo.datum import from_wgs84, to_wgs84
from geo.plane import metres_per_degree
from streams.datum_guard import Finding
from streams.error_model import SCENARIOS, read_error_model, shipped_text
from streams.intake import Intake, IntakePack, SourceRecord
from streams.messages import platform_named, source_of
from streams.pack import load_pack
from streams.privacy import TEST_KEY
from streams.recording import RecordedMessage
from streams.simulation import simulate

ROOT = Path(__file__).resolve().parent.parent
START = datetime.fromisoformat("2026-06-01T00:00:00+08:00")
BATCH = 500
HOUR_MS = 3_600_000

Rewrite = Callable[[dict[str, Any], str], None]
"""Changes a message, given the datum that it declares."""
# Where the two platforms that the sample pack maps have a position.
_PLACES = {"tingwu": ("head", "dev"), "tingshi": ("pos",)}


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
    messages: list[RecordedMessage], made: IntakePack, source: str, rewrite: Rewrite
) -> Iterator[RecordedMessage]:
    """The messages, with every position of a source's own format rewritten."""
    entry = made.pack.sources[source].crs
    for message in messages:
        platform = platform_named(message.headers)
        if source_of(message.topic) != source or platform in _PLACES:
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


def history(
    messages: Iterator[RecordedMessage] | list[RecordedMessage], made: IntakePack
) -> list[tuple[float, tuple[Finding, ...]]]:
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
    told.append((((records[-1].timestamp_ms or 0) - first_ms) / HOUR_MS, intake.datum_findings))
    return told


def key(finding: Finding) -> tuple[str, str, str]:
    return finding.sender, finding.declared, finding.really
