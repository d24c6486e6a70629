"""Readings from the gateway to the incident: filter, log and states against a plain definition, device by device.

Exactly so where one worker reads both platforms' partitions; where each has one, within what `ReadingFilter` promises.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby

import pytest
from city_scenario import CATALOGUE_TOML, DAY_MS, KEY, make_pack
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_readings import beyond, clears, is_raised

from streams.blocks import decode_block, encode_blocks
from streams.intake import Intake, IntakePack, SourceRecord
from streams.pack import CityPack
from streams.readings import RuleTerms
from streams.routing import Router
from streams.shard import Shard
from streams.terms import Terms

TOPIC = "iot.readings"


def with_rules(*rules: tuple[str, float, float, int, str]) -> CityPack:
    """A pack whose rules are over a bound (metric, above, clear, for_s, category)."""
    text = "".join(
        f'\n[[rule]]\nmetric = "{metric}"\nabove = {above}\nclear = {clear}\nfor_s = {for_s}\ncategory = "{category}"\n'
        for metric, above, clear, for_s, category in rules
    )
    return make_pack(catalogue=CATALOGUE_TOML + text)


WET = ("depth", 2, 1, 5, "manhole")
FLOOD = ("depth", 3, 2, 0, "street-light")
RIVER = ("depth", 3, 0, 2, "other")
GAS = ("gas", 2, 1, 0, "cover-noise")
PACKS = {
    "all": IntakePack(with_rules(WET, FLOOD, RIVER, GAS)),
    "some": IntakePack(with_rules(WET, GAS)),
    "others": IntakePack(with_rules(FLOOD, GAS)),
    "none": IntakePack(make_pack()),
}
REFRESH_S = 3600


@dataclass(frozen=True)
class Said:
    """One reading: when it came and when it was taken, both in seconds, by what, and through which platform."""

    came_s: int
    time_s: int
    device: str
    metric: str
    value: float
    platform: int


@dataclass
class Step:
    """What happens before the next batch, and the batch."""

    said: list[Said]
    pack: str | None = None
    restart: str | None = None


@dataclass
class _Device:
    """One metric of one device: what each rule has seen since it is there."""

    newest_s: int | None = None
    ended_s: int | None = None
    """When it was last clear by all rules after it was not."""
    histories: dict[RuleTerms, list[tuple[int, float]]] = field(default_factory=dict)


class PlainReadings:
    """The contract, one reading at a time, each rule with its whole past."""

    def __init__(self) -> None:
        self.devices: defaultdict[tuple[str, str], _Device] = defaultdict(_Device)

    def category(self, said: Said, rules: tuple[RuleTerms, ...]) -> str | None:
        """The category that a reading reports, or None."""
        device = self.devices[said.device, said.metric]
        if not rules or (device.newest_s is not None and said.time_s <= device.newest_s):
            return None
        device.histories = {rule: device.histories.get(rule, []) for rule in rules}
        was = {rule: is_raised(rule, seen) for rule, seen in device.histories.items()}
        is_pending = any(seen and beyond(rule, seen[-1][1]) for rule, seen in device.histories.items())
        if all(clears(rule, said.value) for rule in rules):
            if not is_pending and not any(was.values()):
                return None
            device.ended_s = said.time_s
        device.newest_s = said.time_s
        for seen in device.histories.values():
            seen.append((said.time_s * 1000, said.value))
        new = [rule for rule in rules if is_raised(rule, device.histories[rule]) and not was[rule]]
        return min(new, key=lambda rule: (rule.priority, rules.index(rule))).category_code if new else None


class Line:
    """Two workers' intakes, the log of each shard, and its folds.

    One of them works and the other waits; or, if they ``share``, each has the partition of one platform.
    """

    def __init__(self, pack: IntakePack, shards: int, *, share: bool = False) -> None:
        self.made, self.shards = pack, shards
        self.log: list[list[bytes]] = [[] for _ in range(shards)]
        self.intakes = [Intake(pack.pack, KEY), Intake(pack.pack, KEY)]
        for intake in self.intakes:
            intake.use(pack)
        self.share = share
        self.working = 0
        self.offset = 0
        self.reported: dict[str, str] = {}
        self.quiet = 0
        self.restart_folds()

    def restart_folds(self) -> None:
        """As after a crash: silently, from the beginning of the log."""
        self.folds = [Shard(Terms(self.made.pack.code)) for _ in range(self.shards)]
        for fold, log in zip(self.folds, self.log, strict=True):
            for data in log:
                fold.apply_block(decode_block(data, fold.terms), silent=True)

    def take(self, step: Step) -> None:
        if step.pack is not None:
            self.made = PACKS[step.pack]
            for intake in self.intakes:
                intake.use(self.made)
        if step.restart == "folds":
            self.restart_folds()
        elif step.restart == "intake":
            self.intakes[self.working] = Intake(self.made.pack, KEY)
            self.intakes[self.working].use(self.made)
        elif step.restart == "another worker":
            self.working = 1 - self.working
            for partition in (0, 1):
                self.intakes[self.working].forget(TOPIC, partition)
        batches: list[list[Said]] = [step.said]
        if self.share:
            batches = [list(run) for _, run in groupby(step.said, key=lambda said: said.platform)]
        for said in batches:
            self.take_batch(said, (self.working + said[0].platform) % 2 if self.share else self.working)

    def take_batch(self, batch_said: list[Said], worker: int) -> None:
        intake = self.intakes[worker]
        records = []
        for said in batch_said:
            value = {"id": f"r{self.offset}", "time": DAY_MS + said.time_s * 1000, "device_id": said.device,
                     "metric": said.metric, "value": said.value, "platform": f"p{said.platform}",
                     "lon": 0.001, "lat": 0.001}  # fmt: skip
            came_ms = DAY_MS + said.came_s * 1000
            data = json.dumps(value).encode()
            records.append(SourceRecord(TOPIC, said.platform, self.offset, came_ms, None, data))
            self.offset += 1
        batch = intake.take(records)
        assert batch.dead_letters == []
        self.quiet += batch.quiet_readings
        terms = intake.terms
        for number, (rows, _, _) in Router(terms, self.shards).split(batch.reports).items():
            for data in encode_blocks(terms, batch.reports.take(rows), (), (number, self.shards)):
                self.log[number].append(data)
                decisions = self.folds[number].apply_block(decode_block(data, self.folds[number].terms))
                self.quiet += decisions.quiet_readings
                for assignment in decisions.assignments:
                    assert assignment.report_id not in self.reported, "at most one report a reading"
                    self.reported[assignment.report_id] = assignment.category


def run(steps: list[Step], shards: int, first_pack: str) -> None:
    line, plain = Line(PACKS[first_pack], shards), PlainReadings()
    expected: dict[str, str] = {}
    count = 0
    for step in steps:
        line.take(step)
        rules = line.made.terms.reading_rules.of_metric
        for said in step.said:
            category = plain.category(said, rules.get(said.metric, ()))
            if category is not None:
                expected[f"r{count}"] = category
            count += 1
        assert line.reported == expected
        assert line.quiet + len(expected) == count, "every reading is a report or quiet, and is counted once"
    for fold in line.folds:
        fold._alarms.check()


def run_shared(steps: list[Step], shards: int) -> None:
    """With one platform's partition at each worker: the same wherever the filter promises it."""
    line, plain = Line(PACKS["all"], shards, share=True), PlainReadings()
    rules = line.made.terms.reading_rules.of_metric
    ended_s: dict[tuple[str, str], int] = {}
    for step in steps:
        first = line.offset
        line.take(step)
        for number, said in enumerate(step.said, first):
            of_metric = rules.get(said.metric, ())
            device = plain.devices[said.device, said.metric]
            is_new = device.newest_s is None or said.time_s > device.newest_s
            was_ended_s = device.ended_s
            expected = plain.category(said, of_metric)
            reported = line.reported.get(f"r{number}")
            if device.ended_s != was_ended_s:
                ended_s[said.device, said.metric] = said.time_s
                assert reported is None, "what is clear is no report"
                continue
            if (since_s := ended_s.get((said.device, said.metric))) is None:
                assert reported == expected, f"{said}: until a first alarm has ended, no doubt"
            elif is_new and said.time_s >= since_s + REFRESH_S and all(clears(r, said.value) for r in of_metric):
                del ended_s[said.device, said.metric]
                assert reported is None, "what is clear is no report"
            elif said.metric == "gas":
                assert reported in (None, expected), f"{said}: a rule without for_s is not raised wrongly"


@st.composite
def days(draw: st.DrawFn, jumbles_s: tuple[int, ...] = (0, 3, 600)) -> list[Step]:
    """Batches of readings of a few devices through two platforms: late, early, twice, by clocks that go astray.

    Half of them begin with devices that have been well for so long that intake knows it.
    """
    steps, clock_s = [], 0
    jumble_s = draw(st.sampled_from(jumbles_s))
    past: list[Said] = []
    is_known = draw(st.booleans())
    if is_known:
        clock_s = 1_400
        well = [(device, metric, p) for device in "ab" for metric in ("depth", "gas") for p in (0, 1)]
        steps.append(Step([Said(at_s, at_s, d, metric, 0.0, p) for at_s in (0, 700, 1_400) for d, metric, p in well]))
    for _ in range(draw(st.integers(1, 12))):
        batch = []
        for _ in range(draw(st.integers(1, 4))):
            clock_s += draw(st.sampled_from([0, 1, 1, 2, 6, 6, 700, 1300, 4000]))
            platform = draw(st.integers(0, 1))
            if past and draw(st.integers(0, 5)) == 0:  # the same through the other platform, or once more
                old = draw(st.sampled_from(past[-3:]))
                if clock_s - old.time_s < 20_000:
                    batch.append(Said(clock_s, old.time_s, old.device, old.metric, old.value, platform))
                    continue
            value = draw(st.sampled_from([0.0, 0.0, 1.0, 1.5, 2.5, 4.0, 4.0]))
            metric = draw(st.sampled_from(["depth", "depth", "gas", "gas", "unruled"]))
            said = Said(clock_s, clock_s + draw(st.integers(-jumble_s, jumble_s)), draw(st.sampled_from("aab")),
                        metric, value, platform)  # fmt: skip
            batch.append(said)
            past.append(said)
        pack = draw(st.sampled_from([None, None, None, None, None, *PACKS]))
        restart = draw(st.sampled_from([None, None, None, None, None, "folds", "intake", "another worker"]))
        steps.append(Step(batch, pack, restart))
    return steps


def depth(*values: float, start_s: int = 700, every_s: int = 10, platform: int = 0) -> list[Said]:
    times_s = range(start_s, start_s + len(values) * every_s, every_s)
    return [Said(at_s, at_s, "a", "depth", value, platform) for at_s, value in zip(times_s, values, strict=True)]


WELL = depth(0.0, 0.0, 0.0, every_s=1000)
FLAPPING = [(2900, 2.5, 1), (2903, 0.0, 0), (2906, 2.5, 1)]


@settings(max_examples=120, deadline=None)
@given(days(), st.sampled_from([1, 2, 5]), st.sampled_from(list(PACKS)))
# A rule of another group comes while the first is raised: its shard has never heard of that.
@example([Step(depth(2.5, 2.5)), Step(depth(4.0, start_s=730), pack="all")], 5, "some")
# While the partition was another worker's, an alarm was raised; the first must let it end when it has it again.
@example(
    [
        Step(depth(0.0, 0.0, every_s=700)),
        Step(depth(4.0, start_s=2000), restart="another worker"),
        Step(depth(0.0, start_s=2700), restart="another worker"),
        Step(depth(4.0, start_s=2800)),
    ],
    1,
    "all",
)
# An alarm comes through one platform and ends through the other, through which all was well.
@example([Step(WELL), Step([*depth(4.0, start_s=2900, platform=1), *depth(0.0, 4.0, start_s=3000)])], 1, "all")
# While a rule is pending through one platform, the other says that all is well.
@example([Step([*WELL, *(depth(v, start_s=s, platform=p)[0] for s, v, p in FLAPPING)])], 1, "some")
def test_what_is_reported_is_what_the_definition_reports(steps: list[Step], shards: int, first_pack: str) -> None:
    """At any batching, through two source partitions, over restarts of either side and changes of the rules."""
    run(steps, shards, first_pack)


@settings(max_examples=120, deadline=None)
@given(days(jumbles_s=(0,)), st.sampled_from([1, 2]))
# The other worker hears of the end within an hour, and of what begins then.
@example(
    [Step(WELL), Step([*depth(4.0, start_s=2900, platform=1), *depth(0.0, 0.0, 4.0, start_s=3000, every_s=3600)])], 1
)
def test_where_each_partition_has_its_worker_an_end_is_known_within_an_hour(steps: list[Step], shards: int) -> None:
    """From an end until a clear reading an hour later the alarm may seem to be up still; else all is the same."""
    run_shared([Step(step.said, restart=step.restart) for step in steps], shards)


@pytest.mark.parametrize(
    ("pack", "said", "reported"),
    [
        ("others", [(2900, 4.0, 1), (2950, 0.0, 0), (3100, 4.0, 1), (6550, 0.0, 0), (6700, 4.0, 1)], ["r3", "r7"]),
        ("some", FLAPPING, ["r5"]),
    ],
    ids=["a second alarm is taken for the first", "a rule is completed over a clear reading"],
)
def test_until_then_it_may_be_otherwise(pack: str, said: list[tuple[int, float, int]], reported: list[str]) -> None:
    """The price, not the contract: had one worker both partitions, the first were r3, r5, r7 and the second none."""
    line = Line(PACKS[pack], 1, share=True)
    line.take(Step([*WELL, *(depth(value, start_s=at_s, platform=p)[0] for at_s, value, p in said)]))
    assert sorted(line.reported) == reported
