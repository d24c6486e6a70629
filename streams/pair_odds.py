"""Learns from reports that are all labelled how a city's catalogue is to weigh evidence (docs/decisions/023).

Where most reports have a label, both answers are known of every report and incident near it: one event, or two.  A
regression then tells what each piece of evidence is worth, and the sum of it all, without a search: log-odds are what a
score is made of.  The shape of the evidence of place and time (how far reports spread, how fast they follow one
another) is taken from a small grid by its likelihood.

A category group is drawn to what holds for all of them (a normal prior around it), so that twenty reports move little
and a thousand move much.  Where only duplicates have labels that would not do: see `streams.fitting`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from geo.plane import metres_per_degree
from streams.dedupe_kernels import KEPT_SIGNATURES
from streams.evaluation import NONE
from streams.labels import LabelError, LabelledReports
from streams.messages import SOURCES
from streams.pack import CityPack
from streams.reports import NO_POSITION
from streams.signatures import evidence, similarities

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

HOUR_S = 3600.0
DAY_S = 86_400.0
LONGEST_S = 7 * DAY_S
"""Candidates are looked for so long after the last report of an event."""
REACH_M = 80.0
"""And so far from it, beyond what the vaguer position makes of it."""
SAME_PLACE_M = 2.0
MOST_PAIRS = 4_000_000
"""So that a gigabyte is enough: a month of a city has some ten thousand reports and as many pairs."""
FURTHER = 9

SPREADS_M = (3.0, 6.0, 10.0, 15.0, 25.0)
DECAYS_S = (1800.0, 7200.0, 28_800.0)
SAME_PLACE_DECAYS_S = (900.0, 3600.0, 14_400.0)
RADII_M = (10.0, 20.0, 40.0, 80.0)
WINDOWS_S = (HOUR_S, 2 * HOUR_S, 3 * HOUR_S, 6 * HOUR_S, 12 * HOUR_S, DAY_S, 2 * DAY_S, 3 * DAY_S, LONGEST_S)
WITHIN = 0.995
"""Share of the pairs of one event that radius and window must let through."""
LEAST_SIMILARITY = 0.001
LEAST_ALIKE = 20
"""Pairs of a report of one category and an event of another from which on these two have a similarity of their own."""
LEAST_PAIRS = 200
"""Pairs of one event from which on a group's own shares say where its window ends."""

Shape = tuple[float, float, float]
"""``spread_m``, ``decay_s``, ``same_place_decay_s``."""

_EVIDENCE = ("prior", "gap", "rhythm", "same_place", "text", "unrelated")
_NAMES = (*_EVIDENCE, *(f"{a}-{b}" for a, b in product(SOURCES, SOURCES)), *(f"again {source}" for source in SOURCES))
"""What has a weight, in the order of the columns."""
_EXPECTED = {
    "prior": 100.0, "gap": 1.5, "rhythm": 0.1, "same_place": 50.0, "text": 0.7, "unrelated": -80.0,
    "again hotline": 80.0, "again patrol": -100.0,
}  # fmt: skip
"""What a weight is before any report is seen; 0 for the others."""
_UNSURE = {"prior": 1000.0, "gap": 1.0, "rhythm": 0.3, "same_place": 150.0, "text": 0.7, "unrelated": 150.0}
"""How far it may be from that, one sigma; `_UNSURE_POINTS` for the others."""
_UNSURE_POINTS = 100.0
_APART = {"prior": 100.0, "gap": 0.6, "rhythm": 0.15, "same_place": 80.0, "text": 0.3, "unrelated": 80.0}
"""How far a group's is from that of all groups; `_APART_POINTS` for the others."""
_APART_POINTS = 60.0
_ALIKE_APART = 80.0
"""How far the points of two categories are from those of any two of their group."""
_SHAPE_PRICE = 1.0
"""What a group's own shape must gain in log-likelihood, for each e times that a length or time differs."""
_POINT = math.log(10) / 100


@dataclass(frozen=True)
class Pairs:
    """Reports beside the incidents near them, as they are when each true event is one incident.

    All columns are of equal length.

    Attributes
    ----------
    m2, variance_m2
        Squared distance to the anchor, m²; sum of both squared accuracies.
    gap_s, span_s, further
        From the incident's reports to the report; from its first to its last; how many it has besides one, at most 9.
    founding, source
        Numbers of the sources of the founding report and of the report.
    text
        Points of the likest of the incident's first two texts.
    first_kind, kind
        Numbers of the categories of the incident and of the report.
    related
        Points that the pack itself gives the two categories, 0 for the same; NaN where it names no similarity.
    is_one
        Whether they are of one event.
    excess_m
        How far the report lies beyond what the vaguer position makes of it.
    """

    m2: Floats
    variance_m2: Floats
    gap_s: Floats
    span_s: Floats
    further: Floats
    founding: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]
    is_same_place: Bools
    text: Floats
    is_again: Bools
    first_kind: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int64]
    related: Floats
    group: npt.NDArray[np.int64]
    is_one: Bools
    excess_m: Floats

    def of(self, rows: Bools) -> Pairs:
        """Some of them."""
        return Pairs(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


class _Incidents:
    """The incidents of one group so far: one for each true event that has been reported."""

    def __init__(self, room: int) -> None:
        self.count = 0
        self.x_m, self.y_m, self.accuracy_m = np.zeros(room), np.zeros(room), np.zeros(room)
        self.first_s, self.last_s = np.zeros(room), np.zeros(room)
        self.reports = np.zeros(room, np.int64)
        self.founding = np.zeros(room, np.int64)
        self.category = np.zeros(room, np.int64)
        self.event = np.zeros(room, np.int64)
        self.texts: list[list[npt.NDArray[np.uint64]]] = []
        self.witnesses: list[set[tuple[int, str]]] = []
        self.of_event: dict[int, int] = {}
        self.at_place: dict[int, set[int]] = {}


def pairs_of(labelled: LabelledReports) -> Pairs:
    """Every labelled report beside every event near it that was reported before, group by group in stream order.

    Raises `LabelError` where these are more than `MOST_PAIRS`.
    """
    reports, pack = labelled.reports, labelled.pack
    group_number = {name: number for number, name in enumerate(pack.groups)}
    group_of = np.array([group_number[one.group] for one in pack.categories], np.int64)[reports.category]
    sigmas = np.array([one.match.sigmas for one in pack.categories], np.float64)
    cap_m = np.array([one.accuracy_cap_m for one in pack.categories], np.float64)
    points = evidence()
    related = np.full((len(pack.categories),) * 2, np.nan)
    np.fill_diagonal(related, 0.0)
    for pair in pack.related:
        one, other = pack.category_index(pair.a), pack.category_index(pair.b)
        related[one, other] = related[other, one] = 100 * math.log10(max(pair.similarity, LEAST_SIMILARITY))
    lat = reports.lat_e7 * 1e-7
    m_lon, m_lat = metres_per_degree(np.where(reports.lat_e7 != NO_POSITION, lat, 0.0))
    x_m, y_m = reports.lon_e7 * 1e-7 * m_lon, lat * m_lat
    accuracy_m, time_s = reports.accuracy_cm / 100.0, reports.time_ms / 1000.0
    parts, count = [np.empty((0, len(Pairs.__dataclass_fields__)))], 0
    usable = (labelled.cluster != NONE) & (reports.lat_e7 != NO_POSITION)
    for group in np.unique(group_of[usable]).tolist():
        rows = np.flatnonzero(usable & (group_of == group))
        so_far = _Incidents(len(rows))
        found: list[tuple[float, ...]] = []
        for row in rows.tolist():
            event, source, kind = int(labelled.cluster[row]), int(reports.source[row]), int(reports.category[row])
            columns = (reports.device_key, reports.asset_key, reports.address_key)
            keys = [int(column[row]) for column in columns if column[row]]
            witness = (source, str(reports.witness[row]))
            if count + len(found) > MOST_PAIRS:
                raise LabelError(
                    f"more than {MOST_PAIRS:,} pairs of a report and an event near it; learn from a shorter time"
                )
            n = so_far.count
            of = so_far.category[:n]
            m2 = (so_far.x_m[:n] - x_m[row]) ** 2 + (so_far.y_m[:n] - y_m[row]) ** 2
            vague_m = np.minimum(sigmas[of] * np.maximum(so_far.accuracy_m[:n], accuracy_m[row]), cap_m[of])
            near = (m2 <= (REACH_M + vague_m) ** 2) & (time_s[row] - so_far.last_s[:n] <= LONGEST_S)
            for at in np.flatnonzero(near).tolist():
                likeness = 0.0
                if so_far.texts[at] and reports.signature[row].any():
                    texts = np.stack(so_far.texts[at])
                    bits = similarities(texts, np.repeat(reports.signature[row][None], len(texts), axis=0))
                    likeness = float(points[bits].max())
                found.append(
                    (
                        m2[at],
                        accuracy_m[row] ** 2 + so_far.accuracy_m[at] ** 2,
                        max(0.0, time_s[row] - so_far.last_s[at], so_far.first_s[at] - time_s[row]),
                        so_far.last_s[at] - so_far.first_s[at],
                        min(so_far.reports[at] - 1, FURTHER),
                        so_far.founding[at],
                        source,
                        m2[at] <= SAME_PLACE_M**2 or any(at in so_far.at_place.get(key, ()) for key in keys),
                        likeness,
                        bool(witness[1]) and witness in so_far.witnesses[at],
                        so_far.category[at],
                        kind,
                        related[so_far.category[at], kind],
                        group,
                        so_far.event[at] == event,
                        max(0.0, math.sqrt(m2[at]) - vague_m[at]),
                    )
                )
            _put(so_far, row, event, keys, witness, kind, x_m, y_m, accuracy_m, time_s, reports.signature)
        if found:
            parts.append(np.array(found, np.float64))
            count += len(found)
    table = np.concatenate(parts)
    return Pairs(*(_typed(name, column) for name, column in zip(Pairs.__dataclass_fields__, table.T, strict=True)))


def _typed(name: str, column: Floats) -> npt.NDArray[Any]:
    """A column of `Pairs`, all of which are numbers."""
    if name.startswith("is_"):
        return column.astype(np.bool_)
    return column.astype(np.int64) if name in _NUMBERS else column.copy()


_NUMBERS = ("founding", "source", "first_kind", "kind", "group")


def _put(
    so_far: _Incidents, row: int, event: int, keys: Sequence[int], witness: tuple[int, str], kind: int, x_m: Floats,
    y_m: Floats, accuracy_m: Floats, time_s: Floats, signature: npt.NDArray[np.uint64],
) -> None:  # fmt: skip
    """Put a report with its true event, as a core that errs never would."""
    at = so_far.of_event.get(event)
    if at is None or time_s[row] - so_far.last_s[at] > LONGEST_S:
        at = so_far.of_event[event] = so_far.count
        so_far.count += 1
        so_far.x_m[at], so_far.y_m[at], so_far.accuracy_m[at] = x_m[row], y_m[row], accuracy_m[row]
        so_far.first_s[at] = so_far.last_s[at] = time_s[row]
        so_far.founding[at], so_far.category[at], so_far.event[at] = witness[0], kind, event
        so_far.texts.append([])
        so_far.witnesses.append(set())
    elif so_far.accuracy_m[at] > 0 and 2 * accuracy_m[row] <= so_far.accuracy_m[at]:
        so_far.x_m[at], so_far.y_m[at], so_far.accuracy_m[at] = x_m[row], y_m[row], accuracy_m[row]
    so_far.reports[at] += 1
    so_far.first_s[at] = min(so_far.first_s[at], time_s[row])
    so_far.last_s[at] = max(so_far.last_s[at], time_s[row])
    for key in keys:
        so_far.at_place.setdefault(key, set()).add(at)
    if len(so_far.texts[at]) < KEPT_SIGNATURES and signature[row].any():
        so_far.texts[at].append(signature[row])
    if witness[1]:
        so_far.witnesses[at].add(witness)


# ---------------------------------------------------------------------------------------------------------- regression


def _design(pairs: Pairs, shape: Shape, alike_km2: float) -> tuple[Floats, Floats]:
    """Evidence with a weight, shape (n, len(_NAMES)); and what counts in full: the points of nearness and distance."""
    spread_m, decay_s, same_place_decay_s = shape
    variance = np.maximum(pairs.variance_m2 + spread_m**2, 1e-4)
    full = -100 * np.log10(2 * math.pi * alike_km2 * 1e-6 * variance)
    full -= 100 * math.log10(math.e) * pairs.m2 / (2 * variance)
    full += np.nan_to_num(pairs.related)
    decay = np.where(pairs.is_same_place, same_place_decay_s, decay_s)
    gap = -100 * np.log10(1 + pairs.gap_s / (decay + pairs.span_s))
    columns = [np.ones(len(gap)), gap, gap * pairs.further, pairs.is_same_place, pairs.text, np.isnan(pairs.related)]
    both = pairs.founding * len(SOURCES) + pairs.source
    columns += [both == number for number in range(len(SOURCES) ** 2)]
    columns += [pairs.is_again & (pairs.source == number) for number in range(len(SOURCES))]
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=1), full


def _likelihood(x: Floats, full: Floats, is_one: Bools, weights: Floats, middle: Floats, sigma: Floats) -> float:
    logit = _POINT * (x @ weights + full)
    return float(
        -np.logaddexp(0, np.where(is_one, -logit, logit)).sum() - 0.5 * (((weights - middle) / sigma) ** 2).sum()
    )


def regressed(x: Floats, full: Floats, is_one: Bools, middle: Floats, sigma: Floats) -> tuple[Floats, float]:
    """The likeliest weights under a normal prior, and their log-likelihood with it.

    Newton's steps, each halved until it gains: the likelihood has one summit.
    """
    weights = middle.copy()
    best = _likelihood(x, full, is_one, weights, middle, sigma)
    for _ in range(60):
        logit = np.clip(_POINT * (x @ weights + full), -35, 35)
        share = 1 / (1 + np.exp(-logit))
        slope = _POINT * (x.T @ (is_one - share)) - (weights - middle) / sigma**2
        bend = (x * (share * (1 - share))[:, None]).T @ x * _POINT**2 + np.diag(1 / sigma**2)
        step = np.linalg.solve(bend, slope)
        length = 1.0
        while length > 1e-5 and _likelihood(x, full, is_one, weights + length * step, middle, sigma) <= best:
            length /= 2
        if length <= 1e-5:
            break
        weights = weights + length * step
        before, best = best, _likelihood(x, full, is_one, weights, middle, sigma)
        if best - before < 1e-3:
            break
    return weights, best


def rows_of_pairs(
    pairs: Pairs, pack: CityPack, alike_km2: float
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The row that suits all groups, and that of each group with pairs: values of a catalogue by name, as in a pack.

    ``a|b`` is the similarity of two categories of which the pack says nothing.
    """
    middle = np.array([_EXPECTED.get(name, 0.0) for name in _NAMES])
    sigma = np.array([_UNSURE.get(name, _UNSURE_POINTS) for name in _NAMES])
    shapes = list(product(SPREADS_M, DECAYS_S, SAME_PLACE_DECAYS_S))
    fits = {shape: regressed(*_design(pairs, shape, alike_km2), pairs.is_one, middle, sigma) for shape in shapes}
    common = max(shapes, key=lambda shape: fits[shape][1])
    weights = fits[common][0]
    reach = _reach(pairs, None)
    apart = np.array([_APART.get(name, _APART_POINTS) for name in _NAMES])
    rows = {}
    for group in np.unique(pairs.group).tolist():
        part = pairs.of(pairs.group == group)
        kinds, alike = _alike(part)
        around = np.concatenate([weights, np.zeros(len(kinds))])
        within = np.concatenate([apart, np.full(len(kinds), _ALIKE_APART)])
        own = {}
        for shape in shapes:
            x, full = _design(part, shape, alike_km2)
            own[shape] = regressed(np.hstack([x, alike]), full, part.is_one, around, within)
        gain = {shape: own[shape][1] - _SHAPE_PRICE * _far(shape, common) for shape in shapes}
        best = max(shapes, key=gain.__getitem__)
        found = own[best][0]
        row = _row(best, found[: len(_NAMES)], _reach(part, reach))
        unrelated = found[_NAMES.index("unrelated")]
        for (one, other), points in zip(kinds, found[len(_NAMES) :].tolist(), strict=True):
            name = "|".join(sorted((pack.categories[one].code, pack.categories[other].code)))
            row[name] = _similarity(unrelated + points)
        rows[pack.groups[group]] = row
    return _row(common, weights, reach), rows


def _alike(pairs: Pairs) -> tuple[list[tuple[int, int]], Floats]:
    """Pairs of categories of which much is known, and a column for each, shape (n, pairs of categories)."""
    low, high = np.minimum(pairs.first_kind, pairs.kind), np.maximum(pairs.first_kind, pairs.kind)
    unnamed = np.isnan(pairs.related)
    kinds, counts = np.unique(np.stack([low[unnamed], high[unnamed]], axis=1), axis=0, return_counts=True)
    named = [(int(one), int(other)) for one, other in kinds[counts >= LEAST_ALIKE].tolist()]
    columns = [unnamed & (low == one) & (high == other) for one, other in named]
    return named, np.stack(columns, axis=1).astype(np.float64) if columns else np.zeros((len(low), 0))


def _similarity(points: float) -> float:
    return round(float(min(1.0, max(LEAST_SIMILARITY, 10 ** (points / 100)))), 3)


def _far(one: Shape, other: Shape) -> float:
    return sum(abs(math.log(a / b)) for a, b in zip(one, other, strict=True))


def _reach(pairs: Pairs, beneath: Mapping[str, float] | None) -> dict[str, float]:
    """Radius and windows that let nearly all pairs of one event through; of few pairs those of all groups."""
    found: dict[str, float] = {}
    for name, values, column, where in (
        ("radius_m", RADII_M, pairs.excess_m, pairs.is_one),
        ("window_s", WINDOWS_S, pairs.gap_s, pairs.is_one & ~pairs.is_same_place),
        ("same_place_window_s", WINDOWS_S, pairs.gap_s, pairs.is_one & pairs.is_same_place),
    ):
        if beneath is not None and np.count_nonzero(where) < LEAST_PAIRS:
            found[name] = beneath[name]
        else:
            bound = float(np.quantile(column[where], WITHIN)) if where.any() else 0.0
            found[name] = next((value for value in values if value >= bound), values[-1])
    return found


def _row(shape: Shape, weights: Floats, reach: Mapping[str, float]) -> dict[str, float]:
    of = dict(zip(_NAMES, weights.tolist(), strict=True))
    row: dict[str, float] = {
        "spread_m": shape[0],
        "decay_s": shape[1],
        "same_place_decay_s": shape[2],
        "same_place_m": SAME_PLACE_M,
        "unrelated": _similarity(of["unrelated"]),
        "gap_percent": min(max(0, round(100 * of["gap"])), 1000),
        "rhythm_percent": min(max(0, round(100 * of["rhythm"])), 1000),
        "text_percent": min(max(0, round(100 * of["text"])), 1000),
        # Each incident was weighed as if it were the only one; that another is as likely is for this to say.
        "rival_percent": 100,
        **reach,
    }
    return row | {
        name: round(value) for name, value in of.items() if name not in _EVIDENCE or name in ("prior", "same_place")
    }
