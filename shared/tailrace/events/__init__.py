"""The records that travel on the topics, typed.

One class per Avro record in ``schemas/``; a test derives the Avro schema of each class and holds it
against the newest file. Everything that produces or consumes imports its records from here, not
from the modules that hold them; how they become bytes is :mod:`tailrace.wire`, where they travel is
:mod:`tailrace.topics`.

Rules that keep every past log readable (FULL_TRANSITIVE): vocabularies are strings, a union is only
ever ``null`` and one type, only ids and times lack a default, integers are long and reals double.
Personal content (text, tokens, comments) sits in the nested nullable ``content`` record.
Token ids are packed little-endian int32, logprobs little-endian float32 (:mod:`tailrace.packing`).
"""

from tailrace.events.base import Coordinates, Struct
from tailrace.events.control import Alarm, Command, Tick
from tailrace.events.feedback import (
    Component,
    Feedback,
    FeedbackContent,
    Receipt,
    Trajectory,
    TrajectoryContent,
)
from tailrace.events.turns import (
    Output,
    OutputContent,
    Prompt,
    PromptContent,
    Route,
    VersionSpan,
    parameter,
)
from tailrace.events.versions import (
    Canary,
    Chunks,
    ModelAck,
    ModelUpdate,
    Range,
    Release,
    Step,
    StepInput,
)

__all__ = [
    "Alarm",
    "Canary",
    "Chunks",
    "Command",
    "Component",
    "Coordinates",
    "Feedback",
    "FeedbackContent",
    "ModelAck",
    "ModelUpdate",
    "Output",
    "OutputContent",
    "Prompt",
    "PromptContent",
    "RECORDS",
    "Range",
    "Receipt",
    "Release",
    "Route",
    "Step",
    "StepInput",
    "Struct",
    "Tick",
    "Trajectory",
    "TrajectoryContent",
    "VersionSpan",
    "parameter",
]

RECORDS: tuple[type[Struct], ...] = (
    Prompt,
    Output,
    Feedback,
    Trajectory,
    Receipt,
    Step,
    ModelUpdate,
    ModelAck,
    Release,
    Alarm,
    Command,
    Tick,
)
