from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from services.rewards.spec import Spec
from tailrace import events, topics
from tailrace.deadline import TICKED_S, Deadline, window_s
from tailrace.errors import SettingsError
from tailrace.log.base import Position
from tailrace.recount import Reader
from tailrace.stream import read_all
from tests.audit.history import MODEL, History, kinds


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


def _two_versions() -> tuple[History, list[Position]]:
    """Offsets 0 to 4 of partition 0; version 1 decides 0, 1, 3 and holds 2; version 2 decides 2."""
    history = History()
    places = [history.trajectory() for _ in range(5)]
    history.version(1, 0, {0: (0, 4, [2])})
    history.step(1, places[0], places[3])
    for number, outcome in ((0, "trained"), (1, "stale"), (3, "trained")):
        history.decided(places[number], 1, outcome)
    history.version(2, 1, {0: (4, 4, [])})
    history.step(2, places[2])
    history.decided(places[2], 2)
    return history, places


def test_ranges_and_held_records_tile_the_log() -> None:
    history, _ = _two_versions()
    report = history.report()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"stale": 1, "trained": 3}
    assert report.trajectories.in_flight == 1
    assert (report.head, report.digest, report.versions) == (2, "d2", 3)
    before = history.report(head=1)
    assert before.ok
    assert before.trajectories.in_flight == 2


def test_a_lost_trainer_receipt_is_named() -> None:
    history, places = _two_versions()
    history.version(3, 2, {0: (4, 5, [])})
    report = history.report()
    assert kinds(report) == ["no_receipt"]
    assert report.problems[0].where == events.Coordinates(topic="trajectories", offset=4)
    history.decided(places[4], 3, "filtered")
    assert history.report().ok


def test_gaps_overlaps_and_foreign_held_records_are_found() -> None:
    for start, end, held, problem in (
        (5, 5, [], "gap"),
        (3, 4, [], "gap"),
        (4, 3, [], "backwards"),
        (4, 4, [0], "held_outside"),
    ):
        history, _ = _two_versions()
        history.version(3, 2, {0: (start, end, held)})
        assert problem in kinds(history.report()), problem


def test_what_a_step_used_must_be_receipted_and_the_other_way_round() -> None:
    history, places = _two_versions()
    history.version(3, 2, {0: (4, 5, [])})
    history.decided(places[4], 3, "trained")
    assert kinds(history.report()) == ["not_in_ledger"]
    history.step(3, places[4], places[0])
    assert kinds(history.report()) == ["not_receipted"]


def test_the_same_trajectory_at_two_places_is_trained_once() -> None:
    history = History()
    places = [history.trajectory(name="same"), history.trajectory(name="same")]
    history.version(1, 0, {0: (0, 2, [])})
    history.step(1, *places)
    for place in places:
        history.decided(place, 1)
    assert kinds(history.report()) == ["trained_twice"]


def test_a_record_that_two_steps_of_a_version_used_is_found() -> None:
    history, places = _two_versions()
    history.step(2, places[2])
    assert kinds(history.report()) == ["trained_twice"]


def test_a_manifest_that_cannot_be_read_is_a_finding_and_no_end() -> None:
    history, _ = _two_versions()
    history.writer.producer.append("model-updates", b"rubbish", key=b"other")
    assert history.report().ok
    history.writer.producer.append("model-updates", b"rubbish", key=b"m")
    report = history.report()
    assert kinds(report) == ["unreadable"] and report.head == 2
    assert report.problems[0].where == events.Coordinates(topic="model-updates", offset=4)


def test_a_fork_has_its_own_account() -> None:
    history, places = _two_versions()
    # Version 3 forks from 0: it decides everything anew, and 1 and 2 are not of its history.
    history.version(3, 0, {0: (0, 5, [])}, kind="keyframe")
    history.step(3, *places[:2])
    for number, place in enumerate(places):
        history.decided(place, 3, "trained" if number < 2 else "filtered")
    report = history.report()
    assert report.ok, report.problems
    assert report.versions == 2
    assert report.receipts["other"] == 4
    assert history.report(head=2).ok


def test_after_a_rollback_the_account_is_of_the_history_that_is_trained_on() -> None:
    history, places = _two_versions()
    assert history.report().head == 2
    history.release(live=1, withdrawn_to=2)
    report = history.report()
    assert (report.head, report.ok) == (1, True), report.problems
    assert report.trajectories.in_flight == history.report(head=1).trajectories.in_flight > 0
    history.release(mode="pin", live=2)
    assert history.report().head == 1, "a pin is about serving"
    history.release(live=7)
    lost = history.report()
    assert (kinds(lost), lost.head) == (["no_version"], None), "nobody knows version 7"


def test_digests_chain() -> None:
    history, _ = _two_versions()
    history.version(3, 2, base_digest="d1")
    assert kinds(history.report()) == ["base_digest"]


def test_a_version_without_bytes_has_its_bases_digest() -> None:
    history, _ = _two_versions()
    history.version(3, 2, chunks=None, digest="d2")
    assert history.report().ok
    history.version(4, 3, chunks=None, base_digest="d2")
    assert kinds(history.report()) == ["zero_step_digest"]


def test_a_head_that_decided_more_than_the_log_holds_is_found() -> None:
    history, _ = _two_versions()
    history.version(3, 2, {0: (4, 9, [])})
    assert kinds(history.report()) == ["no_receipt", "beyond_end"]


def test_a_head_that_cannot_be_built_any_more_is_found() -> None:
    history, _ = _two_versions()
    history.log.delete_before("model-chunks", {0: 2})
    report = history.report()
    assert kinds(report) == ["no_chunks", "no_chunks"]
    assert {problem.version for problem in report.problems} == {0, 1}
    history.version(3, 2, {0: (4, 4, [])}, kind="keyframe")
    assert history.report().ok


def test_versions_are_never_reused_and_bases_exist() -> None:
    history, _ = _two_versions()
    history.version(2, 1, digest="other")
    assert "version_reused" in kinds(history.report())
    history = History()
    history.version(5, 3)
    assert kinds(history.report()) == ["no_base"]
    assert kinds(history.report(head=9)) == ["no_version"]


def test_what_is_below_the_low_watermark_is_out_of_the_account() -> None:
    history, _ = _two_versions()
    history.log.delete_before("trajectories", {0: 3})
    report = history.report()
    assert report.ok, report.problems
    assert report.trajectories.records == 2
    assert report.trajectories.outcomes == {"trained": 1}


def test_what_was_gone_before_it_was_read_is_stale() -> None:
    history = History()
    history.trajectory()
    expired = events.Range(partition=0, start=0, end=1, expired_to=1)
    history.version(1, 0, {}, ranges=[expired])
    report = history.report()
    assert report.ok
    assert report.trajectories.outcomes == {"stale": 1}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_history_balances_and_any_lost_receipt_is_found(data: st.DataObject) -> None:
    history = History()
    waiting: list[list[Position]] = [[], []]
    ends, decided = [0, 0], []
    followed = Reader(history.log, history.wire, model=MODEL, deadline=Deadline(ticked_s=60.0))
    for version in range(1, data.draw(st.integers(1, 5)) + 1):
        if data.draw(st.booleans()):
            followed.read()
        starts = list(ends)
        for partition in data.draw(st.lists(st.integers(0, 1), max_size=8)):
            waiting[partition].append(history.trajectory(partition))
            ends[partition] += 1
        held: list[list[int]] = [[], []]
        used = []
        for partition in (0, 1):
            kept = []
            for place in waiting[partition]:
                outcome = data.draw(st.sampled_from(("trained", "stale", "filtered", "held")))
                if outcome == "held":
                    held[partition].append(place.offset)
                    kept.append(place)
                    continue
                decided.append((place, version, outcome))
                if outcome == "trained":
                    used.append(place)
            waiting[partition] = kept
        history.version(version, version - 1, {p: (starts[p], ends[p], held[p]) for p in (0, 1)})
        history.step(version, *used)
    lost = data.draw(st.integers(0, len(decided)))
    for number, (place, version, outcome) in enumerate(decided):
        if number != lost:
            history.decided(place, version, outcome)
    report = history.report()
    assert followed.read().report() == report
    account = report.trajectories
    assert account.records == sum(ends)
    assert account.records == sum(account.outcomes.values()) + account.in_flight + account.missing
    assert account.in_flight == sum(map(len, waiting))
    if lost == len(decided):
        assert report.ok, report.problems
    else:
        place = decided[lost][0]
        first = report.problems[0]
        assert first.kind == "no_receipt"
        assert first.where == events.Coordinates(
            topic="trajectories", partition=place.partition, offset=place.offset
        )
