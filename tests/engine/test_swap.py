"""The swap against every failure and hang of every call: a half-loaded model never serves."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import pytest

from services.engine.canary import check, differs
from services.engine.slot import Slot
from services.engine.swap import Doubt, Load, Swap
from tailrace.events import Canary, ModelUpdate
from tests.engine.fakes import BASE, FakeVllm
from tests.engine.models import tensors

CALLS = ("pause", "start", "update", "finish", "weight_info", "is_paused", "resume")
TROUBLES = ("refuse", "lose", "late", "drop", "hang", "die")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    folder = tmp_path_factory.mktemp("slot")
    path = Slot([folder], "test").write(tensors(7), "seven")
    return Load(version=7, digest="seven", path=str(path))


def swap_of(vllm: FakeVllm) -> Swap:
    ticks = count()
    return Swap(vllm, clock=lambda: float(next(ticks)), wait=lambda s: None, settle_s=5)


def only_whole(vllm: FakeVllm) -> None:
    """Whatever requests met was one version under its own label."""
    assert set(vllm.served) <= {(BASE, "default"), ("seven", "7")}


def test_the_order_of_a_swap(load: Load) -> None:
    vllm = FakeVllm()
    pause_ms = swap_of(vllm).load(load)
    assert vllm.calls == ["pause", "start", "update", "finish", "weight_info", "resume"]
    assert vllm.served == [(BASE, "default"), ("seven", "7")]
    assert pause_ms > 0


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("trouble", TROUBLES)
def test_one_trouble(load: Load, call: str, trouble: str) -> None:
    vllm = FakeVllm({(call, 1): trouble})
    try:
        swap_of(vllm).load(load)
    except Doubt:
        assert vllm.hung or vllm.dead or trouble == "refuse"
    else:
        assert vllm.served[-1] == ("seven", "7") and not vllm.paused
    only_whole(vllm)


@pytest.mark.parametrize("call", ["pause", "start", "update", "finish", "resume", "weight_info"])
@pytest.mark.parametrize("trouble", ["lose", "late", "drop"])
def test_one_lost_answer_is_recovered(load: Load, call: str, trouble: str) -> None:
    vllm = FakeVllm({(call, 1): trouble})
    swap_of(vllm).load(load)
    assert vllm.served == [(BASE, "default"), ("seven", "7")] and not vllm.paused


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(CALLS), st.integers(1, 4)), st.sampled_from(TROUBLES), max_size=6
    )
)
def test_any_script_of_troubles(load: Load, script: dict[tuple[str, int], str]) -> None:
    vllm = FakeVllm(script)
    try:
        swap_of(vllm).load(load)
        assert vllm.served[-1] == ("seven", "7") and not vllm.paused
    except Doubt:
        pass
    only_whole(vllm)


def test_an_unanswered_call_is_not_repeated_before_a_read(load: Load) -> None:
    vllm = FakeVllm({("update", 1): "lose", ("pause", 1): "lose", ("resume", 1): "drop"})
    swap_of(vllm).load(load)
    for before, after in zip(vllm.calls, vllm.calls[1:], strict=False):
        assert before != after or before == "weight_info"
    assert vllm.calls[:4] == ["pause", "weight_info", "is_paused", "pause"]


def test_a_wrong_label_is_never_woken(load: Load) -> None:
    vllm = FakeVllm()
    vllm.mislabels = 1
    swap_of(vllm).load(load)
    assert vllm.served == [(BASE, "default"), ("seven", "7")] and not vllm.paused
    vllm = FakeVllm()
    vllm.mislabels = 9
    with pytest.raises(Doubt, match="label is default, not 7"):
        swap_of(vllm).load(load)
    assert vllm.paused and "resume" not in vllm.calls


def test_a_label_alone(load: Load) -> None:
    vllm = FakeVllm({("label", 1): "lose"})
    swap_of(vllm).relabel(8)
    assert vllm.calls == ["label", "weight_info", "is_paused", "weight_info"]
    assert vllm.label_ == "8" and not vllm.paused
    late = FakeVllm({("label", 1): "late"})
    swap_of(late).relabel(8)
    assert late.label_ == "8"
    with pytest.raises(Doubt):
        swap_of(FakeVllm({("label", 1): "drop"})).relabel(8)


def test_a_broken_worker_stays_frozen(load: Load) -> None:
    vllm = FakeVllm()
    vllm.broken = True
    with pytest.raises(Doubt):
        swap_of(vllm).load(load)
    assert vllm.paused and "resume" not in vllm.calls


def test_canary_tolerance() -> None:
    assert differs([-1.0, -2.0], [-1.1, -1.9], 0.11) is None
    assert differs([-1.0, -2.0], [-1.5, -2.0], 0.2) is not None
    assert differs([-1.0], [-1.0, -1.0], 1.0) is not None
    assert differs([-1.0], [float("nan")], 1.0) is not None


def test_the_slot_falls_back_and_cleans_up(tmp_path: Path) -> None:
    (tmp_path / "tailrace-x-9.safetensors").write_bytes(b"left by a killed process")
    slot = Slot([tmp_path / "absent", tmp_path], "x")
    assert not list(tmp_path.iterdir())
    first = slot.write(tensors(1), "one")
    second = slot.write(tensors(2), "two")
    assert second.exists() and not first.exists() and first != second
    slot.clear()
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="no folder"):
        Slot([tmp_path / "absent"], "x").write(tensors(1), "one")


def test_the_slot_is_safetensors(tmp_path: Path) -> None:
    from safetensors import safe_open

    model = tensors(3)
    path = Slot([tmp_path], "x").write(model, "three")
    with safe_open(path, framework="numpy") as file:
        assert file.metadata()["digest"] == "three"
        assert set(file.keys()) == set(model)
        assert file.get_tensor("scale").tolist() == model["scale"].numpy().tolist()


def test_a_torn_canary_is_no_reason_to_end() -> None:
    torn = Canary(prompt_tokens=b"abc", output_tokens=b"abcd", logprobs=b"abcd")
    update = ModelUpdate(version=1, created_ms=1, canary=torn)
    wrong, note = check(FakeVllm(), update, 0.3)
    assert not wrong and "unreadable" in str(note)


def test_an_engine_leaves_the_file_of_one_whose_name_begins_like_its_own(tmp_path: Path) -> None:
    kept = Slot([tmp_path], "engine-1").write(tensors(1), "one")
    mine = Slot([tmp_path], "engine").write(tensors(1), "one")
    Slot([tmp_path], "engine")
    assert kept.exists() and not mine.exists()
