"""Splink (Ministry of Justice, UK): probabilistic record linkage after Fellegi and Sunter, on DuckDB.

One model of comparisons for all: distance with a level for the same place, time gap, category, sources.  What is usual
among true pairs (m) is estimated from the labels, what is usual among any (u) from random pairs; a pair's match weight
is the sum.  Pairs of a weight above a threshold are one cluster with whatever they are paired with, as Splink clusters.
The threshold is fitted for each category group, as every rival's settings are.  It sees all reports at once, the later
ones too, which no stream does.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import splink.comparison_level_library as levels
import splink.comparison_library as comparisons
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from splink import DuckDBAPI, Linker, SettingsCreator
from splink.blocking_rule_library import CustomRule

from benchmarks.labelled_reports import DAY_S, Floats, Index, LabelledReports
from benchmarks.rivals.choice import GroupChoice, by_group
from benchmarks.rivals.method import Tally, tally
from benchmarks.rivals.neighbours import SAME_M
from streams.evaluation import NONE

REACH_M = 320.0
REACH_D = 30.0
DISTANCES_M = (15, 25, 35, 50, 65, 100, 170)
GAPS_D = (0.01, 0.04, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 7, 10, 14, 21)
THRESHOLDS = tuple(float(weight) for weight in np.arange(-6.0, 26.0, 0.5))
SEED = 1
_RANDOM_PAIRS = 20_000_000

_DISTANCE = "sqrt(power(x_m_l - x_m_r, 2) + power(y_m_l - y_m_r, 2))"
_GAP_S = "abs(time_s_l - time_s_r)"


def _settings() -> SettingsCreator:
    """The model before it has seen anything."""

    def level(sql: str, label: str) -> Any:
        return levels.CustomLevel(sql, label_for_charts=label)

    distance = [
        level("x_m_l is null or x_m_r is null", "no position").configure(is_null_level=True),
        level(f"place_l = place_r or {_DISTANCE} <= {SAME_M}", "same place"),
        *(level(f"{_DISTANCE} <= {limit}", f"within {limit} m") for limit in DISTANCES_M),
        levels.ElseLevel(),
    ]
    gap = [
        *(level(f"{_GAP_S} <= {limit * DAY_S}", f"within {limit} d") for limit in GAPS_D),
        levels.ElseLevel(),
    ]
    sources = [
        level("source_l = source_r and source_l = 'patrol'", "both patrol"),
        level("source_l = source_r", "one source"),
        levels.ElseLevel(),
    ]
    # Two grids of squares twice as wide as the reach, half a square apart: near pairs share a square of one of them.
    rules: list[Any] = [
        CustomRule(
            f"l.grp = r.grp and l.east{a} = r.east{a} and l.north{b} = r.north{b} "
            f"and abs(l.time_s - r.time_s) <= {REACH_D * DAY_S}"
        )
        for a in (0, 1)
        for b in (0, 1)
    ]
    return SettingsCreator(
        link_type="dedupe_only",
        comparisons=[
            comparisons.CustomComparison(distance, output_column_name="distance"),
            comparisons.CustomComparison(gap, output_column_name="gap"),
            comparisons.ExactMatch("category"),
            comparisons.CustomComparison(sources, output_column_name="sources"),
        ],
        blocking_rules_to_generate_predictions=rules,
        retain_matching_columns=False,
    )


def _table(reports: LabelledReports) -> pd.DataFrame:
    """What the model sees."""

    def or_null(column: Index) -> pd.Series[Any]:
        return pd.Series(column).astype("Int64").where(column != NONE)

    table = pd.DataFrame(
        {
            "unique_id": np.arange(len(reports)),
            "grp": or_null(reports.group),
            "x_m": reports.x_m,
            "y_m": reports.y_m,
            "time_s": reports.time_s,
            "category": reports.category,
            "source": np.array(["iot", "video", "hotline", "patrol"])[reports.source],
            "place": or_null(reports.place),
            "cluster": or_null(reports.cluster),
        }
    )
    for shift in (0, 1):
        for name, column in (("east", reports.x_m), ("north", reports.y_m)):
            square = np.floor(column / (2 * REACH_M) + shift / 2)
            table[f"{name}{shift}"] = pd.Series(np.nan_to_num(square)).astype("Int64").where(~np.isnan(column))
    return table


@dataclass(frozen=True, eq=False)
class Weighed:
    """Pairs of reports and their match weights."""

    a: Index
    b: Index
    weight: Floats

    def within(self, rows: Index, count: int) -> Weighed:
        """The pairs of some rows, numbered as these are."""
        number = np.full(count, NONE, np.int64)
        number[rows] = np.arange(len(rows))
        both = (number[self.a] != NONE) & (number[self.b] != NONE)
        return Weighed(number[self.a[both]], number[self.b[both]], self.weight[both])

    def clusters(self, count: int, threshold: float) -> Index:
        """Connected components above a threshold."""
        kept = self.weight >= threshold
        graph = coo_array((np.ones(int(kept.sum()), np.int8), (self.a[kept], self.b[kept])), shape=(count, count))
        label: Index = connected_components(graph, directed=False)[1].astype(np.int64)
        return label


def _linker(reports: LabelledReports, settings: SettingsCreator | dict[str, Any]) -> Linker:
    return Linker(DuckDBAPI().register(_table(reports)), settings, log_level=None)


def _weighed(linker: Linker) -> Weighed:
    """Every pair within reach, in an order of its own."""
    frame = linker.inference.predict().as_pandas_dataframe()  # type: ignore[no-untyped-call]
    a, b = (frame[f"unique_id_{side}"].to_numpy(np.int64) for side in "lr")
    weight = frame["match_weight"].to_numpy(np.float64)
    order = np.lexsort((b, a))
    return Weighed(a[order], b[order], weight[order])


@dataclass(frozen=True)
class Splink:
    """Splink with a threshold for each group."""

    name: str = "Splink"

    def train(self, reports: LabelledReports) -> TrainedSplink:
        """Estimate m from the labels and u from random pairs."""
        logging.getLogger("splink").setLevel(logging.ERROR)
        linker = _linker(reports, _settings())
        linker.training.estimate_u_using_random_sampling(max_pairs=_RANDOM_PAIRS, seed=SEED)
        linker.training.estimate_m_from_label_column("cluster")
        return TrainedSplink(reports, linker.misc.save_model_to_json(), _weighed(linker))


@dataclass
class TrainedSplink:
    """The model, and the weights that it gives the pairs that it was trained on."""

    reports: LabelledReports
    model: dict[str, Any]
    weighed: Weighed
    _predicted: dict[int, Weighed] = field(default_factory=dict)

    @cached_property
    def _choice(self) -> GroupChoice:
        keys = self.reports.reports.key_lo
        order = np.argsort(keys)

        def tally_rows(of_group: LabelledReports) -> Tally:
            rows = order[np.searchsorted(keys, of_group.reports.key_lo, sorter=order)]
            pairs = self.weighed.within(rows, len(self.reports))
            tallies = [tally(pairs.clusters(len(rows), threshold), of_group) for threshold in _OFF_AND_THRESHOLDS]
            return Tally(
                *(np.array([getattr(t, name) for t in tallies]) for name in ("found", "paired", "unflagged", "joins"))
            )

        # A low threshold is what reaches far here; shrinkage holds it.
        return GroupChoice(self.reports, tally_rows, np.zeros(len(_OFF_AND_THRESHOLDS)), [0.0])

    def at(self, price: float) -> FittedSplink:
        """The best threshold of each group at that price."""
        chosen, _, how = self._choice.rows(price)
        return FittedSplink(self, {group: _OFF_AND_THRESHOLDS[row] for group, row in chosen.items()}, how)

    def weights(self, reports: LabelledReports) -> Weighed:
        """The pairs of other reports, by the same model."""
        if id(reports) not in self._predicted:
            self._predicted[id(reports)] = _weighed(_linker(reports, self.model))
        return self._predicted[id(reports)]


_OFF_AND_THRESHOLDS = (np.inf, *THRESHOLDS)


@dataclass(frozen=True)
class FittedSplink:
    """A threshold for each group; the others join nothing."""

    trained: TrainedSplink
    threshold_of: dict[int, float]
    how: dict[str, float]

    def predict(self, reports: LabelledReports) -> Index:
        """By one look at all reports."""
        weighed = self.trained.weights(reports)
        incident = np.arange(len(reports))
        for group, rows in by_group(reports, list(self.threshold_of)):
            if len(rows):
                pairs = weighed.within(rows, len(reports))
                label = pairs.clusters(len(rows), self.threshold_of[group])
                incident[rows] = len(reports) * (group + 1) + label
        return incident

    def settings(self) -> dict[str, object]:
        """The thresholds of the groups that join anything."""
        return {**self.how, "threshold of group": {str(g): t for g, t in self.threshold_of.items() if np.isfinite(t)}}
