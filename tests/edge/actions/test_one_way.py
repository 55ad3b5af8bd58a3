"""One place sends a Write, and one more a Call of the server's own: whoever adds another is told here."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
CHANGES = re.compile(
    r"WriteParameters|WriteRequest|write_attributes|write_value|CallMethodRequest|CallRequest|call_method|\.set_value\("
    r"|HistoryUpdate|AddNodes|DeleteNodes|session\.(write|call)\("
)
ALLOWED = {
    "edge/sources/opcua/commands.py": {"WriteParameters", "CallMethodRequest", "session.write(", "session.call("},
    "edge/sources/opcua/event_items.py": {"CallMethodRequest", "session.call("},  # ConditionRefresh
}


def test_nothing_else_of_ours_can_change_a_machine() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "edge").rglob("*.py")):
        words = {match[0] for match in CHANGES.finditer(path.read_text("utf-8"))}
        if words:
            found[str(path.relative_to(ROOT))] = words
    assert found == ALLOWED
