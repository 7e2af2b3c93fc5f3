"""The Faust app that the shell runs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faust

from services.rewards.outbox import Outbox
from services.rewards.producer import StrictTransport
from services.rewards.rebuild import GROUP
from services.rewards.settings import Settings
from services.rewards.table import RECORD_BYTES

SOURCE = "rewards"


def new_app(
    settings: Settings,
    partitions: int,
    transport: type[StrictTransport],
    outbox: Outbox,
    step: Callable[[str], None],
) -> faust.App:
    """The Faust app: at least once, no declared topics, no leader, no web."""

    settings.state_dir.mkdir(parents=True, exist_ok=True)

    class App(faust.App):
        def _new_transport(self) -> Any:
            made = transport(self.conf.broker_consumer, self)
            made.step = step
            made.outbox = outbox
            return made

    app = App(
        settings.prefix + GROUP,
        broker=";".join(f"kafka://{host.strip()}" for host in settings.kafka.split(",")),
        datadir=settings.state_dir / SOURCE,
        store="memory://",  # a store on disk would have to keep its offsets with our own writes
        topic_partitions=partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        web_tables_enabled=False,
        table_standby_replicas=0,  # Faust 0.15.3 empties the queue they are read from
        broker_commit_interval=settings.commit_s,
        broker_session_timeout=10.0,
        broker_heartbeat_interval=3.0,
        broker_rebalance_timeout=settings.stall_s,
        consumer_group_instance_id=settings.instance and settings.prefix + settings.instance,
        consumer_max_fetch_size=RECORD_BYTES,
        stream_recovery_delay=0.0,
    )
    app.finalize()
    return app
