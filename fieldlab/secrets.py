"""Reads tokens and passwords from files that nobody else can read."""

import os
import stat
from pathlib import Path

from fieldlab.errors import ConfigError

_LONGEST = 64 * 1024


def read_secret(path: Path) -> str:
    """The text of a secret file, without its line end.

    Raises:
        ConfigError: if it is missing, empty, not one line of text, or its group or others may read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(_LONGEST + 1)
    except FileNotFoundError:
        raise ConfigError(f"the secret is missing: write it to this file, then: chmod 600 {path}", file=path) from None
    except OSError as e:
        raise ConfigError(f"the secret cannot be read: {e.strerror}", file=path) from e
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"the secret is open to others (mode {stat.S_IMODE(mode):04o}); run: chmod 600 {path}", file=path
        )
    try:
        text = raw.decode().strip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError("the secret is not text", file=path) from None
    if not text.strip() or len(raw) > _LONGEST or not text.isprintable():
        raise ConfigError("the secret must be one line of text", file=path)
    return text
