"""Which simulated readings are reports, by the words of the contract alone.

Written a second time and plainly, so that the truth of a simulation does not rest on the code that it is to judge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from streams.pack_entries import Rule


@dataclass(slots=True)
class _Watch:
    """One rule on one device."""

    beyond_since_ms: int | None = None
    is_raised: bool = False


class RuleBook:
    """Reads every sensor's readings as they arrive, and says which completes a rule."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules_of: defaultdict[str, list[Rule]] = defaultdict(list)
        for rule in rules:
            self._rules_of[rule.metric].append(rule)
        self._watches: dict[tuple[str, str], list[_Watch]] = {}
        self._newest_ms: dict[tuple[str, str], int] = {}

    def completed(self, device: str, metric: str, value: float, time_ms: int) -> Rule | None:
        """The rule of which this reading makes a report, or None.

        A reading counts unless it is no newer than one that counted; one that finds all clear and leaves it so does
        not.  A rule is raised by a reading beyond its bound when all since another one, ``for_s`` before it, were; and
        until one is back at ``clear`` it raises no other report.  Of several the highest priority, then the first.
        """
        rules = self._rules_of.get(metric)
        if not rules:
            return None
        watches = self._watches.setdefault((device, metric), [_Watch() for _ in rules])
        newest_ms = self._newest_ms.get((device, metric))
        if newest_ms is not None and time_ms <= newest_ms:
            return None
        idle = all(not watch.is_raised and watch.beyond_since_ms is None for watch in watches)
        if idle and all(_is_clear(rule, value) for rule in rules):
            return None
        self._newest_ms[device, metric] = time_ms
        completed: list[Rule] = []
        for rule, watch in zip(rules, watches, strict=True):
            if _is_beyond(rule, value):
                if watch.beyond_since_ms is None:
                    watch.beyond_since_ms = time_ms
                if not watch.is_raised and time_ms - watch.beyond_since_ms >= rule.for_s * 1000:
                    watch.is_raised = True
                    completed.append(rule)
            else:
                watch.beyond_since_ms = None
                if _is_clear(rule, value):
                    watch.is_raised = False
        return min(completed, key=lambda rule: rule.priority, default=None)


def _is_beyond(rule: Rule, value: float) -> bool:
    return (rule.above is not None and value > rule.above) or (rule.below is not None and value < rule.below)


def _is_clear(rule: Rule, value: float) -> bool:
    if rule.above is not None:
        return value <= (rule.above if rule.clear is None else rule.clear)
    assert rule.below is not None
    return value >= (rule.below if rule.clear is None else rule.clear)
