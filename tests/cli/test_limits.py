"""`fieldlab limits` without an agent: usage, and a folder where none has run."""

from pathlib import Path

import pytest

from fieldlab.cli import main

CONFIG = '[agent]\nname = "a"\ndata = "data"\n[[source]]\nkind = "mqtt"\nurl = "mqtt://127.0.0.1:1"\ntopics = ["t/#"]\n'


@pytest.mark.parametrize(
    "arguments",
    [
        ["freeze"],
        ["freeze", "c", "--to", "yesterday"],
        ["freeze", "c", "--version", "1", "--from", "8h"],
        ["diff", "c"],
    ],
)
def test_bad_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["limits", *arguments])
    assert refused.value.code == 2


def test_no_agent_has_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fieldlab.toml"
    file.write_text(CONFIG, "utf-8")
    for arguments in (["list"], ["freeze", "c"], ["freeze", "c", "--from", "8h"], ["diff", "c", "1"]):
        assert main(["limits", *arguments, "--config", str(file)]) == 1
        assert "no agent has run on it yet" in capsys.readouterr().err
