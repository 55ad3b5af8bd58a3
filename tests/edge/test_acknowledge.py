"""What people say of findings: whatever is sent becomes a record that the analytics can fold, or a reason."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.acknowledge import control_of

ID = "0123456789abcdef"


def sent(**fields: Any) -> bytes:
    return json.dumps({"id": ID, "by": "Sjoerd", "cause": "tool", **fields}).encode()


def test_a_word_becomes_a_record() -> None:
    control = control_of(sent(comment=" insert\nchipped "), 7)
    assert (control.time, control.action, control.by) == (7, "acknowledge", "Sjoerd")
    assert control.detail == {"id": ID, "cause": "tool: insert chipped"}
    assert control_of(sent(action="shelve"), 7).action == "shelve"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"by": " \n"}, "say who you are"),
        ({"by": "x" * 81}, "say who you are"),
        ({"comment": "x" * 501}, "500 characters"),
        ({"id": "0"}, "16 hexadecimal digits"),
        ({"id": "0123456789ABCDEF"}, "16 hexadecimal digits"),
        ({"cause": "because"}, "cause"),
        ({"action": "freeze"}, "action"),
        ({"limits": 1}, "limits"),
    ],
)
def test_what_is_no_word_has_a_reason(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        control_of(sent(**fields), 7)


@given(
    st.binary() | st.builds(lambda f: sent(**f), st.dictionaries(st.sampled_from(["by", "comment", "id"]), st.text()))
)
def test_anything_may_be_sent(body: bytes) -> None:
    try:
        control = control_of(body, 7)
    except ValueError:
        return
    for text in (control.by, control.detail["cause"]):
        assert text.isprintable()
        assert len(text) <= 600
