"""Packing changes nothing: answers in one row see no other, whatever they share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
import torch
import transformers

from services.trainer import attention
from services.trainer.answer import Answer
from services.trainer.batch import micro_batches, pack
from services.trainer.policy import Policy
from services.trainer.tree import Tree, tree

TOKENS = st.integers(3, 500)
BEGINNINGS = [list(range(20, 20 + n)) for n in (0, 1, 5, 40)]


@st.composite
def rows(draw: st.DrawFn) -> list[list[int]]:
    """Rows that begin alike or not, with repeats, rows that go on where another ends, and lengths
    from 1 to 150."""
    made: list[list[int]] = []
    for _ in range(draw(st.integers(1, 7))):
        stem = draw(st.sampled_from([*BEGINNINGS, *made]))
        row = stem + draw(st.lists(TOKENS, max_size=12)) * draw(st.sampled_from([1, 1, 1, 9]))
        made.append(row or [7])
    return made


@st.composite
def answers(draw: st.DrawFn) -> list[Answer]:
    made = []
    for number, row in enumerate(draw(rows())):
        row = row if len(row) > 1 else [*row, 9]
        cut = draw(st.integers(1, len(row) - 1))
        made.append(answer(number, row[:cut], row[cut:], draw(st.sampled_from([0.5, 1.0, 1.3]))))
    return made


def answer(number: int, prompt: list[int], tokens: list[int], temperature: float = 1.0) -> Answer:
    return Answer(
        partition=0,
        offset=number,
        time_ms=0,
        trajectory_id=str(number),
        session="",
        prompt=prompt,
        tokens=tokens,
        logprobs=[-1.0] * len(tokens),
        temperature=temperature,
        reward=1.0,
        oldest_version=0,
        closed_ms=0,
    )


@given(rows())
def test_a_tree_has_every_row_and_no_beginning_twice(given: list[list[int]]) -> None:
    made, paths = tree(given)
    ids, place = made.ids_N.tolist(), made.place_N.tolist()
    for row, path in zip(given, paths, strict=True):
        assert [ids[n] for n in path] == row
        assert [place[n] for n in path] == list(range(len(row)))
    assert len(ids) == len({tuple(row[: end + 1]) for row in given for end in range(len(row))})
    slots = torch.cat([block.run_SQ[block.real_SQ > 0] for block in made.blocks])
    assert sorted(slots.tolist()) == [*range(len(ids))]
    every = torch.cat([block.run_SQ.flatten() for block in made.blocks])
    assert every[made.slot_N].tolist() == [*range(len(ids))]


@settings(max_examples=50)
@given(rows(), st.sampled_from([None, 1, 3, 64]))
def test_a_token_sees_its_own_row_up_to_itself(given: list[list[int]], window: int | None) -> None:
    """Values and gradients, against all tokens at once under a mask, in float64."""
    made, paths = tree(given)
    chance = torch.Generator().manual_seed(len(made.ids_N))
    q, k, v = (
        torch.randn(len(made.ids_N), heads, 4, generator=chance, dtype=torch.float64)
        for heads in (6, 2, 2)
    )
    for states in (q, k, v):
        states.requires_grad_()
    seen = attention.TreeAttention.apply(q, k, v, made, 0.5, window)
    slow = _dense(q, k, v, _seen(paths, len(made.ids_N), window))
    # Scores are float32 whatever comes in.
    torch.testing.assert_close(seen, slow, rtol=1e-5, atol=1e-5)
    weight = torch.randn(seen.shape, generator=chance, dtype=torch.float64)
    found = torch.autograd.grad((seen * weight).sum(), (q, k, v))
    expected = torch.autograd.grad((slow * weight).sum(), (q, k, v))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def _seen(paths: list[list[int]], tokens: int, window: int | None) -> torch.Tensor:
    """(N, N): 1 where the token of a row sees that of a column."""
    seen_NN = torch.zeros(tokens, tokens, dtype=torch.bool)
    for path in paths:
        for end, token in enumerate(path, 1):
            seen_NN[token, path[max(0, end - window) if window else 0 : end]] = True
    return seen_NN


def _dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen_NN: torch.Tensor) -> Any:
    k, v = k.repeat_interleave(3, 1), v.repeat_interleave(3, 1)
    score_HNN = torch.einsum("nhd,mhd->hnm", q, k) * 0.5
    weight_HNN = torch.softmax(score_HNN.masked_fill(~seen_NN, -torch.inf), -1)
    return torch.einsum("hnm,mhd->nhd", weight_HNN, v)


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return Policy(tiny_model, compute="float32")


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> Any:
    """The same model as transformers has it."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        tiny_model, dtype=torch.float32, attn_implementation="eager"
    )


def alone(plain: Any, one: Answer) -> torch.Tensor:
    """Logp of one answer, in a row of its own, from all logits."""
    ids = torch.tensor([one.prompt + one.tokens])
    logp = torch.log_softmax(plain(input_ids=ids).logits[0] / one.temperature, -1)
    row_T = torch.arange(len(one.prompt) - 1, ids.shape[1] - 1)
    return logp[row_T, torch.tensor(one.tokens)]


@settings(max_examples=25)
@given(answers())
def test_packed_logp_and_gradients_are_those_of_each_answer_alone(
    policy: Policy, plain: Any, given: list[Answer]
) -> None:
    packed_T = policy.logp(pack(given, [1.0] * len(given)))
    alone_T = torch.cat([alone(plain, one) for one in given])
    torch.testing.assert_close(packed_T, alone_T, rtol=0, atol=2e-5)
    weight_T = torch.linspace(0.5, 1.5, len(alone_T))
    policy.clear()
    (packed_T * weight_T).sum().backward()
    plain.zero_grad()
    (alone_T * weight_T).sum().backward()
    for name, parameter in plain.named_parameters():
        found, expected = policy.masters[name].grad, parameter.grad
        assert found is not None and expected is not None
        assert float((found - expected).norm()) <= 1e-4 * float(expected.norm()) + 1e-6, name


@settings(max_examples=60)
@given(answers(), st.integers(1, 4), st.sampled_from([1, 60, 500]))
def test_micro_batches_keep_every_token_once_and_their_bounds(
    given: list[Answer], micro_answers: int, micro_tokens: int
) -> None:
    advantages = [float(n) for n in range(len(given))]
    batches = micro_batches(
        given, advantages, micro_answers=micro_answers, micro_tokens=micro_tokens
    )
    for batch in batches:
        inside = sorted(set(batch.answer_T.tolist()))
        assert len(inside) <= micro_answers
        assert len(inside) == 1 or len(batch.tree.ids_N) <= micro_tokens
        assert batch.advantage_T.tolist() == [float(n) for n in batch.answer_T]
        found = [t for n in dict.fromkeys(batch.answer_T.tolist()) for t in given[n].tokens]
        assert batch.target_T.tolist() == found
    every = sorted(n for batch in batches for n in batch.answer_T.tolist())
    assert every == [n for n, one in enumerate(given) for _ in one.tokens]


def test_answers_to_one_question_compute_it_once() -> None:
    questions = [[100 + n] * 40 for n in range(2)]
    given = [answer(n, questions[n % 2], [3 + n, 4, 5]) for n in range(16)]
    batches = micro_batches(given, [0.0] * 16, micro_answers=8, micro_tokens=999)
    assert [len(batch.tree.ids_N) for batch in batches] == [40 + 8 * 2] * 2


def test_attention_that_is_not_plain_softmax_is_refused() -> None:
    made: Tree = tree([[1, 2]])[0]
    states = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="soft-capped"):
        attention.attend(None, states, states, states, None, scaling=1.0, tree=made, softcap=50.0)


def _deaf(model: Any) -> None:
    """Its layers do not hand on what they are given beside states."""
    for layer in model.base_model.layers:
        layer.self_attn.forward = functools.partial(_without_tree, layer.self_attn.forward)


def _without_tree(forward: Any, *given: Any, tree: Tree, **named: Any) -> Any:
    return forward(*given, **named)


def _recurrent(model: Any) -> None:
    """A layer's states go over from each token to the next, whatever row it is of."""
    layer = model.base_model.layers[0]
    layer.register_forward_hook(lambda module, given, states: states + states.cumsum(1) / 9)


@pytest.mark.parametrize(
    ("kind", "why"), [(_deaf, "is not told which"), (_recurrent, "tokens of a llama see other")]
)
def test_a_model_whose_rows_would_see_each_other_is_refused(
    kind: Any, why: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = transformers.AutoModelForCausalLM.from_pretrained

    def changed(*given: Any, **named: Any) -> Any:
        model = load(*given, **named)
        kind(model)
        return model

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", changed)
    with pytest.raises(ValueError, match=why):
        Policy(tiny_model)
