"""Learning from labels: what was planted is found, what is unknown stays unknown, and the dial does what it says."""

from __future__ import annotations

import numpy as np
import pytest
from planted_events import CATALOGUE_TOML, DAY_MS, pack_files, reported

from streams.evaluation import NONE, read_truth
from streams.fitting import START, Effort, Fitted, figures, figures_before, figures_expected, fit, incidents_of, worth
from streams.labels import LabelError, LabelledReports, LabelledStream
from streams.match_writing import WritingError, fitted_catalogue
from streams.pack import CityPack, parse_pack
from streams.privacy import TEST_KEY

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


def test_few_labels_move_a_group_less_than_many(labelled):
    """Of the trees only two events are labelled: their row stays nearer to that of all groups."""
    trees = labelled.reports.category == labelled.pack.category_index("tree")
    events = np.unique(labelled.cluster[trees & (labelled.cluster != NONE)])
    few = labelled.hiding(trees & ~np.isin(labelled.cluster, events[:3]))
    steps = {name: distance(fit(one, effort=EFFORT)) for name, one in (("few", few), ("many", labelled))}
    assert steps["few"] <= steps["many"]


def distance(fitted: Fitted) -> int:
    row = fitted.rows.get("trees", fitted.common)
    return sum(row[name] != fitted.common[name] for name in START)


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
