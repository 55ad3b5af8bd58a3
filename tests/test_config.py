import contextlib
import string
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldlab.config import Document, Duration, Size
from fieldlab.errors import ConfigError

quiet = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


class Signal(msgspec.Struct, frozen=True):
    name: str
    node: str = ""
    lsl: float | None = None


class Source(msgspec.Struct, frozen=True):
    url: str
    interval: Duration = Duration(0.1)
    signal: tuple[Signal, ...] = ()
    ca_file: Path | None = None
    map: dict[str, Signal] = {}


class Root(msgspec.Struct, frozen=True):
    source: list[Source] = []
    journal_max: Size = Size(10)
    data: Path = Path()
    count: int = 0


def read(folder: Path, text: str) -> Root:
    file = folder / "line.toml"
    file.write_text(text, "utf-8")
    document = Document(file)
    return document.bind(Root, document.data, "")


def refused(folder: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    return caught.value


def test_values_of_every_kind(tmp_path: Path) -> None:
    root = read(
        tmp_path,
        '\ufeffjournal_max = "64MiB"\ndata = "var/x"\n[[source]]\nurl = "u"\ninterval = "250ms"\n'
        'ca_file = "/etc/ca.pem"\n[[source.signal]]\nname = "s"\nlsl = 1\n[source.map.a]\nname = "m"\n',
    )
    assert root.journal_max == 64 * 2**20
    assert root.data == tmp_path / "var/x"
    (source,) = root.source
    assert source.interval == 0.25
    assert source.interval.ns == 250_000_000
    assert source.ca_file == Path("/etc/ca.pem")
    assert source.signal[0].lsl == 1.0
    assert source.map["a"].name == "m"


def test_an_unknown_key_in_a_nested_table_is_named_with_its_line_and_the_nearest(tmp_path: Path) -> None:
    error = refused(
        tmp_path,
        '[[source]]\nurl = "a"\n\n[[source]]\nurl = "b"\n[[source.signal]]\nname = "x"\n'
        '[[source.signal]]\nname = "y"\nnoed = "ns=2;s=1"\n',
    )
    assert error.key == "source[1].signal[1].noed"
    assert error.line == 10
    assert str(error).startswith(f"{tmp_path / 'line.toml'}:10: source[1].signal[1].noed: ")
    assert "`node`" in str(error)


def test_an_unknown_key_like_nothing_lists_what_is_known(tmp_path: Path) -> None:
    assert "known keys: count, data, journal_max, source" in str(refused(tmp_path, "zzzzz = 1\n"))


def test_an_unknown_key_in_a_table_of_tables_by_name(tmp_path: Path) -> None:
    error = refused(tmp_path, '[[source]]\nurl = "u"\n[source.map.a]\nname = "m"\nlsi = 1\n')
    assert (error.key, error.line) == ("source[0].map.a.lsi", 5)


@pytest.mark.parametrize(
    ("text", "key", "line", "words"),
    [
        ("count = 1\n\n[[source]]\nurl = 5\n", "source[0].url", 4, "Expected `str`, got `int`"),
        ('[[source]]\ninterval = "1s"\n', "source[0]", 1, "needs the key `url`"),
        ('[[source]]\nurl = "u"\ninterval = 5\n', "source[0].interval", 3, "5 is not understood"),
        ('[[source]]\nurl = "u"\ninterval = "5 parsecs"\n', "source[0].interval", 3, "100ms, 2s"),
        ('journal_max = "-5MB"\n', "journal_max", 1, "500MB, 2GB"),
        ('journal_max = "5mb"\n', "journal_max", 1, "500MB, 2GB"),
        ("data = 5\n", "data", 1, "not a Path"),
        ('data = "a\\u0000b"\n', "data", 1, "not a path"),
        ('data = ""\n', "data", 1, "not a path"),
        ('data = "~nobody-by-that-name/x"\n', "data", 1, "~nobody"),
        ("count = true\n", "count", 1, "Expected `int`"),
        ("source = 5\n", "source", 1, "Expected `array`"),
        ('source = [{url = "u", signal = [{nmae = "x"}]}]\n', "source[0].signal[0].nmae", 1, "`name`"),
    ],
)
def test_what_is_wrong_is_named_where_it_stands(tmp_path: Path, text: str, key: str, line: int, words: str) -> None:
    error = refused(tmp_path, text)
    assert (error.key, error.line) == (key, line)
    assert words in str(error)


def test_not_toml_names_the_line(tmp_path: Path) -> None:
    error = refused(tmp_path, "count = 1\ncount = = 2\n")
    assert error.line == 2
    assert "is not TOML" in str(error)


@pytest.mark.parametrize("text", ["count = " + "9" * 5000, "x = " + "[" * 20_000, "\0", "count = 2021-13-45"])
def test_text_that_breaks_parsers_is_an_error_of_the_file(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text).file == tmp_path / "line.toml"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        Document(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        Document(tmp_path)
    (tmp_path / "latin").write_bytes(b"name = '\xe9'")
    with pytest.raises(ConfigError, match="cannot be read"):
        Document(tmp_path / "latin")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms", 0.1), ("2s", 2), ("5min", 300), ("8h", 28800), ("30d", 2592000), ("1.5h", 5400), (" 2 s ", 2)],
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500_000_000), ("2GB", 2 * 10**9), ("64MiB", 2**26), ("1kB", 1000)]
)
def test_sizes(text: str, size: int) -> None:
    assert Size.parse(text) == size


@quiet
@given(st.text(max_size=30) | st.from_regex(r"\A[0-9]{1,400}(\.[0-9]{1,400})?[a-zA-Z]{1,3}\Z"))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    for kind in (Duration, Size):
        with contextlib.suppress(ValueError):
            assert kind.parse(text) >= 0


@quiet
@given(st.text() | st.text(alphabet="[]{}=\",.#\n\r\\'source url1" + string.digits))
def test_any_text_is_read_or_refused_with_a_config_error(tmp_path: Path, text: str) -> None:
    try:
        (tmp_path / "line.toml").write_text(text, "utf-8", "replace")
        document = Document(tmp_path / "line.toml")
        document.bind(Root, document.data, "")
    except ConfigError:
        pass


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400)
names = st.sampled_from(["source", "url", "signal", "interval", "map", "count", "data", "name", "lsl"]) | st.text(
    max_size=4
)
tables = st.dictionaries(
    names, st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4))
)


@quiet
@given(tables)
def test_any_table_is_read_or_refused_with_a_config_error(tmp_path: Path, table: dict[str, Any]) -> None:
    (tmp_path / "line.toml").write_text("")
    with contextlib.suppress(ConfigError):
        Document(tmp_path / "line.toml").bind(Root, table, "")
