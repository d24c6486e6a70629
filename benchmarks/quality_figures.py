"""Figures of merit for `benchmarks.quality`, each with the interval that resampling the true events gives it.

Only the reports of the scored period count, though the state runs on over its border: of a true event that straddles
it, its reports within the period are the event.  A report *joins* if it shares its incident with any earlier report,
of the period or not; so joins are reports less incidents opened in the period.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.labelled_reports import Bool, Floats, Index, LabelledReports
from streams.evaluation import (
    NONE,
    alone_where_none,
    b_cubed,
    contingency,
    in_flagging_category,
    joins_an_earlier,
    pairwise,
    wrongly_merged,
)

RESAMPLED = 1000
SEED = 20110901
COVERS = (2.5, 97.5)
"""Percentiles between which an interval lies."""


@dataclass(frozen=True, eq=False)
class Scored:
    """The scored reports of one period, or of several one after the other; rows as in the reports.

    ``linked``: 1 if it and its parent share an incident, 0 if not, `NONE` if it has none.  ``flagging``: its category
    is one of which at least 1 % are flagged, in the whole truth.
    """

    cluster: Index
    incident: Index
    flag: Index
    joined: Bool
    flagging: Bool
    linked: Index

    @property
    def joins(self) -> int:
        """Reports less incidents opened."""
        return int(np.count_nonzero(self.joined))

    @property
    def joins_where_flagged(self) -> int:
        """The same within categories that are flagged at all."""
        return int(np.count_nonzero(self.joined & self.flagging))


def scored(reports: LabelledReports, incident: Index, period: Bool) -> Scored:
    """What there is to count of a prediction over all ``reports``, in a ``period``."""
    child = reports.parent != NONE
    linked = np.full(len(reports), NONE, np.int64)
    linked[child] = incident[child] == incident[reports.parent[child]]
    flagging = in_flagging_category(reports.category, reports.flag)
    return Scored(
        reports.cluster[period],
        incident[period],
        reports.flag[period],
        joins_an_earlier(incident)[period],
        flagging[period],
        linked[period],
    )


def together(periods: Sequence[Scored]) -> Scored:
    """Several periods, each by a prediction of its own, as one."""
    columns: dict[str, list[npt.NDArray[np.generic]]] = {one.name: [] for one in fields(Scored)}
    clusters = incidents = 0
    for period in periods:
        for one in fields(Scored):
            columns[one.name].append(getattr(period, one.name))
        columns["cluster"][-1] = np.where(period.cluster == NONE, NONE, period.cluster + clusters)
        columns["incident"][-1] = period.incident + incidents
        clusters += int(period.cluster.max(initial=0)) + 1
        incidents += int(period.incident.max(initial=0)) + 1
    whole: dict[str, Any] = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Scored(**whole)


class Resampled:
    """One draw of true events for all methods, so that their difference is of the same events.

    ``weights[k, c]``: how often event ``c`` was drawn the ``k``-th time; row 0 is the truth itself, each once.
    """

    def __init__(self, cluster: Index, seed: int = SEED, times: int = RESAMPLED) -> None:
        self._cluster = cluster
        self._drawn: dict[Scored, dict[str, Floats]] = {}  # as many as a stage has stops, a few numbers a draw
        self.clusters, dense = np.unique(cluster[cluster != NONE], return_inverse=True)
        count = len(self.clusters)
        self._sizes = np.bincount(dense, minlength=count).astype(np.float64)
        draw = np.random.default_rng(seed)
        weights = draw.multinomial(count, np.full(count, 1 / count), size=times) if count else np.zeros((times, 0))
        self.weights: Floats = np.vstack([np.ones(count), weights])

    def curves(self, one: Scored) -> dict[str, Floats]:
        """Each figure at every draw, shape (1 + times,).

        An event drawn twice is two events of the same shape, which no method can mix up with one another.
        """
        if one not in self._drawn:
            self._drawn[one] = self._curves(one)
        return self._drawn[one]

    def _curves(self, one: Scored) -> dict[str, Floats]:
        if not np.array_equal(one.cluster, self._cluster):
            raise ValueError("these reports are not those that were drawn from")
        known = one.cluster != NONE
        incident, event, both = contingency(one.incident[known], one.cluster[known])
        count = both.astype(np.float64)
        weights, sizes = self.weights, self._sizes
        drawn = weights[:, event] * count  # how many reports of the cell's event are in its incident, in all
        order = np.argsort(incident, kind="stable")
        starts = np.flatnonzero(np.diff(incident[order], prepend=-1))
        in_incident = np.add.reduceat(drawn[:, order], starts, axis=1)
        squares = np.add.reduceat((drawn**2)[:, order], starts, axis=1)
        found = (weights[:, event] * (count * (count - 1) / 2)).sum(axis=1)
        false = ((in_incident**2 - squares) / 2).sum(axis=1)
        all_true = weights @ (sizes * (sizes - 1) / 2)
        others = in_incident[:, incident] - drawn
        reports = weights @ sizes
        with np.errstate(invalid="ignore", divide="ignore"):
            pair_precision, pair_recall = found / (found + false), found / all_true
            pair_f1 = 2 * found / (found + false + all_true)
            precision = (drawn * count / (count + others)).sum(axis=1) / reports
            recall = (drawn * count / sizes[event]).sum(axis=1) / reports
            return {
                "pair_precision": pair_precision,
                "pair_recall": pair_recall,
                "pair_f1": pair_f1,
                "b_cubed_precision": precision,
                "b_cubed_recall": recall,
                "b_cubed_f1": 2 * precision * recall / (precision + recall),
                "link_recall": self._links(one),
            }

    def _links(self, one: Scored) -> Floats:
        child = (one.linked != NONE) & (one.cluster != NONE)
        at = np.searchsorted(self.clusters, one.cluster[child])
        size = len(self.clusters)
        all_links = np.bincount(at, minlength=size).astype(np.float64)
        right = np.bincount(at, weights=one.linked[child], minlength=size)
        share: Floats = (self.weights @ right) / (self.weights @ all_links)
        return share


def figures(one: Scored, resampled: Resampled) -> dict[str, object]:
    """Everything that is told of one setting of one method; an interval stands as ``[figure, from, to]``."""
    result: dict[str, object] = {}
    for name, curve in resampled.curves(one).items():
        low, high = np.nanpercentile(curve[1:], COVERS) if np.isfinite(curve[1:]).any() else (np.nan, np.nan)
        result[name] = [None if np.isnan(value) else round(float(value), 4) for value in (curve[0], low, high)]
    known = one.cluster != NONE
    unflagged = one.flag == 0
    merged = wrongly_merged(alone_where_none(one.incident, one.incident)[known], one.cluster[known])
    return {
        **result,
        "join_unflagged": _share(one.joined & unflagged, unflagged),
        "join_unflagged_in_flagging_categories": _share(
            one.joined & unflagged & one.flagging, unflagged & one.flagging
        ),
        "wrongly_merged": None if merged is None else round(merged, 4),
        "joins": one.joins,
        "joins_in_flagging_categories": one.joins_where_flagged,
        "reports": len(one.cluster),
    }


def check(one: Scored, resampled: Resampled) -> None:
    """Assert that the first row of the draws is what `streams.evaluation` says of the same reports."""
    known = one.cluster != NONE
    curves = resampled.curves(one)
    for kind, measure in (("pair", pairwise), ("b_cubed", b_cubed)):
        for name, value in zip(
            ("precision", "recall", "f1"), measure(one.incident[known], one.cluster[known]), strict=True
        ):
            ours = curves[f"{kind}_{name}"][0]
            assert (value is None and not np.isfinite(ours)) or abs(ours - (value or 0.0)) < 1e-9, f"{kind} {name}"


# ---------------------------------------------------------------------------------------------- at an equal price


@dataclass(frozen=True)
class Sweep:
    """A method at every stop of its dial, sorted by joins; where two stops have equal joins, the better stands."""

    joins: Floats
    pair_f1: Floats
    """shape (stops, draws)"""


def sweep(stops: Sequence[Scored], resampled: Resampled, *, where_flagged: bool) -> Sweep:
    """The curve of F1 over joins; ``where_flagged`` counts joins only within categories that are flagged at all."""
    best: dict[int, Floats] = {}
    for one in stops:
        joins = one.joins_where_flagged if where_flagged else one.joins
        f1 = np.nan_to_num(resampled.curves(one)["pair_f1"])
        if joins not in best or f1[0] > best[joins][0]:
            best[joins] = f1
    ascending = sorted(best)
    return Sweep(np.array(ascending, np.float64), np.array([best[joins] for joins in ascending]))


def at_joins(of: Sweep, joins: float) -> Floats | None:
    """F1 of every draw at that many joins, between the two stops beside it; None outside of what the dial reaches."""
    if not of.joins[0] <= joins <= of.joins[-1]:
        return None
    right = int(np.searchsorted(of.joins, joins))
    if of.joins[right] == joins:
        row: Floats = of.pair_f1[right]
        return row
    part = (joins - of.joins[right - 1]) / (of.joins[right] - of.joins[right - 1])
    between: Floats = (1 - part) * of.pair_f1[right - 1] + part * of.pair_f1[right]
    return between


def difference(ours: Sweep, theirs: Sweep, joins: float) -> list[float] | None:
    """By how much ours is the better in pair F1 at that many joins: [difference, from, to]."""
    a, b = at_joins(ours, joins), at_joins(theirs, joins)
    if a is None or b is None:
        return None
    low, high = np.percentile((a - b)[1:], COVERS)
    return [round(float(value), 4) for value in ((a - b)[0], low, high)]


def _share(part: Bool, whole: Bool) -> float | None:
    count = int(np.count_nonzero(whole))
    return round(int(np.count_nonzero(part)) / count, 4) if count else None
