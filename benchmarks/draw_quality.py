"""The picture of `benchmarks.quality`: each method along its dial.

    python -m benchmarks.draw_quality benchmarks/results/quality-DATE.json docs/quality.svg

A row for each data set: on the left precision against recall of the labelled pairs, where grey lines are of equal F1;
on the right F1 against joins, the reports that were put with an earlier one, labelled or not, for whoever joins more
finds more.  A method without a dial is a point.  The large mark is the stop at which the method is told of.  The same
results give the same bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

TITLES = {
    "boston": "Boston, September 2011, fitted on July and August",
    "boston, to 21 Sept": "Boston, 1 to 21 September 2011, before every lamp was keyed twice",
    "rolling": "Boston, half months, each fitted on the weeks before",
    "week": "simulated week",
    "storm": "simulated storm",
}
LEAST_F1 = 0.6
"""Stops below that are not shown: a dial turned so far is of no use."""
# Okabe and Ito's colours, which nearly everybody can tell apart; the marks tell them apart in print.
STYLES = (
    ("#999999", "v"), ("#56B4E9", "s"), ("#0072B2", "D"), ("#009E73", "^"), ("#CC79A7", "P"), ("#D55E00", "o"),
)  # fmt: skip
OURS = "#000000"
_EQUAL_F1 = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def read_curve(lines: list[str]) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """The columns of a curve."""
    names, *rows = (line.split() for line in lines)
    values = np.array([[np.nan if one == "None" else float(one) for one in row] for row in rows])
    return dict(zip(names, values.T, strict=True))


def draw_stage(pairs: Axes, joins: Axes, stage: dict[str, Any], title: str, styles: dict[str, tuple[str, str]]) -> None:
    """One row."""
    curves = {name: read_curve(method["curve"]) for name, method in stage["methods"].items()}
    best = max(float(np.nanmax(curve["pair_f1"])) for curve in curves.values())
    least_f1 = min(LEAST_F1, best - 0.2)
    for name, curve in curves.items():
        colour, mark = styles[name]
        order = np.argsort(curve["joins"])
        order = order[curve["pair_f1"][order] >= least_f1]
        told = stage["methods"][name]
        for axes, across, up, at in (
            (pairs, "pair_recall", "pair_precision", (told["pair_recall"][0], told["pair_precision"][0])),
            (joins, "joins", "pair_f1", (told["joins"], told["pair_f1"][0])),
        ):
            over = 1 if colour == OURS else 0
            line: dict[str, Any] = {"color": colour, "marker": mark, "linewidth": 1.2 + over, "zorder": 2 + over}
            axes.plot(curve[across][order], curve[up][order], markersize=3, label=name, **line)
            if told["pair_f1"][0] >= least_f1:
                axes.plot(*at, markersize=9, markeredgecolor="white", markeredgewidth=0.8, **line | {"zorder": 4})
    pairs.set_xlim(right=1.0)
    pairs.set_ylim(top=1.005)
    _lines_of_equal_f1(pairs)
    joins.grid(axis="y", color="#eeeeee")
    pairs.set_title(f"{title} ({stage['clusters']:,} events)", fontsize=10, loc="left", fontweight="bold", pad=12)
    for axes, across, up in ((pairs, "recall of pairs", "precision of pairs"), (joins, "joins", "F1 of pairs")):
        axes.set_xlabel(across, fontsize=8)
        axes.set_ylabel(up, fontsize=8)
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)


def _lines_of_equal_f1(axes: Axes) -> None:
    """In what of the panel is seen."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    recall = np.linspace(max(left, 0.01), right, 400)
    for f1 in _EQUAL_F1:
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = f1 * recall / (2 * recall - f1)
        seen = (2 * recall > f1) & (precision >= bottom) & (precision <= 1)
        if seen.sum() > 1:
            axes.plot(recall[seen], precision[seen], color="#dddddd", linewidth=0.8, zorder=1)
            axes.annotate(f"F1 {f1:g}", (recall[seen][-1], precision[seen][-1]), color="#888888", fontsize=7,
                          xytext=(-4, 4), textcoords="offset points", ha="right", annotation_clip=False)  # fmt: skip
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def draw(results: dict[str, Any], out: Path) -> None:
    """A row for each stage that has a title."""
    stages = {name: stage for name, stage in results["stages"].items() if name in TITLES}
    names = list(dict.fromkeys(name for stage in stages.values() for name in stage["methods"]))
    others = iter(STYLES)
    ours = iter(("X", "*"))  # as it stands, and fitted
    styles = {name: (OURS, next(ours)) if name.startswith("service") else next(others) for name in names}
    rows = len(stages)
    height = 3.6 * rows + 0.7
    with matplotlib.rc_context({"svg.hashsalt": "quality", "font.family": "DejaVu Sans"}):
        figure, grid = plt.subplots(rows, 2, figsize=(10, height), squeeze=False)
        for row, (name, stage) in zip(grid, stages.items(), strict=True):
            draw_stage(row[0], row[1], stage, TITLES[name], styles)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=3, fontsize=8, frameon=False)
        figure.tight_layout(rect=(0, 0.7 / height, 1, 1), h_pad=2, w_pad=3)
        figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
        plt.close(figure)


def main() -> None:
    source, out = (Path(argument) for argument in sys.argv[1:3])
    draw(json.loads(source.read_text(encoding="utf-8")), out)
    print(out)


if __name__ == "__main__":
    main()
