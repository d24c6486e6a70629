"""An incident's life: feedback moves it, new reports reopen it or begin the next; the kernel does as the definition."""

from __future__ import annotations

import json

import pytest
from city_scenario import City, at_ms
from dedupe_definition import STEPS, Row, Said, Tick
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_dedupe import MANHOLE, ORIGINALS, PACKS, T0, compare_batch, dedupe_of, definition_of

from streams.feedback import ACTIONS, ILLEGAL, STATUSES, TRANSITION
from streams.intake import SourceRecord
from streams.messages import FEEDBACK, Action, Reason, Status
from streams.terms import PackTerms

PACK = PACKS["the equator"][0]
DAY_MS = 86_400_000


class LifeOfAnIncident(RuleBasedStateMachine):
    """Reports and feedback about one neighbourhood over days, in batches cut anywhere."""

    incidents = Bundle("incidents")

    @initialize()
    def begin(self) -> None:
        self.dedupe = dedupe_of(PACK)
        self.oracle = definition_of(PACK)
        self.loose: dict[int, Row] = {}
        self.groups = PackTerms(PACK).groups
        self.clock_ms = T0
        self.number = 0
        self.waiting: list[Row | Said] = []

    @rule(
        target=incidents,
        east=st.sampled_from([0, 0, 2000, 3593, 3594, 40_000]),
        back_ms=st.sampled_from([0, 0, 0, 1, 600_001, 3_600_000]),
        key=st.sampled_from([None, None, None, 1, 2]),
    )
    def report(self, east: int, back_ms: int, key: int | None) -> tuple[int, int]:
        self.number += 1
        key_of = (key if key is not None else self.number + 10, 0)
        at = self.clock_ms
        self.waiting.append(
            Row(2, 0, self.number, 0, at, at, at - back_ms, (east, 0), 0, MANHOLE, key_of)
        )  # fmt: skip
        return key_of

    @rule(
        about=incidents,
        action=st.sampled_from([*STEPS, "close", "close"]),
        back_ms=st.sampled_from([0, 0, 1, 3_600_000]),
        id_=st.integers(1, 6),
        duplicate_of=st.sampled_from([None, None, *ORIGINALS]),
    )
    def feedback(self, about: tuple[int, int], action: str, back_ms: int, id_: int, duplicate_of: str | None) -> None:
        self.number += 1
        at = self.clock_ms
        self.waiting.append(Said(id_, action, "covers", about, at - back_ms, at, self.number, duplicate_of))

    @rule(by_ms=st.sampled_from([1, 599_999, 3_600_000, 3_600_001, 7_200_000, DAY_MS, 400 * DAY_MS]))
    def time_passes(self, by_ms: int) -> None:
        self.clock_ms += by_ms

    @precondition(lambda self: self.waiting)
    @rule(again=st.booleans())
    def apply(self, again: bool) -> None:
        """A crash between two writes delivers the last batch again."""
        for _ in range(1 + again):
            compare_batch(self.dedupe, self.oracle, self.waiting, self.groups, self.loose)
        self.waiting = []

    @precondition(lambda self: not self.waiting)
    @rule(drained=st.booleans())
    def tick(self, drained: bool) -> None:
        self.dedupe.mark(2, 0, self.clock_ms, drained)
        self.oracle.tick(Tick(2, 0, self.clock_ms, drained))

    def teardown(self) -> None:
        if hasattr(self, "dedupe"):
            compare_batch(self.dedupe, self.oracle, self.waiting, self.groups, self.loose)

    @invariant()
    def no_ended_incident_is_in_work(self) -> None:
        for one in self.oracle.incidents if hasattr(self, "oracle") else ():
            assert (one.ended_ms is not None) == (one.status in ("closed", "rejected"))


LifeOfAnIncident.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_the_life_of_incidents_is_that_of_the_definition = LifeOfAnIncident.TestCase


# ------------------------------------------------------------------------------------------------------- transitions

ORDER = ["open", "accepted", "dispatched", "disposed", "closed"]


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("action", Action)
def test_which_step_may_follow_which(status, action):
    """The contract in words: forward, steps left out or not; reject early; reopen what has ended; nothing else.

    What is suspected is as what is open to whoever looks into it.
    """
    asked, status = status, "open" if status == "suspected" else status
    leads_to = dict(zip(["accept", "dispatch", "dispose", "close"], ORDER[1:], strict=True))
    if action == "reject":
        expected = "rejected" if status in ("open", "accepted") else None
    elif action == "reopen":
        expected = "open" if status in ("closed", "rejected") else None
    elif status == "rejected":
        expected = None
    else:
        expected = leads_to[action] if ORDER.index(leads_to[action]) > ORDER.index(status) else None
    got = TRANSITION[STATUSES.index(asked), ACTIONS.index(action)]
    assert (None if got == ILLEGAL else STATUSES[got]) == expected


# --------------------------------------------------------------------------------------------------------- scenarios


@pytest.fixture
def city() -> City:
    return City()


def begun(city: City) -> str:
    city.report(at="00:00", source="hotline", category="manhole")
    return city.one().incident_id


def feedback(action: str, incident_id: str, *, at: str, offset: int) -> SourceRecord:
    value = {"id": f"f{offset}", "time": at_ms(at), "action": action, "incident_id": incident_id}
    return SourceRecord(FEEDBACK, 0, offset, at_ms(at), None, json.dumps(value).encode())


def test_from_opening_to_closing_every_step_is_told(city):
    """A cover is reported at midnight and closed an hour later; each step is a version of its own."""
    incident = begun(city)
    for minute, action in enumerate(["accept", "dispatch", "dispose", "close"], 1):
        assert city.say(action, incident, at=f"00:{minute:02}:00") == "applied"
    assert [(one.version, one.status) for one in city.told] == list(enumerate(ORDER, 1))
    closed = city.one()
    assert (closed.closed_at, closed.updated_at) == ("2026-03-01T00:04:00.000Z", "2026-03-01T00:04:00.000Z")
    assert closed.report_count == 1


def test_a_report_from_after_the_closing_reopens_within_reopen_s(city):
    """The repair was a fake: an hour after the closing to the second somebody calls again."""
    incident = begun(city)
    city.say("close", incident, at="00:10:00")
    assert city.report(at="01:10:00", source="patrol", category="manhole") == "reopened"
    reopened = city.one()
    assert (reopened.incident_id, reopened.status, reopened.closed_at) == (incident, "open", None)
    assert (reopened.version, reopened.report_count) == (3, 2)


def test_a_report_from_later_than_reopen_s_begins_a_recurrence(city):
    incident = begun(city)
    city.say("close", incident, at="00:10:00")
    assert city.report(at="01:10:01", source="patrol", category="manhole") == "opened"
    former, recurrence = sorted(city.shard.incidents(), key=lambda one: one.opened_at)
    assert (former.incident_id, former.status) == (incident, "closed")
    assert (recurrence.recurrence_of, recurrence.status) == (incident, "open")


def test_a_late_call_from_before_the_closing_joins_without_reopening(city):
    """Somebody called at 00:05, the ticket comes at 00:12, the cover was back in place at 00:10."""
    incident = begun(city)
    city.say("close", incident, at="00:10:00")
    assert city.report(at="00:05:00", heard="00:12:00", source="hotline", category="manhole") == "joined"
    assert (city.one().status, city.one().report_count, city.one().version) == ("closed", 2, 3)


def test_an_incident_nobody_closed_recurs_when_its_window_has_ended(city):
    """A manhole's window is an hour, and so is its `reopen_s`: at two hours it recurs, a second later it is news."""
    incident = begun(city)
    assert city.report(at="02:00:00", source="hotline", category="manhole") == "opened"
    assert city.shard.incidents()[-1].incident_id != incident or len(city.shard.incidents()) == 2
    assert [one.recurrence_of for one in sorted(city.shard.incidents(), key=lambda one: one.opened_at)] == [
        None,
        incident,
    ]
    other = City()
    begun(other)
    other.report(at="02:00:01", source="hotline", category="manhole")
    assert [one.recurrence_of for one in other.shard.incidents()] == [None, None]


def test_what_has_recurred_is_reopened_no_more(city):
    """It recurred before anybody closed it, then both were closed: who calls now speaks of the second."""
    first = begun(city)
    city.report(at="01:30:00", source="patrol", category="manhole", where=(5, 0))
    second = next(one.incident_id for one in city.shard.incidents() if one.incident_id != first)
    city.say("close", first, at="01:40:00")
    city.say("close", second, at="01:40:00")
    assert city.report(at="01:50:00", source="hotline", category="manhole") == "reopened"
    status = {one.incident_id: one.status for one in city.shard.incidents()}
    assert status == {first: "closed", second: "open"}


@pytest.mark.parametrize(("east_m", "outcome"), [(20, "reopened"), (25, "joined")])
def test_of_an_ended_and_an_open_incident_the_nearer_is_meant(city, east_m, outcome):
    """A repair that was a fake must not vanish in the work on the next cover."""
    first = begun(city)
    city.say("reject", first, at="00:01:00")
    city.report(at="00:00:30", source="video", category="manhole", where=(45, 0))
    assert city.report(at="00:02:00", source="hotline", category="manhole", where=(east_m, 0)) == outcome


@pytest.mark.parametrize(
    ("at", "heard", "outcome"),
    [
        pytest.param("00:30:00", "05:05:00", "late", id="seen in its window, told when it was closed"),
        pytest.param("04:58:00", "05:05:00", "joined", id="seen after its window, before it was closed"),
        pytest.param("05:00:00", "05:05:00", "joined", id="seen at the closing"),
        pytest.param("05:00:01", "05:05:00", "reopened", id="seen after it"),
    ],
)
def test_what_was_seen_before_the_closing_joins_also_when_the_window_had_ended(city, at, heard, outcome):
    """The cover was put back at five, its window had ended at one; who saw it before that saw what was repaired."""
    incident = begun(city)
    city.report(at="05:00:00", source="video", category="street-light")  # time goes on
    city.say("close", incident, at="05:00:00", heard="05:01:00")
    assert city.report(at=at, heard=heard, source="hotline", category="manhole") == outcome
    closed = next(one for one in city.shard.incidents() if one.incident_id == incident)
    assert (closed.status, closed.report_count) == ("open" if outcome == "reopened" else "closed", 2)


def test_a_duplicate_is_joined_by_nothing_more_and_its_original_is(city):
    original = begun(city)
    assert city.report(at="00:00:00", source="hotline", category="manhole", where=(41.0, 0.0)) == "opened"
    (duplicate,) = {one.incident_id for one in city.shard.incidents()} - {original}
    assert city.say("reject", duplicate, at="00:01:00", duplicate_of=original) == "applied"
    for at in ("00:00:30", "00:02:00"):  # before and after
        assert city.report(at=at, source="hotline", category="manhole", where=(38.0, 0.0)) == "joined"
    of = {one.incident_id: one for one in city.shard.incidents()}
    assert (of[duplicate].status, of[duplicate].merged_into, of[duplicate].report_count) == ("rejected", original, 1)
    assert (of[original].merged_into, of[original].report_count) == (None, 3)
    city.restart()
    assert {one.incident_id: one for one in city.shard.incidents()} == of


def test_names_in_feedback_that_is_refused_or_ends_nothing_are_let_go(city):
    incident, nobody = begun(city), "990100-covers-" + "f" * 32
    for number in range(20):
        another = f"990100-covers-{number:032x}"
        assert city.say("close", nobody, at="00:01:00", duplicate_of=another) == "unknown_incident"
        assert city.say("reopen", incident, at="00:01:00", duplicate_of=another) == "illegal_transition"
    assert city.say("accept", incident, at="00:01:00", duplicate_of=another) == "applied"
    assert city.say("close", incident, at="00:02:00", duplicate_of=nobody) == "applied"
    assert city.one().merged_into == nobody
    assert list(city.shard._originals) == [nobody]


def test_whoever_reopens_a_duplicate_takes_it_for_an_event_of_its_own(city):
    incident, another = begun(city), "990100-covers-" + "0" * 32
    city.say("close", incident, at="00:01:00", duplicate_of=another)
    assert city.one().merged_into == another
    city.say("reopen", incident, at="00:02:00")
    assert city.one().merged_into is None
    assert city.report(at="00:03:00", source="hotline", category="manhole") == "joined"


def test_what_goes_on_is_no_duplicate_yet_whatever_is_said_of_it(city):
    """It is learnt from; who goes there still goes."""
    incident = begun(city)
    city.say("dispatch", incident, at="00:01:00", duplicate_of="990100-covers-" + "0" * 32)
    assert city.one().merged_into is None
    assert city.report(at="00:02:00", source="hotline", category="manhole") == "joined"


def test_the_same_feedback_twice_is_applied_once_and_out_of_order_is_refused(city):
    incident = begun(city)
    assert city.say("dispose", incident, at="00:01:00", say_id="a") == "applied"
    assert city.say("dispose", incident, at="00:01:00", say_id="a") == "repeated"
    assert city.say("dispatch", incident, at="00:00:30", say_id="b") == "illegal_transition"
    assert city.say("reopen", incident, at="00:02:00", say_id="c") == "illegal_transition"
    assert city.say("close", incident, at="00:02:00", say_id="c") == "applied"  # what was refused was not applied
    assert (city.one().version, city.one().status) == (3, "closed")


def test_refused_feedback_stays_refused_when_the_log_delivers_it_again(city):
    """A worker died between sending a batch and committing it, so a reopening that came too early is in the log twice.

    The second time it would be legal.
    """
    incident = begun(city)
    early = feedback("reopen", incident, at="00:01:00", offset=1)
    of_nobody = feedback("accept", "990100-none-" + "0" * 32, at="00:01:00", offset=2)
    close = feedback("close", incident, at="00:02:00", offset=3)
    records = [early, of_nobody, close]
    assert [city.send(record) for record in records] == ["illegal_transition", "unknown_incident", "applied"]
    stands = city.shard.incidents()
    assert [city.send(record) for record in records] == ["quiet"] * 3
    assert city.shard.incidents() == stands


@pytest.mark.parametrize(
    ("incident_id", "reason"),
    [
        ("990100-covers-" + "0" * 32, "unknown_incident"),
        ("990100-no-such-group-" + "0" * 32, "unknown_incident"),
        ("880100-covers-" + "0" * 32, "unknown_incident"),
        ("990100-covers-", "unknown_incident"),
        ("?", "unknown_incident"),
        ("", "out_of_range"),
    ],
)
def test_feedback_about_what_is_no_incident_is_a_dead_letter(city, incident_id, reason):
    begun(city)
    assert city.say("accept", incident_id, at="00:01:00") == reason


def test_a_word_that_is_no_action_is_out_of_range(city):
    assert city.say("merge", begun(city), at="00:01:00") == "out_of_range"


def test_feedback_may_be_late_but_not_older_than_a_month_nor_ahead(city):
    incident = begun(city)
    assert city.say("accept", incident, at="00:01:00", heard="29 00:00:00") == "applied"
    assert city.say("close", incident, at="00:01:00", heard="31 00:00:00") == "too_old"
    assert city.say("close", incident, at="30 00:10:01", heard="30 00:00:00") == "future_time"


def test_the_dead_letter_of_feedback_holds_its_exact_bytes_and_says_what_may_follow(city):
    """Of an array as of one alone; the gateway's odd spacing and the fields that we do not read included."""
    incident = begun(city)
    elements = [
        json.dumps({"id": f"f{number}", "time": at_ms("00:02:00"), "action": action, "incident_id": about, "x": "原"})
        for number, (action, about) in enumerate([("close", incident), ("accept", incident), ("close", incident[:-1])])
    ]
    value = (" [" + " ,\n".join(elements) + "]").encode()
    city.send(SourceRecord(FEEDBACK, 3, 70, at_ms("00:02:00"), b"key", value))
    refused = {letter.index: letter for letter in city.dead_letters}
    assert {index: letter.value.decode() for index, letter in refused.items()} == {1: elements[1], 2: elements[2]}
    assert refused[1].detail == "accept of an incident that is closed; it can follow suspected or open"
    assert (refused[1].reason, refused[2].reason) == (Reason.ILLEGAL_TRANSITION, Reason.UNKNOWN_INCIDENT)
    assert all((one.topic, one.partition, one.offset, one.key) == (FEEDBACK, 3, 70, b"key") for one in refused.values())
