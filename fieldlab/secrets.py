"""Reads tokens and passwords from files that nobody else can read, and keeps them out of what we say."""

import base64
import json
import os
import stat
from pathlib import Path

from fieldlab.errors import ConfigError

_LONGEST = 64 * 1024
_SHORTEST_HIDDEN = 4  # what is shorter stands in words by chance
_hidden: dict[str, None] = {}  # longest first


def remember(secret: str) -> str:
    """Have `hide` know a secret: as it is, as JSON writes it, and as base64; returns it."""
    if len(secret) >= _SHORTEST_HIDDEN and secret not in _hidden:
        encoded = base64.b64encode(secret.encode()).decode()
        known = {*_hidden, secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], encoded}
        ordered = sorted(known, key=len, reverse=True)
        _hidden.clear()
        _hidden.update(dict.fromkeys(ordered))
    return secret


def hide(text: str) -> str:
    """`text` without any secret that this process has read: a server may repeat what it was sent."""
    for secret in list(_hidden):
        if secret in text:
            text = text.replace(secret, "***")
    return text


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
    return remember(text)
