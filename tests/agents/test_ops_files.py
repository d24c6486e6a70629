"""The files of ops/ by themselves: whole, in step with one another, and understood by the programs that read them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ops_files import OPS, ROOT, alert_rules, dashboard

from streams.pack import load_pack

COMPOSE = ROOT / "docker-compose.kafka.yml"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def promtool(*arguments: object) -> str:
    """What Prometheus' own tool says; skipped where there is none, unless it is required."""
    if shutil.which("promtool") is None:
        message = "promtool is not installed (Debian package prometheus)"
        if os.environ.get("CITYBRAIN_REQUIRE_PROMTOOL") == "1":
            pytest.fail(message)
        pytest.skip(message)
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---------------------------------------------------------------------------------------------------------- alerts


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_happens_and_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert all(
        text[0].isupper() or text[0] in "{`" or text.startswith("illegal_") for text in rule["annotations"].values()
    )
    # A momentary state must last; what counts over a window has lasted already.
    assert "for" in rule or re.search(r"\[\d+[mhd]\]", rule["expr"]), "it would go off at a single scrape"


def test_every_threshold_says_where_it_comes_from() -> None:
    """A number that nobody can explain is a number that nobody dares to change."""
    text = (OPS / "alerts.yml").read_text(encoding="utf-8")
    for rule in alert_rules():
        numbers = re.findall(r"[<>]\s*[\d.]+", rule["expr"])
        if numbers and not all(re.fullmatch(r"[<>]\s*[01]", number) for number in numbers):
            above = text[: text.index(f"- alert: {rule['alert']}")].rstrip().splitlines()[-1].strip()
            assert above.startswith("#"), rule["alert"]


def test_every_alert_is_set_off_in_a_case_and_there_are_cases_that_set_off_none() -> None:
    cases = read(OPS / "alerts-test.yml")["tests"]
    fired = [
        set(re.findall(r'alertname="(\w+)"', " ".join(sample["labels"] for sample in test["exp_samples"])))
        for case in cases
        for test in case["promql_expr_test"]
    ]
    assert set().union(*fired) == {rule["alert"] for rule in alert_rules()}
    assert fired.count(set()) >= 4


def test_prometheus_itself_takes_the_rules_and_they_go_off_as_the_cases_say() -> None:
    assert "SUCCESS" in promtool("check", "config", OPS / "prometheus.yml")
    assert "SUCCESS" in promtool("test", "rules", OPS / "alerts-test.yml")


def test_the_scrape_example_has_two_workers_and_loads_the_rules() -> None:
    config = read(OPS / "prometheus.yml")
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "citybrain"
    assert job["static_configs"][0]["targets"] == ["worker-1:6066", "worker-2:6066"]
    assert [(OPS / name).is_file() for name in config["rule_files"]] == [True]
    assert 'job="citybrain"' in alert_rules()[0]["expr"]


# ------------------------------------------------------------------------------------------------------- dashboard


def test_every_panel_asks_the_chosen_source_about_the_chosen_workers() -> None:
    board = dashboard()
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "instance"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            selectors = re.findall(r"\b(?:citybrain|process)_\w+(\{[^}]*\})?", target["expr"])
            assert all('instance=~"$instance"' in selector for selector in selectors), target["expr"]


def test_no_two_panels_cover_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_the_rows_are_what_an_operator_asks_for() -> None:
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == [
        "Now", "Flow in", "What became of reports", "Dead letters", "Latency, freshness, lag", "Incidents",
        "Feedback of dispatch centres", "Workers and pack",
    ]  # fmt: skip


# --------------------------------------------------------------------------------------------------------- compose


def test_the_compose_file_makes_the_topics_of_the_pack_that_its_worker_runs() -> None:
    compose = read(COMPOSE)
    assert compose["services"]["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    command = compose["services"]["topics"]["command"]
    city = command[command.index("--city") + 1]
    assert city == compose["services"]["worker"]["environment"]["CITYBRAIN_CITY"]
    assert load_pack(ROOT / city.removeprefix("/srv/citybrain/")).platform_topics
    assert "--shift-to-now --city packs/sample" in COMPOSE.read_text(encoding="utf-8")


def test_the_compose_file_watches_on_request_with_these_files() -> None:
    """No engine runs here; what can be seen without one is that every file is there and every name is known."""
    compose = read(COMPOSE)
    watching = {name: service for name, service in compose["services"].items() if service.get("profiles") == ["watch"]}
    assert set(watching) == {"prometheus", "grafana"}
    for service in watching.values():
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            assert (ROOT / source).is_file() if source.startswith("./") else source in compose["volumes"], mount
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    ((job,), source) = (
        read(OPS / "compose" / "prometheus.yml")["scrape_configs"],
        read(OPS / "compose" / "grafana-datasource.yml")["datasources"][0],
    )
    (found,) = job["dns_sd_configs"]
    assert job["job_name"] == "citybrain"
    assert found["names"] == ["worker"]
    assert compose["services"]["worker"]["ports"] == [f"127.0.0.1:{found['port']}:{found['port']}"]
    assert source["url"] == "http://prometheus:9090"
    assert source["type"] == "prometheus"
