"""Adapters by their names: asked for, listed, recorded as their own versions."""

from __future__ import annotations

import threading

import openai
import pytest

from services.local.ports import free_port
from tailrace import topics
from tests.gateway.conftest import MODEL
from tests.gateway.fakevllm import wait_until


@pytest.fixture
def adapted(vllm, start):
    vllm.models += [f"{MODEL}@8", f"{MODEL}@9", f"{MODEL}@x", "other@3"]
    return start()


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_the_adapters_whose_name_was_asked_for(adapted, vllm, stream):
    answer = adapted.chat(model=f"{MODEL}@9", stream=stream)
    if stream:
        *_, answer = answer
    assert answer.model == vllm.asked[0]["model"] == f"{MODEL}@9"
    assert answer.tailrace["weight_versions"] == [9]
    (prompt,) = adapted.records(topics.PROMPTS, 1)
    assert (prompt.model, prompt.route.channel, prompt.route.version) == (MODEL, "live", 9)
    (output,) = adapted.records(topics.OUTPUTS, 1)
    assert [(s.version, s.start, s.end) for s in output.weight_versions] == [(9, 0, 4)]
    assert output.untrainable is None


def test_the_model_itself_is_asked_for_as_before(adapted, vllm):
    assert adapted.chat().tailrace["weight_versions"] == [7]
    assert "model" not in vllm.asked[0]
    assert adapted.records(topics.PROMPTS, 1)[0].route.version is None


def test_text_completions_know_them_too(adapted):
    answer = adapted.openai.completions.create(model=f"{MODEL}@8", prompt="The mill")
    assert answer.tailrace["weight_versions"] == [8]


@pytest.mark.parametrize("name", ["@7", "@09", "@x", "@", "@-1", "@٨", "x@8", "@8@8"])
def test_what_is_not_loaded_does_not_exist(adapted, vllm, name):
    with pytest.raises(openai.NotFoundError, match="does not exist") as caught:
        adapted.chat(model=MODEL + name)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert not vllm.asked


def test_those_that_are_loaded_are_listed(adapted):
    named = [model.id for model in adapted.openai.models.list()]
    assert named == [MODEL, f"{MODEL}@8", f"{MODEL}@9"]
    assert adapted.openai.models.retrieve(f"{MODEL}@9").id == f"{MODEL}@9"
    with pytest.raises(openai.NotFoundError):
        adapted.openai.models.retrieve(f"{MODEL}@7")


def test_one_that_went_since_it_was_listed_is_the_engines_404(adapted, vllm):
    assert adapted.chat(model=f"{MODEL}@8").choices
    vllm.models.remove(f"{MODEL}@8")
    adapted.gateway._adapters._until_s = float("inf")
    with pytest.raises(openai.NotFoundError) as caught:
        adapted.chat(model=f"{MODEL}@8")
    assert caught.value.code == "model_not_found"
    assert len(vllm.asked) == 2, "and not asked again"
    errors = {output.error for output in adapted.records(topics.OUTPUTS, 2)}
    assert errors == {None, "engine_refused"}


def test_nobody_vouches_for_an_answer_that_its_adapter_did_not_outlive(adapted, vllm):
    vllm.gate = threading.Event()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(adapted.chat(model=f"{MODEL}@8")))
    asking.start()
    wait_until(lambda: vllm.asked, "the engine's request")
    vllm.models.remove(f"{MODEL}@8")
    vllm.gate.set()
    asking.join(20)
    assert answers[0].tailrace["weight_versions"] == []
    assert adapted.records(topics.OUTPUTS, 1)[0].untrainable == "unknown_version"


@pytest.mark.parametrize(
    ("labels", "version"),
    [
        (("7", "8"), 9),  # the same weights under a new number
        (("8", "7"), None),  # other weights, and back
        (("default", "7"), None),
    ],
)
def test_labels_beneath_an_answer(adapted, vllm, labels, version):
    first, second = labels
    vllm.spans = [
        {"version": first, "start": 0, "end": 2},
        {"version": second, "start": 2, "end": 4},
    ]
    adapted.chat(model=f"{MODEL}@9")
    (output,) = adapted.records(topics.OUTPUTS, 1)
    assert output.weight_versions[0].version == version
    assert output.untrainable == (None if version else "unknown_version")


def test_an_engine_that_does_not_say_is_waited_for(start):
    gateway = start(engine_url=f"http://127.0.0.1:{free_port()}", engine_wait_s=0.2)
    with pytest.raises(openai.InternalServerError) as caught:
        gateway.chat(model=f"{MODEL}@9")
    assert caught.value.code == "engine_unavailable"
    assert [model.id for model in gateway.openai.models.list()] == [MODEL]
