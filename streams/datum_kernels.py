"""The kernels of the datum guard, and the layout of the state that they change (:mod:`.datum_guard`).

They are compiled, and call none of another module: numba's cache knows when this one has changed, and no other.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numba
import numpy as np

NEAR_DM = 1_200
"""Two reports of one event lie no further apart than this, decimetres, or are not taken for such."""
CLOSE_MS = 2 * 3_600_000
"""Nor do their event times."""
VAGUE_CM = 20_000
"""A position that is stated to be less accurate than this, centimetres, says nothing here."""
SQUARE_DM = 5_000
"""Reports of one square of this width, decimetres, are few witnesses, however many they are."""
MOST_OF_SQUARE = 4
"""So many of them count for one datum."""

VIEWS = 7
"""Places where a report may truly lie: as declared, as each of the two other datums has it, and for each of these two
beside where it would have it, as far away in another direction: what is found there is found by chance."""
REMEMBERED = 1 << 15
"""Reports remembered."""
BUCKETS = 1 << 16
EVIDENCE = 256
"""Reports of a sender that something lay near in one view or another: the newest count."""
MOST_SENDERS = 62
"""Senders told apart; each has a bit of the masks."""
PAUSE_MS = 300_000
"""A sender's reports are held against others' no more often than this: what a busy one says in a day is enough."""
LOOK_EVERY = 8
"""So many reports of a sender with evidence, and it is looked at whether it is as it says."""
ENOUGH = 8
"""Fewer reports than this say nothing."""
_LONGEST_CHAIN = 48

REPORT = np.dtype(
    [
        ("time_ms", "i8"), ("arrived_ms", "i8"), ("next", "i8"), ("x_dm", "i4"), ("y_dm", "i4"), ("place", "i4"),
        ("group", "i4"), ("sender", "i2"), ("source", "i1"), ("datum", "i1"), ("tried", "?"),
    ]
)  # fmt: skip
"""A report remembered: where it is as declared, in which place of the lattice of shifts, and its declared datum, -1
where it does not place itself.  ``next`` is the number of the one before it in its bucket."""

FIRST, END, NOW, DUE = range(4)
"""In ``clock``: the number of the first report not tried yet, that of the next one, the newest ingestion time, and from
when on the findings must be looked at again."""
NOBODY = -1
"""In place of a sender: nothing needs to be looked at."""
IT_IS_TIME = -2
"""The findings are ``DUE``."""

PLACES_ITSELF_BELOW = 3
"""From here on ``placed_by`` is no datum: the sender says nothing of the place itself."""

F = TypeVar("F")


def _jit(function: F) -> F:
    compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy")
    return cast(F, compiled(function))


@_jit
def _bucket(column: Any, row: Any, group: Any) -> Any:
    a = np.uint64(column) * np.uint64(0x9E3779B97F4A7C15)
    a ^= np.uint64(row) * np.uint64(0xC2B2AE3D27D4EB4F)
    a ^= np.uint64(group) * np.uint64(0x165667B19E3779F9)
    a ^= a >> np.uint64(29)
    a *= np.uint64(0xFF51AFD7ED558CCD)
    a ^= a >> np.uint64(32)
    return np.int64(a & np.uint64(BUCKETS - 1))


@_jit
def _senders_near(x: Any, y: Any, number: Any, reports: Any, heads: Any, end: Any, is_own: Any) -> Any:
    """Mask of the other sources' senders that have a report like this one near a point and its time.

    -1 at its own place if its sender has had one tried there: one event is one witness.
    """
    one = reports[number % REMEMBERED]
    side = 2 * NEAR_DM
    mask = np.int64(0)
    for column in range((x - NEAR_DM) // side, (x + NEAR_DM) // side + 1):
        for row in range((y - NEAR_DM) // side, (y + NEAR_DM) // side + 1):
            other = heads[_bucket(column, row, one.group)]
            for _ in range(_LONGEST_CHAIN):
                if other < 0 or other < end - REMEMBERED:
                    break
                it = reports[other % REMEMBERED]
                if it.group == one.group and abs(it.time_ms - one.time_ms) <= CLOSE_MS:
                    east, north = np.int64(it.x_dm) - x, np.int64(it.y_dm) - y
                    if east * east + north * north <= NEAR_DM * NEAR_DM:
                        if it.source != one.source:
                            mask |= np.int64(1) << it.sender
                        elif is_own and it.sender == one.sender and it.tried:
                            return np.int64(-1)
                other = it.next
    return mask


@_jit
def _try(
    number: Any,
    reports: Any,
    heads: Any,
    clock: Any,
    shifts: Any,
    masks: Any,
    squares: Any,
    counts: Any,
    heard_ms: Any,
    tried_ms: Any,
) -> Any:
    """Look who is near a report in each of its views; its sender if that is to be looked at, else `NOBODY`."""
    one = reports[number % REMEMBERED]
    sender = np.int64(one.sender)
    if one.datum >= 0:
        heard_ms[sender] = clock[NOW]
    if one.datum < 0 or 0 <= one.arrived_ms - tried_ms[sender] < PAUSE_MS:
        return NOBODY
    x, y = np.int64(one.x_dm), np.int64(one.y_dm)
    end = clock[END]
    as_declared = _senders_near(x, y, number, reports, heads, end, True)
    if as_declared < 0:
        return NOBODY
    one.tried = True
    tried_ms[sender] = one.arrived_ms
    at = counts[sender] % EVIDENCE
    any_near = as_declared
    masks[sender, at, 0] = as_declared
    for view in range(1, VIEWS):
        near = np.int64(0)
        east, north = shifts[one.place, one.datum, view, 0], shifts[one.place, one.datum, view, 1]
        if east != 0 or north != 0:
            near = _senders_near(x + east, y + north, number, reports, heads, end, False)
        masks[sender, at, view] = near
        any_near |= near
    if any_near == 0:
        return NOBODY
    squares[sender, at] = (x // SQUARE_DM) * 100_003 + y // SQUARE_DM
    counts[sender] += 1
    return sender if counts[sender] % LOOK_EVERY == 0 else NOBODY


@_jit
def count_views(sender: Any, excluded: Any, masks: Any, squares: Any, counts: Any, into: Any) -> None:
    """How many of a sender's reports have others near in each view (0 to 6), and how many have in the first or second
    other datum's view but not as declared (7, 8), or the other way about (9, 10).

    Those of senders in ``excluded`` are no witnesses, and of one square at most `MOST_OF_SQUARE` reports are.
    """
    into[:] = 0
    held = min(counts[sender], EVIDENCE)
    places = np.full(2 * EVIDENCE, np.int64(-(2**62)))
    of_place = np.zeros((2 * EVIDENCE, 11), np.int8)
    for back in range(held):
        # Newest first, for what a sender did before it was put right counts least.
        at = (counts[sender] - 1 - back) % EVIDENCE
        square = squares[sender, at]
        slot = (square * 31) % (2 * EVIDENCE)
        while places[slot] != square and places[slot] != -(2**62):
            slot = (slot + 1) % (2 * EVIDENCE)
        places[slot] = square
        declared = (masks[sender, at, 0] & ~excluded) != 0
        for kind in range(11):
            if kind < VIEWS:
                holds = (masks[sender, at, kind] & ~excluded) != 0
            else:
                other = (masks[sender, at, (kind - VIEWS) % 2 + 1] & ~excluded) != 0
                holds = (other and not declared) if kind < VIEWS + 2 else (declared and not other)
            if holds and of_place[slot, kind] < MOST_OF_SQUARE:
                of_place[slot, kind] += 1
                into[kind] += 1


@_jit
def take_reports(
    start: Any,
    end: Any,
    layout: Any,
    scale: Any,
    reports: Any,
    heads: Any,
    clock: Any,
    shifts: Any,
    masks: Any,
    squares: Any,
    counts: Any,
    heard_ms: Any,
    tried_ms: Any,
    named: Any,
    wait_ms: Any,
    rows: Any,
    source: Any,
    sender: Any,
    placed_by: Any,
    group: Any,
    lon_e7: Any,
    lat_e7: Any,
    accuracy_cm: Any,
    time_ms: Any,
    arrived_ms: Any,
) -> tuple[Any, Any]:
    """Remember the reports ``rows[start:end]``, and try those that have waited for others long enough.

    ``sender`` and ``placed_by`` are by place in ``rows``, the other columns by row.  ``layout`` and ``scale`` are those
    of `streams.datum_guard.DatumGround`.  Returns how far it came, and the sender that needs to be looked at,
    `IT_IS_TIME`, or `NOBODY` when all are taken.
    """
    into = np.zeros(11, np.int64)
    side = 2 * NEAR_DM
    for at in range(start, end):
        row = rows[at]
        if sender[at] < 0 or group[row] < 0 or accuracy_cm[row] > VAGUE_CM:
            continue
        clock[NOW] = max(clock[NOW], arrived_ms[row])
        while clock[FIRST] < clock[END]:
            first = clock[FIRST]
            waited = clock[NOW] - reports[first % REMEMBERED].arrived_ms >= wait_ms
            if not waited and clock[END] - first < REMEMBERED - 1:
                break
            clock[FIRST] += 1
            who = _try(first, reports, heads, clock, shifts, masks, squares, counts, heard_ms, tried_ms)
            if who != NOBODY:
                if named[who]:
                    return at, who
                count_views(who, np.int64(0), masks, squares, counts, into)
                for other in range(2):
                    if into[VIEWS + other] >= ENOUGH and into[VIEWS + other] > into[VIEWS + 2 + other]:
                        return at, who
        if clock[NOW] >= clock[DUE]:
            return at, np.int64(IT_IS_TIME)
        number = clock[END]
        kept = reports[number % REMEMBERED]
        east_e7, north_e7 = np.int64(lon_e7[row]) - layout[0], np.int64(lat_e7[row]) - layout[1]
        x, y = np.int64(np.rint(east_e7 * scale[0])), np.int64(np.rint(north_e7 * scale[1]))
        kept.x_dm, kept.y_dm = x, y
        column = min(max(east_e7 // layout[2], np.int64(0)), layout[3] - 1)
        line = min(max(north_e7 // layout[2], np.int64(0)), layout[4] - 1)
        kept.place = line * layout[3] + column
        kept.time_ms, kept.arrived_ms, kept.group = time_ms[row], arrived_ms[row], group[row]
        kept.sender, kept.source = sender[at], source[row]
        kept.datum = placed_by[at] if placed_by[at] < PLACES_ITSELF_BELOW else -1
        kept.tried = False
        bucket = _bucket(x // side, y // side, group[row])
        kept.next = heads[bucket]
        heads[bucket] = number
        clock[END] += 1
    return end, np.int64(NOBODY)
