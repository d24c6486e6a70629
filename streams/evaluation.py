"""How well reports were put together: assignments against a known or partly known truth.

The truth says of some reports which true event (*cluster*) they speak of, and of some whether a clerk flagged them as
duplicates of an earlier one.  A missing flag proves nothing, so the figures inside the labelled clusters stand beside
`join_unflagged`, which merging everything would drive to one.

All counting goes by contingency tables (one sort each), never by pairs of reports: the cluster of a storm holds
thousands.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.messages import Outcome

Index = NDArray[np.int64]
Bool = NDArray[np.bool_]
T = TypeVar("T")

NONE = -1
"""In an index array: no cluster, no incident, no parent, flag not known."""

FLAGGED_SHARE = 0.01
"""From this share of flagged reports on, a category's clerks are taken to flag duplicates at all."""


class EvaluationError(ValueError):
    """The assignments or the truth cannot be read; the message names the file's line and the remedy."""


class _AssignmentRow(msgspec.Struct):
    """What of an assignment (docs/contract.md) is needed to score it."""

    origin: str
    source: str
    report_id: str
    outcome: str
    incident_id: str | None = None
    revision: int = 0
    category: str | None = None


class _IncidentRow(msgspec.Struct):
    incident_id: str
    merged_into: str | None = None


@dataclass(frozen=True)
class Answers:
    """Each distinct report once, in the order of its first assignment."""

    sources: list[str]
    report_ids: list[str]
    incident: Index
    """shape (n,): number of the incident it ended in, `NONE` for reports that are no event."""
    category: Index
    """shape (n,): number of its category, `NONE` where the assignment names none."""
    repeats: int
    """Assignments that spoke of a report again, under its own id: the outcomes `repeat` and `amended`."""


@dataclass(frozen=True)
class Truth:
    """The rows of a truth file as columns."""

    has_source: bool
    sources: list[str]
    """Empty strings where the file has no `source` column."""
    report_ids: list[str]
    cluster: Index
    """shape (n,): number of the true event, `NONE` = unlabelled."""
    is_duplicate: Index
    """shape (n,): 1 flagged, 0 not flagged, `NONE` = not known."""
    parent: Index
    """shape (n,): row of the report that it duplicates, `NONE` = none, or none that the file holds."""
    has_flags: bool


@dataclass(frozen=True)
class Scores:
    """The figures of `citybrain evaluate`; a share without a denominator is `None`."""

    reports: int
    """Distinct reports that have an incident; a repeat is not another report, a consultation has no incident."""
    repeats: int
    not_an_event: int
    incidents: int
    collapsed: float | None
    truth_reports: int
    absent: int
    """Reports of the truth that the assignments do not know; each counts as alone."""
    labelled: int
    clusters: int
    pair_precision: float | None
    pair_recall: float | None
    pair_f1: float | None
    b_cubed_precision: float | None
    b_cubed_recall: float | None
    b_cubed_f1: float | None
    links: int
    link_recall: float | None
    unflagged: int
    join_unflagged: float | None
    unflagged_in_flagging_categories: int
    join_unflagged_in_flagging_categories: float | None
    wrongly_merged: float | None

    def as_dict(self) -> dict[str, int | float | None]:
        """The figures by name, in the order above, ready for JSON."""
        return asdict(self)


# ------------------------------------------------------------------------------------------------------- reading


def read_merges(lines: Iterable[bytes], *, name: str = "incidents.jsonl") -> dict[str, str]:
    """Which incident was merged into which, from the lines of an `incidents.jsonl`.

    Raises `EvaluationError` naming the line that is no incident.
    """
    decode = msgspec.json.Decoder(_IncidentRow).decode
    merged_into: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        row = _decoded(decode, line, name, number)
        if row is not None and row.merged_into is not None:
            merged_into[row.incident_id] = row.merged_into
    return merged_into


_AGAIN = (Outcome.REPEAT.value, Outcome.AMENDED.value)


def read_answers(
    lines: Iterable[bytes],
    *,
    first_answers: bool = False,
    merged_into: Mapping[str, str] | None = None,
    name: str = "assignments.jsonl",
) -> Answers:
    """Read the lines of an `assignments.jsonl`, in its order.

    Of one origin the highest revision counts, or the lowest with ``first_answers``.  The first origin of a report that
    is neither `repeat` nor `amended` decides; a report whose file holds such alone goes where they went.
    ``merged_into`` is followed to its end either way.

    Raises `EvaluationError` naming the line that is no assignment, or the incidents that were merged in a circle.
    """
    decode = msgspec.json.Decoder(_AssignmentRow).decode
    kept: dict[tuple[str, str], _AssignmentRow] = {}
    repeats: set[str] = set()
    for number, line in enumerate(lines, start=1):
        row = _decoded(decode, line, name, number)
        if row is None:
            continue
        key = (row.source, row.report_id)
        if row.outcome in _AGAIN:
            repeats.add(row.origin)
            kept.setdefault(key, row)
            continue
        known = kept.get(key)
        if known is None or known.outcome in _AGAIN:
            # A dict keeps the place of a key that is replaced, so the order stays that of the first assignment.
            kept[key] = row
        elif known.origin == row.origin and (row.revision < known.revision) == first_answers:
            kept[key] = row
    numbers: dict[str, int] = {}
    categories: dict[str, int] = {}
    incident = np.full(len(kept), NONE, dtype=np.int64)
    category = np.full(len(kept), NONE, dtype=np.int64)
    for i, row in enumerate(kept.values()):
        if row.incident_id is not None:
            final = _final_incident(row.incident_id, merged_into or {})
            incident[i] = numbers.setdefault(final, len(numbers))
        if row.category is not None:
            category[i] = categories.setdefault(row.category, len(categories))
    return Answers(
        sources=[source for source, _ in kept],
        report_ids=[report_id for _, report_id in kept],
        incident=incident,
        category=category,
        repeats=len(repeats),
    )


def read_truth(lines: Iterable[str], *, name: str = "truth") -> Truth:
    """Read a truth file: CSV with `report_id`, `cluster_id`, optionally `source` and what clerks flagged.

    A link counts where `parent_id` names another row (of the same source, else the only one of that id) and
    `link_quality` is `good` or empty: a link marked otherwise is one that the truth itself does not trust.

    Raises `EvaluationError` naming the line: a missing column, an empty or doubled report id, a flag other than 0 or 1.
    """
    reader = csv.DictReader(lines)
    try:
        columns = reader.fieldnames or []
    except csv.Error as error:
        raise EvaluationError(f"{name}:1: {error}; the truth is not a clean CSV") from error
    for column in ("report_id", "cluster_id"):
        if column not in columns:
            raise EvaluationError(f"{name}:1: no column {column!r}; a truth needs report_id and cluster_id")
    has_source = "source" in columns
    row_of: dict[tuple[str, str], int] = {}
    cluster_of: dict[str, int] = {}
    cluster: list[int] = []
    is_duplicate: list[int] = []
    parent_keys: list[tuple[str, str] | None] = []
    for row in _rows(reader, name):
        place = f"{name}:{reader.line_num}"
        source = (row["source"] or "") if has_source else ""
        report_id = row["report_id"] or ""
        if not report_id:
            raise EvaluationError(f"{place}: report_id is empty; every row of a truth names its report")
        key = (source, report_id)
        if key in row_of:
            raise EvaluationError(f"{place}: report {report_id!r} stands twice in the truth; keep one of its rows")
        row_of[key] = len(row_of)
        cluster_id = row["cluster_id"] or ""
        cluster.append(cluster_of.setdefault(cluster_id, len(cluster_of)) if cluster_id else NONE)
        flag = row.get("is_duplicate") or ""
        if flag not in ("0", "1", ""):
            raise EvaluationError(f"{place}: is_duplicate is {flag!r}; write 0, 1 or nothing")
        is_duplicate.append(int(flag) if flag else NONE)
        parent_id = row.get("parent_id") or ""
        trusted = (row.get("link_quality") or "good") == "good"
        parent_keys.append((source, parent_id) if parent_id and trusted else None)
    rows_of_id: defaultdict[str, list[int]] = defaultdict(list)
    for (_, report_id), number in row_of.items():
        rows_of_id[report_id].append(number)
    return Truth(
        has_source=has_source,
        sources=[source for source, _ in row_of],
        report_ids=[report_id for _, report_id in row_of],
        cluster=np.array(cluster, dtype=np.int64),
        is_duplicate=np.array(is_duplicate, dtype=np.int64),
        parent=np.array([_parent_row(key, row_of, rows_of_id) for key in parent_keys], dtype=np.int64),
        has_flags="is_duplicate" in columns,
    )


def _parent_row(
    key: tuple[str, str] | None, row_of: Mapping[tuple[str, str], int], rows_of_id: Mapping[str, list[int]]
) -> int:
    """The row that a `parent_id` names: of the same source, else the only one of that id."""
    if key is None:
        return NONE
    if key in row_of:
        return row_of[key]
    others = rows_of_id.get(key[1], [])
    return others[0] if len(others) == 1 else NONE


def _rows(reader: csv.DictReader[str], name: str) -> Iterator[dict[str, str | None]]:
    """The rows of a CSV, its faults mapped to ours."""
    try:
        yield from reader
    except csv.Error as error:
        raise EvaluationError(f"{name}:{reader.line_num + 1}: {error}; the truth is not a clean CSV") from error


def _decoded(decode: Callable[[bytes], T], line: bytes, name: str, number: int) -> T | None:
    """One line, or None where it is blank."""
    try:
        return decode(line) if line.strip() else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EvaluationError(f"{name}:{number}: {error}; run the replay again") from error


def _final_incident(incident_id: str, merged_into: Mapping[str, str]) -> str:
    """The incident at the end of a chain of merges; of a circle, each a duplicate of the next, the one of least id."""
    chain = [incident_id]
    while (following := merged_into.get(chain[-1])) is not None:
        if following in chain:
            return min(chain[chain.index(following) :])
        chain.append(following)
    return chain[-1]


# ------------------------------------------------------------------------------------------------------- scoring


def score(answers: Answers, truth: Truth) -> Scores:
    """The figures of ``answers`` against ``truth``.  O(n log n).

    Raises `EvaluationError` where the truth has no `source` column and a report id stands for reports of two sources.
    """
    position = _position_in_answers(answers, truth)
    has_answer = position != NONE
    incident = np.full(len(position), NONE, dtype=np.int64)
    incident[has_answer] = answers.incident[position[has_answer]]
    incident = alone_where_none(incident, answers.incident)

    labelled = truth.cluster != NONE
    predicted, true = incident[labelled], truth.cluster[labelled]
    pair_precision, pair_recall, pair_f1 = pairwise(predicted, true)
    b3_precision, b3_recall, b3_f1 = b_cubed(predicted, true)

    child = np.flatnonzero(truth.parent != NONE)
    linked = incident[child] == incident[truth.parent[child]]

    category = np.full(len(position), NONE, dtype=np.int64)
    category[has_answer] = answers.category[position[has_answer]]
    joined = np.zeros(len(position), dtype=np.bool_)
    joined[has_answer] = joins_an_earlier(answers.incident)[position[has_answer]]
    unflagged = truth.is_duplicate == 0
    flagging = unflagged & in_flagging_category(category, truth.is_duplicate)

    with_incident = int(np.count_nonzero(answers.incident != NONE))
    incidents = len(np.unique(answers.incident[answers.incident != NONE]))
    return Scores(
        reports=with_incident,
        repeats=answers.repeats,
        not_an_event=len(answers.incident) - with_incident,
        incidents=incidents,
        collapsed=_share(with_incident - incidents, with_incident),
        truth_reports=len(position),
        absent=int(np.count_nonzero(~has_answer)),
        labelled=int(np.count_nonzero(labelled)),
        clusters=len(np.unique(true)),
        pair_precision=pair_precision,
        pair_recall=pair_recall,
        pair_f1=pair_f1,
        b_cubed_precision=b3_precision,
        b_cubed_recall=b3_recall,
        b_cubed_f1=b3_f1,
        links=len(child),
        link_recall=_share(int(np.count_nonzero(linked)), len(child)),
        unflagged=int(np.count_nonzero(unflagged)),
        join_unflagged=_share(int(np.count_nonzero(joined & unflagged)), int(np.count_nonzero(unflagged))),
        unflagged_in_flagging_categories=int(np.count_nonzero(flagging)),
        join_unflagged_in_flagging_categories=_share(
            int(np.count_nonzero(joined & flagging)), int(np.count_nonzero(flagging))
        ),
        wrongly_merged=wrongly_merged(predicted, true),
    )


def alone_where_none(incident: Index, taken: Index) -> Index:
    """``incident`` with every `NONE` replaced by a number of its own, above all of ``incident`` and ``taken``."""
    alone = incident == NONE
    start = 1 + max(int(incident.max(initial=NONE)), int(taken.max(initial=NONE)))
    result = incident.copy()
    result[alone] = start + np.arange(int(np.count_nonzero(alone)))
    return result


def pairwise(predicted: Index, true: Index) -> tuple[float | None, float | None, float | None]:
    """Precision, recall and F1 over the unordered pairs of reports that share an incident or a true event.

    Both arrays have shape (n,) and hold no `NONE`.  O(n log n).
    """
    _, _, both = contingency(predicted, true)
    right = _pairs(both)
    of_predicted = _pairs(np.unique(predicted, return_counts=True)[1])
    of_true = _pairs(np.unique(true, return_counts=True)[1])
    return _share(right, of_predicted), _share(right, of_true), _share(2 * right, of_predicted + of_true)


def b_cubed(predicted: Index, true: Index) -> tuple[float | None, float | None, float | None]:
    """B-cubed precision, recall and F1: each report's own share of companions that are right, averaged over reports.

    Bagga and Baldwin, 1998.  Both arrays have shape (n,) and hold no `NONE`.  O(n log n).
    """
    if not len(predicted):
        return None, None, None
    a, b, both = contingency(predicted, true)
    squares = both.astype(np.float64) ** 2
    size_predicted = np.bincount(a, weights=both)
    size_true = np.bincount(b, weights=both)
    precision = float((squares / size_predicted[a]).sum() / len(predicted))
    recall = float((squares / size_true[b]).sum() / len(predicted))
    return precision, recall, 2 * precision * recall / (precision + recall)


def wrongly_merged(predicted: Index, true: Index) -> float | None:
    """Share of the true events whose majority incident is also another's.

    The majority incident of an event holds most of its reports; of equally many, the one with the smallest number,
    which in `score` is the one that was opened first.
    """
    a, b, both = contingency(predicted, true)
    if not len(a):
        return None
    # Sorted by event, then most reports first, then smallest incident: the head of each event's run is its majority.
    order = np.lexsort((a, -both, b))
    is_head = np.ones(len(order), dtype=np.bool_)
    is_head[1:] = b[order][1:] != b[order][:-1]
    majority = a[order][is_head]
    events_of_incident = np.bincount(majority)
    return _share(int(np.count_nonzero(events_of_incident[majority] > 1)), len(majority))


def joins_an_earlier(incident: Index) -> Bool:
    """Shape (n,): whether the report shares its incident with one before it in the array; never where it has `NONE`."""
    joins: Bool = incident != NONE
    joins[np.unique(incident, return_index=True)[1]] = False
    return joins


def in_flagging_category(category: Index, is_duplicate: Index) -> Bool:
    """Shape (n,): whether at least `FLAGGED_SHARE` of the reports of its category are flagged.

    Only reports whose flag is known are counted.  Where clerks of a category never flag, an unflagged report says
    nothing.  Never true of category `NONE`.
    """
    known = (category != NONE) & (is_duplicate != NONE)
    size = int(category.max(initial=NONE)) + 1
    total = np.bincount(category[known], minlength=size)
    flagged = np.bincount(category[known & (is_duplicate == 1)], minlength=size)
    flagging = (total > 0) & (flagged >= FLAGGED_SHARE * total)
    result = np.zeros(len(category), dtype=np.bool_)
    result[category != NONE] = flagging[category[category != NONE]]
    return result


def contingency(predicted: Index, true: Index) -> tuple[Index, Index, Index]:
    """The cells of the contingency table that are not empty: dense numbers of both sides, and the count of reports.

    The dense numbers keep the order of the originals.
    """
    if not len(predicted):
        empty = np.empty(0, dtype=np.int64)
        return empty, empty, empty
    a = np.unique(predicted, return_inverse=True)[1].astype(np.int64)
    b = np.unique(true, return_inverse=True)[1].astype(np.int64)
    width = int(b.max()) + 1
    cell, count = np.unique(a * width + b, return_counts=True)
    return cell // width, cell % width, count.astype(np.int64)


def _position_in_answers(answers: Answers, truth: Truth) -> Index:
    """Shape (n,): where in the answers each row of the truth stands, `NONE` where it is absent."""
    if truth.has_source:
        row_of = {key: i for i, key in enumerate(zip(answers.sources, answers.report_ids, strict=True))}
        keys: Iterable[tuple[str, str]] = zip(truth.sources, truth.report_ids, strict=True)
        return np.array([row_of.get(key, NONE) for key in keys], dtype=np.int64)
    wanted = set(truth.report_ids)
    row_of_id: dict[str, int] = {}
    for i, report_id in enumerate(answers.report_ids):
        if report_id in wanted and row_of_id.setdefault(report_id, i) != i:
            raise EvaluationError(
                f"report id {report_id!r} comes from {answers.sources[row_of_id[report_id]]} and from "
                f"{answers.sources[i]}; give the truth a column 'source'"
            )
    return np.array([row_of_id.get(report_id, NONE) for report_id in truth.report_ids], dtype=np.int64)


def _pairs(count: NDArray[np.int64]) -> int:
    """How many unordered pairs groups of these sizes hold."""
    wide = count.astype(np.int64)
    return int((wide * (wide - 1) // 2).sum())


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
