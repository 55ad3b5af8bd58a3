"""Errors for the person who must act.

FieldlabError
├── ConfigError     a configuration file is wrong: file, line, key and what to do
└── RefusedError    the command cannot do what was asked, and why
"""

from pathlib import Path


class FieldlabError(Exception):
    """Anything that a person must act upon; its text says what happened, to what, and what to do."""


class ConfigError(FieldlabError):
    """A configuration file is wrong.

    Attributes:
        message: what is wrong, without the place.
        file: the file.
        line: its line, 1-based; 0 if it cannot be told.
        key: the key, dotted, such as `source[0].signal[2].node`.
    """

    def __init__(self, message: str, *, file: Path | None = None, line: int = 0, key: str = "") -> None:
        where = f"{file or 'configuration'}{f':{line}' if line else ''}"
        super().__init__(f"{where}: {f'{key}: ' if key else ''}{message}")
        self.message = message
        self.file = file
        self.line = line
        self.key = key


class RefusedError(FieldlabError):
    """The command cannot do what was asked."""
