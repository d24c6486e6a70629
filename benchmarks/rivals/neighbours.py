"""Which reports lie near which earlier ones: the pairs that any method by distance can ever put together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.labelled_reports import Bool, Floats, Index, LabelledReports
from streams.evaluation import NONE

SAME_M = 2.0
"""Two positions no further apart are the same place: what rounding and a device's own tremble leave."""


@dataclass(frozen=True)
class Neighbours:
    """Pairs of reports of one category group within ``reach_m``, sorted by the later row, then the earlier.

    ``earlier[start[j]:start[j + 1]]`` are the earlier rows near row ``j``; ``distance_m`` and ``same`` (same place:
    the same asset, device or address, or within `SAME_M`) belong to the pair.
    """

    start: Index
    earlier: Index
    later: Index
    distance_m: Floats
    same: Bool


@lru_cache(maxsize=16)
def neighbours(reports: LabelledReports, reach_m: float) -> Neighbours:
    """Find the pairs by one tree for each group.  O(n log n + pairs)."""
    found = [np.empty((0, 2), np.int64)]
    placed = ~np.isnan(reports.x_m)
    at = np.column_stack([reports.x_m, reports.y_m])
    order = np.argsort(reports.group, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(reports.group[order])) + 1):
        rows = rows[placed[rows] & (reports.group[rows] != NONE)]
        if len(rows) > 1:
            pairs = cKDTree(at[rows]).query_pairs(reach_m, output_type="ndarray")
            found.append(np.sort(rows[pairs], axis=1).reshape(-1, 2))
    pairs = np.concatenate(found)
    pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
    earlier, later = pairs[:, 0].copy(), pairs[:, 1].copy()
    distance_m = np.hypot(*(at[earlier] - at[later]).T)
    same = (distance_m <= SAME_M) | ((reports.place[earlier] == reports.place[later]) & (reports.place[later] != NONE))
    start = np.searchsorted(later, np.arange(len(reports) + 1)).astype(np.int64)
    return Neighbours(start, earlier, later, distance_m, same)
