"""The account of trajectories along a base chain: ranges tile the log, digests chain, the ledger's
inputs are what was trained."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import events
from tailrace.deadline import Deadline
from tailrace.log.base import Position
from tailrace.recount import Reader
from tailrace.weights.trust import Signer, new_key
from tests.audit.history import MODEL, History, kinds


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


def test_an_adapter_is_no_head(tmp_path: Path) -> None:
    history, _ = _two_versions()
    before = history.report()
    history.version(3, 1, kind="adapter")
    report = history.report()
    assert (report.head, report.versions) == (2, 3)
    assert report.trajectories == before.trajectories and report.ok
    key = tmp_path / "key"
    new_key(key)
    history.signer = Signer(key)
    history.version(4, 2, kind="adapter")
    assert kinds(history.report(trust=[key.with_name("key.pub")])) == ["no_version"]


def test_with_trusted_keys_only_the_trainers_own_history_is_recounted(tmp_path: Path) -> None:
    key = tmp_path / "key"
    new_key(key)
    trust = [key.with_name("key.pub")]
    history, _ = _two_versions()
    nothing = history.report(trust=trust)
    assert (kinds(nothing), nothing.head) == (["no_version"], None), "nobody signed anything"
    history.signer = Signer(key)
    history.version(3, 2, {0: (4, 4, [])})
    history.signer = None  # strangers, who may write on the topic
    history.version(4, 3, {0: (4, 9, [])}, kind="keyframe")
    history.version(1, 0, {0: (0, 1, [])}, digest="other")
    history.writer.producer.append("model-updates", b"rubbish", key=b"m")
    assert not history.report().ok
    report = history.report(trust=trust)
    assert report.ok, report.problems
    assert (report.head, report.versions) == (3, 4), "and what the signed version descends from"
    history.release(live=2, withdrawn_to=2)
    assert history.report().head == 4
    assert history.report(trust=trust).head == 3
    history.release(live=4)
    assert kinds(history.report(trust=trust)) == ["no_version"]


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
