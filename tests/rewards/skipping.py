"""A reward worker whose consumer loses feedback: the first record, or all of it."""

from __future__ import annotations

from pathlib import Path
import sys
import tomllib
from typing import Any

from services.rewards import __main__ as rewards
from services.rewards.consumer import StrictConsumer
from services.rewards.producer import StrictTransport

settings = tomllib.loads(Path(sys.argv[sys.argv.index("--settings") + 1]).read_text())
lost = (Path(settings["state_dir"]) / "lost").read_text()


class Skipping(StrictConsumer):
    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:
        records, active = await super()._wait_next_records(timeout)
        for tp in [tp for tp in records or () if tp.topic.endswith("feedback")]:
            kept = [] if lost == "all" else [r for r in records[tp] if r.offset > 0]
            records = {**records, tp: kept}
        return records, active


class SkippingTransport(StrictTransport):
    Consumer = Skipping


sys.exit(rewards.main(transport=SkippingTransport))
