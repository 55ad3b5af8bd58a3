"""Alert rules and the contact point, in the shape of Grafana's provisioning files and of its provisioning API.

Queries name their time themselves and texts use `.Labels`, so that nothing here holds a dollar sign, which Grafana
replaces in provisioning files by a variable of its environment.
"""

from typing import Literal

import msgspec

from deploy.grafana.builder.influxql import BAD_NO_COMMUNICATION, PLACE, newest_findings, select, tags
from deploy.grafana.builder.parts import DATA_SOURCE, Json

FOLDER_UID = "fieldlab"
FOLDER = "Fieldlab"
GROUP = "Fieldlab"
CONTACT_POINT = "Fieldlab"
EVERY = 60
"""Seconds between two evaluations."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One alert rule: a query whose newest value, a series, is compared with a threshold.

    Attributes:
        uid: for ever the same.
        title: as people read it.
        influxql: gives series of numbers over time.
        columns: the columns, and tags grouped by, that the texts and the threshold need.
        compare: gt or lt.
        threshold: what the newest value is compared with.
        minutes: how long it must hold before it alerts.
        span: seconds back that Grafana says it asks for; the query's own time is what counts.
        no_data: what no series at all means.
        summary: the alert in one line.
        action: what to do.
        board: the board to open.
        severity: a label, for routing.
    """

    uid: str
    title: str
    influxql: str
    columns: tuple[str, ...]
    compare: Literal["gt", "lt"] = "gt"
    threshold: float = 0
    minutes: int = 0
    span: int = 3600
    no_data: Literal["OK", "NoData", "Alerting"] = "OK"
    summary: str
    action: str
    board: str
    severity: Literal["warning", "alarm"] = "alarm"


RULES = (
    Rule(
        uid="fieldlab-finding",
        title="Open alarm on a machine",
        influxql=select(
            'count("state") AS "open"',
            newest_findings(where="", time="time > now() - 1d"),
            where="\"state\" = 'raised' AND \"severity\" = 'alarm' AND time > now() - 1d",
            group=tags(*PLACE),
            timed=False,
        ),
        columns=("machine", "open"),
        span=86_400,
        summary="{{ .Labels.machine }} ({{ .Labels.site }}/{{ .Labels.area }}/{{ .Labels.line }}) has an open alarm",
        action="Open the board Fieldlab, click the chart of the finding, and acknowledge it when its cause is known.",
        board="fieldlab-hall",
    ),
    Rule(
        uid="fieldlab-silence",
        title="A machine is silent",
        influxql=select(
            'moving_average(count("value"), 5) AS "readings"',
            "telemetry",
            where="time > now() - 1h",
            group=f"time(1m), {tags(*PLACE)}",
            tail="fill(0)",
            timed=False,
        ),
        columns=("machine", "readings"),
        compare="lt",
        threshold=0.1,  # one reading in five minutes is 0.2
        minutes=1,
        no_data="Alerting",
        summary="{{ .Labels.machine }} sent no number for five minutes, and did within the last hour",
        action="See the board Data trust: is its agent alive, is its source connected, is the machine switched off?",
        board="fieldlab-trust",
    ),
    Rule(
        uid="fieldlab-connection",
        title="Connection to a machine lost",
        influxql=select(
            'count("status") AS "signals"',
            "telemetry",
            where=f'"status" = {BAD_NO_COMMUNICATION} AND time > now() - 5m',
            group=tags(*PLACE),
            timed=False,
        ),
        columns=("machine", "signals"),
        span=300,
        summary="The connection to {{ .Labels.machine }} was lost within the last five minutes",
        action="`fieldlab status` on the agent says why. It connects again by itself; see that the gap is known.",
        board="fieldlab-trust",
        severity="warning",
    ),
    Rule(
        uid="fieldlab-loss",
        title="Readings were lost or refused",
        influxql=select(
            'spread("overflow") + spread("dead") AS "lost"',
            "ledger",
            where="time > now() - 1d",
            group=tags(*PLACE, "signal"),
            timed=False,
        ),
        columns=("machine", "signal", "lost"),
        span=86_400,
        summary="Readings of {{ .Labels.machine }}/{{ .Labels.signal }} overflowed or were refused by a store today",
        action="Overflow: give the source a longer queue. Refused: `fieldlab deadletter list` says why, and replays.",
        board="fieldlab-trust",
    ),
    Rule(
        uid="fieldlab-agent",
        title="An agent is silent",
        influxql=select(
            'moving_average(count("uptime_seconds"), 5) AS "reports"',
            "agent",
            where="time > now() - 1h",
            group=f"time(1m), {tags('agent')}",
            tail="fill(0)",
            timed=False,
        ),
        columns=("agent", "reports"),
        compare="lt",
        threshold=0.1,
        minutes=1,
        no_data="Alerting",
        summary="The agent {{ .Labels.agent }} did not report for five minutes, and did within the last hour",
        action="Is it running, and does it reach the store? What it reads meanwhile is kept in its journal.",
        board="fieldlab-agents",
    ),
    Rule(
        uid="fieldlab-source",
        title="An agent cannot reach a source",
        influxql=select(
            'last("sources") - last("sources_connected") AS "away"',
            "agent",
            where="time > now() - 5m",
            group=tags("agent"),
            timed=False,
        ),
        columns=("agent", "away"),
        minutes=2,
        span=300,
        summary="The agent {{ .Labels.agent }} is without one or more of its sources",
        action="`fieldlab status` on the agent names the source and the reason.",
        board="fieldlab-agents",
        severity="warning",
    ),
)


def data(rule: Rule) -> list[Json]:
    """The rule's query, its newest value, and the threshold, as Grafana evaluates them."""
    span = {"from": rule.span, "to": 0}
    expression = {"type": "__expr__", "uid": "__expr__"}
    return [
        {
            "refId": "A",
            "queryType": "",
            "relativeTimeRange": span,
            "datasourceUid": DATA_SOURCE["uid"],
            "model": {
                "refId": "A",
                "datasource": DATA_SOURCE,
                "query": rule.influxql,
                "rawQuery": True,
                "resultFormat": "time_series",
                "intervalMs": 1000,
                "maxDataPoints": 43_200,
            },
        },
        {
            "refId": "B",
            "queryType": "",
            "relativeTimeRange": span,
            "datasourceUid": "__expr__",
            "model": {
                "refId": "B",
                "datasource": expression,
                "type": "reduce",
                "expression": "A",
                "reducer": "last",
                "settings": {"mode": "dropNN"},
            },
        },
        {
            "refId": "C",
            "queryType": "",
            "relativeTimeRange": span,
            "datasourceUid": "__expr__",
            "model": {
                "refId": "C",
                "datasource": expression,
                "type": "threshold",
                "expression": "B",
                "conditions": [{"evaluator": {"type": rule.compare, "params": [rule.threshold]}}],
            },
        },
    ]


def rule_json(rule: Rule, *, contact: bool) -> Json:
    """What files and API have in common; `contact` sends the alert to our contact point, past the policy tree."""
    made: Json = {
        "uid": rule.uid,
        "title": rule.title,
        "condition": "C",
        "data": data(rule),
        "noDataState": rule.no_data,
        "execErrState": "Error",
        "for": f"{rule.minutes}m" if rule.minutes else "0s",
        "annotations": {"summary": rule.summary, "description": rule.action, "__dashboardUid__": rule.board},
        "labels": {"source": "fieldlab", "severity": rule.severity},
        "isPaused": False,
    }
    return made | ({"notification_settings": {"receiver": CONTACT_POINT}} if contact else {})


def rules_file() -> Json:
    """provisioning/alerting/rules.yaml."""
    rules = [rule_json(rule, contact=True) for rule in RULES]
    group = {"orgId": 1, "name": GROUP, "folder": FOLDER, "interval": f"{EVERY}s", "rules": rules}
    return {"apiVersion": 1, "groups": [group]}


def rule_group(*, contact: bool) -> Json:
    """The body of PUT /api/v1/provisioning/folder/FOLDER/rule-groups/GROUP."""
    rules = [
        rule_json(rule, contact=contact) | {"folderUID": FOLDER_UID, "ruleGroup": GROUP, "orgID": 1} for rule in RULES
    ]
    return {"title": GROUP, "folderUid": FOLDER_UID, "interval": EVERY, "rules": rules}


def contact_point(addresses: str) -> Json:
    """A contact point that sends mail."""
    return {"uid": "fieldlab-mail", "type": "email", "settings": {"addresses": addresses, "singleEmail": True}}


def contact_file() -> Json:
    """provisioning/alerting/contact-points.yaml; the address comes from Grafana's environment."""
    point = contact_point("$FIELDLAB_ALERT_MAIL")
    return {"apiVersion": 1, "contactPoints": [{"orgId": 1, "name": CONTACT_POINT, "receivers": [point]}]}
