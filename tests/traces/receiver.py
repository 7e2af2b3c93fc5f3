"""An OpenTelemetry collector as far as tests need one: OTLP over HTTP, on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import threading
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Received(NamedTuple):
    """One span, its ids in hexadecimal."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    links: list[str]
    """Each as ``<trace>-<span>``."""
    attributes: dict[str, Any]
    took_ms: float
    failed: bool
    client: bool
    """Whether it is of a request that was sent from there."""

    @property
    def context(self) -> str:
        return f"{self.trace}-{self.id}"


def context_of(traceparent: str) -> str:
    """As links have it."""
    return traceparent[3:-3]


class Receiver:
    """Keeps the spans that came."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._spans: list[Received] = []
        self._more = threading.Condition()

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._more:
            for of_process in request.resource_spans:
                resource = _values(of_process.resource.attributes)
                for scope in of_process.scope_spans:
                    self._spans += [_span(resource["service.name"], s) for s in scope.spans]
            self._more.notify_all()

    def spans(self, count: int) -> list[Received]:
        """All of them, once there are so many."""
        with self._more:
            assert self._more.wait_for(lambda: len(self._spans) >= count, 20), self._spans
            return list(self._spans)


@contextmanager
def receiving() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            receiver.take(self.rfile.read(int(self.headers["content-length"])))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _span(service: str, span: Any) -> Received:
    return Received(
        service=service,
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        links=[f"{link.trace_id.hex()}-{link.span_id.hex()}" for link in span.links],
        attributes=_values(span.attributes),
        took_ms=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e6,
        failed=span.status.code == 2,
        client=span.kind == 3,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)
