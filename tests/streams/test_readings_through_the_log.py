"""Readings from the gateway to the incident: filter, log and states against a plain definition, device by device."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field

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
METRICS_LOW, METRICS_HIGH = 0.0, 4.0


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
        if all(clears(rule, said.value) for rule in rules) and not is_pending and not any(was.values()):
            return None
        device.newest_s = said.time_s
        for seen in device.histories.values():
            seen.append((said.time_s * 1000, said.value))
        new = [rule for rule in rules if is_raised(rule, device.histories[rule]) and not was[rule]]
        return min(new, key=lambda rule: (rule.priority, rules.index(rule))).category_code if new else None


class Line:
    """Two workers' intakes, the log of each shard, and its folds."""

    def __init__(self, pack: IntakePack, shards: int) -> None:
        self.made, self.shards = pack, shards
        self.log: list[list[bytes]] = [[] for _ in range(shards)]
        self.intakes = [Intake(pack.pack, KEY), Intake(pack.pack, KEY)]
        for intake in self.intakes:
            intake.use(pack)
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
        records = []
        for said in step.said:
            value = {"id": f"r{self.offset}", "time": DAY_MS + said.time_s * 1000, "device_id": said.device,
                     "metric": said.metric, "value": said.value, "platform": f"p{said.platform}",
                     "lon": 0.001, "lat": 0.001}  # fmt: skip
            came_ms = DAY_MS + said.came_s * 1000
            data = json.dumps(value).encode()
            records.append(SourceRecord(TOPIC, said.platform, self.offset, came_ms, None, data))
            self.offset += 1
        batch = self.intakes[self.working].take(records)
        assert batch.dead_letters == []
        self.quiet += batch.quiet_readings
        terms = self.intakes[self.working].terms
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


@st.composite
def days(draw: st.DrawFn) -> list[Step]:
    """Batches of readings of a few devices through two platforms: late, early, twice, by clocks that go astray."""
    steps, clock_s = [], 0
    jumble_s = draw(st.sampled_from([0, 3, 600]))
    past: list[Said] = []
    for _ in range(draw(st.integers(1, 12))):
        batch = []
        for _ in range(draw(st.integers(1, 4))):
            clock_s += draw(st.sampled_from([0, 1, 1, 2, 6, 1300]))
            platform = draw(st.integers(0, 1))
            if past and draw(st.integers(0, 5)) == 0:  # the same through the other platform, or once more
                old = draw(st.sampled_from(past[-3:]))
                if clock_s - old.time_s < 20_000:
                    batch.append(Said(clock_s, old.time_s, old.device, old.metric, old.value, platform))
                    continue
            value = draw(st.sampled_from([0.0, 0.0, 1.0, 1.5, 2.5, 4.0, 4.0]))
            metric = draw(st.sampled_from(["depth", "depth", "depth", "gas", "unruled"]))
            said = Said(clock_s, clock_s + draw(st.integers(-jumble_s, jumble_s)), draw(st.sampled_from("aab")),
                        metric, value, platform)  # fmt: skip
            batch.append(said)
            past.append(said)
        pack = draw(st.sampled_from([None, None, None, *PACKS]))
        restart = draw(st.sampled_from([None, None, "folds", "intake", "another worker"]))
        steps.append(Step(batch, pack, restart))
    return steps


def depth(*values: float, start_s: int = 700, every_s: int = 10) -> list[Said]:
    return [Said(start_s + i * every_s, start_s + i * every_s, "a", "depth", v, 0) for i, v in enumerate(values)]


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
def test_what_is_reported_is_what_the_definition_reports(steps: list[Step], shards: int, first_pack: str) -> None:
    """At any batching, through two source partitions, over restarts of either side and changes of the rules."""
    run(steps, shards, first_pack)
