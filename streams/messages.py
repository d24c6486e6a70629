"""The public messages, as types: what sources send, what dispatch centres and ClickHouse receive.

The JSON Schemas and the AsyncAPI document in ``docs/schemas`` are generated from these types, so a promise changes
here or nowhere.  Unknown extra fields are ignored (the msgspec default), so a gateway may send more than we read.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

SOURCES = ("iot", "video", "hotline", "patrol")
"""Every source of reports; the position in this tuple is the source's number in columns."""

TOPIC_OF_SOURCE = {
    "iot": "iot.readings",
    "video": "video.events",
    "hotline": "hotline.tickets",
    "patrol": "patrol.reports",
}
SOURCE_OF_TOPIC = {topic: source for source, topic in TOPIC_OF_SOURCE.items()}

LABEL_FIELD = {"iot": "alarm", "video": "event_type", "hotline": "category", "patrol": "category"}
"""The field with a source's own word for what it is about, which the catalogue maps to a category."""


def source_of(topic: str) -> str | None:
    """The source that a topic belongs to: its own, or a platform's own topic of it; None for any other.

    >>> source_of("iot.readings"), source_of("iot.readings.huaxin"), source_of("reports")
    ('iot', 'iot', None)
    """
    source = SOURCE_OF_TOPIC.get(topic)
    if source is None:
        source = SOURCE_OF_TOPIC.get(topic.rpartition(".")[0])
    return source


def platform_topic(source: str, platform: str) -> str:
    """The own topic of a platform of a source: `iot.readings.huaxin`."""
    return f"{TOPIC_OF_SOURCE[source]}.{platform}"


def platform_named(headers: Sequence[tuple[str, bytes]]) -> str | None:
    """The platform that a record's headers name; None if they name none."""
    if not headers:
        return None
    return next((data.decode(errors="replace") for name, data in headers if name == "platform"), None)


REPORTS = "reports"
INCIDENTS = "incidents"
SUSPECTED_INCIDENTS = "incidents.suspected"
"""Incidents while they are `suspected`: for ClickHouse, not for dispatch centres."""
ASSIGNMENTS = "assignments"
DEAD_LETTERS = "dead-letters"
FEEDBACK = "dispatch.feedback"

MIN_TIME_MS, MAX_TIME_MS = -62_135_596_800_000, 253_402_300_799_999
"""The first millisecond of the year 1 and the last of 9999, Unix ms: what RFC 3339 can still write."""

Id = Annotated[str, Meta(min_length=1, max_length=64)]
Time = Annotated[
    Annotated[datetime, Meta(tz=True)] | Annotated[int, Meta(ge=MIN_TIME_MS, le=MAX_TIME_MS)],
    Meta(description="RFC 3339 with an offset, or integer Unix milliseconds."),
]
Lon = Annotated[float, Meta(ge=-180, le=180, description="Degrees east, in the datum named by `crs`.")]
Lat = Annotated[float, Meta(ge=-90, le=90, description="Degrees north, in the datum named by `crs`.")]
AccuracyM = Annotated[float, Meta(ge=0, le=5000, description="Positional accuracy, one sigma, metres.")]
Confidence = Annotated[float, Meta(ge=0, le=1)]


class Outcome(StrEnum):
    """What became of a report; the log key, the metric label and the ClickHouse column use the same word."""

    OPENED = "opened"
    JOINED = "joined"
    REPEAT = "repeat"
    AMENDED = "amended"
    LATE = "late"
    REOPENED = "reopened"
    NOT_AN_EVENT = "not_an_event"


RULES = (
    "best_open", "best_ended", "reopened", "nothing_near", "not_enough", "recurrence", "second_thoughts", "no_position",
    "same_report", "not_an_event",
)  # fmt: skip
"""What may have decided on a report (`Why.rule`)."""

SCORE_TERMS = (
    "nearness", "distance", "gap", "category", "sources", "same_place", "text", "again", "prior", "busy", "rival",
)  # fmt: skip
"""What a score is the sum of (`Why.terms`)."""

SAME_PLACES = ("spot", "device", "asset", "address")
"""What may tell that two reports are at one place (`Why.same_place`)."""


class Reason(StrEnum):
    """Why a message became a dead letter; the header, the metric label and the ClickHouse column."""

    MALFORMED_JSON = "malformed_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    INVALID_TIME = "invalid_time"
    FUTURE_TIME = "future_time"
    TOO_OLD = "too_old"
    TOO_LARGE = "too_large"
    UNSUPPORTED_CRS = "unsupported_crs"
    UNKNOWN_CATEGORY = "unknown_category"
    UNKNOWN_DEVICE = "unknown_device"
    OUTSIDE_CITY = "outside_city"
    UNKNOWN_INCIDENT = "unknown_incident"
    ILLEGAL_TRANSITION = "illegal_transition"


class Status(StrEnum):
    """Where an incident stands in its life."""

    SUSPECTED = "suspected"
    OPEN = "open"
    ACCEPTED = "accepted"
    DISPATCHED = "dispatched"
    DISPOSED = "disposed"
    CLOSED = "closed"
    REJECTED = "rejected"


# ---------------------------------------------------------------------------------------------- what sources send


class SourceMessage(msgspec.Struct, kw_only=True):
    """Fields common to every source."""

    id: Id
    time: Time
    platform: Annotated[str, Meta(max_length=64)] | None = None
    lon: Lon | None = None
    lat: Lat | None = None
    crs: str | None = None
    accuracy_m: AccuracyM | None = None
    asset_id: Annotated[str, Meta(max_length=64)] | None = None


class IotMessage(SourceMessage, kw_only=True):
    """A sensor's reading (`metric` and `value`) or its own alarm (`alarm`)."""

    device_id: Id
    metric: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    value: float | None = None
    unit: Annotated[str, Meta(max_length=32)] | None = None
    alarm: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    state: str | None = None


class VideoMessage(SourceMessage, kw_only=True):
    """Something a camera's analytics saw; the picture itself stays where it is."""

    camera_id: Id
    event_type: Annotated[str, Meta(min_length=1, max_length=128)]
    confidence: Confidence
    snapshot_url: Annotated[str, Meta(max_length=2048)] | None = None


class HotlineMessage(SourceMessage, kw_only=True):
    """A ticket of the 12345 hotline.  `caller` is replaced by a keyed hash before anything else sees it."""

    category: Annotated[str, Meta(min_length=1, max_length=128)]
    text: str | None = None
    address: str | None = None
    caller: Annotated[str, Meta(max_length=64)] | None = None


class PatrolMessage(SourceMessage, kw_only=True):
    """A grid worker's report."""

    worker_id: Id
    category: Annotated[str, Meta(min_length=1, max_length=128)]
    lon: Lon
    lat: Lat
    text: str | None = None
    address: str | None = None


MESSAGE_OF_SOURCE: dict[str, type[SourceMessage]] = {
    "iot": IotMessage,
    "video": VideoMessage,
    "hotline": HotlineMessage,
    "patrol": PatrolMessage,
}


class Action(StrEnum):
    """What a dispatch centre did with an incident; another word is `out_of_range`."""

    ACCEPT = "accept"
    DISPATCH = "dispatch"
    DISPOSE = "dispose"
    CLOSE = "close"
    REJECT = "reject"
    REOPEN = "reopen"


class ReportName(msgspec.Struct, frozen=True, gc=False):
    """One report, as its source names it."""

    source: Literal["hotline", "iot", "patrol", "video"]
    report_id: Id


class FeedbackMessage(msgspec.Struct, kw_only=True):
    """What a dispatch centre did with an incident.

    The same `id` twice is applied once: of one platform, about one incident.  So nothing is lost of a dispatch centre
    that numbers its messages anew for each incident.

    `duplicate_of` and `misjoined` are what `citybrain fit` learns from.  An incident that ends as a duplicate is joined
    by nothing more: what comes joins the other one if it is near enough, else it founds one.
    """

    id: Id
    time: Time
    action: str
    """A word of `Action`; a plain string here, so that another word is refused as `out_of_range`, as `state` is."""
    incident_id: Annotated[str, Meta(min_length=1, max_length=256)]
    platform: Annotated[str, Meta(max_length=64)] | None = None
    actor: Annotated[str, Meta(max_length=64)] | None = None
    reason: Annotated[str, Meta(max_length=2000)] | None = None
    duplicate_of: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    misjoined: Annotated[list[ReportName], Meta(max_length=1000)] = []


# ------------------------------------------------------------------------------------------------- what we send
#
# `gc=False`: none of these can be part of a cycle, and a batch makes thousands; Python's collector took a fifth of the
# time of a replay walking them.


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """One report an incident rests on."""

    source: str
    report_id: str


class Incident(msgspec.Struct, kw_only=True, gc=False):
    """One real-world event as it stands at `version`.  Times are RFC 3339 UTC with milliseconds."""

    incident_id: str
    version: int
    status: str
    category: str
    category_name: str
    priority: int
    department: str
    grid_code: str | None
    community_code: str | None
    street_code: str | None
    county_code: str | None
    layer_codes: dict[str, str]
    """The code of the cell in each other layer of the grid that covers the place, by layer."""
    lon: float | None
    lat: float | None
    accuracy_m: float | None
    opened_at: str
    first_report_at: str
    last_report_at: str
    updated_at: str
    closed_at: str | None = None
    report_count: int
    repeat_count: int
    sources: dict[str, int]
    witness_count: int | None = None
    confidence: float | None = None
    sla_due_at: str | None = None
    overdue: bool | None = None
    merged_into: str | None = None
    recurrence_of: str | None = None
    pack_version: str
    evidence: list[Evidence]


class RunnerUp(msgspec.Struct, frozen=True, gc=False):
    """The second best incident; or the best, where it was not good enough; or the one that was left again."""

    incident_id: str
    score: int
    distance_m: float | None


class Why(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """Each term's contribution to the decision."""

    rule: str
    """`best_open`; `best_ended` (it has ended, but not before this was seen); `reopened`; `nothing_near`;
    `not_enough` (founded, for the best one near, the runner-up, scored below 0); `recurrence` (founded, and
    `recurrence_of` was there before); `second_thoughts` (an earlier answer is taken back: this incident, founded since,
    suits it better than the runner-up that it had joined); `no_position`, `same_report`, `not_an_event`."""
    radius_m: float | None = None
    """Largest distance that would still have been near: the category's radius and the capped accuracy."""
    window_s: float | None = None
    terms: dict[str, int] | None = None
    """What the score is the sum of, in points, hundredths of a power of ten; a term of 0 is left out.  `nearness` (how
    sure both places are, against how many such events there are), `distance`, `gap`, `category`, `sources`,
    `same_place`, `text`, `prior`, `busy` (there are others near), `rival` (one of them is nearly as likely)."""
    same_place: str | None = None
    """What tells that both are at one place: `spot`, `device`, `asset`, `address`."""
    late_s: float | None = None
    """How far behind the watermark the report came, beyond which `lateness_s` was exceeded."""
    found: bool | None = None
    """For a late report: whether it found an incident still held (`true`) or founded one."""
    runner_up: RunnerUp | None = None
    recurrence_of: str | None = None


class Assignment(msgspec.Struct, kw_only=True, gc=False):
    """Which report went where, and why; `origin` and `revision` together are its key."""

    origin: str
    revision: int
    source: str
    report_id: str
    event_time: str
    incident_id: str | None
    outcome: str
    score: int | None
    distance_m: float | None
    gap_s: float | None
    category: str
    why: Why


class DeadLetterRecord(msgspec.Struct, kw_only=True):
    """A dead letter without its content: what the table and the file hold."""

    origin: str
    reason: str
    field: str | None
    detail: str
    source: str
    sha256: str
    size_bytes: int
    excerpt: str
    ingested_at: str
    service_version: str
