"""Reports as text for a terminal, and as one HTML page that needs nothing else."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from fieldlab.cli import figures
from fieldlab.cli.figures import UNPRINTABLE, Figure, escape

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 100rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
p { margin: .2rem 0; } .bad { color: var(--bad); font-weight: 600; }
.wide { overflow-x: auto; margin: 1.5rem 0; }
table { border-collapse: collapse; min-width: 40rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:not(:last-child), th { white-space: nowrap; } td:last-child { min-width: 16rem; }
thead th { border-bottom-width: 2px; } .n { text-align: right; font-variant-numeric: tabular-nums; }
tbody tr:hover { background: var(--soft); }
"""


class Table(msgspec.Struct, frozen=True):
    """A table: caption, column names (those that begin with `#` hold numbers), and rows of as many cells."""

    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]


class Section(msgspec.Struct, frozen=True):
    """A part of a report under a heading of its own. Its pictures, or all of it (`page_only`), are for HTML alone."""

    title: str
    lines: list[str] = []
    figures: list[Figure] = []
    tables: list[Table] = []
    page_only: bool = False


class Page(msgspec.Struct, frozen=True):
    """A report: a title, what it says in words, what is wrong, pictures and tables, and sections behind them."""

    title: str
    lines: list[str]
    faults: list[str]
    tables: list[Table]
    figures: list[Figure] = []
    sections: list[Section] = []


def as_text(page: Page) -> str:
    """For a terminal. Characters of machines that would steer it are shown as `?`."""
    lines = [page.title, *(f"  {line}" for line in page.lines), *(f"  FAULT {fault}" for fault in page.faults)]
    for table in page.tables:
        lines += _text_table(table)
    for section in page.sections:
        if section.page_only:
            continue
        lines += ["", section.title, *(f"  {line}" for line in section.lines)]
        for table in section.tables:
            lines += _text_table(table)
    return "\n".join(_clean(line) for line in lines) + "\n"


def _text_table(table: Table) -> list[str]:
    lines = ["", table.caption]
    names = [name.removeprefix("#") for name in table.columns]
    cells = [names, *([_clean(str(cell)) for cell in row] for row in table.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    for row in cells:
        parts = [
            cell.rjust(width) if name.startswith("#") else cell.ljust(width)
            for cell, width, name in zip(row, widths, table.columns, strict=True)
        ]
        lines.append(("  " + "  ".join(parts)).rstrip())
    return lines


def as_html(page: Page) -> str:
    """One page, without scripts and without anything from elsewhere."""
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{escape(page.title)}</title>\n<style>{_STYLE}{figures.STYLE}</style>\n</head>\n<body>",
        f"<h1>{escape(page.title)}</h1>",
        *(f"<p>{escape(line)}</p>" for line in page.lines),
        *(f'<p class="bad">▲ {escape(fault)}</p>' for fault in page.faults),
        *(figures.as_svg(figure) for figure in page.figures),
        *(_table(table) for table in page.tables),
        *(_section(section) for section in page.sections),
        "</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _section(section: Section) -> str:
    inside = [f"<h2>{escape(section.title)}</h2>", *(f"<p>{escape(line)}</p>" for line in section.lines)]
    inside += [figures.as_svg(figure) for figure in section.figures]
    inside += [_table(table) for table in section.tables]
    return "<section>\n" + "\n".join(inside) + "\n</section>"


def _table(table: Table) -> str:
    numeric = [name.startswith("#") for name in table.columns]
    head = "".join(
        f'<th scope="col"{_class(n)}>{escape(name.removeprefix("#"))}</th>'
        for name, n in zip(table.columns, numeric, strict=True)
    )
    rows = "\n".join(
        "<tr>" + "".join(f"<td{_class(n)}>{escape(cell)}</td>" for cell, n in zip(row, numeric, strict=True)) + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="wide"><table>\n<caption>{escape(table.caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _class(numeric: bool) -> str:
    return ' class="n"' if numeric else ""


def _clean(text: str) -> str:
    return UNPRINTABLE.sub("?", text)


def moment(ns: int) -> str:
    """A time in UTC, to the millisecond; what no calendar has stays a number."""
    try:
        return (
            datetime.fromtimestamp(ns / 1e9, UTC).isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
            + "Z"
        )
    except (OverflowError, ValueError, OSError):
        return str(ns)


def span(seconds: float) -> str:
    """A duration, short."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def counted(parts: Sequence[tuple[str, int]]) -> str:
    """`name number + name number + …`."""
    return " + ".join(f"{name} {number}" for name, number in parts)
