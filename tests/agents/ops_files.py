"""What ops/ asks of a worker's metrics: every PromQL expression there, parsed by a port of Prometheus' own parser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

ROOT = Path(__file__).resolve().parents[2]
OPS = ROOT / "ops"
OF_THE_TARGET = {"job", "instance"}
"""Labels that Prometheus gives every series it scrapes."""
OF_PROMETHEUS = {"up": OF_THE_TARGET, "ALERTS": {"alertname", "alertstate", "severity"}}
"""Series that it makes itself, and their labels."""


@dataclass(frozen=True)
class Selected:
    """One selector: a series' name, what its labels must be (operator, value), and labels that are grouped by."""

    where: str
    name: str
    matchers: tuple[tuple[str, str, str], ...]
    grouped_by: frozenset[str] = field(default=frozenset())
    is_aggregated: bool = False

    def __str__(self) -> str:
        return f"{self.name} in {self.where}"


def alert_rules() -> list[dict[str, Any]]:
    read = yaml.safe_load((OPS / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in read["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return dict(json.loads((OPS / "grafana-dashboard.json").read_text(encoding="utf-8")))


def expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and the expression as Prometheus would get it."""
    for rule in alert_rules():
        yield f"alert {rule['alert']}", rule["expr"]
    board = dashboard()
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']!r}", _filled_in(target["expr"])
    for annotation in board["annotations"]["list"]:
        if "expr" in annotation:
            yield f"annotation {annotation['name']!r}", _filled_in(annotation["expr"])
    for variable in board["templating"]["list"]:
        if called := re.fullmatch(r"label_values\((.+), (\w+)\)", variable.get("definition", "")):
            yield f"variable {variable['name']}", f"count by ({called[2]}) ({called[1]})"


def texts() -> Iterator[tuple[str, str, set[str]]]:
    """Where it stands, the expression that a text goes with, and the labels that the text names."""
    for rule in alert_rules():
        text = " ".join(rule["annotations"].values())
        yield f"alert {rule['alert']}", rule["expr"], set(re.findall(r"\$labels\.(\w+)", text))
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            yield f"panel {panel['title']!r}", _filled_in(target["expr"]), named


def _filled_in(expression: str) -> str:
    """With values for Grafana's variables."""
    for name, value in (("$__rate_interval", "1m"), ("$__range", "6h"), ("$instance", ".*")):
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def selected() -> list[Selected]:
    return [one for where, expression in expressions() for one in selectors_of(where, expression)]


def selectors_of(where: str, expression: str) -> list[Selected]:
    return list(_selectors(where, promql.parse(expression)))


def _selectors(
    where: str, expression: Any, grouped_by: frozenset[str] = frozenset(), is_aggregated: bool = False
) -> Iterator[Selected]:
    """The selectors of an expression, each with the labels that are asked of what it gives."""
    match expression:
        case promql.VectorSelector():
            yield Selected(where, expression.name, _matchers(expression), grouped_by, is_aggregated)
        case promql.MatrixSelector() | promql.SubqueryExpr() | promql.ParenExpr() | promql.UnaryExpr():
            inner = expression.vector_selector if isinstance(expression, promql.MatrixSelector) else expression.expr
            yield from _selectors(where, inner, grouped_by, is_aggregated)
        case promql.AggregateExpr():
            modifier = expression.modifier
            assert modifier is None or modifier.type == promql.AggModifierType.By, f"{where}: only `by` is understood"
            # Whatever is asked of an aggregate can only be what it was made by.
            by = frozenset(modifier.labels) if modifier else frozenset()
            assert grouped_by <= by, f"{where}: {set(grouped_by - by)} of an aggregate by {set(by)}"
            yield from _selectors(where, expression.expr, by, True)
        case promql.BinaryExpr():
            matching = expression.modifier.matching if expression.modifier else None
            labels = frozenset(matching.labels) if matching else frozenset()
            yield from _selectors(where, expression.lhs, grouped_by | labels, is_aggregated)
            yield from _selectors(where, expression.rhs, labels, is_aggregated)
        case promql.Call():
            for argument in expression.args:
                yield from _selectors(where, argument, grouped_by, is_aggregated)
        case promql.NumberLiteral() | promql.StringLiteral():
            return
        case _:
            raise AssertionError(f"{where}: {type(expression).__name__} is not understood here")


_OPERATORS = {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}


def _matchers(selector: Any) -> tuple[tuple[str, str, str], ...]:
    return tuple((one.name, _OPERATORS[str(one.op)], one.value) for one in selector.matchers.matchers)
