"""A real vLLM whose admin calls fail, hang, or are answered late: a half-loaded model never
serves."""

from __future__ import annotations

import os
from pathlib import Path
import signal
import time
from typing import Any

import httpx
import pytest

from services.engine.admin import HttpAdmin, Refused, Unanswered
from services.engine.swap import Doubt, Swap
from tests.engine.real import TOKEN, TOKENS, Models, RealVllm
from tests.engine.users import Users

CALLS = (
    *("/pause", "/start_weight_update", "/update_weights", "/finish_weight_update"),
    *("/weight_info", "/resume"),
)
TROUBLES = ("refuse", "drop", "lose", "late")


class FaultyAdmin(HttpAdmin):
    """The admin API with one trouble ahead. ``late``: the answer comes after the time-out."""

    trouble: tuple[str, str] | None = None

    def _call(self, method: str, path: str, timeout_s: Any, body: Any = None, **more: Any) -> Any:
        call, kind = self.trouble or ("", "")
        if path.partition("?")[0] != call:
            return super()._call(method, path, timeout_s, body)
        self.trouble = None
        if kind == "refuse":
            raise Refused(path, 500, "injected")
        if kind == "drop":
            raise Unanswered(path)
        if kind == "late":
            timeout_s = httpx.Timeout(timeout_s, read=0.0005)
        super()._call(method, path, timeout_s, body)
        raise Unanswered(path)


@pytest.mark.e2e
def test_no_trouble_at_any_call_lets_a_half_loaded_model_serve(
    vllm: RealVllm, models: Models
) -> None:
    pair = (models.base, models.other)
    said = [vllm.load(version, tensors) for version, tensors in enumerate(pair, 10)]
    firsts = [models.reference.greedy(tensors, TOKENS, 1)[0][0] for tensors in pair]
    assert firsts[0] != firsts[1]
    admin = FaultyAdmin(vllm.url, TOKEN, model="tiny")
    swap = Swap(admin, clock=time.monotonic, wait=time.sleep)
    wanted = {str(version): firsts[version % 2] for version in range(10, 99)}
    version = 11
    with Users(vllm.url, many=2, count=1) as users:
        for call in CALLS:
            for kind in TROUBLES:
                version += 1
                load = vllm.load_of(version, pair[version % 2])
                admin.trouble = (call, kind)
                if kind == "refuse" and call in ("/pause", "/resume"):
                    with pytest.raises(Doubt):
                        swap.load(load)
                swap.load(load)
                assert admin.trouble is None, "the trouble was met"
                assert vllm.admin.weight_info() == str(version) and not vllm.admin.is_paused()
                assert vllm.admin.score(TOKENS) == said[version % 2]
        for kind in ("drop", "lose", "late"):
            admin.trouble = ("/update_weight_version", kind)
            version += 2
            try:
                swap.relabel(version)
            except Doubt:
                assert kind == "drop"
                swap.load(vllm.load_of(version, pair[version % 2]))
            assert vllm.admin.weight_info() == str(version)
    assert not users.failed, users.failed
    for answer in users.answers:  # each is a whole version's, under its label
        assert answer.tokens[0] == wanted[answer.spans[0][0]], answer
    assert len(users.labels) > 5


@pytest.mark.e2e
def test_a_vllm_that_hangs_at_any_call_is_left_frozen_or_whole(
    vllm: RealVllm, models: Models
) -> None:
    pair = (models.base, models.other)
    said = [vllm.load(version, tensors) for version, tensors in enumerate(pair, 100)]
    core = _engine_core(vllm)
    version = 101
    for call in CALLS:
        version += 1
        admin = HttpAdmin(vllm.url, TOKEN, model="tiny", call_s=0.3, read_s=0.3)
        hang = _Hang(admin, call, core)
        try:
            with pytest.raises(Doubt):
                Swap(hang, clock=time.monotonic, wait=time.sleep, settle_s=0.6).load(
                    vllm.load_of(version, pair[version % 2])
                )
        finally:
            os.kill(core, signal.SIGCONT)
        # It wakes: what was sent takes effect now. Frozen, or whole under its own label.
        label = vllm.admin.weight_info()
        if not vllm.admin.is_paused():
            assert vllm.admin.score(TOKENS) == said[int(label) % 2]
        version += 1
        assert vllm.load(version, pair[version % 2]) == said[version % 2]


class _Hang:
    """The admin API of a vLLM whose core stops when one call is made."""

    def __init__(self, admin: HttpAdmin, call: str, core: int) -> None:
        self._core, self._path, self._admin_call = core, call, admin._call
        admin._call = self._call  # type: ignore[method-assign]
        self._admin = admin

    def __getattr__(self, name: str) -> Any:
        return getattr(self._admin, name)

    def _call(self, method: str, path: str, timeout_s: float, body: Any = None) -> Any:
        if path.partition("?")[0] == self._path:
            os.kill(self._core, signal.SIGSTOP)
        return self._admin_call(method, path, timeout_s, body)


def _engine_core(vllm: RealVllm) -> int:
    """The process that holds the model: the child of the API server that is called so."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
            if f"\nPPid:\t{vllm.process.pid}\n" in text and "Engine" in text.splitlines()[0]:
                return int(status.parent.name)
        except OSError:
            continue
    raise AssertionError("no engine core")


@pytest.mark.e2e
def test_what_attaching_asks_of_a_real_vllm(vllm: RealVllm) -> None:
    assert vllm.admin.missing() is None
    stranger = HttpAdmin(vllm.url, "a guess", model="tiny")
    assert "engine.admin_token is not" in str(stranger.missing())
    stranger.close()
