"""The account of feedback: every record has one outcome, is in flight, or is missing."""

from pathlib import Path

import pytest

from services.rewards.spec import Spec
from tailrace import events, topics
from tailrace.deadline import TICKED_S, window_s
from tailrace.errors import SettingsError
from tailrace.stream import read_all
from tests.audit.history import History, kinds


def test_an_empty_system_balances() -> None:
    report = History().report()
    assert report.ok
    assert (report.head, report.versions, report.feedback.records) == (0, 1, 0)


def test_every_outcome_is_counted_and_the_rest_is_in_flight() -> None:
    history = History()
    for outcome in ("joined", "joined", "late"):
        history.joined(history.feedback(), outcome)
    history.feedback()
    report = history.report()
    assert report.ok
    assert report.feedback.outcomes == {"joined": 2, "late": 1}
    assert report.feedback.in_flight == 1
    assert report.feedback.unaccounted == 0


def test_feedback_that_the_clock_has_passed_is_missing_at_its_coordinates() -> None:
    history = History()
    lost = history.feedback()
    tick = events.Tick(partition=lost.partition, event_time_ms=history.now_ms + 60_001)
    history.writer.write(topics.TICKS, tick, partition=lost.partition)
    report = history.report(decide_within_s=60)
    assert kinds(report) == ["no_receipt"]
    where = report.problems[0].where
    assert where is not None
    assert (where.topic, where.partition, where.offset) == ("feedback", lost.partition, lost.offset)
    assert report.feedback.unaccounted == report.feedback.missing == 1
    assert history.report(decide_within_s=61).ok


def test_feedback_older_than_what_was_decided_by_the_specs_windows_is_missing() -> None:
    history = History()
    lost = history.feedback()
    made_ms = history.now_ms + 66_001
    history.trajectory(1 - lost.partition, time_ms=made_ms)
    assert history.report(window_s=36).ok, "another partition's time"
    history.trajectory(lost.partition, time_ms=made_ms - 1)
    assert history.report(window_s=36).ok
    history.trajectory(lost.partition, time_ms=made_ms)
    assert kinds(history.report(window_s=36)) == ["no_receipt"]
    assert history.report().ok, "without the spec, the clock alone says what is missing"
    history.joined(lost)
    assert history.report(window_s=36).ok


def test_the_window_is_that_of_the_spec_in_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    assert window_s(file) is None
    file.write_text('kafka = "127.0.0.1:9092"\n')
    assert window_s(file) is None
    spec = tmp_path / "spec.toml"
    file.write_text(f'[rewards]\nspec = "{spec}"\n')
    with pytest.raises(SettingsError, match=r"rewards\.spec: .*spec\.toml: "):
        window_s(file)
    for text, window in (("wait_s = 6\norphan_s = 30\n", 36), ("wait_s = 6\n", 3606)):
        spec.write_text(text)
        assert window_s(file) == window
    spec.write_text("")
    default = Spec()
    assert window_s(file) == default.wait_s + default.orphan_s < TICKED_S
    for term in ("metrics.thumbs", "implicit.retry"):
        for own, window in (("wait_s = 9", 39), ("wait_s = 2", 36), ("", 36)):
            spec.write_text(f"wait_s = 6\norphan_s = 30\n[{term}]\nweight = 1\n{own}\n")
            assert window_s(file) == window
    for wrong in ("wait_s = []\n", "metrics = 5\n", "[metrics]\nthumbs = 5\n"):
        spec.write_text(wrong)
        with pytest.raises(SettingsError, match=r"rewards\.spec"):
            window_s(file)


def test_the_same_receipt_twice_is_fine_another_outcome_is_not() -> None:
    history = History()
    at = history.feedback()
    history.joined(at)
    history.joined(at)
    report = history.report()
    assert report.ok
    assert report.receipts["repeated"] == 1
    history.joined(at, "late")
    assert kinds(history.report()) == ["conflicting_receipts"]


def test_unreadable_feedback_is_accounted_by_its_receipt_or_dead_letter() -> None:
    history = History()
    producer = history.log.producer()
    first = producer.append("feedback", b"\x00broken", key=b"default:s").result()
    history.joined(first, "invalid")
    producer.append("feedback", b"\x01broken", key=b"default:s").result()
    buried = list(read_all(history.log, "feedback"))[-1]
    history.writer.bury(buried, "not_avro")
    report = history.report()
    assert report.ok
    assert report.feedback.outcomes == {"invalid": 2}
