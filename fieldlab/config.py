"""Reads a TOML file into typed structs, with errors that name file, line and key.

A section is a frozen `msgspec.Struct`; its field names are the keys, its types are checked strictly. Besides the
plain types a field may be a `Duration`, a `Size`, or a `Path` (relative to the file).
"""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_origin

import msgspec

from fieldlab.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class Duration(float):
    """Seconds; written `"100ms"`, `"2s"`, `"5min"`, `"8h"`, `"30d"`."""

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """Read a number with a unit.

        Raises:
            ValueError: if there is no unit, or an unknown one, or the number is negative.
        """
        return cls(_with_unit(text, _UNITS, "100ms, 2s, 5min, 8h or 30d"))

    @property
    def ns(self) -> int:
        """Whole nanoseconds."""
        return round(self * 1e9)


class Size(int):
    """Bytes; written `"500MB"`, `"2GB"`, `"64MiB"`."""

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Read a number with a unit.

        Raises:
            ValueError: if there is no unit, or an unknown one, or the number is negative.
        """
        return cls(_with_unit(text, _SIZES, "500MB, 2GB or 64MiB"))


def _with_unit(text: str, units: dict[str, float] | dict[str, int], examples: str) -> float:
    match = (
        re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([A-Za-z]+)\s*", text) if isinstance(text, str) else None
    )
    if match is None or match[2] not in units:
        raise ValueError(f"{text!r} is not understood; write it as {examples}")
    return float(match[1]) * units[match[2]]


class Document:
    """A configuration file: its tables, and the line of every key.

    Raises:
        ConfigError: if the file cannot be read or is not TOML.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.text = path.read_text("utf-8-sig")
        except FileNotFoundError:
            raise ConfigError("there is no such file", file=path) from None
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"cannot be read: {e}", file=path) from e
        try:
            self.data: dict[str, Any] = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as e:
            line = re.search(r"at line (\d+)", str(e))
            raise ConfigError(f"is not TOML: {e}", file=path, line=int(line[1]) if line else 0) from None
        except (ValueError, RecursionError) as e:  # a number of thousands of digits; brackets in brackets
            raise ConfigError(f"cannot be read: {e}", file=path) from None
        self._lines = _key_lines(self.text)

    def line(self, key: str) -> int:
        """The line of a dotted key such as `source[0].signal[2].node`, or of its parent; 0 if unknown."""
        while key:
            if key in self._lines:
                return self._lines[key]
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return 0

    def error(self, message: str, key: str) -> ConfigError:
        """An error about `key`, with file and line."""
        return ConfigError(message, file=self.path, line=self.line(key), key=key)

    def bind(self, section: type[T], table: Any, key: str) -> T:
        """Read `table`, which stands at `key`, into `section`.

        Raises:
            ConfigError: if a key is unknown (the nearest is suggested), missing, or of another type.
        """
        if not isinstance(table, dict):
            raise self.error("must be a table", key)
        self._refuse_unknown(section, table, key)

        def custom(kind: type, value: Any) -> Any:
            if kind in (Duration, Size):
                return kind.parse(value)
            if kind is Path and isinstance(value, str):
                return _path(self.path.parent, value)
            raise ValueError(f"{value!r} is not a {kind.__name__}")

        try:
            return msgspec.convert(table, section, dec_hook=custom)
        except OverflowError:
            raise self.error("holds a number that is too large", key) from None
        except msgspec.ValidationError as e:
            message, _, at = str(e).partition(" - at `$")
            inner = at.rstrip("`")
            missing = re.search(r"missing required field `(\w+)`", message)
            full = f"{key}{inner}" if key else inner.lstrip(".")
            text = f"needs the key `{missing[1]}`" if missing else message
            raise self.error(text, full) from None

    def _refuse_unknown(self, section: type[msgspec.Struct], table: dict[str, Any], key: str) -> None:
        fields = {f.encode_name: f for f in msgspec.structs.fields(section)}
        for name, value in table.items():
            at = f"{key}.{name}" if key else name
            if name not in fields:
                near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
                hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(sorted(fields))}"
                raise self.error(f"unknown key; {hint}", at)
            inner = _inner_struct(fields[name].type)
            if inner is None:
                continue
            items = [(f"{at}[{i}]", item) for i, item in enumerate(value)] if isinstance(value, list) else [(at, value)]
            if isinstance(value, dict) and get_origin(fields[name].type) is dict:
                items = [(f"{at}.{word}", item) for word, item in value.items()]
            for where, item in items:
                if isinstance(item, dict):
                    self._refuse_unknown(inner, item, where)


def _inner_struct(kind: Any) -> type[msgspec.Struct] | None:
    """The struct inside `X`, `X | None`, `tuple[X, ...]`, `list[X]` or `dict[str, X]`."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    for argument in getattr(kind, "__args__", ()):
        found = _inner_struct(argument)
        if found is not None:
            return found
    return None


def _path(folder: Path, text: str) -> Path:
    if "\0" in text or not text:
        raise ValueError(f"{text!r} is not a path")
    try:
        return folder / Path(text).expanduser()
    except RuntimeError as e:
        raise ValueError(f"{text!r}: {e}") from None


def _key_lines(text: str) -> dict[str, int]:
    """Dotted key → line, for tables, arrays of tables and `key = value` lines: enough to point there."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    prefix = ""
    for number, line in enumerate(text.splitlines(), 1):
        array = re.match(r"\s*\[\[\s*([\w.\-]+)\s*\]\]\s*(?:#.*)?$", line)
        table = re.match(r"\s*\[\s*([\w.\-]+)\s*\]\s*(?:#.*)?$", line)
        pair = re.match(r"""\s*["']?([\w.\-]+)["']?\s*=""", line)
        if array:
            parent, _, name = array[1].rpartition(".")
            base = f"{_current(parent, counts)}.{name}" if parent else name
            counts[base] = counts.get(base, -1) + 1
            prefix = f"{base}[{counts[base]}]"
            lines[prefix] = number
        elif table:
            prefix = _current(table[1], counts)
            lines[prefix] = number
        elif pair:
            lines.setdefault(f"{prefix}.{pair[1]}" if prefix else pair[1], number)
    return lines


def _current(name: str, counts: dict[str, int]) -> str:
    """`name` with the index of the newest element behind each array of tables in it."""
    path = ""
    for part in name.split("."):
        path = f"{path}.{part}" if path else part
        if path in counts:
            path = f"{path}[{counts[path]}]"
    return path
