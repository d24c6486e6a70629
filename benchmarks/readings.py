"""What judging a reading costs: `python -m benchmarks.readings [TRAFFIC-DATA] [--save]`.

Two workloads, in batches as intake has them, on one core:

- `city`, seeded: 100,000 sensors with the metrics of the sample pack, thirty readings each, which is two
  hours and a half; one sensor in a hundred is in trouble at some time.
- `loops`: the 417,312 speeds at the detectors of Los Angeles' freeways, where TRAFFIC-DATA holds them; rush hours, so a
  twelfth of them is beyond a bound.

Ours is the filter of intake, then the states of the fold for what it passes.  The rival looks at one reading at a time
and keeps everything in dicts.  Both must raise the same reports.
"""

from __future__ import annotations

import gzip
import statistics
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.results_file import tell
from packs.loops.make_recording import SLOT_MS, read_speeds
from streams.error_model import read_error_model
from streams.pack import load_pack
from streams.pack_entries import Rule
from streams.readings import AlarmStates, ReadingFilter, ReadingRules, RuleTerms

ROOT = Path(__file__).resolve().parent.parent
RUNS = 5
BATCH = 10_000
SENSORS, READINGS_EACH = 100_000, 30
EVERY_MS = 300_000
START_MS = 1_780_000_000_000
"""Of the year 2026."""

Reports = list[tuple[int, int]]
"""Row and index of the rule, of each reading that is a report."""


@dataclass
class Workload:
    """Columns in stream order, of one source partition; texts as JSON, so that each run decodes its own."""

    rules: ReadingRules
    device: bytes
    metric: bytes
    value: npt.NDArray[np.float64]
    time_ms: npt.NDArray[np.int64]
    mark_ms: npt.NDArray[np.int64]

    def texts(self) -> tuple[list[str], list[str]]:
        """Devices and metrics, decoded anew: the hash of a text is computed once and then known."""
        decode = msgspec.json.Decoder(list[str]).decode
        return decode(self.device), decode(self.metric)


def city() -> Workload:
    """Every sensor says its value every five minutes; seed 1."""
    pack = load_pack(ROOT / "packs" / "sample")
    rules = ReadingRules.from_pack(pack)
    ordinary = list(read_error_model().iot.readings.values())
    rng = np.random.Generator(np.random.PCG64(1))
    kind = rng.integers(0, len(ordinary), SENSORS)
    low, high = (np.asarray([getattr(ordinary[k], end) for k in kind.tolist()]) for end in ("low", "high"))
    value = rng.uniform(low, high, (READINGS_EACH, SENSORS))
    # Trouble: from some reading on for some readings, far to one side or the other.
    for sensor in rng.choice(SENSORS, SENSORS // 100, replace=False).tolist():
        first, length = rng.integers(0, READINGS_EACH), rng.integers(1, READINGS_EACH)
        value[first : first + length, sensor] *= rng.choice([-10.0, 0.0, 10.0])
    slot, sensor_of = np.divmod(np.arange(READINGS_EACH * SENSORS), SENSORS)
    time_ms = START_MS + slot * EVERY_MS + sensor_of * EVERY_MS // SENSORS
    names = [f"{ordinary[k].metric[:2]}-{sensor:06d}" for sensor, k in enumerate(kind.tolist())]
    metrics = [ordinary[k].metric for k in kind.tolist()]
    return Workload(
        rules,
        msgspec.json.encode(names * READINGS_EACH),
        msgspec.json.encode(metrics * READINGS_EACH),
        value.ravel(),
        time_ms,
        time_ms,
    )


def loops(traffic: Path) -> Workload:
    """The recorded week, judged by `packs/loops`."""
    catalogue = tomllib.loads((ROOT / "packs" / "loops" / "catalogue.toml").read_text(encoding="utf-8"))
    priority = {category["code"]: category["priority"] for category in catalogue["category"]}
    rules = ReadingRules.from_rules(
        Rule(
            rule["metric"],
            rule.get("above"),
            rule.get("below"),
            rule.get("clear"),
            rule["for_s"],
            rule["category"],
            priority[rule["category"]],
            rule["unit"],
        )
        for rule in catalogue["rule"]
    )
    with gzip.open(traffic / "la_loop_speed_mph_wide.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        detectors, table = read_speeds(lines)
        rows = [
            (detector, speed, at_ms)
            for at_ms, speeds in table
            for detector, speed in zip(detectors, speeds, strict=True)
            if speed is not None
        ]
    device, value, at = zip(*rows, strict=True)
    time_ms = np.asarray(at, np.int64)
    return Workload(
        rules,
        msgspec.json.encode(device),
        msgspec.json.encode(["speed_mph"] * len(rows)),
        np.asarray(value, np.float64),
        time_ms,
        time_ms + SLOT_MS,
    )


def passing(work: Workload, device: list[str], metric: list[str]) -> Iterator[npt.NDArray[np.intp]]:
    """The rows that the filter passes, batch by batch."""
    filter_ = ReadingFilter(work.rules)
    for start in range(0, len(device), BATCH):
        rows = slice(start, start + BATCH)
        partition = np.zeros(len(device[rows]), np.int64)
        quiet = filter_.quiet(
            partition, device[rows], metric[rows], work.value[rows], work.time_ms[rows], work.mark_ms[rows]
        )
        yield np.flatnonzero(~quiet) + start


def filtering(work: Workload, device: list[str], metric: list[str]) -> Reports:
    """The filter alone: what it passes, each with no rule."""
    return [(len(rows), -1) for rows in passing(work, device, metric)]


def ours(work: Workload, device: list[str], metric: list[str]) -> Reports:
    """What the filter and the states report."""
    states = AlarmStates()
    found: Reports = []
    of_metric = work.rules.of_metric
    for rows in passing(work, device, metric):
        values, times_ms = work.value[rows].tolist(), work.time_ms[rows].tolist()
        for row, value, time_ms in zip(rows.tolist(), values, times_ms, strict=True):
            rule = states.judge(device[row], metric[row], value, time_ms, time_ms, of_metric[metric[row]])
            if rule >= 0:
                found.append((row, rule))
    return found


def rival(work: Workload, device: list[str], metric: list[str]) -> Reports:
    """The same, one reading at a time, as one would write it first."""
    newest: dict[tuple[str, str], int] = {}
    pending: dict[tuple[str, str, int], int] = {}
    raised: set[tuple[str, str, int]] = set()
    found: Reports = []
    of_metric = work.rules.of_metric
    columns = zip(device, metric, work.value.tolist(), work.time_ms.tolist(), strict=True)
    for row, (who, what, value, time_ms) in enumerate(columns):
        rules = of_metric.get(what)
        if rules is None or time_ms <= newest.get((who, what), -1):
            continue
        newest[who, what] = time_ms
        reporting = -1
        for at, rule in enumerate(rules):
            key = (who, what, at)
            if _is_beyond(rule, value):
                if key not in raised:
                    since = pending.setdefault(key, time_ms)
                    if time_ms - since >= rule.for_ms:
                        del pending[key]
                        raised.add(key)
                        if reporting < 0 or rule.priority < rules[reporting].priority:
                            reporting = at
            else:
                pending.pop(key, None)
                if value <= rule.clear if rule.above is not None else value >= rule.clear:
                    raised.discard(key)
        if reporting >= 0:
            found.append((row, reporting))
    return found


def _is_beyond(rule: RuleTerms, value: float) -> bool:
    if rule.above is not None:
        return value > rule.above
    assert rule.below is not None
    return value < rule.below


def measure(work: Workload) -> dict[str, object]:
    """Counts, and readings a second of CPU time; raises AssertionError if the rival reports something else."""
    expected = ours(work, *work.texts())  # also compiles the kernel
    passed = sum(rows for rows, _ in filtering(work, *work.texts()))
    runs: dict[str, Callable[[Workload, list[str], list[str]], Reports]] = {
        "filter": filtering,
        "filter_and_states": ours,
        "rival": rival,
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in chain.from_iterable([runs.items()] * RUNS):
        device, metric = work.texts()
        started = time.process_time()
        found = run(work, device, metric)
        seconds[name].append(time.process_time() - started)
        assert name == "filter" or found == expected, f"{name}: {len(found)} reports, not {len(expected)}"
    total = len(work.value)
    rate = {name: round(total / statistics.median(times)) for name, times in seconds.items()}
    return {
        "readings": total,
        "dropped_at_intake": total - passed,
        "reports": len(expected),
        "readings_per_cpu_second": rate,
        "ratio": round(rate["filter_and_states"] / rate["rival"], 1),
    }


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("--")]
    result: dict[str, object] = {
        "runs": RUNS,
        "city": measure(city()),
    }
    if folders:
        result["loops"] = measure(loops(folders[0]))
    tell("readings", result)


if __name__ == "__main__":
    main()
