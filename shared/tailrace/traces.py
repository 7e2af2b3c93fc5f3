"""Spans over OTLP where an endpoint is set; where none is, nothing is even imported for them.

W3C trace context is the header ``traceparent`` of records. Those of a request have the request's; a
trajectory has that of the request whose answer it is about. What is done with records long after
the request ended is no part of its trace: it is a span of its own, in a trace of its own, with a
*link* to each trace that it came from.

    request ──> span in the gateway (child of the client's) ──> vLLM's span
                    ^ link    ^ link                      ^ link
        graders: grade        rewards: join, from the     trainer: step, over
                    ^ link    answer to the closing       all of its answers
                    └──────── of its wait
    feedback ──> span in the gateway (child of the client's)
                    ^ link
                    └──────── rewards: join

What rollouts ask the engine begins with a span of their own in place of the gateway's.

Spans have ids, counts and names, never text or tokens. They wait in a queue of bounded size and are
sent by a thread: nobody waits for a collector, and what it does not take in time is dropped.
Needs the extra ``tailrace[traces]``. Called by gateway, rollouts, graders, rewards and trainer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import re
import threading
from typing import TYPE_CHECKING

from tailrace.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry import trace as api
    from opentelemetry.trace import SpanContext

Value = str | int | float | bool | Sequence[str] | Sequence[int]

_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_MOST_LINKS = 1024
"""Of one span; a step has one for each of its answers at most."""
_SEND_S = 5.0
_CLOSE_S = 2.0


def well_formed(traceparent: str) -> bool:
    """Whether it is a trace context (https://www.w3.org/TR/trace-context/).

    >>> well_formed("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    True
    """
    return _FORM.fullmatch(traceparent) is not None


def spans_url(endpoint: str) -> str:
    """Where a collector takes spans, by its base URL."""
    return f"{endpoint.rstrip('/')}/v1/traces"


def of_record(headers: Mapping[str, bytes]) -> str:
    """The traceparent of a record; empty where it has none, or a malformed one."""
    text = headers.get("traceparent", b"").decode(errors="replace")
    return text if well_formed(text) else ""


class Span:
    """One under way. ``traceparent``: what it hands on."""

    def __init__(self, span: api.Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = (
            f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        )

    def end(
        self,
        attributes: Mapping[str, Value],
        *,
        error: str | None = None,
        ended_ms: float | None = None,
    ) -> None:
        """It is over, now or at ``ended_ms``; ``error``: what ended it, a fixed word. For once."""
        from opentelemetry.trace import StatusCode

        self._span.set_attributes(attributes)
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end(None if ended_ms is None else int(ended_ms * 1e6))


class Traces:
    """The spans of one process, sent to ``<endpoint>/v1/traces``.

    Raises SettingsError where the extra is not installed.
    """

    def __init__(self, service: str, endpoint: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import SpanLimits, TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise SettingsError(
                f"otlp_endpoint: needs pip install 'tailrace[traces]': {error}"
            ) from None
        # Not the process's own provider: who imports tailrace may have one.
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": f"tailrace-{service}"}),
            span_limits=SpanLimits(max_links=_MOST_LINKS),
        )
        self._exporter = OTLPSpanExporter(spans_url(endpoint), timeout=_SEND_S)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("tailrace")

    def begin(
        self,
        name: str,
        parent: str | None,
        attributes: Mapping[str, Value],
        *,
        client: bool = False,
    ) -> Span:
        """A request's span, of the trace that it came with or of a new one. ``client``: whether it
        is sent from here, not answered."""
        from opentelemetry.context import Context
        from opentelemetry.trace import NonRecordingSpan, SpanKind, set_span_in_context

        around = Context()
        if parent is not None:
            around = set_span_in_context(NonRecordingSpan(_context(parent)), around)
        kind = SpanKind.CLIENT if client else SpanKind.SERVER
        return Span(self._tracer.start_span(name, around, kind=kind, attributes=attributes))

    def record(
        self,
        name: str,
        began_ms: float,
        ended_ms: float,
        *,
        links: Iterable[str],
        attributes: Mapping[str, Value],
        error: str | None = None,
    ) -> str:
        """Something that is over, in a trace of its own; its traceparent. ``links``: traceparents
        that it came from; empty ones are passed over, the others linked to once each. ``error``: as
        of :meth:`Span.end`. Times in ms since 1970."""
        from opentelemetry.context import Context
        from opentelemetry.trace import Link

        found = [Link(_context(link)) for link in dict.fromkeys(links) if link]
        span = Span(
            self._tracer.start_span(
                name,
                Context(),
                links=found,
                attributes=attributes,
                start_time=int(began_ms * 1e6),
            )
        )
        span.end({}, error=error, ended_ms=ended_ms)
        return span.traceparent

    def close(self) -> None:
        """Send what waits; what a collector does not take in a few seconds is dropped."""
        giving_up = threading.Timer(_CLOSE_S, self._exporter.shutdown)
        giving_up.start()
        self._provider.shutdown()
        giving_up.cancel()


def start(service: str, endpoint: str | None) -> Traces | None:
    """None without an endpoint."""
    return None if endpoint is None else Traces(service, endpoint)


def _context(traceparent: str) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    _, trace, span, flags = traceparent.split("-")
    return SpanContext(int(trace, 16), int(span, 16), True, TraceFlags(int(flags, 16)))
