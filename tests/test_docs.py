"""The documents: links lead somewhere, configurations can be read, commands and files exist."""

import re
from pathlib import Path

import pytest

from edge.config import load
from fieldlab import cli

ROOT = Path(__file__).parent.parent
PACKAGES = ("fieldlab", "edge", "ingest", "analytics", "simulators", "deploy", "board", "benchmarks", "docs")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.md"))])
NAMES = [str(p.relative_to(ROOT)) for p in DOCUMENTS]
MADE_AT_RUN_TIME = {"certificates/", "own/", "servers/", "DATA/certificates/servers/"}  # in an agent's data folder
HEAD = '[agent]\nname = "a"\n'
SOURCE = '[[source]]\nkind = "mqtt"\nurl = "mqtt://127.0.0.1"\n'
NESTED = ("report", "limits", "deadletter", "certs", "boards")  # commands with commands of their own
PART = '[[part]]\nmachine = "*"\nid = "part_id"\n'


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8"))
    dead = [t for t in targets if "://" not in t and not (path.parent / t).exists()]
    assert dead == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_configurations_can_be_read(path: Path, tmp_path: Path) -> None:
    """A whole file is read as it stands; a part of one gets what it leaves out."""
    for block in blocks(path, "toml"):
        tables = set(re.findall(r"^\[+[\w.]+\]+", block, re.MULTILINE))
        text = block if "[agent]" in tables else HEAD + block
        text += "" if "[[source]]" in tables else f"\n{SOURCE}"
        judges = "$share/" not in block  # a worker may not
        text += "" if "[[part]]" in tables or not judges else f"\n{PART}"
        file = tmp_path / "fieldlab.toml"
        file.write_text(text)
        load(file)


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_commands_exist(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for line in "\n".join(blocks(path, "sh")).splitlines():
        command = line.partition("#")[0].split()
        if command[:1] == ["make"]:
            assert re.search(rf"^{command[1]}:", makefile, re.MULTILINE), line
        elif command[:1] == ["fieldlab"]:
            with pytest.raises(SystemExit) as ended:
                cli.main([*command[1 : 3 if command[1] in NESTED else 2], "--help"])
            assert ended.value.code == 0, line
            usage = capsys.readouterr().out
            assert all(word in usage for word in command[2:] if word.startswith("--")), line


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_files_that_a_document_names_exist(path: Path) -> None:
    """Paths in backquotes, from that document or from the top; in a table's first column, names of files too."""
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    named = {n for n in re.findall(r"`([\w.<>*/-]+(?:\.py|/))`", text) if "/" in n} - MADE_AT_RUN_TIME
    for row in re.findall(r"^\| ([^|]*`[^|]*) \|", text, re.MULTILINE):
        named |= set(re.findall(r"`([\w/]+\.py)`", row))
    globs = sorted(re.sub(r"<\w+>", "*", name) for name in named)
    assert [g for g in globs if not any(any(base.glob(g)) for base in (path.parent, ROOT))] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_no_document_refers_to_papers_that_are_not_here(path: Path) -> None:
    """A newcomer has this tree and nothing else."""
    assert re.search(r"\bDESIGN\b", path.read_text("utf-8")) is None


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_tests_that_a_document_names_exist(path: Path) -> None:
    """`file.py::test_name`, from the folder of tests."""
    named = re.findall(r"`(?:tests/)?([\w/]+\.py)::(\w+)`", path.read_text("utf-8"))
    gone = [f"{file}::{name}" for file, name in named if f"def {name}(" not in _text(ROOT / "tests" / file)]
    assert gone == []


def test_every_row_of_the_guarantees_names_a_test() -> None:
    rows = re.findall(r"^\| (?!failure|---)(.*)\|$", (ROOT / "docs" / "guarantees.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) > 30
    assert [row for row in rows if "::test_" not in row.split("|")[-1]] == []


def _text(file: Path) -> str:
    return file.read_text("utf-8") if file.exists() else ""


def test_subcommands_that_are_not_built_are_named_as_such() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    unbuilt = text[text.index("**Not built yet:**") :]
    built = [command for command in cli._COMMANDS if f"`{command}`" in unbuilt.partition("\n\n")[0]]
    assert built == []
