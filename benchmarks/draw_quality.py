"""The picture of `benchmarks.quality`: precision against recall of every method along its dial.

    python -m benchmarks.draw_quality benchmarks/results/quality-DATE.json docs/quality.svg

A method without a dial is a point.  The large mark is the stop at which the method is told of; grey lines are of equal
F1.  The same results give the same bytes.
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
    "boston": "Boston, September 2011,\nfitted on July and August",
    "rolling": "Boston, half months,\neach fitted on the weeks before",
    "week": "simulated week,\nerror model as delivered",
    "week, varied": "simulated week,\nerror model varied by seed",
    "storm": "simulated storm,\nerror model as delivered",
    "storm, varied": "simulated storm,\nerror model varied by seed",
}
# Okabe and Ito's colours, which nearly everybody can tell apart; the marks tell them apart in print.
STYLES = (
    ("#D55E00", "o"), ("#999999", "v"), ("#56B4E9", "s"), ("#0072B2", "D"), ("#009E73", "^"), ("#CC79A7", "P"),
)  # fmt: skip
OURS = "#000000"
_EQUAL_F1 = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def read_curve(lines: list[str]) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """The columns of a curve."""
    names, *rows = (line.split() for line in lines)
    values = np.array([[np.nan if one == "None" else float(one) for one in row] for row in rows])
    return dict(zip(names, values.T, strict=True))


def draw_stage(axes: Axes, stage: dict[str, Any], title: str, styles: dict[str, tuple[str, str]]) -> None:
    """One panel."""
    curves = {name: read_curve(method["curve"]) for name, method in stage["methods"].items()}
    least = min(
        float(np.nanmin(curve[name][curve["pair_f1"] > 0.4], initial=0.8))
        for curve in curves.values()
        for name in ("pair_recall", "pair_precision")
    )
    low = max(0.0, np.floor(least * 10 - 0.5) / 10)
    recall = np.linspace(max(low, 0.01), 1, 200)
    for f1 in _EQUAL_F1:
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = f1 * recall / (2 * recall - f1)
        seen = (2 * recall > f1) & (precision >= low) & (precision <= 1)
        if seen.sum() > 1:
            axes.plot(recall[seen], precision[seen], color="#dddddd", linewidth=0.8, zorder=1)
            axes.annotate(f"{f1:g}", (recall[seen][-1], precision[seen][-1]), color="#888888", fontsize=7,
                          xytext=(2, -2), textcoords="offset points", annotation_clip=False)  # fmt: skip
    for name, curve in curves.items():
        colour, mark = styles[name]
        order = np.argsort(curve["joins"])
        axes.plot(curve["pair_recall"][order], curve["pair_precision"][order], color=colour, marker=mark, markersize=3,
                  linewidth=2 if colour == OURS else 1.2, label=name, zorder=3 if colour == OURS else 2)  # fmt: skip
        told = stage["methods"][name]
        axes.plot(told["pair_recall"][0], told["pair_precision"][0], color=colour, marker=mark, markersize=9,
                  markeredgecolor="white", markeredgewidth=0.8, zorder=4)  # fmt: skip
    axes.set_xlim(low, 1.0)
    axes.set_ylim(low, 1.005)
    axes.set_title(f"{title} ({stage['clusters']:,} events)", fontsize=9)
    axes.set_xlabel("recall of pairs", fontsize=8)
    axes.set_ylabel("precision of pairs", fontsize=8)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw(results: dict[str, Any], out: Path) -> None:
    """All stages, two in a row."""
    stages = {name: stage for name, stage in results["stages"].items() if name in TITLES}
    names = list(dict.fromkeys(name for stage in stages.values() for name in stage["methods"]))
    ours = [name for name in names if name.startswith("service")]
    others = iter(STYLES[1:])
    styles = {
        name: (OURS, "*") if name == ours[-1:][0] else STYLES[0] if name in ours else next(others) for name in names
    }
    rows = (len(stages) + 1) // 2
    with matplotlib.rc_context({"svg.hashsalt": "quality", "font.family": "DejaVu Sans"}):
        figure, grid = plt.subplots(rows, 2, figsize=(9, 4.1 * rows + 0.6), squeeze=False)
        for axes, (name, stage) in zip(grid.flat, stages.items(), strict=False):
            draw_stage(axes, stage, TITLES[name], styles)
        for axes in grid.flat[len(stages) :]:
            axes.set_visible(False)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=3, fontsize=8, frameon=False)
        figure.tight_layout(rect=(0, 0.6 / (4.1 * rows + 0.6), 1, 1), h_pad=2)
        figure.savefig(out, metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    source, out = (Path(argument) for argument in sys.argv[1:3])
    draw(json.loads(source.read_text(encoding="utf-8")), out)
    print(out)


if __name__ == "__main__":
    main()
