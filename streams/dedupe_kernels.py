"""The kernels of the dedupe core, and the layout of the state that they change (:mod:`.dedupe`).

They are compiled, and call none of another module: numba's cache knows when this one has changed, and no other.  They
look at nothing twice and grow nothing: whoever calls `decide` has seen to it that categories are in range and that the
arrays have room.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar, cast

import numba
import numpy as np

from streams import feedback as of_feedback
from streams import reports as of_reports
from streams import witnesses as of_witnesses
from streams.messages import SAME_PLACES, SCORE_TERMS, SOURCES, Outcome

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

PLACES = 3
"""The keys by which two reports may be known to speak of one place: device, asset, address."""
_ASSET = 1
KEPT_SIGNATURES = 2
"""Texts of an incident that a report's is compared with: of the first reports that had one."""

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
        ("odds", "i8"), ("witness_count", "i4"), ("doubt", "i4"), ("sure", "i4"),
        ("changed_in", "i4"), ("recurrence_of", "i4"), ("merged_into", "i4"),
        ("status", "i1"), ("superseded", "?"), ("squared", "?"),
        ("source", "i1"), ("signatures", "i1"), ("loose", "i4"), ("firm_first_ms", "i8"), ("firm_last_ms", "i8"),
        ("places", "u8", (PLACES,)), ("marked", "?"),
    ]
)  # fmt: skip
"""One incident.

``lon_e7``, ``lat_e7`` and ``accuracy_cm`` are those of its anchor: the founding report, or a report at most half as
vague that joined it.  ``source`` is that of the founding report, ``signatures`` the number of texts kept, ``loose`` the
last of its loose reports, -1 for none; ``firm_first_ms`` and ``firm_last_ms`` are the times of all the others.
``places`` are the first device, asset and address that it got; with ``marked`` it has more, in a table.
``ended_ms`` is the event time of the feedback that closed or rejected it, `NEVER` unless it is so.  ``odds`` are those
that it happened, by its witnesses: log-odds in thousandths, the sum of what ``sure`` of them gave it that is not below
even, or the best of what is, ``doubt``.  ``changed_in`` is the number of the batch that changed it last, negative once
that was told.  ``superseded``: it has recurred.  ``merged_into``: the number of the incident that goes on in its place,
-1 for none.
``squared``: it stands in the table of squares.
"""

RULE = np.dtype(
    [
        ("radius_cm", "i8"), ("accuracy_cap_cm", "i8"), ("window_ms", "i8"), ("reopen_ms", "i8"),
        ("same_place_cm", "i8"), ("same_window_ms", "i8"), ("spread_cm2", "i8"), ("decay_ms", "i8"),
        ("same_decay_ms", "i8"), ("rethink_ms", "i8"),
        ("base", "i4"), ("prior", "i4"), ("same_place", "i4"), ("text_percent", "i4"), ("busy_percent", "i4"),
        ("rival_percent", "i4"), ("gap_percent", "i4"), ("rhythm_percent", "i4"), ("rethink", "i4"),
        ("sigmas", "i4"), ("reopening", "i4"), ("pairs", "i4", (16,)), ("again", "i4", (4,)), ("group", "i4"),
        ("odds", "i4", (4,)), ("confirm_odds", "i4"), ("is_event", "?"), ("any_score", "?"),
    ]
)  # fmt: skip
"""What a category's terms say (`streams.terms.MatchTerms`)."""

MARK = np.dtype([("hash", "u8"), ("incident", "i4")])
"""A device, asset or address and an incident that has it; or, without the incident in the hash, an asset."""

LOOSE = np.dtype(
    [
        ("incident", "i4"), ("next", "i4"), ("time_ms", "i8"), ("ingested_ms", "i8"),
        ("lon_e7", "i4"), ("lat_e7", "i4"), ("accuracy_cm", "i4"), ("category", "i4"), ("cell", "i4"),
        ("score", "i4"), ("source", "i1"), ("key_hi", "u8"), ("key_lo", "u8"), ("places", "u8", (PLACES,)),
        ("until_ms", "i8"), ("witness", "u8"), ("odds", "i4"),
    ]
)  # fmt: skip
"""A report that joined by nearness alone, for second thoughts until the watermark passes ``until_ms``.

``next`` is the one before it of its incident, or of the free ones, -1 for none; ``incident`` is -1 where it is free.
``score`` is what it joined with, but for the text."""

CORRECTION = np.dtype(
    [
        ("row", "i8"), ("loose_at", "i4"), ("left", "i4"), ("joined", "i4"), ("score", "i4"), ("left_score", "i4"),
        ("cm2", "i8"), ("gap_ms", "i8"), ("allowed_cm", "i8"), ("same", "i1"), ("terms", "i4", (11,)),
    ]
)  # fmt: skip
"""A second thought: the row of the report that led to it, the place of the loose one, and its old and new incident."""

KEY = np.dtype(
    [
        ("hi", "u8"), ("lo", "u8"), ("used", "i4"), ("incident", "i4"), ("ingested_ms", "i8"),
        ("first_offset", "i8"), ("first_index", "i4"), ("first_partition", "i4"), ("content", "u4"), ("founded", "i4"),
    ]
)  # fmt: skip
"""A report's key, where it came from first and when last, what it said last and whether it founded its incident; or a
further origin of one, under a key made of both."""

WITNESS = np.dtype([("witness", "u8"), ("heard_ms", "i8"), ("incident", "i4"), ("odds", "i4"), ("reports", "i4")])
"""A witness of an incident, when it was heard last, and the best odds it gave; incident -1 where the place is free."""

SQUARE = np.dtype([("tag", "u4"), ("incident", "i4"), ("lon_e7", "i4"), ("lat_e7", "i4")])
"""An incident in its square: the tag is half the square's hash, the incident -1 where the place is free."""

assert len(SOURCES) == 4, "by_source has a place for each source"

(
    INCIDENT_COUNT, SQUARE_COUNT, KEY_COUNT, ID_COUNT, TOLD_COUNT, MARK_COUNT, ASSET_COUNT, LOOSE_COUNT, FREE_LOOSE,
    CORRECTED_COUNT, WITNESS_COUNT, WAITING_COUNT, STATUS_COUNTS,
) = range(13)  # fmt: skip
"""Where ``used`` counts the incidents, squares, keys and ids; the snapshots of one batch; the marks, the assets and the
places for loose reports ever used; has the first free one of these, -1 for none; counts the corrections of one batch,
the witnesses and the loose reports; and, from there on, the incidents at each of `streams.feedback.STATUSES`."""

TERMS = ("nearness", "distance", "gap", "category", "sources", "same_place", "text", "again", "prior", "busy", "rival")
"""What a score is made of, in hundredths of a power of ten."""
_NEARNESS, _DISTANCE, _GAP, _CATEGORY, _SOURCES, _SAME_PLACE, _TEXT, _AGAIN, _PRIOR, _BUSY, _RIVAL = range(11)
assert TERMS == SCORE_TERMS

NOT_THE_SAME, SAME_SPOT, SAME_DEVICE, SAME_ASSET, SAME_ADDRESS = range(5)
assert SAME_PLACES == ("spot", "device", "asset", "address")
"""What tells that two reports speak of one place."""

_LOG_TABLE = np.array([round(100_000 * math.log10(number)) for number in range(128, 256)], np.int64)
"""Logarithms of 128 to 255 in thousandths of a point."""
_FURTHER = np.int64(9)
"""No more reports than these beyond the first tell that an incident's have come to an end."""
_RIVAL_LOW, _RIVAL_HIGH = -300, 600
_RIVAL_TABLE = np.array(
    [round(100 * math.log10(1 + 10 ** (points / 100))) for points in range(_RIVAL_LOW, _RIVAL_HIGH + 1)], np.int64
)

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
def log_points(number: Any) -> Any:
    """100 · log10 of a positive whole number, rounded down from its eight first bits; the same on every machine."""
    first = np.int64(number)
    exponent = np.int64(0)
    while first > 255:
        first >>= 1
        exponent += 1
    while first < 128:
        first <<= 1
        exponent -= 1
    return (_LOG_TABLE[first - 128] + exponent * 30_103) // 1000


@_jit
def rival_points(points: Any) -> Any:
    """What a rival of that score takes from the best: 100 · log10(1 + 10^(points / 100)), negative."""
    if points < _RIVAL_LOW:
        return np.int64(0)
    if points > _RIVAL_HIGH:
        return -np.int64(points)
    return -_RIVAL_TABLE[points - _RIVAL_LOW]


@_jit
def distance_points(cm2: Any, variance: Any) -> Any:
    """100 · log10 exp(-d² / 2σ²), rounded towards zero; cm² each."""
    return -((cm2 * 21_715) // (variance * 1000))


@_jit
def _ones(word: Any) -> Any:
    """How many bits are set."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@_jit
def _differing_bits(one: Any, other: Any) -> Any:
    count = np.int64(0)
    for word in range(len(one)):
        count += _ones(one[word] ^ other[word])
    return count


@_jit
def _has_text(signature: Any) -> Any:
    seen = np.uint64(0)
    for word in signature:
        seen |= word
    return seen != 0


@_jit
def _mark_hash(place: Any, kind: Any, incident: Any) -> Any:
    return _mixed(place ^ _mixed(np.uint64(incident) * np.uint64(2 * PLACES) + np.uint64(kind)))


@_jit
def _is_marked(marks: Any, hashed: Any, incident: Any) -> Any:
    mask = len(marks) - 1
    at = np.int64(hashed & np.uint64(mask))
    while marks[at].incident >= 0:
        if marks[at].hash == hashed and marks[at].incident == incident:
            return True
        at = (at + 1) & mask
    return False


@_jit
def _place_mark(marks: Any, hashed: Any, incident: Any) -> None:
    mask = len(marks) - 1
    at = np.int64(hashed & np.uint64(mask))
    while marks[at].incident >= 0:
        at = (at + 1) & mask
    marks[at].hash = hashed
    marks[at].incident = incident


@_jit
def place_marks(marks: Any, held: Any) -> None:
    """All the held marks into an empty table with room for them."""
    for i in range(len(held)):
        _place_mark(marks, held[i].hash, held[i].incident)


@_jit
def _asset_hash(asset: Any, group: Any) -> Any:
    return _mixed(asset ^ _mixed(np.uint64(group) * np.uint64(2 * PLACES) + np.uint64(PLACES)))


@_jit
def _mark_places(places: Any, group: Any, number: Any, used: Any, incidents: Any, marks: Any, assets: Any) -> None:
    """Remember which device, asset and address an incident has."""
    for kind in range(PLACES):
        place = places[kind]
        if place == 0 or incidents[number].places[kind] == place:
            continue
        if incidents[number].places[kind] == 0:
            incidents[number].places[kind] = place
        else:
            hashed = _mark_hash(place, kind, number)
            if _is_marked(marks, hashed, number):
                continue
            _place_mark(marks, hashed, number)
            used[MARK_COUNT] += 1
            incidents[number].marked = True
        if kind == _ASSET:
            _place_mark(assets, _asset_hash(place, group), number)
            used[ASSET_COUNT] += 1


@_jit
def _same_place(cm2: Any, same_place_cm: Any, places: Any, number: Any, incidents: Any, marks: Any) -> Any:
    """Which of `SAME_ASSET` … tells that the report is at the incident's place; the surest first."""
    for kind in (1, 0, 2):
        place = places[kind]
        if place != 0 and (
            incidents[number].places[kind] == place
            or (incidents[number].marked and _is_marked(marks, _mark_hash(place, kind, number), number))
        ):
            return SAME_ASSET if kind == 1 else SAME_DEVICE if kind == 0 else SAME_ADDRESS
    return SAME_SPOT if cm2 <= same_place_cm * same_place_cm else NOT_THE_SAME


@_jit
def _score(
    rule: Any, is_same: Any, cm2: Any, accuracy: Any, other_accuracy: Any, gap: Any, span: Any, further: Any,
    source: Any, other_source: Any, category_points: Any, text: Any, is_again: Any, terms: Any,
) -> Any:  # fmt: skip
    """Sum of the terms between a report and one incident, which are left in ``terms``."""
    variance = np.int64(accuracy) * np.int64(accuracy) + np.int64(other_accuracy) * np.int64(other_accuracy)
    variance = max(variance + rule.spread_cm2, np.int64(1))
    terms[_NEARNESS] = np.int64(rule.base) - log_points(variance)
    # What is known to be the same asset is so wherever its report is placed.
    terms[_DISTANCE] = 0 if is_same == SAME_ASSET else distance_points(cm2, variance)
    decay = rule.decay_ms if is_same == NOT_THE_SAME else rule.same_decay_ms
    # Over the bounds of the table of logarithms no gap of a year goes.
    late = log_points(128 + 128 * gap // max(decay + span, np.int64(1))) - log_points(np.int64(128))
    terms[_GAP] = -((late * (rule.gap_percent + rule.rhythm_percent * min(further, _FURTHER))) // 100)
    terms[_CATEGORY] = category_points
    terms[_SOURCES] = rule.pairs[other_source * 4 + source]
    terms[_SAME_PLACE] = 0 if is_same == NOT_THE_SAME else rule.same_place
    terms[_TEXT] = (text * np.int64(rule.text_percent)) // 100
    terms[_AGAIN] = rule.again[source] if is_again else 0
    terms[_PRIOR] = rule.prior
    score = np.int64(0)
    for term in range(_BUSY):
        score += terms[term]
    return score


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
    incidents[number].merged_into = one.merged_into
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
def _believe(number: Any, odds: Any, incidents: Any) -> None:
    """Odds add up; of those below even, which say that it is likelier not so, the best stand where there are no others.

    Unknown ones are below all others.
    """
    if odds < 0:
        incidents[number].doubt = max(np.int64(incidents[number].doubt), odds)
        if incidents[number].sure == 0:
            incidents[number].odds = incidents[number].doubt
        return
    if incidents[number].sure > 0:
        odds += np.int64(incidents[number].odds)
    incidents[number].odds = odds
    incidents[number].sure += 1


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
            witnesses[at].reports += 1
            before = np.int64(witnesses[at].odds)
            if odds > before:
                witnesses[at].odds = odds
                if before >= 0:
                    incidents[number].odds += odds - before
                else:
                    _believe(number, odds, incidents)
            return
        if witnesses[at].incident < 0:
            used[WITNESS_COUNT] += 1
        witnesses[at].witness = witness
        witnesses[at].incident = number
        witnesses[at].heard_ms = ingested
        witnesses[at].odds = odds
        witnesses[at].reports = 1
    incidents[number].witness_count += 1
    _believe(number, odds, incidents)


@_jit
def _is_heard(number: Any, witness: Any, horizon: Any, witnesses: Any) -> Any:
    """Whether that witness has spoken of the incident, and is remembered."""
    if witness == 0:
        return False
    at = _find_witness(witnesses, number, witness)
    return witnesses[at].incident >= 0 and witnesses[at].heard_ms >= horizon


@_jit
def _unhear_witness(number: Any, witness: Any, odds: Any, incidents: Any, witnesses: Any) -> None:
    """Take a report's witness from an incident that the report has left, unless another of his stays.

    What he said stays where it is below even: it made nothing surer.
    """
    if witness != 0:
        at = _find_witness(witnesses, number, witness)
        witnesses[at].reports -= 1
        if witnesses[at].reports > 0:
            return
        odds = np.int64(witnesses[at].odds)
        # As long ago as if he had never been heard of it.
        witnesses[at].heard_ms = NEVER
    incidents[number].witness_count -= 1
    if odds >= 0:
        incidents[number].sure -= 1
        incidents[number].odds = (
            incidents[number].odds - odds if incidents[number].sure > 0 else incidents[number].doubt
        )


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
def _found(
    key_hi: Any, key_lo: Any, time: Any, lon: Any, lat: Any, accuracy: Any, category: Any, cell: Any, pack: Any,
    source: Any, group: Any, past: Any, reach_lon: Any, reach_lat: Any, used: Any, incidents: Any, squares: Any,
    ids: Any,
) -> Any:  # fmt: skip
    """A new incident of one report that is not counted yet; its number."""
    number = used[INCIDENT_COUNT]
    used[INCIDENT_COUNT] += 1
    used[STATUS_COUNTS + _OPEN] += 1
    # The same report after its id was forgotten founds another incident, which needs an id of its own.
    hi = _salted(key_hi, group)
    lo = key_lo
    id_at = _find_key(ids, hi, lo)
    while ids[id_at].used == 1:
        lo = _mixed(lo + np.uint64(1))
        id_at = _find_key(ids, hi, lo)
    _write_key(ids, id_at, hi, lo, number, np.int64(0), 0, np.int64(0), 0)
    used[ID_COUNT] += 1
    incidents[number].key_hi = key_hi
    incidents[number].key_lo = lo
    incidents[number].opened_ms = time
    incidents[number].first_ms = time
    incidents[number].last_ms = time
    incidents[number].firm_first_ms = time
    incidents[number].firm_last_ms = time
    incidents[number].ended_ms = NEVER
    incidents[number].merged_into = -1
    incidents[number].status = _OPEN
    incidents[number].odds = _UNKNOWN_ODDS
    incidents[number].doubt = _UNKNOWN_ODDS
    incidents[number].category = category
    incidents[number].pack = pack
    incidents[number].source = source
    incidents[number].recurrence_of = past
    incidents[number].loose = -1
    _anchor(number, lon, lat, accuracy, cell, group, reach_lon, reach_lat, used, incidents, squares)
    return number


@_jit
def _knows_better(accuracy: Any, anchored: Any) -> Any:
    """Whether a report is at most half as vague as the anchor; of two that err by nothing the first stays."""
    return anchored > 0 and np.int64(accuracy) * 2 <= anchored


@_jit
def _anchor(
    number: Any, lon: Any, lat: Any, accuracy: Any, cell: Any, group: Any, reach_lon: Any, reach_lat: Any, used: Any,
    incidents: Any, squares: Any,
) -> None:  # fmt: skip
    """Place an incident; the square that it may have stood in before is from then on one of nobody."""
    incidents[number].lon_e7 = lon
    incidents[number].lat_e7 = lat
    incidents[number].accuracy_cm = accuracy
    incidents[number].cell = cell
    if lon != _NO_POSITION:
        side_lon, side_lat = 2 * reach_lon[group], 2 * reach_lat[group]
        # It may have stood right here before.
        if not (incidents[number].squared and _stands(squares, group, side_lon, side_lat, lon, lat, number)):
            _place_square(squares, group, side_lon, side_lat, np.int64(lon), np.int64(lat), number)
            used[SQUARE_COUNT] += 1
        incidents[number].squared = True


@_jit
def _stands(squares: Any, group: Any, side_lon: Any, side_lat: Any, lon: Any, lat: Any, incident: Any) -> Any:
    """Whether an incident has that very square already."""
    hashed = _square_hash(group, np.int64(lon) // side_lon, np.int64(lat) // side_lat)
    mask = len(squares) - 1
    at = np.int64(hashed & np.uint64(mask))
    while squares[at].incident >= 0:
        if squares[at].incident == incident and squares[at].lon_e7 == lon and squares[at].lat_e7 == lat:
            return True
        at = (at + 1) & mask
    return False


@_jit
def _keep_signature(number: Any, signature: Any, incidents: Any, signatures: Any) -> None:
    kept = incidents[number].signatures
    if kept < KEPT_SIGNATURES and _has_text(signature):
        for word in range(len(signature)):
            signatures[number, kept, word] = signature[word]
        incidents[number].signatures = kept + 1


@_jit
def _count_report(number: Any, source: Any, time: Any, ingested: Any, batch: Any, incidents: Any) -> Any:
    """Add a report to an incident; whether it is its first of that source."""
    is_first = incidents[number].by_source[source] == 0
    incidents[number].by_source[source] += 1
    incidents[number].report_count += 1
    incidents[number].version += 1
    incidents[number].changed_in = batch
    incidents[number].first_ms = min(incidents[number].first_ms, time)
    incidents[number].last_ms = max(incidents[number].last_ms, time)
    incidents[number].updated_ms = ingested
    return is_first


@_jit
def _span_again(number: Any, incidents: Any, loose: Any) -> None:
    """First and last report of an incident that one has left."""
    first = incidents[number].firm_first_ms
    last = incidents[number].firm_last_ms
    one = incidents[number].loose
    while one >= 0:
        first = min(first, loose[one].time_ms)
        last = max(last, loose[one].time_ms)
        one = loose[one].next
    incidents[number].first_ms = first
    incidents[number].last_ms = last


@_jit
def _unlink(number: Any, at: Any, incidents: Any, loose: Any) -> None:
    """Take a loose report out of its incident's chain."""
    if incidents[number].loose == at:
        incidents[number].loose = loose[at].next
        return
    one = np.int64(incidents[number].loose)
    while loose[one].next != at:
        one = np.int64(loose[one].next)
    loose[one].next = loose[at].next


@_jit
def free_loose(at: Any, used: Any, loose: Any) -> None:
    """Make the place of a loose report free."""
    loose[at].incident = -1
    loose[at].next = used[FREE_LOOSE]
    used[FREE_LOOSE] = at
    used[WAITING_COUNT] -= 1


@_jit
def settle_loose(now: Any, used: Any, incidents: Any, loose: Any) -> None:
    """Let the loose reports that no second thought can reach any more be firm, and free their places."""
    for at in range(used[LOOSE_COUNT]):
        number = np.int64(loose[at].incident)
        if number >= 0 and loose[at].until_ms < now:
            _unlink(number, at, incidents, loose)
            incidents[number].firm_first_ms = min(incidents[number].firm_first_ms, loose[at].time_ms)
            incidents[number].firm_last_ms = max(incidents[number].firm_last_ms, loose[at].time_ms)
            free_loose(at, used, loose)


BEST, BEST_SCORE, BEST_CM2, BEST_HOW, BEST_REACH, BEST_SAME = range(6)
SECOND, SECOND_SCORE, SECOND_CM2, SECOND_HOW, SECOND_REACH, SECOND_SAME = range(6, 12)
PAST, PAST_SCORE, PAST_CM2, OTHERS, FOUND = range(12, 17)
"""Places of what was found for a report under way."""


@_jit
def _consider(
    other: Any, cm2: Any, reach: Any, held_from: Any, horizon: Any, time: Any, accuracy: Any, source: Any,
    category: Any, places: Any, signature: Any, has_text: Any, witness: Any, rules: Any, similar: Any, text_points: Any,
    incidents: Any, signatures: Any, marks: Any, witnesses: Any, found: Any, terms: Any, best_terms: Any,
) -> None:  # fmt: skip
    """Score an incident that is near enough, and remember it if it is among the best two."""
    of = rules[incidents[other].category]
    is_same = _same_place(cm2, of.same_place_cm, places, other, incidents, marks)
    window = of.window_ms if is_same == NOT_THE_SAME else of.same_window_ms
    this = _how(incidents[other], of, window, time, held_from)
    if this == FOUNDED:
        return
    gap = np.int64(0)
    if this <= BEFORE_ITS_END:
        last = max(incidents[other].last_ms, incidents[other].ended_ms)  # without an end that is `NEVER`
        gap = max(gap, time - last, incidents[other].first_ms - time)
    elif this == AFTER_ITS_END:
        gap = time - incidents[other].ended_ms
    text = np.int64(0)
    if has_text and incidents[other].signatures > 0:
        for kept in range(incidents[other].signatures):
            bits = _differing_bits(signature, signatures[other, kept])
            points = np.int64(text_points[64 * len(signature) - bits])
            text = points if kept == 0 else max(text, points)
    # Who comes back to what was said to be repaired has not come to the next thing.
    may_be_again = of.again[source] != 0 and this != AFTER_ITS_END
    is_again = may_be_again and _is_heard(other, witness, horizon, witnesses)
    score = _score(
        of, is_same, cm2, accuracy, incidents[other].accuracy_cm, gap,
        incidents[other].last_ms - incidents[other].first_ms, np.int64(incidents[other].report_count) - 1, source,
        incidents[other].source,
        np.int64(similar[category, incidents[other].category]), text, is_again, terms,
    )  # fmt: skip
    if this == AFTER_ITS_END:
        terms[_PRIOR] += of.reopening
        score += of.reopening
    if this == RECURRENCE:
        if found[PAST] < 0 or _is_better(
            incidents, score, cm2, other, found[PAST_SCORE], found[PAST_CM2], found[PAST]
        ):  # fmt: skip
            found[PAST] = other
            found[PAST_SCORE] = score
            found[PAST_CM2] = cm2
        return
    found[OTHERS] += 1
    if found[BEST] < 0 or _is_better(incidents, score, cm2, other, found[BEST_SCORE], found[BEST_CM2], found[BEST]):
        for one in range(SECOND):
            found[SECOND + one] = found[one]
        found[BEST] = other
        found[BEST_SCORE] = score
        found[BEST_CM2] = cm2
        found[BEST_HOW] = this
        found[BEST_REACH] = reach
        found[BEST_SAME] = is_same
        best_terms[:] = terms
    elif found[SECOND] < 0 or _is_better(
        incidents, score, cm2, other, found[SECOND_SCORE], found[SECOND_CM2], found[SECOND]
    ):
        found[SECOND] = other
        found[SECOND_SCORE] = score
        found[SECOND_CM2] = cm2
        found[SECOND_HOW] = this
        found[SECOND_REACH] = reach
        found[SECOND_SAME] = is_same


@_jit
def _is_better(
    incidents: Any, score: Any, cm2: Any, one: Any, other_score: Any, other_cm2: Any, other: Any
) -> Any:  # fmt: skip
    """The higher score first, then the nearer, then the smaller (opened_at, id)."""
    if score != other_score:
        return score > other_score
    if cm2 != other_cm2:
        return cm2 < other_cm2
    if incidents[one].opened_ms != incidents[other].opened_ms:
        return incidents[one].opened_ms < incidents[other].opened_ms
    if incidents[one].key_hi != incidents[other].key_hi:
        return incidents[one].key_hi < incidents[other].key_hi
    return incidents[one].key_lo < incidents[other].key_lo


@_jit
def _rethink(
    i: Any, left: Any, number: Any, now: Any, ingested: Any, lon_scale: Any, lat_scale: Any, group: Any, batch: Any,
    reach_lon: Any, reach_lat: Any, rules: Any, similar: Any, used: Any, incidents: Any, squares: Any, keys: Any,
    marks: Any, assets: Any, loose: Any, witnesses: Any, remember_ms: Any, corrections: Any, terms: Any,
) -> Any:  # fmt: skip
    """Let loose reports of an incident go with the one just founded, if that suits them better; how many went."""
    half = np.int64(1) << (SCALE_BITS - 1)
    went = 0
    of = rules[incidents[number].category]
    at = np.int64(incidents[left].loose)
    while at >= 0:
        one = loose[at]
        following = np.int64(one.next)
        # While its id is remembered its key leads here, and its witness has been remembered all the time.
        is_remembered = one.ingested_ms >= now - remember_ms
        if is_remembered and one.until_ms >= now and abs(one.time_ms - incidents[number].opened_ms) <= of.window_ms:
            dx = ((np.int64(incidents[number].lon_e7) - one.lon_e7) * lon_scale + half) >> SCALE_BITS
            dy = ((np.int64(incidents[number].lat_e7) - one.lat_e7) * lat_scale + half) >> SCALE_BITS
            cm2 = dx * dx + dy * dy
            vague = max(np.int64(one.accuracy_cm), np.int64(incidents[number].accuracy_cm))
            reach = of.radius_cm + min(of.sigmas * vague, of.accuracy_cap_cm)
            is_same = _same_place(cm2, of.same_place_cm, one.places, number, incidents, marks)
            score = _score(
                of, is_same, cm2, one.accuracy_cm, incidents[number].accuracy_cm,
                abs(one.time_ms - incidents[number].opened_ms), np.int64(0), np.int64(0), one.source,
                incidents[number].source,
                np.int64(similar[one.category, incidents[number].category]), np.int64(0),
                _is_heard(number, one.witness, now - remember_ms, witnesses), terms,
            )  # fmt: skip
            if cm2 <= reach * reach and score >= max(np.int64(one.score) + of.rethink, np.int64(0)):
                terms[_BUSY] = 0
                terms[_RIVAL] = 0
                corrected = used[CORRECTED_COUNT]
                corrections[corrected].row = i
                corrections[corrected].loose_at = at
                corrections[corrected].left = left
                corrections[corrected].joined = number
                corrections[corrected].score = score
                corrections[corrected].left_score = one.score
                corrections[corrected].cm2 = cm2
                corrections[corrected].gap_ms = abs(one.time_ms - incidents[number].last_ms)
                corrections[corrected].same = is_same
                corrections[corrected].allowed_cm = reach
                for term in range(len(TERMS)):
                    corrections[corrected].terms[term] = terms[term]
                used[CORRECTED_COUNT] = corrected + 1
                _unlink(left, at, incidents, loose)
                incidents[left].by_source[one.source] -= 1
                incidents[left].report_count -= 1
                incidents[left].version += 1
                incidents[left].updated_ms = ingested
                _span_again(left, incidents, loose)
                _count_report(number, one.source, one.time_ms, ingested, batch, incidents)
                incidents[number].firm_first_ms = min(incidents[number].firm_first_ms, one.time_ms)
                incidents[number].firm_last_ms = max(incidents[number].firm_last_ms, one.time_ms)
                _mark_places(one.places, group, number, used, incidents, marks, assets)
                _unhear_witness(left, one.witness, np.int64(one.odds), incidents, witnesses)
                _hear_witness(
                    number, one.witness, np.int64(one.odds), one.ingested_ms, now - remember_ms, used, incidents,
                    witnesses,
                )  # fmt: skip
                keys[_find_key(keys, _salted(one.key_hi, group), one.key_lo)].incident = number
                if _knows_better(one.accuracy_cm, incidents[number].accuracy_cm):
                    _anchor(
                        number, one.lon_e7, one.lat_e7, one.accuracy_cm, one.cell, group, reach_lon, reach_lat, used,
                        incidents, squares,
                    )  # fmt: skip
                free_loose(at, used, loose)
                went += 1
        at = following
    return went


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
    places: Any,
    signature: Any,
    content: Any,
    witness: Any,
    own_odds: Any,
    feedback: Any,
    transition: Any,
    pack: Any,
    batch: Any,
    rules: Any,
    similar: Any,
    text_points: Any,
    reach_lon: Any,
    reach_lat: Any,
    lateness_ms: Any,
    remember_ms: Any,
    mark_rows: Any,
    marks_heard: Any,
    mark_ms: Any,
    drained: Any,
    clock: Any,
    used: Any,
    incidents: Any,
    signatures: Any,
    squares: Any,
    keys: Any,
    ids: Any,
    marks: Any,
    assets: Any,
    loose: Any,
    witnesses: Any,
    outcome: Any,
    assigned: Any,
    how: Any,
    judged_by: Any,
    same: Any,
    score: Any,
    terms: Any,
    distance_cm2: Any,
    gap_ms: Any,
    allowed_cm: Any,
    behind_ms: Any,
    runner_up: Any,
    runner_up_cm2: Any,
    runner_up_score: Any,
    loose_at: Any,
    corrections: Any,
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
    found = np.zeros(FOUND, np.int64)
    these = np.zeros(len(TERMS), np.int64)
    best_terms = np.zeros(len(TERMS), np.int64)
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
            advance(mark_ms, drained, marks_heard, clock)
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

        # Which incidents may it speak of?
        found[BEST] = -1
        found[SECOND] = -1
        found[PAST] = -1
        found[OTHERS] = 0
        x = np.int64(lon[i])
        y = np.int64(lat[i])
        if lon[i] != _NO_POSITION:
            has_text = _has_text(signature[i])
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
                            vague = max(np.int64(accuracy[i]), np.int64(incidents[other].accuracy_cm))
                            reach = of.radius_cm + min(of.sigmas * vague, of.accuracy_cap_cm)
                            # Two squares may share a hash, and an anchor may have moved on: each incident once.
                            if (
                                cm2 <= reach * reach
                                and of.group == group
                                and squares[slot].lon_e7 == incidents[other].lon_e7
                                and squares[slot].lat_e7 == incidents[other].lat_e7
                                and np.int64(squares[slot].lon_e7) // side_x == column
                                and np.int64(squares[slot].lat_e7) // side_y == line
                            ):
                                _consider(
                                    other, cm2, reach, now - lateness_ms, now - remember_ms, time[i], accuracy[i],
                                    source[i], kind, places[i], signature[i], has_text, witness[i], rules, similar,
                                    text_points, incidents, signatures, marks, witnesses, found, these, best_terms,
                                )  # fmt: skip
                        slot = (slot + 1) & mask
            if places[i, _ASSET] != 0:
                hashed = _asset_hash(places[i, _ASSET], group)
                slot = np.int64(hashed & np.uint64(len(assets) - 1))
                while assets[slot].incident >= 0:
                    if assets[slot].hash == hashed:
                        other = np.int64(assets[slot].incident)
                        of = rules[incidents[other].category]
                        dx = ((np.int64(incidents[other].lon_e7) - x) * lon_scale[i] + half) >> SCALE_BITS
                        dy = ((np.int64(incidents[other].lat_e7) - y) * lat_scale[i] + half) >> SCALE_BITS
                        vague = max(np.int64(accuracy[i]), np.int64(incidents[other].accuracy_cm))
                        reach = of.radius_cm + min(of.sigmas * vague, of.accuracy_cap_cm)
                        # Those nearer were found above.
                        if dx * dx + dy * dy > reach * reach and of.group == group:
                            _consider(
                                other, dx * dx + dy * dy, reach, now - lateness_ms, now - remember_ms, time[i],
                                accuracy[i], source[i], kind, places[i], signature[i], has_text, witness[i], rules,
                                similar, text_points, incidents, signatures, marks, witnesses, found, these, best_terms,
                            )  # fmt: skip
                    slot = (slot + 1) & (len(assets) - 1)

        # Is the best one good enough?
        best = found[BEST]
        total = np.int64(0)
        is_found = False
        if best >= 0:
            of = rules[incidents[best].category]
            best_terms[_BUSY] = -((log_points(found[OTHERS]) * of.busy_percent) // 100)
            best_terms[_RIVAL] = 0
            if found[SECOND] >= 0:
                best_terms[_RIVAL] = (rival_points(found[SECOND_SCORE]) * of.rival_percent) // 100
            total = found[BEST_SCORE] + best_terms[_BUSY] + best_terms[_RIVAL]
            is_found = of.any_score or total >= 0
            runner_up[i] = found[SECOND] if is_found else best
            if runner_up[i] >= 0:
                runner_up_cm2[i] = found[SECOND_CM2] if is_found else found[BEST_CM2]
                runner_up_score[i] = found[SECOND_SCORE] if is_found else total

        is_told = False
        may_doubt = False
        if is_found:
            how[i] = found[BEST_HOW]
            same[i] = found[BEST_SAME]
            score[i] = total
            for term in range(len(TERMS)):
                terms[i, term] = best_terms[term]
            distance_cm2[i] = found[BEST_CM2]
            allowed_cm[i] = found[BEST_REACH]
            gap_ms[i] = abs(time[i] - incidents[best].last_ms)
            outcome[i] = JOINED
            if how[i] == AFTER_ITS_END:
                outcome[i] = REOPENED
                is_told = True
                # What was rejected because one camera errs is not believed because it errs again.
                may_doubt = incidents[best].status == _REJECTED
                _move(best, _OPEN, used, incidents)
                incidents[best].ended_ms = NEVER
            of = rules[incidents[best].category]
            if same[i] == NOT_THE_SAME and how[i] == IN_WINDOW and of.rethink_ms > 0:
                slot = used[FREE_LOOSE]
                if slot >= 0:
                    used[FREE_LOOSE] = loose[slot].next
                else:
                    slot = used[LOOSE_COUNT]
                    used[LOOSE_COUNT] += 1
                used[WAITING_COUNT] += 1
                loose[slot].incident = best
                loose[slot].next = incidents[best].loose
                loose[slot].time_ms = time[i]
                loose[slot].ingested_ms = ingested[i]
                loose[slot].lon_e7 = lon[i]
                loose[slot].lat_e7 = lat[i]
                loose[slot].accuracy_cm = accuracy[i]
                loose[slot].category = category[i]
                loose[slot].cell = cell[i]
                loose[slot].score = total - best_terms[_TEXT]
                loose[slot].source = source[i]
                loose[slot].key_hi = key_hi[i]
                loose[slot].key_lo = key_lo[i]
                for place in range(PLACES):
                    loose[slot].places[place] = places[i, place]
                loose[slot].until_ms = now + of.rethink_ms
                loose[slot].witness = witness[i]
                loose[slot].odds = _odds_of_report(rules[kind], source[i], own_odds[i])
                incidents[best].loose = slot
                loose_at[i] = slot
            else:
                incidents[best].firm_first_ms = min(incidents[best].firm_first_ms, time[i])
                incidents[best].firm_last_ms = max(incidents[best].firm_last_ms, time[i])
            if _knows_better(accuracy[i], incidents[best].accuracy_cm):
                _anchor(
                    best, lon[i], lat[i], accuracy[i], cell[i], group, reach_lon, reach_lat, used, incidents, squares
                )
        else:
            outcome[i] = OPENED
            past = found[PAST]
            if past >= 0 and not rules[incidents[past].category].any_score and found[PAST_SCORE] < 0:
                past = np.int64(-1)
            best = _found(
                key_hi[i], key_lo[i], time[i], lon[i], lat[i], accuracy[i], category[i], cell[i], pack, source[i],
                group, past, reach_lon, reach_lat, used, incidents, squares, ids,
            )  # fmt: skip
            may_doubt = True
            keys[at].founded = 1
            allowed_cm[i] = rules[kind].radius_cm + min(
                rules[kind].sigmas * np.int64(accuracy[i]), rules[kind].accuracy_cap_cm
            )
            if past >= 0:
                how[i] = RECURRENCE
                incidents[past].superseded = True
        if is_late:
            outcome[i] = LATE
        keys[at].incident = best
        assigned[i] = best
        if lon[i] != _NO_POSITION and loose_at[i] < 0:
            # A loose report has said nothing yet of the place of its incident.
            _mark_places(places[i], group, best, used, incidents, marks, assets)
        _keep_signature(best, signature[i], incidents, signatures)
        is_told |= _count_report(best, source[i], time[i], ingested[i], batch, incidents)
        judged_by[i] = incidents[best].category
        _hear_witness(
            best, witness[i], _odds_of_report(rules[kind], source[i], own_odds[i]), ingested[i], now - remember_ms,
            used, incidents, witnesses,
        )  # fmt: skip
        rejected = found[BEST]
        if not is_found and rejected >= 0 and incidents[rejected].loose >= 0:
            went = _rethink(
                i, rejected, best, now, ingested[i], lon_scale[i], lat_scale[i], group, batch, reach_lon, reach_lat,
                rules, similar, used, incidents, squares, keys, marks, assets, loose, witnesses, remember_ms,
                corrections, these,
            )  # fmt: skip
            if went:
                _tell(rejected, 2 * i + 1, batch, used, incidents, snapshots, snapshot_at, snapshot_incident)
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
def _how(incident: Any, rule: Any, window_ms: Any, time: Any, held_from: Any) -> Any:
    """How a report of that event time, near the incident, comes together with it; `FOUNDED` if not at all."""
    if incident.merged_into >= 0:
        return FOUNDED
    window_end = incident.last_ms + window_ms
    has_ended = incident.ended_ms != NEVER
    if has_ended and time > incident.ended_ms:
        until = incident.ended_ms + rule.reopen_ms
        if incident.superseded or until + RECURRENCE_MS < max(time, held_from):
            return FOUNDED
        return AFTER_ITS_END if time <= until else RECURRENCE
    # What has ended is held to its end, if that comes after its window's, unless its successor stands for it then.
    held_until = max(window_end, incident.ended_ms) if not incident.superseded else window_end
    if incident.last_ms - window_ms <= time <= held_until and held_until >= held_from:
        return BEFORE_ITS_END if has_ended else IN_WINDOW
    until = window_end + rule.reopen_ms
    if has_ended or incident.superseded or not window_end < time <= until or until < held_from:
        return FOUNDED
    return RECURRENCE
