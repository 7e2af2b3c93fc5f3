"""A reward worker whose first assignment never ends."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from services.rewards import __main__ as rewards
from services.rewards.consumer import StrictConsumer
from services.rewards.producer import StrictTransport


class Hanging(StrictConsumer):
    async def on_partitions_assigned(self, *arguments: Any, **keywords: Any) -> None:
        await asyncio.Event().wait()


class HangingTransport(StrictTransport):
    Consumer = Hanging


sys.exit(rewards.main(transport=HangingTransport))
