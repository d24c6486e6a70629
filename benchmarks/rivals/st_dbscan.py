"""ST-DBSCAN (Birant and Kut, 2007): dense regions in space and time, a setting for each category group.

A report with at least ``min_pts`` reports (itself among them) within ``eps_m`` and ``eps_s`` of it is a core; cores
within reach of one another are one cluster, others within reach of a core join that of the nearest, and what is left is
alone.  It sees all reports at once, the later ones too, which no stream does.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchmarks.labelled_reports import DAY_S, Floats, Index, LabelledReports
from benchmarks.rivals.choice import GroupChoice, by_group
from benchmarks.rivals.method import Tally, tally
from benchmarks.rivals.neighbours import neighbours

Setting = tuple[float, float, int]
OFF: Setting = (-1.0, -1.0, 2)


@dataclass(frozen=True)
class StDbscan:
    """The grid that is tried."""

    name: str = "ST-DBSCAN"
    eps_m: Sequence[float] = (2, 12, 17, 22, 33, 50, 65, 100, 170)
    eps_d: Sequence[float] = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 7, 10, 14, 21, 30)
    min_pts: Sequence[int] = (2, 3, 4)
    bounds_m: tuple[float, ...] = (40, 65, 100, 170)

    @property
    def rows(self) -> list[Setting]:
        """All settings; first that nothing joins."""
        return [OFF, *((m, d * DAY_S, pts) for m, d, pts in itertools.product(self.eps_m, self.eps_d, self.min_pts))]

    def train(self, reports: LabelledReports) -> TrainedStDbscan:
        """Try the grid on each group."""
        return TrainedStDbscan(self, reports)


@dataclass
class TrainedStDbscan:
    """Knows what each setting does to each group."""

    method: StDbscan
    reports: LabelledReports

    @cached_property
    def _choice(self) -> GroupChoice:
        rows = self.method.rows

        def tally_rows(of_group: LabelledReports) -> Tally:
            pairs = Pairs.of(of_group, max(self.method.eps_m), max(self.method.eps_d) * DAY_S)
            tallies = [tally(pairs.clusters(row), of_group) for row in rows]
            return Tally(
                *(np.array([getattr(t, name) for t in tallies]) for name in ("found", "paired", "unflagged", "joins"))
            )

        return GroupChoice(self.reports, tally_rows, np.array([row[0] for row in rows]), self.method.bounds_m)

    def at(self, price: float) -> FittedStDbscan:
        """The best setting of each group at that price."""
        chosen, _, how = self._choice.rows(price)
        return FittedStDbscan({group: self.method.rows[row] for group, row in chosen.items()}, how)


@dataclass(frozen=True)
class FittedStDbscan:
    """A setting for each group; the others join nothing."""

    setting_of: dict[int, Setting]
    how: dict[str, float] = field(default_factory=dict)

    def predict(self, reports: LabelledReports) -> Index:
        """By one look at all reports."""
        incident = np.arange(len(reports))
        for group, rows in by_group(reports, list(self.setting_of)):
            setting = self.setting_of[group]
            if len(rows) and setting != OFF:
                pairs = Pairs.of(reports.take(rows), setting[0], setting[1])
                incident[rows] = len(reports) * (group + 1) + pairs.clusters(setting)
        return incident

    def settings(self) -> dict[str, object]:
        """The groups that join anything."""
        rows = {str(g): (m, round(s / DAY_S, 3), pts) for g, (m, s, pts) in self.setting_of.items() if s >= 0}
        return {**self.how, "eps_m, eps_d, min_pts of group": rows}


@dataclass(frozen=True)
class Pairs:
    """The pairs of one group's reports within the widest reach that is tried."""

    count: int
    a: Index
    b: Index
    distance_m: Floats
    gap_s: Floats

    @classmethod
    def of(cls, reports: LabelledReports, reach_m: float, reach_s: float) -> Pairs:
        """Find them."""
        near = neighbours(reports, reach_m)
        gap_s = np.abs(reports.time_s[near.earlier] - reports.time_s[near.later])
        kept = gap_s <= reach_s
        return cls(len(reports), near.earlier[kept], near.later[kept], near.distance_m[kept], gap_s[kept])

    def clusters(self, setting: Setting) -> Index:
        """A number for each report: its cluster's, or one of its own."""
        eps_m, eps_s, min_pts = setting
        near = (self.distance_m <= eps_m) & (self.gap_s <= eps_s)
        a, b = self.a[near], self.b[near]
        if min_pts == 2:  # every report with a neighbour is a core
            return self._components(a, b)
        core = 1 + np.bincount(a, minlength=self.count) + np.bincount(b, minlength=self.count) >= min_pts
        both = core[a] & core[b]
        label = self._components(a[both], b[both])
        # Those on the border go with the nearest core, of equally near ones with the first.
        edge = core[a] != core[b]
        border, inner = np.where(core[a], b, a)[edge], np.where(core[a], a, b)[edge]
        order = np.lexsort((inner, self.distance_m[near][edge], border))
        border, first = np.unique(border[order], return_index=True)
        label[border] = label[inner[order][first]]
        return label

    def _components(self, a: Index, b: Index) -> Index:
        graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(self.count, self.count))
        label: Index = connected_components(graph, directed=False)[1].astype(np.int64)
        return label
