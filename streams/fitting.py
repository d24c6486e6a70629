"""Learns from labelled reports how a city's catalogue is to weigh evidence (docs/decisions/020).

Where nearly all reports are labelled, a regression does it (:mod:`.pair_odds`).  What follows is for the others.

A setting is judged by what the dedupe core itself makes of the reports with it.  Labels are incomplete, so a setting is
worth, over the reports that it is judged on,

    (recall - 1) + `PRECISION_WEIGHT` · (precision - 1), B-cubed, of each labelled report
    + `FLAGGED_WEIGHT` for each report that joins an earlier one and was flagged, as a duplicate of nobody knows what
    - dial for each report that joins an earlier one though nobody flagged it
    - `STEP_PRICE` for each step of the grid that a value lies from where it started

The last line is the shrinkage: a category group starts from the row that suits all of them, and only labels move it
away.  Each worth is averaged over a threshold somewhat lower and somewhat higher, so that what is chosen does not hang
on a few points.  A group with few labels or none is not judged by its unflagged reports at all: it is unknown, not
unique.  It keeps the reach that its pack gives it, and is weighed as all others together are.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import NamedTuple

import msgspec
import numpy as np

from streams.dedupe import Dedupe
from streams.evaluation import NONE, Index, b_cubed, contingency, joins_an_earlier, pairwise
from streams.labels import LabelError, LabelledReports
from streams.messages import SOURCES
from streams.pack_entries import Category, Match, Related
from streams.pair_odds import pairs_of, rows_of_pairs
from streams.reports import LocatedReports
from streams.terms import CategoryTerms, MatchTerms, PackTerms, Terms

HOUR_S = 3600.0
DAY_S = 86_400.0

GRID: dict[str, tuple[float, ...]] = {
    "prior": (-300, -250, -225, -200, -175, -150, -125, -100, -75, -50, 0),
    "spread_m": (1, 3, 6, 10, 15, 25, 40, 70),
    "decay_s": (60, 300, 900, HOUR_S, 3 * HOUR_S, 8 * HOUR_S, DAY_S, 3 * DAY_S),
    "same_place": (0, 25, 50, 75, 100, 125, 150, 200, 250),
    "same_place_decay_s": (60, 300, 900, HOUR_S, 3 * HOUR_S, 8 * HOUR_S, DAY_S, 3 * DAY_S),
    "window_s": (HOUR_S, 6 * HOUR_S, DAY_S, 2 * DAY_S, 3 * DAY_S, 7 * DAY_S, 30 * DAY_S),
    "same_place_window_s": (HOUR_S, 6 * HOUR_S, DAY_S, 2 * DAY_S, 3 * DAY_S, 7 * DAY_S, 14 * DAY_S, 30 * DAY_S),
    "radius_m": (0, 10, 20, 40, 80, 120, 200),
    "same_place_m": (1, 3, 10),
    "unrelated": (0.001, 0.1, 0.3, 1.0),
    "gap_percent": (50, 75, 100, 150, 200, 300),
    "rhythm_percent": (0, 10, 25, 50, 100),
    "rival_percent": (0, 50, 100),
    "text_percent": (0, 50, 100),
}
"""The values tried, in the units of a pack."""
PAIR_GRID = (-300, -200, -100, -50, 0, 50, 100)
"""Points by the sources of the founding report and of the one that joins."""
SIMILAR_GRID = (0.001, 0.03, 0.1, 0.3, 1.0)
"""Similarity of two categories of a group."""
START: dict[str, float] = {
    "prior": -100, "spread_m": 10, "decay_s": HOUR_S, "same_place": 100, "same_place_decay_s": HOUR_S,
    "window_s": 2 * DAY_S, "same_place_window_s": 7 * DAY_S, "radius_m": 40, "same_place_m": 1, "unrelated": 0.3,
    "gap_percent": 100, "rhythm_percent": 25, "rival_percent": 0, "text_percent": 0,
}  # fmt: skip
"""Where the row of all groups starts: what is known of reports before any is seen."""
ALIKE_KM2 = 5.0
"""Moves the threshold only, as ``prior`` does, so one of both must stand still."""

PRECISION_WEIGHT = 1.5
FLAGGED_WEIGHT = 0.5
STEP_PRICE = 0.045
SHIFTS = ((-60, 0.25), (0, 0.5), (60, 0.25))
"""Points added to the threshold, and the weight of what comes of it."""
DIAL = 0.05
"""What one unflagged join costs, where a report wholly missed costs one."""
LEAST_DIAL = 0.001
LEAST_LABELS = 4
"""Labelled reports of a group from which on the row of all groups is learnt from it too."""
OWN_ROW_LABELS = 20
"""Those from which on it gets a row of its own.  So few as come before can all lie within a minute by chance, and then
the price of unflagged joins would shut out all the rest: the reach that its pack gives it says more."""
FOLDS = 3

Row = dict[str, float]
"""A setting of a group: values of `GRID`, of pairs (``hotline-patrol``) and of similarities (``a|b``)."""


@dataclass(frozen=True)
class Effort:
    """How long to search; more changes little but the time."""

    restarts: int = 3
    """Descents after the first of a group with at least ``many_labels`` labelled reports."""
    few: int = 1
    """Those of any other."""
    many_labels: int = 60


# ---------------------------------------------------------------------------------------------------- one setting


def with_row(category: Category, row: Mapping[str, float]) -> Category:
    """A category as a row of values has it."""
    pairs = {
        (one, other): round(row[f"{one}-{other}"])
        for one, other in product(SOURCES, SOURCES)
        if row.get(f"{one}-{other}")
    }
    names = [f"again {source}" for source in SOURCES]
    again = {name.removeprefix("again "): round(row[name]) for name in names if row.get(name)}
    window_s = row.get("window_s", category.window_s)
    match = Match(
        prior=round(row["prior"]),
        spread_m=row["spread_m"],
        alike_km2=ALIKE_KM2,
        decay_s=row["decay_s"],
        same_place_m=row["same_place_m"],
        same_place=round(row["same_place"]),
        same_place_window_s=max(row.get("same_place_window_s", category.match.same_place_window_s), window_s),
        same_place_decay_s=row["same_place_decay_s"],
        text_percent=round(row["text_percent"]),
        busy_percent=0,
        rival_percent=round(row["rival_percent"]),
        gap_percent=round(row["gap_percent"]),
        rhythm_percent=round(row["rhythm_percent"]),
        unrelated=row["unrelated"],
        reopening=category.match.reopening,
        sigmas=category.match.sigmas,
        rethink=category.match.rethink,
        rethink_s=category.match.rethink_s,
        pairs=pairs,
        again=again if any(name in row for name in names) else category.match.again,
    )
    return replace(category, radius_m=row.get("radius_m", category.radius_m), window_s=window_s, match=match)


def _terms_of(was: CategoryTerms, category: Category, row: Mapping[str, float]) -> CategoryTerms:
    """The terms of a changed category: similarities that the pack names stay, those of the row come to them."""
    similar = {
        other if one == category.code else one: similarity
        for name, similarity in row.items()
        for one, bar, other in [name.partition("|")]
        if bar and category.code in (one, other)
    }
    match = MatchTerms.from_match(category.match, category, similar)
    related = tuple(sorted((dict(was.match.related) | dict(match.related)).items()))
    return msgspec.structs.replace(
        was,
        radius_cm=round(category.radius_m * 100),
        window_ms=round(category.window_s * 1000),
        match=msgspec.structs.replace(match, related=related),
    )


def incidents_of(reports: LocatedReports, categories: Sequence[CategoryTerms], terms: Terms) -> Index:
    """The incident that each report is in at last, by the dedupe core, as if categories were those."""
    trial = Terms(terms.city)
    for category in categories:
        trial.groups.setdefault(category.group, len(trial.groups))
    trial.categories = list(categories)
    trial.cover(terms.south_deg, terms.north_deg)
    dedupe = Dedupe(trial, one_clock=True, lateness_s=10**9, remember_s=10**9)
    decided = dedupe.apply(reports)
    incident = decided.incident.astype(np.int64)
    if len(decided.corrections):
        loose_rows: dict[int, list[int]] = {}
        for row in np.flatnonzero(decided.loose_at >= 0).tolist():
            loose_rows.setdefault(int(decided.loose_at[row]), []).append(row)
        for correction in decided.corrections:
            # A place for loose reports is used again, so its latest report by then is meant.
            of = [row for row in loose_rows[int(correction["loose_at"])] if row < correction["row"]]
            incident[of[-1]] = correction["joined"]
    return incident


def worth(incident: Index, cluster: Index, flag: Index, dial: float) -> float:
    """What some incidents are worth; see the top of this module, without the last line."""
    joined = joins_an_earlier(incident)
    labelled = cluster != NONE
    value = -dial * np.count_nonzero(joined & (flag == 0))
    value += FLAGGED_WEIGHT * np.count_nonzero(joined & (flag == 1) & ~labelled)
    if labelled.any():
        a, b, both = contingency(incident[labelled], cluster[labelled])
        squares = both.astype(np.float64) ** 2
        count = both.sum()
        precision = (squares / np.bincount(a, weights=both)[a]).sum()
        recall = (squares / np.bincount(b, weights=both)[b]).sum()
        value += recall - count + PRECISION_WEIGHT * (precision - count)
    return float(value)


# --------------------------------------------------------------------------------------------------------- search


class _Search:
    """Coordinate descent over the rows of some category groups that share one row."""

    def __init__(self, labelled: LabelledReports, groups: Sequence[str], start: Row, dial: float) -> None:
        pack = labelled.pack
        self.numbers = [number for number, one in enumerate(pack.categories) if one.group in set(groups)]
        place = np.full(len(pack.categories), NONE, np.int64)
        place[self.numbers] = np.arange(len(self.numbers))
        part = labelled.take(place[labelled.reports.category] != NONE)
        part.reports.category = place[part.reports.category].astype(np.int32)
        self.part = part
        self._categories = [pack.categories[number] for number in self.numbers]
        self._was = [labelled.terms.categories[number] for number in self.numbers]
        self._dial = dial
        self._known: dict[tuple[float, ...], float] = {}
        self.start = dict(start)
        self.grid: dict[str, tuple[float, ...]] = dict(GRID)
        present = [SOURCES[number] for number in np.unique(part.reports.source).tolist()]
        for one, other in product(present, present):
            self.grid[f"{one}-{other}"] = PAIR_GRID
            self.start.setdefault(f"{one}-{other}", 0.0)
        if len(self.numbers) == 1:
            del self.grid["unrelated"]
        self.keys = tuple(self.grid)

    def incidents(self, row: Row) -> Index:
        """What the core makes of the part with a row."""
        categories = [
            _terms_of(was, with_row(category, row), row)
            for was, category in zip(self._was, self._categories, strict=True)
        ]
        return incidents_of(self.part.reports, categories, self.part.terms)

    def worth(self, row: Row) -> float:
        """What a row is worth, less what its distance from the start costs."""
        key = tuple(row[name] for name in self.keys)
        known = self._known.get(key)
        if known is None:
            known = 0.0
            for shift, weight in SHIFTS:
                incident = self.incidents({**row, "prior": row["prior"] + shift})
                known += weight * worth(incident, self.part.cluster, self.part.flag, self._dial)
            known -= STEP_PRICE * sum(self._steps(name, row[name]) for name in self.keys)
            self._known[key] = known
        return known

    def _steps(self, name: str, value: float) -> int:
        values = self.grid[name]
        return abs(values.index(value) - values.index(self.start[name]))

    def descend(self, row: Row, chance: random.Random) -> tuple[float, Row]:
        """Change one value at a time for the better, until none is."""
        best = self.worth(row)
        while True:
            improved = False
            for name in chance.sample(self.keys, len(self.keys)):
                values = self.grid[name]
                at = values.index(row[name])
                near = values if len(values) <= 6 else values[max(0, at - 2) : at + 3]
                for value in near:
                    tried = {**row, name: value}
                    found = self.worth(tried)
                    if found > best + 1e-9:
                        best, row, improved = found, tried, True
            if not improved:
                return best, row

    def fit(self, restarts: int, seed: int) -> Row:
        """The best row of several descents, each from the best so far with three values drawn anew."""
        chance = random.Random(seed)
        best, row = self.descend(dict(self.start), chance)
        for _ in range(restarts):
            tried = dict(row)
            for name in chance.sample(self.keys, 3):
                tried[name] = chance.choice(self.grid[name])
            found, tried = self.descend(tried, chance)
            if found > best + 1e-9:
                best, row = found, tried
        return row


# --------------------------------------------------------------------------------------------------------- fitting


@dataclass(frozen=True)
class Fitted:
    """What was learnt.

    Attributes
    ----------
    common : dict
        The row that suits all groups with labels; radius and window are not meant for the others.
    rows : dict
        The row of each group with enough labels, by its name.
    labels : dict
        Labelled reports of each group that has any.
    """

    labelled: LabelledReports = field(repr=False)
    common: Row
    rows: Mapping[str, Row]
    labels: Mapping[str, int]

    def category(self, category: Category) -> Category:
        """A category of the pack as it was learnt."""
        row = self.rows.get(category.group)
        if row is not None:
            return with_row(category, row)
        match = with_row(category, {name: value for name, value in self.common.items() if name not in _OWN}).match
        return replace(category, match=match)

    def related(self) -> list[Related]:
        """The pairs whose similarity is another than that of any two categories of their group."""
        return [
            Related(one, other, similarity)
            for row in self.rows.values()
            for name, similarity in row.items()
            for one, bar, other in [name.partition("|")]
            if bar and similarity != row["unrelated"]
        ]

    def incidents(self) -> Index:
        """What the core makes of all the reports with it."""
        terms = self.labelled.terms
        categories = [
            _terms_of(terms.categories[number], self.category(category), self.rows.get(category.group, {}))
            for number, category in enumerate(self.labelled.pack.categories)
        ]
        return incidents_of(self.labelled.reports, categories, terms)


_OWN = ("radius_m", "window_s", "same_place_window_s")
"""What a category without a row of its own keeps as its pack has it."""


def fit(
    labelled: LabelledReports,
    *,
    dial: float = DIAL,
    seed: int = 1,
    effort: Effort | None = None,
    anew: Collection[frozenset[str]] = (),
    advance: Callable[[int], None] = lambda _count: None,
) -> Fitted:
    """Learn a row for all groups together, then one for each group that has enough labels.

    By a regression where nearly all reports have a label (:mod:`.pair_odds`), else by a search.  ``dial`` is what one
    unflagged join costs, in labelled reports missed; where all have a label, ten times the dial is ten times the odds
    that it takes to join, and the usual dial asks for even ones.  ``anew`` are the pairs of categories whose
    similarity in the pack an earlier fit wrote, and no person.  ``advance`` is told of each group done.
    Raises `LabelError` where too few reports are labelled.
    """
    effort = effort or Effort()
    labelled = _without(labelled, anew)
    labels = labels_by_group(labelled)
    groups = [group for group, count in labels.items() if count >= LEAST_LABELS]
    if not groups:
        raise LabelError(
            f"no category group has {LEAST_LABELS} labelled reports or more; "
            "a truth must say of some reports which of them speak of one event"
        )
    if labelled.is_complete:
        common, rows = rows_of_pairs(pairs_of(labelled), labelled.pack, ALIKE_KM2)
        for row in (common, *rows.values()):
            row["prior"] -= round(100 * math.log10(max(dial, LEAST_DIAL) / DIAL))
        advance(1 + len(groups))
        return Fitted(labelled, common, rows, labels)
    search = _Search(labelled, groups, START, dial)
    _, common = search.descend(dict(search.start), random.Random(seed))
    advance(1)
    rows = {}
    for group in groups:
        if labels[group] >= OWN_ROW_LABELS:
            restarts = effort.restarts if labels[group] >= effort.many_labels else effort.few
            rows[group] = _Search(labelled, [group], common, dial).fit(restarts, seed)
        advance(1)
    return Fitted(labelled, common, rows, labels)


def _without(labelled: LabelledReports, pairs: Collection[frozenset[str]]) -> LabelledReports:
    """The same reports, but the pack does not name those pairs."""
    if not pairs:
        return labelled
    related = tuple(one for one in labelled.pack.related if frozenset((one.a, one.b)) not in pairs)
    pack = replace(labelled.pack, related=related)
    return replace(labelled, pack=pack, terms=PackTerms(pack))


def labels_by_group(labelled: LabelledReports) -> dict[str, int]:
    """How many labelled reports each group has, by its name; those without any are left out."""
    known = labelled.reports.category[labelled.cluster != NONE]
    counts: dict[str, int] = {}
    for number, count in enumerate(np.bincount(known, minlength=len(labelled.pack.categories)).tolist()):
        if count:
            group = labelled.pack.categories[number].group
            counts[group] = counts.get(group, 0) + count
    return dict(sorted(counts.items()))


# ----------------------------------------------------------------------------------------------------- expectation


class Figures(NamedTuple):
    """How well reports were put together; None where there was nothing to count."""

    pair_precision: float | None
    pair_recall: float | None
    pair_f1: float | None
    b_cubed_f1: float | None
    join_unflagged: float | None
    joins: int


def figures(incident: Index, labelled: LabelledReports) -> Figures:
    """Those of some incidents, as `citybrain evaluate` counts them."""
    known = labelled.cluster != NONE
    joined = joins_an_earlier(incident)
    unflagged = labelled.flag == 0
    return Figures(
        *pairwise(incident[known], labelled.cluster[known]),
        b_cubed(incident[known], labelled.cluster[known])[2],
        float(joined[unflagged].mean()) if unflagged.any() else None,
        int(joined.sum()),
    )


def figures_before(labelled: LabelledReports) -> Figures:
    """Those of the pack as it stands."""
    terms = labelled.terms
    count = len(labelled.pack.categories)
    return figures(incidents_of(labelled.reports, terms.categories[:count], terms), labelled)


def figures_expected(
    labelled: LabelledReports,
    *,
    dial: float = DIAL,
    seed: int = 1,
    folds: int = FOLDS,
    effort: Effort | None = None,
    anew: Collection[frozenset[str]] = (),
    advance: Callable[[int], None] = lambda _count: None,
) -> Figures:
    """Those to expect of reports that nothing was learnt from: each fold's true events are told apart without it.

    Reports that nobody labelled are dealt to the folds as well, so that their joins are counted as honestly.  None of
    all figures where there are fewer true events than folds.
    """
    fold_of_event = _dealt(int(labelled.cluster.max(initial=NONE)) + 1, folds, seed)
    of_report = _dealt(len(labelled), folds, seed + 1)
    known = labelled.cluster != NONE
    of_report[known] = fold_of_event[labelled.cluster[known]]
    pooled = np.full(len(labelled), NONE, np.int64)
    joined = np.zeros(len(labelled), bool)
    for fold in range(folds):
        held = of_report == fold
        fitted = fit(
            labelled.hiding(held), dial=dial, seed=seed, effort=effort or Effort(1, 0), anew=anew, advance=advance
        )
        incident = fitted.incidents()
        # The folds' incidents have nothing to do with each other.
        pooled[held] = incident[held] + fold * len(labelled)
        joined[held] = joins_an_earlier(incident)[held]
    unflagged = labelled.flag == 0
    return Figures(
        *pairwise(pooled[known], labelled.cluster[known]),
        b_cubed(pooled[known], labelled.cluster[known])[2],
        float(joined[unflagged].mean()) if unflagged.any() else None,
        int(joined.sum()),
    )


def _dealt(count: int, folds: int, seed: int) -> Index:
    """A fold for each of some things, of nearly equal numbers, by chance."""
    dealt = [number % folds for number in range(count)]
    random.Random(seed).shuffle(dealt)
    return np.array(dealt, np.int64)
