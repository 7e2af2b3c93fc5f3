"""A reward worker that kills itself at the step named in ``<state_dir>/step``.

It does so at the first such step after a verdict went into the table: something is at stake then.
``assigned`` is the end of its first rebalance, whatever is at stake. ``lose changelog`` and
``lose outputs`` let everything through but that, and kill before the commit.
"""

from __future__ import annotations

from collections.abc import Mapping
import os
from pathlib import Path
import signal
import sys
import tomllib

from services.rewards import __main__ as rewards
from services.rewards.outbox import Outbox

settings = tomllib.loads(Path(sys.argv[sys.argv.index("--settings") + 1]).read_text())
step = (Path(settings["state_dir"]) / "step").read_text()
armed = step == "assigned"


def on_step(name: str) -> None:
    if armed and name == step:
        os.kill(os.getpid(), signal.SIGKILL)


class Losing(Outbox):
    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Mapping[str, bytes] | None = None,
    ) -> None:
        global armed
        armed = armed or b"/verdict/" in (key or b"")
        changelog = topic.endswith("-changelog")
        if not (armed and step == ("lose changelog" if changelog else "lose outputs")):
            super().append(topic, partition, key, value, headers)

    async def flush(self) -> None:
        await super().flush()
        if armed and step.startswith("lose"):
            os.kill(os.getpid(), signal.SIGKILL)


sys.exit(rewards.main(step=on_step, outbox=Losing))
