"""The weights that somebody holds: they move by verified updates alone, and back."""

import msgspec
import pytest

from tailrace.errors import UpdateRefused
from tailrace.events import ModelUpdate
from tailrace.weights import codec
from tailrace.weights.store import Store
from tailrace.weights.tensors import Tensors, digest, digest_files
from tests.weights.models import FILES, model, same, trained


def _update(version: int, base: Store | None, new: Tensors, kind: str = "delta") -> ModelUpdate:
    return ModelUpdate(
        model="m",
        version=version,
        created_ms=0,
        kind=kind,
        base_version=base.version if base else None,
        base_digest=base.digest if base else None,
        digest=digest(new),
        config_digest=digest_files(FILES) if kind == "keyframe" else None,
    )


def _store(version: int = 3) -> Store:
    return Store(model(), version, digest(model()))


def test_deltas_follow_each_other() -> None:
    store, first = _store(), trained(model(), 1)
    second = trained(first, 2)
    store.apply(_update(4, store, first), codec.encode_delta(model(), first))
    store.apply(_update(5, store, second), codec.encode_delta(first, second))
    assert (store.version, store.digest) == (5, digest(second))
    assert same(dict(store.tensors), second)


def test_rolled_back_to_what_was_confirmed() -> None:
    store, first = _store(), trained(model(), 1)
    second = trained(first, 2)
    store.apply(_update(4, store, first), codec.encode_delta(model(), first))
    store.confirm()
    store.rollback()
    assert store.version == 4  # confirmed: nothing to go back to
    store.apply(_update(5, store, second), codec.encode_delta(first, second))
    store.apply(_update(6, store, second), None)
    store.rollback()
    assert (store.version, store.digest) == (4, digest(first))
    assert same(dict(store.tensors), first)


def test_an_empty_store_takes_a_keyframe() -> None:
    store = Store.empty()
    update = _update(0, None, model(), "keyframe")
    assert store.needs(update)
    store.apply(update, codec.encode_keyframe(model(), FILES))
    assert same(dict(store.tensors), model())
    assert store.files == FILES
    store.rollback()
    assert (store.version, store.files) == (None, {})


def test_a_zero_step_version_changes_the_number_only() -> None:
    store = _store()
    update = _update(4, store, model())
    assert not store.needs(update)
    store.apply(update, None)
    store.apply(update, b"")
    assert (store.version, store.digest) == (4, digest(model()))


def test_the_keyframe_of_held_weights_needs_no_bytes() -> None:
    store = _store()
    store.apply(_update(9, None, model(), "keyframe"), None)
    assert store.version == 9


def test_the_files_beside_the_weights_are_those_of_the_manifest() -> None:
    new, other = trained(model(), 1), {"config.json": b"{}"}
    stream, mark = codec.encode_delta(model(), new), digest_files(FILES)
    store = Store(model(), 3, digest(model()), other, journal_bytes=1 << 20)
    delta = msgspec.structs.replace(_update(4, store, new), config_digest=mark)
    label = msgspec.structs.replace(_update(4, store, model()), config_digest=mark)
    for update, given in ((delta, stream), (label, None)):
        assert store.needs(update)
        with pytest.raises(UpdateRefused, match="digest: config files of version 4"):
            store.apply(update, given)
    assert (store.version, store.files) == (3, other)
    whole = msgspec.structs.replace(_update(4, None, model(), "keyframe"), config_digest=mark)
    store.apply(whole, codec.encode_keyframe(model(), FILES))
    assert (store.version, store.files) == (4, FILES)
    store.apply(msgspec.structs.replace(delta, version=5), stream)
    assert (store.digest, store.files) == (digest(new), FILES)
    before = msgspec.structs.replace(label, version=3, config_digest=digest_files(other))
    store.apply(before, None)
    assert (store.version, store.files) == (3, other), "the journal has both"
    store = _store()  # who wants the weights alone asks for no files
    store.apply(delta, stream)
    assert store.digest == digest(new)


@pytest.mark.parametrize(
    ("change", "stream", "reason"),
    [
        ({"base_digest": "0" * 64}, "good", "base"),
        ({"base_digest": "0" * 64, "base_version": 2}, "good", "gap"),
        ({"digest": "0" * 64}, "good", "digest"),
        ({}, "none", "truncated"),
        ({}, "cut", "truncated"),
        ({}, "noise", "corrupt"),
        ({}, "keyframe", "corrupt"),
        ({"kind": "keyframe"}, "good", "corrupt"),
        ({"kind": "keyframe", "config_digest": "0" * 64}, "keyframe", "digest"),
        ({"kind": "adapter"}, "good", "kind"),
        ({"kind": None}, "good", "kind"),
    ],
)
def test_a_refused_update_leaves_the_store_as_it_was(
    change: dict[str, object], stream: str, reason: str
) -> None:
    store, new = _store(), trained(model(), 1)
    good = codec.encode_delta(model(), new)
    bytes_ = {
        "good": good,
        "none": None,
        "cut": good[:-1],
        "noise": b"x" * 100,
        "keyframe": codec.encode_keyframe(new, FILES),
    }[stream]
    update = msgspec.structs.replace(_update(4, store, new), **change)
    with pytest.raises(UpdateRefused) as refused:
        store.apply(update, bytes_)
    assert refused.value.reason == reason
    assert (store.version, store.digest) == (3, digest(model()))
    assert same(dict(store.tensors), model())
    store.apply(_update(4, store, new), good)
    assert store.digest == digest(new)


def test_a_delta_is_never_applied_twice() -> None:
    store, new = _store(), trained(model(), 1)
    update, stream = _update(4, store, new), codec.encode_delta(model(), new)
    store.apply(update, stream)
    store.apply(update, stream)
    assert store.digest == digest(new)
