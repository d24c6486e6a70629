"""Feedback: what dispatch centres did with incidents, and which step may follow which.

open → accepted → dispatched → disposed → closed, a step may be left out going forward; `reject` from open or accepted;
`reopen` from closed or rejected; from suspected whatever may follow open (docs/contract.md).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from streams.dead_letters import DeadLetter
from streams.messages import FEEDBACK, Action, FeedbackMessage, Reason, Status

ACTIONS = tuple(Action)
STATUSES = tuple(Status)
"""The numbers of actions and statuses in columns are their places here."""
SUSPECTED, OPEN, ACCEPTED, DISPATCHED, DISPOSED, CLOSED, REJECTED = range(7)
ILLEGAL = -1

_UNTOUCHED = (Status.SUSPECTED, Status.OPEN)
_LEADS_TO = {
    Action.ACCEPT: (Status.ACCEPTED, _UNTOUCHED),
    Action.DISPATCH: (Status.DISPATCHED, (*_UNTOUCHED, Status.ACCEPTED)),
    Action.DISPOSE: (Status.DISPOSED, (*_UNTOUCHED, Status.ACCEPTED, Status.DISPATCHED)),
    Action.CLOSE: (Status.CLOSED, (*_UNTOUCHED, Status.ACCEPTED, Status.DISPATCHED, Status.DISPOSED)),
    Action.REJECT: (Status.REJECTED, (*_UNTOUCHED, Status.ACCEPTED)),
    Action.REOPEN: (Status.OPEN, (Status.CLOSED, Status.REJECTED)),
}

TRANSITION: npt.NDArray[np.int8] = np.full((len(STATUSES), len(ACTIONS)), ILLEGAL, np.int8)
"""The status that an action leads to, by status and action; `ILLEGAL` where it may not follow."""
for _action, (_status, _before) in _LEADS_TO.items():
    for _from in _before:
        TRANSITION[STATUSES.index(_from), ACTIONS.index(_action)] = STATUSES.index(_status)

APPLIED, REPEATED, REDELIVERED, UNKNOWN_INCIDENT, ILLEGAL_TRANSITION = range(5)
"""What becomes of a feedback message."""


class Feedback(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One feedback message on its way through the log.

    ``before`` is the number of reports of its batch or block that stand before it; ``group`` the category group in its
    incident's id, whose shard decides on it.  ``value`` holds the exact bytes of the element, for the dead letter that
    it may become.  ``duplicate_of`` is the incident that goes on in place of this one, if this ends it.
    """

    before: int
    action: int
    group: str
    incident_hi: int
    incident_lo: int
    id_hi: int
    id_lo: int
    time_ms: int
    ingested_ms: int
    partition: int
    offset: int
    index: int
    incident_id: str
    record_key: bytes | None
    value: bytes
    duplicate_of: str | None = None

    def dead_letter(self, result: int, status: int) -> DeadLetter:
        """The dead letter of one that could not be applied to an incident of that status."""
        action = ACTIONS[self.action].value
        if result == UNKNOWN_INCIDENT:
            reason, detail = Reason.UNKNOWN_INCIDENT, f"no incident {self.incident_id!r} is known"
            field = "incident_id"
        else:
            reason, field = Reason.ILLEGAL_TRANSITION, "action"
            legal = " or ".join(before.value for before in _LEADS_TO[ACTIONS[self.action]][1])
            detail = f"{action} of an incident that is {STATUSES[status].value}; it can follow {legal}"
        return DeadLetter(
            FEEDBACK, self.partition, self.offset, self.index, self.record_key, self.value, reason, field, detail,
            self.ingested_ms,
        )  # fmt: skip


def incident_parts(city: str, incident_id: str) -> tuple[str, int, int] | None:
    """Category group and hash in an incident id; None for one that no incident of this city can have.

    >>> incident_parts("990100", "990100-covers-0000000000000001000000000000000a")
    ('covers', 1, 10)
    """
    prefix = city + "-"
    group, dash, digits = incident_id.removeprefix(prefix).rpartition("-")
    if not incident_id.startswith(prefix) or not dash or not group or not _HASH.fullmatch(digits):
        return None
    return group, int(digits[:16], 16), int(digits[16:], 16)


_HASH = re.compile(r"[0-9a-f]{32}")


def feedback_key(message: FeedbackMessage) -> tuple[int, int]:
    """What tells one statement about an incident from another: its id within its platform, and the incident."""
    # The lengths keep parts that run into one another apart.
    platform = message.platform or ""
    parts = f"feedback\0{len(platform)}\0{platform}\0{len(message.id)}\0{message.id}\0{message.incident_id}"
    digest = hashlib.blake2b(parts.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8]), int.from_bytes(digest[8:])


COLUMNS = np.dtype(
    [
        ("before", "i8"), ("action", "i8"), ("group", "i8"), ("incident_hi", "u8"), ("incident_lo", "u8"),
        ("id_hi", "u8"), ("id_lo", "u8"), ("time_ms", "i8"), ("ingested_ms", "i8"),
        ("partition", "i8"), ("offset", "i8"), ("index", "i8"), ("merged_into", "i8"),
        ("result", "i8"), ("status", "i8"), ("incident", "i8"),
    ]
)  # fmt: skip
"""Feedback as the core takes it.  ``group`` is -1 where no report was ever of it, ``merged_into`` a number for the
incident that goes on in its place, -1 for none; the core fills ``result``, the ``status`` that it met, and
``incident``, -1 for none."""


_ENDING = {ACTIONS.index(Action.CLOSE), ACTIONS.index(Action.REJECT)}
"""Only what ends an incident puts another in its place."""


def columns_of(feedback: Sequence[Feedback], groups: dict[str, int], originals: dict[str, int]) -> npt.NDArray[np.void]:
    """Feedback in columns, groups by number; to ``originals`` come the incidents that go on in place of others."""
    return np.array(
        [
            (
                one.before, one.action, groups.get(one.group, -1), one.incident_hi, one.incident_lo,
                one.id_hi, one.id_lo, one.time_ms, one.ingested_ms, one.partition, one.offset, one.index,
                -1 if name is None else originals.setdefault(name, len(originals)), 0, 0, -1,
            )
            for one in feedback
            for name in [one.duplicate_of if one.action in _ENDING else None]
        ],
        COLUMNS,
    )  # fmt: skip
