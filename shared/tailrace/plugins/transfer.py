"""The weight transfer engine inside vLLM's worker: a whole version from a file in shared memory.

In: ``/update_weights {"update_info": {"path", "digest"}}``, a safetensors file that the engine
process wrote from its verified host copy, its digest in the metadata. Out: the model's tensors in
place, repacked as vLLM serves them. Instantiated by vLLM's factory under the name ``tailrace``.

Invariants: nothing of the model is touched before the file was checked; each update carries the
whole model and begins a new layerwise reload, so an update after one whose answer was lost loads
all of it again; after a load that broke half-way every later call is refused, and only a new vLLM
helps.
"""

from __future__ import annotations

from dataclasses import dataclass
import logging
from typing import Any

from safetensors import safe_open
import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.attention import is_deferred_attention_layer
from vllm.model_executor.model_loader.reload.layerwise import (
    finalize_layerwise_reload,
    get_layerwise_info,
    initialize_layerwise_reload,
)

logger = logging.getLogger(__name__)


@dataclass
class Init(WeightTransferInitInfo):  # type: ignore[misc]
    """Nothing to agree on."""


@dataclass
class Update(WeightTransferUpdateInfo):  # type: ignore[misc]
    """Where the version lies and what it must be."""

    path: str
    digest: str


class SharedFileTransfer(WeightTransferEngine[Init, Update]):  # type: ignore[misc]
    """start, update, finish, as vLLM's worker calls them, always with the scheduler paused."""

    init_info_cls = Init
    update_info_cls = Update
    supports_draft_weight_update = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._broken: str | None = None
        self._loaded: str | None = None

    def init_transfer_engine(self, init_info: Init) -> None:
        """No rendezvous: the file system is the transport."""

    def start_weight_update(self) -> None:
        """Open an update. The model stays whole until :meth:`update_weights` checked its file."""
        self._check()

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Load one version. The base class would synchronize an accelerator, which a CPU lacks."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: Update) -> None:
        """Raises ValueError for a file of another version, RuntimeError when loading broke."""
        self._check()
        with safe_open(update_info.path, framework="pt") as file:
            found = (file.metadata() or {}).get("digest")
            if found != update_info.digest:
                raise ValueError(f"{update_info.path} holds {found}, not {update_info.digest}")
            self._broken, self._loaded = "a load did not come to its end", None
            self._forget_partial_loads()
            initialize_layerwise_reload(self.model)
            # Views into the mapped file: a layer's are dropped once it was copied.
            self.model.load_weights((name, file.get_tensor(name)) for name in file.keys())
            self._loaded = update_info.digest

    def finish_weight_update(self) -> None:
        """Close the update. Raises RuntimeError when it brought no weights or not all."""
        if self._loaded is None:
            self._check()
            raise RuntimeError("finish without a loaded version")
        unloaded = self._unloaded()
        tied = [layer for layer in unloaded if self._shares_weights(layer)]
        if len(tied) != len(unloaded):
            names = sorted(type(layer).__name__ for layer in unloaded if layer not in tied)
            raise RuntimeError(f"the version has no weights for {', '.join(names)}")
        digest, self._loaded = self._loaded, None
        finalize_layerwise_reload(self.model, self.model_config)
        for layer in tied:
            # A tied head has no weights of its own, but on CPU a repacked copy of the embedding
            # that only this refreshes; without it the old head would serve under the new label.
            method: Any = layer.quant_method
            method.process_weights_after_loading(layer)
        logger.info("loaded digest=%s repacked_tied=%d", digest, len(tied))
        self._broken = None

    def shutdown(self) -> None:
        """Nothing is held between updates."""

    def _check(self) -> None:
        if self._broken is not None and self._loaded is None:
            raise RuntimeError(f"half-loaded ({self._broken}): restart vLLM")

    def _forget_partial_loads(self) -> None:
        """Weights buffered by an earlier update must not count towards this one's completeness."""
        for layer in self.model.modules():
            info = get_layerwise_info(layer)
            if info.can_load():
                info.loaded_weights.clear()
                info.load_numel = 0

    def _unloaded(self) -> list[torch.nn.Module]:
        """Layers with parameters of their own, none of which came."""
        layers = []
        for layer in self.model.modules():
            info = get_layerwise_info(layer)
            if not info.can_load() or is_deferred_attention_layer(layer):
                continue
            if info.load_numel == 0 and any(p.numel() for p in info.restore_metadata[0].values()):
                layers.append(layer)
        return layers

    def _shares_weights(self, layer: torch.nn.Module) -> bool:
        """Is every serving parameter of this layer another, loaded layer's parameter too?"""
        kernel = get_layerwise_info(layer).kernel_tensors
        assert kernel is not None
        owned = {
            parameter.data_ptr()
            for other in self.model.modules()
            if other is not layer and not get_layerwise_info(other).can_load()
            for parameter in other.parameters(recurse=False)
            if parameter.numel()
        }
        return all(parameter.data_ptr() in owned for parameter in kernel[0].values())
