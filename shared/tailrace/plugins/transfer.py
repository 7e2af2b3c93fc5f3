"""The weight transfer engine inside vLLM's worker: a version from a file in shared memory.

In: ``/update_weights {"update_info": {"path", "digest"}}``, a safetensors file that the engine
process wrote from its verified host copy, its digest in the metadata. Out: the model's tensors in
place, repacked as vLLM serves them. Instantiated by vLLM's factory under the name ``tailrace``.

A load is layerwise and whole, or, where the worker keeps the weights as they come, a patch of what
changed (:mod:`.patches`). After a whole load of such a model an empty file beside the version says
that patches are taken; from then on the engine process may lay one beside each version.

Invariants: nothing of the model is touched before the file was checked; each update comes with the
whole model, and all of it is loaded unless the last update came to its end and left exactly the
weights that the patch is for; a patch that fails is followed by the whole load; after a load that
broke half-way every later call is refused, and only a new vLLM helps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import logging
from pathlib import Path
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

from tailrace.plugins.patches import SUFFIX, TAKEN, Places, Unpatchable

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
        """Digest of an update that is not finished yet."""
        self._held: str | None = None
        """Digest of what the model holds, when the last update came to its end."""
        self._patched = False
        self._path = Path()
        self._checkpoint: dict[str, torch.Tensor] = {}
        """Placeholders for the tensors of the last whole load."""
        self._places: Places | None = None
        self._why_whole = ""
        """What was said last."""

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
            held, self._held = self._held, None
            self._broken, self._loaded = "a load did not come to its end", None
            self._path = Path(update_info.path)
            self._patched = held is not None and self._patch(held, update_info.digest)
            if not self._patched:
                self._forget_partial_loads()
                initialize_layerwise_reload(self.model)
                self.model.load_weights(self._tensors(file))
            self._loaded = update_info.digest

    def _tensors(self, file: Any) -> Iterator[tuple[str, torch.Tensor]]:
        self._checkpoint = {}
        for name in file.keys():
            # A view into the mapped file: a layer's are dropped once it was copied.
            tensor = file.get_tensor(name)
            self._checkpoint[name] = torch.empty_like(tensor, device="meta")
            yield name, tensor

    def _patch(self, held: str, digest: str) -> bool:
        """Write what changed since ``held``, if there is a patch; else, or when it fails, all has
        to be loaded."""
        path = self._path.with_suffix(SUFFIX)
        if self._places is None or not path.exists():
            return False
        try:
            with safe_open(path, framework="pt") as file:
                found = file.metadata()
                if (found["base"], found["digest"]) != (held, digest):
                    return False
                count = self._places.apply(file)
        except Exception as error:
            logger.warning("loading all, for the patch failed digest=%s: %r", digest, error)
            return False
        logger.info("patched digest=%s weights=%d", digest, count)
        return True

    def finish_weight_update(self) -> None:
        """Close the update. Raises RuntimeError when it brought no weights or not all."""
        if self._loaded is None:
            self._check()
            raise RuntimeError("finish without a loaded version")
        tied = [] if self._patched else self._tied()
        digest, self._loaded = self._loaded, None
        if not self._patched:
            finalize_layerwise_reload(self.model, self.model_config)
            for layer in tied:
                # A tied head has no weights of its own, but on CPU a repacked copy of the embedding
                # that only this refreshes; without it the old head would serve under the new label.
                method: Any = layer.quant_method
                method.process_weights_after_loading(layer)
            logger.info("loaded digest=%s repacked_tied=%d", digest, len(tied))
        self._broken, self._held = None, digest
        if not self._patched:
            self._learn_places()

    def _tied(self) -> list[torch.nn.Module]:
        """Layers whose weights came with another's. Raises RuntimeError when one's did not come."""
        unloaded = self._unloaded()
        tied = [layer for layer in unloaded if self._shares_weights(layer)]
        if len(tied) != len(unloaded):
            names = sorted(type(layer).__name__ for layer in unloaded if layer not in tied)
            raise RuntimeError(f"the version has no weights for {', '.join(names)}")
        return tied

    def _learn_places(self) -> None:
        """See whether the model takes patches, and say so."""
        self._places = None
        try:
            self._places = Places(self.model, self._checkpoint)
            self._path.with_suffix(TAKEN).touch(mode=0o600)
        except Exception as error:  # the model's own loader, on tensors without content; the disk
            why = str(error) if isinstance(error, Unpatchable) else repr(error)
            if why != self._why_whole:
                # As a warning: vLLM shows nothing less of other loggers than its own.
                logger.warning("no patches, whole versions only: %s", why)
            self._why_whole = why

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
