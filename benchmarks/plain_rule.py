"""The plain rule, the least that a dedupe has to beat: same category, nearest open incident, sliding window.

Reads the recorded city itself and shares no code with the service, so it also checks `streams.evaluation`: the figures
that came with the recording were made by another program.  Run it as

    python -m benchmarks.plain_rule ../shared/data/boston
"""

from __future__ import annotations

import gzip
import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson

from streams.evaluation import Scores, read_answers, read_truth, score
from streams.messages import SOURCE_OF_TOPIC

METERS_A_DEGREE = 111_195.0


@dataclass
class Open:
    """An incident that may still be joined."""

    incident_id: str
    lon_deg: float
    lat_deg: float
    last_s: float


def assignments(recording: Path, *, radius_m: float, window_s: float) -> Iterator[bytes]:
    """One assignment line for each report of a recording, by the plain rule."""
    open_of_category: defaultdict[str, list[Open]] = defaultdict(list)
    with gzip.open(recording) as lines:
        for number, line in enumerate(lines):
            record = orjson.loads(line)
            value = record["value"]
            time_s = datetime.fromisoformat(value["time"]).timestamp()
            held = [i for i in open_of_category[value["category"]] if time_s - i.last_s <= window_s]
            open_of_category[value["category"]] = held
            best: Open | None = None
            if "lon" in value:
                near = [(d, i) for i in held if (d := _distance_m(value["lon"], value["lat"], i)) <= radius_m]
                best = min(near, key=lambda pair: pair[0])[1] if near else None
                if best is None:
                    held.append(Open(value["id"], value["lon"], value["lat"], time_s))
                else:
                    best.last_s = max(best.last_s, time_s)
            yield orjson.dumps(
                {
                    "origin": f"{record['topic']}:0:{number}:0",
                    "revision": 0,
                    "source": SOURCE_OF_TOPIC[record["topic"]],
                    "report_id": value["id"],
                    "incident_id": best.incident_id if best else value["id"],
                    "outcome": "joined" if best else "opened",
                    "category": value["category"],
                }
            )


def scores(folder: Path, *, radius_m: float, window_s: float) -> Scores:
    """The figures of the plain rule on the recorded quarter of a year in ``folder``."""
    recording, truth = folder / "recording-2011q3.jsonl.gz", folder / "truth-2011q3.csv.gz"
    answers = read_answers(assignments(recording, radius_m=radius_m, window_s=window_s))
    with gzip.open(truth, "rt", encoding="utf-8", newline="") as lines:
        return score(answers, read_truth(lines, name=str(truth)))


def _distance_m(lon_deg: float, lat_deg: float, incident: Open) -> float:
    east = (lon_deg - incident.lon_deg) * math.cos(math.radians(lat_deg))
    return math.hypot(east, lat_deg - incident.lat_deg) * METERS_A_DEGREE


if __name__ == "__main__":
    print("radius  window  pair F1  B-cubed  links  join_unflagged")
    for radius_m, days in ((30, 3), (50, 3), (50, 7)):
        s = scores(Path(sys.argv[1]), radius_m=radius_m, window_s=days * 86400)
        print(
            f"{radius_m:4d} m  {days:4d} d  {s.pair_f1:7.3f}  {s.b_cubed_f1:7.3f}  {s.link_recall:5.3f}  "
            f"{s.join_unflagged:14.3f}"
        )
