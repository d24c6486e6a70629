"""What a method is to `benchmarks.quality`, and what every method is fitted to.

A method is trained once on labelled reports and then set by a dial: the price, in pairs, of one report that joins an
earlier one though nobody flagged it.  All maximise, over the reports they are trained on,

    2 · (true pairs found) − F · (pairs put together) − price · (unflagged joins)

with F the F1 that comes out of it (Dinkelbach's iteration): at price 0 that is the setting of the highest pair F1, and
every further price is a point of the curve of found pairs against unflagged joins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.labelled_reports import LabelledReports
from streams.evaluation import NONE

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PRICES = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)
"""The dial's stops: from "as the labels alone have it" to "hardly ever without a label"."""


class Fitted(Protocol):
    """A method set for use."""

    def predict(self, reports: LabelledReports) -> Index:
        """Number of the incident of each report, whatever the numbers; each report that is alone has its own."""
        ...

    def settings(self) -> dict[str, object]:
        """What was chosen, for the record."""
        ...


class Trained(Protocol):
    """A method that has seen labels."""

    def at(self, price: float) -> Fitted:
        """The method with its dial at ``price``."""
        ...


class Method(Protocol):
    """A way to decide."""

    @property
    def name(self) -> str:
        """As it stands in the results."""
        ...

    def train(self, reports: LabelledReports) -> Trained:
        """Learn from labelled reports."""
        ...


@dataclass(frozen=True)
class Tally:
    """What a setting, or each of several, does to the reports it is tried on.

    ``found``: pairs of one true event in one incident; ``paired``: labelled pairs in one incident; ``unflagged``:
    reports known not to be flagged that join an earlier one; ``joins``: reports that join an earlier one.
    """

    found: Floats
    paired: Floats
    unflagged: Floats
    joins: Floats

    def worth(self, f1: float, price: float) -> Floats:
        """The common objective."""
        worth: Floats = 2 * self.found - f1 * self.paired - price * self.unflagged
        return worth


def tally(incident: Index, reports: LabelledReports) -> Tally:
    """Count what ``incident`` does to ``reports``.  O(n log n)."""
    known = reports.cluster != NONE
    both = incident[known] * (int(reports.cluster.max(initial=0)) + 2) + reports.cluster[known]
    first = np.unique(incident, return_index=True)[1]
    joins = np.ones(len(incident), bool)
    joins[first] = False
    counts = (_pairs(both), _pairs(incident[known]), np.count_nonzero(joins & (reports.flag == 0)), joins.sum())
    return Tally(*(np.array(count, np.float64) for count in counts))


def true_pairs(reports: LabelledReports) -> int:
    """How many pairs of reports speak of one event."""
    return _pairs(reports.cluster[reports.cluster != NONE])


def fixed_point(choose: Callable[[float], tuple[float, float]], all_true: int) -> float:
    """The F1 at which choosing by it gives it.

    ``choose`` takes an F1 and returns the found and the paired of the best setting by it.
    """
    f1 = 0.9
    for _ in range(8):
        found, paired = choose(f1)
        better = 2 * found / (paired + all_true) if paired + all_true else 0.0
        if abs(better - f1) < 1e-6:
            break
        f1 = better
    return f1


def _pairs(of: Index) -> int:
    count = np.unique(of, return_counts=True)[1].astype(np.int64)
    return int((count * (count - 1) // 2).sum())
