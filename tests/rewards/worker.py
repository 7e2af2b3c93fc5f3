"""A reward worker as a process of its own, and what a test says to it and hears from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import subprocess
import sys
import time
from typing import TypeVar
from urllib.request import urlopen

from tailrace import events, ids, topics
from tailrace.log.kafka import KafkaLog
from tailrace.stream import Writer, publish_schemas, read_all
from tailrace.wire import Wire

CHECKOUT = Path(__file__).parents[2]
PARTITIONS = 2
SPEC = """
wait_s = 0.3
orphan_s = 2
[metrics.thumbs]
true = 1.0
false = -1.0
"""
T = TypeVar("T")


class Worker:
    """``python -m services.rewards`` (or a test's own program) on a folder's settings."""

    def __init__(
        self,
        folder: Path,
        bootstrap: str,
        prefix: str,
        *,
        instance: str = "",
        spec: str = SPEC,
        stall_s: float = 4.0,
        metrics_port: int = 0,
    ) -> None:
        self.folder = folder
        self.log_file = folder / "worker.log"
        self._metrics_port = metrics_port
        (folder / "spec.toml").write_text(spec)
        (folder / "settings.toml").write_text(
            f'kafka = "{bootstrap}"\nprefix = "{prefix}"\nstate_dir = "{folder}"\n'
            + (f"metrics_port = {metrics_port}\n" if metrics_port else "")
            + f'[rewards]\nspec = "{folder}/spec.toml"\ntick_s = 0.25\nidle_tick_s = 1\n'
            f"commit_s = 0.4\nskew_ms = 50\nstall_s = {stall_s}\n"
            + (f'instance = "{instance}"\n' if instance else "")
        )
        self.child: subprocess.Popen[bytes] | None = None

    def start(self, *program: str) -> None:
        command = [sys.executable, "-m", *(program or ("services.rewards",))]
        with self.log_file.open("ab") as out:
            self.child = subprocess.Popen(
                [*command, "--settings", str(self.folder / "settings.toml")],
                cwd=CHECKOUT,
                stdout=out,
                stderr=out,
            )

    def gauge(self, name: str) -> float:
        """What it says of itself: a gauge without labels."""
        with urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])

    def ended(self) -> int | None:
        assert self.child is not None
        return self.child.poll()

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()

    def stop(self) -> int:
        assert self.child is not None
        self.child.terminate()
        return self.child.wait(30)


class Bench:
    """Topics under a prefix, written and read through the library."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.log, self.wire, self.prefix = KafkaLog(bootstrap), Wire(), prefix
        self.log.create(topics.TOPICS, prefix=prefix, session_partitions=PARTITIONS)
        publish_schemas(self.log, prefix=prefix)
        self.producer = self.log.producer()
        self.writer = Writer(self.producer, self.wire, prefix=prefix, source="test")

    def turn(
        self, session: str, thumb: tuple[str, bool] | None = None, trace: str | None = None
    ) -> str:
        """A prompt and its output; gives the interaction id. A thumb comes first, so in time."""
        now_ms = time.time_ns() // 1_000_000
        interaction = ids.new_interaction(session, now_ms)
        if thumb is not None:
            self.thumb(interaction, *thumb)
            self.producer.flush()
        self.writer.write(
            topics.PROMPTS,
            events.Prompt(
                interaction_id=interaction,
                session_id=session,
                event_time_ms=now_ms,
                tenant=ids.tenant_of(session),
                learn=True,
                content=events.PromptContent(messages="[]", prompt_token_ids=b"\0\0\0\0"),
            ),
            traceparent=trace,
        )
        self.writer.write(
            topics.OUTPUTS,
            events.Output(
                interaction_id=interaction,
                event_time_ms=now_ms,
                finish_reason="stop",
                content=events.OutputContent(message='{"content": "hi"}'),
            ),
        )
        return interaction

    def thumb(self, interaction: str, token: str, up: bool = True) -> None:
        """Boolean feedback."""
        self.writer.write(
            topics.FEEDBACK,
            events.Feedback(
                feedback_id=f"{interaction}!{token}",
                interaction_id=interaction,
                event_time_ms=1,
                tenant=ids.tenant_of(interaction),
                kind="boolean",
                metric="thumbs",
                boolean=up,
            ),
        )

    def receipts(self) -> dict[tuple[int, int], set[bytes]]:
        """Distinct receipt values by feedback coordinates."""
        found: dict[tuple[int, int], set[bytes]] = {}
        for record in read_all(self.log, self.prefix + "receipts"):
            receipt = self.wire.decode(events.Receipt, record.value)
            assert receipt.source.topic == "feedback" and record.value is not None
            place = (receipt.source.partition, receipt.source.offset)
            found.setdefault(place, set()).add(record.value)
        return found

    def outcomes(self) -> dict[str, list[str]]:
        """Outcomes by the token of the feedback id, one for each record, in offset order."""
        found: dict[str, list[str]] = {}
        for place, values in sorted(self.receipts().items()):
            assert len(values) == 1, f"{place} has receipts that differ: {values}"
            receipt = self.wire.decode(events.Receipt, next(iter(values)))
            found.setdefault(receipt.subject_id.rpartition("!")[2], []).append(receipt.outcome)
        return found

    def trajectories(self) -> dict[str, events.Trajectory]:
        """By id; what was repeated must be equal."""
        found: dict[str, events.Trajectory] = {}
        for record in read_all(self.log, self.prefix + "trajectories"):
            event = self.wire.decode(events.Trajectory, record.value)
            assert found.setdefault(event.trajectory_id, event) == event
        return found

    def feedback_places(self) -> set[tuple[int, int]]:
        return {(r.partition, r.offset) for r in read_all(self.log, self.prefix + "feedback")}

    def await_true(self, what: Callable[[], T], worker: Worker, timeout_s: float = 40.0) -> T:
        """Poll until something holds. Fails with the worker's log."""
        until = time.monotonic() + timeout_s
        while not (found := what()):
            assert time.monotonic() < until, worker.log_file.read_text()[-6000:]
            time.sleep(0.1)
        return found

    def close(self) -> None:
        self.producer.close()
