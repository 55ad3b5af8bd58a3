"""Topic templates and filters."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from edge.sources.mqtt.topics import LEVELS, TopicTemplate, check_filter, matches, plain_filter

steady = settings(deadline=None)  # a slow machine is no fault
level = st.text(st.characters(exclude_characters="/+#{}\x00", exclude_categories=["Cs"]), min_size=1, max_size=8)
NATIVE = "fieldlab/{site}/{area}/{line}/{machine}/{signal}"


@pytest.mark.parametrize(
    ("template", "topic", "found"),
    [
        (
            NATIVE,
            "fieldlab/d/s/3/m/nozzle",
            {"site": "d", "area": "s", "line": "3", "machine": "m", "signal": "nozzle"},
        ),
        (NATIVE, "fieldlab/d/s/3/m/nozzle/deep", None),
        (NATIVE, "fieldlab/d/s/3/m", None),
        (NATIVE, "fieldlab/d/s/3//nozzle", None),
        ("{machine}/{signal}", "m/s", {"machine": "m", "signal": "s"}),
        ("printer-{machine}/t.{signal}", "printer-7/t.bed", {"machine": "7", "signal": "bed"}),
        ("printer-{machine}/t.{signal}", "printer-7/txbed", None),
        ("+/{signal}", "anything/s", {"signal": "s"}),
        ("+/{signal}", "a/b/s", None),
        ("{machine}/{signal}/#", "m/s", {"machine": "m", "signal": "s"}),
        ("{machine}/{signal}/#", "m/s/a/b", {"machine": "m", "signal": "s"}),
        ("{machine}/{signal}/#", "m/sx", {"machine": "m", "signal": "sx"}),
        ("{signal}/state", "s/state\n", None),
    ],
)
def test_match(template: Any, topic: Any, found: Any) -> None:
    assert TopicTemplate(template).match(topic) == found


@pytest.mark.parametrize(
    "template", ["", "{what}", "{signal}/{signal}", "a{", "}a", "#/{signal}", "a+/{signal}", "{line}{signal}"]
)
def test_what_is_no_template(template: Any) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        TopicTemplate(template)


def test_filter() -> None:
    assert TopicTemplate(NATIVE).filter == "fieldlab/+/+/+/+/+"
    assert TopicTemplate("p-{machine}/x/{signal}/#").filter == "+/x/+/#"


@steady
@given(
    st.lists(st.one_of(level, st.sampled_from(LEVELS).map(lambda name: f"{{{name}}}")), min_size=1, max_size=7),
    st.data(),
)
def test_round_trip(parts: Any, data: Any) -> None:
    names = re.findall(r"\{(\w+)\}", "/".join(parts))
    if len(set(names)) != len(names):
        return
    values = {name: data.draw(level) for name in names}
    template = TopicTemplate("/".join(parts))
    topic = "/".join(parts).format(**values)
    assert template.match(topic) == values
    if not topic.startswith("$"):
        assert matches(template.filter, topic)


@steady
@given(st.text(st.characters(exclude_categories=["Cs"])), st.text())
def test_any_text_is_a_template_or_refused(template: Any, topic: Any) -> None:
    try:
        made = TopicTemplate(template)
    except ValueError:
        return
    made.match(topic)
    check_filter(made.filter)


@pytest.mark.parametrize("text", ["a", "a/b", "+", "#", "+/a/#", "$SYS/#", "$share/g/a/+", "/"])
def test_filters(text: Any) -> None:
    check_filter(text)


@pytest.mark.parametrize("text", ["", "a#", "#/a", "a+", "$share/g", "$share//a", "$share/g+/a", "$share/g/", "a\x00"])
def test_what_is_no_filter(text: Any) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        check_filter(text)


def test_shared_filters() -> None:
    assert plain_filter("$share/g/a/b") == "a/b"
    assert matches("$share/g/a/+", "a/b")
    assert not matches("$share/g/a/+", "a/b/c")
    assert topic_matches_sub("#", "$SYS/x") is matches("#", "$SYS/x") is False
