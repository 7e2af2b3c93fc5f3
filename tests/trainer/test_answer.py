"""What one record is good for, by itself."""

from __future__ import annotations

import msgspec
import pytest

from tailrace.packing import pack_logprobs
from tests.trainer.test_intake import Reading
from tests.trainer.traffic import trajectory


@pytest.mark.parametrize("logprob", [-1e4, 0.01, float("-inf"), float("nan")])
def test_logprobs_that_no_engine_has_sampled_are_untrainable(logprob: float) -> None:
    content = trajectory(1).content
    assert content is not None and content.token_ids is not None
    count = len(content.token_ids) // 4
    spoiled = pack_logprobs([logprob] + [-1.0] * (count - 1))
    event = trajectory(1, content=msgspec.structs.replace(content, logprobs=spoiled))
    assert Reading().outcome(event) == ("untrainable", "logprobs")
