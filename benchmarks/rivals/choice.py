"""One row of settings for each category group, chosen from a grid: how every rival with settings by group is fitted.

Few labels fit any row by chance, so a group's own tally is mixed with that of all groups, as if so many pairs of theirs
were its own (*shrinkage*); and what reaches too far is not tried at all where labels of false pairs are too few to
forbid it (*bound*).  How much of either is settled within the training reports: by what a choice on their first half is
worth on their second, and the other way round.  Nothing of the scored reports is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.labelled_reports import Floats, Index, LabelledReports
from benchmarks.rivals.method import Tally, fixed_point, true_pairs
from streams.evaluation import NONE

SHRINKAGES = (0.0, 5.0, 15.0, 40.0, 100.0)
_HALVES = 2

TallyRows = Callable[[LabelledReports], Tally]
"""The tally of every row of the grid on the reports of one group."""


@dataclass(frozen=True)
class _Trial:
    """What every row does to each group of one set of reports."""

    tallies: list[Tally]
    all_true: int

    @cached_property
    def together(self) -> Tally:
        """Of all groups."""
        return Tally(
            *(sum(getattr(one, name) for one in self.tallies) for name in ("found", "paired", "unflagged", "joins"))
        )

    def best(self, f1: float, price: float, shrinkage: float, allowed: Floats) -> list[int]:
        """The row of each group."""
        prior = allowed
        if shrinkage and self.all_true:
            prior = allowed + shrinkage * self.together.worth(f1, price) / self.all_true
        return [int(np.argmax(one.worth(f1, price) + prior)) for one in self.tallies]

    def worth(self, rows: Sequence[int], f1: float, price: float) -> float:
        """What a choice is worth here."""
        return float(sum(one.worth(f1, price)[row] for one, row in zip(self.tallies, rows, strict=True)))


class GroupChoice:
    """Chooses rows for the groups of which clerks flag anything at all; the others join nothing.

    ``reaches_m[r]`` is how far row ``r`` reaches, ``bounds_m`` the bounds that may be put on it.
    """

    def __init__(
        self, reports: LabelledReports, tally_rows: TallyRows, reaches_m: Floats, bounds_m: Sequence[float]
    ) -> None:
        speaking = (reports.group != NONE) & ((reports.flag == 1) | (reports.cluster != NONE))
        self.groups: list[int] = np.unique(reports.group[speaking]).tolist()
        labelled_s = reports.time_s[reports.cluster != NONE]
        middle_s = float(np.median(labelled_s)) if len(labelled_s) else 0.0
        first = reports.time_s < middle_s
        self._whole = self._trial(reports, tally_rows)
        self._halves = [self._trial(reports.take(np.flatnonzero(first == half)), tally_rows) for half in (True, False)]
        # A trifle for the shorter reach, so that of equal rows the nearest and soonest stands.
        self._reaches_m = reaches_m
        self._bounds_m = bounds_m

    def rows(self, price: float) -> tuple[dict[int, int], float, dict[str, float]]:
        """The row of each group, the F1 of the objective, and how it was settled."""
        shrinkage, bound_m, f1 = self._settle(price)
        best = self._whole.best(f1, price, shrinkage, self._allowed(bound_m))
        how = {"shrinkage_pairs": shrinkage, "bound_m": bound_m}
        return dict(zip(self.groups, best, strict=True)), f1, how

    def _settle(self, price: float) -> tuple[float, float, float]:
        free = self._allowed(max(self._bounds_m))

        def choose(f1: float) -> tuple[float, float]:
            rows = self._whole.best(f1, price, 0.0, free)
            pairs = [(one.found[row], one.paired[row]) for one, row in zip(self._whole.tallies, rows, strict=True)]
            return float(sum(found for found, _ in pairs)), float(sum(paired for _, paired in pairs))

        f1 = fixed_point(choose, self._whole.all_true)
        options = [(shrinkage, bound_m) for shrinkage in SHRINKAGES for bound_m in self._bounds_m]
        worth = [self._held_out(f1, price, *option) for option in options]
        return *options[int(np.argmax(worth))], f1

    def _held_out(self, f1: float, price: float, shrinkage: float, bound_m: float) -> float:
        allowed = self._allowed(bound_m)
        total = 0.0
        for half in range(_HALVES):
            rows = self._halves[half].best(f1, price, shrinkage, allowed)
            total += self._halves[1 - half].worth(rows, f1, price)
        return total

    def _allowed(self, bound_m: float) -> Floats:
        return np.where(self._reaches_m <= bound_m, 0.0, -np.inf)

    def _trial(self, reports: LabelledReports, tally_rows: TallyRows) -> _Trial:
        parts = [reports.take(np.flatnonzero(reports.group == group)) for group in self.groups]
        return _Trial([tally_rows(part) for part in parts], true_pairs(reports))


def by_group(reports: LabelledReports, groups: Sequence[int]) -> list[tuple[int, Index]]:
    """Each of some groups with its rows."""
    return [(group, np.flatnonzero(reports.group == group)) for group in groups]
