"""kill -9 at every numbered step of a commit, on Kafka: the same alarms as without it."""

from __future__ import annotations

import os
from pathlib import Path
import signal
import subprocess
import sys

import pytest

from tailrace import events, topics
from tailrace.log.kafka import KafkaLog
from tailrace.stream import Writer, read_all
from tailrace.wire import Wire
from tests.drift import script
from tests.drift.scene import without_repeats

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
CHILD = """
import os, signal, sys, time
from pathlib import Path
from services.drift.bank import Bank
from services.drift.drift import Drift
from tailrace.log.kafka import KafkaLog
from tailrace.stream import Decoder, Writer
from tailrace.wire import Wire

bootstrap, prefix, folder, deadly = sys.argv[1:]

def reached(step):
    if step == int(deadly):
        os.kill(os.getpid(), signal.SIGKILL)

log, wire = KafkaLog(bootstrap), Wire()
drift = Drift(
    log, Decoder(log, wire, prefix=prefix), Writer(log.producer(), wire, prefix=prefix), Bank(),
    Path(folder), prefix=prefix, skew_s=0.0, checkpoint_s=0.0, ask_s=0.0, reached=reached,
)
while not drift.caught_up:
    drift.step(0.2)
time.sleep(0.01)
drift.step(0.2)
drift.step(0.2)
drift.close()
"""


def child(broker, prefix, folder, deadly: int) -> int:
    arguments = [broker.bootstrap, prefix, str(folder), str(deadly)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "shared")])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


class Room:
    """Topics on the broker, filled from the script a part at a time."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        wanted = (topics.OUTPUTS, topics.FEEDBACK, topics.TRAJECTORIES, topics.ALARMS)
        self.log = KafkaLog(bootstrap)
        self.log.create([*wanted, topics.SCHEMAS], prefix=prefix, session_partitions=2)
        self.prefix = prefix
        self.producer = self.log.producer()
        self.writer = Writer(self.producer, Wire(), prefix=prefix)
        self.records = list(script.records())

    def fill(self, count: int = script.RECORDS) -> None:
        for topic, record in self.records[:count]:
            self.writer.write(topic, record)
        self.producer.flush()
        del self.records[:count]

    def alarms(self, start: int = 0) -> list[events.Alarm]:
        found = read_all(self.log, f"{self.prefix}alarms", starts={0: start})
        return [Wire().decode(events.Alarm, record.value) for record in found]


@pytest.fixture
def room(broker, prefix):
    made = Room(broker.bootstrap, prefix)
    yield made
    made.producer.close()
    made.log.close()


def test_killed_at_each_step_it_ends_with_the_same_alarms(broker, prefix, room, tmp_path):
    """Five lives, each killed at another step of its commit, each with more to read."""
    for deadly in (1, 2, 3, 4, 5):
        room.fill(script.RECORDS // 5)
        assert child(broker, prefix, tmp_path / "cut", deadly) == -signal.SIGKILL
    room.fill()
    assert child(broker, prefix, tmp_path / "cut", deadly=0) == 0
    cut = room.alarms()
    assert child(broker, prefix, tmp_path / "whole", deadly=0) == 0
    whole = room.alarms(len(cut))
    assert {a.stream for a in whole} >= {"reward", "answer_length", "thumbs_down"}
    assert without_repeats(cut) == whole


def test_the_process_finds_what_changed_and_ends_in_order(broker, prefix, room, tmp_path):
    room.fill()
    settings = tmp_path / "settings.toml"
    settings.write_text(
        f'kafka = "{broker.bootstrap}"\nprefix = "{prefix}"\nstate_dir = "{tmp_path}"\n'
        "[drift]\nskew_s = 0.0\ncheckpoint_s = 0.1\n"
    )
    command = [sys.executable, "-m", "services.drift", "--settings", str(settings)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        consumer = room.log.consumer()
        consumer.assign({(f"{prefix}alarms", 0): 0})
        found: set[str] = set()
        for _ in range(60):
            for record in consumer.poll(1.0):
                found.add(Wire().decode(events.Alarm, record.value).stream)
            if found >= {"reward", "answer_length", "behaviour_logprob", "thumbs_down"}:
                break
        consumer.close()
        process.terminate()
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert found >= {"reward", "answer_length", "behaviour_logprob", "thumbs_down"}, errors
    assert process.returncode == 0, errors
    assert (tmp_path / "drift" / "checkpoint").exists()
