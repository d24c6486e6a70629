"""The written promises are those of the code: in step, complete, and of one opinion with the intake."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents.commands.schemas import documents
from sinks.topics import DEFAULT_PREFIX, topic_table
from streams.dead_letters import DeadLetter
from streams.intake import Intake, SourceRecord
from streams.messages import (
    MESSAGE_OF_SOURCE,
    SOURCES,
    TOPIC_OF_SOURCE,
    Action,
    Assignment,
    FeedbackMessage,
    Incident,
    Reason,
    RunnerUp,
    Why,
    platform_topic,
)
from streams.pack import load_pack
from streams.schemas import READ_MESSAGES, SENT_MESSAGES

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = documents()
SCHEMAS = {
    path.removeprefix("schemas/").removesuffix(".schema.json"): json.loads(text)
    for path, text in DOCUMENTS.items()
    if path.startswith("schemas/")
}
ASYNCAPI = json.loads(DOCUMENTS["asyncapi.json"])


# ---------------------------------------------------------------------- a validator of just the words that we use

_KINDS: dict[str, Any] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: _KINDS["number"](value) and (isinstance(value, int) or value.is_integer()),
}
_SAYS_NOTHING = {"$schema", "$defs", "title", "description", "examples", "then"}
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def is_date_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return _DATE_TIME.fullmatch(text) is not None


def is_valid(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a JSON value fits; a word of JSON Schema that is not known here raises ``KeyError``."""
    numeric, text = _KINDS["number"](value), isinstance(value, str)
    fields = value if isinstance(value, dict) else {}
    items = value if isinstance(value, list) else []

    def all_of(name: str, said: Any) -> bool:
        checks = {
            "$ref": lambda: is_valid(value, resolved(said, root), root),
            "type": lambda: any(_KINDS[kind](value) for kind in ([said] if isinstance(said, str) else said)),
            "enum": lambda: value in said,
            "minimum": lambda: not numeric or value >= said,
            "maximum": lambda: not numeric or value <= said,
            "minLength": lambda: not text or len(value) >= said,
            "maxLength": lambda: not text or len(value) <= said,
            "pattern": lambda: not text or re.search(said, value) is not None,
            "format": lambda: said != "date-time" or not text or is_date_time(value),
            "properties": lambda: all(is_valid(fields[key], said[key], root) for key in said if key in fields),
            "required": lambda: not isinstance(value, dict) or all(key in value for key in said),
            "propertyNames": lambda: all(is_valid(key, said, root) for key in fields),
            "additionalProperties": lambda: all(is_valid(one, said, root) for one in fields.values()),
            "items": lambda: all(is_valid(one, said, root) for one in items),
            "minItems": lambda: not isinstance(value, list) or len(value) >= said,
            "maxItems": lambda: not isinstance(value, list) or len(value) <= said,
            "anyOf": lambda: any(is_valid(value, one, root) for one in said),
            "oneOf": lambda: sum(is_valid(value, one, root) for one in said) == 1,
            "allOf": lambda: all(is_valid(value, one, root) for one in said),
            "if": lambda: not is_valid(value, said, root) or is_valid(value, schema["then"], root),
        }
        return bool(checks[name]())

    return all(all_of(name, said) for name, said in schema.items() if name not in _SAYS_NOTHING)


def resolved(reference: str, root: dict[str, Any]) -> Any:
    found: Any = root
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def fits(name: str, value: Any) -> bool:
    return is_valid(value, SCHEMAS[name], SCHEMAS[name])


def parts_of(document: Any) -> Any:
    yield document
    if isinstance(document, dict | list):
        for part in document.values() if isinstance(document, dict) else document:
            yield from parts_of(part)


# ------------------------------------------------------------------------------------------------------- in step


@pytest.mark.parametrize("path", DOCUMENTS)
def test_the_committed_file_is_what_the_types_say(path):
    assert (ROOT / "docs" / path).read_text(encoding="utf-8") == DOCUMENTS[path], "run `citybrain schemas`"


def test_no_schema_lies_about_that_nothing_makes():
    assert {path.name for path in (ROOT / "docs" / "schemas").iterdir()} == {
        path.removeprefix("schemas/") for path in DOCUMENTS if path.startswith("schemas/")
    }


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_says_in_words_what_it_means(name):
    objects = [SCHEMAS[name], *SCHEMAS[name].get("$defs", {}).values()]
    for one in objects:
        assert one["description"].endswith((".", "one."))
        for field, schema in one["properties"].items():
            assert "$ref" in schema or schema["description"].endswith("."), f"{one['title']}.{field}"


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_examples_fit_their_schema_and_their_type(name):
    kind = {**READ_MESSAGES, **SENT_MESSAGES}[name]
    for message in SCHEMAS[name]["examples"]:
        assert fits(name, message)
        decoded = msgspec.json.decode(json.dumps(message), type=kind)
        if name in SENT_MESSAGES:
            assert msgspec.to_builtins(decoded) == message


# ------------------------------------------------------------------------------- of one opinion with the intake


@pytest.fixture(scope="module")
def intake() -> Intake:
    return Intake(load_pack(ROOT / "packs" / "sample"), b"any key")


def test_the_examples_are_messages_that_the_sample_city_takes(intake):
    """Whoever copies one into a recording sees it work."""
    for source, topic in TOPIC_OF_SOURCE.items():
        values = [json.dumps(message).encode() for message in SCHEMAS[source]["examples"]]
        batch = intake.take([SourceRecord(topic, 0, at, None, None, value) for at, value in enumerate(values)])
        assert batch.dead_letters == []
        assert len(batch.reports) + batch.quiet_readings == len(values)
        fallback = intake.pack.sources[source].fallback_category
        assert fallback not in {intake.pack.categories[category].code for category in batch.reports.category}


OF_FORM = {
    Reason.NOT_AN_OBJECT,
    Reason.MISSING_FIELD,
    Reason.WRONG_TYPE,
    Reason.OUT_OF_RANGE,
    Reason.INVALID_TIME,
    Reason.UNSUPPORTED_CRS,
}
"""What a schema can know; whether a category, a device, a place or a unit is known, the city's settings say."""

ODD = [None, True, 0, -1, 1.5, 91, 181, 5001, 1e300, "", "x", "x" * 65, "x" * 129, "raised", "cleared", "gcj02", [], {}]
TIMES = [
    "2026-06-01T08:30:00+08:00",
    "2026-06-01T00:30:00.123Z",
    "2026-06-01T08:30:00",
    "2026-13-01T00:00:00Z",
    "yesterday",
    1780273800000,  # not 1780273800000.0: the intake refuses it, and JSON Schema cannot tell the two apart
    1780273800000.5,
    -62_135_596_800_001,
]


def changed(source: str) -> st.SearchStrategy[dict[str, Any]]:
    """The example of a source with some of its fields replaced or taken away."""
    fields = msgspec.structs.fields(MESSAGE_OF_SOURCE[source])
    # An empty datum is taken for none, which is nobody's promise.
    odd = {"time": TIMES + ODD, "crs": [value for value in ODD if value != ""]}
    changes = st.lists(
        st.sampled_from([field.name for field in fields]).flatmap(
            lambda name: st.tuples(st.just(name), st.sampled_from([*odd.get(name, ODD), ...]))
        ),
        max_size=3,
    )

    def apply(base: dict[str, Any], some: list[tuple[str, Any]]) -> dict[str, Any]:
        message = base | dict(some)
        return {name: value for name, value in message.items() if value is not ...}

    return st.builds(apply, st.sampled_from(SCHEMAS[source]["examples"]), changes)


@pytest.mark.parametrize("source", TOPIC_OF_SOURCE)
def test_the_schema_refuses_what_the_intake_refuses_for_its_form_and_nothing_else(source, intake):
    @given(changed(source))
    @example({"id": "1", "time": "2026-06-01T08:30:00+08:00"})
    @example(SCHEMAS[source]["examples"][0] | {"lon": 123.5})
    @example(SCHEMAS[source]["examples"][0] | {"lon": None, "lat": 30.25})
    @example(SCHEMAS[source]["examples"][0] | {"something_of_the_gateway": [1, 2]})
    def holds(message):
        value = json.dumps(message).encode()
        batch = intake.take([SourceRecord(TOPIC_OF_SOURCE[source], 0, 0, 1780273800000, None, value)])
        refused = [
            letter
            for letter in batch.dead_letters
            if letter.reason in OF_FORM and not letter.detail.startswith("nobody maps unit")
        ]
        assert fits(source, message) == (not refused), refused

    holds()


@pytest.mark.parametrize(
    ("source", "without"), [("iot", "alarm"), ("iot", "device_id"), ("patrol", "lon"), ("hotline", "category")]
)
def test_a_message_without_what_it_needs_does_not_fit(source, without):
    message = dict(SCHEMAS[source]["examples"][0])
    assert fits(source, message)
    del message[without]
    assert not fits(source, message)


# ----------------------------------------------------------------------------------------------------- feedback


def test_feedback_is_a_known_word_about_an_incident():
    message = SCHEMAS["feedback"]["examples"][0]
    decoded = msgspec.json.decode(json.dumps(message), type=FeedbackMessage)
    assert decoded.action == Action.DISPATCH
    assert all(fits("feedback", message | {"action": action}) for action in Action)
    assert not fits("feedback", message | {"action": "forget"})
    assert not fits("feedback", {name: value for name, value in message.items() if name != "incident_id"})


# ------------------------------------------------------------------------------------------------- what we send


def test_what_is_sent_fits_and_has_every_field():
    """Encoded as it goes out: fields that nothing fills yet are there and null."""
    incident = msgspec.convert(SCHEMAS["incident"]["examples"][0], Incident)
    for name, sent in {"incident": incident, "assignment": an_assignment()}.items():
        message = msgspec.json.decode(msgspec.json.encode(sent))
        assert fits(name, message)
        for field in message:
            assert not fits(name, {key: value for key, value in message.items() if key != field}), field


def an_assignment() -> Assignment:
    assignment = msgspec.convert(SCHEMAS["assignment"]["examples"][0], Assignment)
    assignment.why = Why(
        rule="best_open",
        radius_m=80.0,
        window_s=60,
        terms={"nearness": 117, "same_place": 50, "rival": -3},
        same_place="asset",
        runner_up=RunnerUp("other", -20, None),
    )
    return assignment


def test_dead_letters_carry_the_headers_that_are_promised():
    letter = DeadLetter("iot.readings", 3, 17, 0, None, b"{", Reason.MALFORMED_JSON, None, "cut off", 1780273800000)
    headers = {name: value.decode() for name, value in letter.headers()}
    assert fits("dead-letter-headers", headers)
    assert list(headers) == SCHEMAS["dead-letter-headers"]["required"]
    assert fits("dead-letter-record", msgspec.to_builtins(letter.record()))


# ------------------------------------------------------------------------------------------------------ asyncapi


def test_every_topic_is_a_channel_with_its_partitions_and_policy():
    specs = {spec.name: spec for spec in topic_table()}
    prefix = ASYNCAPI["components"]["parameters"]["prefix"]["default"]
    channels = {channel["address"].replace("{prefix}", prefix): channel for channel in ASYNCAPI["channels"].values()}
    assert prefix == DEFAULT_PREFIX
    of_platforms = {
        prefix + platform_topic(source, "{platform}"): prefix + TOPIC_OF_SOURCE[source] for source in SOURCES
    }
    assert set(channels) == {*specs, *of_platforms}
    for name, channel in channels.items():
        spec = specs[of_platforms.get(name, name)]
        binding = channel["bindings"]["kafka"]
        assert binding["partitions"] == spec.partitions
        assert binding["topicConfiguration"]["cleanup.policy"] == [spec.cleanup_policy]
        assert set(channel["parameters"]) == {"prefix", *(["platform"] if name in of_platforms else [])}


def test_every_reference_leads_somewhere():
    for document in (*SCHEMAS.values(), ASYNCAPI):
        references = [part["$ref"] for part in parts_of(document) if isinstance(part, dict) and "$ref" in part]
        assert all(resolved(reference, document) for reference in references)
    assert math.isclose(float(ASYNCAPI["asyncapi"].rpartition(".")[0]), 3.0)


def test_the_service_receives_what_sources_send_and_sends_the_rest():
    actions: dict[str, set[str]] = {}
    for operation in ASYNCAPI["operations"].values():
        channel = operation["channel"]["$ref"].removeprefix("#/channels/")
        actions.setdefault(ASYNCAPI["channels"][channel]["title"], set()).add(operation["action"])
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"#/channels/{channel}/messages/")
    received = {*TOPIC_OF_SOURCE.values(), "dispatch.feedback", *(platform_topic(s, "{platform}") for s in SOURCES)}
    assert actions == {
        **{topic: {"receive"} for topic in received},
        "reports": {"receive", "send"},
        **{topic: {"send"} for topic in ("incidents", "incidents.suspected", "assignments", "dead-letters")},
    }


@pytest.mark.parametrize("source", SOURCES)
def test_the_header_that_chooses_a_platforms_mapping_is_promised(source):
    headers = resolved(ASYNCAPI["components"]["messages"][source]["headers"]["$ref"], ASYNCAPI)
    for platform in ({}, {"platform": "tingwu"}, {"platform": "tingwu", "traceparent": "00-1"}):
        assert is_valid(platform, headers, ASYNCAPI)
    assert not is_valid({"platform": "x" * 65}, headers, ASYNCAPI)


@pytest.mark.parametrize("name", [*TOPIC_OF_SOURCE, "feedback"])
def test_a_value_on_a_source_topic_is_one_object_or_an_array_of_them(name):
    payload = ASYNCAPI["components"]["messages"][name]["payload"]
    for one in SCHEMAS[name]["examples"]:
        assert is_valid(one, payload, ASYNCAPI)
        assert is_valid([one, one], payload, ASYNCAPI)
        assert not is_valid([one, {**one, "time": "yesterday"}], payload, ASYNCAPI)
    assert not is_valid("text", payload, ASYNCAPI)
    assert ASYNCAPI["components"]["messages"][name]["bindings"]["kafka"]["key"]["description"]
