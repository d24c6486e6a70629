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
    of devices within ``remember_ms`` of the newest.
    """

    def __init__(self, remember_ms: int) -> None:
        self._remember_ms = remember_ms
        self._first: dict[tuple[int, str, str, str, int], tuple[str, int, int]] = {}
        self._newest_ms = 0
        self._prune_at = _PRUNED_FROM

    def unify(self, reports: LocatedReports, terms: Terms) -> None:
        """Give copies the key of the first, in place."""
        rows = np.flatnonzero(reports.device.astype(np.bool_))
        if not len(rows):
            return
        key_hi, key_lo = reports.key_hi.copy(), reports.key_lo.copy()
        for row in rows.tolist():
            time_ms = int(reports.time_ms[row])
            self._newest_ms = max(self._newest_ms, time_ms)
            if time_ms < self._newest_ms - self._remember_ms:
                continue  # forgotten or about to be
            reading = reports.reading[row]
            said = (
                int(reports.source[row]),
                reports.device[row],
                reading.metric if reading else "",
                terms.categories[reports.category[row]].code,
                time_ms // 1000,
            )
            own = (reports.platform[row], int(key_hi[row]), int(key_lo[row]))
            first = self._first.setdefault(said, own)
            # One platform that says the same twice under two ids means two things.
            if first[0] != own[0]:
                key_hi[row], key_lo[row] = first[1:]
        reports.key_hi, reports.key_lo = key_hi, key_lo
        if len(self._first) > self._prune_at:
            horizon_s = (self._newest_ms - self._remember_ms) // 1000
            self._first = {said: first for said, first in self._first.items() if said[-1] >= horizon_s}
            self._prune_at = max(_PRUNED_FROM, 2 * len(self._first))
