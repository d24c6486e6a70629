"""How many tickets of a storm could be set right by whoever knows all but whose they are.

    python -m benchmarks.tickets_in_a_storm [--save]

The scenario `storm`, two days.  For each ticket about a flooded spot that says where it was: of all spots that were
reported at about that time, which is the likeliest?  Asked is somebody who knows of each spot its true place, when and
how often it was reported by the others, and their texts.  What he gets wrong nobody gets right but by chance, for all
that a ticket says is where, when and in which words.  Grid workers' reports are asked about as well, for comparison.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from benchmarks.labelled_reports import Floats, LabelledReports, labelled
from benchmarks.quality import SAMPLE
from benchmarks.results_file import tell
from geo.plane import distance_m
from streams.error_model import SCENARIOS, read_error_model, shipped_text
from streams.messages import SOURCES
from streams.pack import load_pack
from streams.reports import NO_POSITION
from streams.signatures import evidence, similarities
from streams.simulation import simulate, truth_csv

SEEDS = (11, 12)
HOURS = 24.0
SOON_S = 1800.0
"""A spot counts as reported at about that time from so long before its first report to so long after its last."""
_LN_POINT = math.log(10) / 100
_TEXT_POINTS = evidence()


def likeliest(
    reports: LabelledReports, row: int, spots: list[tuple[Floats, np.ndarray]], *, by_words: bool
) -> int | None:
    """Number of the spot that a ticket most likely means; ``spots`` are places (lon, lat) and rows of reports."""
    located = reports.reports
    at = np.array([located.lon_e7[row] * 1e-7, located.lat_e7[row] * 1e-7])
    sigma_m = max(float(reports.accuracy_m[row]), 1.0)
    best: tuple[float, int] | None = None
    for number, (place, rows) in enumerate(spots):
        others = rows[rows != row]
        time_s = reports.time_s[others]
        if not len(others) or not time_s.min() - SOON_S <= reports.time_s[row] <= time_s.max() + SOON_S:
            continue
        d_m = float(distance_m(at[0], at[1], place[0], place[1]))
        chance = math.log(len(others)) - d_m**2 / (2 * sigma_m**2)
        texts = located.signature[others]
        texts = texts[texts.any(axis=1)]
        if by_words and len(texts) and located.signature[row].any():
            bits = similarities(texts, np.repeat(located.signature[row][None], len(texts), axis=0))
            chance += _LN_POINT * float(_TEXT_POINTS[bits].max())
        if best is None or chance > best[0]:
            best = chance, number
    return None if best is None else best[1]


def of_a_day(seed: int) -> dict[str, Any]:
    """Of tickets, and of workers' reports for comparison: how many are asked about, and what share is set right."""
    pack = load_pack(SAMPLE)
    model = read_error_model(shipped_text(SCENARIOS["storm"]), name="storm")
    start = datetime(2026, 6, 1, tzinfo=timezone(timedelta(hours=8)))
    result = simulate(pack, model, seed=seed, start=start, hours=HOURS)
    reports = labelled(f"storm, seed {seed}", pack, result.messages, truth_csv(result.truth).splitlines(keepends=True))
    spot_of, places = {}, {}
    for one in result.truth:
        if one.event_category in model.storm.categories and one.lon is not None and one.lat is not None:
            spot_of[one.source, one.report_id] = one.cluster_id
            places[one.cluster_id] = np.array([one.lon, one.lat])
    rows_of: dict[str, list[int]] = {name: [] for name in places}
    truth: dict[int, str] = {}
    for row, (source, report_id) in enumerate(
        zip(reports.source.tolist(), reports.reports.report_id.tolist(), strict=True)
    ):
        name = spot_of.get((SOURCES[source], report_id))
        if name is not None:
            truth[row] = name
            rows_of[name].append(row)
    spots = [(places[name], np.array(rows_of[name], np.int64)) for name in places]
    names = list(places)
    found: dict[str, Any] = {"spots": len(spots), "reports": len(truth)}
    for source in ("hotline", "patrol"):
        number = SOURCES.index(source)
        rows = [row for row in truth if reports.source[row] == number]
        asked = [row for row in rows if reports.reports.lat_e7[row] != NO_POSITION and len(rows_of[truth[row]]) > 1]
        found[source] = {"share_of_reports": round(len(rows) / len(truth), 4), "asked_about": len(asked)}
        for title, by_words in (("by place and time", False), ("and by words", True)):
            said = [likeliest(reports, row, spots, by_words=by_words) for row in asked]
            hits = [one is not None and names[one] == truth[row] for row, one in zip(asked, said, strict=True)]
            found[source][title] = round(float(np.mean(hits)), 4)
    by_place = "by place and time"
    assert found["patrol"][by_place] > found["hotline"][by_place], "who stands there is set right more often"
    return found


def main() -> None:
    tell("tickets_in_a_storm", {f"seed {seed}": of_a_day(seed) for seed in SEEDS})


if __name__ == "__main__":
    main()
