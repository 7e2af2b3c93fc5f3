"""tailrace.packing: ids and logprobs to bytes and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tailrace import packing


@given(st.lists(st.integers(-(2**31), 2**31 - 1)))
def test_ids_come_back(token_ids):
    assert packing.unpack_ids(packing.pack_ids(token_ids)) == token_ids


@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_logprobs_come_back(logprobs):
    assert packing.unpack_logprobs(packing.pack_logprobs(logprobs)) == logprobs


def test_the_bytes_are_little_endian():
    assert packing.pack_ids([1, -1]) == b"\x01\0\0\0\xff\xff\xff\xff"
    assert packing.pack_logprobs([1.0]) == b"\0\0\x80\x3f"


def test_nothing_is_an_empty_list():
    assert packing.unpack_ids(None) == packing.unpack_ids(b"") == []
    assert packing.unpack_logprobs(None) == []


def test_torn_bytes_and_large_ids_are_refused():
    for unpack in (packing.unpack_ids, packing.unpack_logprobs):
        with pytest.raises(ValueError, match="multiple"):
            unpack(b"\0\0\0")
    with pytest.raises(OverflowError):
        packing.pack_ids([2**31])
