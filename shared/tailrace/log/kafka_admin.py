"""What a cluster says of consumer groups and of topics' settings, which the log does not ask for.

Called by ``tailrace lag`` and ``tailrace topics``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import confluent_kafka as ck
from confluent_kafka import admin

from tailrace.errors import LogError
from tailrace.log.kafka_errors import REQUEST_TIMEOUT_S, refuse, report

Committed = dict[str, dict[tuple[str, int], int]]
"""By group: the offset that is read next, of each topic (its full name) and partition."""


class KafkaAdmin:
    """A Kafka cluster, asked by hand. Raises LogError."""

    def __init__(self, bootstrap: str) -> None:
        config: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "error_cb": report,
        }
        self._admin = admin.AdminClient(config)

    def committed(self, prefix: str = "") -> Committed:
        """What the groups whose names begin so have committed."""
        try:
            listed = self._admin.list_consumer_groups(request_timeout=REQUEST_TIMEOUT_S)
            found = listed.result(REQUEST_TIMEOUT_S)
        except ck.KafkaException as error:
            refuse(error, "consumer groups")
        if found.errors and not found.valid:
            raise LogError(f"consumer groups: {found.errors[0]}")
        names = sorted(g.group_id for g in found.valid if g.group_id.startswith(prefix))
        # All at once: a request takes one group.
        answers = {
            name: self._admin.list_consumer_group_offsets(
                [ck.ConsumerGroupTopicPartitions(name)], request_timeout=REQUEST_TIMEOUT_S
            )[name]
            for name in names
        }
        committed: Committed = {}
        for name, answer in answers.items():
            try:
                places = answer.result(REQUEST_TIMEOUT_S).topic_partitions
            except ck.KafkaException as error:
                refuse(error, f"offsets of group {name}")
            committed[name] = {(p.topic, p.partition): p.offset for p in places if p.offset >= 0}
        return committed

    def configs(self, topics: Iterable[str]) -> dict[str, dict[str, str]]:
        """The settings of topics that are there, by name."""
        resources = [admin.ConfigResource(admin.ResourceType.TOPIC, name) for name in topics]
        found: dict[str, dict[str, str]] = {}
        if not resources:
            return found
        for resource, answer in self._admin.describe_configs(resources).items():
            try:
                entries = answer.result(REQUEST_TIMEOUT_S)
            except ck.KafkaException as error:
                refuse(error, f"settings of {resource.name}")
            found[resource.name] = {name: str(entry.value) for name, entry in entries.items()}
        return found
