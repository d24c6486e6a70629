"""What grid workers file of their own accord: rows of things of one kind along a street."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from packs import make_sample
from streams.error_model import read_error_model
from streams.pack import load_pack
from streams.simulated_chance import Chance
from streams.simulated_city import SimulatedCity, metres
from streams.simulated_events import Span
from streams.simulated_rounds import events, rows
from streams.simulation import simulate

MONDAY = datetime.fromisoformat("2026-06-01T00:00:00+08:00")
ROUNDS_ONLY = """
[events]
per_day = 0
[storm]
per_day = 0
[patrol.rounds]
per_day = 40
"""


@pytest.fixture(scope="module")
def pack():
    return load_pack(Path(make_sample.__file__).parent / "sample")


def drawn(pack, text, days=3):
    model = read_error_model(text)
    start_ms = round(MONDAY.timestamp() * 1000)
    span = Span(start_ms, start_ms + days * 86_400_000, MONDAY.tzinfo, {})
    return list(rows(SimulatedCity(pack, {}), model, Chance(1), span, 1.0)), model, span


def test_a_row_is_of_one_kind_along_a_street_one_case_after_the_other_while_workers_are_out(pack):
    found, model, span = drawn(pack, ROUNDS_ONLY)
    rounds = model.patrol.rounds
    begin, end = model.patrol.hours
    assert 0.7 * 120 < len(found) < 1.3 * 120
    assert {row.category.code for row in found} == set(rounds.kinds)
    assert max(len(row.cases) for row in found) == rounds.cases[1]
    for row in found:
        assert begin <= span.local(row.start_ms).hour < end
        for (lon1, lat1, ms1), (lon2, lat2, ms2) in pairwise(row.cases):
            assert rounds.apart_m[0] - 0.1 <= metres(lon1, lat1, lon2, lat2) <= rounds.apart_m[1] + 0.1
            assert rounds.apart_s[0] * 1000 <= ms2 - ms1 <= rounds.apart_s[1] * 1000
        if len(row.cases) > 2:
            whole_m = metres(*row.cases[0][:2], *row.cases[-1][:2])
            steps_m = sum(metres(*one[:2], *other[:2]) for one, other in pairwise(row.cases))
            assert whole_m == pytest.approx(steps_m, rel=1e-3), "a street is straight"


def test_each_case_is_an_event_of_its_own(pack):
    found, model, _ = drawn(pack, ROUNDS_ONLY)
    row = max(found, key=lambda one: len(one.cases))
    made = events(row, model, Chance(2), 70)
    assert [event.number for event in made] == list(range(70, 70 + len(row.cases)))
    assert [event.start_ms - row.start_ms for event in made] == [after_ms for _, _, after_ms in row.cases]
    assert all(event.end_ms > event.start_ms for event in made)


def test_a_day_as_shipped_has_no_rounds(pack):
    assert drawn(pack, "[events]\nper_day = 0")[0] == []


def test_kinds_that_weigh_nothing_or_are_no_category_of_the_pack_are_never_filed(pack):
    none = "".join(f"'{code}' = 0\n" for code in read_error_model().patrol.rounds.kinds)
    kinds = f"[patrol.rounds.kinds]\n{none}'99999' = 5\n"
    assert drawn(pack, f"{ROUNDS_ONLY}\n{kinds}")[0] == []
    found, _, _ = drawn(pack, f"{ROUNDS_ONLY}\n{kinds}'06036' = 1\n")
    assert {row.category.code for row in found} == {"06036"}


def test_what_only_workers_mind_is_filed_once_by_one_of_them(pack):
    """And hardly ever by a second: that tells rows from what many report."""
    made = simulate(pack, read_error_model(ROUNDS_ONLY), seed=3, start=MONDAY, hours=72)
    cases = Counter(row.cluster_id for row in made.truth if row.cluster_id.startswith("e"))
    assert {row.source for row in made.truth if row.cluster_id.startswith("e")} == {"patrol"}
    assert len(cases) == made.events > 300
    assert sum(count > 1 for count in cases.values()) / len(cases) < 0.02
