"""The public end: verified versions only, in order."""

from pathlib import Path

import pytest

from tailrace.errors import UpdateRefused
from tailrace.updates import ModelUpdates
from tailrace.weights import codec, folder
from tailrace.weights.subscriber import Progress
from tailrace.weights.tensors import digest
from tests.weights.conftest import MODEL, Channel
from tests.weights.models import FILES, model, same, trained


def _updates(channel: Channel, **options: object) -> ModelUpdates:
    return ModelUpdates(channel.log, MODEL, prefix=channel.prefix, **options)  # type: ignore[arg-type]


def _three_versions(channel: Channel) -> None:
    publisher = channel.publisher()
    head = channel.keyframe(publisher, 0, model())
    for version in (1, 2):
        tensors = trained(channel.versions[version - 1], version)  # type: ignore[arg-type]
        head = channel.delta(publisher, version, tensors, head)


def test_the_newest_then_each_new_one(channel: Channel) -> None:
    with _updates(channel) as updates:
        assert updates.poll(0.01) is None
        _three_versions(channel)
        update = next(updates)
        while update.version < 2:  # depending on what the first poll saw
            update = next(updates)
        assert digest(update.tensors) == update.manifest.digest
        assert update.files == FILES
        publisher = channel.publisher()
        new = trained(dict(update.tensors), 3)
        channel.delta(publisher, 3, new, update.manifest)
        channel.label(publisher, 4, publisher.head())  # type: ignore[arg-type]
        third, fourth = next(updates), next(updates)
        assert (third.version, fourth.version) == (3, 4)
        assert same(dict(third.tensors), new)
        assert update.tensors["embed.weight"].float32().shape == (64, 32)
        assert updates.poll(0.01) is None


def test_any_version_then_on_as_before(channel: Channel) -> None:
    _three_versions(channel)
    seen: list[Progress] = []
    with _updates(channel, progress=seen.append) as updates:
        assert next(updates).version == 2
        assert seen[-1].target == 2 and seen[-1].bytes == seen[-1].of_bytes > 0
        publisher = channel.publisher()
        branch = channel.label(publisher, 3, publisher.version(1))  # type: ignore[arg-type]
        channel.delta(publisher, 4, trained(dict(channel.versions[1]), 4), branch)
        seen.clear()
        for version in (1, 0, 3):
            update = updates.at(version)
            assert same(dict(update.tensors), dict(channel.versions[version]))
            assert update.version == update.manifest.version == version
        assert [progress.target for progress in seen] == [3], "one delta on, and back for nothing"
        with pytest.raises(UpdateRefused, match="gap"):
            updates.at(9)
        assert [next(updates).version, next(updates).version] == [3, 4]
        assert updates.poll(0.01) is None
        assert updates.lineage.served(None) is updates.lineage.head


def test_since_gives_every_later_version(channel: Channel) -> None:
    _three_versions(channel)
    with _updates(channel, since=0) as updates:
        found = [next(updates), next(updates)]
        assert updates.poll(0.01) is None
    assert [u.version for u in found] == [1, 2]
    for update in found:
        assert same(dict(update.tensors), dict(channel.versions[update.version]))


def test_a_folder_saves_the_download(channel: Channel, tmp_path: Path) -> None:
    _three_versions(channel)
    folder.write(tmp_path / "model", model(), FILES)
    where = f"{channel.prefix}model-chunks"
    start = channel.follow().lineage.updates[1].chunks
    assert start is not None
    channel.log.delete_before(where, {0: start.offsets[0]})  # the keyframe is gone
    with _updates(channel) as updates:
        assert updates.poll(0.01) is None
    with _updates(channel, folder=tmp_path / "model") as updates:
        update = next(updates)
    assert update.version == 2
    update.save(tmp_path / "saved")
    assert same(folder.read(tmp_path / "saved"), dict(channel.versions[2]))
    assert folder.read_files(tmp_path / "saved") == FILES


def test_a_foreign_folder_is_passed_over(channel: Channel, tmp_path: Path) -> None:
    _three_versions(channel)
    folder.write(tmp_path / "model", model(99), FILES)
    with _updates(channel, folder=tmp_path / "model") as updates:
        assert same(dict(next(updates).tensors), dict(channel.versions[2]))


@pytest.mark.parametrize("since", [None, 0])
def test_what_does_not_verify_is_never_given(channel: Channel, since: int | None) -> None:
    publisher = channel.publisher()
    base = channel.keyframe(publisher, 0, model())
    wrong = channel.manifest(1, model(7), base)
    publisher.publish(wrong, codec.encode_delta(model(), trained(model(), 1)), [], [])
    with _updates(channel, since=since) as updates:
        assert updates.poll(0.01) is None
        channel.keyframe(publisher, 2, model(8), publisher.head())
        assert next(updates).version == 2


def test_a_rollback_is_followed(channel: Channel) -> None:
    _three_versions(channel)
    with _updates(channel) as updates:
        assert next(updates).version == 2
        publisher = channel.publisher()
        channel.keyframe(publisher, 3, channel.versions[1], publisher.version(1))
        update = next(updates)
    assert (update.version, update.manifest.base_version) == (3, 1)
    assert same(dict(update.tensors), dict(channel.versions[1]))
