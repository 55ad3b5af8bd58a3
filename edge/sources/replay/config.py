"""The table `[[source]] kind = "replay"`."""

from typing import Literal

import msgspec


class ReplayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded file, played as if it came from a machine.

    Attributes:
        machine: the machine that its columns become signals of.
        time: the column with the time; absent: the row's number, at 1 Hz.
        columns: globs over column names; only these become signals. Absent: every numeric column.
        site: overrules `[place]`.
        area: overrules `[place]`.
        line: overrules `[place]`.
    """

    kind: Literal["replay"] = "replay"
    machine: str
    time: str = ""
    columns: tuple[str, ...] = ()
    site: str = ""
    area: str = ""
    line: str = ""
