"""What simulated sources say, before it is bytes: reports and readings, with what is true of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from streams.messages import Reason
from streams.simulated_events import Event


@dataclass(slots=True, eq=False)
class Report:
    """A message to be: all but its id, and what is true of it."""

    source: str
    time_ms: int
    """When it was really said; the clock of whoever says it may be `clock_off_ms` off."""
    arrives_ms: int
    fields: dict[str, Any]
    event: Event | None = None
    cluster_id: str = ""
    """Of what is no event: a false alarm's own; empty for a consultation, and where there is an event."""
    asked_for: str = ""
    """Category of a consultation."""
    said_at: tuple[float, float] | None = None
    """Where its coordinates lie, degrees WGS-84; None where it has none."""
    platform: str | None = None
    copies: list[tuple[int, str | None]] = field(default_factory=list)
    """When it arrives once more, and through which platform."""
    amended_ms: int | None = None
    """When it arrives once more and says something else, of which ``amendment`` are the fields."""
    amendment: dict[str, Any] = field(default_factory=dict)
    is_report: bool = True
    """False for a cleared alarm."""
    clock_off_ms: int = 0
    errors: tuple[str, ...] = ()
    broken: Reason | None = None
    """Why nobody can use it, if the one who says it is at fault."""
    id: str = ""

    @property
    def written_ms(self) -> int:
        """The time that it states: a sensor's clock shows whole seconds, and so all platforms say the same."""
        time_ms = self.time_ms + self.clock_off_ms
        return time_ms - time_ms % 1000 if self.source == "iot" else time_ms

    @property
    def is_withdrawn(self) -> bool:
        """Whether it is never sent, because what it speaks of had been put right."""
        return self.event is not None and self.event.is_repaired(self.time_ms)


@dataclass(slots=True, eq=False)
class SensorReading(Report):
    """A reading to be.  ``fields`` hold all but its value."""

    value: float = 0.0
    calm: float = 0.0
    """What the sensor would have shown had nothing happened within its reach."""

    @property
    def is_withdrawn(self) -> bool:
        """A sensor goes on measuring."""
        return False

    @property
    def shown(self) -> float:
        """The value that it states."""
        return self.calm if self.event is not None and self.event.is_repaired(self.time_ms) else self.value

    @property
    def cause(self) -> Event | None:
        """What lifts or lowers the value, if anything does."""
        return None if self.event is None or self.event.is_repaired(self.time_ms) else self.event
