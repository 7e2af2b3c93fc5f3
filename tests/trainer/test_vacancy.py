"""Where a replay may be published: nowhere that anything lies already, whosever it is, the plan of
a copy among it."""

from __future__ import annotations

import pytest

from services.trainer.replay.edition import vacant
from services.trainer.settings import Settings
from tailrace import topics
from tailrace.errors import LogError, SettingsError
from tailrace.log.memory import MemoryLog
from tailrace.replaying.plan import REPLAY
from tailrace.stream import publish_schemas
from tailrace.topics import named

INTO = "again."
SETTINGS = Settings(model="tiny")


@pytest.fixture
def log() -> MemoryLog:
    made = MemoryLog()
    made.create(topics.TOPICS, session_partitions=2)
    return made


def test_it_is_vacant_where_no_topic_is_and_where_nothing_but_schemas_lie(log: MemoryLog) -> None:
    vacant(log, SETTINGS, INTO)
    log.create(topics.TOPICS, prefix=INTO, session_partitions=2)
    publish_schemas(log, prefix=INTO)
    vacant(log, SETTINGS, INTO)


@pytest.mark.parametrize(
    "topic", [REPLAY, *(t for t in topics.TOPICS if t is not topics.SCHEMAS)], ids=lambda t: t.name
)
def test_it_is_taken_by_any_record_of_any_model(log: MemoryLog, topic: topics.Topic) -> None:
    log.create([topic], prefix=INTO, session_partitions=2)
    producer = log.producer(transactional_id="x" if topic.transactional else None)
    if topic.transactional:
        producer.begin()
    producer.append(named(topic, INTO), b"of another system", key=b"k", partition=0)
    if topic.transactional:
        producer.commit()
    with pytest.raises(ValueError, match=f"prefix 'again.' is taken: again.{topic.name} holds"):
        vacant(log, SETTINGS, INTO)
    # What retention has taken since does not make it anyone's.
    log.delete_before(named(topic, INTO), log.ends(named(topic, INTO)))
    with pytest.raises(ValueError, match="is taken"):
        vacant(log, SETTINGS, INTO)


def test_a_log_that_does_not_answer_is_no_vacancy() -> None:
    class Deaf(MemoryLog):
        def ends(self, topic: str) -> dict[int, int]:
            raise LogError(f"{topic}: no broker")

        def partitions(self, topic: str) -> int:
            raise LogError(f"{topic}: no broker")

    with pytest.raises(LogError, match="no broker"):
        vacant(Deaf(), SETTINGS, INTO)


def test_the_original_is_no_place_and_a_key_is_looked_at_first(log: MemoryLog) -> None:
    with pytest.raises(ValueError, match="the original's own"):
        vacant(log, SETTINGS, "")
    with pytest.raises(SettingsError):
        vacant(log, Settings(signing_key=SETTINGS.state_dir / "none"), INTO)
