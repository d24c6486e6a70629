"""What is learnt from feedback of which reports are one event, against a definition by pairs."""

from __future__ import annotations

from datetime import datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packs import make_sample
from streams.error_model import read_error_model
from streams.evaluation import NONE, pairwise, read_truth
from streams.feedback_labels import labels_of
from streams.fitting import fit
from streams.labels import LabelError, LabelledStream
from streams.messages import Action, FeedbackMessage, ReportName
from streams.pack import load_pack
from streams.privacy import TEST_KEY
from streams.recording import RecordedMessage
from streams.rehearsal import rehearse
from streams.simulation import truth_csv

SEEN_TO = {"accept", "dispatch", "dispose", "close"}


def feedback(action, incident, duplicate_of=None, misjoined=()):
    names = [ReportName("hotline", report) for report in misjoined]
    return FeedbackMessage(
        id="F", time=0, action=action, incident_id=incident, duplicate_of=duplicate_of, misjoined=names
    )


def labels(members, said, *, came_ms=None):
    """Labels of ``members``, pairs of an incident and a ticket's id, of whom all had come unless ``came_ms`` says when.

    One thing is said a millisecond, from 0 on.
    """
    incidents, reports = [incident for incident, _ in members], [("hotline", report) for _, report in members]
    return labels_of(incidents, reports, came_ms or [0] * len(members), list(enumerate(said)))


MEMBERS = [("A", "1"), ("B", "2"), ("A", "3"), ("C", "4"), ("B", "5")]


@pytest.mark.parametrize(
    ("said", "cluster", "flag"),
    [
        ([], [NONE] * 5, [NONE] * 5),
        ([feedback("close", "A")], [0, NONE, 0, NONE, NONE], [0, NONE, 1, NONE, NONE]),
        ([feedback("reject", "A"), feedback("reopen", "B")], [NONE] * 5, [NONE] * 5),
        ([feedback("reject", "B", "A")], [0, 0, 0, NONE, 0], [0, 1, 1, NONE, 1]),
        ([feedback("reject", "B", "nobody's")], [NONE] * 5, [NONE] * 5),
        ([feedback("accept", "A"), feedback("accept", "C")], [0, NONE, 0, 1, NONE], [0, NONE, 1, 0, NONE]),
        ([feedback("close", "A", misjoined=["3"])], [0, NONE, 1, NONE, NONE], [0, NONE, 0, NONE, NONE]),
        ([feedback("close", "A", misjoined=["4"])], [0, NONE, 0, NONE, NONE], [0, NONE, 1, NONE, NONE]),
        ([feedback("reject", "B", "A"), feedback("reject", "C", "B")], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]),
        ([feedback("reject", "B", "A"), feedback("reopen", "B")], [0, 1, 0, NONE, 1], [0, 0, 1, NONE, 1]),
    ],
)
def test_what_somebody_saw_to_is_known_and_nothing_else(said, cluster, flag):
    got = labels(MEMBERS, said)
    assert got.cluster.tolist() == cluster
    assert got.flag.tolist() == flag


def test_what_is_named_and_not_there_is_counted_and_teaches_nothing():
    said = [feedback("accept", "Z"), feedback("reject", "A", "Y"), feedback("close", "B", misjoined=["2", "9"])]
    got = labels(MEMBERS, said)
    assert (got.seen_to, got.duplicates, got.misjoined, got.unknown) == (1, 0, 1, 3)


def test_what_came_to_an_incident_after_it_was_last_seen_to_is_unknown():
    """Nobody has read it, and the service's own joins teach nothing."""
    said = [feedback("accept", "A"), feedback("reject", "C", "B"), feedback("close", "A")]
    got = labels(MEMBERS, said, came_ms=[0, 1, 3, 0, 2])
    assert got.cluster.tolist() == [0, 1, NONE, 1, NONE]
    assert got.flag.tolist() == [0, 0, NONE, 1, NONE]


_INCIDENTS = st.sampled_from("ABCDEFXY")
_SAID = st.builds(
    feedback,
    st.sampled_from([action.value for action in Action]),
    _INCIDENTS,
    st.none() | _INCIDENTS,
    st.lists(st.sampled_from("0123456789"), max_size=2),
)


@given(st.lists(st.tuples(st.sampled_from("ABCDEF"), st.integers(0, 6)), max_size=10), st.lists(_SAID, max_size=6))
def test_two_reports_are_one_event_where_a_walk_over_what_was_said_leads_from_one_to_the_other(came, said):
    members = [(incident, str(row)) for row, (incident, _) in enumerate(came)]
    got = labels(members, said, came_ms=[at_ms for _, at_ms in came])
    there = {incident for incident, _ in came}
    next_to, apart, looks = set(), set(), []
    for at_ms, message in enumerate(said):
        one, other = message.incident_id, message.duplicate_of
        later = said[at_ms + 1 :]
        is_last_word = not any(
            word.incident_id == one and (word.action == "reopen" or word.duplicate_of is not None) for word in later
        )
        if other is not None and {one, other} <= there:
            looks += [(one, at_ms), (other, at_ms)]
            if is_last_word:
                next_to |= {(one, other), (other, one)}
        if message.action in SEEN_TO or message.misjoined:
            looks.append((one, at_ms))
        apart |= {(one, report.report_id) for report in message.misjoined}

    def leads(one, other):
        reached, before = {one}, set()
        while reached != before:
            before = reached
            reached = before | {end for start, end in next_to if start in before}
        return other in reached

    for row, (incident, came_ms) in enumerate(came):
        is_read = any(name == incident and came_ms <= at_ms for name, at_ms in looks)
        assert (got.cluster[row] != NONE) == is_read == (got.flag[row] != NONE)
    for one, other in combinations(range(len(members)), 2):
        if NONE not in (got.cluster[one], got.cluster[other]):
            together = not {members[one], members[other]} & apart and leads(members[one][0], members[other][0])
            assert (got.cluster[one] == got.cluster[other]) == together
    firsts = np.unique(got.cluster[got.cluster != NONE], return_index=True)[1]
    assert (got.flag == 0).sum() == len(firsts)


# ------------------------------------------------------------------------------------------------ from a recording


def model(text=""):
    return read_error_model(f"events.per_day = 400\nstorm.per_day = 0\ndispatch.takes_of_limit = 0.05\n{text}")


@pytest.fixture(scope="module")
def pack():
    return load_pack(Path(make_sample.__file__).parent / "sample")


def rehearsed(pack, text, hours=24):
    start = datetime.fromisoformat("2026-06-01T00:00:00+08:00")
    rehearsal = rehearse(pack, model(text), seed=5, start=start, hours=hours)
    stream = LabelledStream(pack, TEST_KEY)
    messages = rehearsal.simulation.messages
    for at in range(0, len(messages), 700):
        stream.take(messages[at : at + 700])
    return rehearsal, stream


ALL_SEEN = """
dispatch.duplicate_seen = 1
dispatch.duplicate_mistaken = 0
dispatch.misjoined_seen = 1
dispatch.left_lying = 0
dispatch.late = 0
dispatch.recurs = 0
dispatch.only_said = 0
"""


@pytest.fixture(scope="module")
def seen_by_all(pack):
    return rehearsed(pack, ALL_SEEN)


def test_dispatchers_who_overlook_nothing_come_near_the_truth(seen_by_all):
    """What they cannot know: who joined after the closing, or the duplicate of what has ended."""
    rehearsal, stream = seen_by_all
    got, said = stream.labelled_by_feedback()
    truth = stream.labelled(read_truth(truth_csv(rehearsal.simulation.truth).splitlines()))
    known = (got.cluster != NONE) & (truth.cluster != NONE)
    assert said.duplicates > 10
    assert said.misjoined > 10
    assert known.mean() > 0.7
    precision, recall, _ = pairwise(got.cluster[known], truth.cluster[known])
    assert precision > 0.95
    assert recall > 0.9


def test_those_who_say_nothing_of_duplicates_teach_what_the_service_did(pack):
    _, stream = rehearsed(
        pack, "dispatch.duplicate_seen = 0\ndispatch.duplicate_mistaken = 0\ndispatch.misjoined_seen = 0"
    )
    got, said = stream.labelled_by_feedback()
    assert (said.duplicates, said.misjoined) == (0, 0)
    assert said.seen_to > 100
    assert (got.cluster != NONE).mean() > 0.7


def test_what_is_said_later_is_not_learnt_from(seen_by_all):
    _, stream = seen_by_all
    until_ms = round(datetime.fromisoformat("2026-06-01T12:00:00+08:00").timestamp() * 1000)
    early, said = stream.labelled_by_feedback(until_ms)
    all_of_it, all_said = stream.labelled_by_feedback()
    assert (early.reports.time_ms < until_ms).all()
    assert 0 < said.seen_to < all_said.seen_to
    assert len(early) < len(all_of_it)


def test_it_is_enough_for_a_fit(seen_by_all):
    _, stream = seen_by_all
    labelled, _ = stream.labelled_by_feedback()
    fitted = fit(labelled)
    assert len(fitted.rows) > 5


def test_a_recording_without_feedback_is_refused_in_words(pack):
    stream = LabelledStream(pack, TEST_KEY)
    ticket = {
        "id": "T1", "time": "2026-06-01T08:00:00+08:00", "category": "乱扔垃圾", "lon": 119.95, "lat": 38.75, "text": ""
    }  # fmt: skip
    stream.take([RecordedMessage("hotline.tickets", orjson.dumps(ticket))])
    with pytest.raises(LabelError, match=r"has no `dispatch.feedback`"):
        stream.labelled_by_feedback()
