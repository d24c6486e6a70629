"""Located reports with what is known of their true events: what every method of `benchmarks.quality` sees.

Both come from the service's own intake (and, for readings, its rules), so no method knows better where a report is.
Rows are in stream order.  A repeat (the same message again, one device through two platforms) is left out: it is no
further report.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.varied_errors import varied
from geo.plane import metres_per_degree
from streams.error_model import SCENARIOS, ErrorModel, read_error_model, shipped_text
from streams.evaluation import NONE, Truth, read_truth
from streams.intake import Intake, SourceRecord
from streams.messages import REPORTS, SOURCES, Outcome
from streams.pack import Category, CityPack, load_pack
from streams.privacy import TEST_KEY
from streams.recording import BadLine, RecordedMessage, read_recording
from streams.replay import Replay
from streams.reports import NO_POSITION, LocatedReports
from streams.simulation import simulate, truth_csv
from streams.source_records import SourceRecords

Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

DAY_S = 86_400.0


@dataclass(frozen=True, eq=False)
class LabelledReports:
    """Reports as columns of equal length, and their truth.

    Attributes
    ----------
    x_m, y_m : float64
        Metres east and north in a plane in which near reports are as far apart as on the ground; NaN without position.
    time_s, accuracy_m : float64
        Event time, Unix seconds; one sigma of the position.
    category, group, source : int64
        Numbers in the pack and in `streams.messages.SOURCES`.  A consultation is of no group, `NONE`, and never joins.
    place : int64
        Equal where an asset, a device or the words of an address are, `NONE` where the report names none.
    cluster, flag, parent : int64
        As in `streams.evaluation.Truth`; ``parent`` is a row.
    message : int64
        Which of the ``messages`` it came in.
    """

    name: str
    pack: CityPack
    messages: Sequence[RecordedMessage]
    reports: LocatedReports
    x_m: Floats
    y_m: Floats
    time_s: Floats
    accuracy_m: Floats
    category: Index
    group: Index
    source: Index
    place: Index
    cluster: Index
    flag: Index
    parent: Index
    message: Index

    def __len__(self) -> int:
        return len(self.time_s)

    def take(self, rows: Index) -> LabelledReports:
        """Some rows, in that order; a parent that is not among them is none.  The messages stay all."""
        row_of = np.full(len(self) + 1, NONE, np.int64)  # the last for `NONE` itself
        row_of[rows] = np.arange(len(rows))
        columns = {
            one.name: getattr(self, one.name)[rows]
            for one in fields(self)
            if isinstance(getattr(self, one.name), np.ndarray)
        }
        columns["parent"] = row_of[self.parent[rows]]
        return LabelledReports(self.name, self.pack, self.messages, self.reports.take(rows), **columns)

    def before(self, time_s: float) -> LabelledReports:
        """The reports of before a time, and what was known by them: neither a later label nor a later message is seen.

        Messages that brought no report are left out as well.
        """
        early = self.take(np.flatnonzero(self.time_s < time_s))
        kept, message = np.unique(early.message, return_inverse=True)
        messages = [self.messages[number] for number in kept.tolist()]
        return replace(early, messages=messages, message=message.astype(np.int64))

    def truth_csv(self) -> str:
        """The truth of these reports as `citybrain evaluate` and `citybrain fit` read it."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("source", "report_id", "cluster_id", "is_duplicate", "parent_id", "link_quality"))
        ids = self.reports.report_id.tolist()
        columns = (self.source.tolist(), ids, self.cluster.tolist(), self.flag.tolist(), self.parent.tolist())
        for source, report_id, cluster, flag, parent in zip(*columns, strict=True):
            link = ("", "") if parent == NONE else (ids[parent], "good")
            known = ("" if one == NONE else one for one in (cluster, flag))
            writer.writerow((SOURCES[source], report_id, *known, *link))
        return out.getvalue()


def boston(folder: Path, pack_folder: Path) -> LabelledReports:
    """The recorded quarter of a year.  Of 31,802 reports six lie outside the city; none of them has a label."""
    messages = [m for m in read_recording(folder / "recording-2011q3.jsonl.gz") if not isinstance(m, BadLine)]
    with gzip.open(folder / "truth-2011q3.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        truth = list(lines)
    return labelled("boston", load_pack(pack_folder), messages, truth)


CHOSEN_ON_THE_QUARTER = {
    "abandoned-vehicles", "general-lighting-request", "graffiti-removal", "major-system-failure",
    "missed-trash-recycling-yard-waste-bulk-item", "new-tree-requests", "request-for-recycling-cart",
    "sidewalk-repair-make-safe", "street-light-knock-downs", "street-light-outages", "street-light-outages-internal",
    "tree-emergencies", "tree-maintenance-requests",
}  # fmt: skip
"""Boston's categories whose radius and window were chosen on all that is scored (decision 006)."""
FOR_A_HOUSEHOLD = {
    "missed-trash-recycling-yard-waste-bulk-item", "new-tree-requests", "request-for-recycling-cart"
}  # fmt: skip
STREET = 10.0, DAY_S
HOUSEHOLD = 1.0, 3600.0
"""Radius (m) and window (s) that the catalogue has for things in the street, and for services for one household, where
nothing was chosen."""


def before_labels(pack: CityPack) -> CityPack:
    """Boston's pack as it would be if nobody had seen a label, for whoever learns from a part of the quarter.

    Where too few labels are to learn from, the pack's own reach holds: it must not know what comes later.
    """
    assert {one.code for one in pack.categories} > CHOSEN_ON_THE_QUARTER, "Boston's categories"
    return replace(pack, categories=tuple(_before_labels(one) for one in pack.categories))


def _before_labels(category: Category) -> Category:
    if category.code not in CHOSEN_ON_THE_QUARTER:
        return category
    radius_m, window_s = HOUSEHOLD if category.code in FOR_A_HOUSEHOLD else STREET
    match = replace(category.match, same_place_window_s=window_s)
    return replace(category, radius_m=radius_m, window_s=window_s, match=match)


def simulated(pack_folder: Path, scenario: str, *, hours: float, seed: int, vary: bool) -> LabelledReports:
    """A stretch of time in a simulated city; ``vary`` draws an error model of its own by the seed."""
    pack = load_pack(pack_folder)
    model: ErrorModel = read_error_model(shipped_text(SCENARIOS[scenario]), name=scenario)
    if vary:
        model = varied(model, seed)
    start = datetime(2026, 6, 1, tzinfo=timezone(timedelta(hours=8)))
    result = simulate(pack, model, seed=seed, start=start, hours=hours)
    name = f"{scenario}, seed {seed}{', varied' if vary else ''}"
    return labelled(name, pack, result.messages, truth_csv(result.truth).splitlines(keepends=True))


def labelled(
    name: str, pack: CityPack, messages: Sequence[RecordedMessage], truth_lines: Sequence[str]
) -> LabelledReports:
    """What the service's intake makes of some messages, with the truth of it."""
    run = Replay(pack, TEST_KEY)
    assignments, _ = run.take(messages)
    outcomes = {one.origin: one for one in assignments}
    intake = Intake(pack, TEST_KEY, one_clock=True)
    records = source_records(messages)
    reports = LocatedReports.concatenate(
        [intake.take(records[at : at + 10_000]).reports for at in range(0, len(records), 10_000)]
    )
    origins = zip(*(getattr(reports, name).tolist() for name in ("topic", "partition", "offset", "index")), strict=True)
    category = np.full(len(reports), NONE, np.int64)
    for row, (topic, partition, offset, index) in enumerate(origins):
        one = outcomes.get(f"{intake.terms.topics[topic]}:{partition}:{offset}:{index}")
        if one is not None and one.outcome not in (Outcome.REPEAT.value, Outcome.AMENDED.value):
            category[row] = pack.category_index(one.category)
    number_of = {(one.topic, one.partition, one.offset): number for number, one in enumerate(records)}
    places = zip(*(getattr(reports, name).tolist() for name in ("topic", "partition", "offset")), strict=True)
    message = np.array([number_of[intake.terms.topics[topic], *place] for topic, *place in places], np.int64)
    kept = np.flatnonzero(category != NONE)
    reports, category = reports.take(kept), category[kept]
    truth = read_truth(truth_lines, name=name)
    columns = {**_columns(pack, reports, category), **_truth_columns(reports, truth)}
    return LabelledReports(name, pack, messages, reports, **columns, message=message[kept])


def source_records(messages: Sequence[RecordedMessage]) -> list[SourceRecord]:
    """The messages as intake takes them, numbered as `Replay` numbers them."""
    if any(message.topic == REPORTS for message in messages):
        raise ValueError("a recording of `reports` holds no messages of sources")
    records = SourceRecords()
    return [records.of(message) for message in messages]


def _columns(pack: CityPack, reports: LocatedReports, category: Index) -> dict[str, Any]:
    lat, lon = reports.lat_e7 * 1e-7, reports.lon_e7 * 1e-7
    placed = reports.lat_e7 != NO_POSITION
    west, south, east, north = pack.grid.bounds
    m_lon, _ = metres_per_degree(np.where(placed, lat, south))
    _, m_lat = metres_per_degree((south + north) / 2)
    group_number = {name: number for number, name in enumerate(pack.groups)}
    group_of = np.array([group_number[one.group] if one.event else NONE for one in pack.categories], np.int64)
    return {
        "x_m": np.where(placed, (lon - (west + east) / 2) * m_lon, np.nan),
        "y_m": np.where(placed, (lat - (south + north) / 2) * m_lat, np.nan),
        "time_s": reports.time_ms / 1000.0,
        "accuracy_m": reports.accuracy_cm / 100.0,
        "category": category,
        "group": group_of[category],
        "source": reports.source.astype(np.int64),
        "place": _places(reports),
    }


def _places(reports: LocatedReports) -> Index:
    """Numbers of assets, devices and addresses.

    A short text without an address is one: crews write nothing else into it, in some cities.
    """
    numbers: dict[tuple[str, str], int] = {}
    place = np.full(len(reports), NONE, np.int64)
    columns = (reports.asset_id, reports.device, reports.address, reports.text)
    for row, (asset, device, address, text) in enumerate(zip(*(one.tolist() for one in columns), strict=True)):
        words = " ".join((address or text).lower().split())
        key = ("asset", asset) if asset else ("device", device) if device else ("address", words)
        if key[1] and len(key[1]) <= 100:
            place[row] = numbers.setdefault(key, len(numbers))
    return place


def _truth_columns(reports: LocatedReports, truth: Truth) -> dict[str, Index]:
    row_of: dict[tuple[str, str], int] = {}
    for row, (source, report_id) in enumerate(zip(reports.source.tolist(), reports.report_id.tolist(), strict=True)):
        row_of.setdefault((SOURCES[source] if truth.has_source else "", report_id), row)
    at = np.array([row_of.get(key, NONE) for key in zip(truth.sources, truth.report_ids, strict=True)], np.int64)
    known = at != NONE
    columns = {name: np.full(len(reports), NONE, np.int64) for name in ("cluster", "flag", "parent")}
    columns["cluster"][at[known]] = truth.cluster[known]
    columns["flag"][at[known]] = truth.is_duplicate[known]
    child = np.flatnonzero(known & (truth.parent != NONE))
    columns["parent"][at[child]] = at[truth.parent[child]]
    return columns
