"""``python -m tests.engine.fakehttp PORT``: a :class:`FakeVllm` behind vLLM's routes, for kill
tests.

It outlives the engine process, as an attached vLLM does. ``/state`` tells what was served.
"""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
import json
import sys
from urllib.parse import urlsplit

from services.engine.admin import HEADER, Refused
from tests.engine.fakes import FakeVllm

TOKEN = "kill-test"


class Handler(BaseHTTPRequestHandler):
    vllm = FakeVllm()

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        self._answer(json.loads(self.rfile.read(length) or b"{}"))

    def _answer(self, body: dict) -> None:
        path, vllm = urlsplit(self.path).path, self.vllm
        try:
            if path not in ("/health", "/state") and self.headers[HEADER] != TOKEN:
                raise Refused(path, 403, "no token")
            answer: dict = {}
            if path == "/pause":
                vllm.pause()
            elif path == "/resume":
                vllm.resume()
            elif path == "/start_weight_update":
                vllm.start()
            elif path == "/update_weights":
                vllm.update(**body["update_info"])
            elif path == "/finish_weight_update":
                vllm.finish(body["weight_version"])
            elif path == "/update_weight_version":
                vllm.label(body["new_version"])
            elif path == "/weight_info":
                answer = {"weight_version": vllm.weight_info()}
            elif path == "/is_paused":
                answer = {"is_paused": vllm.is_paused()}
            elif path == "/state":
                answer = {"served": vllm.served, "paused": vllm.paused, "active": vllm.active}
            self._send(200, answer)
        except Refused as error:
            self._send(error.status, {"error": {"message": error.text}})

    def _send(self, status: int, answer: dict) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
