"""A small gateway for users to talk to: answers, streams, takes votes, and fails when told to."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import threading
from typing import Any

TEXT = "Rome."


class Gateway:
    """``votes`` holds every vote attempt; the first ``vote_failures`` of them get 503."""

    def __init__(self, *, vote_failures: int = 0, chat_status: int = 200) -> None:
        self.votes: list[dict[str, Any]] = []
        self.learn: list[str | None] = []
        self.most_in_flight = 0
        self._in_flight = 0
        self._number = 0
        self._mutex = threading.Lock()
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path == "/v1/feedback":
                    with gateway._mutex:
                        gateway.votes.append(body)
                        late = len(gateway.votes) > vote_failures
                    name = f"{body['inference_id']}!{body['feedback_id']}"
                    self._answer(202 if late else 503, {"feedback_id": name})
                    return
                with gateway._mutex:
                    gateway.learn.append(self.headers["x-tailrace-learn"])
                    gateway._number += 1
                    gateway._in_flight += 1
                    gateway.most_in_flight = max(gateway.most_in_flight, gateway._in_flight)
                    turn = f"default:s~{gateway._number:013d}"
                if chat_status != 200:
                    self._answer(chat_status, {"error": {"message": "no"}})
                elif body.get("stream"):
                    self._stream(turn)
                else:
                    choice = {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": TEXT},
                    }
                    self._answer(200, {"id": turn, "choices": [choice]})
                with gateway._mutex:
                    gateway._in_flight -= 1

            def _answer(self, status: int, document: dict[str, Any]) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _stream(self, turn: str) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                for text, finish in ((TEXT[:2], None), (TEXT[2:], None), ("", "stop")):
                    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
                    part = json.dumps({"id": turn, "choices": [choice]})
                    self.wfile.write(f"data: {part}\n\n".encode())
                self.wfile.write(b"data: [DONE]\n\n")

            def log_message(self, *_: object) -> None:
                """Tests read what happened from the fields."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
