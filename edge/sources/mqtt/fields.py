"""Several signals in one payload: a name for each path, with wildcards."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from fieldlab.model.place import check_name

WILDCARD = "*"
_MOST = 10_000  # readings of one payload: a wildcard over a large array is a mistake
_SCALARS = frozenset((float, int, str, bool, type(None)))


class Field(msgspec.Struct, frozen=True):
    """One entry of `values`: the name, in pieces between its wildcards, and the path."""

    pieces: tuple[str, ...]
    path: tuple[str, ...]


class FieldsError(ValueError):
    """An entry of `values` that makes no sense, or a payload with too many of them."""


class Fields:
    """Finds named values in a document.

    A path is dotted; a number is an index into an array, and `*` is any key or index. What each `*` of the path stood
    for replaces a `*` of the name, in order: `"*" = "temps.*.actual"`. Entries without a wildcard come first, and what
    they took no wildcard takes again. An array of values is one signal an element, `name[0]`.

    Attributes:
        skipped: values passed over so far: objects, and names that cannot be a signal's or start with `_`.

    Args:
        values: name → path.

    Raises:
        FieldsError: if an entry makes no sense.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self.skipped = 0
        fields = [_field(name, path) for name, path in values.items()]
        self._fields = sorted(fields, key=lambda field: len(field.pieces) > 1)

    def find(self, document: Any) -> list[tuple[str, Any]]:
        """(name, scalar) of every value that is there.

        Raises:
            FieldsError: if there are more than 10,000.
        """
        found: list[tuple[str, Any]] = []
        taken: set[tuple[str, ...]] = set()
        names: set[str] = set()
        for field in self._fields:
            for path, stars, value in _walk(document, field.path, 0, (), ()):
                if path in taken:
                    continue
                taken.add(path)
                self._take(field, stars, value, found, names)
                if max(len(taken), len(found)) > _MOST:
                    raise FieldsError(f"the payload holds more than {_MOST} values; narrow the wildcards of `values`")
        return found

    def _take(
        self, field: Field, stars: tuple[str, ...], value: Any, found: list[tuple[str, Any]], names: set[str]
    ) -> None:
        """Add a value, or each of an array, unless it has no name of its own."""
        name = self._name(field, stars)
        elements = [(name, value)] if type(value) is not list else [(f"{name}[{i}]", v) for i, v in enumerate(value)]
        if name is None or name in names or len(elements) > _MOST:
            self.skipped += 1
            return
        names.add(name)
        for element, scalar in elements:
            if type(scalar) in _SCALARS:
                found.append((str(element), scalar))
            else:
                self.skipped += 1

    def _name(self, field: Field, stars: tuple[str, ...]) -> str | None:
        """The name that stars make, or None if it cannot be one."""
        name = field.pieces[0] + "".join(star + piece for star, piece in zip(stars, field.pieces[1:], strict=True))
        if name.startswith("_"):
            return None
        try:
            return check_name(name, "signal")
        except ValueError:
            return None


def _walk(
    at: Any, path: tuple[str, ...], i: int, done: tuple[str, ...], stars: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], Any]]:
    """Every value under `path[i:]` of `at`, with the whole path and what the wildcards stood for."""
    if i == len(path):
        yield done, stars, at
        return
    key = path[i]
    if key == WILDCARD:
        if type(at) is dict:
            children: Any = at.items()
        elif type(at) is list:
            children = ((str(n), child) for n, child in enumerate(at))
        else:
            return
        for name, child in children:
            yield from _walk(child, path, i + 1, (*done, name), (*stars, name))
    elif type(at) is dict:
        if key in at:
            yield from _walk(at[key], path, i + 1, (*done, key), stars)
    elif type(at) is list and key.isascii() and key.isdigit() and int(key) < len(at):
        yield from _walk(at[int(key)], path, i + 1, (*done, key), stars)


def _field(name: str, path: str) -> Field:
    keys = tuple(path.split("."))
    if not path or not all(keys):
        raise FieldsError(f"the path {path!r} of {name!r} must be keys with a dot between them")
    pieces = tuple(name.split(WILDCARD))
    if len(pieces) - 1 != keys.count(WILDCARD):
        raise FieldsError(
            f"{name!r} must hold as many * as its path {path!r}: each is replaced by what that * stood for"
        )
    try:
        check_name(name.replace(WILDCARD, "x"), "signal")
    except ValueError as e:
        raise FieldsError(str(e)) from None
    if name.startswith("_"):
        raise FieldsError(f"{name!r} starts with _: such names are never read")
    return Field(pieces, keys)
