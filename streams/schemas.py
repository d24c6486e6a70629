"""What other people's programs rely on, written down: JSON Schemas of the public messages, an AsyncAPI document.

Built from the types in :mod:`streams.messages`.  What a Python type cannot say (which words a string may be, which
fields go together, what a field means) stands in the tables below, and a test holds every field to have its sentence.
``docs/schemas`` and ``docs/asyncapi.json`` are this module's output, byte for byte; ``citybrain schemas`` writes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from geo.datum import CRS
from streams.messages import (
    ASSIGNMENTS,
    DEAD_LETTERS,
    FEEDBACK,
    INCIDENTS,
    REPORTS,
    RULES,
    SAME_PLACES,
    SCORE_TERMS,
    SOURCE_OF_TOPIC,
    SOURCES,
    SUSPECTED_INCIDENTS,
    Action,
    Assignment,
    DeadLetterRecord,
    FeedbackMessage,
    HotlineMessage,
    Incident,
    IotMessage,
    Outcome,
    PatrolMessage,
    Reason,
    Status,
    VideoMessage,
    Why,
    platform_topic,
)

JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
ASYNCAPI_VERSION = "3.0.0"
PROMISES_VERSION = "1.3.0"
"""Of what the AsyncAPI document promises; raised when that changes, not with each release of the service."""

Schema = dict[str, Any]


class SourceHeaders(msgspec.Struct, kw_only=True):
    """The headers of a record on a source's topic that are read; it needs none."""

    platform: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class DeadLetterHeaders(msgspec.Struct, kw_only=True):
    """The headers of a record on the dead-letter topic; its value is the refused message, byte for byte."""

    reason: str
    field: str
    detail: str
    source: str
    topic: str
    partition: str
    offset: str
    index: str
    platform: str
    ingested_at: str
    service_version: str


READ_MESSAGES: dict[str, type] = {
    "iot": IotMessage,
    "video": VideoMessage,
    "hotline": HotlineMessage,
    "patrol": PatrolMessage,
    "feedback": FeedbackMessage,
}
"""What others send and we read, by the name of its schema file."""

SENT_MESSAGES: dict[str, type] = {
    "incident": Incident,
    "assignment": Assignment,
    "dead-letter-headers": DeadLetterHeaders,
    "dead-letter-record": DeadLetterRecord,
}
"""What we send: every field is always there, so every field is required."""

# What each field means.  "Type.field" where it differs from the plain "field".
_MEANING = {
    # what sources send
    "id": "Identifies the message within its source and platform. The same id again is a repeat of the report, or if "
    "it says something else amends it; it is not a new one.",
    "time": "When it was seen or measured: RFC 3339 with an offset, or Unix milliseconds without a decimal point.",
    "platform": "Which of several platforms of this source sent it; ids need to be unique only within one.",
    "SourceHeaders.platform": "The platform whose names, nesting, units and codes the value has, as the city's pack "
    "maps them. Without it, or where the pack has no such platform, the value is as described here.",
    "lon": "Degrees east, in the datum named by `crs`. Given together with `lat`.",
    "lat": "Degrees north, in the datum named by `crs`. Given together with `lon`.",
    "crs": "Datum of `lon` and `lat`. Without it the city's setting for this source holds.",
    "accuracy_m": "How far off the position may be: one standard deviation, metres. "
    "Without it that of the device, else of the source, holds.",
    "asset_id": "The thing it is about (a manhole, a lamp post) in the city's asset register.",
    "device_id": "The sensor. One that stands in the city's device registry needs to send no position.",
    "metric": "What was measured, in the gateway's word for it. Needs a `value`.",
    "value": "The reading, in `unit`.",
    "unit": "Unit of `value`.",
    "alarm": "The device's own word for what is wrong. Takes the place of a reading.",
    "state": "Of an alarm: raised (also when this is absent) or cleared.",
    "camera_id": "The camera. One that stands in the city's device registry needs to send no position.",
    "event_type": "What the analytics saw, in the video platform's word for it.",
    "VideoMessage.confidence": "How sure the analytics are, 0 to 1. It counts where it is less than the city's pack "
    "believes the source.",
    "snapshot_url": "Where the picture is. The picture itself never travels.",
    "category": "What it is about, in the source's own word for it; the city's catalogue knows these words.",
    "text": "What was said. Telephone and identity numbers are masked before anything else sees it.",
    "address": "Where, in words. Numbers are masked as in `text`.",
    "HotlineMessage.address": "Where, in words. Without coordinates the place is looked for here, then in `text`. "
    "Numbers are masked as in `text`.",
    "caller": "The caller's number. Replaced by a keyed hash before anything else sees it.",
    "worker_id": "The grid worker.",
    "FeedbackMessage.id": "Identifies the feedback about its incident; the same id twice, of one platform about one "
    "incident, is applied once. About another incident it is another feedback.",
    "FeedbackMessage.time": "When it was done: RFC 3339 with an offset, or Unix milliseconds without a decimal point.",
    "FeedbackMessage.platform": "Which of several dispatch centres sent it; ids need to be unique only within one.",
    "action": "What was done: open -> accepted -> dispatched -> disposed -> closed, where steps may be left out going "
    "forward; reject from open or accepted; reopen from closed or rejected. From suspected as from open.",
    "FeedbackMessage.incident_id": "The incident it was done to.",
    "actor": "The office or post that did it.",
    "FeedbackMessage.reason": "Why, in words.",
    "duplicate_of": "The incident that is the same event, which goes on in its place. With `reject` or `close` it "
    "becomes `merged_into`, and no report joins this one any more. With any action `citybrain fit` learns from it.",
    "misjoined": "Reports of the incident that speak of another event. Changes no incident, and teaches "
    "`citybrain fit` what does not belong together.",
    "ReportName.source": "Which source it came from.",
    "ReportName.report_id": "Its `id` there.",
    # incidents
    "incident_id": "Identifies the incident for ever: city code, category group, and a hash of its founding report.",
    "version": "Counts the incident's changes from 1; of two messages the higher version stands. Versions may be left "
    "out, never an opening, a new source, a merge or a closing.",
    "status": "Where the incident stands in its life. Only feedback closes. Suspected: too little is known to tell "
    "anybody; such states are on the topic `incidents.suspected`.",
    "Incident.category": "Code of its category in the city's catalogue.",
    "category_name": "Name of its category.",
    "priority": "1 (highest) to 4.",
    "department": "The office it falls to.",
    "grid_code": "Finest cell of the city's grid that covers it; null where it has no position.",
    "community_code": "Community around it; null where the grid does not reach that far down.",
    "street_code": "Street or township around it; null where the grid does not reach that far down.",
    "county_code": "County around it.",
    "layer_codes": "Code of the cell that covers it in each other layer of the city's grid, by layer.",
    "Incident.lon": "Degrees east, WGS-84, of the founding report; null until somebody has placed it.",
    "Incident.lat": "Degrees north, WGS-84, of the founding report; null until somebody has placed it.",
    "Incident.accuracy_m": "One standard deviation of that position, metres.",
    "opened_at": "Event time of the founding report.",
    "first_report_at": "Earliest event time among its reports.",
    "last_report_at": "Latest event time among its reports.",
    "updated_at": "When what caused the latest change reached the service.",
    "closed_at": "When it was closed; null while it is not.",
    "report_count": "Reports it consists of, without repeats and amendments.",
    "repeat_count": "Messages that said again, under the same id, what a report had said.",
    "sources": "Reports by source.",
    "witness_count": "Independent reporters: devices, cameras, callers, workers. Who reports again is the same one.",
    "Incident.confidence": "How sure it is that this happened, 0 to 1, by what its witnesses are worth together. Null "
    "where the city's pack does not say how far any of their sources is believed.",
    "sla_due_at": "By when it must be closed. Null until deadlines are watched.",
    "overdue": "Whether that time has passed. Null until deadlines are watched.",
    "merged_into": "The incident that this one was ended as a duplicate of. Its own reports stay its own; a later "
    "one joins the other if it is near enough, else it founds one.",
    "recurrence_of": "The earlier incident at the same place that this one repeats.",
    "pack_version": "Hash of the city's settings by which it was decided.",
    "evidence": "Its first and its latest report.",
    "Evidence.source": "The report's source.",
    "Evidence.report_id": "The report's id within that source.",
    # assignments
    "origin": "Where the report stood: topic:partition:offset:index. With `revision` the assignment's key.",
    "revision": "0 for the first answer; a later correction of the same report has the next number.",
    "source": "The report's source.",
    "report_id": "The `id` of the report's message.",
    "event_time": "The report's own `time`.",
    "Assignment.incident_id": "The incident it went to; null where it is not about an event.",
    "outcome": "What became of the report.",
    "score": "What speaks for the report and its incident being one event, in points: with 100 more it is ten times as "
    "likely. Null where it founded its incident.",
    "distance_m": "Metres from where the incident is anchored; null where there was nothing to measure from.",
    "gap_s": "Seconds between the report and the incident's latest report until then, earlier or later; null as above.",
    "Assignment.category": "Code of the report's own category; the incident's may be another of its group.",
    "why": "What decided.",
    "rule": "What decided. `best_open`: of the incidents near in place and time it suits this one best. `best_ended`: "
    "so it does, and that has ended, but not before this was seen. `reopened`: after that. `nothing_near`: it founded "
    "one, for none was near. `not_enough`: one was, the runner-up, but not likely enough. `recurrence`: it founded "
    "one, and `recurrence_of` was there before. `second_thoughts`: an earlier answer is taken back, for this incident, "
    "founded since, suits it better than the runner-up, which it had joined. `no_position`: it has none. "
    "`same_report`: this id was here before. `not_an_event`: the category is none.",
    "radius_m": "Largest distance that is near, metres: the category's radius and the accuracy of the vaguer of the "
    "two, capped.",
    "window_s": "Largest time from the incident's reports that is near, seconds.",
    "terms": "What the score is the sum of, in points; what is 0 is left out. `nearness`: how well both places are "
    "known, and how few such events there are. `distance`. `gap`: the time between. `category`. `sources`: how often "
    "those two see one event. `same_place`. `text`. `prior`: before all evidence. `busy`: other incidents are near. "
    "`rival`: one of them is nearly as likely.",
    "same_place": "What tells that the report is at the incident's very place: a few metres, a device, an asset or an "
    "address.",
    "late_s": "For a late report: seconds it came behind the newest that had been read.",
    "found": "For a late report: whether it found an incident; if not it founded one.",
    "runner_up": "The incident that came second; the best one, where it was not good enough; the one that was left.",
    "Why.recurrence_of": "Id of the incident that was there before.",
    "RunnerUp.incident_id": "Its id.",
    "RunnerUp.score": "Its score.",
    "RunnerUp.distance_m": "Metres from where it is anchored; null where nobody measured.",
    # dead letters
    "reason": "Why the message was refused.",
    "field": "The field at fault; empty where it is not about one.",
    "DeadLetterRecord.field": "The field at fault; null where it is not about one.",
    "detail": "What was wrong with it, in words; numbers of people are masked.",
    "DeadLetterHeaders.source": "The source, or the topic's name where the topic is not a source's.",
    "DeadLetterRecord.source": "The source, or the topic's name where the topic is not a source's.",
    "topic": "The topic the message was read from, without prefix.",
    "partition": "Its partition there, in decimal digits.",
    "offset": "Its offset there, in decimal digits.",
    "index": "Which element of the array it was, in decimal digits; 0 for a single object.",
    "DeadLetterHeaders.platform": "The platform that its header named, needed to send it again; empty where it named "
    "none.",
    "service_version": "Version of the service that refused it.",
    "DeadLetterRecord.origin": "Where the message stood: topic:partition:offset:index.",
    "sha256": "SHA-256 of the refused bytes, in hexadecimal.",
    "size_bytes": "How many bytes were refused.",
    "excerpt": "The beginning of what was refused, without callers and with numbers of people masked; empty for a "
    "hotline's message that came through a platform, for its callers may stand under any name.",
    "ingested_at": "When it reached the service.",
}

_UTC_MILLISECONDS = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
}
_DIGITS = {"pattern": "^[0-9]+$"}


def _words(words: Iterable[str]) -> Schema:
    return {"enum": [str(word) for word in words]}


# What a field's type does not say; merged into the part of its schema that is not null.
_EXACT: dict[str, Schema] = {
    "crs": _words(CRS),
    "state": _words(("raised", "cleared")),
    "snapshot_url": {"format": "uri-reference"},
    "action": _words(Action),
    "status": _words(Status),
    "priority": {"minimum": 1, "maximum": 4},
    "version": {"minimum": 1},
    "report_count": {"minimum": 1},
    "repeat_count": {"minimum": 0},
    "witness_count": {"minimum": 0},
    "sources": {"propertyNames": _words(SOURCES), "additionalProperties": {"type": "integer", "minimum": 1}},
    "evidence": {"minItems": 1, "maxItems": 2},
    "Evidence.source": _words(SOURCES),
    "Assignment.source": _words(SOURCES),
    "Incident.lon": {"minimum": -180, "maximum": 180},
    "Incident.lat": {"minimum": -90, "maximum": 90},
    "Incident.accuracy_m": {"minimum": 0},
    "Incident.confidence": {"minimum": 0, "maximum": 1},
    "origin": {"pattern": "^[^:]+:[0-9]+:[0-9]+:[0-9]+$"},
    "revision": {"minimum": 0},
    "outcome": _words(Outcome),
    "distance_m": {"minimum": 0},
    "gap_s": {"minimum": 0},
    "rule": _words(RULES),
    "terms": {"propertyNames": _words(SCORE_TERMS), "additionalProperties": {"type": "integer"}},
    "same_place": _words(SAME_PLACES),
    "radius_m": {"minimum": 0},
    "window_s": {"minimum": 0},
    "DeadLetterHeaders.reason": _words(Reason),
    "DeadLetterRecord.reason": _words(Reason),
    "DeadLetterHeaders.partition": _DIGITS,
    "DeadLetterHeaders.offset": _DIGITS,
    "DeadLetterHeaders.index": _DIGITS,
    "sha256": {"pattern": "^[0-9a-f]{64}$"},
    "size_bytes": {"minimum": 0},
    **dict.fromkeys(
        ("opened_at", "first_report_at", "last_report_at", "updated_at", "closed_at", "sla_due_at", "event_time"),
        _UTC_MILLISECONDS,
    ),
    "ingested_at": _UTC_MILLISECONDS,
}


def _given(name: str, kind: str) -> Schema:
    """The field is there and not null."""
    return {"required": [name], "properties": {name: {"type": kind}}}


def _both(*parts: Schema) -> Schema:
    required = [name for part in parts for name in part["required"]]
    return {"required": required, "properties": {name: schema for part in parts for name, schema in _fields(part)}}


def _fields(part: Schema) -> Iterable[tuple[str, Schema]]:
    properties: dict[str, Schema] = part["properties"]
    return properties.items()


_LON, _LAT = _given("lon", "number"), _given("lat", "number")
_WHOLE_POSITION = [{"if": _LON, "then": _LAT}, {"if": _LAT, "then": _LON}]

# Which fields go together.
_TOGETHER: dict[str, Schema] = {
    "IotMessage": {
        "anyOf": [_given("alarm", "string"), _both(_given("metric", "string"), _given("value", "number"))],
        "allOf": _WHOLE_POSITION,
    },
    "VideoMessage": {"allOf": _WHOLE_POSITION},
    "HotlineMessage": {"allOf": _WHOLE_POSITION},
}

# One each, as a person would write it by hand; all of them about places of the invented city in packs/sample.
EXAMPLES: dict[str, list[Any]] = {
    "iot": [
        {"id": "a-81", "time": "2026-06-01T08:30:00+08:00", "device_id": "IOT-JG-0001", "alarm": "water_cover_tilt"},
        {
            "id": "r-82",
            "time": 1780273800000,
            "device_id": "IOT-JS-0001",
            "metric": "road_water_cm",
            "value": 3.1,
            "unit": "cm",
        },
    ],
    "video": [
        {
            "id": "v-5512",
            "time": "2026-06-01T08:31:10+08:00",
            "camera_id": "99010000001320000001",
            "event_type": "garbage_exposed",
            "confidence": 0.82,
            "snapshot_url": "video/2026-06-01/5512.jpg",
        }
    ],
    "hotline": [
        {
            "id": "T20260601-0007",
            "time": "2026-06-01T08:35:00+08:00",
            "category": "垃圾未清运",
            "text": "小区门口的垃圾三天没有人收",
            "address": "示范路12号",
        }
    ],
    "patrol": [
        {
            "id": "P-20260601-113",
            "time": "2026-06-01T08:40:00+08:00",
            "worker_id": "W-031",
            "category": "暴露垃圾",
            "lon": 119.952302,
            "lat": 38.753786,
            "crs": "cgcs2000",
        }
    ],
    "feedback": [
        {
            "id": "F-9001",
            "time": "2026-06-01T10:05:00+08:00",
            "action": "dispatch",
            "incident_id": "990100-refuse-0f3a5b7c9d1e2f40516273849a5b6c7d",
            "actor": "sanitation",
            "reason": "sent to the night shift",
        },
        {
            "id": "F-9002",
            "time": "2026-06-01T10:07:00+08:00",
            "action": "reject",
            "incident_id": "990100-refuse-5d1c7e90a2b3f4461728394a5b6c7d8e",
            "actor": "sanitation",
            "duplicate_of": "990100-refuse-0f3a5b7c9d1e2f40516273849a5b6c7d",
        },
        {
            "id": "F-9003",
            "time": "2026-06-01T11:30:00+08:00",
            "action": "close",
            "incident_id": "990100-refuse-0f3a5b7c9d1e2f40516273849a5b6c7d",
            "actor": "sanitation",
            "misjoined": [{"source": "hotline", "report_id": "T-20260601-0042"}],
        },
    ],
    "incident": [
        {
            "incident_id": "990100-refuse-0f3a5b7c9d1e2f40516273849a5b6c7d",
            "version": 2,
            "status": "open",
            "category": "06010",
            "category_name": "暴露垃圾",
            "priority": 3,
            "department": "环境卫生服务中心",
            "grid_code": "990101003003018",
            "community_code": "990101003003",
            "street_code": "990101003",
            "county_code": "990101",
            "layer_codes": {"wards": "W-07"},
            "lon": 119.952302,
            "lat": 38.753786,
            "accuracy_m": 12.0,
            "opened_at": "2026-06-01T00:40:00.000Z",
            "first_report_at": "2026-06-01T00:40:00.000Z",
            "last_report_at": "2026-06-01T00:52:30.000Z",
            "updated_at": "2026-06-01T00:52:31.250Z",
            "closed_at": None,
            "report_count": 2,
            "repeat_count": 0,
            "sources": {"hotline": 1, "patrol": 1},
            "witness_count": 2,
            "confidence": 0.978,
            "sla_due_at": None,
            "overdue": None,
            "merged_into": None,
            "recurrence_of": None,
            "pack_version": "5b1f0c2d9e7a4386",
            "evidence": [
                {"source": "patrol", "report_id": "P-20260601-113"},
                {"source": "hotline", "report_id": "T20260601-0011"},
            ],
        }
    ],
    "assignment": [
        {
            "origin": "hotline.tickets:0:10:0",
            "revision": 0,
            "source": "hotline",
            "report_id": "T20260601-0011",
            "event_time": "2026-06-01T00:52:30.000Z",
            "incident_id": "990100-refuse-0f3a5b7c9d1e2f40516273849a5b6c7d",
            "outcome": "joined",
            "score": 48,
            "distance_m": 23.1,
            "gap_s": 750.0,
            "category": "06010",
            "why": {
                "rule": "best_open",
                "radius_m": 70.0,
                "window_s": 86400.0,
                "terms": {"nearness": 117, "distance": -36, "gap": -3, "sources": 20, "prior": -50},
                "runner_up": {
                    "incident_id": "990100-refuse-7b1d3f5a7c9e0b2d4f6a8c0e1f3a5b7c",
                    "score": -212,
                    "distance_m": 61.4,
                },
            },
        }
    ],
    "dead-letter-headers": [
        {
            "reason": "out_of_range",
            "field": "lat",
            "detail": "Expected `float` <= 90.0",
            "source": "patrol",
            "topic": "patrol.reports",
            "partition": "2",
            "offset": "1041",
            "index": "0",
            "platform": "",
            "ingested_at": "2026-06-01T00:40:02.000Z",
            "service_version": "0.1.0",
        }
    ],
    "dead-letter-record": [
        {
            "origin": "patrol.reports:2:1041:0",
            "reason": "out_of_range",
            "field": "lat",
            "detail": "Expected `float` <= 90.0",
            "source": "patrol",
            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "size_bytes": 118,
            "excerpt": '{"id": "P-7", "time": "2026-06-01T08:40:00+08:00", "worker_id": "W-031"',
            "ingested_at": "2026-06-01T00:40:02.000Z",
            "service_version": "0.1.0",
        }
    ],
}

_KEYS_IN_ORDER = ("$schema", "$ref", "title", "description", "type", "enum", "format", "properties", "required")


def schema_files() -> dict[str, str]:
    """The text of each schema file by its name, ``iot.schema.json`` and so on; JSON Schema 2020-12, self-contained."""
    files = {}
    for name, kind in {**READ_MESSAGES, **SENT_MESSAGES}.items():
        schemas = _schemas_of(kind, "#/$defs/{name}")
        whole = {"$schema": JSON_SCHEMA, **schemas.pop(kind.__name__), "examples": EXAMPLES[name]}
        if schemas:
            whole["$defs"] = schemas
        files[f"{name}.schema.json"] = _text(whole)
    return files


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the AsyncAPI document says of a topic's settings; ``name`` without prefix, ``configuration`` in Kafka's
    own names."""

    name: str
    partitions: int
    configuration: Mapping[str, str]


def asyncapi_text(topics: Iterable[TopicFacts], *, prefix: str) -> str:
    """The AsyncAPI 3.0 document, JSON: every topic with its key, its partitions and what travels on it.

    Seen from this service: it receives what sources and dispatch centres send, and sends the rest.  ``prefix`` is the
    default one.  Raises ``KeyError`` for a topic that the tables here do not describe.
    """
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for facts in topics:
        names = [facts.name]
        if facts.name in SOURCE_OF_TOPIC:
            names.append(platform_topic(SOURCE_OF_TOPIC[facts.name], "{platform}"))
        for name in names:
            described = _TOPICS[name]
            channel, message = _camel(name), _camel(described.message)
            parameters = ["prefix", *(["platform"] if name != facts.name else [])]
            channels[channel] = {
                "address": "{prefix}" + name,
                "title": name,
                "description": described.description,
                "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name in parameters},
                "messages": {message: {"$ref": f"#/components/messages/{message}"}},
                "bindings": {
                    "kafka": {
                        "partitions": facts.partitions,
                        "topicConfiguration": _topic_configuration(facts.configuration),
                        "bindingVersion": "0.5.0",
                    }
                },
            }
            for action, summary in described.summary.items():
                operations[action + channel[0].upper() + channel[1:]] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{channel}"},
                    "summary": summary,
                    "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
                }
    schemas: dict[str, Schema] = {}
    for kind in (*READ_MESSAGES.values(), SourceHeaders, Incident, Assignment, DeadLetterHeaders):
        schemas |= _schemas_of(kind, "#/components/schemas/{name}")
    return _text(
        {
            "asyncapi": ASYNCAPI_VERSION,
            "info": {
                "title": "city-brain-streams",
                "version": PROMISES_VERSION,
                "description": "One grid for the whole city: reports of sensors, cameras, callers and grid workers "
                "in, one incident for each real-world event out. Seen from the service: it receives what sources and "
                "dispatch centres send, and sends incidents, assignments and dead letters. Partitions and retention "
                "are the defaults of `citybrain topics create`.",
            },
            "defaultContentType": "application/json",
            "channels": channels,
            "operations": operations,
            "components": {
                "parameters": {
                    "prefix": {
                        "description": "Goes before every topic's name; a setting of the service.",
                        "default": prefix,
                    },
                    "platform": {
                        "description": "Name of a platform of the city's pack; `citybrain topics create --city` makes "
                        "the topics of all of them.",
                    },
                },
                "messages": _messages(),
                "schemas": schemas,
            },
        }
    )


@dataclass(frozen=True, slots=True)
class _Topic:
    message: str
    description: str
    summary: dict[str, str]
    """By what the service does with it, "receive" or "send"."""


_RECEIVED_FROM = {
    "iot": "sensor gateways",
    "video": "video platforms",
    "hotline": "the 12345 platform",
    "patrol": "the grid workers' app",
}
_TOPICS = {
    **{
        platform_topic(source, "{platform}"): _Topic(
            "platform",
            f"What one platform sends in place of {topic}, as it names and nests things; the city's pack says which of "
            "them are ours.",
            {"receive": f"Read a platform's messages as those of {topic}."},
        )
        for topic, source in SOURCE_OF_TOPIC.items()
    },
    **{
        topic: _Topic(
            source,
            f"Messages of {_RECEIVED_FROM[source]}: each record is one JSON object, or a JSON array of them.",
            {"receive": f"Read messages of {_RECEIVED_FROM[source]}."},
        )
        for topic, source in SOURCE_OF_TOPIC.items()
    },
    FEEDBACK: _Topic(
        "feedback",
        "What dispatch centres did with incidents: each record is one JSON object, or a JSON array of them.",
        {"receive": "Read what dispatch centres did, and put it in its place in the log that decides."},
    ),
    REPORTS: _Topic(
        "reports-block",
        "Internal: the log that decides. Located reports, readings and feedback in blocks, and ticks. The partition is "
        "given explicitly: one for each shard, a stable hash of city code and category group.",
        {
            "send": "Append located reports to the log of their shard.",
            "receive": "Fold the log of a shard into incidents.",
        },
    ),
    INCIDENTS: _Topic(
        "incident",
        "Every incident as it stands, compacted by its id: whoever reads from the start knows all of them, but those "
        "that are suspected.",
        {"send": "Tell an incident's new state."},
    ),
    SUSPECTED_INCIDENTS: _Topic(
        "incident",
        "Incidents as they stood while they were suspected, compacted by their id; of one that is on `incidents` too, "
        "the higher version stands. For databases and maps: a dispatch centre need not read it.",
        {"send": "Tell the new state of an incident that is suspected."},
    ),
    ASSIGNMENTS: _Topic(
        "assignment",
        "Which report went to which incident, and why; one message for each report.",
        {"send": "Tell where a report went."},
    ),
    DEAD_LETTERS: _Topic(
        "dead-letter",
        "What could not be used, unchanged. It holds callers' numbers in the clear: for operators only, and kept "
        "for a short time.",
        {"send": "Put aside what cannot be used, with the reason."},
    ),
}

_KEY_OF = {
    "iot": "The device's id, so that a device's readings stay in order.",
    "video": "The camera's id.",
    "hotline": "The ticket's id.",
    "patrol": "The grid worker's id.",
    "platform": "As for the source's own topic: what keeps a device's messages in order.",
    "feedback": "The incident's id, so that an incident's feedback stays in order.",
    "incident": "The incident's id.",
    "assignment": "The incident's id; the record has no key where the report went to none.",
    "dead-letter": "The key of the refused record, unchanged.",
}


def _messages() -> dict[str, Any]:
    messages: dict[str, Any] = {}
    for name, kind in {**READ_MESSAGES, "incident": Incident, "assignment": Assignment}.items():
        reference = {"$ref": f"#/components/schemas/{kind.__name__}"}
        payload: Schema = reference
        examples = [{"payload": example} for example in EXAMPLES[name]]
        if name in READ_MESSAGES:
            payload = {
                "description": "One message, or an array of them; of an array only the bad elements are refused.",
                "oneOf": [reference, {"type": "array", "items": reference}],
            }
            examples.append({"payload": EXAMPLES[name]})
        headers = {"headers": {"$ref": "#/components/schemas/SourceHeaders"}} if name in SOURCES else {}
        messages[name] = {
            "name": kind.__name__,
            "title": name,
            "summary": _one_line(kind.__doc__ or ""),
            **headers,
            "payload": payload,
            "bindings": _key_binding(name),
            "examples": examples,
        }
    messages["platform"] = {
        "name": "PlatformMessage",
        "title": "platform",
        "summary": "JSON as a platform writes it; the city's pack says where in it each field of ours is.",
        "payload": {
            "description": "One message, an array of them, or the platform's own envelope around an array; of an "
            "array only the bad elements are refused.",
            "type": ["object", "array"],
        },
        "bindings": _key_binding("platform"),
    }
    messages["reportsBlock"] = {
        "name": "ReportsBlock",
        "title": "reports-block",
        "summary": "Internal, and no promise: reports in columns as MessagePack, compressed with zstd.",
        "contentType": "application/octet-stream",
        "payload": {"description": "Bytes of the service's own format.", "type": "string", "format": "binary"},
    }
    messages["deadLetter"] = {
        "name": "DeadLetter",
        "title": "dead-letter",
        "summary": "A refused message, byte for byte; its headers say why.",
        "contentType": "application/octet-stream",
        "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
        "payload": {"description": "The refused bytes: often JSON, anything at all.", "type": "string"},
        "bindings": _key_binding("dead-letter"),
        "examples": [{"headers": example} for example in EXAMPLES["dead-letter-headers"]],
    }
    return messages


def _key_binding(name: str) -> dict[str, Any]:
    return {"kafka": {"key": {"type": "string", "description": _KEY_OF[name]}, "bindingVersion": "0.5.0"}}


def _topic_configuration(configuration: Mapping[str, str]) -> dict[str, Any]:
    """Those settings that the Kafka binding knows, in its types."""
    told: dict[str, Any] = {}
    if policy := configuration.get("cleanup.policy"):
        told["cleanup.policy"] = policy.split(",")
    for name in ("retention.ms", "retention.bytes", "max.message.bytes"):
        if name in configuration:
            told[name] = int(configuration[name])
    return told


def _camel(name: str) -> str:
    first, *others = re.split(r"\W+", name.replace("{platform}", "of-a-platform"))
    return first + "".join(other.capitalize() for other in others)


# ----------------------------------------------------------------------------------------------- one type's schema


def _schemas_of(kind: type, ref_template: str) -> dict[str, Schema]:
    """The schemas of a type and of those it holds, by type name; the type's own comes first."""
    _, components = msgspec.json.schema_components([kind], ref_template=ref_template)
    names = [kind.__name__, *sorted(name for name in components if name != kind.__name__)]
    sent = kind in SENT_MESSAGES.values()
    return {name: _finished(name, components[name], sent=sent) for name in names}


def _finished(name: str, made: Schema, *, sent: bool) -> Schema:
    properties = {field: _field(name, field, schema) for field, schema in made["properties"].items()}
    # msgspec asks only for fields without a default; what we send always has all, but for `why`, which leaves out
    # whatever has nothing to say.
    required = list(properties) if sent and name != Why.__name__ else made.get("required", [])
    finished = {"title": name, "description": _one_line(made["description"]), "type": "object"}
    return {**finished, "properties": properties, "required": required, **_TOGETHER.get(name, {})}


def _field(type_name: str, field: str, made: Schema) -> Schema:
    exact = _EXACT.get(f"{type_name}.{field}", _EXACT.get(field, {}))
    options = [dict(option) for option in made.get("anyOf", [made])]
    nullable = {"type": "null"} in options
    options = [option for option in options if option != {"type": "null"}]
    for option in options:
        option.pop("default", None)
        option.pop("description", None)
    schema: Schema
    if "$ref" in options[0]:
        if not nullable:
            # Nothing beside a $ref: AsyncAPI's schemas ignore it, and the type says what it is.
            return options[0]
        schema = {"anyOf": [*options, {"type": "null"}]}
    elif len(options) > 1:
        schema = {"anyOf": options}
    else:
        schema = {**options[0], **exact}
        if nullable:
            schema["type"] = [schema["type"], "null"]
            if "enum" in schema:
                schema["enum"] = [*schema["enum"], None]
    return _ordered({"description": _MEANING.get(f"{type_name}.{field}") or _MEANING[field], **schema})


def _ordered(schema: Schema) -> Schema:
    """The same in one fixed order, whatever the order in which this version of msgspec makes it."""
    known = [key for key in _KEYS_IN_ORDER if key in schema]
    return {key: schema[key] for key in [*known, *sorted(set(schema) - set(known))]}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _text(document: Schema) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"
