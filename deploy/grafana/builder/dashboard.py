"""A board as Grafana's classic dashboard JSON."""

from typing import Any

from deploy.grafana.builder.parts import DATA_SOURCE, Board, Json, Link, Mark, Panel, Query, Variable

SCHEMA_VERSION = 39  # Grafana 10.4 and 11; newer ones read it and bring it up to date themselves
TAG = "fieldlab"
_COLUMNS = 24


def dashboard(board: Board) -> Json:
    """The dashboard, without the numeric id that Grafana gives it.

    Raises:
        ValueError: if a band is wider than the screen.
    """
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": board.since, "to": "now"},
        "timepicker": {},
        "templating": {"list": [_variable(v) for v in board.variables]},
        "annotations": {"list": [_mark(m) for m in board.marks]},
        "links": [
            {
                "title": "Fieldlab boards",
                "type": "dashboards",
                "tags": [TAG],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "The other boards, for the same machines and time",
                "url": "",
            }
        ],
        "panels": _panels(board),
    }


def _panels(board: Board) -> list[Json]:
    found: list[Json] = []
    y = 0
    for band in board.bands:
        if sum(panel.width for panel in band) > _COLUMNS:
            raise ValueError(f"{board.title}: the band of {band[0].title!r} is wider than {_COLUMNS} columns")
        x = 0
        for panel in band:
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            found.append(_panel(panel, len(found) + 1, place))
            x += panel.width
        y += max(panel.height for panel in band)
    return found


def _panel(panel: Panel, number: int, place: dict[str, int]) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "noValue": panel.no_data,
        "thresholds": {"mode": "absolute", "steps": [{"value": t.value, "color": t.color} for t in panel.thresholds]},
        "color": {"mode": "thresholds" if panel.kind in ("stat", "table") else "palette-classic"},
        "mappings": _mappings(panel.mappings),
        "links": [_link(link) for link in panel.links if not link.field],
        "custom": panel.custom,
    }
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    made: Json = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "gridPos": place,
        "datasource": DATA_SOURCE,
        "interval": "1s",  # an agent writes at most one point a second a chart; readings may come faster
        "targets": [_target(query, index) for index, query in enumerate(panel.queries)],
        "transformations": [{"id": name, "options": options} for name, options in panel.transformations],
        "fieldConfig": {"defaults": defaults, "overrides": _overrides(panel)},
        "options": panel.options,
    }
    if panel.repeat:
        made |= {"repeat": panel.repeat, "repeatDirection": "h", "maxPerRow": 2}
    return made


def _target(query: Query, index: int) -> Json:
    return {
        "refId": chr(ord("A") + index),
        "datasource": DATA_SOURCE,
        "query": query.influxql,
        "rawQuery": True,
        "resultFormat": "table" if query.table else "time_series",
        "alias": query.alias,
    }


def _mappings(colors: tuple[tuple[str, str], ...]) -> list[Json]:
    if not colors:
        return []
    options = {text: {"color": color, "text": text, "index": i} for i, (text, color) in enumerate(colors)}
    return [{"type": "value", "options": options}]


def _overrides(panel: Panel) -> list[Json]:
    properties: dict[str, Json] = {name: dict(given) for name, given in panel.overrides.items()}
    for link in panel.links:
        if link.field:
            properties.setdefault(link.field, {}).setdefault("links", []).append(_link(link))
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": key, "value": value} for key, value in given.items()],
        }
        for name, given in properties.items()
    ]


def _link(link: Link) -> dict[str, Any]:
    return {"title": link.title, "url": link.url, "targetBlank": False}


def _variable(variable: Variable) -> Json:
    common = {"name": variable.name, "label": variable.label, "hide": 0, "skipUrlSync": False}
    if not variable.query:
        return common | {
            "type": "textbox",
            "query": "",
            "current": {"text": "", "value": ""},
            "options": [{"text": "", "value": "", "selected": True}],
        }
    made = common | {
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": variable.query,
        "refresh": 2,  # when the time range changes
        "sort": 5,  # by name, whatever its case
        "multi": variable.several,
        "includeAll": variable.several,
        "options": [],
        "regex": "",
    }
    if variable.several:
        made |= {"allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}}
    return made


def _mark(mark: Mark) -> Json:
    return {
        "name": mark.name,
        "datasource": DATA_SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": mark.color,
        "target": {
            "refId": "Anno",
            "datasource": DATA_SOURCE,
            "query": mark.influxql,
            "rawQuery": True,
            "resultFormat": "table",
            "textColumn": mark.text,
            "tagsColumn": mark.tags,
            "fromAnnotations": True,
        },
    }
