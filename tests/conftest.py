"""Fixtures that every test may use: the recorded data and the brokers, and the count of what ran on which."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from brokers import ROOT, Broker, BrokerUnavailableError, Embedded, Kafka, KafkaElsewhere, java_version, real_kafka
from hypothesis import settings

# Deterministic: the same examples on every run, and no wall-clock deadline on a noisy machine.
settings.register_profile("city", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("city")


@pytest.fixture(scope="session")
def city_data() -> Path:
    """The folder of real recorded data, which is not part of the repository."""
    folder = Path(os.environ.get("CITYBRAIN_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "boston").is_dir():
        message = f"no recorded data in {folder}; set CITYBRAIN_DATA"
        if os.environ.get("CITYBRAIN_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder


# ------------------------------------------------------------------------------------------------------ brokers


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[Kafka | KafkaElsewhere]:
    """A real Apache Kafka 4 or later, one broker, for the whole session.  Skips when there is none to be had.

    Tests share it: take topic names under ``topic_prefix``, and start it again if you stop it.
    """
    yield from _real_kafka(request.config, brokers=1)


@pytest.fixture(scope="module")
def kafka_trio(request: pytest.FixtureRequest) -> Iterator[Kafka | KafkaElsewhere]:
    """Three real brokers, for what replication promises; about 13 s to start, so for few tests."""
    yield from _real_kafka(request.config, brokers=3)


@pytest.fixture(scope="session")
def embedded_kafka(request: pytest.FixtureRequest) -> Iterator[Embedded]:
    """The embedded broker, for the whole session; see its bounds in ``agents/embedded_broker.py``."""
    broker = Embedded().start()
    request.config.stash[_RUNNING].versions["embedded"] = f"librdkafka's mock cluster {broker.version}"
    yield broker
    broker.close()


@pytest.fixture(params=["kafka", "embedded"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Each broker in turn: a test that takes this runs on the real one and on the embedded one, and is up again after
    a test that stopped it."""
    found: Broker = request.getfixturevalue("kafka" if request.param == "kafka" else "embedded_kafka")
    yield found
    if not found.running:
        found.start()


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> str:
    """A prefix for topics and groups that no other test of this run has."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.nodeid.removeprefix("tests/")).strip("-")
    return f"{name[-150:]}-{os.getpid()}."


def _real_kafka(config: pytest.Config, brokers: int) -> Iterator[Kafka | KafkaElsewhere]:
    running = config.stash[_RUNNING]
    try:
        with real_kafka(brokers) as kafka:
            running.versions["kafka"] = f"Apache Kafka {kafka.version}"
            if isinstance(kafka, Kafka):
                running.versions["kafka"] += f" (Maven artifacts, Java {java_version()})"
                running.kafkas.append(kafka)
            yield kafka
    except BrokerUnavailableError as reason:
        if os.environ.get("CITYBRAIN_REQUIRE_KAFKA") == "1":
            pytest.fail(f"CITYBRAIN_REQUIRE_KAFKA=1, but {reason}", pytrace=False)
        pytest.skip(f"no real Kafka: {reason}")
    finally:
        running.kafkas.clear()


# -------------------------------------------------------------------------------------------- one process or several


@dataclass
class _Running:
    """The brokers of this process, as the fixtures that started them tell."""

    versions: dict[str, str] = field(default_factory=dict)
    kafkas: list[Kafka] = field(default_factory=list)


_RUNNING = pytest.StashKey[_Running]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RUNNING] = _Running()
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        config.pluginmanager.register(_Tally())
        return
    # Two processes that compile one function for two signatures at once give both the same number in numba's cache,
    # and whoever reads it then runs the code of the other signature, without a word.
    assert "numba" not in sys.modules, "numba reads NUMBA_CACHE_DIR when it is imported"
    cache = Path(os.environ.get("CITYBRAIN_CACHE", ROOT / "build"))
    os.environ["NUMBA_CACHE_DIR"] = str(cache / f"numba-{worker}")


# --------------------------------------------------------------------------- what ran on which broker, and what not


def _needs(item: pytest.Function) -> list[str]:
    names = set(item.fixturenames)
    chosen = item.callspec.params.get("broker") if hasattr(item, "callspec") else None
    needs = []
    if names & {"kafka", "kafka_trio"} or chosen == "kafka":
        needs.append("kafka")
    if "embedded_kafka" in names or chosen == "embedded":
        needs.append("embedded")
    if "city_data" in names:
        needs.append("data")
    return needs


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A report carries what its test needs, and the version of it, to the process that counts."""
    report = yield
    if isinstance(item, pytest.Function):
        running, needs = item.config.stash[_RUNNING], _needs(item)
        report.user_properties += [(need, running.versions.get(need, "")) for need in needs]
        if report.failed and "kafka" in needs:
            report.sections += [("Kafka's own log", kafka.log()) for kafka in running.kafkas]
    return report


@dataclass(eq=False)  # pytest keeps its plugins in sets
class _Tally:
    """Outcomes of tests by what they need: "kafka", "embedded", "data".  Counted from the reports of all processes."""

    ran: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, Counter[str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = {str(need): str(version) for need, version in report.user_properties}
        self.versions |= {need: version for need, version in found.items() if version}
        needs = list(found)
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            reason = reason.removeprefix("Skipped: ")
            if not needs and "CITYBRAIN_DATA" in reason:
                needs = ["data"]
            for need in needs:
                self.skipped.setdefault(need, Counter())[reason] += 1
        elif report.when == "call":
            self.ran.update(needs)
        elif report.when == "setup" and report.failed:
            for need in needs:
                self.skipped.setdefault(need, Counter())["its setup failed"] += 1

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
        """The last lines before pytest's own: which broker ran, how many tests on it, how many not, and why."""
        yield  # pytest's own summaries first
        terminalreporter.section("brokers and data")
        default = {"kafka": "real Kafka", "embedded": "embedded broker", "data": "recorded data"}
        for need, title in default.items():
            name = {"kafka": "", "embedded": "embedded broker: ", "data": ""}[need] + self.versions.get(need, title)
            reasons = self.skipped.get(need, Counter())
            line = f"{name}: {self.ran[need]} tests ran, {reasons.total()} did not"
            if reasons:
                line += " — " + "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
            terminalreporter.line(line)
