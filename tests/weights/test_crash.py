"""kill -9 of the trainer at each numbered point of publishing: no half version is ever visible."""

from collections.abc import Iterator
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

import pytest

from tailrace import topics
from tailrace.log.kafka import KafkaLog
from tailrace.stream import read_all
from tailrace.topics import named
from tailrace.weights.publisher import Publisher
from tailrace.weights.store import Store
from tests.weights import account
from tests.weights.conftest import Channel
from tests.weights.models import model, same, trained

pytestmark = pytest.mark.kafka


@pytest.fixture
def channel(broker: Any, prefix: str) -> Iterator[Channel]:
    log = KafkaLog(broker.bootstrap)
    made = Channel(log, prefix)
    yield made
    made.close()
    log.close()


def _committed(channel: Channel, topic: topics.Topic) -> int:
    where = named(topic, channel.prefix)
    return sum(1 for _ in read_all(channel.log, where, committed_only=True))


def _kill(broker: Any, channel: Channel, point: int, *store: str) -> None:
    command = [sys.executable, "-m", "tests.weights.dying", broker.bootstrap, channel.prefix]
    child = subprocess.run(
        [*command, str(point), *store],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr


@pytest.mark.parametrize("point", [1, 2, 3, 4])
def test_killed_at_a_point(broker: Any, channel: Channel, point: int) -> None:
    base = channel.keyframe(channel.publisher(), 0, model())
    chunks = named(topics.MODEL_CHUNKS, channel.prefix)
    before = channel.log.ends(chunks)[0]
    _kill(broker, channel, point)
    assert channel.log.ends(chunks)[0] > before  # something was written

    watcher = channel.subscriber()  # before anybody cleans up behind the dead
    watcher.poll(2.0)
    survived = 1 if point == 4 else 0
    assert watcher.lineage.head is not None
    assert watcher.lineage.head.version == survived

    publisher = channel.publisher()
    head = publisher.head()
    assert head is not None
    assert head.version == survived
    assert _committed(channel, topics.MODEL_UPDATES) == 1 + survived
    assert _committed(channel, topics.STEPS) == survived
    assert _committed(channel, topics.RECEIPTS) == survived * account.RECEIPTS
    assert head == base or head.ranges[0].end == account.RECEIPTS

    held = trained(model(), 1) if survived else model()
    update = publisher.publish(*account.of_version(survived + 1, head, held))
    subscriber, store = channel.follow(), Store.empty()
    subscriber.advance(store)
    assert store.version == update.version
    assert same(dict(store.tensors), trained(held, survived + 1))
    assert _committed(channel, topics.RECEIPTS) == (survived + 1) * account.RECEIPTS


@pytest.mark.parametrize("point", [1, 2, 3, 4])
def test_killed_beside_a_keyframe_store(
    broker: Any, channel: Channel, tmp_path: Path, point: int
) -> None:
    channel.keyframe(channel.publisher(), 0, model())
    _kill(broker, channel, point, f"file://{tmp_path}")
    left = list(tmp_path.rglob("*.keyframe"))
    assert [path.name[:8] for path in left] == ["00000001"]
    survived = 1 if point == 4 else 0

    watcher, store = channel.subscriber(), Store.empty()
    watcher.poll(2.0)
    watcher.advance(store)
    assert store.version == survived
    assert same(dict(store.tensors), trained(model(), 1) if survived else model())

    publisher = Publisher(
        channel.log,
        channel.wire,
        model="tiny",
        prefix=channel.prefix,
        keyframe_store=f"file://{tmp_path}",
    )
    assert left[0].exists(), "it might be of a publisher that took over"
    head = publisher.head()
    assert head is not None and head.version == survived
    channel.keyframe(publisher, survived + 1, model(7), head)
    assert [path for path in left if path.exists()] == left * survived, "its number is used"
    publisher.close()


def test_what_the_dead_left_on_the_log_goes_with_the_third_keyframe(
    broker: Any, channel: Channel
) -> None:
    channel.keyframe(channel.publisher(), 0, model())
    _kill(broker, channel, 2)
    chunks = named(topics.MODEL_CHUNKS, channel.prefix)
    orphans = channel.log.ends(chunks)[0] - 1
    publisher = channel.publisher()
    for version in (1, 2, 3):
        channel.keyframe(publisher, version, model(version), publisher.head())
    assert channel.log.starts(chunks)[0] > orphans
