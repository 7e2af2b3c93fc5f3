"""The records of a whole group: a Prompt, an Output and a Feedback for each answer. Pure.

All ids follow from whose process it was (``identity``), the group's number and when it began, so
that a group made again from the same answers is the same records: whoever counts by id counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
import json

from services.rollouts.answer import Answer
from services.rollouts.desk import Group
from tailrace import events, ids, packing

LOGPROBS_MODE = "processed_logprobs"


def recorded(temperature: float, max_tokens: int) -> dict[str, str]:
    """Prompt.sampling: every parameter that is not the default, as JSON text; n always."""
    given = {"max_tokens": json.dumps(max_tokens), "n": "1"}
    return given if temperature == 1.0 else given | {"temperature": json.dumps(temperature)}


def interaction(group: Group, sample: int, *, tenant: str, identity: str) -> str:
    """The id of one sample of a group."""
    session = ids.rollouts_session(tenant, identity, group.number)
    return ids.new_interaction(session, group.began_ms, sample)


def of_group(
    group: Group,
    scores: Sequence[float],
    *,
    tenant: str,
    identity: str,
    model: str,
    temperature: float,
) -> list[events.Prompt | events.Output | events.Feedback]:
    """All of a whole group, each sample's three together, in the samples' order. Its session is
    the group's id too."""
    session = ids.rollouts_session(tenant, identity, group.number)
    benchmark, task = group.item.benchmark, group.item.task
    mark = benchmark.verifier.mark
    found: list[events.Prompt | events.Output | events.Feedback] = []
    for sample, (answer, score) in enumerate(zip(group.answers, scores, strict=True)):
        assert answer is not None, "the group is not whole"
        name = interaction(group, sample, tenant=tenant, identity=identity)
        prompt = events.Prompt(
            interaction_id=name,
            session_id=session,
            event_time_ms=answer.began_ms,
            tenant=tenant,
            model=model,
            sampling=recorded(temperature, benchmark.verifier.max_tokens),
            logprobs_mode=LOGPROBS_MODE,
            route=events.Route(channel="live", propensity=1.0),
            learn=True,
            group_id=session,
            group_size=len(group.answers),
            task=benchmark.name,
            tags={"task_id": task.id},
            content=events.PromptContent(
                messages=json.dumps(task.asked, ensure_ascii=False),
                prompt_token_ids=packing.pack_ids(answer.prompt_token_ids),
            ),
        )
        feedback = events.Feedback(
            feedback_id=ids.feedback_of(name, f"{benchmark.name}.0.{mark}"),
            interaction_id=name,
            event_time_ms=answer.ended_ms,
            tenant=tenant,
            kind="number",
            metric=benchmark.verifier.metric,
            number=score,
            source="grader",
            grader=benchmark.name,
        )
        found += [prompt, _output(name, answer), feedback]
    return found


def _output(interaction: str, answer: Answer) -> events.Output:
    message = {"role": "assistant", "content": answer.text}
    return events.Output(
        interaction_id=interaction,
        event_time_ms=answer.ended_ms,
        engine=answer.engine,
        finish_reason=answer.finish_reason,
        weight_versions=answer.spans,
        total_ms=float(answer.ended_ms - answer.began_ms),
        content=events.OutputContent(
            message=json.dumps(message, ensure_ascii=False),
            token_ids=packing.pack_ids(answer.token_ids),
            logprobs=packing.pack_logprobs(answer.logprobs),
        ),
    )
