"""Processes that train the tiny model together.

    python -m tests.trainer.mates MODEL FOLDER

Two of them, by the agent of torchrun; forked, so that what is heavy is imported once. Each reads
its own partitions, takes :data:`STEPS` steps with the other, and leaves in FOLDER what tests
compare: ``seen`` of each process, ``published`` and ``step.json`` of the first, and the
checkpoint that both wrote. Then the first is a Trainer on a log of its own, the other follows, and
the Trainer is lost and made again: ``crew.json`` and the state directory tell what came of it.
"""

from __future__ import annotations

from collections.abc import Container
import json
from pathlib import Path
import sys
from typing import Any

import msgspec
import torch._dynamo  # noqa: F401  FSDP does it else, in each process
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from services.trainer import crew, ranks
from services.trainer.answer import Answer, read
from services.trainer.learner import Learner, deterministic
from services.trainer.ranks import Ranks, ShardedPolicy
from services.trainer.settings import Settings
from services.trainer.trainer import Trainer
from tailrace import audit, ids, topics
from tailrace.events import Trajectory
from tailrace.log.memory import MemoryLog
from tailrace.stream import Decoder, read_all
from tailrace.weights import folder
from tailrace.weights.tensors import digest
from tailrace.wire import Wire
from tests.trainer import traffic
from tests.trainer.conftest import Clock
from tests.trainer.test_learner import LIMITS
from tests.trainer.traffic import MODEL

STEPS = 3
PARTITIONS = range(4)
SETTINGS = Settings(model=MODEL, lr=1e-3, micro_answers=3)
_PER_STEP = 6
"""Groups of a step; each has four answers, and a session of its own."""


def arrived(partitions: Container[int]) -> list[list[Answer]]:
    """What a process finds on these partitions of the log: the answers of each step, and of one
    after them."""
    log = MemoryLog()
    traffic.make_topics(log, partitions=len(PARTITIONS))
    traffic.put(log, [_of_group(number) for number in range((STEPS + 1) * _PER_STEP * 4)])
    decoder = Decoder(log, Wire())
    found: list[list[Answer]] = [[] for _ in range(STEPS + 1)]
    name = topics.TRAJECTORIES.name
    ends = {p: end for p, end in log.ends(name).items() if p in partitions}
    for record in read_all(log, name, ends=ends):
        one = read(record, decoder.decode(record), LIMITS)
        assert isinstance(one, Answer)
        found[one.closed_ms].append(msgspec.structs.replace(one, slice=one.session))
    return found


def _of_group(number: int) -> Trajectory:
    """Its step is when it was closed."""
    made = traffic.trajectory(number)
    group = f"default:g{number // 4}"
    interaction = ids.new_interaction(group, traffic.TIME_MS)[:-13] + f"{number:013d}"
    return msgspec.structs.replace(
        made,
        interaction_id=interaction,
        trajectory_id=ids.trajectory(interaction, 0, ["r0"]),
        closed_log_time_ms=number // 4 // _PER_STEP,
    )


def main(model: Path, out: Path) -> None:
    deterministic(1)
    mates = Ranks.join()
    mine = mates.own(PARTITIONS)
    steps = arrived(mine)
    policy = ShardedPolicy(model, ranks=mates, compute="float32")
    learner = Learner(policy, SETTINGS)
    figures = {}
    for step in range(STEPS):
        given = mates.gather(steps[step])
        figures = learner.step(given, lr=SETTINGS.lr, objective="cispo")
    published = policy.published()
    seen = {
        "partitions": mine,
        "sessions": sorted({one.session for each in steps for one in each}),
        "parts": sum(master.numel() for master in policy.masters.values()),
        "digest": digest(published),
    }
    (out / f"seen-{mates.number}.json").write_text(json.dumps(seen))
    ranks.save(learner, out / "checkpoint")
    again = Learner(ShardedPolicy(model, ranks=mates, compute="float32"), SETTINGS)
    ranks.load(again, out / "checkpoint", learner.updates)
    given = mates.gather(steps[STEPS])
    ends = []
    for each in (learner, again):
        each.steps = STEPS
        each.step(given, lr=SETTINGS.lr, objective="cispo")
        ends.append(digest(each.policy.published()))
    if mates.number == 0:
        folder.write(out / "published", published, {})
        (out / "step.json").write_text(json.dumps({"figures": figures, "ends": ends}))
    if mates.number:
        crew.follow(mates, model, crew_settings(model, out))
    else:
        found = train(crew_settings(model, out), learner_of=crew.leading(mates))
        (out / "crew.json").write_text(json.dumps(found))
        mates.tell("end")
    mates.leave()


def crew_settings(model: Path, out: Path) -> Settings:
    """Of a Trainer that checkpoints each version but the last."""
    base = {"model": MODEL, "model_dir": model, "state_dir": out / "state", "compute": "float32"}
    return Settings(**base, batch_answers=8, micro_answers=3, lr=1e-3, checkpoint_versions=2)


def train(settings: Settings, **more: Any) -> dict[str, Any]:
    """Three versions, then a second Trainer that makes the third again and a fourth."""
    clock = Clock()
    log = MemoryLog(clock.wall_ms)
    traffic.make_topics(log)

    def trainer() -> Trainer:
        return Trainer(log, Wire(), settings, clock=clock, wall_ms=clock.wall_ms, **more)

    first = trainer()
    traffic.put(log, [traffic.trajectory(number) for number in range(24)])
    while first.head.version < 3:
        first.turn(0.0)
    first._checkpoints.close()  # it is lost: nothing else of it is finished
    second = trainer()
    recovery, head = second.recovery, second.head
    traffic.put(log, [traffic.trajectory(number) for number in range(24, 32)])
    second.turn(0.0)
    second.stop()
    second.close()
    return {
        "replayed": recovery.replayed,
        "reseeded": recovery.reseeded,
        "same": head.digest == first.head.digest,
        "end": (second.head.version, second.head.digest),
        "audit": audit.read(log, Wire(), model=MODEL).report(None).ok,
    }


if __name__ == "__main__":
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="mates",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
        start_method="fork",
    )
    elastic_launch(config, main)(Path(sys.argv[1]), Path(sys.argv[2]))
