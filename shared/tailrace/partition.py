"""Which partition a key goes to: Kafka's murmur2, as Java, Faust and ``murmur2_random`` have it."""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995


def murmur2(key: bytes) -> int:
    """MurmurHash2 with Kafka's seed, unsigned 32 bit
    (org.apache.kafka.common.utils.Utils.murmur2)."""
    length = len(key)
    h = (0x9747B28C ^ length) & _MASK
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = h * _M & _MASK ^ k
    tail = key[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a keyed record on a topic of so many partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
