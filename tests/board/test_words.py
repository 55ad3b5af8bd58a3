"""Every text of the page has its Dutch, and no Dutch is left over."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

from fieldlab.model.trust import GapCause

STATIC = Path(__file__).parents[2] / "board" / "static"
ATTRIBUTES = ("aria-label", "placeholder", "title")
# What the page gets from elsewhere and passes to t(): states, causes, kinds of events.
TOLD = {
    *("alarm", "warning", "raised", "acknowledged", "shelved", "cleared", "pass", "suspect", "fail"),
    *("start", "end", "consume", "measure", "inspect", "rework", "hold", "release"),
    *("live", "stale", "failing", "open", "ended", "closed", "unverifiable"),
    *("findings", "parts", "events", "gaps"),
    *(cause.replace("_", " ") for cause in get_args(GapCause)),
    *("Your name", "Cause", "Comment", "What was done", "Part", "Finding"),
}


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._inside = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside += tag in ("script", "noscript", "title", "code")
        self.found |= {value for name, value in attrs if name in ATTRIBUTES and value}

    def handle_endtag(self, tag: str) -> None:
        self._inside -= tag in ("script", "noscript", "title", "code")

    def handle_data(self, data: str) -> None:
        text = re.sub(r"\s+", " ", data.strip())
        if not self._inside and re.search(r"[A-Za-z]{2}", text):
            self.found.add(text)


def used() -> set[str]:
    """English texts of the page and of the scripts."""
    page = _Texts()
    page.feed((STATIC / "index.html").read_text("utf-8"))
    found = page.found | TOLD
    for file in STATIC.glob("*.js"):
        text = file.read_text("utf-8")
        if file.name != "nl.js":
            found |= set(re.findall(r'\bt\(\s*"((?:[^"\\]|\\.)*)"', text))
        if file.name == "rules.js":
            found |= {m for m in re.findall(r':\s*"([^"]*)"', text) if " " in m}
        if file.name == "detail.js":
            (causes,) = re.findall(r"const CAUSES = (\[.*?\]\]);", text, re.DOTALL)
            found |= set(re.findall(r', "([^"]+)"\]', causes))
    return found


def dutch() -> dict[str, str]:
    lines = (STATIC / "nl.js").read_text("utf-8").splitlines()
    return dict(m.groups() for line in lines if (m := re.match(r'  "(.*?)": "(.*)",$', line)))  # type: ignore[misc]  # two groups


def test_nothing_is_missing_and_nothing_left_over() -> None:
    words = dutch()
    assert len(words) > 150
    assert used() - set(words) == set()
    assert set(words) - used() == set()


def test_what_is_filled_in_is_the_same() -> None:
    for english, text in dutch().items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", text)), english
