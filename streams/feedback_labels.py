"""What dispatchers' feedback says of which reports speak of one event: labels for `citybrain fit`.

Whoever accepted an incident, sent somebody there, or ended it with a repair has seen its reports so far, and takes them
for one event.  `duplicate_of` says that two incidents are one, `misjoined` that a report is of another event than its
incident; of which, nobody says, so it is taken for one of its own.  An incident that nobody saw to, or that was
rejected with nothing more, is unknown: a false alarm, another office's, a duplicate of nobody says what.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from streams.evaluation import NONE, Index
from streams.messages import Action, FeedbackMessage

_SEEN_TO = {Action.ACCEPT.value, Action.DISPATCH.value, Action.DISPOSE.value, Action.CLOSE.value}


@dataclass(frozen=True, eq=False)
class FeedbackLabels:
    """A label for each of some reports, and how much was said.

    Attributes
    ----------
    cluster : int64
        Number of the event, `NONE` where feedback says nothing of it.
    flag : int64
        1 for a report after the first of its event, 0 for the first, `NONE` where nothing is known.
    seen_to : int
        Incidents that somebody saw to, and those that were called duplicates or had one.
    duplicates, misjoined : int
        Pairs of incidents that are one event; reports that are of another event than their incident.
    unknown : int
        Incidents and reports that feedback names and that are not among these.
    """

    cluster: Index
    flag: Index
    seen_to: int
    duplicates: int
    misjoined: int
    unknown: int


def labels_of(
    incidents: Sequence[str],
    reports: Sequence[tuple[str, str]],
    came_ms: Sequence[int],
    feedback: Iterable[tuple[int, FeedbackMessage]],
) -> FeedbackLabels:
    """Labels of ``reports`` (source and id), each in the incident beside it, as ``feedback`` has them.

    Reports are in stream order, ``came_ms`` is when each was ingested; feedback is in stream order, each with its time.
    What came to an incident after it was last seen to is unknown; a reopening takes back what made it a duplicate.
    """
    known, members = set(incidents), set(zip(incidents, reports, strict=True))
    seen_ms: dict[str, int] = {}
    original_of: dict[str, str] = {}
    misjoined: set[tuple[str, tuple[str, str]]] = set()
    for time_ms, one in feedback:
        about = [one.incident_id] if one.action in _SEEN_TO or one.misjoined else []
        if one.action == Action.REOPEN.value:
            original_of.pop(one.incident_id, None)
        if one.duplicate_of is not None:
            original_of[one.incident_id] = one.duplicate_of
            if known.issuperset((one.incident_id, one.duplicate_of)):
                about = [one.incident_id, one.duplicate_of]
        for name in about:
            seen_ms[name] = max(time_ms, seen_ms.get(name, time_ms))
        misjoined.update((one.incident_id, (report.source, report.report_id)) for report in one.misjoined)
    named = set(seen_ms).union(*original_of.items())
    duplicates = {pair for pair in original_of.items() if known.issuperset(pair)}
    seen_to = set(seen_ms) & known
    first_of = _joined(sorted(duplicates))
    numbers: dict[object, int] = {}
    cluster = np.full(len(incidents), NONE, np.int64)
    flag = np.full(len(incidents), NONE, np.int64)
    for row, (incident, report) in enumerate(zip(incidents, reports, strict=True)):
        if incident in seen_to and came_ms[row] <= seen_ms[incident]:
            alone = (incident, report) in misjoined
            event = (incident, report) if alone else first_of.get(incident, incident)
            flag[row] = event in numbers
            cluster[row] = numbers.setdefault(event, len(numbers))
    unknown = len(named - known) + len(misjoined - members)
    return FeedbackLabels(cluster, flag, len(seen_to), len(duplicates), len(misjoined & members), unknown)


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One name for all that hang together by some pairs, for each of them."""
    all_of: dict[str, list[str]] = {}
    for one, other in pairs:
        mine, others = all_of.setdefault(one, [one]), all_of.setdefault(other, [other])
        if mine is not others:
            mine += others
            all_of.update(dict.fromkeys(others, mine))
    return {name: together[0] for name, together in all_of.items()}
