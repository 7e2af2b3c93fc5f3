"""Processes that train the tiny model together.

    python -m tests.trainer.mates MODEL FOLDER SETTINGS

Two of them, by the agent of torchrun; forked, so that what is heavy is imported once. Each reads
its own partitions, takes :data:`STEPS` steps with the other, and leaves in FOLDER what tests
compare: ``seen`` of each process, ``published`` and ``step.json`` of the first, and the
checkpoint that both wrote. Then the agent says ``together`` and starts the trainer's own ``main``
as two, with these settings, until SIGTERM; it starts them again once. Their ids are in FOLDER.
"""

from __future__ import annotations

from collections.abc import Container
import contextlib
import json
import os
from pathlib import Path
import sys

import msgspec
import torch._dynamo  # noqa: F401  FSDP does it else, in each process
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from services.trainer import __main__ as service
from services.trainer import crew, ranks  # noqa: F401  crew: as _dynamo
from services.trainer.answer import Answer, read
from services.trainer.learner import Learner, deterministic
from services.trainer.ranks import Ranks, ShardedPolicy
from services.trainer.settings import Settings
import services.trainer.trainer  # noqa: F401  main does it else, and what it needs
from tailrace import ids, topics
from tailrace.events import Trajectory
from tailrace.log.memory import MemoryLog
from tailrace.stream import Decoder, read_all
from tailrace.weights import folder
from tailrace.weights.tensors import digest
from tailrace.wire import Wire
from tests.trainer import traffic
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
    mates.leave()


def serve(out: Path, settings: Path) -> None:
    """One process of the trainer; it ends as a program does, of which the agent wants no value."""
    (out / f"pid-{os.environ['RANK']}").write_text(str(os.getpid()))
    os._exit(service.main(["--settings", str(settings)]))


def launch(restarts: int) -> LaunchConfig:
    """Of two processes on this machine."""
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="mates",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=restarts,
        monitor_interval=0.1,
        start_method="fork",
    )


if __name__ == "__main__":
    model, out, settings = map(Path, sys.argv[1:])
    elastic_launch(launch(restarts=0), main)(model, out)
    print("together", flush=True)
    with contextlib.suppress(SignalException):
        elastic_launch(launch(restarts=1), serve)(out, settings)
