"""The embedded parts run: broker, Redis, tiny model."""

from __future__ import annotations

from pathlib import Path
import types
import uuid

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
import pytest
import redis as client_library

from services.local import broker as kafka
from services.local import jars
from services.local.ports import free_port
from tests.conftest import CACHE_DIR, TestBroker, TestRedis


@pytest.mark.kafka
def test_the_broker_takes_a_record_of_six_mebibytes(broker: TestBroker, prefix: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    topic = NewTopic(prefix + "large", 1, 1, config={"max.message.bytes": str(8 * 1024 * 1024)})
    admin.create_topics([topic])[topic.topic].result(20)
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap, "message.max.bytes": 8 * 1024 * 1024}
    )
    errors: list[object] = []
    producer.produce(
        topic.topic, b"x" * (6 * 1024 * 1024), on_delivery=lambda error, _: errors.append(error)
    )
    assert producer.flush(20) == 0
    assert errors == [None]


@pytest.mark.kafka
def test_a_cluster_id_may_begin_with_a_dash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = kafka.Broker(
        jars.prepare(CACHE_DIR, print), tmp_path, port=free_port(), controller_port=free_port()
    )
    dashed = types.SimpleNamespace(bytes=b"\xf8" + b"\x01" * 15)
    monkeypatch.setattr(uuid, "uuid4", lambda: dashed)
    part.prepare()
    assert "cluster.id=-" in (tmp_path / "data" / "meta.properties").read_text()


def test_redis_is_empty_before_each_test(redis: TestRedis) -> None:
    with client_library.Redis.from_url(redis.url) as client:
        assert client.keys() == []
        client.set("left", "over")


def test_redis_is_empty_again(redis: TestRedis) -> None:
    with client_library.Redis.from_url(redis.url) as client:
        assert client.keys() == []


def test_the_tiny_model_loads_and_speaks_chatml(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is a mill?"}], add_generation_prompt=True, tokenize=False
    )
    assert prompt == "<|im_start|>user\nWhat is a mill?<|im_end|>\n<|im_start|>assistant\n"
    tokens = tokenizer(prompt, return_tensors="pt")["input_ids"]
    assert tokenizer.decode(tokens[0]) == prompt
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert model.dtype == torch.bfloat16
    assert model(tokens).logits.shape == (1, tokens.shape[1], 512)
