"""`fieldlab check` finds signals of `[[part]]` and `[[curve]]` that no machine has."""

from pathlib import Path

from edge.check import _globs
from edge.config import load
from edge.sources.base import CheckLine

CONFIG = """
[agent]
name = "a"
[[source]]
kind = "mqtt"
url = "mqtt://127.0.0.1"
[[part]]
machine = "press"
id = "part_id"
measure = ["depth", "bore"]
[[curve]]
name = "stroke"
machine = "press"
y = "force"
x = "travle"
"""


def test_signals_that_no_machine_has(tmp_path: Path) -> None:
    (tmp_path / "fieldlab.toml").write_text(CONFIG, "utf-8")
    config = load(tmp_path / "fieldlab.toml")
    lines = [
        CheckLine(level="ok", subject=name, text="", data={"signal": f"press/{name}"})
        for name in ("part_id", "force", "travel", "depth")
    ]
    wrong = {line.subject: line for line in _globs(config, lines)}
    assert set(wrong) == {"part[0].measure", "curve[0]"}
    assert {line.level for line in wrong.values()} == {"fail"}
    assert "'press/bore' matches none of the 4" in wrong["part[0].measure"].text
    assert "'press/travle' matches none" in wrong["curve[0]"].text
