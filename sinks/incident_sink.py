"""What every place for results has in common: replay, demo and tests write to this and do not care which it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from streams.messages import Assignment, DeadLetterRecord, Incident


class IncidentSink(Protocol):
    """Takes outcomes in the order of decision.

    An incident may come many times; the one that stands in the end is the one that ``supersedes`` all others.
    """

    def write(
        self, assignments: Sequence[Assignment], incidents: Sequence[Incident], dead_letters: Sequence[DeadLetterRecord]
    ) -> None:
        """Take one batch; any of the three may be empty."""
        ...

    def close(self, summary: Mapping[str, object] | None = None) -> None:
        """Make everything written so far final; ``summary`` is the run's accounting."""
        ...


def supersedes(new: Incident, old: Incident) -> bool:
    """Whether `new`, written after `old`, is the state that stands.

    A repeat raises ``repeat_count`` and leaves ``version``, so both count; among equals the one written last stands.
    """
    return (new.version, new.repeat_count) >= (old.version, old.repeat_count)
