"""The doctor: whatever is broken around a worker is one line, with one line of what to do, and nothing hangs."""

from __future__ import annotations

import json
import re
import resource
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker, Embedded, Kafka
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from agents.commands import main
from agents.doctor import Asked, examine
from agents.finding import Finding, State
from agents.machine_checks import check_disk, check_limits
from agents.service_checks import (
    check_brokers,
    check_clickhouse,
    check_clock,
    check_group,
    check_pack_folder,
    check_port,
    check_topics,
    judge_cluster,
    newest_source_times_ms,
)
from sinks.clickhouse import ClickHouseSink
from sinks.clickhouse_front import FrontProcess
from sinks.kafka_state import ClusterState, read_cluster_state
from sinks.topics import TopicAdministration, topic_table
from streams.pack import load_pack
from streams.privacy import TEST_KEY

SAMPLE = Path(__file__).resolve().parents[2] / "packs" / "sample"
KEY = {"CITYBRAIN_CALLER_KEY": "sixteen and some random bytes"}
NOWHERE = "127.0.0.1:1"
CHECKS = [
    "configuration", "key", "pack", "brokers", "topics", "group", "clickhouse", "clock", "port", "disk", "limits",
    "libraries", "processor",
]  # fmt: skip


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """A ClickHouse with the schema of this version."""
    with FrontProcess(tmp_path_factory.mktemp("clickhouse")) as front:
        sink = ClickHouseSink(front.dsn)
        sink.prepare()
        sink.close()
        yield front


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody who accepts connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


@contextmanager
def fault_of(front: FrontProcess, mode: str) -> Iterator[None]:
    front.fault(mode)
    try:
        yield
    finally:
        front.fault("none")


def address_of(listening: socket.socket) -> str:
    return "{}:{}".format(*listening.getsockname())


def make_topics(broker: Broker, prefix: str) -> None:
    topics = topic_table(prefix, platforms=load_pack(SAMPLE).platform_topics)
    if broker.kind == "embedded":
        for spec in topics:
            broker.create_topic(spec.name, spec.partitions)
    else:
        with TopicAdministration(broker.bootstrap) as administration:
            administration.create(topics)


def doctor(*options: object, environment: dict[str, str] = KEY) -> Result:
    return CliRunner().invoke(main, ["doctor", *map(str, options)], env=environment, prog_name="citybrain")


def states(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.check, finding.state.value) for finding in findings]


def only(findings: list[Finding], check: str, state: State) -> Finding:
    """The one line there is, with a remedy if it needs one."""
    (finding,) = findings
    assert (finding.check, finding.state) == (check, state)
    assert bool(finding.remedy) == (state in (State.WARNING, State.FAULT))
    assert "\n" not in finding.what + finding.remedy
    return finding


# ------------------------------------------------------------------------------------------------------ as a whole


def test_where_nothing_is_amiss_it_exits_0_and_every_check_is_told(
    broker: Broker, topic_prefix: str, front: FrontProcess
) -> None:
    make_topics(broker, topic_prefix)
    result = doctor(
        "--city", SAMPLE, "--brokers", broker.bootstrap, "--prefix", topic_prefix, "--clickhouse", front.dsn,
        "--port", 0, "--min-free-mb", 1, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    answer = json.loads(result.stdout)
    assert answer["ok"] is True
    state_of = {each["check"]: each["state"] for each in answer["checks"]}
    assert list(state_of) == CHECKS
    # The sample's grid has two gaps, and a broker alone is none for a city.
    assert {check for check, state in state_of.items() if state == "warning"} == {"pack", "brokers"}
    assert set(state_of.values()) == {"ok", "warning"}
    assert all(each["remedy"] for each in answer["checks"] if each["state"] == "warning")
    assert answer["settings"]["prefix"] == {"value": topic_prefix, "from": "--prefix"}
    assert answer["settings"]["caller_key"] == {"value": "29 bytes", "from": "CITYBRAIN_CALLER_KEY"}
    assert answer["settings"]["lateness_s"] == {"value": "600", "from": "default"}
    assert KEY["CITYBRAIN_CALLER_KEY"] not in result.stdout


def test_where_everything_is_down_it_says_so_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "chdb"
    result = doctor(
        "--city", tmp_path / "pack", "--brokers", f"{NOWHERE},nowhere.invalid:9092", "--clickhouse",
        "clickhouse://127.0.0.1:1/citybrain", "--port", 0, "--timeout-s", 1, environment={"CITYBRAIN_CALLER_KEY": ""},
    )  # fmt: skip
    assert result.exit_code == 1
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    first = {line[9:22].strip(): line[:7].strip() for line in lines if line[:1] not in (" ", "s") and line[7:9] == "  "}
    assert {check for check, state in first.items() if state == "fault"} == {"key", "pack", "brokers", "clickhouse"}
    assert {check for check, state in first.items() if state == "unknown"} == {"topics", "group", "clock"}
    assert len([line for line in lines if "→" in line]) == 4
    assert lines[-1].startswith("4 faults, ")
    assert not folder.exists()


def test_a_wrong_setting_is_a_fault_and_the_machine_is_looked_at_all_the_same() -> None:
    diagnosis = examine(Asked(None, {"CITYBRAIN_PORT": "eighty"}, {}))
    assert only(
        [each for each in diagnosis.findings if each.state == State.FAULT], "configuration", State.FAULT
    ).what == ("CITYBRAIN_PORT = 'eighty': must be a number")
    state_of = dict(states(list(diagnosis.findings)))
    assert list(state_of) == CHECKS
    assert {check for check, state in state_of.items() if state == "unknown"} == set(CHECKS[1:9])


def test_who_gave_a_setting_is_told_and_the_last_one_counts(tmp_path: Path) -> None:
    file = tmp_path / "citybrain.toml"
    file.write_text('group = "ours"\nport = 7000\nclickhouse = "clickhouse://u:secret@127.0.0.1:1/d"\n')
    environment = {"CITYBRAIN_PORT": "7001", "CITYBRAIN_PREFIX": "x."}
    asked = Asked(file, environment, {"prefix": "y.", "brokers": NOWHERE, "city": None}, timeout_s=0.5)
    settings = examine(asked).settings
    assert settings["group"] == ("ours", str(file))
    assert settings["port"] == ("7001", "CITYBRAIN_PORT")
    assert settings["prefix"] == ("y.", "--prefix")
    assert settings["clickhouse"] == ("clickhouse://u:***@127.0.0.1:1/d", str(file))
    assert settings["city"] == ("packs/sample", "default")


def test_a_variable_that_is_nearly_a_setting_is_a_warning() -> None:
    environment = {**KEY, "CITYBRAIN_BROKER": "kafka:9092", "CITYBRAIN_DATA": "x"}
    found = examine(Asked(None, environment, {"brokers": NOWHERE, "clickhouse": "none"}, timeout_s=0.5)).findings
    finding = only([each for each in found if each.check == "configuration"], "configuration", State.WARNING)
    assert finding.remedy == "rename it if you meant CITYBRAIN_BROKERS, or unset it"


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({}, "no key for the callers' hashes"),
        ({"CITYBRAIN_CALLER_KEY": "short"}, "the key for the callers' hashes has 5 bytes, at least 16"),
        ({"CITYBRAIN_CALLER_KEY": TEST_KEY.decode()}, "the key for the callers' hashes is the published test key"),
    ],
)
def test_a_key_that_a_worker_refuses_is_a_fault(environment: dict[str, str], what: str) -> None:
    found = examine(Asked(None, environment, {"brokers": NOWHERE, "clickhouse": "none"}, timeout_s=0.5)).findings
    assert only([each for each in found if each.check == "key"], "key", State.FAULT).what.startswith(what)


def test_a_key_that_others_may_read_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "caller.key"
    file.write_bytes(b"x" * 32)
    file.chmod(0o644)
    environment = {"CITYBRAIN_CALLER_KEY_FILE": str(file)}
    asked = Asked(None, environment, {"brokers": NOWHERE, "clickhouse": "none"}, timeout_s=0.5)
    key = [each for each in examine(asked).findings if each.check == "key"]
    assert only(key, "key", State.WARNING).remedy == f"chmod 600 {file}"
    file.chmod(0o600)
    key = [each for each in examine(asked).findings if each.check == "key"]
    assert only(key, "key", State.OK).what == f"32 bytes, from CITYBRAIN_CALLER_KEY_FILE ({file})"


# ------------------------------------------------------------------------------------------------------------ pack


def test_a_pack_with_faults_is_one_line_that_names_the_first(tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    shutil.copytree(SAMPLE, pack)
    text = (pack / "city.toml").read_text(encoding="utf-8")
    (pack / "city.toml").write_text(text.replace("Asia/Shanghai", "Asia/Yunting", 1), encoding="utf-8")
    findings, found = check_pack_folder(pack)
    finding = only(findings, "pack", State.FAULT)
    assert "has 1 fault, the first: city.toml:" in finding.what
    assert "Asia/Yunting" in finding.what
    assert f"`citybrain check-city {pack}`" in finding.remedy
    assert found is None


# ----------------------------------------------------------------------------------------------------------- Kafka


def test_a_broker_that_is_down_is_a_fault_and_one_of_several_a_warning(embedded_kafka: Embedded) -> None:
    findings, cluster = check_brokers(NOWHERE, 1.0)
    assert only(findings, "brokers", State.FAULT).what == f"no Kafka at {NOWHERE} (Connection refused)"
    assert cluster is None
    findings, cluster = check_brokers(f"{NOWHERE},{embedded_kafka.bootstrap}", 5.0)
    assert findings[0].what == f"nobody listens at {NOWHERE} (Connection refused); the others answer"
    assert findings[0].state == State.WARNING
    assert cluster is not None


def test_whoever_listens_but_is_no_kafka_is_a_fault_within_its_time(listener: socket.socket) -> None:
    findings, _ = check_brokers(address_of(listener), 0.5)
    assert only(findings, "brokers", State.FAULT).what.startswith(f"no Kafka answers at {address_of(listener)}")


def test_what_is_no_address_is_a_fault() -> None:
    findings, _ = check_brokers("kafka", 1.0)
    assert only(findings, "brokers", State.FAULT).remedy == "correct --brokers or CITYBRAIN_BROKERS"


THREE = ClusterState("c", {}, 1, 27, False, {}, (), ())


@pytest.mark.parametrize(
    ("cluster", "state", "what"),
    [
        (THREE, State.OK, "0 brokers, Kafka 4 or later (metadata.version 27), cluster c"),
        (replace(THREE, controller_id=-1), State.FAULT, "the cluster has no controller"),
        (
            replace(THREE, metadata_version=21),
            State.WARNING,
            "the brokers are older than Kafka 4 (metadata.version 21)",
        ),
        (replace(THREE, metadata_version=None), State.WARNING, "the brokers do not tell their version"),
        (
            replace(THREE, brokers={1: NOWHERE, 2: NOWHERE}),
            State.FAULT,
            f"broker 1 tells clients to use {NOWHERE}, which",
        ),
    ],
    ids=["three", "no controller", "old", "untold", "not where it says"],
)
def test_a_cluster_is_judged_by_what_it_tells(cluster: ClusterState, state: State, what: str) -> None:
    first = judge_cluster(cluster, 1.0)[0]
    assert first.state == state
    assert first.what.startswith(what)


def test_topics_that_are_missing_are_one_line_and_how_to_make_them(embedded_kafka: Embedded, topic_prefix: str) -> None:
    embedded_kafka.create_topic(topic_prefix + "reports", 3)
    cluster = read_cluster_state(embedded_kafka.bootstrap, 5.0)
    findings = check_topics(embedded_kafka.bootstrap, topic_prefix, SAMPLE, topic_table(topic_prefix), cluster, 5.0)
    finding = only(findings, "topics", State.FAULT)
    number = len(topic_table(topic_prefix))
    assert finding.what.startswith(f"{number - 1} of {number} topics are missing: {topic_prefix}iot.readings, ")
    assert finding.what.endswith(f" and {number - 4} more")
    assert f"--prefix {topic_prefix}" in finding.remedy


def test_partitions_that_nobody_serves_are_a_fault_if_they_are_ours(
    embedded_kafka: Embedded, topic_prefix: str
) -> None:
    make_topics(embedded_kafka, topic_prefix)
    cluster = read_cluster_state(embedded_kafka.bootstrap, 5.0)
    cluster = replace(cluster, without_leader=("other.topic[0]", f"{topic_prefix}reports[2]"))
    findings = check_topics(embedded_kafka.bootstrap, topic_prefix, SAMPLE, topic_table(topic_prefix), cluster, 5.0)
    assert only(findings, "topics", State.FAULT).what == f"1 partition nobody serves: {topic_prefix}reports[2]"


def test_retention_that_loses_the_log_is_a_fault_and_another_a_warning(kafka: Kafka, topic_prefix: str) -> None:
    """Any number of partitions is right; a log of reports that ends is not."""
    for spec in topic_table(topic_prefix, partitions=1, shards=2):
        config = spec.config()
        if spec.name.endswith((".reports", "assignments")) and "patrol" not in spec.name:
            config["retention.ms"] = "3600000"
        kafka.create_topic(spec.name, spec.partitions, config)
    cluster = read_cluster_state(kafka.bootstrap, 5.0)
    findings = check_topics(kafka.bootstrap, topic_prefix, SAMPLE, topic_table(topic_prefix), cluster, 5.0)
    assert {(finding.what, finding.state) for finding in findings} == {
        (f"{topic_prefix}reports: retention.ms is 3600000 instead of -1", State.FAULT),
        (f"{topic_prefix}assignments: retention.ms is 3600000 instead of 2592000000", State.WARNING),
    }


def test_a_group_that_lags_or_lost_records_is_told(kafka: Kafka, topic_prefix: str) -> None:
    make_topics(kafka, topic_prefix)
    topic, group = topic_prefix + "hotline.tickets", topic_prefix + "group"
    cluster = read_cluster_state(kafka.bootstrap, 5.0)
    check = lambda: check_group(kafka.bootstrap, group, topic_table(topic_prefix), cluster, 5.0)  # noqa: E731
    assert only(check(), "group", State.OK).what.endswith("0 records wait to be acknowledged")
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for _ in range(5):
        producer.produce(topic, b"{}", partition=0)
    producer.flush()
    assert only(check(), "group", State.WARNING).what == (
        f"no worker runs in group {group}, and 5 records wait to be acknowledged"
    )
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
    consumer.close()
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    deleted = admin.delete_records([TopicPartition(topic, 0, 4)])
    assert all(future.result(20).low_watermark == 4 for future in deleted.values())
    lost, waiting = check()
    assert lost.state == State.FAULT
    assert lost.what == f"3 records were deleted before {group} had read them: {topic}[0]"
    assert waiting.what == f"no worker runs in group {group}, and 1 record waits"


# ------------------------------------------------------------------------------------------------------ ClickHouse


@pytest.mark.parametrize(
    ("dsn", "what"),
    [
        ("clickhouse://127.0.0.1:1/citybrain", "ClickHouse is not available: connection refused"),
        ("mysql://db", "mysql"),
        ("clickhouse://user:secret@127.0.0.1:1/citybrain", "clickhouse://user:***@127.0.0.1:1/citybrain"),
    ],
)
def test_a_clickhouse_that_is_away_is_a_fault(dsn: str, what: str) -> None:
    findings, state = check_clickhouse(dsn, 1.0, time.time)
    told = only(findings, "clickhouse", State.FAULT).what
    assert what in told
    assert "secret" not in told
    assert state is None


def test_a_clickhouse_that_never_answers_is_a_fault_within_its_time(listener: socket.socket) -> None:
    findings, _ = check_clickhouse(f"clickhouse://{address_of(listener)}/citybrain", 1.0, time.time)
    assert only(findings, "clickhouse", State.FAULT).what.endswith("no answer in time")


def test_a_login_that_is_refused_is_a_fault(front: FrontProcess) -> None:
    with fault_of(front, "refuse_login"):
        findings, _ = check_clickhouse(front.dsn, 5.0, time.time)
    assert "refuses the login" in only(findings, "clickhouse", State.FAULT).what


def test_a_table_that_cannot_be_written_is_a_fault_with_the_grant_that_is_missing(front: FrontProcess) -> None:
    with fault_of(front, "fail_inserts"):
        findings, _ = check_clickhouse(front.dsn, 5.0, time.time)
    assert only(findings, "clickhouse", State.FAULT).remedy == "GRANT SELECT, INSERT ON citybrain.* TO default"


def test_looking_at_clickhouse_makes_and_writes_nothing(front: FrontProcess) -> None:
    """No database, no table, no row: a migration that is pending stays so."""
    elsewhere = front.dsn.removesuffix("citybrain") + "elsewhere"
    for _ in range(2):
        findings, _ = check_clickhouse(elsewhere, 5.0, time.time)
        assert "there is no database elsewhere yet" in only(findings, "clickhouse", State.WARNING).what
    findings, state = check_clickhouse(front.dsn.removesuffix("citybrain") + "default", 5.0, time.time)
    assert "to apply: 001_" in only(findings, "clickhouse", State.WARNING).what
    assert state is not None
    assert state.pending
    assert only(check_clickhouse(front.dsn, 5.0, time.time)[0], "clickhouse", State.OK)
    sink = ClickHouseSink(front.dsn)
    assert set(sink.counts().values()) == {0}
    sink.close()


def test_an_embedded_engine_is_neither_made_nor_taken_from_its_worker(front: FrontProcess, tmp_path: Path) -> None:
    findings, _ = check_clickhouse(f"chdb://{tmp_path / 'none'}", 5.0, time.time)
    assert only(findings, "clickhouse", State.OK).what.endswith("is not there yet; a worker makes it")
    assert not (tmp_path / "none").exists()
    findings, _ = check_clickhouse(f"chdb://{front.path}", 5.0, time.time)
    assert re.search(r" is open in process \d+, a worker most likely", only(findings, "clickhouse", State.OK).what)


# ----------------------------------------------------------------------------------------------------------- clock


@pytest.mark.parametrize(
    ("off_s", "state", "what"),
    [
        (0, State.OK, "this machine's clock: within "),
        (30, State.WARNING, "this machine is 30.0 s ahead of ClickHouse"),
        (-90, State.FAULT, "this machine is 90.0 s behind ClickHouse"),
    ],
)
def test_a_clock_that_disagrees_with_clickhouse_is_told(
    front: FrontProcess, off_s: float, state: State, what: str
) -> None:
    now_s = lambda: time.time() + off_s  # noqa: E731
    _, clickhouse = check_clickhouse(front.dsn, 5.0, now_s)
    finding = only(check_clock(now_s, clickhouse, None, "Asia/Shanghai"), "clock", state)
    assert finding.what.startswith(what)


def test_a_record_from_the_future_shows_a_wrong_clock(kafka: Kafka, topic_prefix: str) -> None:
    """Kafka tells no time of its own; what its records tell is all there is to see."""
    make_topics(kafka, topic_prefix)
    stamped_s = 1_790_000_000
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce(topic_prefix + "iot.readings", b"{}", partition=0, timestamp=stamped_s * 1000)
    producer.flush()
    cluster = read_cluster_state(kafka.bootstrap, 5.0)
    newest_ms = newest_source_times_ms(kafka.bootstrap, topic_prefix, cluster, 5.0)
    assert newest_ms == {topic_prefix + "iot.readings": stamped_s * 1000}
    findings = check_clock(lambda: stamped_s - 600, None, newest_ms, "Asia/Shanghai")
    assert only(findings, "clock", State.FAULT).what == (
        f"a record of {topic_prefix}iot.readings lies 600.0 s ahead of this machine's clock"
    )
    findings = check_clock(lambda: stamped_s + 600, None, newest_ms, "Asia/Shanghai")
    assert (
        only(findings, "clock", State.OK).what
        == "this machine's clock: no record lies ahead of it; Asia/Shanghai is known"
    )


def test_a_time_zone_that_is_not_there_is_a_fault() -> None:
    finding = only(check_clock(time.time, None, None, "Asia/Yunting"), "clock", State.FAULT)
    assert finding.what == "the time zone Asia/Yunting is not known here"


# --------------------------------------------------------------------------------------------- port, disk and limits


def test_a_port_that_somebody_else_has_is_a_fault(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    assert (
        only(check_port("127.0.0.1", port, 0.5), "port", State.FAULT).what
        == f"somebody else listens at 127.0.0.1:{port}"
    )
    listener.close()
    assert only(check_port("127.0.0.1", port, 0.5), "port", State.OK).what == f"{port} is free for a worker"
    assert "cannot listen" in only(check_port("nowhere.invalid", port, 0.5), "port", State.FAULT).what


def test_too_little_room_is_a_fault_and_not_much_a_warning(tmp_path: Path) -> None:
    free_bytes = shutil.disk_usage(tmp_path).free
    folders = [("results", tmp_path / "not" / "there" / "yet")]
    for least_bytes, state in ((2 * free_bytes, State.FAULT), (free_bytes // 2, State.WARNING), (0, State.OK)):
        findings = check_disk(folders, least_bytes)
        assert {finding.state for finding in findings} == {state}
        assert any("results" in finding.what for finding in findings)


@pytest.mark.parametrize(("files", "state"), [(200, State.FAULT), (500, State.WARNING), (1024, State.OK)])
def test_too_few_open_files_are_told(files: int, state: State) -> None:
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, former[1]))
    try:
        findings = check_limits()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, former)
    only(findings, "limits", state)


# ------------------------------------------------------------------------------------------------ whatever happens


@pytest.mark.parametrize(
    ("now_s", "what"),
    [
        (lambda: 1 // 0, "the check itself broke: ZeroDivisionError"),
    ],
)
def test_a_check_that_breaks_is_a_line_like_any_other(
    front: FrontProcess, now_s: Callable[[], float], what: str
) -> None:
    flags: dict[str, Any] = {"brokers": NOWHERE, "clickhouse": front.dsn, "port": 0}
    found = examine(Asked(None, KEY, flags, timeout_s=0.5, now_s=now_s)).findings
    clickhouse = only([each for each in found if each.check == "clickhouse"], "clickhouse", State.FAULT)
    assert clickhouse.what.startswith(what)
    assert [each.check for each in found][-1] == "processor"
