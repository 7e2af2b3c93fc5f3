"""Send feedback straight to Kafka, without the gateway.

    with tailrace.FeedbackProducer("127.0.0.1:9092", source="my-app") as producer:
        sent = producer.send(interaction, True)             # a thumb, on its way
        producer.send(interaction, 4, metric="stars")
        print(sent.result())                                # its feedback id: it is on the log

In: what somebody says about an interaction or a session, by its full id. Out: Feedback records on
the topic, in the partition of their session, with CloudEvents headers. Nothing is checked against
what was served: rewards gives each record its outcome. Safe between threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
import time
from types import TracebackType
import uuid

from tailrace import feedback_json, ids, topics
from tailrace.events import Feedback
from tailrace.log.base import Log, Position
from tailrace.stream import Writer, publish_schemas
from tailrace.wire import Wire


class FeedbackProducer:
    """One producer of feedback. Making it reaches the broker once, to publish the schemas.

    ``source`` names the process in the records' headers; ``log`` stands in for ``kafka``, and is
    not closed. Raises LogError when the broker does not answer.
    """

    def __init__(
        self,
        kafka: str = "127.0.0.1:9092",
        *,
        prefix: str = "",
        registry: str | None = None,
        source: str = "producer",
        log: Log | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._own_log = None
        if log is None:
            from tailrace.log.kafka import KafkaLog

            log = self._own_log = KafkaLog(kafka)
        self._now_ms = now_ms
        if registry is None:
            publish_schemas(log, prefix=prefix)
        self._producer = log.producer()
        self._writer = Writer(self._producer, Wire(registry), prefix=prefix, source=source)

    def send(
        self,
        subject: str,
        value: bool | float | str | None = None,
        *,
        metric: str = "thumbs",
        kind: str | None = None,
        choice: int = 0,
        feedback_id: str | None = None,
        replaces: str | None = None,
        preferred_over: str | None = None,
        tags: Mapping[str, str] | None = None,
        user: str | None = None,
        source: str = "user",
        grader: str | None = None,
    ) -> Future[str]:
        """Say something about an interaction or a session; ``docs/feedback.md`` has the kinds.

        ``feedback_id``: a token of your own. Sent again with it and the same words, it counts once.
        The future ends with the full feedback id once all replicas have the record, or with
        LogError.

        Raises InvalidRecord for what no record can be made of, LogError when the queue is full.
        """
        document = feedback_json.document(
            subject,
            value,
            metric=metric,
            tags=tags,
            kind=kind,
            choice=choice,
            feedback_id=feedback_id or uuid.uuid4().hex,
            replaces=replaces,
            preferred_over=preferred_over,
            user=user,
            source=source,
            grader=grader,
        )
        return self._write(feedback_json.from_document(document, now_ms=self._now_ms()))

    def retract(self, feedback_id: str) -> Future[str]:
        """Take feedback back. The future ends with the id of the retraction.

        Raises InvalidRecord for what is no full feedback id.
        """
        subject = ids.subject_of(feedback_id)
        interaction = ids.is_interaction(subject)
        return self._write(
            Feedback(
                feedback_id=ids.retraction_of(feedback_id),
                interaction_id=subject if interaction else None,
                session_id=None if interaction else subject,
                event_time_ms=self._now_ms(),
                tenant=ids.tenant_of(subject),
                action="retract",
                replaces=feedback_id,
            )
        )

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until everything sent is on the log. Raises LogError when it is not in time."""
        self._producer.flush(timeout_s)

    def close(self) -> None:
        """Send what is left for a few seconds and end."""
        self._producer.close()
        if self._own_log is not None:
            self._own_log.close()

    def __enter__(self) -> FeedbackProducer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.flush()
        finally:
            self.close()

    def _write(self, record: Feedback) -> Future[str]:
        done: Future[str] = Future()
        done.set_running_or_notify_cancel()

        def appended(position: Future[Position]) -> None:
            error = position.exception()
            if error is None:
                done.set_result(record.feedback_id)
            else:
                done.set_exception(error)

        self._writer.write(topics.FEEDBACK, record).add_done_callback(appended)
        return done
