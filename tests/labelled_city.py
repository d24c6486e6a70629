"""A few labelled reports for tests of `benchmarks.quality`: rows as tuples, the truth beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.labelled_reports import LabelledReports
from streams.pack import load_pack
from streams.recording import RecordedMessage
from streams.reports import LocatedReports

SAMPLE = Path(__file__).resolve().parent.parent / "packs" / "sample"
_PACK = load_pack(SAMPLE)
_MESSAGES = [RecordedMessage("hotline.tickets", b"{}", offset=offset) for offset in range(1000)]


def labelled_city(rows, *, parents=None):
    """Rows of (east m, north m, time s, category, cluster, flag, place), in stream order; -1 for none."""
    columns = np.array(rows, dtype=np.float64).reshape(-1, 7).T
    x_m, y_m, time_s = columns[:3]
    category, cluster, flag, place = columns[3:].astype(np.int64)
    count = len(rows)
    zeros = np.zeros(count, np.int64)
    texts = np.full(count, "", np.object_)
    numbers = dict.fromkeys(
        ("source", "partition", "index", "mark_ms", "ingested_ms", "lon_e7", "lat_e7", "accuracy_cm", "cell", "key_hi"),
        zeros,
    )
    reports = LocatedReports.from_columns(
        **numbers,
        offset=np.arange(count),
        time_ms=(time_s * 1000).astype(np.int64),
        category=category,
        key_lo=np.arange(count).astype(np.uint64),
        report_id=np.array([f"R{row}" for row in range(count)], np.object_),
        **dict.fromkeys(("witness", "asset_id", "address", "text"), texts),
    )
    group = np.array([_PACK.groups.index(one.group) for one in _PACK.categories], np.int64)[category]
    parent = np.full(count, -1, np.int64) if parents is None else np.array(parents, np.int64)
    truth = {"cluster": cluster, "flag": flag, "parent": parent}
    at = {"x_m": x_m, "y_m": y_m, "time_s": time_s, "accuracy_m": np.zeros(count)}
    return LabelledReports(
        "test", _PACK, _MESSAGES[:count], reports, **at, category=category, group=group, source=zeros, place=place,
        **truth, message=np.arange(count),
    )  # fmt: skip
