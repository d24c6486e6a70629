"""A simulated dispatch centre: what becomes of the incidents that it is told of, as feedback.

It is a consumer like a real one.  It knows an incident only once it is told of it, and whoever it sends there finds
what the simulated city has to show (`Ground`).  Its errors are those of people and of networks: it rejects what is
there and sends a crew to what never was, overlooks duplicates and takes others for some, closes without a repair,
leaves steps out, tells late, twice, in the wrong order, and of incidents that nobody knows.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from typing import Protocol

import orjson

from streams.error_model import DispatchModel
from streams.messages import FEEDBACK, Action, Evidence, Incident, Status
from streams.pack import CityPack
from streams.recording import RecordedMessage

_ENDED = (Status.CLOSED.value, Status.REJECTED.value)


class Ground(Protocol):
    """What whoever goes to an incident's place finds, and leaves."""

    def thing(self, report: Evidence) -> Hashable | None:
        """What a report speaks of; None where there never was anything."""
        ...

    def repair(self, incident: Incident, repaired_ms: int, closed_ms: int) -> None:
        """A crew puts right whatever is there; the incident is closed later."""
        ...

    def leave(self, incident: Incident, closed_ms: int) -> None:
        """A crew has only said so, and the incident is closed."""
        ...


@dataclass(slots=True)
class _Act:
    """One step that the centre takes, and when the platform hears of it."""

    action: Action
    time_ms: int
    arrives_ms: int
    reason: str = ""
    duplicate_of: str | None = None


class DispatchCentre:
    """Takes up every incident that it is told of, and says in its own time what became of it.

    Each time an incident is opened or reopened its whole way is drawn at once, from the seed, its id and how often that
    was; so what the centre says does not depend on how many incidents it is told of at once, nor on their order, but
    for which of two is the other's duplicate, and for which of many reports at once its crews know of.
    Nothing that it says about an incident arrives sooner than ``first_look_s`` after the `updated_at` of what told it.
    Memory grows with the incidents.
    """

    def __init__(self, pack: CityPack, model: DispatchModel, seed: int, ground: Ground) -> None:
        self._pack = pack
        self._model = model
        self._seed = seed
        self._ground = ground
        self._limit_s = {
            category.code: model.limit_none_s
            if category.sla is None
            else category.sla.amount * model.limit_s.get(category.sla.unit, model.limit_none_s)
            for category in pack.categories
        }
        self._status: dict[str, str] = {}
        self._times: dict[str, int] = {}
        self._told_ms: dict[str, dict[Evidence, int]] = {}
        """Since when it knows which reports of an incident."""
        self._first_about: dict[Hashable, str] = {}
        self._latest_in_cell: dict[tuple[str | None, str], str] = {}
        self._due: list[tuple[int, str, str, _Act, str]] = []
        self._offset = 0

    def hear(self, told: Iterable[Incident]) -> None:
        """Be told of incidents, as they are published: each opening and each end of each among them."""
        for incident in told:
            before = self._status.get(incident.incident_id)
            self._status[incident.incident_id] = incident.status
            told_ms, now_ms = self._told_ms.setdefault(incident.incident_id, {}), _time_ms(incident.updated_at)
            for report in incident.evidence:
                told_ms.setdefault(report, now_ms)
            if before is None or (before in _ENDED and incident.status not in _ENDED):
                self._take_up(incident)

    def due(self, until_ms: int) -> list[RecordedMessage]:
        """The feedback that arrives before a moment and was not fetched yet, in order of arrival."""
        messages: list[RecordedMessage] = []
        while self._due and self._due[0][0] < until_ms:
            arrives_ms, name, incident_id, act, actor = heapq.heappop(self._due)
            value = orjson.dumps(self._message(incident_id, name, act, actor))
            messages.append(RecordedMessage(FEEDBACK, value, 0, self._offset, arrives_ms, incident_id.encode()))
            self._offset += 1
        return messages

    def _take_up(self, incident: Incident) -> None:
        times = self._times[incident.incident_id] = self._times.get(incident.incident_id, 0) + 1
        chance = Random(f"{self._seed}/{incident.incident_id}/{times}")
        acts = self._way(incident, chance)
        model = self._model
        for act in acts:
            act.arrives_ms = act.time_ms + _wait_ms(chance, model.delay_s)
            if chance.random() < model.late:
                act.arrives_ms += round(chance.uniform(0, model.late_max_s) * 1000)
        if len(acts) > 1 and acts[-2].action is Action.DISPOSE and chance.random() < model.overtaken:
            acts[-2].arrives_ms = max(act.arrives_ms for act in acts) + 1 + _wait_ms(chance, 30)
        for number, act in enumerate(acts):
            # The digits of an incident's id tell its feedback from that of all others.
            name = f"{incident.incident_id[-32:]}-{times}-{number}"
            self._tell(incident.incident_id, name, act, incident.department)
            if chance.random() < model.sent_again:
                again_ms = act.arrives_ms + round(chance.uniform(1, 3600) * 1000)
                self._tell(incident.incident_id, name, replace(act, arrives_ms=again_ms), incident.department)
            if chance.random() < model.unknown:
                # Another system's, or one of ours that never was.
                digits = f"{chance.getrandbits(128):032x}"
                nobody = f"{incident.incident_id[:-32]}{digits}" if chance.random() < 0.5 else f"AJ{digits[:12]}"
                self._tell(nobody, f"{name}-x", act, incident.department)

    def _way(self, incident: Incident, chance: Random) -> list[_Act]:
        """What the centre will do with an incident, step by step."""
        model = self._model
        thing = self._ground.thing(incident.evidence[0])
        other = self._taken_for(incident, thing, Random(f"{self._seed}/{incident.incident_id}/duplicate"))
        accept_s = model.accept_urgent_s if incident.priority == 1 else model.accept_s
        now_ms = _time_ms(incident.updated_at) + round(model.first_look_s * 1000) + _wait_ms(chance, accept_s)
        if other is not None:
            return [_Act(Action.REJECT, now_ms, now_ms, "重复", other)]
        if chance.random() < (model.found_out if thing is None else model.rejected):
            return [_Act(Action.REJECT, now_ms, now_ms, "现场未发现")]
        acts = [_Act(Action.ACCEPT, now_ms, now_ms)]
        now_ms += _wait_ms(chance, model.dispatch_s)
        acts.append(_Act(Action.DISPATCH, now_ms, now_ms))
        if chance.random() < model.left_lying:
            return acts
        repaired_ms = now_ms + _wait_ms(chance, model.takes_of_limit * self._limit_s[incident.category])
        acts.append(_Act(Action.DISPOSE, repaired_ms, repaired_ms))
        acts = [act for act in acts if chance.random() >= model.skipped]
        closed_ms = repaired_ms + 1 + _wait_ms(chance, model.close_s)
        acts.append(_Act(Action.CLOSE, closed_ms, closed_ms))
        if chance.random() >= model.only_said:
            self._ground.repair(incident, repaired_ms, closed_ms)
        elif chance.random() < model.called_back:
            called_ms = closed_ms + 1 + _wait_ms(chance, model.complains_s)
            acts.append(_Act(Action.REOPEN, called_ms, called_ms, "回访不满意"))
        else:
            self._ground.leave(incident, closed_ms)
        return acts

    def _taken_for(self, incident: Incident, thing: Hashable | None, chance: Random) -> str | None:
        """The incident that this one is said to be a duplicate of: rightly, or because it is the one next to it."""
        model = self._model
        first = None
        if thing is not None:
            first = self._first_about.get(thing)
            if first is None or self._status[first] in _ENDED:
                first = self._first_about[thing] = incident.incident_id
        cell = incident.grid_code, incident.category
        latest = self._latest_in_cell.get(cell)
        self._latest_in_cell[cell] = incident.incident_id
        for other, share in ((first, model.duplicate_seen), (latest, model.duplicate_mistaken)):
            if other is not None and self._is_another(other, incident) and chance.random() < share:
                return other
        return None

    def _is_another(self, incident_id: str, incident: Incident) -> bool:
        return incident_id != incident.incident_id and self._status[incident_id] not in _ENDED

    def _tell(self, incident_id: str, name: str, act: _Act, actor: str) -> None:
        heapq.heappush(self._due, (act.arrives_ms, name, incident_id, act, actor))

    def _message(self, incident_id: str, name: str, act: _Act, actor: str) -> dict[str, object]:
        fields: dict[str, object] = {
            "id": name,
            "time": datetime.fromtimestamp(act.time_ms // 1000, UTC).isoformat().replace("+00:00", "Z"),
            "action": act.action.value,
            "incident_id": incident_id,
            "actor": actor,
        }
        if act.reason:
            fields["reason"] = act.reason
        if act.duplicate_of is not None:
            fields["duplicate_of"] = act.duplicate_of
        if act.action is Action.CLOSE and (misjoined := self._misjoined(incident_id, act.time_ms)):
            fields["misjoined"] = [{"source": one.source, "report_id": one.report_id} for one in misjoined]
        return fields

    def _misjoined(self, incident_id: str, time_ms: int) -> list[Evidence]:
        """The reports in an incident that its crew, who stood there, found to speak of something else."""
        told_ms = self._told_ms.get(incident_id)
        if told_ms is None:  # nobody's incident
            return []
        known = [one for one, at_ms in told_ms.items() if at_ms <= time_ms - round(self._model.first_look_s * 1000)]
        thing = self._ground.thing(known[0]) if known else None
        return [
            one
            for one in known
            if self._ground.thing(one) != thing
            and Random(f"{self._seed}/{incident_id}/{one.source}/{one.report_id}").random() < self._model.misjoined_seen
        ]


def _wait_ms(chance: Random, mean_s: float) -> int:
    return round(chance.expovariate(1 / mean_s) * 1000) if mean_s else 0


def _time_ms(rfc3339: str) -> int:
    return round(datetime.fromisoformat(rfc3339).timestamp() * 1000)
