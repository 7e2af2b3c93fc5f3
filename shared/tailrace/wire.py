"""Records to bytes and back.

Avro single-object encoding: ``C3 01``, the schema's CRC-64 fingerprint (8 bytes, little-endian),
the body. With a schema registry: Confluent's ``00``, schema id (4 bytes, big-endian), the body.
Feedback may also be JSON (header ``content-type: application/json``, or a structured CloudEvent),
see :mod:`tailrace.feedback_json`.

A :class:`Wire` knows all past schemas of this distribution; others it is taught from the
``schemas`` topic by :class:`tailrace.stream.Decoder`.
"""

from __future__ import annotations

from collections.abc import Mapping
import io
import json
import struct
from typing import Any, TypeVar

import fastavro
import msgspec

from tailrace import events, feedback_json, schemas
from tailrace.cloudevents import media_type
from tailrace.errors import InvalidRecord, LogError, UnknownSchema

MARKER = b"\xc3\x01"
_CONFLUENT = b"\x00"
R = TypeVar("R", bound=events.Struct)


class Wire:
    """Encodes and decodes records. Bound to no log, safe to share between threads."""

    def __init__(self, registry: str | None = None) -> None:
        self._registry = _Registry(registry) if registry else None
        self._readers: dict[str, Any] = {}
        self._writers: dict[bytes, Any] = {}
        self._preambles: dict[str, bytes] = {}
        for record in events.RECORDS:
            name = record.__name__
            for schema in schemas.load(name).values():
                self.learn(json.dumps(schema).encode())
            self._readers[name] = fastavro.parse_schema(schemas.newest(name))
            # The same object: such records need no resolution, which costs a third of decoding.
            self._writers[schemas.fingerprint(schemas.newest(name))] = self._readers[name]
            self._preambles[name] = self._preamble(name)

    def learn(self, schema: bytes) -> bytes:
        """Know one more writer's schema (JSON). Returns its fingerprint.

        A fingerprint that is known keeps its schema: it says nothing of logical types, with which
        the same records would come out as something else.

        Raises InvalidRecord when it is no Avro schema of a record.
        """
        try:
            document = json.loads(schema)
            mark = schemas.fingerprint(document)
            if mark not in self._writers:
                self._writers[mark] = _record_schema(document)
        except Exception as error:  # anyone may write a schema; the parsers raise whatever comes
            raise InvalidRecord("schema", str(error)) from None
        return mark

    def encode(self, record: events.Struct) -> bytes:
        """One record as bytes. Raises InvalidRecord when a value does not fit its contract."""
        name = type(record).__name__
        out = io.BytesIO()
        out.write(self._preambles[name])
        try:
            body = msgspec.to_builtins(record, builtin_types=(bytes,))
            # Without this a fraction or a bool where a long goes would be written, cut to a long.
            msgspec.convert(body, type(record), builtin_types=(bytes,))
            fastavro.schemaless_writer(out, self._readers[name], body)
        except (TypeError, ValueError, OverflowError, struct.error, msgspec.MsgspecError) as error:
            raise InvalidRecord("unencodable", f"{name}: {error}") from None
        return out.getvalue()

    def decode(
        self,
        kind: type[R],
        value: bytes | None,
        headers: Mapping[str, bytes] | None = None,
        *,
        time_ms: int = 0,
    ) -> R:
        """The record that ``value`` is.

        ``time_ms`` (the append time) stands in for an event time that JSON feedback left out.

        Raises UnknownSchema for an unknown fingerprint or id, LogError when the registry does not
        answer, InvalidRecord for everything else.
        """
        if value is None:
            raise InvalidRecord("empty", f"a {kind.__name__} record without a value")
        if kind is events.Feedback and media_type(headers or {}) in feedback_json.MEDIA_TYPES:
            feedback = feedback_json.decode(value, now_ms=time_ms, headers=headers)
            return feedback  # type: ignore[return-value]
        writer, start = self._writer_of(value)
        if writer.get("name", "").rpartition(".")[2] != kind.__name__:
            raise InvalidRecord("wrong_record", f"{writer.get('name')} where {kind.__name__} goes")
        body = io.BytesIO(value)
        body.seek(start)
        try:
            reader = self._readers[kind.__name__]
            fields = fastavro.schemaless_reader(body, writer, None if writer is reader else reader)
            if body.read(1):
                raise ValueError("bytes are left over")
            return msgspec.convert(fields, kind, builtin_types=(bytes,))
        except Exception as error:  # fastavro raises whatever broken bytes lead it to
            raise InvalidRecord("undecodable", f"{kind.__name__}: {error!r}") from None

    def _writer_of(self, value: bytes) -> tuple[Any, int]:
        if value[:2] == MARKER and len(value) >= 10:
            mark = value[2:10]
            if mark not in self._writers:
                raise UnknownSchema(mark.hex())
            return self._writers[mark], 10
        if value[:1] == _CONFLUENT and len(value) >= 5 and self._registry:
            return self._registry.schema(int.from_bytes(value[1:5], "big")), 5
        raise InvalidRecord("not_avro", f"begins with {value[:4].hex() or 'nothing'}")

    def _preamble(self, name: str) -> bytes:
        schema = schemas.newest(name)
        if self._registry is None:
            return MARKER + schemas.fingerprint(schema)
        return _CONFLUENT + self._registry.register(name, schema).to_bytes(4, "big")


class _Registry:
    """A Confluent schema registry; subject ``tailrace.<Record>``.

    One that does not answer raises LogError: its silence says nothing about a record.
    """

    def __init__(self, url: str) -> None:
        from confluent_kafka.schema_registry import SchemaRegistryClient

        self._client = SchemaRegistryClient.new_client({"url": url})
        self._schemas: dict[int, Any] = {}

    def register(self, record: str, schema: schemas.Schema) -> int:
        from confluent_kafka.schema_registry import Schema

        try:
            number: int = self._client.register_schema(
                f"{schemas.NAMESPACE}.{record}", Schema(json.dumps(schema), "AVRO")
            )
        except Exception as error:  # the client's own, or those of its HTTP library
            raise LogError(f"schema registry: {record}: {error!r}") from None
        return number

    def schema(self, number: int) -> Any:
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        if number not in self._schemas:
            try:
                text = self._client.get_schema(number).schema_str
            except SchemaRegistryError as error:
                if error.http_status_code != 404:
                    raise LogError(f"schema registry: id {number}: {error}") from None
                raise UnknownSchema(f"id {number}: {error}") from None
            except Exception as error:  # those of its HTTP library
                raise LogError(f"schema registry: id {number}: {error!r}") from None
            try:
                self._schemas[number] = _record_schema(json.loads(text or ""))
            except Exception as error:  # JSON Schema, Protobuf or what else a registry may hold
                raise InvalidRecord("schema", f"id {number}: {error!r}") from None
        return self._schemas[number]


def _record_schema(document: Any) -> Any:
    """A parsed schema of a record. Raises ValueError for another type, else what fastavro does."""
    if not isinstance(document, dict) or document.get("type") != "record":
        raise ValueError("not the schema of a record")
    return fastavro.parse_schema(document)
