"""The audit of packages: what it fails on, and that a network that is away is not taken for a clean bill."""

import json
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def audit() -> Any:
    """The script `.ci/audit`."""
    loader = SourceFileLoader("audit", str(Path(__file__).parents[1] / ".ci" / "audit"))
    spec = spec_from_loader("audit", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def report(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


CLEAN = {"name": "h11", "version": "0.16.0", "vulns": []}
SKIPPED = {"name": "numpy", "skip_reason": "Dependency not found on PyPI and could not be audited"}
BAD = {
    "name": "h11",
    "version": "0.14.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-2025-43859"], "fix_versions": ["0.16.0"], "description": "smuggling"}],
}


def test_known_vulnerability_fails(audit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert audit.verdict(report(CLEAN)) == (True, ["1 packages audited"])
    fine, words = audit.verdict(report(CLEAN, BAD))
    assert not fine
    assert words[-1] == "VULNERABLE: h11 0.14.0: PYSEC-1, mended in 0.16.0"
    monkeypatch.setitem(audit.ACCEPTED, "CVE-2025-43859", "we serve no proxy")
    fine, words = audit.verdict(report(BAD))
    assert fine
    assert words[-1].endswith("we serve no proxy")


@pytest.mark.parametrize("text", ["", "Traceback", "[]", "{}", "null"])
def test_no_report_is_no_clean_bill(audit: Any, text: str) -> None:
    fine, words = audit.verdict(text)
    assert fine
    assert words[0].startswith("NOT AUDITED")


def test_what_was_not_looked_up_is_said(audit: Any) -> None:
    assert audit.verdict(report(SKIPPED, SKIPPED)) == (
        True,
        ["NOT AUDITED: 2 of 2 packages could not be looked up (numpy, numpy)"],
    )
    assert not audit.verdict(report(SKIPPED, BAD))[0]


def test_what_is_not_pinned_fails(audit: Any) -> None:
    pins = audit.pinned("# a comment\nruamel.yaml==0.18\nh11==0.16.0\n")
    assert audit.unpinned({"h11": "0.16.0", "ruamel-yaml": "0.18", "fieldlab": "1", "pip": "25"}, pins) == []
    assert audit.unpinned({"h11": "0.15", "left-pad": "1"}, pins) == [
        "h11 0.15 is installed; constraints.txt has 0.16.0",
        "left-pad 1 is installed; constraints.txt has nothing",
    ]
