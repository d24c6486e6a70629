"""Copies: what one device says through two platforms counts once."""

from __future__ import annotations

import numpy as np

from streams.reports import LocatedReports
from streams.terms import Terms

_PRUNED_FROM = 100_000


class DeviceCopies:
    """Recognises a report of the same device, category and second that came through another platform.

    Such a copy takes the key of the report that came first, and so is a repeat of it.  A second, for one platform may
    say milliseconds where the other has none.  Of a judged reading the metric is the same too.  Bounded by the reports
    of devices no older than ``remember_ms`` before the newest mark.  The mark and not the newest event time, for one
    clock that is years ahead must not make all other devices' reports too old to be known again.
    """

    def __init__(self, remember_ms: int) -> None:
        self._remember_ms = remember_ms
        self._first: dict[tuple[int, str, str, str, int], tuple[str, int, int]] = {}
        self._horizon_ms = -(2**62)
        self._prune_at = _PRUNED_FROM

    def __len__(self) -> int:
        """Reports remembered."""
        return len(self._first)

    def unify(self, reports: LocatedReports, terms: Terms) -> None:
        """Give copies the key of the first, in place."""
        rows = np.flatnonzero(reports.device.astype(np.bool_))
        if not len(rows):
            return
        key_hi, key_lo, content = reports.key_hi.copy(), reports.key_lo.copy(), reports.content.copy()
        columns = (
            reports.source, reports.device, reports.reading, reports.category, reports.time_ms, reports.mark_ms,
            reports.platform, key_hi, key_lo,
        )  # fmt: skip
        for row, source, device, reading, category, time_ms, mark_ms, platform, hi, lo in zip(
            rows.tolist(), *(column[rows].tolist() for column in columns), strict=True
        ):
            self._horizon_ms = max(self._horizon_ms, mark_ms - self._remember_ms)
            if time_ms < self._horizon_ms:
                continue  # forgotten or about to be
            metric = reading.metric if reading else ""
            said = (source, device, metric, terms.categories[category].code, time_ms // 1000)
            first = self._first.setdefault(said, (platform, hi, lo))
            # One platform that says the same twice under two ids means two things.
            if first[0] != platform:
                key_hi[row], key_lo[row] = first[1:]
                content[row] = 0  # says the same its own way, and amends nothing
        reports.key_hi, reports.key_lo, reports.content = key_hi, key_lo, content
        if len(self._first) > self._prune_at:
            horizon_s = self._horizon_ms // 1000
            self._first = {said: first for said, first in self._first.items() if said[-1] >= horizon_s}
            self._prune_at = max(_PRUNED_FROM, 2 * len(self._first))
