"""Joins that no clerk flagged, drawn by seed to be read by hand; and what the readers found.

    python -m benchmarks.unflagged_joins BOSTON-DATA PACK --seed 1 --out build/unflagged.txt
    python -m benchmarks.unflagged_joins BOSTON-DATA PACK --seed 1 --summary [--save]

A missing flag does not prove that a report is unique, so `join_unflagged` is no error rate.  The first form replays the
recording by PACK, draws 200 of September's joins that nobody flagged and writes each beside the report it was put with:
texts and addresses, categories, sources, distance, gap.  That file holds third-party texts: it stays out of the
repository.  What was found goes into `benchmarks/verdicts/unflagged_joins.csv`, one line a pair:

    report_id,joined_id,verdict,ground

with the verdict `same` (one event), `other` (two events) or `unsure`, and a word for the ground, such as `address`,
`minutes`, `order` (two work orders of a crew), `after-repair`.  The second form says what share of the joins drawn is
wrong, with an interval, and how many of them have no verdict yet.

The draw goes by a hash of seed and pair, so that a matcher that joins a little differently draws mostly the same pairs.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.labelled_reports import Index, LabelledReports, boston
from benchmarks.results_file import tell
from benchmarks.service import Replayed
from streams.evaluation import joins_an_earlier
from streams.messages import SOURCES

ROOT = Path(__file__).resolve().parent.parent
VERDICTS = ROOT / "benchmarks" / "verdicts" / "unflagged_joins.csv"
COLUMNS = ("report_id", "joined_id", "verdict", "ground")
WORDS = ("same", "other", "unsure")
DRAWN = 200
FROM = datetime(2011, 9, 1, tzinfo=UTC)

Pair = tuple[int, int]
"""Rows of a report and of the earlier one that it was put with."""


def unflagged_joins(reports: LabelledReports, incident: Index, from_s: float) -> list[Pair]:
    """Every report from a time on that nobody flagged and that joins, with the nearest earlier one of its incident.

    Of equally near ones the newest.  Reports without a flag of their own, in whatever cluster, count as unflagged.
    """
    joins = np.flatnonzero(joins_an_earlier(incident) & (reports.flag == 0) & (reports.time_s >= from_s))
    members: dict[int, list[int]] = {}
    for row, number in enumerate(incident.tolist()):
        members.setdefault(number, []).append(row)
    pairs = []
    for row in joins.tolist():
        earlier = [one for one in members[int(incident[row])] if one < row]
        pairs.append((row, min(earlier, key=lambda one: (_distance_m(reports, row, one), -one))))
    return pairs


def drawn(reports: LabelledReports, pairs: Iterable[Pair], seed: int, count: int = DRAWN) -> list[Pair]:
    """As many of the pairs, in an order that depends on the seed and on each pair alone."""

    def lot(pair: Pair) -> bytes:
        names = ":".join(_name(reports, row) for row in pair)
        return hashlib.blake2b(f"{seed}:{names}".encode(), digest_size=16).digest()

    return sorted(pairs, key=lot)[:count]


def described(reports: LabelledReports, pair: Pair, incident: Index) -> str:
    """A pair for a reader."""
    gap_s = reports.time_s[pair[0]] - reports.time_s[pair[1]]
    size = int(np.count_nonzero(incident == incident[pair[0]]))
    lines = [
        f"{_name(reports, pair[0])},{_name(reports, pair[1])}   {_distance_m(reports, *pair):.0f} m, {_gap(gap_s)}, "
        f"incident of {size}"
    ]
    for row in reversed(pair):
        columns = reports.reports
        said = " | ".join(one for one in (str(columns.address[row]), str(columns.text[row])) if one)
        when = datetime.fromtimestamp(reports.time_s[row], UTC)
        code = reports.pack.categories[reports.category[row]].name
        lines.append(f"    {when:%a %d %b %H:%M}  {SOURCES[reports.source[row]]:8s} {code}: {said}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Verdict:
    """What a reader found."""

    verdict: str
    ground: str


def read_verdicts(lines: Iterable[str], *, name: str = VERDICTS.name) -> dict[tuple[str, str], Verdict]:
    """By the ids of a pair.  Raises ``ValueError`` naming the line that is no verdict, or stands twice."""
    reader = csv.DictReader(lines)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(f"{name}:1: the columns are {', '.join(COLUMNS)}")
    found: dict[tuple[str, str], Verdict] = {}
    for row in reader:
        pair = (row["report_id"], row["joined_id"])
        if row["verdict"] not in WORDS or len((row["ground"] or "").split()) != 1:
            raise ValueError(f"{name}:{reader.line_num}: a verdict is one of {', '.join(WORDS)}, its ground one word")
        if pair in found:
            raise ValueError(f"{name}:{reader.line_num}: {', '.join(pair)} has a verdict already")
        found[pair] = Verdict(row["verdict"], row["ground"])
    return found


def summary(
    reports: LabelledReports, pairs: Iterable[Pair], verdicts: Mapping[tuple[str, str], Verdict]
) -> dict[str, object]:
    """What the readers say of the pairs drawn: the share of two events among those told, and of what kind they are."""
    words: Counter[str] = Counter()
    grounds: dict[str, Counter[str]] = {word: Counter() for word in WORDS}
    categories: dict[str, Counter[str]] = {}
    missing = 0
    for pair in pairs:
        found = verdicts.get((_name(reports, pair[0]), _name(reports, pair[1])))
        if found is None:
            missing += 1
            continue
        words[found.verdict] += 1
        grounds[found.verdict][found.ground] += 1
        code = reports.pack.categories[reports.category[pair[0]]].code
        categories.setdefault(code, Counter())[found.verdict] += 1
    told = words["same"] + words["other"]
    return {
        "without_verdict": missing,
        **{word: words[word] for word in WORDS},
        "other_share": _with_interval(words["other"], told),
        "grounds": {word: dict(counts.most_common()) for word, counts in grounds.items()},
        "by_category": {code: dict(counts) for code, counts in sorted(categories.items())},
    }


def _with_interval(part: int, whole: int) -> list[float] | None:
    """Share and Wilson's interval of 95 %."""
    if not whole:
        return None
    z = 1.96
    share = part / whole
    middle = (share + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole)) / (1 + z * z / whole)
    return [round(share, 4), round(middle - half, 4), round(middle + half, 4)]


def _distance_m(reports: LabelledReports, a: int, b: int) -> float:
    return float(np.hypot(reports.x_m[a] - reports.x_m[b], reports.y_m[a] - reports.y_m[b]))


def _name(reports: LabelledReports, row: int) -> str:
    return str(reports.reports.report_id[row])


def _gap(gap_s: float) -> str:
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if abs(gap_s) >= 2 * length_s:
            return f"{gap_s / length_s:.1f} {unit}"
    return f"{gap_s:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where to write the pairs; not into the repository")
    parser.add_argument("--summary", action="store_true", help="what the verdicts say")
    parser.add_argument("--save", action="store_true")
    asked = parser.parse_args()
    reports = boston(asked.folder, asked.pack)
    incident = Replayed().predict(reports)
    pairs = unflagged_joins(reports, incident, FROM.timestamp())
    chosen = drawn(reports, pairs, asked.seed)
    if asked.out:
        text = "\n\n".join(f"{number}. {described(reports, pair, incident)}" for number, pair in enumerate(chosen, 1))
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text + "\n", encoding="utf-8")
        print(f"{len(chosen)} of {len(pairs):,} unflagged joins: {asked.out}")
    if asked.summary:
        with VERDICTS.open(encoding="utf-8", newline="") as lines:
            verdicts = read_verdicts(lines)
        found = summary(reports, chosen, verdicts)
        tell("unflagged_joins", {"seed": asked.seed, "unflagged_joins": len(pairs), "drawn": len(chosen), **found})


if __name__ == "__main__":
    main()
