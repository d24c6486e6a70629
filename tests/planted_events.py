"""A made-up city in which it is known how reports of one event lie to each other, for what learns it from labels.

- `lamp`: the reports of an event come within 15 minutes and 3 m; the next lamp stands 25 m away and fails as often.
- `tree`: they come within a day and 60 m; the next tree that fell lies 500 m away.
- `bin`: clerks never flag one of it.
"""

from __future__ import annotations

import json
import random

from streams.recording import RecordedMessage

DAY_MS = 1_772_323_200_000
METERS_A_DEGREE = 110_574.276, 111_319.491
_HALF_DEG = 0.05

CITY_TOML = """\
name = "试验市"
code = "990100"
timezone = "Asia/Shanghai"
levels = ["county"]
[source.hotline]
accuracy_m = 2
witness = "none"
[source.patrol]
accuracy_m = 2
witness = "none"
"""

CATALOGUE_TOML = """\
# What people report here.

[[category]]
code = "lamp"
name = "路灯不亮"
group = "lights"
# Chosen by nobody who looked.
radius_m = 60  # as far as one sees
window_s = 86400
reopen_s = 3600
[category.labels]
hotline = ["路灯"]

# Trees fall where they like.
[[category]]
code = "tree"
name = "树木倒伏"
group = "trees"
radius_m = 10
window_s = 3600
priority = 2

[category.match]
spread_m = 5
rethink = 70

[[category]]
code = "bin"
name = "垃圾桶满溢"
group = "bins"
radius_m = 20
window_s = 7200

[[category]]
code = "question"
name = "咨询"
group = "bins"
event = false
"""


def pack_files() -> dict[str, bytes]:
    """The files of its pack."""
    ring = [[x * _HALF_DEG, y * _HALF_DEG] for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))]
    county = {
        "type": "Feature",
        "properties": {"code": "990101", "level": "county", "parent": None, "name": "县"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    grid = json.dumps({"type": "FeatureCollection", "features": [county]})
    texts = {"city.toml": CITY_TOML, "grid.geojson": grid, "catalogue.toml": CATALOGUE_TOML}
    return {name: text.encode() for name, text in texts.items()}


def reported(seed: int = 1, *, lamps: int = 60, trees: int = 30, bins: int = 40) -> tuple[list[RecordedMessage], str]:
    """Messages of 40 days and their truth; clerks label two of three events."""
    chance = random.Random(seed)
    rows: list[tuple[float, str, float, float, str, str]] = []  # hours, category, x, y, event, whether flagged
    for number in range(lamps):
        # Neighbours along a street, which fail within hours of each other.
        street, place = divmod(number, 10)
        begin = street * 96 + chance.uniform(0, 6)
        for report in range(chance.randint(1, 4)):
            x = -3000 + 25 * place + chance.uniform(-1, 1)
            later = begin + report * chance.uniform(0.02, 0.08)
            rows.append((later, "lamp", x, 600.0 * street, f"l{number}", "1" if report else "0"))
    for number in range(trees):
        begin = chance.uniform(0, 900)
        for report in range(chance.randint(1, 4)):
            x, y = 500.0 * (number % 6) + chance.uniform(-20, 20), -500.0 * (number // 6) + chance.uniform(-20, 20)
            rows.append((begin + chance.uniform(0, 20), "tree", x, y, f"t{number}", "1" if report else "0"))
    for number in range(bins):
        begin = chance.uniform(0, 900)
        rows += [(begin + 0.2 * again, "bin", 3000.0, 100.0 * number, "", "0") for again in range(2)]
    labelled = {row[4] for row in rows if row[4] and chance.random() < 2 / 3}
    messages, truth = [], ["report_id,cluster_id,is_duplicate"]
    for number, (hours, category, x, y, event, flagged) in enumerate(sorted(rows)):
        time_ms = DAY_MS + round(hours * 3_600_000)
        fields = {
            "id": f"r{number}",
            "time": time_ms,
            "category": category,
            "lon": x / METERS_A_DEGREE[1],
            "lat": y / METERS_A_DEGREE[0],
        }
        value = json.dumps(fields).encode()
        messages.append(RecordedMessage("hotline.tickets", value, 0, number, time_ms))
        known = event in labelled
        truth.append(f"r{number},{event if known else ''},{flagged if known or not event else '0'}")
    return messages, "\n".join(truth) + "\n"
