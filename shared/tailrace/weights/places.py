"""Keyframes beside the log: files in any store that fsspec knows (``file``, ``s3``, ``gcs``, ...).

The publisher writes a keyframe here, whole, before the transaction whose manifest names its uri, so
a crash leaves at most a file that no manifest names. Names carry version and hash::

    <url>/<prefix>tailrace.<model>/00000050-0123456789abcdef.keyframe

One folder belongs to one model of one system: :meth:`Place.sweep` deletes what is dead in it, and
leaves the keyframes of versions that its caller does not know yet. fsspec is the extra
``tailrace[weights]``, imported on first use; stores need drivers of their own (``s3fs``, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
import io
import re
from typing import Any
from urllib.parse import quote

from prometheus_client import Counter

from tailrace.errors import SettingsError, UpdateRefused

STORE_FAILED = Counter(
    "tailrace_weights_keyframe_store_failed", "What a keyframe store would not do", ["what"]
)

_BLOCK_BYTES = 8 * 1024 * 1024
_NAME = re.compile(r"(\d{8,})-[0-9a-f]{16}\.keyframe")


class Place:
    """Where one model's keyframes go.

    Raises SettingsError for a url of a store that is unknown or whose driver is not installed.
    What the store itself raises (OSError, mostly) comes through.
    """

    def __init__(self, url: str, *, model: str, prefix: str = "") -> None:
        try:
            self._store, root = _store(url)
        except (ImportError, ValueError) as error:
            raise SettingsError(f"keyframe store {url.split('?')[0]}: {error}") from None
        self._folder = f"{root.rstrip('/')}/{prefix}tailrace.{quote(model, safe='')}"

    def put(self, version: int, stream: bytes, sha256: str) -> str:
        """Write a keyframe, whole. Returns its uri."""
        path = f"{self._folder}/{version:08}-{sha256[:16]}.keyframe"
        self._store.makedirs(self._folder, exist_ok=True)
        self._store.pipe_file(path, stream)
        return str(self._store.unstrip_protocol(path))

    def sweep(self, kept: Collection[str], below: int) -> list[str]:
        """Delete the keyframes of versions under ``below`` whose uris are not in ``kept``: the old,
        and what a crash left. Returns their names.

        A caller whose next version is ``below`` knows all that is under it, even when another
        publisher took over meanwhile: that one's numbers begin there.
        """
        self._store.invalidate_cache()
        try:
            paths: list[str] = self._store.ls(self._folder, detail=False)
        except FileNotFoundError:
            return []
        gone = []
        for path in paths:
            name = path.rsplit("/", 1)[-1]
            found = _NAME.fullmatch(name)
            if found is None or int(found[1]) >= below:
                continue
            if self._store.unstrip_protocol(path) not in kept:
                self._store.rm_file(path)
                gone.append(name)
        return gone


def read(uri: str, size_bytes: int, heard: Callable[[int], None]) -> bytes:
    """What lies at a uri, one byte more than ``size_bytes`` at most; ``heard`` is told how many
    bytes came.

    Raises UpdateRefused (``uri``) when it cannot be read now.
    """
    if "::" in uri:  # fsspec would chain stores: a manifest names one
        raise UpdateRefused("uri", f"{uri} is not one store")
    stream = io.BytesIO()
    try:
        store, path = _store(uri)
        with store.open(path, "rb") as file:
            while (left := size_bytes + 1 - stream.tell()) > 0:
                block = file.read(min(left, _BLOCK_BYTES))
                if not block:
                    break
                stream.write(block)
                heard(len(block))
    except Exception as error:  # each store raises its own, an absent driver ImportError
        raise UpdateRefused("uri", f"{uri}: {type(error).__name__}: {error}") from None
    return stream.getvalue()


def exists(uri: str) -> bool:
    """Whether something lies at a uri, as far as can be seen now."""
    try:
        store, path = _store(uri)
        return bool(store.exists(path))
    except Exception:  # as in read()
        return False


def _store(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ImportError("needs fsspec: pip install 'tailrace[weights]'") from None
    store, path = url_to_fs(url)
    return store, str(path)
