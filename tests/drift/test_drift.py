"""services.drift.drift on the log in memory: alarms are a function of the log, restarts or not."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from services.drift import drift as module
from services.drift.bank import Bank
from tailrace import events, topics
from tailrace.stream import read_all
from tests.drift import script
from tests.drift.scene import WIRE, Scene, without_repeats


@pytest.fixture
def scene(tmp_path) -> Scene:
    return Scene(tmp_path / "drift")


def test_what_changed_in_the_log_is_on_the_alarms_topic(scene):
    scene.fill()
    drift = scene.drift()
    scene.finish(drift)
    drift.close()
    fired = {(a.stream, a.detector) for a in scene.alarms() if a.state == "fired"}
    assert {
        ("reward", "adwin"),
        ("answer_length", "adwin"),
        ("behaviour_logprob", "adwin"),
        ("thumbs_down", "hddm_w"),
    } <= fired
    ends = {topic: scene.log.ends(topic) for topic in ("p.outputs", "p.feedback", "p.trajectories")}
    for alarm in scene.alarms():
        assert alarm.source is not None
        assert alarm.source.offset < ends[alarm.source.topic][alarm.source.partition]


def test_the_key_of_an_alarm_is_its_stream(scene):
    scene.fill()
    drift = scene.drift()
    scene.finish(drift)
    for record in read_all(scene.log, "p.alarms"):
        assert record.key == WIRE.decode(events.Alarm, record.value).stream.encode()


def uninterrupted(folder) -> list[events.Alarm]:
    scene = Scene(folder)
    scene.fill()
    scene.finish(scene.drift())
    return scene.alarms()


def test_reading_along_gives_the_alarms_of_reading_afterwards(tmp_path):
    scene = Scene(tmp_path / "along")
    drift = scene.drift()
    for number, (topic, record) in enumerate(script.records()):
        scene.write(topic, record)
        if number % 17 == 0:
            drift.step(0.0)
    scene.finish(drift)
    assert scene.alarms() == uninterrupted(tmp_path / "after") != []


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.booleans())
def test_a_restart_changes_no_alarm(tmp_path_factory, rounds, clean):
    """Stopped in order, alarms are the same; dropped on the floor, some come twice, none new."""
    folder = tmp_path_factory.mktemp("drift")
    whole = uninterrupted(folder / "whole")
    scene = Scene(folder / "cut")
    scene.fill()
    scene.now_ms += 60_000
    for count in rounds:
        drift = scene.drift(checkpoint_s=0.001)
        for _ in range(count):
            scene.now_ms += 1
            drift.step(0.0)
        if clean:
            drift.close()
    scene.finish(scene.drift())
    if clean:
        assert scene.alarms() == whole
    else:
        assert without_repeats(scene.alarms()) == whole


def test_a_checkpoint_of_another_river_is_rebuilt_without_sending_twice(scene, monkeypatch):
    scene.fill()
    drift = scene.drift()
    scene.finish(drift)
    drift.close()
    first = scene.alarms()
    monkeypatch.setattr("river.__version__", "9.9.9")
    again = scene.drift()
    muted = module.MUTED._value.get()
    scene.finish(again)
    assert scene.alarms() == first
    assert module.MUTED._value.get() - muted == len(first)
    again.close()
    monkeypatch.undo()


def test_other_parameters_start_a_new_bank(scene):
    scene.fill()
    drift = scene.drift()
    scene.finish(drift)
    drift.close()
    first = scene.alarms()
    calm = scene.drift(Bank(adwin_delta=1e-300, hddm_confidence=1e-300))
    scene.finish(calm)
    assert scene.alarms() == first


def test_a_checkpoint_of_another_log_is_not_used(scene):
    scene.fill()
    drift = scene.drift()
    scene.finish(drift)
    drift.close()
    other = Scene(scene.folder)
    drift = other.drift()
    other.fill()
    other.finish(drift)
    assert other.alarms() == scene.alarms() != []


def test_bad_records_are_counted_and_passed_over(scene):
    bad = [
        ("p.outputs", b"\xff\xff"),
        ("p.feedback", None),
        ("p.trajectories", b"\xc3\x01" + bytes(8)),
    ]
    for topic, value in bad:
        scene.producer.append(topic, value, partition=0)
    torn = events.OutputContent(token_ids=b"abc")
    turn = "default:s~0000000000000"
    scene.write(topics.OUTPUTS, events.Output(interaction_id=turn, event_time_ms=1, content=torn))
    for reward in (1e200, float("nan")):
        huge = events.Trajectory(
            trajectory_id="t", interaction_id=turn, event_time_ms=1, reward=reward
        )
        scene.write(topics.TRAJECTORIES, huge)
    before = skipped()
    scene.fill()
    drift = scene.drift()
    scene.finish(drift)
    assert skipped() - before == 6
    assert scene.alarms()


def skipped() -> float:
    samples = [s for metric in module.SKIPPED.collect() for s in metric.samples]
    return sum(s.value for s in samples if s.name.endswith("_total"))


def test_the_newest_records_wait_for_the_clock_allowance(scene):
    scene.fill()
    drift = scene.drift(skew_s=30.0)
    count = sum(drift.step(0.0) for _ in range(40))
    assert script.RECORDS - 400 < count < script.RECORDS
    scene.now_ms += 31_000
    assert count + sum(drift.step(0.0) for _ in range(3)) == script.RECORDS


def test_it_is_ready_once_it_has_seen_all_there_was(scene):
    scene.fill()
    drift = scene.drift()
    drift.step(0.0)
    assert not drift.caught_up
    scene.finish(drift)
    assert drift.caught_up


def test_low_watermarks_are_where_a_new_bank_starts(scene):
    scene.fill()
    for topic in ("p.outputs", "p.feedback", "p.trajectories"):
        scene.log.delete_before(topic, dict.fromkeys(range(3), 100))
    drift = scene.drift()
    scene.finish(drift)
    assert scene.alarms()
    assert all(a.source and a.source.offset >= 100 for a in scene.alarms())
