"""Token ids of a text from the ids of its pieces, so that what came before is looked up.

A special token is a border: no token reaches across it, and what lies between two of them has the
same ids wherever it stands. So a conversation costs the tokens of its new turn alone; its system
prompt and earlier turns are known. In: a text. Out: exactly the ids of the text encoded whole (held
by a property). Safe to use from several threads. Called by :mod:`services.gateway.tokenizer`.

All tenants share it. A piece that somebody else has sent is quicker by the time of its encoding:
who would learn from that must guess a whole message, and the engine's prefix cache, which all
share too, tells more of it.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable
import json
import re
import threading

import tokenizers

_ROOM_BYTES = 64 * 1024 * 1024
_ENTRY_BYTES = 384
"""An entry beside its characters and ids: two objects, a link, a slot, and the slots that a table
keeps free (held by a test)."""


class Pieces:
    """Ids of texts, with the pieces that came last kept."""

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        borders: dict[str, int],
        *,
        room_bytes: int = _ROOM_BYTES,
    ) -> None:
        """``borders``: special tokens and their ids, one at least; see :func:`borders`.

        ``room_bytes``: memory for what is kept, objects and table included.
        """
        self._encode = encode
        self._borders = borders
        self._room = room_bytes
        # Of two tokens that begin at one place the longer counts, as in the tokenizer.
        longest_first = sorted(borders, key=len, reverse=True)
        self._border = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        # Arrays: lists of numbers would be walked by each full garbage collection.
        self._known: OrderedDict[str, array[int]] = OrderedDict()
        self._lock = threading.Lock()

    def ids(self, text: str) -> list[int]:
        """The ids of a text. Raises what ``encode`` does."""
        found: list[int] = []
        for number, piece in enumerate(self._border.split(text)):
            if number % 2:
                found.append(self._borders[piece])
            elif piece:
                found.extend(self._of(piece))
        return found

    def _of(self, piece: str) -> array[int]:
        with self._lock:
            known = self._known.get(piece)
            if known is not None:
                self._known.move_to_end(piece)
                return known
        fresh = array("i", self._encode(piece))
        with self._lock:
            if piece not in self._known:
                self._known[piece] = fresh
                self._room -= size_of(piece, fresh)
            while self._room < 0:
                self._room += size_of(*self._known.popitem(last=False))
        return fresh


def size_of(piece: str, ids: array[int]) -> int:
    """Bytes that a kept piece takes at most; the same whenever it is asked."""
    # Up to four a character, and as many again for the UTF-8 that a text keeps once encoded.
    text_bytes = len(piece) if piece.isascii() else 8 * len(piece)
    return text_bytes + ids.itemsize * len(ids) + _ENTRY_BYTES


def borders(tokenizer: tokenizers.Tokenizer) -> dict[str, int]:
    """The tokens at which a text may be cut without changing its ids.

    None where a token takes the blanks beside it, stands in normalised text or wants to be a word
    of its own, and none where the ids depend on the place in the text.
    """
    added = tokenizer.get_added_tokens_decoder()
    for token in added.values():
        if token.lstrip or token.rstrip or token.single_word or token.normalized:
            return {}
    settings = json.loads(tokenizer.to_str())
    # Metaspace may mark the first word of a text alone.
    marks_first = '"prepend_scheme": "first"' in json.dumps(settings["pre_tokenizer"])
    if settings["truncation"] or settings["padding"] or marks_first:
        return {}
    return {token.content: number for number, token in added.items()}
