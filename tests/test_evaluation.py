"""The figures of `evaluate` against their definitions, counted the slow way."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from agents.commands.evaluate import evaluate
from benchmarks import plain_rule
from streams import evaluation
from streams.evaluation import NONE, EvaluationError, read_answers, read_merges, read_truth, score

small = st.integers(0, 5)
reports = st.lists(st.tuples(small, small), min_size=1, max_size=25)


def columns(rows):
    return tuple(np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))


def ratio(part, whole):
    return part / whole if whole else None


@given(reports)
def test_pairwise_agrees_with_the_double_loop(rows):
    together = [(a[0] == b[0], a[1] == b[1]) for a, b in itertools.combinations(rows, 2)]
    right = sum(p and t for p, t in together)
    predicted, true = sum(p for p, _ in together), sum(t for _, t in together)
    expected = (ratio(right, predicted), ratio(right, true), ratio(2 * right, predicted + true))
    assert evaluation.pairwise(*columns(rows)) == expected


@given(reports)
def test_b_cubed_agrees_with_each_reports_own_share(rows):
    precision = recall = 0.0
    for p, t in rows:
        right = sum((p, t) == other for other in rows)
        precision += right / sum(p == q for q, _ in rows) / len(rows)
        recall += right / sum(t == u for _, u in rows) / len(rows)
    expected = (precision, recall, 2 * precision * recall / (precision + recall))
    assert evaluation.b_cubed(*columns(rows)) == pytest.approx(expected)


@given(reports)
def test_wrongly_merged_agrees_with_asking_each_event_for_its_majority(rows):
    majority = {}
    for event in {t for _, t in rows}:
        mine = [p for p, t in rows if t == event]
        majority[event] = min(mine, key=lambda p: (-mine.count(p), p))
    shared = [e for e, m in majority.items() if list(majority.values()).count(m) > 1]
    assert evaluation.wrongly_merged(*columns(rows)) == len(shared) / len(majority)


@given(st.lists(st.integers(NONE, 4), max_size=25))
def test_a_report_joins_an_earlier_one_when_its_incident_was_seen_before(incidents):
    slow = [i != NONE and i in incidents[:k] for k, i in enumerate(incidents)]
    assert evaluation.joins_an_earlier(np.array(incidents, dtype=np.int64)).tolist() == slow


@given(st.lists(st.tuples(st.integers(NONE, 3), st.integers(NONE, 1)), max_size=25))
def test_a_category_flags_when_a_hundredth_of_its_known_flags_are_set(rows):
    slow = []
    for category, _ in rows:
        flags = [f for c, f in rows if c == category and f != NONE]
        slow.append(category != NONE and bool(flags) and sum(flags) >= 0.01 * len(flags))
    category = np.array([c for c, _ in rows], dtype=np.int64)
    flags = np.array([f for _, f in rows], dtype=np.int64)
    assert evaluation.in_flagging_category(category, flags).tolist() == slow


def assignment(report_id, incident_id, *, source="hotline", origin=None, revision=0, outcome="opened", category="a"):
    return orjson.dumps(
        {
            "origin": origin or f"{source}:{report_id}",
            "revision": revision,
            "source": source,
            "report_id": report_id,
            "incident_id": incident_id,
            "outcome": outcome,
            "category": category,
        }
    )


@st.composite
def worlds(draw):
    """A truth of a few rows, and assignments of most of them and of some that the truth does not know."""
    ids = [f"r{i}" for i in range(draw(st.integers(1, 14)))]
    truth = {
        i: (draw(st.sampled_from(["", "x", "y", "z"])), draw(st.sampled_from(["0", "1"])), draw(st.sampled_from(ids)))
        for i in ids
    }
    known = draw(st.permutations([*ids, "other-1", "other-2"]))[: draw(st.integers(0, 16))]
    incident_of = {i: draw(st.sampled_from([None, "p", "q", "s"])) for i in known}
    category_of = {i: draw(st.sampled_from("ab")) for i in known}
    return truth, incident_of, category_of


@given(worlds())
def test_the_figures_agree_with_loops_over_reports(world):
    truth, incident_of, category_of = world
    lines = [assignment(i, incident_of[i], category=category_of[i]) for i in incident_of]
    table = ["report_id,cluster_id,is_duplicate,parent_id"] + [f"{i},{c},{f},{p}" for i, (c, f, p) in truth.items()]
    scores = score(read_answers(lines), read_truth(table))

    place = {i: incident_of.get(i) or f"alone {i}" for i in truth}
    order = list(incident_of)
    joined = {
        i for k, i in enumerate(order) if incident_of[i] and any(incident_of[j] == incident_of[i] for j in order[:k])
    }
    unflagged = [i for i, (_, flag, _) in truth.items() if flag == "0"]
    flagging = [
        i
        for i in unflagged
        if i in incident_of and any(truth[j][1] == "1" and category_of.get(j) == category_of[i] for j in truth)
    ]
    labelled = [i for i in truth if truth[i][0]]
    together = [(place[i] == place[j], truth[i][0] == truth[j][0]) for i, j in itertools.combinations(labelled, 2)]
    used = {i for i in incident_of.values() if i}
    counted = [i for i in incident_of if incident_of[i]]
    assert scores.pair_precision == ratio(sum(p and t for p, t in together), sum(p for p, _ in together))
    assert scores.pair_recall == ratio(sum(p and t for p, t in together), sum(t for _, t in together))
    assert scores.link_recall == ratio(sum(place[i] == place[p] for i, (_, _, p) in truth.items()), len(truth))
    assert scores.join_unflagged == ratio(len(joined & set(unflagged)), len(unflagged))
    assert scores.join_unflagged_in_flagging_categories == ratio(len(joined & set(flagging)), len(flagging))
    assert scores.collapsed == ratio(len(counted) - len(used), len(counted))
    assert scores.absent == sum(i not in incident_of for i in truth)


TRUTH = ["report_id,cluster_id", "1,x", "2,x", "3,y"]


def test_the_highest_revision_counts_and_the_first_on_request():
    lines = [
        assignment("1", "p"),
        assignment("2", "q"),
        assignment("3", "s"),
        assignment("2", "p", revision=2, outcome="joined"),
        assignment("2", "s", revision=1, outcome="joined"),
    ]
    truth = read_truth(TRUTH)
    assert score(read_answers(lines), truth).pair_recall == 1.0
    assert score(read_answers(lines, first_answers=True), truth).pair_recall == 0.0


def test_a_repeat_is_neither_another_report_nor_another_answer():
    lines = [
        assignment("1", "p"),
        assignment("1", "p", origin="again", outcome="repeat"),
        assignment("2", "p", outcome="joined"),
        assignment("3", "q"),
    ]
    scores = score(read_answers(lines), read_truth(TRUTH))
    assert (scores.reports, scores.repeats, scores.incidents) == (3, 1, 2)
    assert scores.collapsed == pytest.approx(1 / 3)


def test_a_repeat_that_comes_before_its_report_gives_way_to_it():
    lines = [assignment("1", "p", origin="again", outcome="repeat"), assignment("1", "q"), assignment("2", "q")]
    answers = read_answers(lines)
    assert answers.incident.tolist() == [0, 0]


def test_merged_incidents_are_followed_to_the_end_of_the_chain():
    merges = read_merges(
        [
            b'{"incident_id":"p","merged_into":"q"}',
            b'{"incident_id":"q","merged_into":"s"}',
            b'{"incident_id":"s","merged_into":null}',
        ]
    )
    lines = [assignment("1", "p"), assignment("2", "q"), assignment("3", "t")]
    assert read_answers(lines, merged_into=merges).incident.tolist() == [0, 0, 1]


def test_a_circle_of_duplicates_is_one_incident_and_no_endless_loop():
    """Two dispatchers may each have ended one as a duplicate of the other."""
    lines = [assignment(str(number), incident) for number, incident in enumerate("pqrs")]
    merges = {"p": "q", "q": "p", "r": "q"}
    assert read_answers(lines, merged_into=merges).incident.tolist() == [0, 0, 0, 1]


def test_the_same_id_of_two_sources_is_two_reports():
    lines = [assignment("1", "p"), assignment("1", "q", source="patrol"), assignment("2", "p")]
    table = ["source,report_id,cluster_id", "hotline,1,x", "patrol,1,y", "hotline,2,x"]
    assert score(read_answers(lines), read_truth(table)).pair_f1 == 1.0
    with pytest.raises(EvaluationError, match="column 'source'"):
        score(read_answers(lines), read_truth(TRUTH))


def test_a_link_that_the_truth_distrusts_is_not_counted():
    table = [
        "report_id,cluster_id,is_duplicate,parent_id,link_quality",
        "1,x,0,,",
        "2,x,1,1,good",
        "3,,1,1,far",
        "4,,1,9,good",
    ]
    scores = score(read_answers([assignment("1", "p"), assignment("2", "p"), assignment("3", "q")]), read_truth(table))
    assert (scores.links, scores.link_recall) == (1, 1.0)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        pytest.param(["id,cluster_id"], "t.csv:1: no column 'report_id'", id="no id column"),
        pytest.param([], "t.csv:1: no column", id="empty file"),
        pytest.param(["report_id,cluster_id", "1,x", "1,y"], "t.csv:3: report '1' stands twice", id="doubled"),
        pytest.param(["report_id,cluster_id", ",x"], "t.csv:2: report_id is empty", id="no id"),
        pytest.param(["report_id,cluster_id,is_duplicate", "1,x,yes"], "t.csv:2: is_duplicate is 'yes'", id="flag"),
        pytest.param(["report_id,cluster_id", "1," + "x" * 200_000], "t.csv:2: field larger", id="huge field"),
    ],
)
def test_a_broken_truth_is_named_with_its_line(table, complaint):
    with pytest.raises(EvaluationError, match=complaint):
        read_truth(table, name="t.csv")


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"origin":1}', b"\xff", b"[" * 100_000])
def test_a_broken_assignment_is_named_with_its_line(line):
    with pytest.raises(EvaluationError, match=r"a\.jsonl:2: "):
        read_answers([assignment("1", "p"), line], name="a.jsonl")


def written(folder: Path) -> Path:
    (folder / "assignments.jsonl").write_bytes(
        b"\n".join([assignment("1", "p"), assignment("2", "q", outcome="joined"), assignment("3", "s")])
    )
    (folder / "incidents.jsonl").write_bytes(b'{"incident_id":"q","merged_into":"p"}\n')
    with gzip.open(folder / "truth.csv.gz", "wt", encoding="utf-8-sig") as out:
        out.write("\r\n".join(TRUTH))
    return folder


def test_the_command_reads_a_replays_folder_and_a_packed_truth(tmp_path):
    folder = written(tmp_path)
    result = CliRunner().invoke(evaluate, [str(folder), "--truth", str(folder / "truth.csv.gz"), "--json"])
    assert result.exit_code == 0, result.output
    figures = orjson.loads(result.stdout)
    assert (figures["pair_f1"], figures["incidents"], figures["collapsed"]) == (1.0, 2, 1 / 3)
    assert figures["join_unflagged"] is None
    shown = CliRunner().invoke(evaluate, [str(folder), "--truth", str(folder / "truth.csv.gz")])
    assert "pairwise" in shown.stdout


@pytest.mark.parametrize("fault", ["no assignments", "cut truth", "no text"])
def test_the_command_names_what_it_cannot_read_in_one_line(tmp_path, fault):
    folder = written(tmp_path)
    truth = folder / "truth.csv.gz"
    if fault == "no assignments":
        (folder / "assignments.jsonl").unlink()
    elif fault == "cut truth":
        truth.write_bytes(truth.read_bytes()[:-12])
    else:
        truth.write_bytes(gzip.compress(b"report_id,cluster_id\n\xff,x\n"))
    result = CliRunner().invoke(evaluate, [str(folder), "--truth", str(truth)])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1


def test_the_plain_rule_scores_on_boston_what_others_measured(city_data):
    """30 m and 3 days; the expected figures came with the recording, from a program that is not ours."""
    scores = plain_rule.scores(city_data / "boston", radius_m=30, window_s=3 * 86400)
    assert scores.pair_f1 == pytest.approx(0.757, abs=0.001)
    assert scores.b_cubed_f1 == pytest.approx(0.892, abs=0.001)
    assert scores.link_recall == pytest.approx(0.675, abs=0.002)
    assert scores.join_unflagged == pytest.approx(0.122, abs=0.001)
    assert (scores.reports, scores.truth_reports, scores.clusters) == (31802, 29247, 465)


def test_a_parent_of_another_source_is_found_when_its_id_is_the_only_one():
    """A camera saw it first; the caller's ticket is the duplicate."""
    lines = [assignment("v1", "p", source="video"), assignment("h1", "p"), assignment("h2", "q")]
    table = ["source,report_id,cluster_id,parent_id", "video,v1,x,", "hotline,h1,x,v1", "hotline,h2,x,v1"]
    scores = score(read_answers(lines), read_truth(table))
    assert (scores.links, scores.link_recall) == (2, 0.5)
