"""One full record of each kind: the golden bytes of version 1 were made from these, once.

``python -m tests.golden.samples`` writes the bytes of every schema version that has none yet, from
:data:`SAMPLES`; it never touches a file that is there. A new version of a record gets a new sample
under its number; the old ones stay as they are for ever.
"""

from __future__ import annotations

from pathlib import Path

from tailrace import events, schemas
from tailrace.packing import pack_ids, pack_logprobs
from tailrace.wire import Wire

FOLDER = Path(__file__).parent

_TURN = "acme:chat-1~01HF7YAT00000"
_ROUTE = events.Route(channel="candidate", version=811, propensity=0.1)
_SPANS = [
    events.VersionSpan(version=811, start=0, end=2),
    events.VersionSpan(version=None, start=2, end=3),
]
_INPUT = events.StepInput(
    **{"partition": 3, "offset": 9, "trajectory_id": "t", "objective": "cispo", "weight": 0.5},
    **{"age_versions": 2, "reward": -1.0, "before": 0.5},
)
_IDS = pack_ids([1, -1, 49151])
_LOGPROBS = pack_logprobs([-0.5, -1.25, 0.0])

SAMPLES: dict[tuple[str, int], events.Struct] = {
    ("Prompt", 1): events.Prompt(
        interaction_id=_TURN,
        session_id="acme:chat-1",
        event_time_ms=1_700_000_000_000,
        tenant="acme",
        principal="key-7",
        user="somebody",
        model="m",
        sampling={"temperature": "0.7", "n": "2"},
        logprobs_mode="processed_logprobs",
        route=_ROUTE,
        learn=True,
        group_id="g",
        group_size=8,
        task="sum",
        tags={"app": "example"},
        content=events.PromptContent(messages='[{"role":"user"}]', prompt_token_ids=_IDS),
    ),
    ("Output", 1): events.Output(
        interaction_id=_TURN,
        choice=1,
        event_time_ms=1_700_000_000_001,
        engine="engine-0",
        finish_reason="stop",
        weight_versions=_SPANS,
        ttft_ms=12.5,
        total_ms=99.0,
        error="gone",
        untrainable="top_k",
        content=events.OutputContent(message='{"content":"ü"}', token_ids=_IDS, logprobs=_LOGPROBS),
    ),
    ("Feedback", 1): events.Feedback(
        feedback_id=f"{_TURN}!f",
        interaction_id=_TURN,
        choice=1,
        session_id="acme:chat-1",
        event_time_ms=1_700_000_000_002,
        tenant="acme",
        kind="boolean",
        metric="thumbs",
        boolean=False,
        number=-2.5,
        category="rude",
        preferred_over="0",
        action="retract",
        replaces=f"{_TURN}!e",
        source="grader",
        grader="judge",
        principal="key-7",
        user="somebody",
        tags={"app": "example"},
        content=events.FeedbackContent(text="too long"),
    ),
    ("Trajectory", 1): events.Trajectory(
        trajectory_id="dffdf4fb-a56b-5a3e-9b04-6ce5cc34dc2b",
        interaction_id=_TURN,
        choice=1,
        event_time_ms=1_700_000_000_003,
        revision=2,
        supersedes="before",
        reward=0.75,
        components=[
            events.Component(name="thumbs", value=1.0, weight=0.5),
            events.Component(name="length", value=None, weight=0.5, reason="no tokens"),
        ],
        reward_spec="abc",
        feedback_ids=[f"{_TURN}!f"],
        tenant="acme",
        principal="key-7",
        user="somebody",
        learn=True,
        route=_ROUTE,
        group_id="g",
        group_size=8,
        task="sum",
        tags={"app": "example"},
        sampling={"temperature": "0.7"},
        logprobs_mode="processed_logprobs",
        model="m",
        engine="engine-0",
        finish_reason="stop",
        weight_versions=_SPANS,
        error="gone",
        untrainable="top_k",
        prompt_log_time_ms=1,
        output_log_time_ms=2,
        first_feedback_log_time_ms=3,
        last_feedback_log_time_ms=4,
        closed_log_time_ms=5,
        content=events.TrajectoryContent(
            messages="[]", prompt_token_ids=_IDS, message="{}", token_ids=_IDS, logprobs=_LOGPROBS
        ),
    ),
    ("Trajectory", 2): events.Trajectory(
        trajectory_id="dffdf4fb-a56b-5a3e-9b04-6ce5cc34dc2b",
        interaction_id=_TURN,
        choice=1,
        event_time_ms=1_700_000_000_003,
        revision=2,
        supersedes="before",
        reward=0.75,
        components=[
            events.Component(name="thumbs", value=0.81, weight=0.5, reason="discounted 0.81"),
            events.Component(name="length", value=None, weight=0.5, reason="no tokens"),
        ],
        reward_spec="abc",
        feedback_ids=[f"{_TURN}!f"],
        preferred_over=[f"{_TURN}/0", "acme:chat-1~01HF7YAT11111/0"],
        tenant="acme",
        principal="key-7",
        user="somebody",
        learn=True,
        route=_ROUTE,
        group_id="g",
        group_size=8,
        task="sum",
        tags={"app": "example"},
        sampling={"temperature": "0.7"},
        logprobs_mode="processed_logprobs",
        model="m",
        engine="engine-0",
        finish_reason="stop",
        weight_versions=_SPANS,
        error="gone",
        untrainable="top_k",
        prompt_log_time_ms=1,
        output_log_time_ms=2,
        first_feedback_log_time_ms=3,
        last_feedback_log_time_ms=4,
        closed_log_time_ms=5,
        content=events.TrajectoryContent(
            messages="[]",
            prompt_token_ids=_IDS,
            message="{}",
            token_ids=_IDS,
            logprobs=_LOGPROBS,
            demonstration="shorter",
        ),
    ),
    ("Receipt", 1): events.Receipt(
        source=events.Coordinates(topic="feedback", partition=3, offset=2**40),
        subject_id=f"{_TURN}!f",
        event_time_ms=1_700_000_000_004,
        stage="rewards",
        outcome="joined",
        reason="first",
        trajectories=["a", "b"],
        model="m",
        version=812,
    ),
    ("Step", 1): events.Step(
        model="m",
        step=40,
        version=812,
        event_time_ms=1_700_000_000_005,
        inputs=[
            events.StepInput(
                partition=3, offset=9, trajectory_id="t", objective="cispo", weight=0.5
            )
        ],
        lr=2e-5,
        seed=7,
        threads=1,
        processes=1,
        code="0.1.0",
        torch="2.13.0",
        reseeded=True,
        figures={"ess": 0.9},
    ),
    ("Step", 2): events.Step(
        model="m",
        step=40,
        version=812,
        event_time_ms=1_700_000_000_005,
        inputs=[_INPUT],
        lr=2e-5,
        seed=7,
        threads=1,
        processes=1,
        code="0.1.0",
        torch="2.13.0",
        reseeded=True,
        figures={"ess": 0.9},
    ),
    ("ModelUpdate", 1): events.ModelUpdate(
        model="m",
        version=812,
        created_ms=1_700_000_000_006,
        base_version=811,
        base_digest="00",
        kind="delta",
        codec="plain-1",
        chunks=events.Chunks(partition=0, offsets=[5, 6]),
        uri="s3://bucket/key",
        bytes=1_800_000,
        sha256="11",
        digest="22",
        keyframe_version=800,
        config_digest="33",
        ranges=[events.Range(partition=3, start=1, end=10, held=[4], expired_to=2)],
        first_step=39,
        last_step=40,
        first_feedback_ms=1,
        last_feedback_ms=2,
        figures={"kl": 0.01},
        canary=events.Canary(prompt_tokens=_IDS, output_tokens=_IDS, logprobs=_LOGPROBS),
    ),
    ("ModelAck", 1): events.ModelAck(
        engine="engine-0",
        model="m",
        version=812,
        event_time_ms=1_700_000_000_007,
        state="applied",
        reason="none",
        apply_ms=250.0,
        pause_ms=180.5,
        digest="22",
    ),
    ("Release", 1): events.Release(
        model="m",
        event_time_ms=1_700_000_000_008,
        mode="pin",
        live=800,
        candidate=812,
        share=0.1,
        reason="tried",
    ),
    ("Release", 2): events.Release(
        model="m",
        event_time_ms=1_700_000_000_008,
        mode="pin",
        live=800,
        candidate=812,
        share=0.1,
        reason="answers grew long",
        withdrawn_to=811,
        data="retrain",
        command=events.Coordinates(topic="control", partition=1, offset=4),
    ),
    ("Alarm", 1): events.Alarm(
        stream="reward",
        event_time_ms=1_700_000_000_009,
        detector="adwin",
        state="cleared",
        value=0.5,
        baseline=0.25,
        seen=1000,
        source=events.Coordinates(topic="trajectories", partition=3, offset=9),
        message="reward is steady",
    ),
    ("Command", 1): events.Command(
        model="m",
        event_time_ms=1_700_000_000_010,
        command="rollback",
        version=800,
        principal="key-7",
        reason="worse",
        parameters={"data": "skip"},
    ),
    ("Tick", 1): events.Tick(
        partition=3, event_time_ms=1_700_000_000_011, ends={"outputs": 5, "feedback": 6}
    ),
}


def file_of(record: str, version: int) -> Path:
    """Where the golden bytes of a version lie."""
    return FOLDER / f"{record}.v{version}.bin"


def write() -> list[Path]:
    """Write what is missing, in today's encoding; returns the new files."""
    written = []
    for (record, version), sample in SAMPLES.items():
        file = file_of(record, version)
        if file.exists():
            continue
        newest = max(schemas.load(record))
        if version != newest:
            raise ValueError(f"{record}: version {version} can only be made while it is the newest")
        file.write_bytes(Wire().encode(sample))
        written.append(file)
    return written


if __name__ == "__main__":
    for file in write():
        print(file)
