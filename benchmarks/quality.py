"""How well reports are put together, by the service and by its rivals, on the same data with the same care.

    python -m benchmarks.quality BOSTON-DATA BOSTON-PACK [--only boston|rolling|week|storm] [--methods NAME…] [--save]

BOSTON-DATA is the folder of the recorded 311 reports, BOSTON-PACK the pack that `make packs` makes.

- `boston`: fitted on July and August 2011, scored on September; and once more on its first three weeks alone, for from
  the 22nd on every lamp is keyed twice (`benchmarks/verdicts/README.md`).
- `rolling`: each half month from August on, fitted on the weeks before it; scored together.
- `week`, `storm`: simulated weeks and rainy days of packs/sample, fitted on some seeds and scored on others, with the
  error model as delivered and as drawn anew by the seed.

Fitting sees no report of the scored period; predicting runs over all reports up to its end, so that the state goes on
over its border.  What is scored, and how a true event that straddles the border counts, stands in
`benchmarks.quality_figures`.  Every method has the same dial (`benchmarks.rivals.method`) and is told of at one stop of
it; two methods are compared where they make equally many joins, for whoever joins more finds more.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise as neighbouring
from pathlib import Path

import numpy as np

from benchmarks.labelled_reports import Bool, LabelledReports, before_labels, boston, simulated
from benchmarks.quality_figures import Resampled, Scored, Sweep, check, difference, figures, scored, sweep, together
from benchmarks.results_file import tell
from benchmarks.rivals.method import PRICES, Method, Trained
from benchmarks.rivals.splink_model import Splink
from benchmarks.rivals.st_dbscan import StDbscan
from benchmarks.rivals.tiers import FittedTable, Grid, PlainRule
from benchmarks.service import FittedService, ServiceAsShipped
from streams.evaluation import NONE
from streams.pack import CityPack

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "packs" / "sample"
TOLD_AT = {"boston": 0.07, "rolling": 0.07, "week": 0.0, "storm": 0.0}
"""The price at which a method is told of.  In a simulation every label is known, so an unflagged join is a false pair
already."""
BEFORE_TWICE = "boston, to 21 Sept"
SERVICE = "service"
"""How the names of our own methods begin."""


CURVE = (
    "joins", "joins_in_flagging_categories", "pair_precision", "pair_recall", "pair_f1", "b_cubed_f1", "join_unflagged",
)  # fmt: skip


@dataclass(frozen=True)
class Split:
    """What is fitted on, what is predicted, and which reports of it are scored."""

    train: LabelledReports
    test: LabelledReports
    period: Bool


def boston_splits(reports: LabelledReports) -> list[Split]:
    """September from July and August."""
    return [_split(reports, _day(9, 1), _day(10, 1))]


def rolling_splits(reports: LabelledReports) -> list[Split]:
    """Each half month from August on, from all that went before."""
    days = [_day(8, 1), _day(8, 16), _day(9, 1), _day(9, 16), _day(10, 1)]
    return [_split(reports, start, end) for start, end in neighbouring(days)]


def _split(reports: LabelledReports, start_s: float, end_s: float) -> Split:
    return Split(reports.before(start_s), reports, (reports.time_s >= start_s) & (reports.time_s < end_s))


def _day(month: int, day: int) -> float:
    """Midnight UTC, as the recording's own month files have it."""
    return datetime(2011, month, day, tzinfo=UTC).timestamp()


@lru_cache(maxsize=1)
def _drawn_once(scenario: str, hours: float, seed: int) -> LabelledReports:
    return simulated(SAMPLE, scenario, hours=hours, seed=seed, vary=False)


def simulated_splits(scenario: str, hours: float, seeds: Sequence[int], *, vary: bool) -> list[Split]:
    """Fitted on four times as long a time of another seed, with the error model as delivered; scored on ``seeds``."""
    train = _drawn_once(scenario, 4 * hours, 1)
    tests = [simulated(SAMPLE, scenario, hours=hours, seed=seed, vary=vary) for seed in seeds]
    return [Split(train, test, np.ones(len(test), bool)) for test in tests]


RECORDED = Grid()
_WINDOWS_D = (0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0)
SIMULATED = Grid(
    radius_m=(5, 12, 22, 33, 50, 65, 80, 100, 130, 170, 220),
    window_d=_WINDOWS_D,
    same_d=_WINDOWS_D,
    cap_m=(0.0, 30.0, 100.0),  # unlike the recorded, these positions differ in how good they are
)
"""A week has no months, and the sources of a simulation say how well they know where they are."""


def methods(grid: Grid, start: CityPack | None) -> list[Method]:
    """All that are measured, ours first; ``start`` is the pack that ours begins with, where not that of the reports."""
    bounds_m = (40, 65, 100, 170, 320)
    return [
        ServiceAsShipped(),
        FittedService(start=start),
        PlainRule(grid=replace(grid, cap_m=(0.0,))),  # it knows nothing of how good positions are
        FittedTable("fitted table, one tier", tiers=False, grid=grid, bounds_m=bounds_m),
        FittedTable(grid=grid, bounds_m=bounds_m),
        *(
            [FittedTable("table, pack's reach for few", grid=grid, bounds_m=bounds_m, start=start)]
            if start is not None
            else []
        ),
        StDbscan(),
        Splink(),
    ]


@dataclass(frozen=True)
class Stage:
    """Splits that are scored together."""

    name: str
    price: float
    """At which a method is told of."""
    splits: list[Split]
    grid: Grid
    start: CityPack | None = None
    """The pack that our own learning begins with, where that of the reports has seen what is scored."""


def stages(folder: Path, pack: Path, only: Sequence[str]) -> Iterator[Stage]:
    """What is wanted, one after the other: a stage's reports are let go with it."""
    if {"boston", "rolling"} & set(only):
        reports = boston(folder, pack)
        start = before_labels(reports.pack)
        if "boston" in only:
            yield Stage("boston", TOLD_AT["boston"], boston_splits(reports), RECORDED, start)
            yield Stage(BEFORE_TWICE, TOLD_AT["boston"], [_split(reports, _day(9, 1), _day(9, 22))], RECORDED, start)
        if "rolling" in only:
            yield Stage("rolling", TOLD_AT["rolling"], rolling_splits(reports), RECORDED, start)
    for name, scenario, hours in (("week", "normal-week", 168.0), ("storm", "storm", 24.0)):
        if name in only:
            for title, seeds, vary in ((name, (11, 12), False), (f"{name}, varied", (21, 22, 23, 24), True)):
                splits = simulated_splits(scenario, hours, seeds, vary=vary)
                yield Stage(title, TOLD_AT[name], splits, SIMULATED)


@dataclass
class Run:
    """One method at every stop of its dial, on one stage."""

    name: str
    stops: dict[float, Scored]
    settings: dict[float, dict[str, object]]
    seconds: float

    def curve(self, resampled: Resampled) -> list[str]:
        """Every stop that differs, a line each under a line of names: the figures themselves, without intervals."""
        lines = [" ".join(("price", *CURVE))]
        for price, one in self.stops.items():
            found = figures(one, resampled)
            values = (value[0] if isinstance(value, list) else value for value in map(found.__getitem__, CURVE))
            line = " ".join(str(value) for value in values)
            if not lines[-1].endswith(f" {line}"):
                lines.append(f"{price} {line}")
        return lines


def run(method: Method, stage: Stage, prices: Sequence[float]) -> Run:
    """Train on each split once, set the dial to each price, predict, count."""
    started = time.perf_counter()
    parts: dict[float, list[Scored]] = {price: [] for price in prices}
    settings: dict[float, dict[str, object]] = {}
    trained_on: dict[int, Trained] = {}
    for split in stage.splits:
        key = id(split.train)
        if key not in trained_on:
            trained_on[key] = method.train(split.train)
        told: dict[str, Scored] = {}  # two prices may lead to one setting
        for price in prices:
            fitted = trained_on[key].at(price)
            settings[price] = fitted.settings()
            name = repr(settings[price])
            if name not in told:
                told[name] = scored(split.test, fitted.predict(split.test), split.period)
            parts[price].append(told[name])
    same: dict[tuple[int, ...], Scored] = {}
    stops = {price: same.setdefault(tuple(map(id, of_price)), together(of_price)) for price, of_price in parts.items()}
    return Run(method.name, stops, settings, time.perf_counter() - started)


def compared(runs: Sequence[Run], stage: Stage, resampled: Resampled) -> dict[str, object]:
    """Ours less each rival in pair F1, at as many joins as either makes where it is told of.

    Joins are counted once over all categories, once over those that are flagged at all.
    """
    result: dict[str, object] = {}
    for ours in (one for one in runs if one.name.startswith(SERVICE)):
        for rival in (one for one in runs if not one.name.startswith(SERVICE)):
            told: dict[str, object] = {}
            for where_flagged in (False, True):
                a, b = (_sweep(one, resampled, where_flagged=where_flagged) for one in (ours, rival))
                for title, one in (("rival's", rival), ("ours", ours)):
                    stop = one.stops[stage.price]
                    joins = stop.joins_where_flagged if where_flagged else stop.joins
                    where = "joins in flagging categories" if where_flagged else "joins"
                    told[f"at {title} {where}"] = {"joins": joins, "difference": difference(a, b, joins)}
            result[f"{ours.name} - {rival.name}"] = told
    return result


def _sweep(one: Run, resampled: Resampled, *, where_flagged: bool) -> Sweep:
    return sweep(list(one.stops.values()), resampled, where_flagged=where_flagged)


def measure(stage: Stage, wanted: Sequence[str], prices: Sequence[float]) -> dict[str, object]:
    """All methods whose names begin as wanted, on one stage."""
    runs = []
    resampled: Resampled | None = None
    result: dict[str, object] = {}
    for method in methods(stage.grid, stage.start):
        if not method.name.startswith(tuple(wanted)):
            continue
        one = run(method, stage, prices)
        told = one.stops[stage.price]
        resampled = resampled or Resampled(told.cluster)
        check(told, resampled)
        runs.append(one)
        result[method.name] = {
            "seconds": round(one.seconds, 1),
            **figures(told, resampled),
            "settings": one.settings[stage.price],
            "curve": one.curve(resampled),
        }
        print(_line(stage.name, method.name, figures(told, resampled)), flush=True)
    assert resampled is not None
    return {
        "labelled": int(np.count_nonzero(runs[0].stops[stage.price].cluster != NONE)),
        "clusters": len(resampled.clusters),
        "told_at_price": stage.price,
        "methods": result,
        "at_equal_joins": compared(runs, stage, resampled),
    }


def _line(stage: str, method: str, found: dict[str, object]) -> str:
    """A row for whoever watches."""

    def shown(name: str) -> str:
        value = found[name]
        if isinstance(value, list):
            return " to ".join(f"{one:.3f}" if one is not None else "-" for one in value[1:]).join(
                (f"{value[0]:.3f} (" if value[0] is not None else "- (", ")")
            )
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    names = ("pair_f1", "b_cubed_f1", "link_recall", "join_unflagged", "wrongly_merged", "joins")
    return f"{stage:14s} {method:26s} " + "  ".join(f"{name} {shown(name)}" for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(TOLD_AT), default=list(TOLD_AT))
    parser.add_argument("--methods", nargs="+", default=[""], help="beginnings of their names")
    parser.add_argument("--save", action="store_true")
    asked = parser.parse_args()
    found = {one.name: measure(one, asked.methods, PRICES) for one in stages(asked.folder, asked.pack, asked.only)}
    # A file for what was asked for, so that one stage measured anew leaves the others' files as they are.
    tell("_".join(["quality", *(asked.only if asked.only != list(TOLD_AT) else ())]), {"stages": found})


if __name__ == "__main__":
    main()
