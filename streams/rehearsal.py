"""A rehearsal: a simulated city and its dispatch centres with the service between them, in virtual time.

What dispatch centres say depends on incidents, whose ids the service decides, and what a city reports depends on what
they repair.  So neither can be recorded before the other.  Here they run together: the city sends, the service (the
`Replay` that replays recordings) decides, the centre is told and acts, the city feels it.  What comes out is one
recording of the sources and the feedback, complete in itself: replayed from the file it gives what the rehearsal saw,
byte for byte.

In the truth

- a repair ends its event: nothing that happens after it is reported any more, and sensors show what they always do;
- a repair that was only said leaves it, and a complaint about it is a report of the **same** event;
- what comes back to its place after a true repair is **another** event, whatever the service may take it for.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from streams.dead_letters import DeadLetter
from streams.error_model import DispatchModel, ErrorModel
from streams.messages import Assignment, Evidence, Incident, Status
from streams.pack import CityPack
from streams.privacy import TEST_KEY
from streams.recording import RecordedMessage
from streams.replay import Replay
from streams.simulated_city import moved
from streams.simulated_dispatch import DispatchCentre
from streams.simulated_events import Event
from streams.simulated_wire import Batch
from streams.simulation import Simulation, World

_BACK_WITHIN_M = 3.0


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What was played, and how the service stands after it."""

    simulation: Simulation
    """Messages with the feedback among them; counts and truth are those of the sources."""
    service: Replay


def rehearse(
    pack: CityPack,
    model: ErrorModel,
    *,
    seed: int,
    start: datetime,
    hours: float,
    rate: float = 1.0,
    step_s: float | None = None,
    advance: Callable[[int], None] | None = None,
    heard: Callable[[list[Assignment], list[DeadLetter]], None] | None = None,
) -> Rehearsal:
    """Simulate a stretch of time in a city whose incidents are worked on.

    Parameters and errors as those of `streams.simulation.simulate`, and

    Parameters
    ----------
    step_s : float, optional
        How much time passes between one look of the centre and the next, at most and by default
        ``model.dispatch.first_look_s``.  Changes nothing but, where an incident gets several reports at once, which
        of them a crew may name as misjoined: a centre is told of the first and the latest.
    heard : callable, optional
        Given what the service decided, step by step.
    """
    look_s = model.dispatch.first_look_s
    if step_s is None:
        step_s = look_s
    if not 0 < step_s <= look_s:
        raise ValueError(f"step_s = {step_s:g}: must be over 0 and at most dispatch.first_look_s = {look_s:g}")
    world = World(pack, model, seed=seed, start=start, hours=hours, rate=rate)
    ground = _Ground(world, model.dispatch)
    centre = DispatchCentre(pack, model.dispatch, seed, ground)
    service = Replay(pack, TEST_KEY, tells=True)
    waiting = _Waiting(world.draw(advance or (lambda _: None)))
    messages: list[RecordedMessage] = []
    step_ms, end_ms = max(1, round(step_s * 1000)), world.span.end_ms
    for at_ms in range(world.span.start_ms, end_ms, step_ms):
        until_ms = min(at_ms + step_ms, end_ms)
        sent = [message for batch in waiting.until(until_ms) if (message := world.wire.send(batch)) is not None]
        # Sorting is stable: of one millisecond the sources' messages come first.
        part = sorted([*sent, *centre.due(until_ms)], key=_timestamp)
        if not part:
            continue
        decided = service.take(part)
        if heard is not None:
            heard(*decided)
        centre.hear(incident for incident in service.told if incident.status != Status.SUSPECTED)
        for report in world.said():
            waiting.add(world.wire.late_batches(report))
        messages += part
    return Rehearsal(world.result(messages), service)


class _Waiting:
    """Batches that wait to be sent, the next one first; those of one millisecond in the order they came in."""

    def __init__(self, batches: list[Batch]) -> None:
        self._heap = [(batch.sent_ms, number, batch) for number, batch in enumerate(batches)]
        self._following = len(batches)

    def add(self, batches: list[Batch]) -> None:
        for batch in batches:
            heapq.heappush(self._heap, (batch.sent_ms, self._following, batch))
            self._following += 1

    def until(self, until_ms: int) -> list[Batch]:
        batches: list[Batch] = []
        while self._heap and self._heap[0][0] < until_ms:
            batches.append(heapq.heappop(self._heap)[2])
        return batches


class _Ground:
    """What crews find in a simulated city."""

    def __init__(self, world: World, model: DispatchModel) -> None:
        self._world = world
        self._model = model
        self._complained_until_ms: dict[Event, int] = {}

    def thing(self, report: Evidence) -> Event | None:
        """The event that a report speaks of."""
        return self._world.wire.event_of.get((report.source, report.report_id))

    def repair(self, incident: Incident, repaired_ms: int, closed_ms: int) -> None:
        """Ends the event; it may come back."""
        event = self.thing(incident.evidence[0])
        if event is None or event.is_repaired(repaired_ms):
            return
        event.repaired_ms = repaired_ms
        if self._world.chance.happens(self._model.recurs):
            start_ms = closed_ms + 1 + self._world.chance.wait_ms(self._model.recurs_s)
            lon, lat = moved(event.lon, event.lat, *self._world.chance.offset(_BACK_WITHIN_M))
            if start_ms < self._world.span.end_ms and self._world.city.contains(lon, lat):
                end_ms = start_ms + event.end_ms - event.start_ms
                self._world.happen(Event(self._world.events, event.category, lon, lat, start_ms, end_ms, end_ms))

    def leave(self, incident: Incident, closed_ms: int) -> None:
        """Lets people complain of what is still there, unless they are about to."""
        event = self.thing(incident.evidence[0])
        if event is None or event.end_ms <= closed_ms or event.is_repaired(closed_ms):
            return
        # Or each complaint would bring several: it reopens the incident, which is closed without a repair again.
        if self._complained_until_ms.get(event, closed_ms) > closed_ms:
            return
        for _ in range(self._world.chance.count(self._model.complaints)):
            time_ms = closed_ms + 1 + self._world.chance.wait_ms(self._model.complains_s)
            event.end_ms = max(event.end_ms, time_ms)
            self._complained_until_ms[event] = max(self._complained_until_ms.get(event, 0), time_ms)
            if self._world.callers.can_tell(event):
                self._world.callers.complain(event, time_ms)


def _timestamp(message: RecordedMessage) -> int:
    assert message.timestamp_ms is not None, "what is simulated arrives at some time"
    return message.timestamp_ms
