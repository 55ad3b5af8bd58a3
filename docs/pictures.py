"""Takes a picture of every view of the local board: python docs/pictures.py http://127.0.0.1:8321 [FOLDER].

Run it some forty seconds after `make demo` began, when all three faults are there. Needs the `test` extra and Chromium.
"""

import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright


def views(page: Page, url: str) -> dict[str, str]:
    """Name → address of each view, of what the board has now."""
    base = url.rstrip("/")

    def ask(section: str) -> object:
        return page.request.get(f"{base}/api/{section}").json()

    findings, parts, machines, charts = (ask(s) for s in ("findings", "parts", "machines", "charts"))
    finding = next(f for f in findings["rows"] if not f["chart"].startswith("_"))  # type: ignore[index]  # JSON
    part = next((p for p in parts["rows"] if p["verdict"] == "fail"), parts["rows"][0])  # type: ignore[index]  # same
    return {
        "hall": "",
        "finding": f"finding/{finding['id']}",
        "part": f"part/{part['id']}",
        "machine": f"machine/{machines[0]['path']}",  # type: ignore[index]  # same
        "chart": f"chart/{charts[0]['id']}",  # type: ignore[index]  # same
    }


def take(browser: Browser, url: str, folder: Path) -> None:
    """One picture a view; the hall also dark, in Dutch, and on a phone."""
    looks = {
        "": {"viewport": {"width": 1500, "height": 940}},
        "-dark-dutch": {"viewport": {"width": 1500, "height": 940}, "color_scheme": "dark", "locale": "nl-NL"},
        "-phone": {"viewport": {"width": 390, "height": 844}},
    }
    for look, options in looks.items():
        page = browser.new_context(**options).new_page()  # type: ignore[arg-type]  # one of the three above
        page.goto(url)
        page.wait_for_selector("#finding-list li", timeout=120_000, state="attached")
        for name, where in views(page, url).items():
            if look and name != "hall":
                continue
            page.goto(f"{url.rstrip('/')}/#/{where}")
            if look == "-phone":  # its charts are below, and drawn when they come into view
                page.wait_for_selector("#part-list tr", state="attached")
            elif name in ("hall", "machine"):
                page.wait_for_selector("figure:not([hidden]) .plot[data-drawn]", state="attached")
            elif name == "part":
                page.wait_for_selector("#detail article")
            else:
                page.wait_for_selector("#evidence[data-drawn]")
            page.screenshot(path=folder / f"{name}{look}.png")
            sys.stdout.write(f"{name}{look}.png\n")


if __name__ == "__main__":
    to = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "pictures"
    to.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        take(chromium, sys.argv[1], to)
        chromium.close()
