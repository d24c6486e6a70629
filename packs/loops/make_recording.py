"""Makes a recording and the rest of this pack from a week of speeds at the loop detectors of Los Angeles' freeways.

    D="$CITYBRAIN_DATA/traffic"
    python -m packs.loops.make_recording "$D/la_loop_speed_mph_wide.csv.gz" "$D/la_loop_sensors.csv" build/loops
    citybrain build-pack --boundaries build/loops/boundary.geojson --cell-m 1000 --out build/loops/pack
    citybrain check-city build/loops/pack
    citybrain replay build/loops/recording.jsonl.gz --city build/loops/pack --out build/loops/replay

The table (published with the models T-GCN and DCRNN) has a line for every five minutes and a column for each detector,
the mean speed of those five minutes in mph.  A record of the recording is a line, as a gateway would send it when the
five minutes are over: an array of readings, one for each detector.

**What is missing.** An empty field, or a speed of 0 (which is how the first publishers wrote that a detector was
silent), becomes no reading.  The table at hand has neither: who published it had filled the gaps with straight lines.
So some of its readings were never measured, and nothing in it says which; how many lie on a straight line of six and
more is printed.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

SLOT_MS = 300_000
MARGIN_DEG = 0.005
"""Half a kilometre around the outermost detectors."""
STRAIGHT = 6
ROUNDING_MPH = 0.0151
"""Three speeds of two decimals lie on a line if their second difference is no more than this."""

Speeds = tuple[int, list[float | None]]
"""When the five minutes began, Unix ms, and the mean speed at each detector, mph; None where it was silent."""


def read_speeds(lines: Iterator[str]) -> tuple[list[str], Iterator[Speeds]]:
    """The detectors' names and the lines of the wide table."""
    rows = csv.reader(lines)
    detectors = next(rows)[1:]
    return detectors, (
        (round(datetime.fromisoformat(at).timestamp() * 1000), [_speed(field) for field in fields])
        for at, *fields in rows
    )


def _speed(field: str) -> float | None:
    speed = float(field) if field.strip() else math.nan
    return speed if speed > 0 else None


def read_sensors(lines: Iterator[str]) -> dict[str, tuple[str, str]]:
    """Each detector's longitude and latitude, as written."""
    return {row["sensor_id"]: (row["longitude"], row["latitude"]) for row in csv.DictReader(lines)}


def record_line(at_ms: int, detectors: Sequence[str], speeds: Sequence[float | None]) -> str:
    """One line of the recording: all readings of five minutes."""
    readings = [
        {
            "id": f"{detector}-{at_ms // SLOT_MS}",
            "time": at_ms,
            "device_id": detector,
            "metric": "speed_mph",
            "value": speed,
            "unit": "mph",
        }
        for detector, speed in zip(detectors, speeds, strict=True)
        if speed is not None
    ]
    return json.dumps({"topic": "iot.readings", "timestamp": at_ms + SLOT_MS, "value": readings}) + "\n"


def boundary(sensors: dict[str, tuple[str, str]]) -> str:
    """The box around all detectors, as a county."""
    lon = [float(lon) for lon, _ in sensors.values()]
    lat = [float(lat) for _, lat in sensors.values()]
    west, east = round(min(lon) - MARGIN_DEG, 4), round(max(lon) + MARGIN_DEG, 4)
    south, north = round(min(lat) - MARGIN_DEG, 4), round(max(lat) + MARGIN_DEG, 4)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    properties = {"code": "990201", "name": "Los Angeles freeways"}
    feature = {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    return json.dumps({"type": "FeatureCollection", "features": [feature]}) + "\n"


def on_straight_lines(rows: Sequence[Speeds]) -> int:
    """How many readings lie with at least five neighbours in time on one straight line."""
    found = 0
    for column in zip(*(speeds for _, speeds in rows), strict=True):
        run = 0
        for a, b, c in zip(column, column[1:], (*column[2:], None), strict=False):
            if a is not None and b is not None and c is not None and abs(a - 2 * b + c) <= ROUNDING_MPH:
                run += 1
            else:
                found += run + 2 if run + 2 >= STRAIGHT else 0
                run = 0
    return found


def main(speeds: Path, sensors: Path, out: Path) -> str:
    """Write the recording, the boundary and the pack's files; returns what was found."""
    with sensors.open(encoding="utf-8", newline="") as lines:
        places = read_sensors(lines)
    with gzip.open(speeds, "rt", encoding="utf-8", newline="") as lines:
        detectors, table = read_speeds(lines)
        rows = list(table)
    pack = out / "pack"
    pack.mkdir(parents=True, exist_ok=True)
    with gzip.GzipFile(out / "recording.jsonl.gz", "wb", mtime=0) as recording:
        for at_ms, row in rows:
            recording.write(record_line(at_ms, detectors, row).encode())
    (out / "boundary.geojson").write_text(boundary(places), encoding="utf-8")
    for name in ("city.toml", "catalogue.toml"):
        shutil.copy(Path(__file__).parent / name, pack / name)
    with (pack / "devices.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "kind", "lon", "lat", "expected_interval_s"])
        writer.writerows([detector, "loop", *places[detector], SLOT_MS // 1000] for detector in detectors)
    silent = sum(speed is None for _, row in rows for speed in row)
    readings = len(rows) * len(detectors) - silent
    return (
        f"{readings:,} readings of {len(detectors)} detectors in {len(rows):,} records; {silent:,} missing; "
        f"{on_straight_lines(rows):,} on straight lines of {STRAIGHT} and more, as filled gaps are"
    )


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python -m packs.loops.make_recording SPEEDS.csv.gz SENSORS.csv OUT")
    sys.stdout.write(main(*map(Path, sys.argv[1:])) + "\n")
