"""A city with dispatch centres: what they say, what it changes, and that all of it can be replayed."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path

import msgspec
import orjson
import pytest
from click.testing import CliRunner

from agents.commands.replay import replay as replay_command
from agents.commands.simulate import simulate as simulate_command
from packs import make_sample
from streams.error_model import read_error_model, shipped_text
from streams.messages import FEEDBACK, TOPIC_OF_SOURCE, Action, Outcome, Reason, Status
from streams.pack import load_pack
from streams.privacy import TEST_KEY
from streams.recording import read_recording, write_recording
from streams.rehearsal import rehearse
from streams.replay import Replay
from streams.simulated_city import metres
from streams.simulation import truth_csv

SAMPLE = Path(make_sample.__file__).parent / "sample"
MORNING = datetime.fromisoformat("2026-06-01T06:00:00+08:00")
OF_FEEDBACK = ("unknown_incident", "illegal_transition")
QUICK = """
dispatch.accept_s = 300
dispatch.dispatch_s = 300
dispatch.takes_of_limit = 0.05
dispatch.limit_none_s = 7200
dispatch.close_s = 600
"""
FLAWLESS = f"""{QUICK}
events.per_day = 600
storm.per_day = 0
dispatch.skipped = 0
dispatch.left_lying = 0
dispatch.rejected = 0
dispatch.late = 0
dispatch.delay_s = 0
dispatch.overtaken = 0
dispatch.sent_again = 0
dispatch.unknown = 0
dispatch.called_back = 0
dispatch.recurs = 0
dispatch.only_said = 0
"""


def model(*texts):
    """The shipped error model under lines of settings, of which the later ones count."""
    lines = dict(line.split(" = ", 1) for text in texts for line in text.splitlines() if line.strip())
    return read_error_model("\n".join(f"{key} = {value}" for key, value in lines.items()))


class Seen:
    """What a rehearsal's service decided, step by step."""

    def __init__(self):
        self.assignments = []
        self.dead_letters = []

    def __call__(self, assignments, dead_letters):
        self.assignments += assignments
        self.dead_letters += dead_letters


@pytest.fixture(scope="module")
def pack():
    return load_pack(SAMPLE)


@pytest.fixture(scope="module")
def day(pack):
    """A day of the shipped model, from six in the morning to eight in the evening, and what its service decided."""
    seen = Seen()
    return rehearse(pack, model(QUICK), seed=1, start=MORNING, hours=14, rate=0.5, heard=seen), seen


def answers(assignments, dead_letters, incidents):
    """Everything that a replay writes, as bytes."""
    encode = msgspec.json.encode
    return [[encode(one) for one in assignments], [encode(one.record()) for one in dead_letters], encode(incidents)]


# ------------------------------------------------------------------------------------------------ reproducible


@pytest.mark.parametrize(("batch", "shards"), [(1000, 1), (37, 1), (10**6, 5)])
def test_a_replay_of_the_recording_gives_what_the_rehearsal_saw(pack, day, tmp_path, batch, shards):
    rehearsal, seen = day
    path = tmp_path / "day.jsonl.zst"
    write_recording(path, rehearsal.simulation.messages)
    messages = list(read_recording(path))
    again, replayed = Seen(), Replay(pack, TEST_KEY, shards=shards)
    for at in range(0, len(messages), batch):
        again(*replayed.take(messages[at : at + batch]))
    assert answers(again.assignments, again.dead_letters, replayed.incidents()) == answers(
        seen.assignments, seen.dead_letters, rehearsal.service.incidents()
    )


def test_the_same_seed_gives_the_same_whatever_the_step_and_another_seed_others(pack):
    def played(seed, step_s):
        got = rehearse(pack, model(QUICK), seed=seed, start=MORNING, hours=2, rate=0.3, step_s=step_s).simulation
        return got.messages, truth_csv(got.truth)

    one = played(3, None)
    assert one == played(3, 120.0) == played(3, 17.0)
    assert one[0] != played(4, None)[0]


def test_a_centre_that_looks_more_seldom_than_it_acts_is_refused(pack):
    with pytest.raises(ValueError, match=r"at most dispatch\.first_look_s = 120"):
        rehearse(pack, model(), seed=1, start=MORNING, hours=1, step_s=121)


# --------------------------------------------------------------------------------------- all that can happen does


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_for_a_dead_letter_occurs_and_is_counted(day, reason):
    rehearsal, seen = day
    counted = rehearsal.service.counts.dead_letters[reason.value]
    assert counted == sum(letter.reason is reason for letter in seen.dead_letters) > 0


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_occurs_and_is_counted(day, outcome):
    rehearsal, seen = day
    counted = rehearsal.service.counts.outcomes[outcome.value]
    answers = [assignment for assignment in seen.assignments if assignment.revision == 0]
    assert counted == sum(assignment.outcome == outcome for assignment in answers) > 0


def test_incidents_end_in_every_status_and_every_action_was_taken(day):
    rehearsal, _ = day
    incidents = rehearsal.service.incidents()
    assert {incident.status for incident in incidents} == {status.value for status in Status}
    assert set(+rehearsal.service.counts.feedback) == {action.value for action in Action}
    assert rehearsal.service.counts.feedback_repeats > 50


def test_the_sources_are_counted_as_their_truth_says_whatever_becomes_of_the_incidents(day):
    rehearsal, seen = day
    sent, counts = rehearsal.simulation.sent, rehearsal.service.counts
    said = {
        reason: n
        for reason, n in counts.dead_letters.items()
        if reason not in ("unknown_incident", "illegal_transition")
    }
    assert said == sent.broken
    assert counts.quiet_readings == sent.quiet
    assert counts.outcomes["repeat"] == sent.repeats
    assert counts.outcomes["amended"] == sent.amended
    assert {(a.source, a.report_id) for a in seen.assignments} == {(r.source, r.report_id) for r in sent.truth}
    feedback = counts.elements_by_source[FEEDBACK]
    refused = sum(counts.dead_letters[reason] for reason in OF_FEEDBACK)
    assert feedback == counts.feedback.total() + counts.feedback_repeats + refused
    assert counts.elements == feedback + sum(sent.elements.values())


def test_messages_come_in_the_order_of_their_timestamps_each_topic_with_its_own_offsets(day):
    messages = day[0].simulation.messages
    timestamps = [message.timestamp_ms for message in messages]
    assert timestamps == sorted(timestamps)
    assert {message.topic for message in messages} == {*TOPIC_OF_SOURCE.values(), FEEDBACK}
    for topic in {message.topic for message in messages}:
        offsets = [message.offset for message in messages if message.topic == topic]
        assert offsets == list(range(len(offsets)))


def test_feedback_is_keyed_by_its_incident_and_never_comes_before_its_time(day):
    for message in day[0].simulation.messages:
        if message.topic == FEEDBACK:
            said = orjson.loads(message.value)
            assert message.key.decode() == said["incident_id"]
            assert datetime.fromisoformat(said["time"]).timestamp() * 1000 <= message.timestamp_ms


# ---------------------------------------------------------------------------------- what a repair does to the truth


def played(pack, *texts, hours=8):
    """Truth by report, the assignments, and the feedback on each incident."""
    seen = Seen()
    got = rehearse(pack, model(FLAWLESS, *texts), seed=2, start=MORNING, hours=hours, heard=seen)
    truth = {(row.source, row.report_id): row for row in got.simulation.truth}
    said = defaultdict(list)
    for message in got.simulation.messages:
        if message.topic == FEEDBACK:
            one = orjson.loads(message.value)
            said[one["incident_id"]].append((one["action"], datetime.fromisoformat(one["time"])))
    return got, truth, [a for a in seen.assignments if a.outcome != "repeat"], said


def test_after_a_true_repair_nothing_is_reported_of_the_event(pack):
    got, truth, assignments, said = played(pack)
    repaired = {}
    for incident in got.service.incidents():
        founding = truth[incident.evidence[0].source, incident.evidence[0].report_id]
        for action, time in said[incident.incident_id]:
            if action == "dispose" and founding.cluster_id.startswith("e"):
                repaired[founding.cluster_id] = min(time, repaired.get(founding.cluster_id, time))
    assert len(repaired) > 100
    after = Counter()
    for assignment in assignments:
        cluster_id = truth[assignment.source, assignment.report_id].cluster_id
        if cluster_id in repaired:
            # The time of feedback is in whole seconds.
            late_s = (datetime.fromisoformat(assignment.event_time) - repaired[cluster_id]).total_seconds()
            after[late_s > 1] += 1
    assert after[True] == 0
    assert after[False] > 200
    assert got.simulation.sent.errors["not_repaired"] == 0


def test_what_was_only_said_to_be_repaired_is_complained_of_and_reopens_the_same_event(pack):
    got, truth, assignments, _ = played(
        pack, "dispatch.only_said = 1\ndispatch.complaints = 3\ndispatch.complains_s = 1800"
    )
    assert got.simulation.sent.errors["not_repaired"] > 100
    cluster_of = {i.incident_id: truth[i.evidence[0].source, i.evidence[0].report_id].cluster_id
                  for i in got.service.incidents()}  # fmt: skip
    reopened = [a for a in assignments if a.outcome == "reopened"]
    same = sum(truth[a.source, a.report_id].cluster_id == cluster_of[a.incident_id] for a in reopened)
    assert same > 0.7 * len(reopened) > 50


def test_what_comes_back_after_a_true_repair_is_another_event_at_the_same_place(pack):
    got, truth, _, _ = played(pack, "dispatch.recurs = 1\ndispatch.recurs_s = 3600")
    without, *_ = played(pack)
    assert got.simulation.events > 1.5 * without.simulation.events
    first_of = {}
    for row in truth.values():
        if row.cluster_id.startswith("e"):
            first_of.setdefault(row.cluster_id, row)
    drawn, back = [], []
    for row in first_of.values():
        (drawn if int(row.cluster_id[1:]) < without.simulation.events else back).append(row)
    assert len(back) > 100
    for row in back:
        past = [one for one in [*drawn, *back] if one.event_category == row.event_category and one is not row]
        assert min(metres(row.lon, row.lat, one.lon, one.lat) for one in past) < 60


def test_a_callback_reopens_what_was_only_said_to_be_repaired(pack):
    got, *_ = played(pack, "dispatch.only_said = 1\ndispatch.called_back = 1\ndispatch.complains_s = 600", hours=8)
    assert got.service.counts.feedback["reopen"] > 50
    assert got.service.counts.dead_letters["illegal_transition"] < 0.1 * got.service.counts.feedback["reopen"]


def test_flawless_centres_are_never_refused_until_reports_reopen_what_they_closed(pack):
    got, _, assignments, _ = played(pack, "hotline.false_alarms = 0", hours=6)
    reopened = sum(assignment.outcome == "reopened" for assignment in assignments)
    assert got.service.counts.dead_letters["unknown_incident"] == 0
    assert got.service.counts.feedback_repeats == 0
    assert got.service.counts.dead_letters["illegal_transition"] <= 4 * reopened


# -------------------------------------------------------------------------------------------------- the command


def test_the_command_writes_a_recording_whose_replay_gives_its_figures(tmp_path):
    out, truth, folder = tmp_path / "o.jsonl.gz", tmp_path / "t.csv", tmp_path / "replayed"
    errors = tmp_path / "quick.toml"
    errors.write_text(shipped_text("scenario_normal_week.toml") + "[dispatch]\naccept_s = 60\n", encoding="utf-8")
    arguments = ["--city", str(SAMPLE), "--hours", "3", "--start", MORNING.isoformat(), "--feedback", "--errors",
                 str(errors), "--out", str(out), "--truth", str(truth)]  # fmt: skip
    told = CliRunner().invoke(simulate_command, [*arguments, "--json"])
    assert told.exit_code == 0, told.output
    service = orjson.loads(told.stdout)["service"]
    again = CliRunner().invoke(replay_command, [str(out), "--city", str(SAMPLE), "--out", str(folder), "--json"])
    assert again.exit_code == 0, again.output
    summary = orjson.loads(again.stdout)
    assert {word: n for word, n in service["outcomes"].items() if n} == summary["outcomes"]
    assert {word: n for word, n in service["dead letters"].items() if n} == summary["dead_letters"]
    assert sum(service["incidents"].values()) == summary["incidents"]
    assert service["feedback"].pop("repeated") == summary["feedback_repeats"]
    assert {word: n for word, n in service["feedback"].items() if n} == summary["feedback"]
    shown = CliRunner().invoke(simulate_command, arguments)
    assert f"outcomes: opened {service['outcomes']['opened']:,}" in shown.stdout
