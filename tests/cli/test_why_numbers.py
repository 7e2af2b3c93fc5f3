"""Tokens and advantages of ``tailrace why``, whatever the bytes and the ledger say."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from tailrace import events
from tailrace.why import ledger
from tailrace.why.interaction import tokens

SPANS = st.lists(
    st.builds(
        events.VersionSpan,
        version=st.none() | st.integers(0, 9),
        start=st.integers(-3, 12),
        end=st.integers(-3, 12),
    ),
    max_size=4,
)


@given(st.binary(max_size=40), st.binary(max_size=40), SPANS)
@example(b"\0" * 12, b"", [events.VersionSpan(version=1, start=0, end=-1)])
def test_a_token_has_the_version_of_the_last_span_over_it(
    packed: bytes, logprobs: bytes, spans: list[events.VersionSpan]
) -> None:
    found = tokens(packed, logprobs, spans)
    assert len(found) == (len(packed) // 4 if len(packed) % 4 == 0 else 0)
    known = len(logprobs) // 4 if len(logprobs) % 4 == 0 else 0
    for place, token in enumerate(found):
        over = [span.version for span in spans if span.start <= place < span.end]
        assert token.version == (over[-1] if over else None)
        assert (token.logprob is None) == (place >= known)


INPUTS = st.lists(
    st.builds(
        events.StepInput,
        trajectory_id=st.just(""),
        objective=st.sampled_from([None, "reinforce", "tis", "kto", "sft", "dpo"]),
        reward=st.none() | st.floats(-1, 1),
        before=st.none() | st.floats(-1, 1),
    ),
    max_size=12,
)


@given(INPUTS)
def test_what_is_compared_within_a_step_adds_up_to_nothing(inputs: list[events.StepInput]) -> None:
    found = ledger.advantages(events.Step(event_time_ms=1, inputs=inputs))
    assert len(found) == len(inputs)
    assert abs(sum(a.value for a in found if a is not None and a.basis == "step")) < 1e-9
    for one, advantage in zip(inputs, found, strict=True):
        if advantage is None:
            assert one.reward is None
        elif advantage.basis == "revision":
            assert one.reward is not None and one.before is not None
            assert advantage.value == one.reward - one.before
        elif advantage.basis != "step":
            assert abs(advantage.value) == 1.0
