"""How soon an event is on the page, with many viewers, and the dashboard's memory over time.

    python -m benchmarks.dashboard [--viewers 50] [--rate 1000] [--seconds 60] [--events 1000000]
                                   [--json]

The embedded broker, one ``python -m services.dashboard``, and here a feeder and the viewers, who
keep `/api/stream` open. An interaction is six records (prompt, answer, vote, trajectory and the
receipts of both), every 48 of them a step, a version and an engine's ack. First ``--seconds`` at
``--rate`` events a second: twice a second or so an alarm with a mark of its own is appended, and
each viewer says when it had it; ``p50_s`` and ``p95_s`` are of all viewers and marks, from there.
``first_view_s`` is the slowest of some fresh viewers meanwhile, from connecting to a whole picture.
Then as fast as the dashboard reads, up to ``--events`` (0: not at all), with the viewers still
there: ``rss_mb`` is the dashboard's memory at each tenth. What was read is deleted from the log on
the way. Ends with 1 when a record was not read.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
import json
import sys
import threading
import time
from typing import Any

import psutil

from benchmarks.living import MODEL, PARTITIONS, Living
from benchmarks.servers import SMALL_SEGMENTS, Servers, ready
from services.dashboard.picture import SECTIONS
from services.local.ports import free_port
from tailrace import events, topics
from tailrace.estimates import quantile
from tailrace.log.kafka import KafkaLog
from tailrace.stream import publish_schemas

AHEAD = 10_000
"""Records that the feeder may be ahead of the dashboard."""
KEPT = 20_000
"""Records of a partition that stay on the log."""
PURGE_S = 10.0
MARK_S = 0.43
"""Between marks; no multiple of the refresh, or all would be seen at the same age."""
FRESH = 5
"""Viewers that come anew while events flow."""
SETTLE_S = 120.0


class Viewers:
    """Pages that keep the stream open, on an event loop of their own."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self.marks: dict[str, float] = {}
        """When each mark was appended."""
        self.delays_s: list[float] = []
        self.read = 0
        """Records in the newest picture."""
        self._held: list[object] = []
        """A loop holds its tasks and a transport its reader weakly: they would be collected."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        for number in range(count):
            viewing = self._view(first=number == 0)
            self._held.append(asyncio.run_coroutine_threadsafe(viewing, self._loop))

    def fresh_s(self) -> float:
        """How long a new one waits for a whole picture."""
        return asyncio.run_coroutine_threadsafe(self._first(), self._loop).result(60.0)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        writer.write(b"GET /api/stream HTTP/1.1\r\nhost: localhost\r\n\r\n")
        return reader, writer

    async def _first(self) -> float:
        began, missing = time.perf_counter(), set(SECTIONS)
        reader, writer = await self._open()
        while missing:
            line = await reader.readline()
            if line.startswith(b"event: "):
                name = line[7:].strip().decode()
                await reader.readuntil(b"\n\n")
                missing.discard(name)
        writer.close()
        return time.perf_counter() - began

    async def _view(self, first: bool) -> None:
        seen: set[str] = set()
        reader, writer = await self._open()
        self._held.append(writer)
        name = b""
        while line := await reader.readline():
            if line.startswith(b"event: "):
                name = line[7:].strip()
            elif line.startswith(b"data: ") and name == b"alarms":
                now = time.perf_counter()
                for alarm in json.loads(line[6:])["recent"]:
                    mark = alarm["stream"]
                    if mark not in seen and mark in self.marks:
                        seen.add(mark)
                        self.delays_s.append(now - self.marks[mark])
            elif first and line.startswith(b"data: ") and name == b"traffic":
                self.read = sum(row["records"] for row in json.loads(line[6:])["topics"])

    def close(self) -> None:
        """Let go of all streams."""

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(20.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)


class Run:
    """The figures of one run."""

    def __init__(self, servers: Servers, options: argparse.Namespace, say: Callable[[str], None]):
        self._servers, self._options, self._say = servers, options, say

    def run(self) -> dict[str, Any]:
        bootstrap, port = self._servers.kafka(self._say, properties=SMALL_SEGMENTS), free_port()
        log = KafkaLog(bootstrap)
        log.create(topics.TOPICS, session_partitions=PARTITIONS)
        publish_schemas(log)
        living = Living(log)
        living.producer.flush()
        page = self._dashboard(bootstrap, port)
        viewers = Viewers(port, self._options.viewers)
        first_view_s = self._steady(living, viewers)
        fed = living.written
        rss_mb = self._flood(log, living, viewers, page) if self._options.events else []
        living.producer.flush()
        # Schemas are on the log too.
        whole = living.written + sum(log.ends(topics.SCHEMAS.name).values())
        until = time.monotonic() + SETTLE_S
        while viewers.read < whole and time.monotonic() < until:
            time.sleep(0.1)
        delays_s = sorted(viewers.delays_s)
        result = {
            "p50_s": round(quantile(delays_s, 0.5) or 0.0, 3),
            "p95_s": round(quantile(delays_s, 0.95) or 0.0, 3),
            "max_s": round(max(delays_s, default=0.0), 3),
            "first_view_s": round(first_view_s, 3),
            "rss_mb": rss_mb,
            "viewers": self._options.viewers,
            "events_per_s": round(fed / self._options.seconds, 1),
            "marks": len(viewers.marks),
            "seen": len(delays_s),
            "events": living.written,
            "missing": whole - viewers.read,
        }
        viewers.close()
        living.producer.close()
        log.close()
        return result

    def _steady(self, living: Living, viewers: Viewers) -> float:
        """So many events a second for so many seconds; the slowest first view."""
        seconds, rate = self._options.seconds, self._options.rate
        began, before, marked, slowest, fresh = time.monotonic(), living.written, 0.0, 0.0, 0
        while (passed := time.monotonic() - began) < seconds:
            while living.written - before < passed * rate:
                living.interaction()
                living.settle()
            if passed - marked >= MARK_S and passed < seconds - 3.0:
                marked = passed
                self._mark(living, viewers)
            if passed > (fresh + 1) * seconds / (FRESH + 2) and fresh < FRESH:
                fresh += 1
                slowest = max(slowest, viewers.fresh_s())
            time.sleep(0.005)
        self._say(f"{living.written - before} events, {len(viewers.delays_s)} marks seen")
        return slowest

    def _mark(self, living: Living, viewers: Viewers) -> None:
        mark = f"mark-{len(viewers.marks)}"
        viewers.marks[mark] = time.perf_counter()
        alarm = events.Alarm(stream=mark, event_time_ms=0, detector="benchmark")
        living.write(topics.ALARMS, alarm)

    def _flood(
        self, log: KafkaLog, living: Living, viewers: Viewers, page: psutil.Process
    ) -> list[float]:
        """As fast as it reads, up to so many events; its memory at each tenth."""
        rss_mb: list[float] = []
        purged = time.monotonic()
        while len(rss_mb) < 10:
            for _ in range(50):
                if living.written - viewers.read < AHEAD:
                    living.interaction()
            living.settle()
            if living.written - viewers.read >= AHEAD:
                time.sleep(0.02)
            while len(rss_mb) < 10 and viewers.read * 10 >= self._options.events * (
                len(rss_mb) + 1
            ):
                rss_mb.append(round(page.memory_info().rss / 2**20, 1))
                self._say(f"{viewers.read} events read, {rss_mb[-1]:.0f} MB")
            if time.monotonic() - purged > PURGE_S:
                purged = time.monotonic()
                self._purge(log)
        return rss_mb

    def _purge(self, log: KafkaLog) -> None:
        for topic in topics.TOPICS:
            if topic.by_session:
                ends = log.ends(topic.name)
                log.delete_before(topic.name, {p: max(0, end - KEPT) for p, end in ends.items()})

    def _dashboard(self, bootstrap: str, port: int) -> psutil.Process:
        folder = self._servers.folder
        settings = folder / "settings.toml"
        settings.write_text(
            f'kafka = "{bootstrap}"\nmodel = "{MODEL}"\nstate_dir = "{folder}"\n'
            f"[dashboard]\nport = {port}\n"
        )
        command = [sys.executable, "-m", "services.dashboard", "--settings", str(settings)]
        child = self._servers.start("dashboard", command)
        ready(f"http://127.0.0.1:{port}", "/ready", child)
        return psutil.Process(child.pid)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=__doc__)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--rate", type=float, default=1000.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=60.0, help="of that rate")
    parser.add_argument("--events", type=int, default=1_000_000, help="in all; 0: no flood")
    parser.add_argument("--json", action="store_true", help="say nothing but the result")
    options = parser.parse_args()
    say = (lambda line: None) if options.json else print
    with Servers() as servers:
        result = Run(servers, options, say).run()
    print(json.dumps(result))
    return 1 if result["missing"] else 0


if __name__ == "__main__":
    sys.exit(main())
