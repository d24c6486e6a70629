"""The kernel decides what the definition decides: outcomes, incidents, runners-up, counts, and what it tells."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
from city_scenario import CATALOGUE_TOML, DOUBTING_CATALOGUE_TOML, DOUBTING_CITY_TOML, make_pack
from dedupe_definition import FIXED_POINT, STEPS, Answer, Definition, Open, Row, Said, Tick, mixed, scales
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams import dedupe_kernels
from streams.dedupe import Decided, Dedupe, DedupeRules
from streams.dedupe_kernels import AMENDED, NEVER, OUTCOMES, RECURRENCE, REDELIVERED
from streams.feedback import ACTIONS, OPEN, STATUSES, SUSPECTED, Feedback, columns_of
from streams.pack import CityPack
from streams.reports import NO_POSITION, LocatedReports
from streams.terms import PackTerms
from streams.witnesses import UNKNOWN_ODDS, confidence_of

LATENESS_S = 600
REMEMBER_S = 7200
T0 = 1_772_323_200_000

PACKS = {
    "the equator": (make_pack(), (0, 0)),
    "far north": (make_pack(middle=(25.0, 71.0)), (250_000_000, 710_000_000)),
    "south-west": (make_pack(middle=(-70.0, -33.5)), (-700_000_000, -335_000_000)),
    "a city that doubts": (make_pack(city=DOUBTING_CITY_TOML, catalogue=DOUBTING_CATALOGUE_TOML), (0, 0)),
}
KINDS = {category.code: number for number, category in enumerate(PACKS["the equator"][0].categories)}
MANHOLE = KINDS["manhole"]


# ------------------------------------------------------------------------------------------- running the two of them


def dedupe_of(pack: CityPack, *, one_clock: bool = False) -> Dedupe:
    return Dedupe(PackTerms(pack), lateness_s=LATENESS_S, remember_s=REMEMBER_S, one_clock=one_clock)


def feedback_of(said: Sequence[tuple[int, Said]]) -> list[Feedback]:
    return [
        Feedback(
            before, [action.value for action in ACTIONS].index(one.action), one.group, *one.key,
            mixed(one.id + 1000) ^ mixed(int.from_bytes(one.group.encode())),
            mixed(one.key[0] * 3 + one.key[1] + 1), one.time_ms, one.ingested_ms,
            0, one.offset, 0, "", None, b"",
        )
        for before, one in said
    ]  # fmt: skip


RESULTS = ("applied", "repeated", "redelivered", "unknown_incident", "illegal_transition")


def columns(rows: Sequence[Row]) -> LocatedReports:
    texts = [""] * len(rows)
    return LocatedReports.from_columns(
        source=[row.source for row in rows],
        partition=[row.partition for row in rows],
        offset=[row.offset for row in rows],
        index=[row.index for row in rows],
        mark_ms=[row.mark_ms for row in rows],
        ingested_ms=[row.ingested_ms for row in rows],
        time_ms=[row.time_ms for row in rows],
        lon_e7=[NO_POSITION if row.where is None else row.where[0] for row in rows],
        lat_e7=[NO_POSITION if row.where is None else row.where[1] for row in rows],
        accuracy_cm=[row.accuracy_cm for row in rows],
        category=[row.category for row in rows],
        cell=[0] * len(rows),
        key_hi=[row.key[0] for row in rows],
        key_lo=[row.key[1] for row in rows],
        content=[row.content for row in rows],
        confidence=[np.nan if row.confidence is None else row.confidence for row in rows],
        report_id=texts,
        witness=[row.witness for row in rows],
        asset_id=texts,
        address=texts,
        text=texts,
    )


def answers_of(decided: Decided) -> list[Answer]:
    """The kernel's columns without what a match says, which :func:`assert_same_match` compares."""
    words = [outcome.value for outcome in OUTCOMES] + ["redelivered"]
    return [
        Answer(words[outcome], None if incident < 0 else incident)
        for outcome, incident in zip(decided.outcome.tolist(), decided.incident.tolist(), strict=True)
    ]


def assert_same_match(decided: Decided, row: int, answer: Answer) -> None:
    if answer.outcome in ("redelivered", "repeat", "amended", "not_an_event"):
        return
    assert decided.behind_ms[row] == answer.behind_ms
    assert (decided.how[row] in (1, 2, 3)) == (answer.best is not None)
    assert (decided.how[row] == RECURRENCE) == (answer.recurrence_of is not None)
    if answer.best is not None:
        assert (decided.distance_cm2[row], decided.allowed_cm[row]) == (answer.best.cm2, answer.best.allowed_cm)
        assert decided.gap_ms[row] == answer.gap_ms
    if answer.runner_up is None:
        assert decided.runner_up[row] == -1
    else:
        assert (decided.runner_up[row], decided.runner_up_cm2[row], decided.runner_up_allowed_cm[row]) == (
            answer.runner_up.number,
            answer.runner_up.cm2,
            answer.runner_up.allowed_cm,
        )


def incident_of(row: np.void) -> Open:
    placed = row["lon_e7"] != NO_POSITION
    return Open(
        (int(row["key_hi"]), int(row["key_lo"])),
        int(row["category"]),
        (int(row["lon_e7"]), int(row["lat_e7"])) if placed else None,
        int(row["opened_ms"]),
        int(row["first_ms"]),
        int(row["last_ms"]),
        int(row["updated_ms"]),
        int(row["version"]),
        int(row["report_count"]),
        int(row["repeat_count"]),
        tuple(row["by_source"].tolist()),
        STATUSES[row["status"]].value,
        None if row["ended_ms"] == NEVER else int(row["ended_ms"]),
        None if row["recurrence_of"] < 0 else int(row["recurrence_of"]),
        bool(row["superseded"]),
        int(row["witness_count"]),
        None if row["odds"] == UNKNOWN_ODDS else int(row["odds"]),
    )


def run_both(
    pack: CityPack, steps: Sequence[Row | Said | Tick], sizes: Iterable[int] = (), *, one_clock: bool = False
) -> Dedupe:
    """Feed both, the kernel in batches of the given sizes, and compare after each batch."""
    dedupe = dedupe_of(pack, one_clock=one_clock)
    groups = PackTerms(pack).groups
    oracle = Definition(pack, lateness_s=LATENESS_S, remember_s=REMEMBER_S, one_clock=one_clock)
    sizes = iter(sizes)
    for is_tick, part in groupby(steps, key=lambda step: isinstance(step, Tick)):
        waiting = list(part)
        if is_tick:
            for tick in waiting:
                dedupe.mark(tick.source, tick.partition, tick.newest_ms, tick.drained)
                oracle.tick(tick)
            assert dedupe.watermark_ms == oracle.watermark_ms
            continue
        while waiting:
            size = next(sizes, len(waiting))
            batch, waiting = waiting[:size], waiting[size:]
            compare_batch(dedupe, oracle, batch, groups)
    return dedupe


def compare_batch(dedupe: Dedupe, oracle: Definition, batch: Sequence[Row | Said], groups: dict[str, int]) -> None:
    known = {(number, source) for number, one in enumerate(oracle.incidents) for source in range(4)
             if one.by_source[source]}  # fmt: skip
    rows: list[Row] = []
    said: list[tuple[int, Said]] = []
    answers: list[Answer] = []
    heard: list[tuple[str, int | None]] = []
    # What must be told of each incident, in order: when, how it stood, and whether it must be told even if it is not
    # the last: an opening, a reopening, a further source, a confirmation, an amendment, feedback.
    history: defaultdict[int, list[tuple[int, Open, bool]]] = defaultdict(list)
    for step in batch:
        if isinstance(step, Said):
            result, number = oracle.hear(step)
            said.append((len(rows), step))
            heard.append((result, number))
            if result == "applied":
                history[number].append((2 * len(rows), oracle.incidents[number], True))
            continue
        answer = oracle.decide(step)
        rows.append(step)
        answers.append(answer)
        if answer.incident is None or answer.outcome == "redelivered":
            continue
        is_due = answer.outcome == "amended" or answer.is_confirmed
        if answer.outcome not in ("repeat", "amended"):
            is_reopened = answer.best is not None and answer.best.rank == 1
            is_due |= (answer.incident, step.source) not in known or is_reopened
            known.add((answer.incident, step.source))
        history[answer.incident].append((2 * len(rows) - 1, oracle.incidents[answer.incident], is_due))
    decided = dedupe.apply(columns(rows), feedback=columns_of(feedback_of(said), groups))
    dedupe.check()
    assert answers_of(decided) == [Answer(answer.outcome, answer.incident) for answer in answers]
    for number, answer in enumerate(answers):
        assert_same_match(decided, number, answer)
    incident = decided.feedback["incident"].tolist()
    assert [
        (RESULTS[result], None if number < 0 else number)
        for result, number in zip(decided.feedback["result"].tolist(), incident, strict=True)
    ] == heard
    assert [incident_of(row) for row in dedupe.incidents[: dedupe.count]] == oracle.incidents
    assert dedupe.watermark_ms == oracle.watermark_ms
    told: defaultdict[int, list[tuple[int, Open]]] = defaultdict(list)
    order = np.argsort(decided.snapshot_at, kind="stable")
    for at, number, state in zip(
        decided.snapshot_at[order].tolist(),
        decided.snapshot_incident[order].tolist(),
        decided.snapshots[order],
        strict=True,
    ):
        told[number].append((at, incident_of(state)))
    # That an incident has recurred is not part of what is told of it.
    assert {number: [(at, _told(state)) for at, state in states] for number, states in told.items()} == {
        number: [
            (at, _told(state)) for at, state, is_due in states[:-1] if is_due
        ] + [(states[-1][0], _told(states[-1][1]))]
        for number, states in history.items()
    }  # fmt: skip


def _told(state: Open) -> Open:
    return replace(state, has_recurred=False)


# ------------------------------------------------------------------------------------------------------- adversaries


def step_e7(axis: int, centimetres: int, lat_e7: int) -> int:
    """The largest offset along an axis (0 east, 1 north) that is measured as no more than so many centimetres."""
    scale = scales(lat_e7)[axis]
    return ((2 * centimetres + 1) * FIXED_POINT - 1) // (2 * scale)


@st.composite
def offsets(draw: st.DrawFn, pack: CityPack, lat_e7: int) -> tuple[int, int]:
    """Offsets from the middle that lie on a radius, one step within or beyond it, on a square's border, or anywhere."""
    rules = DedupeRules.from_terms(PackTerms(pack))
    category = draw(st.sampled_from([KINDS["manhole"], KINDS["cover-noise"]]))
    of = rules.of_category[category]
    reach = int(of["radius_cm"] + draw(st.sampled_from([0, of["accuracy_cap_cm"]])))
    group = int(of["group"])
    kind = draw(st.sampled_from(["radius", "radius", "triangle", "square", "anywhere"]))
    sign_x, sign_y = draw(st.sampled_from([(1, 1), (-1, 1), (1, -1), (-1, -1)]))
    beyond = draw(st.integers(-1, 1))
    if kind == "radius":
        axis = draw(st.integers(0, 1))
        far = sign_x * (step_e7(axis, reach, lat_e7) + beyond)
        return (far, 0) if axis == 0 else (0, far)
    if kind == "triangle":  # 3-4-5, exactly on the radius
        x = step_e7(0, reach * 3 // 5, lat_e7)
        y = step_e7(1, reach * 4 // 5, lat_e7)
        return sign_x * (x + beyond), sign_y * y
    if kind == "square":
        side_x, side_y = 2 * int(rules.reach_lon_e7[group]), 2 * int(rules.reach_lat_e7[group])
        return sign_x * side_x * draw(st.integers(0, 1)) + beyond, sign_y * side_y * draw(st.integers(0, 1)) + beyond
    return draw(st.integers(-20_000, 20_000)), draw(st.integers(-20_000, 20_000))


@st.composite
def histories(draw: st.DrawFn, place: str) -> list[Row | Said | Tick]:
    """A short history of a small neighbourhood in which everything that can coincide does."""
    pack, (lon, lat) = PACKS[place]
    spots = [*draw(st.lists(offsets(pack, lat), min_size=1, max_size=4)), (0, 0)]
    moments = [0, 1, 599_999, 600_000, 600_001, 3_599_999, 3_600_000, 3_600_001, 4_200_000, 7_200_000, 7_200_001]
    keys = [(key_hi, key_lo) for key_hi in (0, 1, 2**63 + 5, 2**64 - 1) for key_lo in (0, 7, 2**64 - 1)]
    steps: list[Row | Said | Tick] = []
    clock = 0
    for number in range(draw(st.integers(1, 14))):
        clock += draw(st.sampled_from([0, 0, 0, *moments]))
        source, partition = draw(st.sampled_from([(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)]))
        if draw(st.integers(0, 9)) == 0:
            steps.append(Tick(source, partition, T0 + clock, draw(st.booleans())))
            continue
        if draw(st.integers(0, 3)) == 0:
            known = [step.key for step in steps if isinstance(step, Row)] or keys
            steps.append(
                Said(
                    draw(st.integers(1, 4)),
                    draw(st.sampled_from([*STEPS, "close", "close", "reopen"])),
                    draw(st.sampled_from(["covers", "covers", "covers", "lights", "unheard-of"])),
                    draw(st.sampled_from(known)),
                    T0 + clock - draw(st.sampled_from([0, 0, 1, 3_600_000])),
                    T0 + clock,
                    draw(st.sampled_from([number, number, 1])),
                )
            )
            continue
        ingested = T0 + clock - draw(st.sampled_from([0, 0, 0, 1, 3_600_000, 7_200_000]))
        x, y = draw(st.sampled_from(spots))
        steps.append(
            Row(
                source,
                partition,
                draw(st.sampled_from([number, number, number, 3, 0])),
                draw(st.integers(0, 1)),
                ingested + draw(st.sampled_from([0, 0, 5])),
                ingested,
                T0 + clock - draw(st.sampled_from([0, 0, 0, *moments])),
                None if draw(st.integers(0, 11)) == 0 else (lon + x, lat + y),
                draw(st.sampled_from([0, 0, 999, 1000, 1001, 500_000])),
                draw(
                    st.sampled_from([MANHOLE, MANHOLE, KINDS["cover-noise"], KINDS["question"], KINDS["street-light"]])
                ),
                draw(st.sampled_from(keys)),
                draw(st.sampled_from([0, 1, 1, 2])),
                draw(st.sampled_from(["", "a", "a", "b"])),
                draw(st.sampled_from([None, None, 0.0, 0.3, 0.5, 0.62, 0.8, 1.0])),
            )
        )
    return steps


def row(time_s: float = 0, *, key: int = 1, source: int = 2, where: tuple[int, int] | None = (0, 0), **changes) -> Row:
    """A report that is heard at once; its number is its key, its offset and its id."""
    at_ms = T0 + round(time_s * 1000)
    fields = {
        "source": source, "partition": 0, "offset": key, "index": 0, "mark_ms": at_ms, "ingested_ms": at_ms,
        "time_ms": at_ms, "where": where, "accuracy_cm": 0, "category": MANHOLE, "key": (key, 0),
    }  # fmt: skip
    return Row(**(fields | changes))


@pytest.mark.parametrize("place", PACKS)
@settings(max_examples=100)
@given(st.data())
def test_the_kernel_agrees_with_the_definition(place, data):
    """Squares, hashes and fixed-size tables are only shortcuts: the answers are those of the plain double loop."""
    steps = data.draw(histories(place))
    run_both(PACKS[place][0], steps, data.draw(st.lists(st.integers(1, 5), max_size=6)))


@given(histories("the equator"), st.lists(st.integers(1, 5), max_size=6))
def test_with_one_clock_all_partitions_share_a_mark(steps, sizes):
    run_both(PACKS["the equator"][0], [step for step in steps if not isinstance(step, Tick)], sizes, one_clock=True)


ON_THE_RADIUS = step_e7(1, 4000, 0)


@pytest.mark.parametrize(
    ("second", "outcome"),
    [
        pytest.param(row(1, key=2, where=(0, ON_THE_RADIUS)), "joined", id="exactly on the radius"),
        pytest.param(row(1, key=2, where=(0, ON_THE_RADIUS + 1)), "opened", id="one step beyond it"),
        pytest.param(row(1, key=2, where=(0, -ON_THE_RADIUS)), "joined", id="on the radius, to the south"),
        pytest.param(row(1, key=2, where=(0, -ON_THE_RADIUS - 1)), "opened", id="beyond it, to the south"),
        pytest.param(row(1, key=2, where=(0, ON_THE_RADIUS + 1), accuracy_cm=1), "joined", id="reached by accuracy"),
        pytest.param(row(1, key=2, where=(0, step_e7(1, 5000, 0)), accuracy_cm=500_000), "joined", id="on the cap"),
        pytest.param(row(1, key=2, where=(0, step_e7(1, 5000, 0) + 1), accuracy_cm=500_000), "opened", id="capped"),
        pytest.param(row(3600, key=2), "joined", id="on the window's edge"),
        pytest.param(row(3600.001, key=2), "opened", id="past the window"),
        pytest.param(row(1, key=2, time_ms=T0 - 599_000), "joined", id="earlier, within the window"),
        pytest.param(row(7200, key=2, time_ms=T0), "late", id="an hour late, found among what is held no more"),
        pytest.param(row(1, key=2, where=None), "opened", id="no position"),
        pytest.param(row(1, key=2, category=KINDS["street-light"]), "opened", id="another group"),
        pytest.param(row(1, key=2, category=KINDS["cover-noise"]), "joined", id="another category of the group"),
        pytest.param(row(1, key=2, category=KINDS["question"]), "not_an_event", id="a question"),
        pytest.param(row(1, key=1, offset=2), "repeat", id="the same id at another offset"),
        pytest.param(row(1, key=1, offset=1, index=1), "repeat", id="the same id in another element"),
        pytest.param(row(1, key=1, offset=1, partition=1), "repeat", id="the same id in another partition"),
        pytest.param(row(1, key=1, offset=1, source=3), "repeat", id="the same id in another topic"),
        pytest.param(row(1, key=1, offset=0), "repeat", id="the same id at an earlier offset never applied"),
        pytest.param(row(1, key=1, offset=1), "redelivered", id="the same origin"),
        pytest.param(row(7200, key=1, offset=2), "repeat", id="the same id, just remembered"),
        pytest.param(row(7200.001, key=1, offset=2), "opened", id="the same id after it was forgotten"),
        pytest.param(row(1, key=2, time_ms=T0 - 3_600_000), "late", id="late, on the window's other edge"),
        pytest.param(row(1, key=2, time_ms=T0 - 3_600_001), "late", id="late, before the window"),
        pytest.param(row(4200, key=2, time_ms=T0 + 3_600_000), "joined", id="just held, and not late"),
        pytest.param(row(4200.001, key=2, time_ms=T0 + 3_600_000), "late", id="held no more"),
    ],
)
def test_what_becomes_of_a_second_report(second, outcome):
    pack = PACKS["the equator"][0]
    run_both(pack, [row(0), second], [1])
    dedupe = dedupe_of(pack)
    assert answers_of(dedupe.apply(columns([row(0), second])))[1].outcome == outcome


@pytest.mark.parametrize("place", PACKS)
@pytest.mark.parametrize("axis", [0, 1], ids=["east to west", "north to south"])
def test_nothing_within_reach_hides_behind_the_border_of_a_square(place, axis):
    """The founding position on either side of a border, the report as far off as still matches, on either side."""
    pack, middle = PACKS[place]
    rules = DedupeRules.from_terms(PackTerms(pack))
    group = int(rules.of_category[MANHOLE]["group"])
    side = 2 * int((rules.reach_lon_e7, rules.reach_lat_e7)[axis][group])
    border = middle[axis] // side * side
    far = step_e7(axis, 5000, middle[1])
    history = []
    for number, (delta, sign) in enumerate((delta, sign) for delta in range(-8, 9) for sign in (-1, 1)):
        for key, at in ((2 * number + 1, border + delta), (2 * number + 2, border + delta + sign * far)):
            where = (at, middle[1]) if axis == 0 else (middle[0], at)
            # Three hours apart, so that each pair is alone.
            history.append(row(number * 11_000, key=key, where=where, accuracy_cm=500_000))
    dedupe = run_both(pack, history)
    assert dedupe.count <= len(history) * 0.6, "most pairs do match"


def test_every_repeat_that_is_delivered_again_is_skipped_wherever_it_came_from():
    """The same ticket through two partitions, thrice; then a crash, and all of it again."""
    history = [row(0, offset=5), row(1, offset=3, partition=1), row(2, offset=7), row(3, offset=4, partition=1)]
    dedupe = run_both(PACKS["the equator"][0], history + history, [3])
    assert dedupe.incidents["repeat_count"][0] == 3


def test_an_id_that_keeps_coming_is_remembered_from_its_last_coming():
    """Sent again each hour for a day, a ticket remains the same ticket."""
    dedupe = run_both(PACKS["the equator"][0], [row(hour * 3600, key=1, offset=hour) for hour in range(24)])
    assert dedupe.count == 1


def test_a_sliding_window_goes_on_as_long_as_reports_come():
    history = [row(3600 * number, key=number + 1, offset=number) for number in range(5)]
    assert run_both(PACKS["the equator"][0], history).count == 1


@pytest.mark.parametrize("swap", [False, True], ids=["first founded first", "first founded last"])
def test_of_two_equally_near_the_earlier_opened_wins_then_the_smaller_id(swap):
    east, west = row(0, key=9, where=(3000, 0)), row(0, key=8, where=(-3000, 0))
    between = row(1, key=10, where=(0, 0), accuracy_cm=500_000)
    first_two = [west, east] if swap else [east, west]
    dedupe = dedupe_of(PACKS["the equator"][0])
    decided = dedupe.apply(columns([*first_two, between]))
    assert dedupe.count == 2
    assert int(dedupe.incidents["key_hi"][decided.incident[2]]) == 8
    run_both(PACKS["the equator"][0], [*first_two, between])


@pytest.mark.parametrize("noise_cm", [-800, -1500])
def test_the_runner_up_keeps_its_own_radius(noise_cm):
    """Two categories of one group; whichever square is looked into first, each has the reach of its own."""
    history = []
    for number in range(24):
        # Anywhere over a few squares, each time an incident of 20 m and one of 50 m about the report.
        east = number * 7_000
        for place, (offset_cm, kind) in enumerate(
            [(noise_cm, "cover-noise"), (noise_cm + 2300, "manhole"), (0, "manhole")]
        ):
            where = (east + round(offset_cm / 1.1132), 0)
            key = 3 * number + place + 1
            history.append(row(number * 11_000, key=key, where=where, category=KINDS[kind], accuracy_cm=500_000))
    dedupe = run_both(PACKS["the equator"][0], history)
    assert dedupe.count == 48


def test_a_table_rebuilt_while_an_incident_is_held_keeps_it():
    """Its window has ended but what is not yet late may still join; many questions make the tables grow just then."""
    questions = [row(3900, key=key, category=KINDS["question"]) for key in range(10, 5010)]
    last = row(3900, key=2, time_ms=T0 + 3_600_000)
    dedupe = run_both(PACKS["the equator"][0], [row(0), *questions, last], [1, 1, 5000])
    assert (dedupe.count, dedupe.incidents["report_count"][0]) == (1, 2)


# ------------------------------------------------------------------------------------------------ who says it, and what

DOUBTS = PACKS["a city that doubts"][0]
IOT, VIDEO, HOTLINE, PATROL = range(4)


def seen(time_s: float, key: int, source: int = VIDEO, witness: str = "", **changes) -> Row:
    return row(time_s, key=key, source=source, witness=witness, **changes)


def said(time_s: float, number: int, action: str, key: int = 1) -> Said:
    at_ms = T0 + round(time_s * 1000)
    return Said(number, action, "covers", (key, 0), at_ms, at_ms, number)


@pytest.mark.parametrize(
    ("history", "status", "witnesses", "confidence"),
    [
        pytest.param([seen(0, 1, VIDEO, "a")], "suspected", 1, 0.8, id="one camera"),
        pytest.param([seen(0, 1, VIDEO, "a"), seen(9, 2, VIDEO, "a")], "suspected", 1, 0.8, id="a stuck camera"),
        pytest.param([seen(0, 1, VIDEO, "a"), seen(9, 2, VIDEO, "b")], "open", 2, 0.941, id="two cameras"),
        pytest.param([seen(0, 1, VIDEO), seen(9, 2, VIDEO)], "open", 2, 0.941, id="two cameras without a name"),
        pytest.param([seen(0, 1, VIDEO, "a"), seen(9, 2, IOT, "a")], "open", 2, 0.973, id="a sensor of that name"),
        pytest.param([seen(0, 1, PATROL, "a")], "open", 1, 0.95, id="a grid worker"),
        pytest.param([seen(0, 1, HOTLINE, "a")], "open", 1, None, id="a source that nobody knows"),
        pytest.param([seen(0, 1, HOTLINE, "a"), seen(9, 2, VIDEO)], "open", 2, 0.8, id="and a camera: it was told"),
        pytest.param([seen(0, 1, VIDEO, "a"), seen(9, 2, HOTLINE)], "suspected", 2, 0.8, id="a call nobody can weigh"),
        pytest.param([seen(0, 1, VIDEO, confidence=0.95)], "suspected", 1, 0.8, id="no camera vouches for itself"),
        pytest.param([seen(0, 1, VIDEO, confidence=0.62)], "suspected", 1, 0.62, id="but it may doubt"),
        pytest.param(
            [seen(0, 1, VIDEO, confidence=0.3), seen(9, 2, VIDEO, confidence=0.4)],
            "suspected",
            2,
            0.4,
            id="two that doubt are as good as the better",
        ),
        pytest.param(
            [seen(0, 1, VIDEO, confidence=0.3), seen(9, 2, PATROL)], "open", 2, 0.95, id="doubt takes nothing"
        ),
        pytest.param(
            [seen(0, 1, VIDEO, "a", confidence=0.62), seen(9, 2, VIDEO, "a")],
            "suspected",
            1,
            0.8,
            id="one witness is believed for the most he said",
        ),
        pytest.param(
            [seen(0, 1, VIDEO, "a"), seen(9, 2, VIDEO, "a", confidence=0.62)],
            "suspected",
            1,
            0.8,
            id="and takes nothing back",
        ),
        pytest.param(
            [seen(0, 1, VIDEO, "a", confidence=0.3), seen(9, 2, VIDEO, "b"), seen(10, 3, VIDEO, "a")],
            "open",
            2,
            0.941,
            id="one that doubted and is surer now",
        ),
        pytest.param([seen(0, 1, VIDEO, category=KINDS["cover-noise"])], "suspected", 1, 0.4, id="the category's own"),
        pytest.param([seen(0, 1, HOTLINE, category=KINDS["cover-noise"])], "suspected", 1, 0.65, id="for a call too"),
        pytest.param([seen(0, 1, VIDEO), said(9, 1, "accept")], "accepted", 1, 0.8, id="somebody looked"),
        pytest.param(
            [seen(0, 1, VIDEO), said(9, 1, "accept"), seen(10, 2, VIDEO)], "accepted", 2, 0.941, id="no step back"
        ),
        pytest.param(
            [seen(0, 1, VIDEO, "a"), said(9, 1, "reject"), seen(10, 2, VIDEO, "a")],
            "suspected",
            1,
            0.8,
            id="rejected, and the camera errs again",
        ),
        pytest.param(
            [seen(0, 1, VIDEO, "a"), said(9, 1, "reject"), seen(10, 2, VIDEO, "b")],
            "open",
            2,
            0.941,
            id="rejected, and another camera",
        ),
        pytest.param(
            [seen(0, 1, VIDEO, "a"), said(9, 1, "close"), seen(10, 2, VIDEO, "a")],
            "open",
            1,
            0.8,
            id="closed, and back",
        ),
        pytest.param(
            [seen(0, 1, VIDEO, "a"), said(9, 1, "reject"), said(10, 2, "reopen")],
            "open",
            1,
            0.8,
            id="rejected by mistake",
        ),
        pytest.param(
            [seen(0, 1, VIDEO, "a"), seen(3600, 2, VIDEO, "b"), seen(7200, 3, VIDEO, "a")],
            "open",
            2,
            0.941,
            id="just remembered",
        ),
        pytest.param(
            [
                seen(0, 1, VIDEO, "a"),
                seen(3600, 2, VIDEO, "b"),
                seen(7200, 3, VIDEO, "b"),
                seen(7200.001, 4, VIDEO, "a"),
            ],
            "open",
            3,
            0.985,
            id="forgotten, and counted anew",
        ),
        pytest.param(
            [seen(0, 1, VIDEO, "a"), seen(3600, 2, VIDEO, "a"), seen(7200, 3, VIDEO, "a"), seen(10_800, 4, VIDEO, "a")],
            "suspected",
            1,
            0.8,
            id="remembered from when he was heard last",
        ),
    ],
)
@pytest.mark.parametrize("sizes", [[1] * 5, []], ids=["one by one", "at once"])
def test_how_sure_it_is_and_whether_anybody_is_told(history, status, witnesses, confidence, sizes):
    dedupe = run_both(DOUBTS, history, sizes)
    assert dedupe.count == 1
    one = dedupe.incidents[0]
    assert STATUSES[one["status"]] == status
    assert (one["witness_count"], confidence_of(int(one["odds"]))) == (witnesses, confidence)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.sampled_from(["", "a", "b"]), st.sampled_from([None, 0.0, 0.3, 0.5, 0.62, 1.0])
        ),
        min_size=1,
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_who_comes_first_makes_no_difference_and_nobody_takes_anything_away(said_by, chance):
    """Neither to how many witnesses there are nor to how sure it is."""
    history = [
        row(0, key=key, source=source, witness=witness, confidence=confidence)
        for key, (source, witness, confidence) in enumerate(said_by, 1)
    ]
    ends = set()
    for _ in range(2):
        dedupe, before = dedupe_of(DOUBTS), UNKNOWN_ODDS
        for one in history:
            dedupe.apply(columns([one]))
            assert dedupe.incidents["odds"][0] >= before
            before = dedupe.incidents["odds"][0]
        ends.add((int(dedupe.incidents["witness_count"][0]), int(before)))
        chance.shuffle(history)
    assert len(ends) == 1


NOISE, QUESTION = KINDS["cover-noise"], KINDS["question"]


@pytest.mark.parametrize(
    ("history", "outcomes", "category", "version"),
    [
        pytest.param(
            [seen(0, 1, content=7), seen(9, 1, content=7, offset=2)], "opened repeat", MANHOLE, 1, id="the same"
        ),
        pytest.param(
            [seen(0, 1, content=7), seen(9, 1, content=8, offset=2, category=NOISE)],
            "opened amended",
            NOISE,
            2,
            id="another category of the group",
        ),
        pytest.param(
            [seen(0, 1, content=7), seen(9, 1, content=8, offset=2), seen(10, 1, content=8, offset=3)],
            "opened amended repeat",
            MANHOLE,
            2,
            id="amended, and sent again",
        ),
        pytest.param(
            [seen(0, 1, content=7), seen(9, 1, content=8, offset=2), seen(10, 1, content=7, offset=3)],
            "opened amended amended",
            MANHOLE,
            3,
            id="and back",
        ),
        pytest.param(
            [seen(0, 1, content=7), seen(9, 1, content=8, offset=2), seen(9, 1, content=8, offset=2)],
            "opened amended redelivered",
            MANHOLE,
            2,
            id="and delivered again",
        ),
        pytest.param(
            [seen(0, 1, content=7), seen(9, 1, content=8, offset=2), seen(0, 1, content=7)],
            "opened amended redelivered",
            MANHOLE,
            2,
            id="and the first delivered again",
        ),
        pytest.param(
            [seen(0, 1, content=7), seen(9, 1, content=0, offset=2)],
            "opened repeat",
            MANHOLE,
            1,
            id="a copy in other words",
        ),
        pytest.param(
            [seen(0, 1), seen(8, 2, content=7), seen(9, 2, content=8, offset=3, category=NOISE)],
            "opened joined amended",
            MANHOLE,
            3,
            id="of a report that joined",
        ),
        pytest.param(
            [seen(0, 1, content=7), seen(9, 1, content=8, offset=2, category=QUESTION)],
            "opened amended",
            MANHOLE,
            2,
            id="into no event",
        ),
        pytest.param(
            [seen(0, 1, content=7, category=QUESTION), seen(9, 1, content=8, offset=2)],
            "not_an_event opened",
            MANHOLE,
            1,
            id="into an event",
        ),
        pytest.param(
            [
                seen(0, 1, content=7, category=QUESTION),
                seen(9, 1, content=8, offset=2),
                seen(9, 1, content=7, offset=1),
                seen(9, 1, content=8, offset=2),
            ],
            "not_an_event opened redelivered redelivered",
            MANHOLE,
            1,
            id="into an event, and delivered again",
        ),
        pytest.param(
            [seen(0, 1, content=7, category=QUESTION), seen(9, 1, content=8, offset=2, category=QUESTION)],
            "not_an_event amended",
            None,
            None,
            id="another question",
        ),
        pytest.param(
            [seen(0, 1, content=7), said(5, 1, "close"), seen(9, 1, content=8, offset=2, category=NOISE)],
            "opened amended",
            NOISE,
            3,
            id="after the end: it reopens nothing",
        ),
    ],
)
@pytest.mark.parametrize("sizes", [[1] * 5, []], ids=["one by one", "at once"])
def test_what_becomes_of_an_id_that_says_something_else(history, outcomes, category, version, sizes):
    dedupe = run_both(DOUBTS, history, sizes)
    again = dedupe_of(DOUBTS)
    rows = [one for one in history if isinstance(one, Row)]
    if len(rows) == len(history):
        assert [one.outcome for one in answers_of(again.apply(columns(rows)))] == outcomes.split()
    if category is not None:
        assert dedupe.count == 1
        assert (dedupe.incidents["category"][0], dedupe.incidents["version"][0]) == (category, version)


def test_an_amendment_may_make_what_is_suspected_believed():
    """A camera that is believed too little about a noise is believed about a manhole, for the city asks less there."""
    catalogue = DOUBTING_CATALOGUE_TOML.replace("confirm_below = 0.85", "confirm_below = 0.75")
    history = [seen(0, 1, content=7, category=NOISE), seen(1, 2, VIDEO), seen(9, 1, content=8, offset=3)]
    dedupe = run_both(make_pack(city=DOUBTING_CITY_TOML, catalogue=catalogue), history)
    assert STATUSES[dedupe.incidents["status"][0]] == "open"


def test_a_ticket_without_a_place_is_placed_by_its_amendment_and_found_there():
    history = [
        row(0, content=7, where=None),
        row(1, content=8, offset=2, accuracy_cm=900),
        row(2, key=2, where=(100, 0)),
        row(3, content=9, offset=4, where=(50_000, 0)),  # the place that it has stays
        row(4, key=3, where=(0, 100)),
    ]
    dedupe = run_both(PACKS["the equator"][0], history, [1, 1, 3])
    assert (dedupe.count, dedupe.incidents["report_count"][0], dedupe.incidents["accuracy_cm"][0]) == (1, 3, 900)


@pytest.mark.parametrize("is_dropped", [False, True])
def test_an_amendment_with_a_longer_window_is_found_again_whether_or_not_the_tables_were_rebuilt(is_dropped):
    catalogue = CATALOGUE_TOML.replace("window_s = 7200", "window_s = 86400")
    questions = [row(9000, key=key, category=QUESTION) for key in range(10, 5010 if is_dropped else 11)]
    history = [
        row(0, content=7),
        row(7000, content=7, offset=2),
        *questions,
        row(9001, content=8, offset=3, category=NOISE),
        row(9002, key=2, category=NOISE),
    ]
    dedupe = run_both(make_pack(catalogue=catalogue), history, [1, 1, len(questions), 1, 1])
    assert (dedupe.count, dedupe.incidents["report_count"][0]) == (1, 2)


def test_witnesses_are_forgotten_with_their_time_and_the_count_stays():
    history = [
        seen(number * 10, number + 1, HOTLINE, f"caller {number}", where=(number % 50 * 300_000, 0))
        for number in range(9000)
    ]
    dedupe = run_both(DOUBTS, history, [1000] * 9)
    assert len(dedupe._witnesses) == 8192, "room for a batch and the last two hours"
    assert dedupe.incidents["witness_count"].sum() == 9000


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-5, 5), st.booleans()), max_size=12))
@example([(0, 0, False), (1, -5, False), (0, 5, False)])  # one that lags holds the watermark
@example([(0, 5, True), (1, 3, True)])  # all drained: the newest counts
def test_the_watermark_is_that_of_the_definition_and_never_goes_back(marks):
    pack = PACKS["the equator"][0]
    dedupe = dedupe_of(pack)
    oracle = Definition(pack, lateness_s=LATENESS_S, remember_s=REMEMBER_S)
    before = None
    for partition, newest_ms, drained in marks:
        dedupe.mark(2, partition, T0 + newest_ms, drained)
        oracle.tick(Tick(2, partition, T0 + newest_ms, drained))
        assert dedupe.watermark_ms == oracle.watermark_ms
        assert before is None or dedupe.watermark_ms >= before
        before = dedupe.watermark_ms


# ------------------------------------------------------------------------------------------------ size and splitting


def crowd(count: int, *, seed: int, hours: float) -> list[Row]:
    """Many reports over a neighbourhood: half join, some repeat, some come late, some are delivered again."""
    chance = random.Random(seed)
    made: list[Row] = []
    for number in range(count):
        at_ms = round(number * hours * 3_600_000 / count)
        if made and chance.random() < 0.05:
            made.append(chance.choice(made[-50:]))
            continue
        key = chance.choice(made[-500:]).key if made and chance.random() < 0.05 else (chance.getrandbits(64), number)
        made.append(
            row(
                at_ms / 1000,
                key=number,
                source=chance.randrange(4),
                where=(chance.randrange(-300_000, 300_000), chance.randrange(-300_000, 300_000)),
                time_ms=T0 + at_ms - chance.choice([0, 0, 1000, 599_000, 3_000_000]),
                accuracy_cm=chance.choice([0, 500, 5000]),
                category=chance.choice([MANHOLE, MANHOLE, KINDS["cover-noise"]]),
                content=chance.choice([0, 1, 1, 2]),
                witness=chance.choice(["", "a", "b"]),
                confidence=chance.choice([None, 0.3, 0.9]),
            )
        )
        made[-1] = Row(**{**made[-1].__dict__, "key": key})
    return made


def test_tables_that_grow_and_forget_change_no_answer():
    """Enough for both tables to be rebuilt several times, with expired incidents and ids left behind."""
    dedupe = run_both(PACKS["the equator"][0], crowd(3500, seed=1, hours=40), [500] * 20)
    assert (dedupe._squares["incident"] >= 0).sum() < dedupe.count / 2, (
        "most incidents can match no more and were dropped"
    )
    assert dedupe._keys["used"].sum() < 3000


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_no_split_into_batches_changes_an_answer_or_the_state(size):
    pack, history = PACKS["a city that doubts"][0], crowd(3000, seed=2, hours=6)
    whole, split = dedupe_of(pack), dedupe_of(pack)
    at_once = whole.apply(columns(history))
    parts = [split.apply(columns(history[start : start + size])) for start in range(0, len(history), size)]
    for name in (
        "outcome",
        "incident",
        "how",
        "judged_by",
        "distance_cm2",
        "gap_ms",
        "allowed_cm",
        "behind_ms",
        "runner_up",
    ):
        assert (np.concatenate([getattr(part, name) for part in parts]) == getattr(at_once, name)).all(), name
    assert whole.count == split.count
    state = [name for name in whole.incidents.dtype.names if name not in ("changed_in", "squared")]
    assert (whole.incidents[state][: whole.count] == split.incidents[state][: whole.count]).all()
    assert whole.watermark_ms == split.watermark_ms
    assert {REDELIVERED, AMENDED} <= set(at_once.outcome.tolist())
    assert {SUSPECTED, OPEN} == set(whole.incidents["status"][: whole.count].tolist())


def test_kernels_call_kernels_of_their_own_module_only():
    """numba's cache knows when this module has changed, and no other: a callee elsewhere would go on as it was."""
    kernels = {name: one for name, one in vars(dedupe_kernels).items() if hasattr(one, "py_func")}
    assert {"decide", "advance", "_find_key"} <= kernels.keys()
    assert {one.py_func.__module__ for one in kernels.values()} == {"streams.dedupe_kernels"}


def test_the_self_check_sees_a_count_that_does_not_add_up():
    dedupe = run_both(PACKS["the equator"][0], [row(0)])
    dedupe.incidents["by_source"][0, 1] += 1
    with pytest.raises(AssertionError, match="counts by source add up"):
        dedupe.check()
