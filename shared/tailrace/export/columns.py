"""All of a trajectory as columns, for Parquet, and as a document, for JSON lines.

One table says both. Messages are JSON texts, as they are on the log: they hold what no fixed shape
has (tools, images). Token ids and logprobs are lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from tailrace.events import Trajectory, TrajectoryContent
from tailrace.packing import unpack_ids, unpack_logprobs

if TYPE_CHECKING:
    import pyarrow as pa

_NONE = TrajectoryContent()
_SHAPED = ("tags", "components", "versions")
COLUMNS: tuple[tuple[str, str, Callable[[Trajectory], Any]], ...] = (
    ("trajectory_id", "string", lambda t: t.trajectory_id),
    ("interaction_id", "string", lambda t: t.interaction_id),
    ("session_id", "string", lambda t: t.interaction_id.rpartition("~")[0]),
    ("choice", "int64", lambda t: t.choice),
    ("revision", "int64", lambda t: t.revision),
    ("reward", "double", lambda t: t.reward),
    ("components", "components", lambda t: t.components),
    ("reward_spec", "string", lambda t: t.reward_spec),
    ("feedback_ids", "strings", lambda t: t.feedback_ids),
    ("preferred_over", "strings", lambda t: t.preferred_over),
    ("tenant", "string", lambda t: t.tenant),
    ("principal", "string", lambda t: t.principal),
    ("user", "string", lambda t: t.user),
    ("learn", "bool", lambda t: t.learn),
    ("channel", "string", lambda t: t.route.channel if t.route else None),
    ("group_id", "string", lambda t: t.group_id),
    ("task", "string", lambda t: t.task),
    ("tags", "tags", lambda t: t.tags),
    ("sampling", "tags", lambda t: t.sampling),
    ("model", "string", lambda t: t.model),
    ("engine", "string", lambda t: t.engine),
    ("finish_reason", "string", lambda t: t.finish_reason),
    ("versions", "versions", lambda t: t.weight_versions),
    ("error", "string", lambda t: t.error),
    ("untrainable", "string", lambda t: t.untrainable),
    ("prompt_time", "time", lambda t: t.prompt_log_time_ms),
    ("output_time", "time", lambda t: t.output_log_time_ms),
    ("closed_time", "time", lambda t: t.closed_log_time_ms),
    ("messages", "string", lambda t: (t.content or _NONE).messages),
    ("message", "string", lambda t: (t.content or _NONE).message),
    ("demonstration", "string", lambda t: (t.content or _NONE).demonstration),
    ("prompt_token_ids", "ids", lambda t: (t.content or _NONE).prompt_token_ids),
    ("token_ids", "ids", lambda t: (t.content or _NONE).token_ids),
    ("logprobs", "logprobs", lambda t: (t.content or _NONE).logprobs),
)
"""Name, kind, where it comes from. Times are ms since 1970 on the log."""


def table(rows: Sequence[Trajectory]) -> pa.Table:
    """Trajectories as a table."""
    import pyarrow as pa

    component = pa.struct(
        [("name", pa.string()), ("value", pa.float64()), ("weight", pa.float64())]
        + [("reason", pa.string())]
    )
    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "strings": pa.list_(pa.string()),
        "time": pa.timestamp("ms", tz="UTC"),
        "tags": pa.map_(pa.string(), pa.string()),
        "components": pa.list_(component),
        "versions": pa.list_(pa.int64()),
    }
    made = {}
    for name, kind, value in COLUMNS:
        values = [value(row) for row in rows]
        if kind == "ids":
            made[name] = _packed(values, pa.int32())
        elif kind == "logprobs":
            made[name] = _packed(values, pa.float32())
        else:
            if kind in _SHAPED:
                values = [_plain(kind, each) for each in values]
            made[name] = pa.array(values, types[kind])
    return pa.table(made)


def document(row: Trajectory) -> dict[str, Any]:
    """A trajectory as a JSON-ready object."""
    made = {}
    for name, kind, value in COLUMNS:
        said = value(row)
        if kind == "ids":
            said = None if said is None else unpack_ids(said)
        elif kind == "logprobs":
            said = None if said is None else unpack_logprobs(said)
        made[name] = dict(said) if kind == "tags" else _plain(kind, said)
    return made


def _plain(kind: str, value: Any) -> Any:
    match kind:
        case "tags":
            return list(value.items())
        case "components":
            return msgspec.to_builtins(value)
        case "versions":
            return list(dict.fromkeys(span.version for span in value))
        case _:
            return value


def _packed(values: Sequence[bytes | None], kind: pa.DataType) -> pa.Array:
    """Packed 4-byte numbers as lists, without a look at any of them. A torn one is null."""
    import pyarrow as pa

    sizes = [None if v is None or len(v) % 4 else len(v) // 4 for v in values]
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([size or 0 for size in sizes], out=offsets[1:])
    bytes_ = b"".join(v for v, size in zip(values, sizes, strict=True) if v and size is not None)
    numbers = pa.Array.from_buffers(kind, len(bytes_) // 4, [None, pa.py_buffer(bytes_)])
    mask = pa.array([size is None for size in sizes], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), numbers, mask=mask)
