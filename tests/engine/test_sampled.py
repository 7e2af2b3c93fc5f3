"""Rollouts sample a real vLLM: its tokens, logprobs and versions, and its own count of requests."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from services.rollouts.share import Load, load_of
from tailrace import packing, topics
from tailrace.log.memory import MemoryLog
from tests import tinymodel
from tests.engine.real import Models, RealVllm, distance
from tests.gateway.fakevllm import wait_until
from tests.rollouts.scene import line, write
from tests.rollouts.stage import Stage

pytestmark = pytest.mark.e2e


def test_what_it_records_is_what_vllm_sampled(
    vllm: RealVllm, models: Models, tmp_path: Path
) -> None:
    vllm.load(31, models.base)
    lines = [line(3), {"id": "plain", "prompt": "The river runs", "expected": 4}]
    stage = Stage(
        tmp_path,
        MemoryLog(),
        vllm.url,
        [write(tmp_path / "sums", lines)],
        max_num_seqs=64,
        share=0.1,
        group_size=3,
    )
    with stage.running() as rollouts:
        wait_until(lambda: len(stage.groups()) >= 2, "two groups", 60.0)
        wait_until(lambda: len(stage.records(topics.FEEDBACK)) >= 6, "their scores", 60.0)
        assert rollouts.ready() is None
    assert not stage.errors
    prompts = {one.interaction_id: one for one in stage.records(topics.PROMPTS)}
    outputs = {one.interaction_id: one for one in stage.records(topics.OUTPUTS)}
    assert prompts.keys() == outputs.keys()
    words = tinymodel.tokenizer()
    seen = set()
    for name, prompt in prompts.items():
        content = outputs[name].content
        asked = json.loads(prompt.content.messages)
        given = packing.unpack_ids(prompt.content.prompt_token_ids)
        if isinstance(asked, str):
            wanted = words.encode(asked)
        else:
            wanted = words.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        assert given == wanted
        tokens = packing.unpack_ids(content.token_ids)
        logprobs = packing.unpack_logprobs(content.logprobs)
        assert 1 <= len(tokens) == len(logprobs) <= 8
        text = json.loads(content.message)["content"]
        # Half a character at the end is none to vLLM.
        whole = words.decode(tokens, skip_special_tokens=True)
        assert text.rstrip("\ufffd") == whole.rstrip("\ufffd")
        (span,) = outputs[name].weight_versions
        assert (span.version, span.start, span.end) == (31, 0, len(tokens))
        exact = models.reference.logprobs(models.base, [*given, *tokens])[len(given) - 1 :]
        assert distance(logprobs, exact) < 0.05
        seen.add(tuple(tokens))
    said = load_of(httpx.get(f"{vllm.url}/metrics", trust_env=False).text)
    assert said is not None and said.tokens > 0 and said.tokens_s > 0
    assert len(seen) > 2, "samples of a group are not drawn apart"


def test_its_answers_are_broken_off_at_once(vllm: RealVllm, models: Models, tmp_path: Path) -> None:
    vllm.load(32, models.base)
    tasks = [write(tmp_path / "sums", [line(3)], 'kind = "number"\nmax_tokens = 1900\n')]
    stage = Stage(tmp_path, MemoryLog(), vllm.url, tasks, max_num_seqs=64, share=0.1, group_size=4)

    def load() -> Load:
        found = load_of(httpx.get(f"{vllm.url}/metrics", trust_env=False).text)
        assert found is not None
        return found

    with stage.running():
        wait_until(lambda: load().running >= 4, "that vLLM counts ours", 30.0)
        assert load().running <= 6
    wait_until(lambda: (load().running, load().waiting) == (0, 0), "that vLLM has ended them", 10.0)
    assert not stage.errors
