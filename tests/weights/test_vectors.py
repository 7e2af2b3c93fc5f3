"""docs/classes-1.json and the code are of one mind."""

import json

import pytest
import zstandard

from tailrace.weights import changes, codec
from tailrace.weights.table import open_stream
from tests.weights import vectors
from tests.weights.models import same

SHOWN = json.loads(vectors.FILE.read_text())


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_is_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = SHOWN[name]
    base, new = vectors.tensors(case["base"]), vectors.tensors(case["new"])
    for compiled in (changes.compiled, lambda: None):
        monkeypatch.setattr(changes, "compiled", compiled)
        applied = codec.apply_delta(bytes.fromhex(case["stream"]), base, with_undo=True)
        assert same(applied.tensors, new)
        assert applied.undo is not None
        assert same(codec.apply_delta(applied.undo, new).tensors, base)


@pytest.mark.parametrize("name", vectors.cases())
def test_what_is_made_is_what_is_shown(name: str) -> None:
    base, new = vectors.cases()[name]
    case = SHOWN[name]
    assert vectors.described(base) == case["base"]
    assert vectors.described(new) == case["new"]
    made = codec.encode_delta(base, new, frame_weights=vectors.FRAME_WEIGHTS)
    assert _opened(made) == _opened(bytes.fromhex(case["stream"]))


def test_every_case_is_in_the_forms_it_names() -> None:
    """A look at the numbers by hand: the second is worked out in this test."""
    payloads = _opened(bytes.fromhex(SHOWN[[*SHOWN][1]]["stream"]))[1]
    # 1.0, 1.5, 1.25, 1.0, 1.75 are of class 127: the first three moved, by -1, 2 and -300, of which
    # the second is up, the second and third are above 1, and 0 and 298 when 2 are taken off.
    # 0.5 is of class 126, the first of 4, and moved by 3.
    heads = [2, 126, 1, 1, 1, 127, 3, 3, 1]
    told = b"".join(number.to_bytes(4, "little") for number in heads)
    small = b"\x01" + b"\x01" + b"\x01" + b"\x01"
    assert payloads == [told + small + b"\x07" + b"\x02" + b"\x06" + b"\x00\xff" + b"\x2a\x01"]


def _opened(stream: bytes) -> tuple[list[object], list[bytes]]:
    """What does not depend on the version of zstd."""
    table, packed = open_stream(stream)
    entries = [(f.payload_bytes, f.form, f.dtype, f.parts) for f in table.frames]
    press = zstandard.ZstdDecompressor()
    payloads = [press.decompress(content, max_output_size=1 << 20) for content in packed]
    return [entries, table.removed, table.kind], payloads
