"""Results in memory, for tests, for replay without files and for the demo's closing table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sinks.incident_sink import supersedes
from streams.messages import Assignment, DeadLetterRecord, Incident


class MemorySink:
    """Keeps everything: assignments and dead letters in the order given, incidents in their final state.

    Unbounded on purpose: it holds what one run produces, and is not for a worker that runs for ever.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.assignments: list[Assignment] = []
        self.dead_letters: list[DeadLetterRecord] = []
        self.incident_of_id: dict[str, Incident] = {}
        self.summary: dict[str, object] | None = None
        self.closed = False

    @property
    def incidents(self) -> list[Incident]:
        """Final states, sorted by id."""
        return [self.incident_of_id[key] for key in sorted(self.incident_of_id)]

    def write(
        self, assignments: Sequence[Assignment], incidents: Sequence[Incident], dead_letters: Sequence[DeadLetterRecord]
    ) -> None:
        """Take one batch."""
        if self.closed:
            raise ValueError("this sink is closed")
        self.assignments += assignments
        self.dead_letters += dead_letters
        for incident in incidents:
            old = self.incident_of_id.get(incident.incident_id)
            if old is None or supersedes(incident, old):
                self.incident_of_id[incident.incident_id] = incident

    def close(self, summary: Mapping[str, object] | None = None) -> None:
        """Keep the summary; further writes are refused."""
        self.summary = None if summary is None else dict(summary)
        self.closed = True
