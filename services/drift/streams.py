"""Which numbers the bank watches in which record. Pure; called by :mod:`.drift` per record.

=================  ============  ================================================================
stream             from          value
=================  ============  ================================================================
reward             Trajectory    the reward; first revisions only, and only where there is one
answer_length      Output        log(1 + tokens): lengths are skewed, their logarithms hardly
behaviour_logprob  Output        mean logprob of the answer's tokens, nats
thumbs_down        Feedback      1.0 for a user's false, 0.0 for a true
=================  ============  ================================================================

Infrastructure failures and answers without content give nothing: they say nothing about the model.
Nor do rollouts: how much of them there is, and of which tasks, is nothing that users do.
"""

from __future__ import annotations

import math

from tailrace import events, ids, packing

REWARD = "reward"
ANSWER_LENGTH = "answer_length"
BEHAVIOUR_LOGPROB = "behaviour_logprob"
THUMBS_DOWN = "thumbs_down"
_LARGEST = 1e60
STREAMS = (REWARD, ANSWER_LENGTH, BEHAVIOUR_LOGPROB, THUMBS_DOWN)


def values(record: events.Struct) -> list[tuple[str, float]]:
    """The (stream, value) pairs of one record; see :func:`usable`.

    Raises ValueError where token ids or logprobs are torn.

    >>> values(events.Feedback(feedback_id="a:b!c", event_time_ms=0, kind="boolean", boolean=False))
    [('thumbs_down', 1.0)]
    """
    found: list[tuple[str, float]] = []
    match record:
        case events.Trajectory() | events.Output() if ids.is_of_rollouts(record.interaction_id):
            pass
        case events.Trajectory(revision=0, supersedes=None, reward=float() | int() as reward):
            found.append((REWARD, float(reward)))
        case events.Output(error=None, content=events.OutputContent() as content):
            tokens = len(packing.unpack_ids(content.token_ids))
            if tokens:
                found.append((ANSWER_LENGTH, math.log1p(tokens)))
            logprobs = packing.unpack_logprobs(content.logprobs)
            if logprobs:
                found.append((BEHAVIOUR_LOGPROB, sum(logprobs) / len(logprobs)))
        case events.Feedback(kind="boolean", action="set", source="user", boolean=bool() as up):
            found.append((THUMBS_DOWN, 0.0 if up else 1.0))
    return found


def usable(value: float) -> bool:
    """Whether a detector can take this value: a number whose square's variance is one too."""
    return math.isfinite(value) and abs(value) <= _LARGEST
