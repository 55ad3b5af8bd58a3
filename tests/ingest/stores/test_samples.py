"""The sample of every store can be loaded, and shows every key with its default."""

import re
from pathlib import Path

import msgspec
import pytest

import ingest.stores
from fieldlab.config import Document
from ingest.stores import known_kinds, load_kind

SAMPLES = Path(ingest.stores.__file__).parent


@pytest.mark.parametrize("kind", known_kinds())
def test_the_sample_is_true(kind: str, tmp_path: Path) -> None:
    sample = (SAMPLES / kind / "sample.toml").read_text()
    section = load_kind(kind).config
    file = tmp_path / "fieldlab.toml"
    file.write_text(sample)
    document = Document(file)
    plain = document.bind(section, document.data["store"][0], "store[0]")

    file.write_text(re.sub(r"^# (\w+ = )", r"\1", sample, flags=re.MULTILINE))
    document = Document(file)
    table = document.data["store"][0]
    full = document.bind(section, table, "store[0]")
    assert set(table) == {f.encode_name for f in msgspec.structs.fields(section)}
    for name in table:
        if not name.endswith("_file"):
            assert getattr(full, name) == getattr(plain, name), name
