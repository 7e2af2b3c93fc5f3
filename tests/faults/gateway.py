"""A gateway as a process of its own, before a stand-in for vLLM; it can be killed and come back."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys

import httpx

from services.local.ports import free_port
from tests.gateway.conftest import MODEL
from tests.gateway.fakevllm import FakeVllm, Served, wait_until
from tests.rewards.worker import CHECKOUT

NOBODY = "127.0.0.1:9"


class Gateway:
    """``point``: where it kills itself, see :mod:`tests.gateway.victim`; 0 nowhere."""

    def __init__(self, folder: Path, model_dir: Path, prefix: str, redis: str | None) -> None:
        self.folder, self.prefix = folder, prefix
        self.port = free_port()
        self._engine = Served(FakeVllm().app, lifespan="off")
        self._own = f'[gateway]\nport = {self.port}\nmodel_dir = "{model_dir}"\nack_s = 1.0\n'
        self._own += f'engine_url = "{self._engine.url}"\nlearn_default = true\n'
        self._redis = f'redis = "{redis}"\n' if redis else ""
        self.child: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", timeout=30.0, trust_env=False
        )

    def start(self, kafka: str, point: int = 0) -> None:
        """Start; returns at once."""
        settings = self.folder / "gateway.toml"
        settings.write_text(
            f'kafka = "{kafka}"\nprefix = "{self.prefix}"\nstate_dir = "{self.folder}"\n'
            f"{self._redis}{self._own}"
        )
        command = ["services.gateway", "--settings", str(settings)]
        if point:
            command = ["tests.gateway.victim", str(settings), str(point)]
        with (self.folder / "gateway.log").open("ab") as out:
            self.child = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=CHECKOUT, stdout=out, stderr=out
            )

    def await_records_on(self, where: str) -> None:
        """``kafka`` or ``spool``."""
        wait_until(lambda: self._records() == where, where)

    def chat(self) -> str:
        """One turn; gives the interaction id."""
        asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
        answer = self._http.post("/v1/chat/completions", json=asked)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def thumb(self, interaction: str, token: str) -> int:
        """The status."""
        said = {"metric_name": "thumbs", "value": True, "inference_id": interaction}
        return self._http.post("/v1/feedback", json=said | {"feedback_id": token}).status_code

    def fate(self, feedback_id: str) -> httpx.Response:
        return self._http.get(f"/v1/feedback/{feedback_id}")

    def ended(self) -> int | None:
        assert self.child is not None
        return self.child.poll()

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()

    def close(self) -> None:
        self.kill()
        self._http.close()
        self._engine.stop()

    def _records(self) -> str | None:
        try:
            return str(self._http.get("/readyz").json()["records"])
        except httpx.TransportError:
            return None
