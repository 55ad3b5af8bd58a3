"""`fieldlab demo`: the whole chain, measured against the simulators' truth, with either broker."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HIDE = """
import shutil
which = shutil.which
shutil.which = lambda program, *args, **keys: None if program == "mosquitto" else which(program, *args, **keys)
"""


@pytest.mark.parametrize("broker", ["mosquitto", "amqtt"])
def test_demo(broker: str, fieldlab: Callable[..., Any], tmp_path: Path, require: Callable[..., str]) -> None:
    hide = tmp_path / "hide"
    hide.mkdir()
    if broker == "mosquitto":
        require("mosquitto", "mosquitto")
    else:
        (hide / "sitecustomize.py").write_text(HIDE)
    kept = tmp_path / "kept"
    done = fieldlab(
        "demo", "--seconds", 30, "--headless", "--json", "--keep", kept,
        timeout=240, PYTHONPATH=str(hide), HOME=str(tmp_path),
    )  # fmt: skip
    assert done.code == 0, done
    assert "Traceback" not in done.err
    assert done.out.count("\n") == 1
    result = json.loads(done.out)
    print(result)
    readings, faults, parts = result["readings"], result["faults"], result["parts"]
    assert readings["lost"] == 0
    assert readings["sent"] == readings["committed"] == readings["stored"] > 1_000
    assert (faults["injected"], faults["found"]) == (3, 3)
    assert faults["false_alarms"] <= 1
    assert 0 <= faults["delay_parts"] < 20
    assert parts["made"] > 100
    assert parts["bad"] > 0
    assert parts["escaped"] == 0
    assert "overkill" in parts
    assert f"kind={broker}" in (kept / "simulate.log").read_text().replace('"kind": "', "kind=")
    for log in ("simulate.log", "agent.log"):
        assert "Traceback" not in (kept / log).read_text()
