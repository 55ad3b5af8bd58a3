"""The files of the page: our own from this package, the chart library from the installed plotly wheel."""

import gzip
import hashlib
import importlib.metadata
import importlib.util
from functools import lru_cache
from pathlib import Path

import msgspec

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOLDER = Path(__file__).parent / "static"


class Asset(msgspec.Struct, frozen=True):
    """One file, ready to be sent.

    Attributes:
        body: gzip data.
        media_type: for the Content-Type header.
        etag: changes when the file does.
        cache: for the Cache-Control header.
    """

    body: bytes
    media_type: str
    etag: str
    cache: str


@lru_cache(maxsize=1)
def own() -> dict[str, Asset]:
    """The board's own files by name; small, so they are asked again each time and answered 304."""
    found = {}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            raw = path.read_bytes()
            digest = hashlib.blake2b(raw, digest_size=8).hexdigest()
            found[path.name] = Asset(gzip.compress(raw, mtime=0), _TYPES[path.suffix], f'"{digest}"', "no-cache")
    return found


def plotly_version() -> str:
    """The version of the installed plotly wheel.

    Raises:
        ModuleNotFoundError: if plotly is not installed.
    """
    try:
        return importlib.metadata.version("plotly")
    except importlib.metadata.PackageNotFoundError:
        advice = "the board needs plotly: run pip install '.[board]' in Fieldlab's folder"
        raise ModuleNotFoundError(advice, name="plotly") from None


@lru_cache(maxsize=1)
def plotly() -> Asset:
    """Plotly's JavaScript; 4.8 MB to read and compress, so call it in a thread.

    Raises:
        ModuleNotFoundError: if plotly is not installed.
    """
    version = plotly_version()
    spec = importlib.util.find_spec("plotly")  # finds without importing: the Python side would cost memory
    assert spec is not None
    assert spec.origin is not None
    raw = (Path(spec.origin).parent / "package_data" / "plotly.min.js").read_bytes()
    return Asset(gzip.compress(raw, 6, mtime=0), _TYPES[".js"], f'"plotly-{version}"', "max-age=31536000, immutable")
