"""The kernels of the dedupe core, and the layout of the state that they change (:mod:`.dedupe`).

They are compiled, and call none of another module: numba's cache knows when this one has changed, and no other.  They
look at nothing twice and grow nothing: whoever calls `decide` has seen to it that categories are in range and that the
arrays have room.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numba
import numpy as np

from streams import feedback as of_feedback
from streams import reports as of_reports
from streams import witnesses as of_witnesses
from streams.messages import SOURCES, Outcome

OUTCOMES = (
    Outcome.OPENED, Outcome.JOINED, Outcome.REPEAT, Outcome.LATE, Outcome.REOPENED, Outcome.NOT_AN_EVENT,
    Outcome.AMENDED,
)  # fmt: skip
"""The number of an outcome in columns is its place here."""
OPENED, JOINED, REPEAT, LATE, REOPENED, NOT_AN_EVENT, AMENDED = range(7)
REDELIVERED = 7
"""Not an outcome: the log delivered again what was applied; counted in a metric only."""

FOUNDED, IN_WINDOW, BEFORE_ITS_END, AFTER_ITS_END, RECURRENCE = range(5)
"""How a report and its incident came together: it founded one without a past; joined one in its window, or one that has
ended but not before the report's event time; reopened one; founded one that has a past."""

# What another module means by a number.  Numba compiles a number in and goes on answering from its cache when only the
# other module has changed; so they stand here too, and must agree.
_SUSPECTED, _OPEN, _CLOSED, _REJECTED = 0, 1, 5, 6
_APPLIED, _REPEATED, _FEEDBACK_REDELIVERED, _UNKNOWN_INCIDENT, _ILLEGAL_TRANSITION = range(5)
_NO_POSITION = np.int32(-(2**31))
_UNKNOWN_ODDS = -(2**31)
assert (_SUSPECTED, _OPEN) == (of_feedback.SUSPECTED, of_feedback.OPEN)
assert (_CLOSED, _REJECTED) == (of_feedback.CLOSED, of_feedback.REJECTED)
assert (_APPLIED, _REPEATED) == (of_feedback.APPLIED, of_feedback.REPEATED)
assert _FEEDBACK_REDELIVERED == of_feedback.REDELIVERED
assert (_UNKNOWN_INCIDENT, _ILLEGAL_TRANSITION) == (of_feedback.UNKNOWN_INCIDENT, of_feedback.ILLEGAL_TRANSITION)
assert _NO_POSITION == of_reports.NO_POSITION
assert _UNKNOWN_ODDS == of_witnesses.UNKNOWN_ODDS

NEVER = np.int64(-(2**62))
RECURRENCE_MS = 366 * 86_400_000
"""How long after `reopen_s` an ended incident is remembered for what recurs at its place."""
SCALE_BITS = 24
"""Scales are centimetres per 1e-7 degree in fixed point, with so many binary places."""

INCIDENT = np.dtype(
    [
        ("key_hi", "u8"), ("key_lo", "u8"),
        ("opened_ms", "i8"), ("first_ms", "i8"), ("last_ms", "i8"), ("updated_ms", "i8"),
        ("ended_ms", "i8"),
        ("lon_e7", "i4"), ("lat_e7", "i4"), ("accuracy_cm", "i4"),
        ("category", "i4"), ("cell", "i4"), ("pack", "i4"),
        ("version", "i4"), ("report_count", "i4"), ("repeat_count", "i4"), ("by_source", "i4", (4,)),
        ("odds", "i8"), ("witness_count", "i4"),
        ("changed_in", "i4"), ("recurrence_of", "i4"), ("status", "i1"), ("superseded", "?"), ("squared", "?"),
    ]
)  # fmt: skip
"""One incident.

``ended_ms`` is the event time of the feedback that closed or rejected it, `NEVER` unless it is so.  ``odds`` are those
that it happened, by its witnesses: log-odds in thousandths.  ``changed_in`` is the number of the batch that changed it
last, negative once that was told.  ``superseded``: it has recurred.  ``squared``: it stands in the table of squares.
"""

RULE = np.dtype(
    [
        ("radius_cm", "i8"), ("accuracy_cap_cm", "i8"), ("window_ms", "i8"), ("reopen_ms", "i8"),
        ("group", "i4"), ("odds", "i4", (4,)), ("confirm_odds", "i4"), ("is_event", "?"),
    ]
)  # fmt: skip

KEY = np.dtype(
    [
        ("hi", "u8"), ("lo", "u8"), ("used", "i4"), ("incident", "i4"), ("ingested_ms", "i8"),
        ("first_offset", "i8"), ("first_index", "i4"), ("first_partition", "i4"), ("content", "u4"), ("founded", "i4"),
    ]
)  # fmt: skip
"""A report's key, where it came from first and when last, what it said last and whether it founded its incident; or a
further origin of one, under a key made of both."""

WITNESS = np.dtype([("witness", "u8"), ("heard_ms", "i8"), ("incident", "i4"), ("odds", "i4")])
"""A witness of an incident, when it was heard last, and the best odds it gave; incident -1 where the place is free."""

SQUARE = np.dtype([("tag", "u4"), ("incident", "i4"), ("lon_e7", "i4"), ("lat_e7", "i4")])
"""An incident in its square: the tag is half the square's hash, the incident -1 where the place is free."""

assert len(SOURCES) == 4, "by_source has a place for each source"

INCIDENT_COUNT, SQUARE_COUNT, KEY_COUNT, ID_COUNT, TOLD_COUNT, WITNESS_COUNT, STATUS_COUNTS = range(7)
"""Where ``used`` counts the incidents, squares, keys, ids and witnesses; the snapshots of one batch; and, from there
on, the incidents at each of `streams.feedback.STATUSES`."""

F = TypeVar("F")


def _jit(function: F) -> F:
    compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy")
    return cast(F, compiled(function))


@_jit
def advance(mark_ms: Any, drained: Any, marks: Any, clock: Any) -> None:
    """The watermark: the minimum over the source partitions not drained, else the maximum; never back."""
    low = np.int64(2**62)
    high = NEVER
    for row in range(marks):
        if mark_ms[row] > high:
            high = mark_ms[row]
        # A partition that a later report of the batch comes from has not been heard of yet.
        if not drained[row] and NEVER < mark_ms[row] < low:
            low = mark_ms[row]
    now = high if low == np.int64(2**62) else low
    if now > clock[0]:
        clock[0] = now


@_jit
def _mixed(a: Any) -> Any:
    a ^= a >> np.uint64(33)
    a *= np.uint64(0xFF51AFD7ED558CCD)
    a ^= a >> np.uint64(33)
    a *= np.uint64(0xC4CEB9FE1A85EC53)
    a ^= a >> np.uint64(33)
    return a


@_jit
def _square_hash(group: Any, column: Any, row: Any) -> Any:
    # Columns and rows may be negative (west, south); their low 24 bits suffice, for what collides is compared exactly.
    mask = np.int64(0xFFFFFF)
    packed = (np.int64(group) << 48) ^ ((np.int64(column) & mask) << 24) ^ (np.int64(row) & mask)
    return _mixed(np.uint64(packed))


@_jit
def _place_square(squares: Any, group: Any, side_lon: Any, side_lat: Any, lon: Any, lat: Any, incident: Any) -> None:
    hashed = _square_hash(group, lon // side_lon, lat // side_lat)
    mask = len(squares) - 1
    at = np.int64(hashed & np.uint64(mask))
    while squares[at].incident >= 0:
        at = (at + 1) & mask
    squares[at].tag = np.uint32(hashed >> np.uint64(32))
    squares[at].incident = incident
    squares[at].lon_e7 = lon
    squares[at].lat_e7 = lat


@_jit
def place_squares(squares: Any, held: Any, group: Any, reach_lon: Any, reach_lat: Any) -> None:
    """All the held squares into an empty table with room for them."""
    for i in range(len(held)):
        of = np.int64(group[i])
        _place_square(
            squares, of, 2 * reach_lon[of], 2 * reach_lat[of],
            np.int64(held[i].lon_e7), np.int64(held[i].lat_e7), np.int64(held[i].incident),
        )  # fmt: skip


@_jit
def _find_key(keys: Any, hi: Any, lo: Any) -> Any:
    """Where the key stands, or the free place where it would."""
    mask = len(keys) - 1
    at = np.int64(lo & np.uint64(mask))
    while keys[at].used == 1 and (keys[at].hi != hi or keys[at].lo != lo):
        at = (at + 1) & mask
    return at


@_jit
def place_keys(keys: Any, remembered: Any) -> None:
    """All the remembered keys into an empty table with room for them."""
    for i in range(len(remembered)):
        keys[_find_key(keys, remembered[i].hi, remembered[i].lo)] = remembered[i]


@_jit
def _salted(hi: Any, group: Any) -> Any:
    """A key's first half within its group: groups share a table but not each other's keys."""
    return hi ^ _mixed(np.uint64(group + 1))


@_jit
def _at_origin(hi: Any, lo: Any, partition: Any, offset: Any, index: Any) -> Any:
    """The key of what has that key and came from there."""
    salt = np.uint64(0x9E3779B97F4A7C15)
    place = (np.uint64(partition) << np.uint64(32)) ^ np.uint64(index)
    return hi ^ _mixed(np.uint64(offset) + salt), lo ^ _mixed(place + salt)


@_jit
def _apply_feedback(
    one: Any, transition: Any, at: Any, batch: Any, now: Any, remember_ms: Any, reach_lon: Any, reach_lat: Any,
    used: Any, incidents: Any, squares: Any, keys: Any, ids: Any, snapshots: Any, snapshot_at: Any,
    snapshot_incident: Any,
) -> None:  # fmt: skip
    one.incident = -1
    # Known by its origin too: what was refused must stay so when the log delivers it again, be it legal by then.
    horizon = max(now, one.ingested_ms) - remember_ms
    hi, lo = _at_origin(one.id_hi, one.id_lo, one.partition, one.offset, one.index)
    key = _find_key(keys, hi, lo)
    if keys[key].used == 1 and keys[key].ingested_ms >= horizon:
        one.result = _FEEDBACK_REDELIVERED
        return
    if keys[key].used == 0:
        used[KEY_COUNT] += 1
    _write_key(keys, key, hi, lo, -1, one.ingested_ms, one.partition, one.offset, one.index)
    if one.group < 0:
        one.result = _UNKNOWN_INCIDENT
        return
    found = _find_key(ids, _salted(one.incident_hi, one.group), one.incident_lo)
    if ids[found].used == 0:
        one.result = _UNKNOWN_INCIDENT
        return
    number = np.int64(ids[found].incident)
    one.incident = number
    one.status = incidents[number].status
    key = _find_key(keys, one.id_hi, one.id_lo)
    if keys[key].used == 1 and keys[key].ingested_ms >= horizon:
        one.result = _REPEATED
        return
    status = transition[one.status, one.action]
    if status < 0:
        one.result = _ILLEGAL_TRANSITION
        return
    one.result = _APPLIED
    used[STATUS_COUNTS + incidents[number].status] -= 1
    used[STATUS_COUNTS + status] += 1
    if keys[key].used == 0:
        used[KEY_COUNT] += 1
    _write_key(keys, key, one.id_hi, one.id_lo, number, one.ingested_ms, one.partition, one.offset, one.index)
    incidents[number].status = status
    incidents[number].ended_ms = one.time_ms if status >= _CLOSED else NEVER
    incidents[number].version += 1
    incidents[number].updated_ms = one.ingested_ms
    # Dropped long ago, and what is said of it now may make it match once more.
    _square_again(number, np.int64(one.group), reach_lon, reach_lat, used, incidents, squares)
    _tell(number, at, batch, used, incidents, snapshots, snapshot_at, snapshot_incident)


@_jit
def _square_again(
    number: Any, group: Any, reach_lon: Any, reach_lat: Any, used: Any, incidents: Any, squares: Any
) -> None:
    """Put an incident with a position into its square, unless it stands there."""
    if incidents[number].squared or incidents[number].lon_e7 == _NO_POSITION:
        return
    _place_square(
        squares, group, 2 * reach_lon[group], 2 * reach_lat[group],
        np.int64(incidents[number].lon_e7), np.int64(incidents[number].lat_e7), number,
    )  # fmt: skip
    incidents[number].squared = True
    used[SQUARE_COUNT] += 1


@_jit
def _is_doubtful(incident: Any, rules: Any) -> Any:
    """Whether what its witnesses say is too little for its category."""
    return incident.odds != _UNKNOWN_ODDS and incident.odds < rules[incident.category].confirm_odds


@_jit
def _move(number: Any, status: Any, used: Any, incidents: Any) -> None:
    used[STATUS_COUNTS + incidents[number].status] -= 1
    used[STATUS_COUNTS + status] += 1
    incidents[number].status = status


@_jit
def _confirm(number: Any, rules: Any, used: Any, incidents: Any) -> Any:
    """Whether an incident that was suspected is so no longer."""
    if incidents[number].status != _SUSPECTED or _is_doubtful(incidents[number], rules):
        return False
    _move(number, _OPEN, used, incidents)
    return True


@_jit
def _together(odds: Any, further: Any) -> Any:
    """Odds add up; of those below even, which say that it is likelier not so, the best stand for all."""
    if odds < 0 or further < 0:
        return max(odds, further)
    return odds + further


@_jit
def _find_witness(witnesses: Any, incident: Any, witness: Any) -> Any:
    """Where a witness of an incident stands, or the free place where it would."""
    mask = len(witnesses) - 1
    at = np.int64(_mixed(witness ^ _mixed(np.uint64(incident + 1))) & np.uint64(mask))
    while witnesses[at].incident >= 0 and (witnesses[at].incident != incident or witnesses[at].witness != witness):
        at = (at + 1) & mask
    return at


@_jit
def place_witnesses(witnesses: Any, remembered: Any) -> None:
    """All the remembered witnesses into an empty table with room for them."""
    for i in range(len(remembered)):
        at = _find_witness(witnesses, np.int64(remembered[i].incident), remembered[i].witness)
        witnesses[at] = remembered[i]


@_jit
def _hear_witness(
    number: Any, witness: Any, odds: Any, ingested: Any, horizon: Any, used: Any, incidents: Any, witnesses: Any
) -> None:
    """Count whoever reports, unless known, and how far he is believed; one who says more is believed for the most."""
    if witness != 0:
        at = _find_witness(witnesses, number, witness)
        if witnesses[at].incident >= 0 and witnesses[at].heard_ms >= horizon:
            witnesses[at].heard_ms = max(witnesses[at].heard_ms, ingested)
            before = np.int64(witnesses[at].odds)
            if odds > before:
                witnesses[at].odds = odds
                incidents[number].odds = (
                    incidents[number].odds + odds - before
                    if before >= 0
                    else _together(np.int64(incidents[number].odds), odds)
                )
            return
        if witnesses[at].incident < 0:
            used[WITNESS_COUNT] += 1
        witnesses[at].witness = witness
        witnesses[at].incident = number
        witnesses[at].heard_ms = ingested
        witnesses[at].odds = odds
    incidents[number].witness_count += 1
    incidents[number].odds = _together(np.int64(incidents[number].odds), odds)


@_jit
def _odds_of_report(rule: Any, source: Any, own: Any) -> Any:
    """A message may make itself less believed than its source is, never more."""
    given = np.int64(rule.odds[source])
    if given == _UNKNOWN_ODDS or own == _UNKNOWN_ODDS:
        return max(given, np.int64(own))
    return min(given, np.int64(own))


@_jit
def _amend(
    number: Any, founded: Any, kind: Any, lon: Any, lat: Any, accuracy: Any, cell: Any, pack: Any, ingested: Any,
    rules: Any, reach_lon: Any, reach_lat: Any, used: Any, incidents: Any, squares: Any,
) -> None:  # fmt: skip
    """A report says something else than it did; the one that founded its incident says what that is."""
    incidents[number].version += 1
    incidents[number].updated_ms = ingested
    if not founded:
        return
    if rules[kind].is_event:
        incidents[number].category = kind
        incidents[number].pack = pack
    if incidents[number].lon_e7 == _NO_POSITION and lon != _NO_POSITION:
        incidents[number].lon_e7 = lon
        incidents[number].lat_e7 = lat
        incidents[number].accuracy_cm = accuracy
        incidents[number].cell = cell
    # Another category has another window, so one that was dropped may match once more.
    _square_again(number, np.int64(rules[kind].group), reach_lon, reach_lat, used, incidents, squares)
    _confirm(number, rules, used, incidents)


@_jit
def _write_key(
    keys: Any, at: Any, hi: Any, lo: Any, incident: Any, ingested: Any, partition: Any, offset: Any, index: Any
) -> None:
    keys[at].used = 1
    keys[at].hi = hi
    keys[at].lo = lo
    keys[at].incident = incident
    keys[at].ingested_ms = ingested
    keys[at].first_partition = partition
    keys[at].first_offset = offset
    keys[at].first_index = index
    keys[at].content = 0
    keys[at].founded = 0


@_jit
def _tell(
    number: Any,
    at: Any,
    batch: Any,
    used: Any,
    incidents: Any,
    snapshots: Any,
    snapshot_at: Any,
    snapshot_incident: Any,
) -> None:  # fmt: skip
    told = used[TOLD_COUNT]
    incidents[number].changed_in = -batch
    snapshots[told] = incidents[number]
    snapshot_at[told] = at
    snapshot_incident[told] = number
    used[TOLD_COUNT] = told + 1


@_jit
def decide(
    count: Any,
    source: Any,
    partition: Any,
    offset: Any,
    index: Any,
    mark: Any,
    ingested: Any,
    time: Any,
    lon: Any,
    lat: Any,
    lon_scale: Any,
    lat_scale: Any,
    accuracy: Any,
    category: Any,
    cell: Any,
    key_hi: Any,
    key_lo: Any,
    content: Any,
    witness: Any,
    own_odds: Any,
    feedback: Any,
    transition: Any,
    pack: Any,
    batch: Any,
    rules: Any,
    reach_lon: Any,
    reach_lat: Any,
    lateness_ms: Any,
    remember_ms: Any,
    mark_rows: Any,
    marks: Any,
    mark_ms: Any,
    drained: Any,
    clock: Any,
    used: Any,
    incidents: Any,
    squares: Any,
    keys: Any,
    ids: Any,
    witnesses: Any,
    outcome: Any,
    assigned: Any,
    how: Any,
    judged_by: Any,
    distance_cm2: Any,
    gap_ms: Any,
    allowed_cm: Any,
    behind_ms: Any,
    runner_up: Any,
    runner_up_cm2: Any,
    runner_up_allowed: Any,
    snapshots: Any,
    snapshot_at: Any,
    snapshot_incident: Any,
) -> None:
    """Decide on each report and each feedback, in order: changes the state, fills the columns of what was decided.

    Columns and state as `streams.dedupe.Dedupe.apply` has them; scales are in `SCALE_BITS`.
    """
    half = np.int64(1) << (SCALE_BITS - 1)
    mask = len(squares) - 1
    heard = 0
    for i in range(count + 1):
        while heard < len(feedback) and (i == count or feedback[heard].before <= i):
            _apply_feedback(
                feedback[heard], transition, 2 * feedback[heard].before, batch, clock[0], remember_ms, reach_lon,
                reach_lat, used, incidents, squares, keys, ids, snapshots, snapshot_at, snapshot_incident,
            )  # fmt: skip
            heard += 1
        if i == count:
            break
        row = mark_rows[i]
        if mark[i] > mark_ms[row] or drained[row]:
            mark_ms[row] = max(mark_ms[row], mark[i])
            drained[row] = False
            advance(mark_ms, drained, marks, clock)
        now = clock[0]
        kind = np.int64(category[i])
        group = np.int64(rules[kind].group)
        behind_ms[i] = now - time[i]
        is_late = time[i] < now - lateness_ms

        # The same id again?
        hi = _salted(key_hi[i], group)
        at = _find_key(keys, hi, key_lo[i])
        known = keys[at].used == 1
        if known and keys[at].ingested_ms >= now - remember_ms:
            assigned[i] = keys[at].incident
            if (
                keys[at].first_partition == partition[i]
                and keys[at].first_offset == offset[i]
                and keys[at].first_index == index[i]
            ):
                outcome[i] = REDELIVERED
                continue
            origin_hi, origin_lo = _at_origin(hi, key_lo[i], partition[i], offset[i], index[i])
            origin_at = _find_key(keys, origin_hi, origin_lo)
            if keys[origin_at].used == 1 and keys[origin_at].ingested_ms >= now - remember_ms:
                outcome[i] = REDELIVERED
                continue
            if keys[origin_at].used == 0:
                used[KEY_COUNT] += 1
            _write_key(
                keys, origin_at, origin_hi, origin_lo, keys[at].incident, ingested[i], partition[i], offset[i], index[i]
            )
            # From its last coming on, so that whoever remembers a further origin remembers the report.
            keys[at].ingested_ms = max(keys[at].ingested_ms, ingested[i])
            amends = content[i] != 0 and keys[at].content != 0 and content[i] != keys[at].content
            if content[i] != 0:
                keys[at].content = content[i]
            if keys[at].incident >= 0:
                if amends:
                    _amend(
                        np.int64(keys[at].incident), keys[at].founded == 1, kind, lon[i], lat[i], accuracy[i], cell[i],
                        pack, ingested[i], rules, reach_lon, reach_lat, used, incidents, squares,
                    )  # fmt: skip
                    _tell(
                        np.int64(keys[at].incident), 2 * i + 1, batch, used, incidents, snapshots, snapshot_at,
                        snapshot_incident,
                    )  # fmt: skip
                else:
                    incidents[keys[at].incident].repeat_count += 1
                    incidents[keys[at].incident].changed_in = batch
            # What was about no event and is about one now is decided as if it had said so at first.
            if keys[at].incident >= 0 or not amends or not rules[kind].is_event:
                outcome[i] = AMENDED if amends else REPEAT
                continue
        else:
            if not known:
                used[KEY_COUNT] += 1
            _write_key(keys, at, hi, key_lo[i], -1, ingested[i], partition[i], offset[i], index[i])
            keys[at].content = content[i]

        if not rules[kind].is_event:
            outcome[i] = NOT_AN_EVENT
            continue

        best = np.int64(-1)
        best_cm2 = np.int64(0)
        best_how = np.int64(FOUNDED)
        runner_up_how = np.int64(FOUNDED)
        if lon[i] != _NO_POSITION:
            x = np.int64(lon[i])
            y = np.int64(lat[i])
            side_x = 2 * reach_lon[group]
            side_y = 2 * reach_lat[group]
            for column in range((x - reach_lon[group]) // side_x, (x + reach_lon[group]) // side_x + 1):
                for line in range((y - reach_lat[group]) // side_y, (y + reach_lat[group]) // side_y + 1):
                    hashed = _square_hash(group, column, line)
                    tag = np.uint32(hashed >> np.uint64(32))
                    slot = np.int64(hashed & np.uint64(mask))
                    while squares[slot].incident >= 0:
                        if squares[slot].tag == tag:
                            dx = ((np.int64(squares[slot].lon_e7) - x) * lon_scale[i] + half) >> SCALE_BITS
                            dy = ((np.int64(squares[slot].lat_e7) - y) * lat_scale[i] + half) >> SCALE_BITS
                            cm2 = dx * dx + dy * dy
                            other = np.int64(squares[slot].incident)
                            of = rules[incidents[other].category]
                            reach = of.radius_cm + min(np.int64(accuracy[i]), of.accuracy_cap_cm)
                            # Two squares may share a hash, and then come upon the same incident twice.
                            if cm2 <= reach * reach and of.group == group and other != best:
                                this = _how(incidents[other], of, time[i], now - lateness_ms)
                                if this == FOUNDED:
                                    pass
                                elif best < 0 or _comes_before(incidents, this, cm2, other, best_how, best_cm2, best):
                                    if best >= 0 and best_how < RECURRENCE:
                                        runner_up[i] = best
                                        runner_up_cm2[i] = best_cm2
                                        runner_up_allowed[i] = allowed_cm[i]
                                        runner_up_how = best_how
                                    best = other
                                    best_cm2 = cm2
                                    best_how = this
                                    allowed_cm[i] = reach
                                elif this < RECURRENCE and (
                                    runner_up[i] < 0
                                    or _comes_before(
                                        incidents, this, cm2, other, runner_up_how, runner_up_cm2[i],
                                        np.int64(runner_up[i]),
                                    )
                                ):  # fmt: skip
                                    runner_up[i] = other
                                    runner_up_cm2[i] = cm2
                                    runner_up_allowed[i] = reach
                                    runner_up_how = this
                        slot = (slot + 1) & mask

        is_told = False
        may_doubt = False
        if best >= 0 and best_how < RECURRENCE:
            how[i] = best_how
            distance_cm2[i] = best_cm2
            gap_ms[i] = abs(time[i] - incidents[best].last_ms)
            outcome[i] = JOINED
            if best_how == AFTER_ITS_END:
                outcome[i] = REOPENED
                is_told = True
                # What was rejected because one camera errs is not believed because it errs again.
                may_doubt = incidents[best].status == _REJECTED
                _move(best, _OPEN, used, incidents)
                incidents[best].ended_ms = NEVER
        else:
            outcome[i] = OPENED
            past = best
            best = used[INCIDENT_COUNT]
            used[INCIDENT_COUNT] += 1
            used[STATUS_COUNTS + _OPEN] += 1
            # The same report after its id was forgotten founds another incident, which needs an id of its own.
            lo = key_lo[i]
            id_at = _find_key(ids, hi, lo)
            while ids[id_at].used == 1:
                lo = _mixed(lo + np.uint64(1))
                id_at = _find_key(ids, hi, lo)
            _write_key(ids, id_at, hi, lo, best, np.int64(0), 0, np.int64(0), 0)
            used[ID_COUNT] += 1
            may_doubt = True
            keys[at].founded = 1
            incidents[best].status = _OPEN
            incidents[best].odds = _UNKNOWN_ODDS
            incidents[best].key_hi = key_hi[i]
            incidents[best].key_lo = lo
            incidents[best].opened_ms = time[i]
            incidents[best].first_ms = time[i]
            incidents[best].last_ms = time[i]
            incidents[best].ended_ms = NEVER
            incidents[best].lon_e7 = lon[i]
            incidents[best].lat_e7 = lat[i]
            incidents[best].accuracy_cm = accuracy[i]
            incidents[best].category = category[i]
            incidents[best].cell = cell[i]
            incidents[best].pack = pack
            incidents[best].recurrence_of = past
            allowed_cm[i] = rules[kind].radius_cm + min(np.int64(accuracy[i]), rules[kind].accuracy_cap_cm)
            if past >= 0:
                how[i] = RECURRENCE
                incidents[past].superseded = True
            if lon[i] != _NO_POSITION:
                _place_square(
                    squares, group, 2 * reach_lon[group], 2 * reach_lat[group], np.int64(lon[i]), np.int64(lat[i]), best
                )
                incidents[best].squared = True
                used[SQUARE_COUNT] += 1
        if is_late:
            outcome[i] = LATE
        keys[at].incident = best
        assigned[i] = best
        judged_by[i] = incidents[best].category
        is_told |= incidents[best].by_source[source[i]] == 0  # an opening, or a further source
        incidents[best].by_source[source[i]] += 1
        incidents[best].report_count += 1
        incidents[best].version += 1
        incidents[best].changed_in = batch
        incidents[best].first_ms = min(incidents[best].first_ms, time[i])
        incidents[best].last_ms = max(incidents[best].last_ms, time[i])
        incidents[best].updated_ms = ingested[i]
        _hear_witness(
            best, witness[i], _odds_of_report(rules[kind], source[i], own_odds[i]), ingested[i], now - remember_ms,
            used, incidents, witnesses,
        )  # fmt: skip
        if may_doubt and _is_doubtful(incidents[best], rules):
            _move(best, _SUSPECTED, used, incidents)
        is_told |= _confirm(best, rules, used, incidents)
        if is_told:
            _tell(best, 2 * i + 1, batch, used, incidents, snapshots, snapshot_at, snapshot_incident)

    # The last state of whatever changed, unless just that was told already.
    for i in range(count - 1, -1, -1):
        if assigned[i] >= 0 and incidents[assigned[i]].changed_in == batch and outcome[i] != REDELIVERED:
            _tell(np.int64(assigned[i]), 2 * i + 1, batch, used, incidents, snapshots, snapshot_at, snapshot_incident)


@_jit
def _how(incident: Any, rule: Any, time: Any, held_from: Any) -> Any:
    """How a report of that event time, near the incident, comes together with it; `FOUNDED` if not at all."""
    window_end = incident.last_ms + rule.window_ms
    has_ended = incident.ended_ms != NEVER
    if has_ended and time > incident.ended_ms:
        until = incident.ended_ms + rule.reopen_ms
        if incident.superseded or until + RECURRENCE_MS < max(time, held_from):
            return FOUNDED
        return AFTER_ITS_END if time <= until else RECURRENCE
    # What has ended is held to its end, if that comes after its window's, unless its successor stands for it then.
    held_until = max(window_end, incident.ended_ms) if not incident.superseded else window_end
    if incident.last_ms - rule.window_ms <= time <= held_until and held_until >= held_from:
        return BEFORE_ITS_END if has_ended else IN_WINDOW
    until = window_end + rule.reopen_ms
    if has_ended or incident.superseded or not window_end < time <= until or until < held_from:
        return FOUNDED
    return RECURRENCE


@_jit
def _comes_before(incidents: Any, how: Any, cm2: Any, one: Any, other_how: Any, other_cm2: Any, other: Any) -> Any:
    """To be joined or reopened before to recur; then nearest first, then the smaller (opened_at, id)."""
    if max(how, AFTER_ITS_END) != max(other_how, AFTER_ITS_END):
        return how < other_how
    if cm2 != other_cm2:
        return cm2 < other_cm2
    if incidents[one].opened_ms != incidents[other].opened_ms:
        return incidents[one].opened_ms < incidents[other].opened_ms
    if incidents[one].key_hi != incidents[other].key_hi:
        return incidents[one].key_hi < incidents[other].key_hi
    return incidents[one].key_lo < incidents[other].key_lo
