"""The topic table, and the commands that make and check it on a real Kafka."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from hypothesis import given
from hypothesis import strategies as st

from agents.commands.topics import topics
from sinks.topics import (
    DEAD_LETTER_MAX_BYTES,
    SOURCE_MAX_BYTES,
    FoundTopic,
    TopicAdministration,
    TopicSpec,
    differences,
    topic_table,
)
from streams.messages import TOPIC_OF_SOURCE


def run(*arguments: str) -> Result:
    return CliRunner().invoke(topics, arguments)


def as_found(spec: TopicSpec, replication: int = 1) -> FoundTopic:
    return FoundTopic(spec.partitions, replication, {**spec.config(), "segment.bytes": "1073741824"})


# --------------------------------------------------------------------------------------------- the table as data


def test_the_table_has_every_public_topic_under_the_prefix():
    table = {spec.name: spec for spec in topic_table("yq.", partitions=6, shards=3)}
    internal = {"reports", "incidents", "incidents.suspected", "assignments", "dead-letters", "dispatch.feedback"}
    assert set(table) == {"yq." + name for name in {*TOPIC_OF_SOURCE.values(), *internal}}
    assert table["yq.reports"].partitions == 3
    assert {spec.partitions for name, spec in table.items() if name != "yq.reports"} == {6}
    assert [name for name, spec in table.items() if spec.cleanup_policy == "compact"] == [
        "yq.incidents", "yq.incidents.suspected",
    ]  # fmt: skip


def test_a_platforms_own_topic_is_made_like_that_of_its_source():
    table = {spec.name: spec for spec in topic_table("yq.", partitions=6, platforms=["iot.readings.tingwu"])}
    assert len(table) == 11
    own = replace(table["yq.iot.readings.tingwu"], name="yq.iot.readings", of_platform=False)
    assert own == table["yq.iot.readings"]


def test_only_a_platforms_missing_topic_is_made_with_the_pack():
    remedies = {one.topic: one.remedy for one in differences(topic_table("yq.", platforms=["iot.readings.tingwu"]), {})}
    assert remedies.pop("yq.iot.readings.tingwu") == "make it with `citybrain topics create --city PACK`"
    assert set(remedies.values()) == {"make it with `citybrain topics create`"}


def test_what_a_source_may_send_fits_into_the_dead_letters_with_its_headers():
    assert SOURCE_MAX_BYTES > 16 << 20
    assert DEAD_LETTER_MAX_BYTES - SOURCE_MAX_BYTES >= 1 << 20


def test_no_topic_loses_old_records_to_the_clock_when_they_are_to_be_kept():
    assert {spec.retention_ms for spec in topic_table(keep_old=True)} == {-1, None}


@pytest.mark.parametrize("wrong", [{"partitions": 0}, {"shards": -1}])
def test_a_topic_without_a_partition_is_refused(wrong):
    with pytest.raises(ValueError, match="must be at least 1"):
        topic_table(**wrong)


def test_topics_as_specified_have_no_difference():
    table = topic_table()
    assert differences(table, {spec.name: as_found(spec) for spec in table}) == []


@given(st.data())
def test_every_single_change_to_a_topic_is_named(data):
    """Whatever one thing is changed on one topic, there is exactly one difference, and it names topic and value."""
    table = topic_table()
    found = {spec.name: as_found(spec) for spec in table}
    spec = data.draw(st.sampled_from(table))
    key = data.draw(st.sampled_from(["missing", "partitions", "replication", *spec.config()]))
    topic = found[spec.name]
    match key:
        case "missing":
            del found[spec.name]
        case "partitions":
            found[spec.name] = FoundTopic(topic.partitions + 1, topic.replication, topic.config)
        case "replication":
            found[spec.name] = FoundTopic(topic.partitions, 2, topic.config)
        case _:
            found[spec.name] = FoundTopic(topic.partitions, topic.replication, {**topic.config, key: "other"})
    (difference,) = differences(table, found, replication=1)
    assert difference.topic == spec.name
    assert difference.remedy
    assert {"missing": "missing", "partitions": "5 partitions", "replication": "2 replicas"}.get(
        key, f"{key} is other"
    ) in difference.what


# ---------------------------------------------------------------------------------------------- on a real Kafka


def test_create_makes_what_check_then_finds_right_and_a_second_create_makes_nothing(kafka, topic_prefix):
    options = ["--brokers", kafka.bootstrap, "--prefix", topic_prefix, "--partitions", "2", "--shards", "3", "--json"]
    missing = run("check", *options)
    assert missing.exit_code == 1
    assert {difference["what"] for difference in json.loads(missing.output)["differences"]} == {"is missing"}

    first = run("create", *options)
    assert first.exit_code == 0, first.output
    assert len(json.loads(first.output)["created"]) == 10
    assert run("check", *options).exit_code == 0
    again = run("create", *options)
    assert again.exit_code == 0
    assert json.loads(again.output)["created"] == []

    with TopicAdministration(kafka.bootstrap) as administration:
        found = administration.found([topic_prefix + "incidents", topic_prefix + "reports"])
    assert found[topic_prefix + "incidents"].config["cleanup.policy"] == "compact"
    assert found[topic_prefix + "reports"].partitions == 3


def test_with_a_city_the_topics_of_its_platforms_are_made_too(kafka, topic_prefix):
    sample = str(Path(__file__).resolve().parents[2] / "packs" / "sample")
    options = ["--brokers", kafka.bootstrap, "--prefix", topic_prefix, "--partitions", "1", "--shards", "1", "--json"]
    assert run("create", *options).exit_code == 0
    made = run("create", *options, "--city", sample)
    assert json.loads(made.output)["created"] == [
        f"{topic_prefix}iot.readings.tingwu",
        f"{topic_prefix}video.events.tingshi",
    ]
    assert run("check", *options, "--city", sample).exit_code == 0


def test_check_names_each_difference_and_its_remedy(kafka, topic_prefix):
    options = ["--brokers", kafka.bootstrap, "--prefix", topic_prefix, "--partitions", "1", "--shards", "1"]
    assert run("create", *options).exit_code == 0
    client = AdminClient({"bootstrap.servers": kafka.bootstrap})
    wrong = ConfigResource(
        ResourceType.TOPIC,
        topic_prefix + "incidents",
        incremental_configs=[ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)],
    )
    client.incremental_alter_configs([wrong])[wrong].result(timeout=20)
    client.delete_topics([topic_prefix + "assignments"])[topic_prefix + "assignments"].result(timeout=20)
    # The controller has answered; the broker hears of it a moment later.
    deadline = time.monotonic() + 60
    with TopicAdministration(kafka.bootstrap) as administration:
        names = [topic_prefix + "incidents", topic_prefix + "assignments"]
        while [topic.config["cleanup.policy"] for topic in administration.found(names).values()] != ["delete"]:
            assert time.monotonic() < deadline, "the changes were made and are not to be seen"

    checked = run("check", *options, "--shards", "2")
    assert checked.exit_code == 1
    lines = checked.stderr.splitlines()
    assert len(lines) == 3
    assert f"{topic_prefix}reports: has 1 partitions instead of 2; delete it" in checked.stderr
    assert f"{topic_prefix}incidents: cleanup.policy is delete instead of compact; set it with" in checked.stderr
    assert f"{topic_prefix}assignments: is missing; make it with `citybrain topics create`" in checked.stderr


def test_more_replicas_than_brokers_is_one_line(kafka, topic_prefix):
    made = run("create", "--brokers", kafka.bootstrap, "--prefix", topic_prefix, "--replication", "9")
    assert made.exit_code == 1
    assert "Replication" in made.stderr
    assert made.stderr.count("\n") == 1


# ----------------------------------------------------------------------------------------- what is not such a one


def test_the_embedded_broker_is_named_as_one_without_topic_administration(embedded_kafka):
    made = run("create", "--brokers", embedded_kafka.bootstrap)
    assert made.exit_code == 1
    assert "is the embedded one and has no topic administration" in made.stderr


def test_a_broker_that_is_not_there_is_one_line_with_its_address():
    with socket.socket() as held:  # bound, and not listening: nobody else can take the port meanwhile
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        made = run("create", "--brokers", address)
    assert made.exit_code == 1
    assert f"no Kafka at {address} (Connection refused); start it, or name another with --brokers" in made.stderr


@pytest.mark.parametrize("address", ["localhost", "localhost:", ":9092", "localhost:kafka", "localhost:70000", ""])
def test_what_is_no_address_is_wrong_usage(address):
    made = run("check", "--brokers", address)
    assert made.exit_code == 2
    assert "write host:port" in made.stderr


def test_looking_for_a_topic_does_not_make_it(kafka, topic_prefix):
    with TopicAdministration(kafka.bootstrap) as administration:
        assert administration.found([topic_prefix + "nothing"]) == {}
    client = AdminClient({"bootstrap.servers": kafka.bootstrap})
    deleting = client.delete_topics([topic_prefix + "nothing"])[topic_prefix + "nothing"]
    with pytest.raises(KafkaException, match="UNKNOWN_TOPIC"):
        deleting.result(timeout=20)
