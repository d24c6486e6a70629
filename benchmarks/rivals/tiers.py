"""Radius and window: the plain rule with one of each for all, and the fitted table with a tier for the same place.

A report joins the incident founded at the same place if it comes within that tier's window of the incident's last
report; else the nearest one founded within the radius (and the report's own accuracy, up to a cap) and the window; else
it founds one.  Same place first, then the nearest, then the oldest.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numba
import numpy as np

from benchmarks.labelled_reports import DAY_S, Floats, Index, LabelledReports
from benchmarks.rivals.choice import GroupChoice, by_group
from benchmarks.rivals.method import Tally, fixed_point, true_pairs
from benchmarks.rivals.neighbours import Neighbours, neighbours
from streams.evaluation import NONE
from streams.fitting import OWN_ROW_LABELS
from streams.pack import CityPack

OFF = -1.0
"""As a radius or a window: this tier joins nothing."""

_TALLY = 4


@numba.njit(cache=True)
def follow(  # type: ignore[no-untyped-def]  # numba's own types
    start, earlier, distance_m, same, time_s, accuracy_m, kind, cluster, flag, radius_m, window_s, same_s, cap_m,
    incident, last_s, head, link, counts,
):  # fmt: skip
    """One pass in stream order; fills ``incident`` with founding rows, ``counts`` with found, paired, unflagged, joins.

    ``kind`` numbers the settings of each row, were it to found an incident.  The pairs are counted along a list of the
    labelled reports of each incident: ``head`` its newest, ``link`` the one before.
    """
    counts[:] = 0
    for row in range(len(time_s)):
        best, best_tier, best_m = -1, 2, np.inf
        for pair in range(start[row], start[row + 1]):
            other = earlier[pair]
            if incident[other] != other:
                continue
            of = kind[other]
            gap_s = abs(time_s[row] - last_s[other])
            if same[pair] and gap_s <= same_s[of]:
                tier = 0
            elif gap_s <= window_s[of] and distance_m[pair] <= radius_m[of] + min(accuracy_m[row], cap_m[of]):
                tier = 1
            else:
                continue
            if tier < best_tier or (tier == best_tier and distance_m[pair] < best_m):
                best, best_tier, best_m = other, tier, distance_m[pair]
        link[row] = -1
        if best < 0:
            incident[row] = row
            last_s[row] = time_s[row]
            head[row] = row if cluster[row] >= 0 else -1
            continue
        incident[row] = best
        last_s[best] = max(last_s[best], time_s[row])
        counts[3] += 1
        if flag[row] == 0:
            counts[2] += 1
        if cluster[row] >= 0:
            member = head[best]
            while member >= 0:
                counts[1] += 1
                if cluster[member] == cluster[row]:
                    counts[0] += 1
                member = link[member]
            link[row] = head[best]
            head[best] = row


@dataclass(frozen=True)
class Settings:
    """Radius, window, window of the same place and accuracy cap of each category."""

    radius_m: Floats
    window_s: Floats
    same_s: Floats
    cap_m: Floats

    @classmethod
    def off(cls, categories: int) -> Settings:
        """Nothing joins anything."""
        return cls(*(np.full(categories, value) for value in (OFF, OFF, OFF, 0.0)))

    def row(self, category: int) -> tuple[float, float, float, float]:
        """The settings of one category."""
        columns = (self.radius_m, self.window_s, self.same_s, self.cap_m)
        radius_m, window_s, same_s, cap_m = (float(column[category]) for column in columns)
        return radius_m, window_s, same_s, cap_m

    def with_row(self, category: int, row: Sequence[float]) -> Settings:
        """The same, but for one category."""
        columns = [column.copy() for column in (self.radius_m, self.window_s, self.same_s, self.cap_m)]
        for column, value in zip(columns, row, strict=True):
            column[category] = value
        return Settings(*columns)


@dataclass(frozen=True)
class Grid:
    """The values that are tried.  A row of settings is (radius, window, window of the same place, accuracy cap)."""

    radius_m: tuple[float, ...] = (5, 12, 17, 22, 27, 33, 40, 50, 65, 80, 100, 130, 170)
    window_d: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 7, 10, 14, 21, 30, 45, 60)
    same_d: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 7, 10, 14, 21, 30, 45, 60)
    cap_m: tuple[float, ...] = (0.0,)

    @property
    def near(self) -> list[tuple[float, float, float]]:
        """Radius, window and cap of the tier by distance; first that it is off."""
        return [
            (OFF, OFF, 0.0),
            *((r, w * DAY_S, cap) for cap, r, w in itertools.product(self.cap_m, self.radius_m, self.window_d)),
        ]

    @property
    def same(self) -> list[float]:
        """Window of the tier of the same place; first that it is off."""
        return [OFF, *(w * DAY_S for w in self.same_d)]

    def rows(self, *, tiers: bool) -> list[tuple[float, float, float, float]]:
        """All rows; without ``tiers`` the same place is only the nearest."""
        if not tiers:
            return [(r, w, OFF, cap) for r, w, cap in self.near]
        return [(r, w, s, cap) for r, w, cap in self.near for s in self.same]


REACH_M = 320.0
"""No radius and cap together reach further."""
GRID = Grid()


class Follower:
    """Applies settings to the reports of one data set, or of one group of it."""

    def __init__(self, reports: LabelledReports, near: Neighbours | None = None) -> None:
        self.reports = reports
        self.near = near or neighbours(reports, REACH_M)
        self._incident = np.empty(len(reports), np.int64)
        self._scratch = (
            np.empty(len(reports)), np.empty(len(reports), np.int64), np.empty(len(reports), np.int64)
        )  # fmt: skip
        self._counts = np.zeros(_TALLY, np.int64)

    def run(self, kind: Index, settings: Settings) -> Index:
        """The counts (found, paired, unflagged, joins); `incident` has the incidents."""
        reports, near = self.reports, self.near
        follow(
            near.start, near.earlier, near.distance_m, near.same, reports.time_s, reports.accuracy_m, kind,
            reports.cluster, reports.flag, settings.radius_m, settings.window_s, settings.same_s, settings.cap_m,
            self._incident, *self._scratch, self._counts,
        )  # fmt: skip
        return self._counts

    @property
    def incident(self) -> Index:
        """Founding row of each report's incident, of the last run."""
        return self._incident.copy()

    def tallies(self, kind: Index, base: Settings, of: Sequence[int], rows: Sequence[Sequence[float]]) -> Tally:
        """The tally of each row of settings, laid over ``base`` for the kinds ``of``."""
        columns = [c.copy() for c in (base.radius_m, base.window_s, base.same_s, base.cap_m)]
        result = np.empty((len(rows), _TALLY))
        trial = Settings(*columns)
        for number, row in enumerate(rows):
            for column, value in zip(columns, row, strict=True):
                column[list(of)] = value
            result[number] = self.run(kind, trial)
        return Tally(*result.T)


@dataclass(frozen=True)
class FittedTiers:
    """A table of settings by category."""

    table: Settings
    of_category: Index
    codes: tuple[str, ...]
    how: dict[str, float] = field(default_factory=dict)

    def predict(self, reports: LabelledReports) -> Index:
        """By one pass in stream order."""
        follower = Follower(reports)
        follower.run(self.of_category[reports.category], self.table)
        return follower.incident

    def settings(self) -> dict[str, object]:
        """The rows that join anything."""
        rows: dict[str, object] = dict(self.how)
        for code, of in zip(self.codes, self.of_category.tolist(), strict=True):
            radius_m, window_s, same_s, cap_m = self.table.row(of)
            if max(window_s, same_s) >= 0:
                near = {"radius_m": radius_m, "window_d": window_s / DAY_S, "cap_m": cap_m} if window_s >= 0 else {}
                rows[code] = {**near, **({"same_place_d": same_s / DAY_S} if same_s >= 0 else {})}
        return rows


# ------------------------------------------------------------------------------------------------------ the plain rule


@dataclass(frozen=True)
class PlainRule:
    """One radius and one window for all categories."""

    name: str = "plain rule"
    grid: Grid = GRID

    def train(self, reports: LabelledReports) -> TrainedPlainRule:
        """Try every pair of the grid."""
        return TrainedPlainRule(self.grid, reports)


@dataclass(frozen=True)
class TrainedPlainRule:
    """Knows what each pair of the grid does."""

    grid: Grid
    reports: LabelledReports

    @cached_property
    def _tally(self) -> Tally:
        kind = np.zeros(len(self.reports), np.int64)
        return Follower(self.reports).tallies(kind, Settings.off(1), [0], self.grid.rows(tiers=False))

    def at(self, price: float) -> FittedTiers:
        """The best pair at that price."""
        tried = self._tally
        best = 0

        def choose(f1: float) -> tuple[float, float]:
            nonlocal best
            best = int(np.argmax(tried.worth(f1, price)))
            return float(tried.found[best]), float(tried.paired[best])

        fixed_point(choose, true_pairs(self.reports))
        table = Settings.off(1).with_row(0, self.grid.rows(tiers=False)[best])
        categories = self.reports.pack.categories
        return FittedTiers(table, np.zeros(len(categories), np.int64), tuple(one.code for one in categories))


# ---------------------------------------------------------------------------------------------------- the fitted table


@dataclass(frozen=True)
class FittedTable:
    """Radius and window of each category; with ``tiers`` also a window of its own for the same place.

    A group's categories first get one row in common (`benchmarks.rivals.choice`); a category gets one of its own only
    where that is worth ``margin`` true pairs more.  With ``start`` a group with fewer labelled reports than `fit` asks
    for has what that pack says, and to its radius the reports' accuracy is added, as by the service.
    """

    name: str = "fitted table, two tiers"
    tiers: bool = True
    grid: Grid = GRID
    bounds_m: tuple[float, ...] = (40, 65, 100, 170)
    margin: float = 4.0
    start: CityPack | None = None

    def train(self, reports: LabelledReports) -> TrainedTable:
        """Try the grid on each group that has labels."""
        return TrainedTable(self, reports)


@dataclass
class TrainedTable:
    """Knows what each row of the grid does to each group."""

    method: FittedTable
    reports: LabelledReports

    @cached_property
    def _rows(self) -> list[tuple[float, float, float, float]]:
        return self.method.grid.rows(tiers=self.method.tiers)

    @cached_property
    def _choice(self) -> GroupChoice:
        def tally_rows(of_group: LabelledReports) -> Tally:
            return Follower(of_group).tallies(np.zeros(len(of_group), np.int64), Settings.off(1), [0], self._rows)

        reaches_m = np.array([row[0] + row[3] for row in self._rows])
        return GroupChoice(self.reports, tally_rows, reaches_m, self.method.bounds_m)

    @cached_property
    def _followers(self) -> dict[int, tuple[Follower, Index, Index]]:
        """Of each group of several categories: its reports, its categories, and their numbers."""
        result = {}
        for group, rows in by_group(self.reports, self._choice.groups):
            of_group = self.reports.take(rows)
            categories, kind = np.unique(of_group.category, return_inverse=True)
            if len(categories) > 1:
                result[group] = (Follower(of_group), categories, kind.astype(np.int64))
        return result

    def at(self, price: float) -> FittedTiers:
        """The best table at that price."""
        chosen, f1, how = self._choice.rows(price)
        categories = self.reports.pack.categories
        group_of = np.full(len(categories), NONE, np.int64)
        group_of[self.reports.category] = self.reports.group
        table = Settings.off(len(categories))
        for group, row in chosen.items():
            for category in np.flatnonzero(group_of == group).tolist():
                table = table.with_row(category, self._rows[row])
        for group, (follower, of_group, kind) in self._followers.items():
            settled = self._apart(follower, kind, self._rows[chosen[group]], len(of_group), f1, price, how["bound_m"])
            for number, category in enumerate(of_group.tolist()):
                table = table.with_row(category, settled.row(number))
        if self.method.start is not None:
            table = self._with_few_labels_as(self.method.start, table)
        return FittedTiers(table, np.arange(len(categories)), tuple(one.code for one in categories), how)

    def _with_few_labels_as(self, pack: CityPack, table: Settings) -> Settings:
        labelled = self.reports.category[self.reports.cluster != NONE].tolist()
        labels = Counter(pack.categories[number].group for number in labelled)
        for number, one in enumerate(pack.categories):
            if one.event and labels[one.group] < OWN_ROW_LABELS:
                table = table.with_row(number, (one.radius_m, one.window_s, OFF, one.accuracy_cap_m))
        return table

    def _apart(
        self, follower: Follower, kind: Index, row: Sequence[float], count: int, f1: float, price: float, bound_m: float
    ) -> Settings:
        """One row for all categories of a group, then one by one where it pays."""
        settings = Settings(*(np.full(count, value, np.float64) for value in row))
        grid = self.method.grid
        near = [one for one in grid.near if one[0] + one[2] <= bound_m]
        for number in range(count):
            here = float(follower.tallies(kind, settings, [number], [settings.row(number)]).worth(f1, price)[0])
            radius_m, window_s, same_s, cap_m = settings.row(number)
            trials = [[(r, w, same_s, cap) for r, w, cap in near], [(OFF, OFF, OFF, 0.0)]]
            if self.method.tiers:
                trials.append([(radius_m, window_s, s, cap_m) for s in grid.same])
            for rows in trials:
                tried = follower.tallies(kind, settings, [number], rows).worth(f1, price)
                best = int(np.argmax(tried))
                if tried[best] >= here + 2 * self.method.margin:
                    settings, here = settings.with_row(number, rows[best]), float(tried[best])
        return settings
