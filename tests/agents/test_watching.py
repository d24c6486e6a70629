"""What operators see of a real worker: its metrics, which ops/ and docs/operating.md name, and its log."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from brokers import Embedded
from confluent_kafka import Consumer, TopicPartition
from ops_files import OF_PROMETHEUS, OF_THE_TARGET, ROOT, Selected, alert_rules, selected, selectors_of, texts
from prometheus_client import Metric
from running_worker import Service, service, until

from agents.log_lines import FIELDS
from agents.service_checks import check_port
from sinks.clickhouse_front import FrontProcess
from sinks.playback import produce_recording
from streams.error_model import read_error_model
from streams.messages import FEEDBACK, INCIDENTS
from streams.pack import load_pack
from streams.recording import RecordedMessage
from streams.simulation import simulate

SAMPLE = ROOT / "packs" / "sample"
NUMBER = "13987654321"
WORDS = "井盖不见了"


@dataclass(frozen=True)
class Watched:
    """All that a worker showed while it had every kind of work and met every kind of trouble."""

    families: dict[str, Metric]
    log: list[str]
    port_finding: str
    partitions: int

    def series(self, name: str) -> list[dict[str, str]]:
        """Labels of every series of the name."""
        return [sample.labels for family in self.families.values() for sample in family.samples if sample.name == name]

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log]


def said_by(worker: Service) -> list[str]:
    return worker.log.read_text(encoding="utf-8").splitlines()


def messages_of_an_hour() -> list[RecordedMessage]:
    start = datetime.fromisoformat("2026-06-01T08:00:00+08:00")
    return simulate(load_pack(SAMPLE), read_error_model(), seed=3, start=start, hours=1).messages


def feedback(number: int, incident_id: str) -> RecordedMessage:
    at_ms = int(time.time() * 1000)
    value = {"id": f"F{number}", "time": at_ms, "action": "accept", "incident_id": incident_id, "reason": WORDS}
    return RecordedMessage(FEEDBACK, json.dumps(value).encode(), timestamp_ms=at_ms, key=incident_id.encode())


def an_incident(worker: Service) -> str:
    """The id of one that was told."""
    consumer = Consumer({"bootstrap.servers": worker.broker.bootstrap, "group.id": worker.prefix + "dispatch"})
    consumer.assign([TopicPartition(worker.prefix + INCIDENTS, number, 0) for number in range(8)])
    message = consumer.poll(60)
    assert message is not None
    consumer.close()
    key = message.key()
    assert isinstance(key, bytes)
    return key.decode()


def another(incident_id: str) -> str:
    """An id of the same form and shard that no incident has."""
    return incident_id[:-1] + ("0" if incident_id[-1] != "0" else "1")


def trouble(worker: Service) -> list[RecordedMessage]:
    """What nobody can use, with a caller's number and words in it wherever there is room."""
    now_ms = int(time.time() * 1000)
    ticket = {"id": NUMBER, "time": now_ms, "category": WORDS, "caller": NUMBER, "text": f"{WORDS} {NUMBER}"}
    values = [json.dumps(ticket).encode(), json.dumps({**ticket, "time": WORDS}).encode(), WORDS.encode(), b"\xff"]
    tickets = [RecordedMessage("hotline.tickets", value, timestamp_ms=now_ms, key=b"x") for value in values]
    foreign = json.dumps({"status": NUMBER, "category": WORDS}).encode()
    return [*tickets, *[RecordedMessage(INCIDENTS, foreign, timestamp_ms=now_ms, key=b"x")] * 20]


@pytest.fixture(scope="module")
def watched(embedded_kafka: Embedded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    prefix = f"watched-{os.getpid()}."
    with FrontProcess(folder / "front") as front, service(embedded_kafka, prefix, SAMPLE, folder, front.dsn) as worker:
        worker.start("--json", "--log-level", "DEBUG")
        produce_recording(messages_of_an_hour(), embedded_kafka.bootstrap, prefix)
        known = an_incident(worker)
        acts = [feedback(1, known), feedback(1, known), feedback(2, known), feedback(3, another(known))]
        produce_recording(acts, embedded_kafka.bootstrap, prefix)
        front.fault("unavailable")
        produce_recording(trouble(worker), embedded_kafka.bootstrap, prefix)
        until(lambda: worker.total("citybrain_sink_unavailable_total") < 2, "ClickHouse is missed")
        front.fault("none")
        embedded_kafka.stop()
        until(lambda: not any("Connect call failed" in line for line in said_by(worker)), "Kafka is missed")
        embedded_kafka.start()
        worker.wait_until_drained()
        until(
            lambda: worker.total("citybrain_lag_records") or not worker.total("citybrain_assigned_partitions"), "no lag"
        )
        families = {family.name: family for family in worker.families()}
        (finding,) = check_port("127.0.0.1", worker.port, 10)
        assert worker.stop() == 0
        partitions = sum(topic.partitions for topic in worker.topics)
        yield Watched(families, said_by(worker), finding.what, partitions)


# --------------------------------------------------------------------------------------------------------- metrics


def labels_of(watched: Watched, one: Selected) -> list[dict[str, str]]:
    """The labels of every series of its name."""
    if one.name in OF_PROMETHEUS:
        return [dict.fromkeys(OF_PROMETHEUS[one.name] | OF_THE_TARGET, "")]
    return watched.series(one.name)


def holds(operator: str, wanted: str, value: str) -> bool:
    found = re.fullmatch(wanted, value) is not None if "~" in operator else wanted == value
    return found != operator.startswith("!")


def test_every_metric_and_label_that_ops_names_is_exported_by_a_real_worker(watched: Watched) -> None:
    asked = selected()
    assert len(asked) > 80
    for one in asked:
        found = labels_of(watched, one)
        assert found, f"no worker exports {one}"
        known = set().union(*found) | OF_THE_TARGET
        named = {name for name, _, _ in one.matchers} | one.grouped_by
        assert named <= known, f"{one}: {named - known} is no label of it"
        if one.name not in OF_PROMETHEUS:
            for name, operator, wanted in one.matchers:
                if name not in OF_THE_TARGET:
                    values = {labels[name] for labels in found}
                    assert any(holds(operator, wanted, value) for value in values), f"{one}: {name}{operator}{wanted!r}"
                    # Each alternative of a list is a value, so that none of them is misspelt.
                    words = set(wanted.split("|")) if re.fullmatch(r"[\w|-]+", wanted) else set()
                    assert words <= values, f"{one}: {words - values} is no {name}"


def test_every_label_that_a_text_names_is_one_of_its_result(watched: Watched) -> None:
    for where, expression, named in texts():
        asked = selectors_of(where, expression)
        result = set().union(
            *(one.grouped_by if one.is_aggregated else set().union(*labels_of(watched, one)) | OF_THE_TARGET
              for one in asked)
        )  # fmt: skip
        assert named <= result, f"{where}: {named - result}"


def test_the_page_for_operators_lists_every_metric_as_it_is_exported(watched: Watched) -> None:
    """A row that is missing or says something else stands in the message, to be pasted."""
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    expected = []
    for family in watched.families.values():
        if not family.name.startswith("citybrain_") or family.name.endswith("_created"):
            continue
        assert family.documentation
        name = family.name + "_total" * (family.type == "counter")
        labels = sorted(set().union(*(sample.labels for sample in family.samples)) - {"le"})
        expected.append(f"| `{name}` | {family.type} | {', '.join(labels)} | {family.documentation} |")
    written = [line for line in page.splitlines() if line.startswith("| `citybrain_")]
    assert "\n".join(written) == "\n".join(expected)


def test_the_page_for_operators_lists_every_alert_and_what_to_do() -> None:
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    expected = [
        f"| {rule['alert']} | {rule['labels']['severity']} | {rule['annotations']['runbook']} |"
        for rule in alert_rules()
    ]
    written = [line for line in page.splitlines() if line.startswith("| CityBrain")]
    assert "\n".join(written) == "\n".join(expected)


def test_the_page_for_operators_lists_every_field_of_a_log_line() -> None:
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    assert [f"| `{name}` | {text} |" for name, text in FIELDS.items()] == [
        line for line in page.splitlines() if re.match(rf"\| `({'|'.join(FIELDS)})` \|", line)
    ]


def test_the_lag_falls_to_nothing_once_all_is_acknowledged_and_is_told_for_every_partition(watched: Watched) -> None:
    """What nobody reads any more, or has read to its end, must not look as if it waited."""
    samples = watched.families["citybrain_lag_records"].samples
    assert {sample.value for sample in samples} == {0}
    assert watched.families["citybrain_assigned_partitions"].samples[0].value == len(samples) == watched.partitions


def test_feedback_is_counted_by_what_became_of_it(watched: Watched) -> None:
    counted = {
        (sample.labels["action"], sample.labels["result"]): sample.value
        for sample in watched.families["citybrain_feedback"].samples
        if sample.name.endswith("_total") and sample.value
    }
    assert counted == {
        ("accept", "applied"): 1,
        ("accept", "repeated"): 1,
        ("accept", "illegal_transition"): 1,
        ("accept", "unknown_incident"): 1,
    }


def test_the_doctor_knows_a_worker_that_runs(watched: Watched) -> None:
    told = rf"a worker answers at 127\.0\.0\.1:\d+, ready, with {watched.partitions} partitions"
    assert re.fullmatch(told, watched.port_finding), watched.port_finding


# ------------------------------------------------------------------------------------------------------------- log


def test_every_line_of_the_log_is_one_object_with_a_time_in_utc(watched: Watched) -> None:
    """ClickHouse away, Kafka away, foreign records, libraries at DEBUG: all of it, and nothing beside it."""
    for line in watched.lines():
        assert list(line)[:4] == ["time", "level", "logger", "message"]
        assert set(line) <= {"time", "level", "logger", "message", "traceback", *FIELDS}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        datetime.fromisoformat(line["time"])
        assert line["level"] in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
        assert line["logger"]


def test_what_happened_is_told_in_words_that_stay(watched: Watched) -> None:
    events = {line["event"]: line for line in watched.lines() if "event" in line}
    assert set(events) == {"starts", "assigned", "unreadable", "sink_away", "sink_back", "ended"}
    assert events["starts"]["pack_version"] == load_pack(SAMPLE).version
    assert events["assigned"]["partitions"] == watched.partitions
    assert events["sink_away"] | {"error": "SinkUnavailable", "sink": "clickhouse"} == events["sink_away"]
    assert events["sink_back"]["wait_s"] >= 0.5
    assert events["unreadable"]["topic"] == INCIDENTS
    assert isinstance(events["unreadable"]["offset"], int)


def test_a_flood_of_one_kind_is_cut_off(watched: Watched) -> None:
    """Twenty foreign records came at once."""
    assert len([line for line in watched.lines() if line.get("event") == "unreadable"]) == 5


def test_the_clients_of_kafka_are_heard_in_the_log(watched: Watched) -> None:
    loggers = {line["logger"].split(".")[0] for line in watched.lines()}
    assert {"aiokafka", "librdkafka", "faust", "citybrain"} <= loggers


def test_no_number_and_no_word_of_a_caller_is_in_the_log_even_at_debug(watched: Watched) -> None:
    text = "\n".join(watched.log)
    for secret in (NUMBER, WORDS, WORDS.encode("unicode_escape").decode(), NUMBER[:-1]):
        assert secret not in text
