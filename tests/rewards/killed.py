"""A reward worker that kills itself at the step named in ``<state_dir>/step``.

It does so at the first such step after a verdict went into the table: something is at stake then.
``assigned`` is the end of its first rebalance, whatever is at stake. ``lose changelog`` and
``lose outputs`` let everything through but that, and kill before the commit.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
import signal
import sys
import tomllib
from typing import Any

from services.rewards import __main__ as rewards
from services.rewards.producer import StrictProducer, StrictTransport

settings = tomllib.loads(Path(sys.argv[sys.argv.index("--settings") + 1]).read_text())
step = (Path(settings["state_dir"]) / "step").read_text()
armed = step == "assigned"


def on_step(name: str) -> None:
    if armed and name == step:
        os.kill(os.getpid(), signal.SIGKILL)


class Losing(StrictProducer):
    def send_soon(self, fut: Any) -> None:
        global armed
        armed = armed or b"/verdict/" in (fut.message.key or b"")
        super().send_soon(fut)

    async def send(self, topic: str, *arguments: Any, **keywords: Any) -> Any:
        changelog = topic.endswith("-changelog")
        if armed and step == ("lose changelog" if changelog else "lose outputs"):
            return asyncio.Future()
        return await super().send(topic, *arguments, **keywords)

    async def flush(self) -> None:
        if armed and step.startswith("lose"):
            await asyncio.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        await super().flush()


class LosingTransport(StrictTransport):
    Producer = Losing


sys.exit(rewards.main(step=on_step, transport=LosingTransport))
