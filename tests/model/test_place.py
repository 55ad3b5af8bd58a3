import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldlab.model import Place, SignalKey
from fieldlab.model.place import check_name

steady = settings(deadline=None)  # a slow machine is no fault
NAMES = st.text(st.characters(), min_size=1, max_size=12).filter(
    lambda name: name.isprintable() and not set(name) & set("/+#$")
)


@steady
@given(NAMES, NAMES, NAMES, NAMES, NAMES)
def test_a_path_is_read_as_it_was_written(site: str, area: str, line: str, machine: str, name: str) -> None:
    key = SignalKey(Place(site, area, line, machine), name)
    assert SignalKey.parse(key.path) == key
    assert Place.parse(key.place.path) == key.place
    assert key.short == f"{machine}/{name}"


@steady
@given(st.text(max_size=40))
def test_any_text_is_a_key_or_a_value_error(text: str) -> None:
    try:
        assert SignalKey.parse(text).path == text
    except ValueError:
        assert text.count("/") != 4 or not all(_is_name(level) for level in text.split("/"))


def _is_name(level: str) -> bool:
    return 0 < len(level) <= 200 and level.isprintable() and not set(level) & set("+#$")


@pytest.mark.parametrize(
    "path", ["", "a/b/c", "a/b/c/d/e", "a//c/d", "a/b/c/d+", "a/b/c/$SYS", "a/b/#/d", "a/b/c/\x00"]
)
def test_what_is_no_place(path: str) -> None:
    with pytest.raises(ValueError, match=r"place"):
        Place.parse(path)


def test_a_name_has_200_characters_at_most() -> None:
    assert check_name("x" * 200, "signal") == "x" * 200
    with pytest.raises(ValueError, match="1 to 200"):
        check_name("x" * 201, "signal")
