"""The four kinds of panel that the boards use, with settings that stay legible on a wall screen and on a phone."""

from typing import Any

from deploy.grafana.builder.parts import Json, Panel, Query, Threshold

GREEN, AMBER, RED, BLUE, GREY = "green", "orange", "red", "blue", "text"

GOOD_IS_ZERO = (Threshold(None, GREEN), Threshold(1, RED))
"""Any is too many."""

STATES = (
    ("running", GREEN),
    ("idle", BLUE),
    ("heating", AMBER),
    ("paused", AMBER),
    ("stopped", GREY),
    ("error", RED),
    ("fault", RED),
)
"""Colours of machine states; others get one of Grafana's palette."""

_HIDDEN: Json = {
    "custom.hidden": True,  # up to Grafana 11
    "custom.hideFrom": {"viz": True, "legend": False, "tooltip": False},  # from 12 on
}

VERDICTS = (("pass", GREEN), ("suspect", AMBER), ("fail", RED))
FINDINGS = (("raised", RED), ("acknowledged", AMBER), ("shelved", BLUE), ("cleared", GREEN))


EVENT_FLAGS = (("true", AMBER), ("false", GREY))
"""Colours of what an event says is so or not."""


ACTIONS = (
    ("done", GREEN),
    ("dry_run", BLUE),
    ("limited", AMBER),
    ("refused", AMBER),
    ("failed", RED),
    ("unknown", RED),
)
"""Colours of what became of an action."""


def stat(title: str, description: str, *queries: Query, calc: str = "lastNotNull", **more: Any) -> Panel:
    """A number to be read from afar; `calc` is how a series becomes one number."""
    options: Json = {
        "reduceOptions": {"calcs": [calc], "fields": more.pop("fields", ""), "values": False},
        "orientation": "auto",
        "textMode": more.pop("text_mode", "auto"),
        "colorMode": "background" if "thresholds" in more else "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    }
    defaults: Json = {"width": 4, "height": 5}
    return Panel(
        kind="stat", title=title, description=description, queries=queries, options=options, **(defaults | more)
    )


def timeseries(title: str, description: str, *queries: Query, bars: bool = False, **more: Any) -> Panel:
    """Lines over time; `bars` stacks counts instead."""
    options: Json = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "none"},
    }
    custom: Json = {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 1 if bars else 2,
        "fillOpacity": 70 if bars else 0,
        "showPoints": "never" if bars else "auto",
        "pointSize": 4,
        "stacking": {"mode": "normal" if bars else "none", "group": "A"},
        "axisLabel": more.pop("axis", ""),
    }
    custom |= more.pop("custom", {})
    return Panel(
        kind="timeseries",
        title=title,
        description=description,
        queries=queries,
        options=options,
        custom=custom,
        **more,
    )


def table(title: str, description: str, *queries: Query, **more: Any) -> Panel:
    """Rows. `colored` names the columns whose cells are coloured by the mappings, `hidden` those that are not shown."""
    hidden = more.pop("hidden", ())
    overrides: dict[str, Json] = dict(more.pop("overrides", {}))
    for name in more.pop("colored", ()):
        overrides[name] = overrides.get(name, {}) | {
            "custom.cellOptions": {"type": "color-background", "mode": "basic"}
        }
    for name in hidden:  # not taken out by a transformation: links need them
        overrides[name] = overrides.get(name, {}) | _HIDDEN
    return Panel(
        kind="table",
        title=title,
        description=description,
        queries=queries,
        options={"showHeader": True, "cellHeight": "sm", "frameIndex": 0, "enablePagination": True},
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False, "filterable": True},
        overrides=overrides,
        **more,
    )


def timeline(title: str, description: str, *queries: Query, **more: Any) -> Panel:
    """States over time, a bar a series."""
    options: Json = {
        "showValue": "auto",
        "rowHeight": 0.8,
        "mergeValues": True,
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return Panel(
        kind="state-timeline",
        title=title,
        description=description,
        queries=queries,
        options=options,
        custom={"fillOpacity": 75, "lineWidth": 0},
        **more,
    )
