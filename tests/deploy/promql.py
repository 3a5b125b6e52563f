"""What a query names, by a real parser of PromQL."""

from typing import Any, NamedTuple

import promql_parser
from promql_parser import AggregateExpr, VectorSelector

OF_A_SCRAPE = {"job", "instance", "le"}  # labels that Prometheus adds, or that every histogram has
OF_ALERTS = {"alertname", "alertstate"}


class Named(NamedTuple):
    """The labels that are chosen by, of each metric that a query selects; and the labels that it groups by."""

    metrics: dict[str, set[str]]
    groups: set[str]


def named_by(query: str) -> Named:
    """What a query names.

    Raises:
        ValueError: it is no PromQL.

    """
    metrics: dict[str, set[str]] = {}
    groups: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, VectorSelector):
            metrics.setdefault(node.name, set()).update(each.name for each in node.matchers.matchers)
        if isinstance(node, AggregateExpr) and node.modifier is not None:
            groups.update(node.modifier.labels)

    promql_parser.walk(promql_parser.parse(query), visit)
    return Named(metrics, groups)
