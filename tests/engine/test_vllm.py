"""A real vLLM with a tiny model: what it computes with, its cache, its canary."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys
import threading

import httpx
import pytest

from services.engine.admin import Refused
from services.engine.canary import check
from services.engine.settings import Settings
from services.engine.slot import Slot
from services.engine.vllm import check_cores, command, core_numbers, environment
from tailrace.events import Canary, ModelUpdate
from tailrace.packing import pack_ids, pack_logprobs
from tailrace.weights.tensors import Tensors, digest
from tests.engine.real import (
    TOKENS,
    Models,
    RealVllm,
    ask,
    distance,
    every_noisy,
    noisy,
)

EMBEDDING = "model.embed_tokens.weight"


def test_command_and_environment() -> None:
    settings = Settings(model_folder=Path("base"), cores="0,2-3", vllm_arguments=("--seed", "1"))
    words = command(settings)
    assert words[words.index("--middleware") + 1] == "tailrace.plugins.admin.Guard"
    assert words[words.index("--logprobs-mode") + 1] == "processed_logprobs"
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[-2:] == ["--seed", "1"]
    ours = environment(settings, "secret", {"PATH": "/bin", "TAILRACE_ENGINE_ADMIN_TOKEN": "old"})
    assert ours["TAILRACE_ENGINE_ADMIN_TOKEN"] == "secret" and "secret" not in " ".join(words)
    assert ours["OMP_NUM_THREADS"] == "3" and ours["GOMP_CPU_AFFINITY"] == "0 2 3"
    assert ours["PATH"] == "/bin"


def test_spans_go_where_those_of_the_gateway_go() -> None:
    settings = Settings(model_folder=Path("base"), otlp_endpoint="http://a:4318/")
    words = command(settings)
    assert words[words.index("--otlp-traces-endpoint") + 1] == "http://a:4318/v1/traces"
    ours = environment(settings, "secret", {})
    assert ours["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"
    assert "--otlp-traces-endpoint" not in command(Settings(model_folder=Path("base")))


def test_core_numbers() -> None:
    assert core_numbers("0") == [0] and core_numbers("0-2,5") == [0, 1, 2, 5]
    assert core_numbers("2,1-2") == [1, 2], "one thread for each"
    with pytest.raises(ValueError, match="invalid literal"):
        core_numbers("all")
    with pytest.raises(ValueError, match="'3-1' is no core"):
        core_numbers("3-1")


def test_only_cores_that_can_be_used(tmp_path: Path) -> None:
    usable = sorted(os.sched_getaffinity(0))
    file = tmp_path / "settings.toml"
    for cores in (f"{usable[0]},9999", "3-1"):
        file.write_text(f'[engine]\nmodel_folder = "base"\ncores = "{cores}"\n')
        done = subprocess.run(
            [sys.executable, "-m", "services.engine", "--settings", str(file)],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 2 and last.startswith("engine: engine.cores: "), last
        assert last.endswith(f"; usable: {', '.join(map(str, usable))}")
    check_cores(",".join(map(str, usable)))


@pytest.mark.e2e
def test_it_computes_with_what_was_loaded(vllm: RealVllm, models: Models, tmp_path: Path) -> None:
    base, reference = models.base, models.reference
    was = vllm.load(0, base)
    assert distance(was, reference.logprobs(base, TOKENS)) < 0.1
    # The embedding alone: the tied head, which vLLM repacks on CPU, must follow.
    head = base | {EMBEDDING: noisy(base[EMBEDDING], 3.0)}
    now = vllm.load(1, head)
    assert distance(now, reference.logprobs(head, TOKENS)) < 0.1 < 1.0 < distance(now, was)
    every = every_noisy(base, 0.5)
    noise = vllm.load(2, every)
    assert distance(noise, reference.logprobs(every, TOKENS)) < 0.1
    # An update that was left open by a killed engine: the next swap fills and closes it.
    admin, slot = vllm.admin, Slot([tmp_path], "t")
    admin.pause()
    admin.start()
    admin.update(str(slot.write(head, digest(head))), digest(head))
    assert vllm.load(3, base) == was
    # A file of another version, and one with a tensor missing, are refused.
    admin.pause()
    admin.start()
    with pytest.raises(Refused, match="holds"):
        admin.update(str(slot.write(head, "another")), digest(head))
    part = {name: tensor for name, tensor in base.items() if "layers.1.mlp" not in name}
    admin.start()
    admin.update(str(slot.write(part, digest(part))), digest(part))
    with pytest.raises(Refused, match="no weights for"):
        admin.finish("9")
    assert vllm.load(4, every) == noise


def _cache_hits(vllm: RealVllm) -> float:
    text = httpx.get(f"{vllm.url}/metrics", trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith("vllm:prefix_cache_hits_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.e2e
def test_no_key_or_value_of_older_weights_is_used(vllm: RealVllm, models: Models) -> None:
    prompt = [3 + (at * 7) % 500 for at in range(600)]
    reference = models.reference

    def of(tensors: Tensors, tokens: list[int], got: list[float]) -> float:
        return distance(reference.logprobs(tensors, prompt + tokens)[len(prompt) - 1 :], got)

    vllm.load(300, models.base)
    ask(vllm.url, prompt, 4)
    before = _cache_hits(vllm)
    old = ask(vllm.url, prompt, 4)
    assert _cache_hits(vllm) > before, "the prompt is cached: it could be used"
    assert of(models.base, old.tokens, old.logprobs) < 0.1
    vllm.load(301, models.other)
    new = ask(vllm.url, prompt, 4)
    assert of(models.other, new.tokens, new.logprobs) < 0.1
    # An answer that was under way goes on as if the new weights had read all before it.
    answers = []
    begun = threading.Event()
    thread = threading.Thread(
        target=lambda: answers.append(ask(vllm.url, prompt, 400, begun=begun.set))
    )
    thread.start()
    assert begun.wait(60)
    vllm.load(302, models.base)
    thread.join(120)
    (label, start, _), *_ = [span for span in answers[0].spans if span[0] == "302"]
    assert start > 0, answers[0].spans
    found = answers[0]
    whole = reference.logprobs(models.base, prompt + found.tokens)[len(prompt) - 1 :]
    assert distance(whole[start:], found.logprobs[start:]) < 0.1
    # The same without dropping the cache, which shows that this test can fail.
    admin = vllm.admin
    ask(vllm.url, prompt, 4)
    admin._call("POST", "/pause?mode=keep&clear_cache=false", 20.0)
    load = vllm.load_of(303, models.other)
    admin.start()
    admin.update(load.path, load.digest)
    admin.finish("303")
    admin.resume()
    stale = ask(vllm.url, prompt, 4)
    assert of(models.other, stale.tokens, stale.logprobs) > 0.3


@pytest.mark.e2e
def test_the_canary_tells_wrong_weights_from_rounding(vllm: RealVllm, models: Models) -> None:
    tolerance = Settings().canary_tolerance
    prompt, output = TOKENS[:12], TOKENS[12:]
    logprobs = models.reference.logprobs(models.other, TOKENS)[-len(output) :]
    update = ModelUpdate(
        version=1,
        created_ms=1,
        canary=Canary(
            prompt_tokens=pack_ids(prompt),
            output_tokens=pack_ids(output),
            logprobs=pack_logprobs(logprobs),
        ),
    )
    vllm.load(400, models.other)
    assert check(vllm.admin, update, tolerance) == (False, None)
    assert check(vllm.admin, update, tolerance / 3) == (False, None), "with room to spare"
    swapped = {
        name.replace(".0.", ".x.").replace(".1.", ".0.").replace(".x.", ".1."): tensor
        for name, tensor in models.other.items()
    }
    wrong = {
        "the version before": models.base,
        "two layers in each other's place": swapped,
        "an old head": models.other | {EMBEDDING: models.base[EMBEDDING]},
    }
    for layer in (0, 1):
        for part in ("self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"):
            name = f"model.layers.{layer}.{part}.weight"
            wrong[f"an old {name}"] = models.other | {name: models.base[name]}
    for version, (what, tensors) in enumerate(wrong.items(), 401):
        vllm.load(version, tensors)
        assert check(vllm.admin, update, tolerance)[0], what
