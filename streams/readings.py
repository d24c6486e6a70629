"""Readings judged by rules: which of a sensor's values are reports (docs/contract.md).

Nearly every reading says that all is well.  So the work is in two halves, on both sides of the log:

- `ReadingFilter`, at intake, in columns: drops the readings that change nothing, which are those of metrics without a
  rule, and those in the clear zone of every rule whose predecessor was there too, but for one now and then.
- `AlarmStates`, in the fold of a shard, one row at a time: the state of each rule of each device, made of nothing but
  the rows of the log, so that it survives a restart as the log does.

A rule is **clear**, then **pending** from the first reading beyond its bound, then **raised** by a reading that is
still beyond it ``for_s`` later, which is the report.  Beyond is over `above` (under `below`); the bound itself is not
beyond.  A pending rule is clear again with any reading that is not beyond; a raised one only with a reading back at
`clear` or better, so that a value that trembles around its bound raises one alarm and not hundreds.

A device whose messages come through two platforms counts once, and a clock that jumped back raises nothing: what is no
newer than the newest reading that counted for its device and metric changes nothing.  A reading that finds every rule
clear and leaves it so does not count in this; then it is the same whether intake dropped it or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from operator import getitem
from typing import Any, Final, TypeVar, cast

import msgspec
import numba
import numpy as np
import numpy.typing as npt

from streams.messages import Reason
from streams.pack import CityPack
from streams.pack_entries import Rule
from streams.privacy import mask_beginning
from streams.refusal import Refusal

F = TypeVar("F")
_Mask = npt.NDArray[np.bool_]
_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]

_NO_RULE: Final = -1
"""In place of an entry's number: nothing is remembered of a metric without a rule."""


class RuleTerms(msgspec.Struct, frozen=True, array_like=True):
    """One rule, as it travels in the log with the readings that it judges.  A rule is known by its terms."""

    metric: str
    above: float | None
    below: float | None
    """One of the two is None."""
    clear: float
    """What ends a raised alarm: a value at or under it for `above`, at or over it for `below`."""
    for_ms: int
    category_code: str
    priority: int
    """1 highest to 4."""

    def is_beyond(self, value: float) -> bool:
        """Whether a value is over (under) the bound."""
        if self.above is not None:
            return value > self.above
        return self.below is not None and value < self.below

    def is_clear(self, value: float) -> bool:
        """Whether a value ends a raised alarm; never true of one that is beyond."""
        return value <= self.clear if self.above is not None else value >= self.clear


@dataclass(frozen=True)
class ReadingRules:
    """The rules of a pack by metric, each metric's in the order of the file."""

    of_metric: Mapping[str, tuple[RuleTerms, ...]]
    unit_of_metric: Mapping[str, str]
    """Only of metrics whose rules say what they are in."""

    @classmethod
    def from_pack(cls, pack: CityPack) -> ReadingRules:
        """The rules of a pack."""
        return cls.from_rules(pack.rules)

    @classmethod
    def from_rules(cls, rules: Iterable[Rule]) -> ReadingRules:
        """The same of a catalogue's rules, in its order."""
        of_metric: dict[str, tuple[RuleTerms, ...]] = {}
        unit_of_metric: dict[str, str] = {}
        for rule in rules:
            bound = rule.above if rule.above is not None else rule.below
            clear = rule.clear if rule.clear is not None else bound
            assert clear is not None
            terms = RuleTerms(
                rule.metric, rule.above, rule.below, clear, round(rule.for_s * 1000), rule.category, rule.priority
            )
            of_metric[rule.metric] = (*of_metric.get(rule.metric, ()), terms)
            if rule.unit is not None:
                unit_of_metric[rule.metric] = rule.unit
        return cls(of_metric, unit_of_metric)

    def refusals(self, metric: Sequence[str], unit: Sequence[str | None], value: _Floats) -> dict[int, Refusal]:
        """The readings that no rule can judge, by row: another unit than the rules', or a value that is no number.

        Looks at pairs of metric and unit, so it costs about 0.1 µs a row while all are right.
        """
        found: dict[int, Refusal] = {}
        for row in np.flatnonzero(~np.isfinite(value)).tolist():
            found[row] = Refusal(Reason.OUT_OF_RANGE, "value", f"{value[row]} is no finite number")
        ours = self.unit_of_metric
        wrong = {
            pair for pair in set(zip(metric, unit, strict=True)) if pair[1] and ours.get(pair[0], pair[1]) != pair[1]
        }
        if wrong:
            for row, pair in enumerate(zip(metric, unit, strict=True)):
                if pair in wrong:
                    shown = repr(mask_beginning(pair[1] or "", 32))
                    detail = f"nobody maps unit {shown} of metric {pair[0]}; its rules are in {ours[pair[0]]!r}"
                    found.setdefault(row, Refusal(Reason.OUT_OF_RANGE, "unit", detail))
        return found


# ------------------------------------------------------------------------------------------------------- at intake


class _NoDevices(dict[str, int]):
    """The devices of a metric without a rule: any, and nothing is kept of it."""

    def __missing__(self, device: str) -> int:
        return _NO_RULE


class _Numbers(dict[str, int]):
    """The devices of one metric, each with the number of its entry; a new one gets the following number."""

    def __init__(self, following: count[int], known: Mapping[str, int] | None = None) -> None:
        super().__init__(known or {})
        self.following = following

    def __missing__(self, device: str) -> int:
        number = self[device] = next(self.following)
        return number


class _Tables(dict[str, dict[str, int]]):
    """The devices of each metric that has a rule."""

    def __missing__(self, metric: str) -> dict[str, int]:
        return _NO_DEVICES


_NO_DEVICES: Final = _NoDevices()


class ReadingFilter:
    """Drops the readings that change nothing, and remembers for that of each device and metric how its last one was.

    A reading is dropped if it is clear by every rule, newer than the last of its device and metric that passed, by less
    than ``refresh_s``, and that one was clear too, whichever partitions the two came through.

    While every partition that a device comes through is read here, `AlarmStates` would have taken what is dropped
    without a change, and what passes without need does no harm there.  So the filter may forget, and be emptied at any
    time: after a restart, or beyond ``capacity``.

    Where a device comes through partitions of two workers, neither filter knows what the other one passed.  Then, of a
    device whose times do not go back, in the order of the log:

    - an alarm that a clear reading ended has ended in the fold at the latest with the first clear one, through either
      worker, that is ``refresh_s`` newer; one that begins again before that may be taken for the same, without a word;
    - before that, too, a rule with ``for_s`` may be completed over a clear reading in between, if it was less than
      ``refresh_s`` newer than a clear one that its worker had passed; one without ``for_s`` is never raised wrongly.

    What a partition passed before it was first heard here, or before it came back, counts as another worker's until
    then; from its first reading on nothing is taken for granted.

    Parameters
    ----------
    rules : ReadingRules
        May be replaced between batches; what is remembered stays true.
    future_s : float
        How far a reading's time may be ahead of its ingestion, as intake checks it.  What a partition passed before it
        was heard here may be as new as this, so until a device has come past it, its readings pass.
    refresh_s : float
        Event time.  A device that is well passes one clear reading in this time.
    capacity : int
        Entries (of a device and metric) remembered, at least 2.  With more, the half known longest is forgotten: those
        pass once more.  An entry takes about 190 bytes, so two million take 0.4 GB; forgetting a million takes half a
        second.
    """

    # `_is_clear[entry]` promises that the fold has every rule of the entry clear.  `_newest_ms[entry]` is no less than
    # the newest reading that counted for it in the fold, passed here or presumed.  Entries are numbered as they came.

    def __init__(
        self, rules: ReadingRules, *, future_s: float = 600, refresh_s: float = 3600, capacity: int = 2_000_000
    ) -> None:
        if capacity < 2:
            raise ValueError(f"capacity = {capacity}: must be at least 2")
        self.capacity = capacity
        self._future_ms = round(future_s * 1000)
        self._refresh_ms = round(refresh_s * 1000)
        self._heard: set[int] = set()
        self._mark_ms = 0
        self._presumed_ms = 0
        self._numbers: dict[str, _Numbers] = {}
        self._following = count()
        self._size = 0
        self._metric = np.zeros(0, np.int32)
        self._newest_ms = np.zeros(0, np.int64)
        self._is_clear = np.zeros(0, np.bool_)
        self.rules = rules

    @property
    def rules(self) -> ReadingRules:
        """The rules in force."""
        return self._rules

    @rules.setter
    def rules(self, rules: ReadingRules) -> None:
        # Entries of a metric whose rules are gone are kept: should the rules come back, the fold still has their state.
        self._rules = rules
        for metric in rules.of_metric:
            self._numbers.setdefault(metric, _Numbers(self._following))
        self._tables = _Tables({metric: self._numbers[metric] for metric in rules.of_metric})
        self._number_of_metric = {metric: number for number, metric in enumerate(self._numbers)}
        zones = [_clear_zone(rules.of_metric.get(metric, ())) for metric in self._numbers]
        self._low = np.asarray([low for low, _ in zones], np.float64)
        self._high = np.asarray([high for _, high in zones], np.float64)

    def __len__(self) -> int:
        """Entries remembered."""
        return self._size

    def quiet(
        self,
        partition: npt.ArrayLike,
        device: Sequence[str],
        metric: Sequence[str],
        value: npt.ArrayLike,
        time_ms: npt.ArrayLike,
        mark_ms: npt.ArrayLike,
    ) -> _Mask:
        """Which readings may be dropped.

        One look-up of device and metric a row, then compiled: some 0.3 µs a row.

        Parameters
        ----------
        partition : ints, shape (n,)
            Source partition.
        device, metric : sequences of n texts
        value : float64, shape (n,)
        time_ms : int64, shape (n,)
            Event time, Unix ms, at most ``future_s`` after ``mark_ms``.
        mark_ms : int64, shape (n,)
            Newest ingestion time of the row's partition so far, Unix ms; does not go back within a partition.

        Returns
        -------
        bool array, shape (n,)
            True where the reading has no rule, or is clear by every rule as the last that passed was.
        """
        partition, mark_ms = np.asarray(partition, np.int64), np.asarray(mark_ms, np.int64)
        value, time_ms = np.asarray(value, np.float64), np.asarray(time_ms, np.int64)
        quiet = np.zeros(len(value), np.bool_)
        if not len(value):
            return quiet
        for number in np.unique(partition).tolist():
            if number not in self._heard:
                self._heard.add(number)
                self._presume(int(mark_ms[np.argmax(partition == number)]))
        self._mark_ms = max(self._mark_ms, int(mark_ms.max()))
        entry = np.asarray(list(map(getitem, map(self._tables.__getitem__, metric), device)), np.int64)
        if (size := int(entry.max()) + 1) > self._size:
            self._grow(size)
            for row in np.flatnonzero(entry >= self._size).tolist():
                self._metric[entry[row]] = self._number_of_metric[metric[row]]
            self._size = size
        _find_quiet(
            entry,
            value,
            time_ms,
            self._metric,
            self._low,
            self._high,
            self._refresh_ms,
            self._newest_ms,
            self._is_clear,
            quiet,
        )
        if self._size > self.capacity:
            self._forget_half()
        return quiet

    def forget(self, partition: int) -> None:
        """A partition comes back from another worker: what it passes next is as if first heard."""
        self._heard.discard(partition)

    def _presume(self, mark_ms: int) -> None:
        """Trust nothing that a partition may have changed, in readings passed elsewhere, before it came to a mark."""
        newest_ms = self._newest_ms[: self._size]
        np.maximum(newest_ms, mark_ms + self._future_ms, out=newest_ms)
        # Also what is newer than that: the fold may not have counted it.
        self._is_clear[: self._size] = False
        self._presumed_ms = max(self._presumed_ms, mark_ms + self._future_ms)

    def _forget_half(self) -> None:
        """Forget the entries known longest."""
        gone = self._size // 2
        self._following = count(self._size - gone)
        for metric, numbers in self._numbers.items():
            kept = {device: number - gone for device, number in numbers.items() if number >= gone}
            self._numbers[metric] = _Numbers(self._following, kept)
        self._tables = _Tables({metric: self._numbers[metric] for metric in self._tables})
        self._size -= gone
        for name in ("_metric", "_newest_ms", "_is_clear"):
            setattr(self, name, getattr(self, name)[gone : gone + self._size].copy())
        self._presumed_ms = max(self._presumed_ms, self._mark_ms + self._future_ms)

    def _grow(self, size: int) -> None:
        more = max(size, 2 * self._size, 1024) - len(self._metric)
        if size > len(self._metric):
            self._metric = np.concatenate((self._metric, np.zeros(more, np.int32)))
            self._newest_ms = np.concatenate((self._newest_ms, np.zeros(more, np.int64)))
            self._is_clear = np.concatenate((self._is_clear, np.zeros(more, np.bool_)))
        self._newest_ms[self._size : size] = self._presumed_ms
        self._is_clear[self._size : size] = False


def _clear_zone(rules: Sequence[RuleTerms]) -> tuple[float, float]:
    """From where to where a value is clear by every rule, both ends included; empty if low is over high."""
    low = max((rule.clear for rule in rules if rule.above is None), default=-math.inf)
    high = min((rule.clear for rule in rules if rule.above is not None), default=math.inf)
    return low, high


def _jit(function: F) -> F:
    compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy")
    return cast(F, compiled(function))


@_jit
def _find_quiet(
    entry: _Ints,
    value: _Floats,
    time_ms: _Ints,
    metric: npt.NDArray[np.int32],
    low: _Floats,
    high: _Floats,
    refresh_ms: int,
    newest_ms: _Ints,
    is_clear: _Mask,
    quiet: _Mask,
) -> None:
    for row in range(len(entry)):
        at = entry[row]
        if at < 0:
            quiet[row] = True
            continue
        newest = newest_ms[at]
        if low[metric[at]] <= value[row] <= high[metric[at]]:
            # One that is no newer passes even after a clear one: a batch that is read again after a failure must pass
            # what it passed before.
            if time_ms[row] > newest:
                if is_clear[at] and time_ms[row] - newest < refresh_ms:
                    quiet[row] = True
                else:
                    is_clear[at] = True
                    newest_ms[at] = time_ms[row]
        else:
            # Whatever its time: the fold may not have counted the clear one that is newer.
            is_clear[at] = False
            newest_ms[at] = max(newest, time_ms[row])


# ----------------------------------------------------------------------------------------------------- in the fold

_CLEAR: Final = -(2**63)
_RAISED: Final = 2**63
"""Any time between the two is the one since which a rule is pending."""

_SWEPT_FROM: Final = 100_000


class _Alarm:
    """The rules of one metric of one device."""

    __slots__ = ("newest_ms", "rules", "since")

    def __init__(self, rules: Sequence[RuleTerms], newest_ms: int) -> None:
        self.rules = rules
        self.since = [_CLEAR] * len(rules)
        self.newest_ms = newest_ms


def _is_clear_by_all(rules: Sequence[RuleTerms], value: float) -> bool:
    for rule in rules:  # noqa: SIM110 - a generator costs more than what it would ask
        if not rule.is_clear(value):
            return False
    return True


class AlarmStates:
    """The state of each rule for each device: a pure fold over readings, the same for the same rows in the same order.

    What has not counted a reading for ``remember_ms`` before the newest mark is forgotten, a raised rule too: a device
    that was silent for so long and is still beyond its bound is told of again.  So what is held is bounded by the
    devices out of the clear zone within that time.
    """

    def __init__(self, remember_ms: int = 30 * 86_400_000) -> None:
        self._remember_ms = remember_ms
        self._horizon_ms = -(2**62)
        self._swept_at = _SWEPT_FROM
        self._alarms: dict[tuple[str, str], _Alarm] = {}

    def __len__(self) -> int:
        """Entries held."""
        return len(self._alarms)

    def judge(
        self, device: str, metric: str, value: float, time_ms: int, mark_ms: int, rules: Sequence[RuleTerms]
    ) -> int:
        """Take the next reading.

        Parameters
        ----------
        device, metric : str
        value : float
            One that is not finite changes nothing.
        time_ms : int
            Event time, Unix ms; one no newer than the newest that counted for device and metric changes nothing.
        mark_ms : int
            Newest ingestion time of the reading's partition so far, Unix ms.
        rules : sequence of RuleTerms
            Those of the metric, no two alike.  A rule that the device was not judged by before starts clear.

        Returns
        -------
        int
            Index in ``rules`` of the rule that makes the reading a report; -1 if none.  Of several that become raised
            at once the one of the highest priority, then the first; the others are raised without a word.
        """
        if not math.isfinite(value):
            return -1
        self._horizon_ms = max(self._horizon_ms, mark_ms - self._remember_ms)
        alarm = self._alarms.get((device, metric))
        # Whether what is forgotten has been swept away already must make no difference.
        if alarm is None or alarm.newest_ms < self._horizon_ms:
            if _is_clear_by_all(rules, value):
                return -1
            if len(self._alarms) >= self._swept_at:
                self._sweep()
            alarm = self._alarms[device, metric] = _Alarm(rules, time_ms)
        else:
            if time_ms <= alarm.newest_ms:
                return -1
            if alarm.rules != rules:
                held = dict(zip(alarm.rules, alarm.since, strict=True))
                alarm.since = [held.get(rule, _CLEAR) for rule in rules]
                alarm.rules = rules
            if alarm.since.count(_CLEAR) == len(rules) and _is_clear_by_all(rules, value):
                return -1
            alarm.newest_ms = time_ms
        told = -1
        since = alarm.since
        for at, rule in enumerate(rules):
            if rule.is_beyond(value):
                if since[at] == _CLEAR:
                    since[at] = time_ms
                if since[at] != _RAISED and time_ms >= since[at] + rule.for_ms:
                    since[at] = _RAISED
                    if told < 0 or rule.priority < rules[told].priority:
                        told = at
            elif since[at] != _RAISED or rule.is_clear(value):
                since[at] = _CLEAR
        return told

    def _sweep(self) -> None:
        """Drop what is forgotten."""
        self._alarms = {key: alarm for key, alarm in self._alarms.items() if alarm.newest_ms >= self._horizon_ms}
        self._swept_at = max(_SWEPT_FROM, 2 * len(self._alarms))

    def check(self) -> None:
        """Assert what holds of every entry."""
        for key, alarm in self._alarms.items():
            assert len(alarm.since) == len(alarm.rules), f"{key}: a state for each rule"
            assert len(set(alarm.rules)) == len(alarm.rules), f"{key}: no two rules alike"
            for rule, since in zip(alarm.rules, alarm.since, strict=True):
                assert rule.metric == key[1], f"{key}: judged by a rule of {rule.metric}"
                if since not in (_CLEAR, _RAISED):
                    pending_ms = alarm.newest_ms - since
                    assert 0 <= pending_ms < rule.for_ms, f"{key}: pending for {pending_ms} ms, of {rule.for_ms}"
