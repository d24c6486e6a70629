"""The simulated dispatch centre by itself: told of incidents, it answers in its own time."""

from __future__ import annotations

import itertools
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packs import make_sample
from streams.error_model import read_error_model
from streams.messages import FEEDBACK, Evidence, Incident
from streams.pack import load_pack
from streams.simulated_dispatch import DispatchCentre

TOLD_AT = datetime.fromisoformat("2026-06-01T10:00:00+00:00")
TOLD_MS = round(TOLD_AT.timestamp() * 1000)
FOREVER = 2**60
FAULTLESS = """
dispatch.rejected = 0
dispatch.duplicate_mistaken = 0
dispatch.left_lying = 0
dispatch.skipped = 0
dispatch.only_said = 0
dispatch.late = 0
dispatch.overtaken = 0
dispatch.sent_again = 0
dispatch.unknown = 0
"""


class Ground:
    """Where every incident is real, or none is; notes what crews do."""

    def __init__(self, real=True):
        self.real = real
        self.repaired = {}
        self.left = {}

    def thing(self, report):
        return report.report_id if self.real else None

    def repair(self, incident, repaired_ms, closed_ms):
        self.repaired[incident.incident_id] = repaired_ms

    def leave(self, incident, closed_ms):
        self.left[incident.incident_id] = closed_ms


@pytest.fixture(scope="module")
def pack():
    return load_pack(Path(make_sample.__file__).parent / "sample")


def centre(pack, text="", ground=None):
    lines = dict(line.split(" = ", 1) for line in f"{FAULTLESS}{text}".splitlines() if line.strip())
    model = read_error_model("\n".join(f"{key} = {value}" for key, value in lines.items()))
    return DispatchCentre(pack, model.dispatch, 1, ground or Ground())


def incident(number=0, code="06010", status="open", updated_at=TOLD_AT, priority=3):
    at = updated_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Incident(
        incident_id=f"990100-refuse-{number:032x}", version=1, status=status, category=code, category_name="",
        priority=priority, department="环境卫生服务中心",
        grid_code=None, community_code=None, street_code=None, county_code=None,
        layer_codes={}, lon=119.95, lat=38.75, accuracy_m=10.0, opened_at=at, first_report_at=at, last_report_at=at,
        updated_at=at, report_count=1, repeat_count=0, sources={"patrol": 1}, pack_version="x",
        evidence=[Evidence("patrol", f"P{number}")],
    )  # fmt: skip


def said(one, until_ms=FOREVER):
    """Per incident its actions with the time of each and of its arrival, in order of arrival."""
    by_incident = defaultdict(list)
    for message in one.due(until_ms):
        fields = orjson.loads(message.value)
        assert message.topic == FEEDBACK
        by_incident[fields["incident_id"]].append(
            (fields["action"], fields["time"], message.timestamp_ms, fields["id"])
        )
    return by_incident


def test_a_faultless_centre_takes_every_step_in_order_and_not_before_it_looked(pack):
    ground = Ground()
    one = centre(pack, "dispatch.delay_s = 0", ground)
    one.hear([incident(number) for number in range(50)])
    for incident_id, acts in said(one).items():
        assert [action for action, *_ in acts] == ["accept", "dispatch", "dispose", "close"]
        assert acts[0][2] >= TOLD_MS + 120_000
        assert [time for _, time, *_ in acts] == sorted(time for _, time, *_ in acts)
        assert ground.repaired[incident_id] == acts[2][2]
        assert len({name for *_, name in acts}) == 4


@given(st.permutations(range(6)), st.lists(st.integers(0, 6), max_size=3))
def test_what_it_says_depends_neither_on_the_order_nor_on_how_many_it_is_told_of_at_once(pack, order, cuts):
    together, apart = centre(pack, "dispatch.unknown = 0.5"), centre(pack, "dispatch.unknown = 0.5")
    together.hear(incident(number) for number in range(6))
    for begin, end in itertools.pairwise([0, *sorted(cuts), 6]):
        apart.hear(incident(number) for number in order[begin:end])
    assert together.due(FOREVER) == apart.due(FOREVER)


def test_it_is_told_again_and_again_and_begins_anew_only_when_an_ended_incident_is_open_again(pack):
    one = centre(pack)
    one.hear(
        [incident(), incident(), incident(status="accepted"), incident(status="closed"), incident(status="closed")]
    )
    assert len(said(one)[incident().incident_id]) == 4
    later = TOLD_AT + timedelta(days=1)
    one.hear([incident(updated_at=later), incident(updated_at=later)])
    again = said(one)[incident().incident_id]
    assert [action for action, *_ in again] == ["accept", "dispatch", "dispose", "close"]
    assert again[0][2] >= TOLD_MS + 86_400_000 + 120_000


def test_what_was_never_there_is_rejected_as_often_as_it_is_found_out(pack):
    one = centre(pack, "dispatch.found_out = 0.6", Ground(real=False))
    one.hear(incident(number) for number in range(500))
    rejected = sum(acts[0][0] == "reject" for acts in said(one).values())
    assert 250 < rejected < 350


def test_urgent_and_short_limits_are_met_sooner(pack):
    def mean_s(code, priority):
        one = centre(pack)
        one.hear(incident(number, code, priority=priority) for number in range(200))
        times = [(acts[0][2] - TOLD_MS, acts[2][2] - acts[1][2]) for acts in said(one).values()]
        return [sum(column) / len(column) / 1000 for column in zip(*times, strict=True)]

    fire, heap, shed = mean_s("90007", 1), mean_s("06010", 3), mean_s("06001", 4)
    assert fire[0] < 0.3 * heap[0]
    assert fire[1] < heap[1] < shed[1]
    assert shed[1] == pytest.approx(0.45 * 7 * 86_400, rel=0.3), "seven working days, as in its catalogue"


@pytest.mark.parametrize(
    ("text", "actions"),
    [
        ("dispatch.left_lying = 1", ["accept", "dispatch"]),
        ("dispatch.skipped = 1", ["close"]),
        ("dispatch.rejected = 1", ["reject"]),
        ("dispatch.overtaken = 1", ["accept", "dispatch", "close", "dispose"]),
        ("dispatch.only_said = 1\ndispatch.called_back = 1", ["accept", "dispatch", "dispose", "close", "reopen"]),
        ("dispatch.only_said = 1\ndispatch.called_back = 0", ["accept", "dispatch", "dispose", "close"]),
    ],
)
def test_each_error_of_people_and_networks_shows(pack, text, actions):
    ground = Ground()
    one = centre(pack, text, ground)
    one.hear([incident()])
    assert [action for action, *_ in said(one)[incident().incident_id]] == actions
    assert bool(ground.left) == text.endswith("called_back = 0")
    assert bool(ground.repaired) == (actions[-1] in ("close", "dispose") and "only_said" not in text)


class OneThing(Ground):
    """Where all reports speak of one thing, but for those that begin with another letter."""

    def thing(self, report):
        return report.report_id[0]


def duplicates(one):
    """What is called the duplicate of what, each once."""
    fields = [orjson.loads(message.value) for message in one.due(FOREVER)]
    return {act["incident_id"]: (act["action"], act["duplicate_of"]) for act in fields if "duplicate_of" in act}


def test_what_is_there_already_is_rejected_as_its_duplicate_unless_overlooked(pack):
    one = centre(pack, "dispatch.duplicate_seen = 0.5", OneThing())
    told = [incident(number) for number in range(200)]
    one.hear(told)
    found = duplicates(one)
    assert set(found.values()) == {("reject", told[0].incident_id)}
    assert 70 < len(found) < 130


def test_what_has_ended_has_no_duplicates(pack):
    one = centre(pack, "dispatch.duplicate_seen = 1", OneThing())
    one.hear([incident(0), incident(0, status="closed"), incident(1)])
    assert not duplicates(one)


def test_after_an_end_the_next_about_the_same_thing_has_duplicates_of_its_own(pack):
    one = centre(pack, "dispatch.duplicate_seen = 1", OneThing())
    told = [incident(0), incident(0, status="closed"), incident(1), incident(2)]
    one.hear(told)
    assert duplicates(one) == {told[3].incident_id: ("reject", told[2].incident_id)}


def test_now_and_then_the_one_next_to_it_is_taken_for_the_same(pack):
    one = centre(pack, "dispatch.duplicate_seen = 0\ndispatch.duplicate_mistaken = 0.2")
    told = [incident(number) for number in range(200)]
    one.hear(told)
    found = duplicates(one)
    assert 20 < len(found) < 60
    before = {later.incident_id: earlier.incident_id for earlier, later in itertools.pairwise(told)}
    assert all(found[name] == ("reject", before[name]) for name in found)


def test_a_crew_tells_which_reports_it_knew_of_speak_of_something_else(pack):
    one = centre(pack, "dispatch.misjoined_seen = 1\ndispatch.sent_again = 1", OneThing())
    first = incident()
    one.hear([first])
    in_time, too_late = TOLD_AT + timedelta(seconds=1), TOLD_AT + timedelta(days=400)
    for at, name in ((in_time, "P7"), (in_time, "X1"), (too_late, "X2")):
        later = incident(updated_at=at)
        later.evidence.append(Evidence("hotline", name))
        one.hear([later])
    acts = [orjson.loads(message.value) for message in one.due(FOREVER)]
    named = [act["misjoined"] for act in acts if act["action"] == "close"]
    assert named == [[{"source": "hotline", "report_id": "X1"}]] * 2
    assert not any("misjoined" in act for act in acts if act["action"] != "close")


def test_the_same_message_twice_has_one_id_and_strangers_are_nobodys(pack):
    one = centre(pack, "dispatch.sent_again = 1\ndispatch.unknown = 1")
    one.hear([incident()])
    by_incident = said(one)
    ours = by_incident.pop(incident().incident_id)
    assert len(ours) == 8
    assert len({name for *_, name in ours}) == 4
    assert len(by_incident) == 4


def test_late_feedback_arrives_long_after_its_time(pack):
    one = centre(pack, "dispatch.late = 1\ndispatch.delay_s = 0")
    one.hear(incident(number) for number in range(100))
    lags = [
        at_ms / 1000 - datetime.fromisoformat(time).timestamp()
        for acts in said(one).values()
        for _, time, at_ms, _ in acts
    ]
    assert max(lags) > 10_000
    assert min(lags) >= 0


def test_feedback_is_handed_out_once_and_only_when_it_has_come(pack):
    one = centre(pack)
    one.hear(incident(number) for number in range(20))
    until_ms = TOLD_MS + 3_600_000
    early = one.due(until_ms)
    late = one.due(FOREVER)
    assert early
    assert late
    assert max(message.timestamp_ms for message in early) < until_ms <= min(message.timestamp_ms for message in late)
    assert [message.offset for message in [*early, *late]] == list(range(80))
