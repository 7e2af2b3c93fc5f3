"""The rows that TRL's SFT and KTO trainers load as they are: conversations of texts. Pure.

``sft``     prompt, completion: what a person wrote in place of an answer, else the answer
``kto``     prompt, completion, label: whether the reward is above a bound
``dpo``     prompt, chosen, rejected (:mod:`.pairs`)
``reward``  the same: with an explicit prompt, as TRL's reward trainer takes it

Each row has ids beside it, which those trainers pass over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tailrace.events import Trajectory
from tailrace.export import texts
from tailrace.export.texts import Unfit

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("parquet", "jsonl", "sft", "dpo", "kto", "reward")
Row = dict[str, Any]


def sft(one: Trajectory) -> Row:
    """What a model is to say. Raises Unfit."""
    asked = texts.prompt(one)
    said = texts.demonstration(one)
    if said is None:
        if one.untrainable is not None:
            raise Unfit("untrainable")
        said = texts.answer(one)
    return {"prompt": asked, "completion": said, "trajectory_id": one.trajectory_id}


def kto(one: Trajectory, good_above: float) -> Row:
    """An answer and whether it was good. Raises Unfit."""
    asked, said = texts.prompt(one), texts.answer(one)
    if one.untrainable is not None:
        raise Unfit("untrainable")
    if one.reward is None:
        raise Unfit("no_reward")
    label = one.reward > good_above
    return {
        "prompt": asked,
        "completion": said,
        "label": label,
        "trajectory_id": one.trajectory_id,
    }


def table(form: str, rows: list[Row]) -> pa.Table:
    """Rows of a layout as a table."""
    import pyarrow as pa

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    columns = {
        "sft": [("prompt", messages), ("completion", messages), ("trajectory_id", pa.string())],
        "kto": [
            *(("prompt", messages), ("completion", messages), ("label", pa.bool_())),
            ("trajectory_id", pa.string()),
        ],
    }
    pair = [
        *(("prompt", messages), ("chosen", messages), ("rejected", messages)),
        *(
            ("reward_difference", pa.float64()),
            ("chosen_id", pa.string()),
            ("rejected_id", pa.string()),
        ),
        ("by", pa.string()),
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(columns.get(form, pair)))
