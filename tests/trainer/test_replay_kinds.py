"""Whatever is trained, and by what, is trained again to the same digest."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.trainer.conftest import Mill
from tests.trainer.lives import run
from tests.trainer.test_replay import again, replay
from tests.trainer.test_routing import ALL, lived
from tests.trainer.traffic import sampled, trajectory


def test_every_kind_of_answer_under_an_anchor_and_a_regression(mill: Mill) -> None:
    changes: dict[str, Any] = {"kl_coefficient": 0.1, "baseline": "regression"}
    whole = lived(mill, kills=False, **changes)
    mill.settings = msgspec.structs.replace(mill.settings, **(changes | ALL))
    result = replay(mill, 0, whole[-1][0])
    assert result.equal, result
    kinds = {i.objective for step in again(mill).steps() for i in step.inputs}
    assert kinds == {"cispo", "tis", "dpo", "sft"}

    # A preference is left out whole; what was compensated for is not compensated again.
    worse = trajectory(20, choice=1)
    result = replay(mill, 0, whole[-1][0], into="less.", without=(worse.interaction_id,))
    assert not result.equal and result.left_out == 2
    assert "dpo" not in {i.objective for s in again(mill, "less.").steps() for i in s.inputs}


@pytest.mark.parametrize("begin", [0, 3])
def test_an_adapter(mill: Mill, begin: int) -> None:
    mill.settings = msgspec.structs.replace(
        mill.settings, lora_rank=4, lora_modules=("q_proj", "down_proj"), compute="float32"
    )
    trainer = mill.trainer()
    mill.put(*(trajectory(n) for n in range(8)))
    run(trainer)
    mill.put(*(sampled(n, 1) for n in range(8, 24)))
    run(trainer)
    adapters = [u.version for u in mill.versions() if u.kind == "adapter"]
    assert adapters == [2, 4, 6] and trainer.head.version == 5
    assert replay(mill, begin, 5).equal
