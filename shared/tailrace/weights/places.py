"""Keyframes beside the log: files in any store that fsspec knows (``file``, ``s3``, ``gcs``, ...).

The publisher writes a keyframe here, whole, before the transaction whose manifest names its uri, so
a crash leaves at most a file that no manifest names. Names carry version and hash::

    <url>/<prefix>tailrace.<model>/00000050-0123456789abcdef.keyframe

One folder belongs to one model of one system: :meth:`Place.sweep` deletes what is dead in it, and
leaves the keyframes of versions that its caller does not know yet. fsspec is the extra
``tailrace[weights]``, imported on first use; stores need drivers of their own (``s3fs``, ...).

Nothing waits for a store without an end: every call runs on a thread of its own, which is left
behind when its time is up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future, wait
import contextlib
from functools import partial
import io
import re
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import quote

from prometheus_client import Counter

from tailrace.errors import SettingsError, UpdateRefused

STORE_FAILED = Counter(
    "tailrace_weights_keyframe_store_failed", "What a keyframe store would not do", ["what"]
)

ANSWER_S = 60.0
"""A store's time to open, list or delete a file, or to give the next block of one."""
LOOK_S = 10.0
"""Its time to say whether a file is there: somebody waits for that."""

T = TypeVar("T")

_SLOWEST_BYTES_S = 1024 * 1024
"""A write has a second more for each so many bytes."""
_BLOCK_BYTES = 8 * 1024 * 1024
_NAME = re.compile(r"(\d{8,})-[0-9a-f]{16}\.keyframe")


class Place:
    """Where one model's keyframes go.

    Raises SettingsError for a url of a store that is unknown or whose driver is not installed. The
    store itself is made when it is used: what it raises then (OSError, mostly) comes through;
    TimeoutError when it is silent.
    """

    def __init__(self, url: str, *, model: str, prefix: str = "") -> None:
        try:
            _check(url)
        except (ImportError, ValueError) as error:
            raise SettingsError(f"keyframe store {url.split('?')[0]}: {error}") from None
        self._url, self._name = url, f"{prefix}tailrace.{quote(model, safe='')}"

    def _open(self) -> tuple[Any, str]:
        """The store and the folder in it."""
        store, root = _asked(lambda: _store(self._url))
        return store, f"{root.rstrip('/')}/{self._name}"

    def put(self, version: int, stream: bytes, sha256: str) -> str:
        """Write a keyframe, whole. Returns its uri."""
        store, folder = self._open()
        path = f"{folder}/{version:08}-{sha256[:16]}.keyframe"

        def write() -> None:
            store.makedirs(folder, exist_ok=True)
            store.pipe_file(path, stream)

        _asked(write, ANSWER_S + len(stream) / _SLOWEST_BYTES_S)
        return str(store.unstrip_protocol(path))

    def sweep(self, kept: Collection[str], below: int) -> list[str]:
        """Delete the keyframes of versions under ``below`` that are at none of the uris ``kept``:
        the old, and what a crash left. Returns their names.

        Names are compared, not whole uris: they carry version and hash, and a folder may have
        another path than when it was written to, by a link or a mount.

        A caller whose next version is ``below`` knows all that is under it, even when another
        publisher took over meanwhile: that one's numbers begin there.
        """
        store, folder = self._open()
        store.invalidate_cache()
        try:
            paths: list[str] = _asked(lambda: store.ls(folder, detail=False))
        except FileNotFoundError:
            return []
        names = {uri.rsplit("/", 1)[-1] for uri in kept}
        gone = []
        for path in paths:
            name = path.rsplit("/", 1)[-1]
            found = _NAME.fullmatch(name)
            if found is None or int(found[1]) >= below:
                continue
            if name not in names:
                _asked(partial(store.rm_file, path))
                gone.append(name)
        return gone


def read(uri: str, size_bytes: int, heard: Callable[[int], None]) -> bytes:
    """What lies at a uri, one byte more than ``size_bytes`` at most; ``heard`` is told how many
    bytes came.

    Raises UpdateRefused (``uri``) when it cannot be read now.
    """
    stream = io.BytesIO()
    try:
        store, path = _asked(lambda: _store(uri))
        file = _asked(lambda: store.open(path, "rb"))
        try:
            while (left := size_bytes + 1 - stream.tell()) > 0:
                block = _asked(partial(file.read, min(left, _BLOCK_BYTES)))
                if not block:
                    break
                stream.write(block)
                heard(len(block))
        finally:
            _thread(file.close)
    except Exception as error:  # each store raises its own, an absent driver ImportError
        raise _refused(uri, error) from None
    return stream.getvalue()


def exists(uri: str) -> bool:
    """Whether something lies at a uri now. Raises UpdateRefused (``uri``) when the store does not
    say."""

    def look() -> bool:
        store, path = _store(uri)
        store.invalidate_cache()
        try:
            store.info(path)  # store.exists() says no whatever went wrong
        except FileNotFoundError:
            return False
        return True

    try:
        return _asked(look, LOOK_S)
    except Exception as error:  # as in read()
        STORE_FAILED.labels("look").inc()
        raise _refused(uri, error) from None


def _refused(uri: str, error: Exception) -> UpdateRefused:
    return UpdateRefused("uri", f"{uri}: {type(error).__name__}: {error}")


def _check(url: str) -> None:
    """Raises ImportError without fsspec or the driver, ValueError for what names no store."""
    try:
        from fsspec import get_filesystem_class
        from fsspec.core import split_protocol
    except ImportError:
        raise ImportError("needs fsspec: pip install 'tailrace[weights]'") from None
    if "::" in url:  # fsspec would chain stores: a manifest names one
        raise ValueError("is not one store")
    get_filesystem_class(split_protocol(url)[0] or "file")


def _store(url: str) -> tuple[Any, str]:
    """Raises as :func:`_check` does, and whatever the store raises that does not answer."""
    _check(url)
    from fsspec.core import url_to_fs

    store, path = url_to_fs(url)
    return store, str(path)


def _asked(call: Callable[[], T], limit_s: float | None = None) -> T:
    """What a call to a store gives. Raises TimeoutError, with a counter, when it takes longer."""
    limit_s = ANSWER_S if limit_s is None else limit_s
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    _thread(ask)
    if not wait([answer], limit_s).done:
        STORE_FAILED.labels("answer").inc()
        raise TimeoutError(f"no answer in {limit_s:g} s")
    return answer.result()


def _thread(call: Callable[[], Any]) -> None:
    """Start it and let it be: a process ends without waiting for it."""

    def run() -> None:
        with contextlib.suppress(Exception):
            call()

    Thread(target=run, name="keyframe-store", daemon=True).start()
