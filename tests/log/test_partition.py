"""tailrace.partition against Kafka's own vectors (clients/.../UtilsTest.java, testMurmur2)."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tailrace.partition import murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_java_says_the_same(key, signed):
    assert murmur2(key) == signed & 0xFFFFFFFF


@given(st.binary(max_size=40), st.integers(1, 1000))
def test_a_partition_is_one_of_them(key, partitions):
    assert 0 <= partition_of(key, partitions) < partitions


def test_sessions_spread():
    spread = Counter(partition_of(b"default:%d" % n, 12) for n in range(12_000))
    assert len(spread) == 12
    assert max(spread.values()) < 1.15 * min(spread.values())
