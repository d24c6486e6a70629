"""Learning from labels: what was planted is found, what is unknown stays unknown, and the dial does what it says."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from planted_events import CATALOGUE_TOML, DAY_MS, pack_files, reported

from streams.evaluation import NONE, read_truth
from streams.fitting import (
    OWN_ROW_LABELS,
    Effort,
    Fitted,
    figures,
    figures_before,
    figures_expected,
    fit,
    incidents_of,
    worth,
)
from streams.labels import LabelError, LabelledReports, LabelledStream
from streams.match_writing import WritingError, fitted_catalogue, fitted_pairs
from streams.pack import CityPack, parse_pack
from streams.privacy import TEST_KEY
from streams.recording import RecordedMessage

EFFORT = Effort(restarts=1, few=0)


def labelled_of(seed: int, truth: str | None = None) -> LabelledReports:
    messages, said = reported(seed)
    stream = LabelledStream(parse_pack(pack_files()), TEST_KEY)
    for at in range(0, len(messages), 100):
        stream.take(messages[at : at + 100])
    return stream.labelled(read_truth((said if truth is None else truth).splitlines()))


@pytest.fixture(scope="module")
def labelled() -> LabelledReports:
    return labelled_of(1)


@pytest.fixture(scope="module")
def fitted(labelled) -> Fitted:
    return fit(labelled, effort=EFFORT)


def test_what_was_planted_is_found(labelled, fitted):
    """Lamps 25 m apart are told apart, trees 50 m apart are put together: the pack had it the wrong way round."""
    before, after = figures_before(labelled), figures(fitted.incidents(), labelled)
    assert before.pair_f1 < 0.6
    assert after.pair_f1 > 0.95
    assert after.join_unflagged < before.join_unflagged


def test_it_holds_for_reports_that_nothing_was_learnt_from(fitted):
    other = labelled_of(2)
    after = figures(Fitted(other, fitted.common, fitted.rows, fitted.labels).incidents(), other)
    assert figures_before(other).pair_f1 < 0.6
    assert after.pair_f1 > 0.85


def test_what_is_expected_lies_between_the_pack_as_it_was_and_what_was_learnt_by_heart(labelled, fitted):
    before, after = figures_before(labelled), figures(fitted.incidents(), labelled)
    expected = figures_expected(labelled, effort=Effort(0, 0))
    assert before.pair_f1 < expected.pair_f1 <= after.pair_f1 + 1e-9


def test_a_category_that_is_never_flagged_keeps_radius_and_window_and_may_join(labelled, fitted):
    """Forty pairs of unflagged reports at one place are no proof that bins overflow once."""
    assert "bins" not in fitted.rows
    was = labelled.pack.categories[labelled.pack.category_index("bin")]
    now = fitted.category(was)
    assert (now.radius_m, now.window_s) == (was.radius_m, was.window_s)
    bins = labelled.reports.category == labelled.pack.category_index("bin")
    incident = fitted.incidents()[bins]
    assert len(np.unique(incident)) < len(incident)


def with_labelled_trees(labelled: LabelledReports, least: int) -> tuple[LabelledReports, int]:
    """The same reports, but of the trees only so many, or one or two more, are labelled; and how many."""
    trees = labelled.reports.category == labelled.pack.category_index("tree")
    events, first = np.unique(labelled.cluster[trees & (labelled.cluster != NONE)], return_counts=True)
    kept = events[: int(np.searchsorted(np.cumsum(first), least)) + 1]
    part = labelled.hiding(trees & ~np.isin(labelled.cluster, kept))
    return part, int(np.count_nonzero(trees & (part.cluster != NONE)))


def test_with_few_labels_a_group_keeps_the_reach_of_its_pack_and_is_weighed_as_all_are(labelled):
    """A handful of labels may all lie within a minute of each other; that the rest is unflagged proves nothing."""
    few, count = with_labelled_trees(labelled, OWN_ROW_LABELS // 2)
    assert count < OWN_ROW_LABELS
    fitted = fit(few, effort=EFFORT)
    assert "trees" not in fitted.rows
    was = labelled.pack.categories[labelled.pack.category_index("tree")]
    now = fitted.category(was)
    assert (now.radius_m, now.window_s) == (was.radius_m, was.window_s)
    assert now.match.prior == fitted.common["prior"]


def test_what_is_written_of_a_group_with_few_labels_is_what_was_fitted(labelled):
    """Its own [category.match] was another's, or an earlier fit's; what is never fitted stays in it."""
    few, _ = with_labelled_trees(labelled, OWN_ROW_LABELS // 2)
    fitted = fit(few, effort=EFFORT)
    read = parse_pack({**pack_files(), "catalogue.toml": catalogue(fitted, labelled.pack)})
    tree = read.categories[read.category_index("tree")]
    assert tree.match.spread_m == fitted.common["spread_m"]
    assert tree.match.rethink == 70


def test_with_enough_labels_a_group_has_a_row_of_its_own(labelled):
    enough, count = with_labelled_trees(labelled, OWN_ROW_LABELS)
    assert count < OWN_ROW_LABELS + 5
    assert "trees" in fit(enough, effort=EFFORT).rows


def test_a_dearer_unflagged_join_never_makes_more_of_them(labelled):
    joins = [figures(fit(labelled, dial=dial, effort=EFFORT).incidents(), labelled).joins for dial in (0.0, 0.1, 2.0)]
    assert joins[0] >= joins[1] >= joins[2]
    assert joins[0] > joins[2]


def test_the_same_labels_and_seed_give_the_same_catalogue(labelled, fitted):
    again = fit(labelled_of(1), effort=EFFORT)
    assert catalogue(again, labelled.pack) == catalogue(fitted, labelled.pack)


def test_nothing_that_happens_later_is_learnt_from(labelled):
    until = DAY_MS + 15 * 86_400_000
    early = labelled.before(until)
    assert (early.reports.time_ms < until).all()
    sizes = np.bincount(early.cluster[early.cluster != NONE])
    assert not (sizes == 1).any(), "of an event that begins before and goes on after, one report alone tells nothing"


def catalogue(fitted: Fitted, pack: CityPack, text: str = CATALOGUE_TOML) -> bytes:
    return fitted_catalogue({**pack_files(), "catalogue.toml": text.encode()}, pack, fitted, 0.05)


def test_the_catalogue_reads_back_as_what_was_learnt(labelled, fitted):
    """And a replay with it decides as the fit saw it decide."""
    files = {**pack_files(), "catalogue.toml": catalogue(fitted, labelled.pack)}
    pack = parse_pack(files)
    assert not pack.warnings
    stream = LabelledStream(pack, TEST_KEY)
    stream.take(reported(1)[0])
    again = stream.labelled(read_truth(reported(1)[1].splitlines()))
    incident = incidents_of(again.reports, again.terms.categories[: len(pack.categories)], again.terms)
    assert incident.tolist() == fitted.incidents().tolist()


def test_what_a_person_wrote_stays(labelled, fitted):
    text = catalogue(fitted, labelled.pack).decode()
    fitted_keys = ("radius_m", "window_s", "spread_m")
    kept = [line for line in CATALOGUE_TOML.splitlines() if line and not line.startswith(fitted_keys)]
    lines = iter(text.splitlines())
    assert [line for line in kept if line not in lines] == [], "every other line is there, in its order"
    assert "# as far as one sees" in text
    assert "rethink = 70" in text


def test_a_second_fit_replaces_what_the_first_one_wrote(labelled, fitted):
    once = catalogue(fitted, labelled.pack)
    pack = parse_pack({**pack_files(), "catalogue.toml": once})
    assert fitted_catalogue({**pack_files(), "catalogue.toml": once}, pack, fitted, 0.05) == once


def test_a_catalogue_that_cannot_be_edited_is_refused_in_words(labelled, fitted):
    text = CATALOGUE_TOML.replace("[category.match]\nspread_m = 5\nrethink = 70\n", "match = { spread_m = 5 }\n")
    pack = parse_pack({**pack_files(), "catalogue.toml": text.encode()})
    with pytest.raises(WritingError, match="a line for each key"):
        catalogue(fitted, pack, text)


@pytest.mark.parametrize(
    ("truth", "says"),
    [
        ("report_id,cluster_id\nelsewhere,1\n", "none of them, such as 'elsewhere', is in the recording"),
        ("report_id,cluster_id\n", "none of them is in the recording"),
        ("report_id,cluster_id\nr1,\nr2,\n", "no category group has 4 labelled reports"),
    ],
)
def test_a_truth_that_teaches_nothing_is_refused_in_words(truth, says):
    with pytest.raises(LabelError, match=says):
        fit(labelled_of(1, truth), effort=EFFORT)


def test_worth_by_hand():
    """Two events of two: one whole, the other's reports apart, and an unflagged stranger joined to the first."""
    incident = np.array([0, 0, 1, 2, 0])
    cluster = np.array([0, 0, 1, 1, NONE])
    flag = np.array([0, 1, 0, 1, 0])
    # Recall of each labelled report: 1, 1, 1/2, 1/2; precision 1 throughout; one unflagged join.
    assert worth(incident, cluster, flag, 0.1) == pytest.approx(-1.0 - 0.1)
    # Flagged as a duplicate of nobody knows what, it is worth something that it joined.
    assert worth(incident, cluster, np.array([0, 1, 0, 1, 1]), 0.1) == pytest.approx(-1.0 + 0.5)


# ------------------------------------------------------------------------- categories taken for one another

ALIKE_TOML = """\
[[category]]
code = "lamp"
name = "路灯不亮"
group = "lights"
radius_m = 20
window_s = 7200
[[category]]
code = "dark"
name = "道路昏暗"
group = "lights"
radius_m = 20
window_s = 7200
[[category]]
code = "wire"
name = "架空线缆脱落"
group = "lights"
radius_m = 20
window_s = 7200
"""


def reported_alike(toml: str = ALIKE_TOML) -> LabelledReports:
    """Of a lamp that fails one caller says `lamp`, the next `dark`; a wire that comes down there is another event."""
    chance = random.Random(5)
    messages, truth = [], ["report_id,cluster_id,is_duplicate"]
    for event in range(60):
        place, begin_ms = 200.0 * event, DAY_MS + event * 7_200_000
        said = [("lamp", "l"), (chance.choice(("lamp", "dark")), "l"), ("wire", "w"), ("wire", "w")]
        for number, (category, which) in enumerate(said):
            name, time_ms = f"e{event}-{number}", begin_ms + number * 60_000
            fields = {"id": name, "time": time_ms, "category": category, "lon": place / 111_319.491 - 0.04, "lat": 0.0}
            value = json.dumps(fields).encode()
            messages.append(RecordedMessage("hotline.tickets", value, 0, len(messages), time_ms))
            truth.append(f"{name},{which}{event},{number % 2}")
    stream = LabelledStream(parse_pack({**pack_files(), "catalogue.toml": toml.encode()}), TEST_KEY)
    stream.take(messages)
    return stream.labelled(read_truth(truth))


def test_categories_of_one_event_are_found_alike_and_others_are_not():
    labelled = reported_alike()
    fitted = fit(labelled)
    row = fitted.rows["lights"]
    assert row["dark|lamp"] > row["lamp|wire"]
    assert figures_before(labelled).pair_precision < 0.6
    assert figures(fitted.incidents(), labelled).pair_f1 > 0.95


def test_what_categories_have_to_do_with_each_other_is_written_and_read_back():
    """With the events that speak for it; and a second fit puts its own in the place of that."""
    labelled = reported_alike()
    fitted = fit(labelled)
    files = {**pack_files(), "catalogue.toml": ALIKE_TOML.encode()}
    once = fitted_catalogue(files, labelled.pack, fitted, 0.05)
    pack = parse_pack({**files, "catalogue.toml": once})
    assert set(pack.related) == set(fitted.related()) != set()
    assert "labelled events have reports of both" in once.decode()
    names = {frozenset((one.a, one.b)) for one in pack.related}
    assert fitted_pairs(once) == names
    again = reported_alike(once.decode())
    assert incidents_of(again.reports, again.terms.categories[:3], again.terms).tolist() == fitted.incidents().tolist()
    refitted = fit(again, anew=names)
    assert fitted_catalogue({**files, "catalogue.toml": once}, again.pack, refitted, 0.05) == once


def test_what_a_person_wrote_of_two_categories_stays():
    related = '[[related]]\na = "wire"\nb = "lamp"\nsimilarity = 0.9\n'
    labelled = reported_alike(ALIKE_TOML + related)
    fitted = fit(labelled)
    assert not any("lamp" in name and "wire" in name for name in fitted.rows["lights"])
    text = fitted_catalogue(
        {**pack_files(), "catalogue.toml": (ALIKE_TOML + related).encode()}, labelled.pack, fitted, 0.05
    ).decode()
    assert related in text
    assert fitted_pairs(text.encode()) == {frozenset((one.a, one.b)) for one in fitted.related()}
