"""Brings a journal of an older format to this program's, in one transaction, with a copy kept until it is done.

`MIGRATIONS[n]` turns format n into n + 1. It gets the connection inside the transaction; it may not end it.
"""

import os
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from fieldlab.errors import FieldlabError

log = structlog.get_logger()

MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], object]] = {}


def migrate(
    db: sqlite3.Connection,
    path: Path,
    found: int,
    wanted: int,
    migrations: Mapping[int, Callable[[sqlite3.Connection], object]] = MIGRATIONS,
) -> None:
    """Turn format `found` into `wanted`; a crash leaves the old format, to be tried again.

    Raises:
        FieldlabError: if there is no way between the two, or a step fails: the journal is as it was, its copy is kept.
        sqlite3.Error: if the disk refuses; the same.
    """
    if lacking := [n for n in range(found, wanted) if n not in migrations]:
        raise FieldlabError(
            f"{path} has journal format {found}; this program cannot read formats below {max(lacking) + 1}:"
            " start the release before this one once, so that it empties or migrates it"
        )
    copy = path.with_name(f"{path.name}.format-{found}")
    _back_up(db, copy)
    db.execute("BEGIN IMMEDIATE")
    try:
        for number in range(found, wanted):
            migrations[number](db)
        db.execute("UPDATE meta SET value = ? WHERE key = 'format'", (str(wanted),))
        db.execute("COMMIT")
    except Exception as e:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise FieldlabError(
            f"{path} cannot be brought from journal format {found} to {wanted}: {e}. It is as it was, and a copy is"
            f" {copy.name}; go on with the release before this one, and report this"
        ) from e
    copy.unlink()
    log.info("journal_migrated", file=str(path), old=found, new=wanted)


def _back_up(db: sqlite3.Connection, copy: Path) -> None:
    """A whole copy on the disk; one that an interrupted attempt left is made anew."""
    copy.unlink(missing_ok=True)
    os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with_copy = sqlite3.connect(copy)
    try:
        db.backup(with_copy)
    finally:
        with_copy.close()
    handle = os.open(copy, os.O_RDWR)
    os.fsync(handle)
    os.close(handle)
