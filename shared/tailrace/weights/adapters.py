"""LoRA adapters: small updates that lie on a version instead of following it.

In: a version of kind ``adapter``, whose stream is a keyframe of the adapter's own tensors and its
``adapter_config.json``. Out: a folder as peft writes it. An adapter is absolute, belongs to exactly
the weights that its ``base_digest`` names, and is verified like every version: nothing is written
before its digests matched. Engines and whoever else loads adapters read with it.
"""

from __future__ import annotations

from collections.abc import Mapping
import json
import os
from pathlib import Path
from typing import NamedTuple

from tailrace.errors import UpdateRefused
from tailrace.events import ModelUpdate
from tailrace.weights import codec, folder
from tailrace.weights.lineage import Lineage
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.table import CODEC
from tailrace.weights.tensors import Tensor, digest, digest_files

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


class Adapter(NamedTuple):
    """A verified adapter."""

    tensors: Mapping[str, Tensor]
    config: bytes


def newest(lineage: Lineage, base_digest: str, count: int) -> list[ModelUpdate]:
    """The last ``count`` adapters for these weights, oldest first."""
    found = [u for u in lineage.adapters.values() if u.base_digest == base_digest]
    return found[-count:]


def fetch(subscriber: Subscriber, update: ModelUpdate) -> Adapter:
    """An adapter's tensors and config. Raises UpdateRefused, and LogError when the broker stops
    answering."""
    if update.codec != CODEC:
        raise UpdateRefused("codec", f"{update.codec!r:.40}, not {CODEC}")
    tensors, files = codec.decode_keyframe(subscriber.fetch(update))
    if digest(tensors) != update.digest:
        raise UpdateRefused("digest", f"version {update.version}")
    if update.config_digest not in (None, digest_files(files)):
        raise UpdateRefused("digest", f"config files of version {update.version}")
    config = files.get(CONFIG_FILE)
    try:
        named = json.loads(config or b"")
    except ValueError:
        raise UpdateRefused("kind", f"version {update.version} has no {CONFIG_FILE}") from None
    if not isinstance(named, dict) or named.get("peft_type") != "LORA":
        raise UpdateRefused("kind", f"version {update.version} is no LoRA adapter")
    assert config is not None
    return Adapter(tensors, config)


def write(path: Path, adapter: Adapter) -> None:
    """Write a folder that vLLM and peft load, in place of what lies there."""
    folder.write(path, adapter.tensors, {CONFIG_FILE: adapter.config})
    os.rename(path / folder.WEIGHTS_FILE, path / WEIGHTS_FILE)
