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
from dedupe_definition import (
    BEFORE_ITS_END,
    FIXED_POINT,
    IN_WINDOW,
    REOPENS,
    STEPS,
    Answer,
    Definition,
    Open,
    Row,
    Said,
    Tick,
    log_points,
    mixed,
    rival_points,
    scales,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams import dedupe_kernels
from streams.dedupe import _TEXT_POINTS, Decided, Dedupe, DedupeRules
from streams.dedupe_kernels import AMENDED, NEVER, OUTCOMES, RECURRENCE, REDELIVERED, TERMS
from streams.feedback import ACTIONS, OPEN, STATUSES, SUSPECTED, Feedback, columns_of
from streams.pack import CityPack
from streams.reports import NO_POSITION, LocatedReports
from streams.terms import PackTerms
from streams.witnesses import UNKNOWN_ODDS, confidence_of

LATENESS_S = 600
REMEMBER_S = 7200
T0 = 1_772_323_200_000

WEIGHTS_TOML = """
[match]
prior = -60
spread_m = 12
alike_km2 = 40
decay_s = 900
same_place = 70
same_place_window_s = 10800
same_place_decay_s = 5400
busy_percent = 60
rival_percent = 80
gap_percent = 130
rhythm_percent = 15
unrelated = 0.1
reopening = -25
sigmas = 2
rethink = 20
rethink_s = 5000
[match.pairs]
patrol-patrol = -150
hotline-patrol = 40
video-video = -37
[match.again]
iot = -20
hotline = 110
patrol = -90
"""
OWN_WEIGHTS_TOML = """[category.match]
prior = 15
same_place_m = 0
text_percent = 250
busy_percent = 0
[category.match.pairs]
iot-iot = 90
patrol-patrol = 0
[category.match.again]
iot = 45
hotline = 0
"""
RELATED_TOML = """
[[related]]
a = "manhole"
b = "cover-noise"
similarity = 0.62
"""


def weighing(
    catalogue: str, common: str = WEIGHTS_TOML, own: str = OWN_WEIGHTS_TOML, related: str = RELATED_TOML
) -> str:
    """A catalogue whose categories are weighed; that of noises in a way of its own."""
    noise = catalogue.index('code = "cover-noise"')
    end = catalogue.index("[[category]]", noise)
    return catalogue[:end] + own + catalogue[end:] + related + common


WITHOUT_A_PRIOR = weighing(
    CATALOGUE_TOML, WEIGHTS_TOML.replace("prior = -60\n", ""), OWN_WEIGHTS_TOML.replace("prior = 15\n", ""), ""
)
EASILY_CONVINCED = weighing(
    DOUBTING_CATALOGUE_TOML,
    WEIGHTS_TOML.replace("prior = -60", "prior = 100").replace("rethink = 20", "rethink = -300"),
    OWN_WEIGHTS_TOML.replace("prior = 15", "prior = 300"),
)

PACKS = {
    "the equator": (make_pack(), (0, 0)),
    "far north": (make_pack(middle=(25.0, 71.0)), (250_000_000, 710_000_000)),
    "south-west": (make_pack(middle=(-70.0, -33.5)), (-700_000_000, -335_000_000)),
    "a city that doubts": (make_pack(city=DOUBTING_CITY_TOML, catalogue=DOUBTING_CATALOGUE_TOML), (0, 0)),
    "a city that weighs": (make_pack(catalogue=weighing(CATALOGUE_TOML)), (0, 0)),
    "one that takes the best": (
        make_pack(catalogue=WITHOUT_A_PRIOR, middle=(25.0, 71.0)),
        (250_000_000, 710_000_000),
    ),
    "one that thinks again": (make_pack(city=DOUBTING_CITY_TOML, catalogue=EASILY_CONVINCED), (0, 0)),
}
KINDS = {category.code: number for number, category in enumerate(PACKS["the equator"][0].categories)}
MANHOLE = KINDS["manhole"]


# ------------------------------------------------------------------------------------------- running the two of them


def dedupe_of(pack: CityPack, *, one_clock: bool = False) -> Dedupe:
    return Dedupe(PackTerms(pack), lateness_s=LATENESS_S, remember_s=REMEMBER_S, one_clock=one_clock)


def definition_of(pack: CityPack, *, one_clock: bool = False) -> Definition:
    return Definition(
        pack,
        lateness_s=LATENESS_S,
        remember_s=REMEMBER_S,
        text_points=_TEXT_POINTS.tolist(),
        one_clock=one_clock,
    )


def feedback_of(said: Sequence[tuple[int, Said]]) -> list[Feedback]:
    return [
        Feedback(
            before, [action.value for action in ACTIONS].index(one.action), one.group, *one.key,
            mixed(one.id + 1000) ^ mixed(int.from_bytes(one.group.encode())),
            mixed(one.key[0] * 3 + one.key[1] + 1), one.time_ms, one.ingested_ms,
            0, one.offset, 0, "", None, b"", one.duplicate_of,
        )
        for before, one in said
    ]  # fmt: skip


ORIGINALS = {str(number): number for number in range(4)}
"""What incidents may be called duplicates of, by the number that the core knows it by."""
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
        cell=[row.cell for row in rows],
        key_hi=[row.key[0] for row in rows],
        key_lo=[row.key[1] for row in rows],
        content=[row.content for row in rows],
        confidence=[np.nan if row.confidence is None else row.confidence for row in rows],
        device_key=[row.device for row in rows],
        asset_key=[row.asset for row in rows],
        address_key=[row.address for row in rows],
        signature=np.array([row.signature for row in rows], np.uint64).reshape(-1, 4),
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


HOW = {IN_WINDOW: 1, BEFORE_ITS_END: 2, REOPENS: 3}
SAME = (None, "spot", "device", "asset", "address")


def assert_same_match(decided: Decided, row: int, answer: Answer) -> None:
    assert (decided.loose_at[row] >= 0) == answer.is_loose
    if answer.outcome in ("redelivered", "repeat", "amended", "not_an_event"):
        return
    assert decided.behind_ms[row] == answer.behind_ms
    assert (decided.how[row] == RECURRENCE) == (answer.recurrence_of is not None)
    best, runner_up = answer.best, answer.runner_up
    if best is None:
        assert decided.how[row] in (0, RECURRENCE)
    else:
        assert dict(zip(TERMS, decided.terms[row].tolist(), strict=True)) == best.terms
        assert (decided.how[row], decided.score[row], decided.distance_cm2[row], decided.allowed_cm[row]) == (
            HOW[best.how], best.score, best.cm2, best.allowed_cm
        )  # fmt: skip
        assert SAME[decided.same[row]] == best.same
        assert decided.gap_ms[row] == answer.gap_ms
    if runner_up is None:
        assert decided.runner_up[row] == -1
    else:
        assert (decided.runner_up[row], decided.runner_up_cm2[row], decided.runner_up_score[row]) == (
            runner_up.number, runner_up.cm2, runner_up.score
        )  # fmt: skip


def assert_same_corrections(
    decided: Decided, rows: Sequence[Row], answers: Sequence[Answer], waiting: dict[int, Row]
) -> None:
    """``waiting`` are the loose reports by their places, which the core may give to others."""
    corrected: list[dict[str, object]] = []
    events = [(number, None) for number in np.flatnonzero(decided.loose_at >= 0).tolist()]
    events += [(int(one["row"]), one) for one in decided.corrections]
    for number, one in sorted(events, key=lambda event: event[0]):
        if one is None:
            waiting[int(decided.loose_at[number])] = rows[number]
            continue
        told = {name: one[name].item() for name in ("left", "left_score", "joined", "score", "cm2", "allowed_cm")}
        its_terms = dict(zip(TERMS, one["terms"].tolist(), strict=True))
        corrected.append(
            {"row": number, "report": waiting.pop(int(one["loose_at"])), "gap_ms": int(one["gap_ms"]),
             "same": SAME[one["same"]], "terms": its_terms, **told}
        )  # fmt: skip
    assert corrected == [
        {"row": number, "report": one.report, "gap_ms": one.gap_ms, "same": one.joined.same,
         "terms": one.joined.terms, "left": one.left, "left_score": one.left_score, "joined": one.joined.number,
         "score": one.joined.score, "cm2": one.joined.cm2, "allowed_cm": one.joined.allowed_cm}
        for number, answer in enumerate(answers)
        for one in answer.corrections
    ]  # fmt: skip


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
        None if row["merged_into"] < 0 else str(row["merged_into"]),
        int(row["witness_count"]),
        None if row["odds"] == UNKNOWN_ODDS else int(row["odds"]),
        int(row["accuracy_cm"]),
        int(row["cell"]),
    )


def run_both(
    pack: CityPack, steps: Sequence[Row | Said | Tick], sizes: Iterable[int] = (), *, one_clock: bool = False
) -> Dedupe:
    """Feed both, the kernel in batches of the given sizes, and compare after each batch."""
    dedupe = dedupe_of(pack, one_clock=one_clock)
    groups = PackTerms(pack).groups
    oracle = definition_of(pack, one_clock=one_clock)
    loose: dict[int, Row] = {}
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
            compare_batch(dedupe, oracle, batch, groups, loose)
    return dedupe


def compare_batch(
    dedupe: Dedupe,
    oracle: Definition,
    batch: Sequence[Row | Said],
    groups: dict[str, int],
    loose: dict[int, Row],
) -> None:
    known = {(number, source) for number, one in enumerate(oracle.incidents) for source in range(4)
             if one.by_source[source]}  # fmt: skip
    rows: list[Row] = []
    said: list[tuple[int, Said]] = []
    answers: list[Answer] = []
    heard: list[tuple[str, int | None]] = []
    # What must be told of each incident, in order: when, how it stood, and whether it must be told even if it is not
    # the last: an opening, a reopening, a further source, a confirmation, an amendment, a correction, feedback.
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
            is_reopened = answer.best is not None and answer.best.how == REOPENS
            is_due |= (answer.incident, step.source) not in known or is_reopened
            known.add((answer.incident, step.source))
        history[answer.incident].append((2 * len(rows) - 1, oracle.incidents[answer.incident], is_due))
        for left in {one.left for one in answer.corrections}:
            history[left].append((2 * len(rows) - 1, oracle.incidents[left], True))
    decided = dedupe.apply(columns(rows), feedback=columns_of(feedback_of(said), groups, ORIGINALS))
    dedupe.check()
    assert answers_of(decided) == [Answer(answer.outcome, answer.incident) for answer in answers]
    for number, answer in enumerate(answers):
        assert_same_match(decided, number, answer)
    assert_same_corrections(decided, rows, answers, loose)
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


def _signatures() -> list[tuple[int, ...]]:
    """No text, and texts alike and less alike: some bits of one signature turned, on the borders of fours and more."""
    chance = random.Random(4)
    one = chance.getrandbits(256)
    made = [(0, 0, 0, 0)]
    for bits in (0, 3, 4, 31, 64, 100, 128, 256):
        turned = one ^ sum(1 << bit for bit in chance.sample(range(256), bits))
        made.append(tuple(turned >> 64 * word & 2**64 - 1 for word in range(4)))
    return made


SIGNATURES = _signatures()


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
                    draw(st.sampled_from([None, None, None, *ORIGINALS])),
                )
            )
            continue
        ingested = T0 + clock - draw(st.sampled_from([0, 0, 0, 1, 3_600_000, 7_200_000]))
        x, y = draw(st.sampled_from(spots))
        is_plain = draw(st.booleans())
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
                draw(st.sampled_from([0, 0, 499, 999, 1000, 1001, 500_000])),
                draw(
                    st.sampled_from([MANHOLE, MANHOLE, KINDS["cover-noise"], KINDS["question"], KINDS["street-light"]])
                ),
                draw(st.sampled_from(keys)),
                draw(st.sampled_from([0, 1, 1, 2])),
                draw(st.sampled_from(["", "a", "a", "b"])),
                draw(st.sampled_from([None, None, 0.0, 0.3, 0.5, 0.62, 0.8, 1.0])),
                # One key may be a device's, an asset's and an address's.
                *(0 if is_plain else draw(st.sampled_from([0, 0, 11, 12])) for _ in range(3)),
                (0, 0, 0, 0) if is_plain else draw(st.sampled_from(SIGNATURES)),
                number,
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


@pytest.mark.parametrize("place", ["the equator", "far north", "south-west", "one that takes the best"])
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


# --------------------------------------------------------------------------------------- anchors and second thoughts


def metres(east_m: float) -> tuple[int, int]:
    return round(east_m / 0.0111319491), 0


@pytest.mark.parametrize(
    ("founding_cm", "joining_cm", "moves"),
    [
        pytest.param(10_000, 5000, True, id="half as vague"),
        pytest.param(10_000, 5001, False, id="a little more than half"),
        pytest.param(1, 0, True, id="one that errs by nothing"),
        pytest.param(0, 0, False, id="neither errs"),
        pytest.param(0, 500, False, id="vaguer"),
    ],
)
def test_the_anchor_moves_to_whoever_is_at_most_half_as_vague(founding_cm, joining_cm, moves):
    first = row(0, accuracy_cm=founding_cm, cell=3)
    second = row(1, key=2, where=metres(30), accuracy_cm=joining_cm, cell=4)
    one = run_both(PACKS["the equator"][0], [first, second]).incidents[0]
    assert (one["lon_e7"], one["accuracy_cm"], one["cell"]) == (
        (metres(30)[0], joining_cm, 4) if moves else (0, founding_cm, 3)
    )


def test_what_joins_does_not_drag_the_incident_along():
    """Each 30 m from the one before it, and all as exact: only those near the first are of its incident."""
    chain = [row(step, key=step + 1, where=metres(30 * step), accuracy_cm=500) for step in range(4)]
    dedupe = run_both(PACKS["the equator"][0], chain)
    assert dedupe.incidents["report_count"][: dedupe.count].tolist() == [2, 2]


WEIGHS = PACKS["a city that weighs"][0]
SECOND_EVENT = [
    row(0, key=1, source=3, witness="worker 1"),
    row(60, key=2, source=2, where=metres(20), witness="caller"),
    row(120, key=3, source=3, where=metres(21), witness="worker 2"),
]
"""A grid worker files a heap; a caller tells of one 20 m off, which may be the same.  Then a grid worker files one
right where the caller saw it, and grid workers do not file one heap twice."""


@pytest.mark.parametrize("sizes", [[1] * 3, []], ids=["one by one", "at once"])
def test_a_loose_report_goes_with_the_incident_founded_beside_it(sizes):
    dedupe = run_both(WEIGHS, SECOND_EVENT, sizes)
    states = dedupe.incidents[: dedupe.count]
    assert states["report_count"].tolist() == states["witness_count"].tolist() == [1, 2]
    assert states["version"].tolist() == [3, 2]
    assert (states["last_ms"] - T0).tolist() == [0, 120_000]


@pytest.mark.parametrize(
    ("history", "counts"),
    [
        pytest.param([*SECOND_EVENT[:2], replace(SECOND_EVENT[2], category=KINDS["street-light"])], [2, 1],
                     id="another kind of event"),
        pytest.param([SECOND_EVENT[0], replace(SECOND_EVENT[1], asset=7), replace(SECOND_EVENT[2], asset=7)], [1, 2],
                     id="the same asset"),
        pytest.param([replace(SECOND_EVENT[0], asset=7), replace(SECOND_EVENT[1], asset=7), SECOND_EVENT[2]], [2, 1],
                     id="at its own place from the first"),
        pytest.param([*SECOND_EVENT, replace(SECOND_EVENT[1], offset=9)], [1, 2], id="and its repeat goes after it"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("sizes", [[1] * 4, []], ids=["one by one", "at once"])
def test_who_may_still_change_his_mind(history, counts, sizes):
    dedupe = run_both(WEIGHS, history, sizes)
    assert dedupe.incidents["report_count"][: dedupe.count].tolist() == counts


@pytest.mark.parametrize(("at_s", "counts"), [(660, [1, 2]), (660.001, [2, 1])])
def test_a_mind_is_changed_only_in_time(at_s, counts):
    """Ten minutes by the watermark, which stood at the loose report when it came and stands at this one now."""
    pack = make_pack(catalogue=weighing(CATALOGUE_TOML, WEIGHTS_TOML.replace("rethink_s = 5000", "rethink_s = 600")))
    first, second, _ = SECOND_EVENT
    third = row(at_s, key=3, source=3, where=metres(21))
    history = [first, Tick(3, 0, T0 + 60_000, False), second, Tick(2, 0, third.mark_ms, False), third]
    dedupe = run_both(pack, history)
    assert dedupe.incidents["report_count"][: dedupe.count].tolist() == counts


def test_loose_reports_are_let_go_in_time():
    """Pairs of reports all day, each loose for as long as it may be; their places are used again."""
    history = [
        row(
            30 * number + second, key=2 * number + second + 1, where=(number % 100 * 30_000 + metres(15 * second)[0], 0)
        )
        for number in range(4000)
        for second in (0, 1)
    ]
    dedupe = dedupe_of(WEIGHS)
    loose = 0
    for start in range(0, len(history), 400):
        decided = dedupe.apply(columns(history[start : start + 400]))
        dedupe.check()
        loose += int((decided.loose_at >= 0).sum())
    assert loose > 3000
    assert len(dedupe._loose) == 2048, "room for a batch and those of the last hour and a half"


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
        row(2, key=2, where=(100, 0), accuracy_cm=900),
        row(3, content=9, offset=4, where=(50_000, 0)),  # the place that it has stays
        row(4, key=3, where=(0, 100), accuracy_cm=900),
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


@given(st.integers(1, 2**62))
def test_logarithms_are_whole_and_those_of_the_definition(number):
    points = dedupe_kernels.log_points(number)
    assert points == log_points(number)
    assert -2 < points - 100 * np.log10(number) <= 0


@given(st.integers(-5000, 5000))
def test_what_a_rival_takes_is_what_the_definition_says(points):
    assert dedupe_kernels.rival_points(points) == rival_points(points)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-5, 5), st.booleans()), max_size=12))
@example([(0, 0, False), (1, -5, False), (0, 5, False)])  # one that lags holds the watermark
@example([(0, 5, True), (1, 3, True)])  # all drained: the newest counts
def test_the_watermark_is_that_of_the_definition_and_never_goes_back(marks):
    pack = PACKS["the equator"][0]
    dedupe = dedupe_of(pack)
    oracle = definition_of(pack)
    before = None
    for partition, newest_ms, drained in marks:
        dedupe.mark(2, partition, T0 + newest_ms, drained)
        oracle.tick(Tick(2, partition, T0 + newest_ms, drained))
        assert dedupe.watermark_ms == oracle.watermark_ms
        assert before is None or dedupe.watermark_ms >= before
        before = dedupe.watermark_ms


# ------------------------------------------------------------------------------------------------ size and splitting


def crowd(count: int, *, seed: int, hours: float, far_e7: int = 300_000, places: int = 0) -> list[Row]:
    """Many reports over a neighbourhood: half join, some repeat, some come late, some are delivered again.

    ``places``: of so many devices, assets and addresses they speak, some in words.
    """
    chance = random.Random(seed)

    def place() -> int:
        return chance.randrange(1, places + 1) if places and chance.random() < 0.1 else 0

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
                where=(chance.randrange(-far_e7, far_e7), chance.randrange(-far_e7, far_e7)),
                time_ms=T0 + at_ms - chance.choice([0, 0, 1000, 599_000, 3_000_000]),
                accuracy_cm=chance.choice([0, 500, 5000]),
                category=chance.choice([MANHOLE, MANHOLE, KINDS["cover-noise"]]),
                content=chance.choice([0, 1, 1, 2]),
                witness=chance.choice(["", "a", "b"]),
                confidence=chance.choice([None, 0.3, 0.9]),
                device=place(),
                asset=place(),
                address=place(),
                signature=chance.choice(SIGNATURES) if places else SIGNATURES[0],
                cell=number,
            )
        )
        made[-1] = Row(**{**made[-1].__dict__, "key": key})
    return made


def test_tables_that_grow_and_forget_change_no_answer():
    """Enough for both tables to be rebuilt several times, with expired incidents and ids left behind."""
    dedupe = run_both(PACKS["the equator"][0], crowd(3500, seed=1, hours=40), [500] * 20)
    assert (dedupe._squares["incident"] >= 0).sum() < dedupe.count * 0.7, (
        "many incidents can match no more and were dropped"
    )
    assert dedupe._keys["used"].sum() < 3000


@pytest.mark.parametrize("place", ["a city that weighs", "one that takes the best", "one that thinks again"])
def test_a_crowd_is_weighed_as_the_definition_weighs_it(place):
    """Thousands, so that all tables grow, with the marks of places and the loose reports."""
    pack, (lon, lat) = PACKS[place]
    history = [
        replace(one, where=None if one.where is None else (lon + one.where[0], lat + one.where[1]))
        for one in crowd(1500, seed=3, hours=12, far_e7=60_000, places=300)
    ]
    run_both(pack, history, [1, 2, 400, 7, 300])


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("place", ["a city that doubts", "one that thinks again"])
def test_no_split_into_batches_changes_an_answer_or_the_state(place, size):
    pack = PACKS[place][0]
    is_dense = place == "one that thinks again"
    history = crowd(3000, seed=2, hours=6, far_e7=60_000 if is_dense else 300_000, places=300 if is_dense else 0)
    whole, split = dedupe_of(pack), dedupe_of(pack)
    at_once = whole.apply(columns(history))
    parts = [split.apply(columns(history[start : start + size])) for start in range(0, len(history), size)]
    for name in (
        "outcome",
        "incident",
        "how",
        "judged_by",
        "same",
        "score",
        "terms",
        "distance_cm2",
        "gap_ms",
        "allowed_cm",
        "behind_ms",
        "runner_up",
        "runner_up_cm2",
        "runner_up_score",
    ):
        assert (np.concatenate([getattr(part, name) for part in parts]) == getattr(at_once, name)).all(), name
    assert whole.count == split.count
    corrected = np.concatenate([part.corrections for part in parts])
    told = [name for name in corrected.dtype.names if name not in ("row", "loose_at")]
    assert (corrected[told] == at_once.corrections[told]).all()
    assert (len(corrected) > 10) == is_dense
    # Where the loose reports stand, and since when they can go no more, is nobody's business.
    inner = ("changed_in", "squared", "loose", "firm_first_ms", "firm_last_ms")
    state = [name for name in whole.incidents.dtype.names if name not in inner]
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
