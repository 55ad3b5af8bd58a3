"""The committed files: up to date, readable, in Grafana's own schema; links lead to boards that take them."""

import copy
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # ships no type information

from deploy.grafana import alerts
from deploy.grafana.boards import BOARDS
from deploy.grafana.build import HERE, files
from deploy.grafana.builder.dashboard import dashboard
from deploy.grafana.builder.parts import Board, Panel, Query
from fieldlab import cli

MODULES = Path(__file__).parent / "node_modules"
PANELS = [pytest.param(b, p, id=f"{b.title}/{p.title}") for b in BOARDS for p in b.panels()]


def test_committed_files_are_up_to_date() -> None:
    """If not: `fieldlab boards build`, and commit."""
    made = files()
    assert [name for name, text in made.items() if (HERE / name).read_text("utf-8") != text] == []
    assert {f"dashboards/{path.name}" for path in (HERE / "dashboards").iterdir()} == {
        name for name in made if name.startswith("dashboards/")
    }


def test_build_writes_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["boards", "build", "--out", str(tmp_path), "--json"]
    assert cli.main(command) == 0
    assert set(json.loads(capsys.readouterr().out)["files"].values()) == {"created"}
    (tmp_path / "dashboards" / "fieldlab-hall.json").write_text("{}")
    assert cli.main(command) == 0
    done = json.loads(capsys.readouterr().out)["files"]
    assert [name for name, state in done.items() if state != "same"] == ["dashboards/fieldlab-hall.json"]
    assert json.loads((tmp_path / "dashboards" / "fieldlab-hall.json").read_text())["uid"] == "fieldlab-hall"


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dashboards").write_text("a file, not a folder")
    assert cli.main(["boards", "build", "--out", str(tmp_path)]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_provisioning_files_say_what_was_meant() -> None:
    found = {p.name: yaml.safe_load(p.read_text("utf-8")) for p in (HERE / "provisioning" / "alerting").iterdir()}
    assert found == {"rules.yaml": alerts.rules_file(), "contact-points.yaml": alerts.contact_file()}
    source = yaml.safe_load((HERE / "provisioning" / "datasources" / "fieldlab.yaml").read_text("utf-8"))
    assert source["datasources"][0]["uid"] == dashboard(BOARDS[0])["panels"][0]["datasource"]["uid"]
    provider = yaml.safe_load((HERE / "provisioning" / "dashboards" / "fieldlab.yaml").read_text("utf-8"))
    assert provider["providers"][0]["folderUid"] == alerts.FOLDER_UID
    assert "$" not in (HERE / "provisioning" / "alerting" / "rules.yaml").read_text("utf-8")


def test_alerts_open_boards_that_exist() -> None:
    assert {rule.board for rule in alerts.RULES} <= {board.uid for board in BOARDS}
    assert len({rule.uid for rule in alerts.RULES}) == len(alerts.RULES)


def test_one_board_a_name() -> None:
    assert len({b.uid for b in BOARDS}) == len({b.title for b in BOARDS}) == len(BOARDS) == 8


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_a_panel_explains_itself(board: Board, panel: Panel) -> None:
    assert len(panel.description) >= 25
    assert len(panel.no_data) >= 4
    assert panel.unit
    assert panel.thresholds[0].value is None
    assert panel.height >= 4  # legible from afar
    assert panel.width >= 4


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_variables_and_links_lead_somewhere(board: Board, panel: Panel) -> None:
    """A query's variables are the board's; a link's columns are the query's; its target takes its variables."""
    names = {v.name for v in board.variables}
    for query in panel.queries:
        assert set(re.findall(r"\$\{(\w+)", query.influxql)) <= names
    assert not panel.repeat or panel.repeat in names
    boards = {b.uid: {v.name for v in b.variables} for b in BOARDS}
    for link in panel.links:
        target = re.fullmatch(r"/d/([\w-]+)\?\$\{__url_time_range\}&(.*)", link.url)
        assert target, link.url
        pairs = re.findall(r"var-(\w+)=\$\{__(?:data\.fields|field\.labels)\.(\w+):percentencode\}", target[2])
        assert len(pairs) == target[2].count("=")
        assert {variable for variable, _ in pairs} <= boards[target[1]], link.url
        given = set().union(*(columns(query) for query in panel.queries))
        assert {column for _, column in pairs} <= given, link.url
        assert not link.field or link.field in given


def columns(query: Query) -> set[str]:
    """Everything in double quotes in the outer query, which is columns, tags and new names."""
    return set(re.findall(r'"(\w[\w ]*)"', query.influxql))


def test_a_finding_leads_to_chart_part_and_machine() -> None:
    panel = next(p for p in BOARDS[0].panels() if p.title == "Open findings")
    assert {link.field: link.url.split("?")[0] for link in panel.links} == {
        "chart": "/d/fieldlab-charts",
        "part": "/d/fieldlab-parts",
        "machine": "/d/fieldlab-machine",
    }


def test_panels_do_not_overlap() -> None:
    for board in BOARDS:
        cells: set[tuple[int, int]] = set()
        for panel in dashboard(board)["panels"]:
            g = panel["gridPos"]
            own = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
            assert not own & cells
            assert g["x"] + g["w"] <= 24
            cells |= own


@pytest.fixture(scope="session")
def tsc(require: Callable[[str, str], str]) -> list[str]:
    node = require("node", "nodejs")
    compiler = MODULES / "typescript" / "bin" / "tsc"
    if not compiler.exists() or not (MODULES / "@grafana" / "schema" / "package.json").exists():
        message = "@grafana/schema is not installed: run `npm ci` in tests/deploy"
        if os.environ.get("FIELDLAB_REQUIRE_SERVICES") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return [node, str(compiler)]


def broken() -> list[Any]:
    """Boards with one mistake each, which the schema must see: else it checks nothing."""

    def mistake(kind: str, *path: str, value: Any) -> Any:
        board: Any = copy.deepcopy(
            next(d for d in map(dashboard, BOARDS) if any(p["type"] == kind for p in d["panels"]))
        )
        place = next(p for p in board["panels"] if p["type"] == kind)
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        return board

    return [
        mistake("timeseries", "fieldConfig", "defaults", "custom", "drawStyle", value="wiggle"),
        mistake("timeseries", "options", "legend", "placement", value="left"),
        mistake("timeseries", "options", "showBoxes", value=True),
        mistake("stat", "options", "colorMode", value="loud"),
        mistake("stat", "options", "reduceOptions", "calcs", value="last"),
        mistake("table", "fieldConfig", "defaults", "custom", "cellOptions", value={"type": "blinking"}),
        mistake("table", "options", "cellHeight", value="huge"),
        mistake("state-timeline", "options", "rowHeight", value="high"),
        mistake("state-timeline", "fieldConfig", "defaults", "thresholds", value={"mode": "absolute"}),
        mistake("stat", "gridPos", value={"x": 0, "y": 0, "w": 4}),
        mistake("stat", "type", value="statistic"),
        dashboard(BOARDS[0]) | {"graphTooltip": 9},
        dashboard(BOARDS[0]) | {"colour": "blue"},
    ]


def test_boards_are_of_grafanas_schema(tsc: list[str], tmp_path: Path) -> None:
    """`tsc --strict` takes every committed board, and none of the broken ones."""
    lines = ["import type { Board } from './schema';"]
    for i, path in enumerate(sorted((HERE / "dashboards").glob("*.json"))):
        lines.append(f"export const board{i}: Board = {path.read_text('utf-8')};")
    for i, wrong in enumerate(broken()):
        lines += ["// @ts-expect-error", f"export const broken{i}: Board = {json.dumps(wrong)};"]
    (tmp_path / "boards.ts").write_text("\n".join(lines), "utf-8")
    (tmp_path / "schema.ts").write_text((Path(__file__).parent / "schema.ts").read_text("utf-8"), "utf-8")
    (tmp_path / "node_modules").symlink_to(MODULES)
    options = {"strict": True, "noEmit": True, "target": "es2022", "module": "esnext", "moduleResolution": "bundler"}
    config = {"compilerOptions": {**options, "types": [], "skipLibCheck": True}, "files": ["boards.ts"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(config))
    command = [*tsc, "--pretty", "false", "--project", "tsconfig.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[:6000]
