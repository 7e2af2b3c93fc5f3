"""Spans that reach a collector over OTLP, and what it costs where there is none."""

from __future__ import annotations

import subprocess
import sys
import time

from hypothesis import given
from hypothesis import strategies as st
import pytest

from services.local.ports import free_port
from tailrace import traces
from tailrace.settings import Common, load
from tests.traces.receiver import OTHER, TRACE, Receiver, context_of


def test_a_request_s_span_belongs_to_the_trace_that_it_came_with(receiver: Receiver):
    made = traces.Traces("gateway", receiver.url + "/")
    child = made.begin("chat m", TRACE, {"gen_ai.operation.name": "chat"})
    child.end({"n": 3}, error="client_left")
    root = made.begin("chat m", None, {})
    root.end({})
    made.close()
    first, second = receiver.spans(2)
    assert (first.service, first.name, first.failed) == ("tailrace-gateway", "chat m", True)
    assert f"{first.trace}-{first.parent}" == context_of(TRACE)
    assert first.attributes == {
        "gen_ai.operation.name": "chat",
        "n": 3,
        "error.type": "client_left",
    }
    assert context_of(child.traceparent) == first.context
    assert context_of(root.traceparent) == second.context
    assert second.parent == "" and second.trace != first.trace and not second.failed
    assert not first.client


def test_what_comes_later_is_linked_and_no_child(receiver: Receiver):
    made = traces.Traces("rewards", receiver.url)
    handed_on = made.record(
        "join", 1000.0, 601_000.5, links=[TRACE, "", OTHER, TRACE], attributes={"a": "b"}
    )
    made.close()
    [span] = receiver.spans(1)
    assert context_of(handed_on) == span.context and not span.failed
    assert span.links == [context_of(TRACE), context_of(OTHER)]
    assert span.parent == "" and span.trace not in TRACE + OTHER
    assert span.took_ms == pytest.approx(600_000.5) and span.attributes == {"a": "b"}


def test_a_trace_that_its_caller_does_not_keep_is_not_sent(receiver: Receiver):
    made = traces.Traces("gateway", receiver.url)
    unkept = made.begin("chat", TRACE[:-2] + "00", {})
    unkept.end({})
    made.begin("chat", TRACE, {}).end({})
    made.close()
    assert unkept.traceparent.endswith("-00") and unkept.traceparent[3:35] == TRACE[3:35]
    assert [span.trace for span in receiver.spans(1)] == [TRACE[3:35]]


def test_a_step_may_have_a_thousand_links(receiver: Receiver):
    made = traces.Traces("trainer", receiver.url)
    links = [f"00-{n:032x}-{n:016x}-01" for n in range(1, 1001)]
    made.record("step", 0, 1, links=links, attributes={})
    made.close()
    assert len(receiver.spans(1)[0].links) == 1000


def test_a_collector_that_is_away_holds_up_neither_requests_nor_the_end():
    made = traces.Traces("gateway", f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    for _ in range(3000):
        made.begin("chat", None, {}).end({})
    assert time.monotonic() - began < 5
    made.close()
    assert time.monotonic() - began < 10


@given(st.binary(max_size=60))
def test_a_malformed_traceparent_of_a_record_is_none(value: bytes):
    assert traces.of_record({"traceparent": value}) in ("", value.decode(errors="replace"))
    assert traces.of_record({"traceparent": TRACE.encode() + value}) in ("", TRACE)
    assert traces.of_record({}) == ""


def test_what_was_asked_of_others_and_what_failed_later_are_told_so(receiver: Receiver):
    made = traces.Traces("rollouts", receiver.url)
    made.begin("chat m", None, {}, client=True).end({})
    made.record("grade x", 0, 1, links=[TRACE], attributes={}, error="timeout")
    made.close()
    sent, failed = receiver.spans(2)
    assert sent.client and sent.parent == ""
    assert failed.failed and failed.attributes == {"error.type": "timeout"}


PROGRAM = """
import sys
from services.gateway import spans
from services.graders import app
from services.rollouts import rollouts
from tailrace import process, settings, traces
values = process.start("drift", settings.Common, [])
assert traces.start("drift", values.otlp_endpoint) is None
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, env={}
    )
    assert done.returncode == 0 and done.stdout == "[]\n", done.stderr


def test_the_endpoint_has_opentelemetry_s_own_name_too():
    theirs = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318"}
    assert load(Common, "drift", theirs).otlp_endpoint == "http://a:4318"
    ours = theirs | {"TAILRACE_OTLP_ENDPOINT": "http://b:4318"}
    assert load(Common, "drift", ours).otlp_endpoint == "http://b:4318"
    assert load(Common, "drift", {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}).otlp_endpoint is None
