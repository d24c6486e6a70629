"""Any history of reports and feedback through the whole pipeline, against the contract kept by hand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from city_scenario import (
    CATALOGUE_TOML,
    CITY_TOML,
    DAY_MS,
    DOUBTING_CATALOGUE_TOML,
    DOUBTING_CITY_TOML,
    KEY,
    METERS_A_DEGREE,
    make_pack,
)
from contract_city import Answer, ContractCity
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from streams.blocks import Mark, decode_block, encode_blocks, encode_tick
from streams.dead_letters import DeadLetter
from streams.intake import Intake, IntakePack, SourceRecord
from streams.messages import FEEDBACK, TOPIC_OF_SOURCE, Action, Assignment, Incident
from streams.pack import CityPack
from streams.routing import Router
from streams.shard import Shard
from streams.terms import Terms


def edited(*changes: tuple[str, str], doubts: bool = False) -> CityPack:
    catalogue = DOUBTING_CATALOGUE_TOML if doubts else CATALOGUE_TOML
    for old, new in changes:
        assert old in catalogue
        catalogue = catalogue.replace(old, new)
    return make_pack(city=DOUBTING_CITY_TOML if doubts else CITY_TOML, catalogue=catalogue)


PACKS = [
    IntakePack(pack)
    for pack in (
        edited(doubts=True),
        edited(("radius_m = 40", "radius_m = 60"), ("井盖缺失", "井盖丢失")),
        edited(("window_s = 3600", "window_s = 600"), ("reopen_s = 3600", "reopen_s = 86400"), doubts=True),
        # A category that moves to another group, and so to another shard.
        edited(('name = "井盖异响"\ngroup = "covers"', 'name = "井盖异响"\ngroup = "lights"')),
    )
]
PLACES_M = [-61.3, -25.7, 0.4, 11.2, 36.9, 83.1]
"""East of the border of the counties; no two are within a metre of a radius from each other, or equally far from a
third."""
STEPS_S = [0, 1, 299, 599, 601, 1200, 1800, 3000, 3600, 3601, 7201, 86_400]


def weighted(usual: Any, *rare: Any, one_in: int) -> st.SearchStrategy[Any]:
    """One of the rare values about once in so many."""
    return st.sampled_from([usual] * (one_in - 1) * len(rare) + list(rare))


@dataclass(frozen=True)
class Report:
    source: str
    category: str
    east_m: float | None
    back_s: int
    accuracy_m: int
    id: str | None
    platform: str | None
    partition: int
    is_cleared: bool
    who: str
    confidence: float


@dataclass(frozen=True)
class Word:
    """Feedback about the last incident but so many."""

    about: int
    action: Action
    back_s: int
    id: str | None
    platform: str | None
    wrong: str | None
    original: int | None
    """What it is called a duplicate of: the last incident but so many."""


@dataclass(frozen=True)
class Wait:
    by_s: int


REPORTS = st.builds(
    Report,
    st.sampled_from(["patrol", "hotline", "iot", "video"]),
    st.sampled_from(["manhole"] * 8 + ["cover-noise", "cover-noise", "street-light", "question"]),
    st.sampled_from([*PLACES_M, *[0.4] * 4, *[11.2] * 3, None]),
    weighted(0, 1, 299, 301, 601, 1800, 3601, 31 * 86_400, -601, one_in=3),
    st.sampled_from([0, 5, 300]),
    weighted(None, "1", "2", one_in=5),
    weighted(None, "b", one_in=4),
    st.sampled_from([0, 0, 0, 1]),
    weighted(False, True, one_in=10),
    weighted("a", "b", "c", one_in=3),
    st.sampled_from([0.3, 0.62, 0.9]),
)
WORDS = st.builds(
    Word,
    st.sampled_from([0, 0, 0, 1, 2, 7]),
    st.sampled_from([*Action, *[Action.CLOSE] * 6, Action.REJECT, Action.REOPEN]),
    weighted(0, 1, 300, 1800, 3601, 31 * 86_400, -601, one_in=3),
    weighted(None, "1", "2", one_in=4),
    weighted(None, "b", one_in=4),
    weighted(None, "city", "group", "hash", one_in=20),
    weighted(None, 0, 1, 3, one_in=4),
)
WAITS = st.builds(Wait, st.sampled_from(STEPS_S))


class Service:
    """The pipeline with so many shards, which may die at any time; the log and the intake's offsets stay."""

    def __init__(self, shards: int, *, one_clock: bool) -> None:
        self.one_clock = one_clock
        self.pack = PACKS[0]
        self.intake = Intake(self.pack.pack, KEY, one_clock=one_clock)
        self.log: list[list[bytes]] = [[] for _ in range(shards)]
        self.told: list[Incident] = []
        self.assignments: dict[tuple[str, int, int], Assignment] = {}
        self.became: Counter[str] = Counter()
        self.dead_letters: list[DeadLetter] = []
        self.restart()

    def restart(self) -> None:
        self.folds = [Shard(Terms(self.pack.pack.code), one_clock=self.one_clock) for _ in self.log]
        for fold, log in zip(self.folds, self.log, strict=True):
            for data in log:
                assert fold.apply_block(decode_block(data, fold.terms), silent=True).incidents == []

    def use(self, pack: IntakePack) -> None:
        self.pack = pack
        self.intake.use(pack)

    def tick(self, marks: Sequence[Mark]) -> None:
        for number in range(len(self.log)):
            self._append(number, encode_tick(self.intake.terms, marks))

    def take(self, records: Sequence[SourceRecord]) -> None:
        batch = self.intake.take(records)
        self.told, self.dead_letters, self.assignments = [], list(batch.dead_letters), {}
        self.became = Counter(quiet=batch.quiet_readings)
        terms = self.intake.terms
        for number, (rows, _, feedback) in Router(terms, len(self.log)).split(batch.reports, batch.feedback).items():
            for data in encode_blocks(terms, batch.reports.take(rows), feedback, (number, len(self.log))):
                self._append(number, data)

    def _append(self, number: int, data: bytes) -> None:
        self.log[number].append(data)
        fold = self.folds[number]
        decisions = fold.apply_block(decode_block(data, fold.terms))
        fold.dedupe.check()
        self.told += decisions.incidents
        self.dead_letters += decisions.dead_letters
        for assignment in decisions.assignments:
            topic, partition, offset, _ = assignment.origin.split(":")
            self.assignments[topic, int(partition), int(offset)] = assignment
        self.became["redelivered"] += decisions.redelivered
        self.became["applied"] += decisions.feedback.total()
        self.became["repeated"] += decisions.feedback_repeats.total()

    def incidents(self) -> dict[str, dict[str, Any]]:
        made = [msgspec.to_builtins(one) for fold in self.folds for one in fold.incidents()]
        return {one["incident_id"]: one for one in made}


class Endings(RuleBasedStateMachine):
    """Reports and feedback about one street over days, and all that may befall a service meanwhile."""

    @initialize(mode=st.sampled_from(["worker", "replay"]))
    def begin(self, mode: str) -> None:
        # A worker keeps a clock for each partition; in a replay all share one, and shards must make no difference.
        one_clock = mode == "replay"
        self.services = [Service(shards, one_clock=one_clock) for shards in ((1, 3) if one_clock else (1,))]
        self.model = ContractCity(one_clock=one_clock)
        self.clock_ms = DAY_MS
        self.offset = self.past_from_ms = 0
        self.waiting: list[tuple[SourceRecord, dict[str, Any], str | None, float | None]] = []
        self.past: list[tuple[SourceRecord, dict[str, Any], str | None, float | None]] = []

    # ------------------------------------------------------------------------------------------------ what happens

    @rule(things=st.lists(st.one_of(REPORTS, REPORTS, WORDS, WAITS), min_size=1, max_size=8))
    def things_happen(self, things: list[Report | Word | Wait]) -> None:
        for thing in things:
            if isinstance(thing, Wait):
                self.clock_ms += thing.by_s * 1000
            elif isinstance(thing, Report):
                self.report(thing)
            elif self.model.incidents:
                self.feedback(thing)

    def report(self, said: Report) -> None:
        self.offset += 1
        east_m = 0.4 if said.east_m is None and said.source != "hotline" else said.east_m
        # The second partition of a worker's source lags: what it brings came a quarter of an hour ago.
        came_ms = self.clock_ms - (900_000 if said.partition and not self.model.one_clock else 0)
        message: dict[str, Any] = {"id": said.id or f"r{self.offset}", "time": came_ms - said.back_s * 1000,
                                   "accuracy_m": said.accuracy_m}  # fmt: skip
        if said.platform is not None:
            message["platform"] = said.platform
        if east_m is not None:
            message |= {"lon": east_m / METERS_A_DEGREE[1], "lat": 0.001}
        message |= {
            "iot": {"device_id": said.who, "alarm": said.category, "state": "cleared" if said.is_cleared else None},
            "video": {"camera_id": said.who, "event_type": said.category, "confidence": said.confidence},
            # Not every caller shows a number.
            "hotline": {"category": said.category} | ({} if said.who == "c" else {"caller": said.who}),
            "patrol": {"worker_id": said.who, "category": said.category},
        }[said.source]
        topic = TOPIC_OF_SOURCE[said.source]
        record = SourceRecord(topic, said.partition, self.offset, came_ms, None, _json(message))
        self.waiting.append((record, message, said.source, east_m))

    def feedback(self, said: Word) -> None:
        self.offset += 1
        names = list(reversed(self.model.incidents))
        name = names[said.about % len(names)]
        city, group, digits = name[:6], name[7:-33], name[-32:]
        name = {
            "city": f"880100-{group}-{digits}",
            "group": f"{city}-none-{digits}",
            "hash": f"{city}-{group}-{digits[::-1]}",
        }.get(said.wrong or "", name)
        message: dict[str, Any] = {"id": said.id or f"f{self.offset}", "time": self.clock_ms - said.back_s * 1000,
                                   "action": said.action.value, "incident_id": name}  # fmt: skip
        if said.platform is not None:
            message["platform"] = said.platform
        if said.original is not None and (original := names[said.original % len(names)]) != name:
            message["duplicate_of"] = original
        record = SourceRecord(FEEDBACK, 0, self.offset, self.clock_ms, name.encode(), _json(message))
        self.waiting.append((record, message, None, None))

    @rule(by_days=st.sampled_from([31, 367, 400]))
    def nothing_happens_for_long(self, by_days: int) -> None:
        self.clock_ms += by_days * 86_400_000

    @rule(number=st.integers(0, len(PACKS) - 1))
    def the_pack_changes(self, number: int) -> None:
        self.take()
        for service in self.services:
            service.use(PACKS[number])

    @rule()
    def the_folds_die(self) -> None:
        self.take()
        for service in self.services:
            before = service.incidents()
            service.restart()
            assert service.incidents() == before, "the same log, the same incidents"

    @precondition(lambda self: not self.waiting and self.past_from_ms > self.clock_ms - 30 * 86_400_000)
    @rule()
    def the_last_batch_is_read_again(self) -> None:
        """It was sent on, but the worker died before it could say so; long before the month is over."""
        self.waiting = list(self.past)
        self.take()

    @precondition(lambda self: not self.model.one_clock and self.model.read_up_to)
    @rule(drained=st.booleans(), which=st.integers(0, 9))
    def a_partition_is_said_to_be_read_up_to_there(self, drained: bool, which: int) -> None:
        self.take()
        known = [clock for clock in self.model.read_up_to if clock[0] != FEEDBACK]
        if known:
            topic, partition = known[which % len(known)]
            newest_ms = self.model.read_up_to[topic, partition]
            self.model.mark(topic, partition, newest_ms, drained)
            for service in self.services:
                service.tick([Mark(topic, partition, newest_ms, drained)])

    # ------------------------------------------------------------------------------------------------- what is told

    @rule()
    def take(self) -> None:
        """Whatever waits is one batch; what becomes of it must be what the contract says."""
        if not self.waiting:
            return
        for known in self.model.incidents.values():
            known.states, known.must_tell = [], set()
        for service in self.services:
            service.take([record for record, *_ in self.waiting])
        first = self.services[0]
        letters = [(letter.offset, letter.reason.value) for letter in first.dead_letters]
        expected_letters = []
        expected_became: Counter[str] = Counter(quiet=0, redelivered=0, applied=0, repeated=0)
        for record, message, source, east_m in self.waiting:
            at = (record.topic, record.partition, record.offset)
            assignment = first.assignments.get(at)
            answer = self._expected(record, message, source, east_m, assignment)
            if answer.became in expected_became:
                expected_became[answer.became] += 1
            elif assignment is not None:
                self._compare(assignment, answer, message, record)
            else:
                expected_letters.append((record.offset, answer.became))
        assert sorted(letters) == sorted(expected_letters)
        assert first.became == expected_became
        total = len(first.assignments) + len(letters) + first.became.total()
        assert total == len(self.waiting), "every element became one thing"
        for service in self.services:
            self._compare_incidents(service)
            assert service.assignments == first.assignments, "however many shards"
            assert service.became == first.became
            assert {(one.offset, one.value, one.reason) for one in service.dead_letters} == {
                (one.offset, one.value, one.reason) for one in first.dead_letters
            }
        of_offset = {record.offset: record.value for record, *_ in self.waiting}
        assert all(letter.value == of_offset[letter.offset] for letter in first.dead_letters), "their exact bytes"
        self.past_from_ms = min(record.timestamp_ms or 0 for record, *_ in self.waiting)
        self.past, self.waiting = self.waiting, []

    def _expected(
        self, record: SourceRecord, message: dict[str, Any], source: str | None, east_m: float | None,
        assignment: Assignment | None,
    ) -> Answer:  # fmt: skip
        assert record.timestamp_ms is not None
        if source is None:
            return self.model.feedback(record.offset, record.timestamp_ms, message, "990100")
        self.model.read(record.topic, record.partition, record.timestamp_ms)
        return self.model.report(
            self.services[0].pack.pack, record.topic, record.partition, record.offset, record.timestamp_ms, message,
            source, east_m, None if assignment is None else assignment.incident_id,
        )  # fmt: skip

    @staticmethod
    def _compare(assignment: Assignment, answer: Answer, message: dict[str, Any], record: SourceRecord) -> None:
        why = assignment.why
        assert (assignment.outcome, assignment.incident_id) == (answer.became, answer.incident_id)
        assert (why.rule, why.late_s, why.recurrence_of) == (
            answer.rule, None if answer.late_s is None else round(answer.late_s, 1), answer.recurrence_of,
        )  # fmt: skip
        assert (assignment.report_id, assignment.revision) == (message["id"], 0)
        if answer.distance_m is None:
            assert (assignment.distance_m, assignment.gap_s) == (None, None)
        else:
            assert assignment.distance_m is not None
            assert abs(assignment.distance_m - answer.distance_m) < 0.07
            assert assignment.gap_s == round(answer.gap_s or 0, 1)
            assert (why.found, why.late_s) != (False, answer.late_s)

    def _compare_incidents(self, service: Service) -> None:
        stand = service.incidents()
        assert stand.keys() == self.model.incidents.keys()
        told: dict[str, list[dict[str, Any]]] = {}
        for one in service.told:
            told.setdefault(one.incident_id, []).append(msgspec.to_builtins(one))
        for name, known in self.model.incidents.items():
            assert _said(stand[name]) == known.fields
            if known.east_m is None:
                assert (stand[name]["lon"], stand[name]["lat"]) == (None, None)
            else:
                assert abs(stand[name]["lon"] - known.east_m / METERS_A_DEGREE[1]) < 1e-7
            # What is told: nothing that never was, in order, nothing of weight left out, and last how it stands.
            numbers = [known.states.index(_said(one)) for one in told.get(name, [])]
            assert numbers == sorted(set(numbers))
            assert known.must_tell <= set(numbers)
            assert bool(known.states) == bool(numbers)
            assert not numbers or numbers[-1] == len(known.states) - 1

    def teardown(self) -> None:
        if hasattr(self, "services"):
            self.take()
            self.the_folds_die()


_UNTOLD = {
    "lon", "lat", "layer_codes", "sla_due_at", "overdue",
}  # fmt: skip
"""Compared apart, or null until later."""


def _said(incident: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in incident.items() if name not in _UNTOLD}


def _json(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()


Endings.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
test_every_history_is_what_the_contract_says = Endings.TestCase
