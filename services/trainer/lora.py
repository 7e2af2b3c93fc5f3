"""LoRA: a frozen base, and two small matrices beside some of its linear layers that are trained.

A layer gives ``W x + alpha / rank * B (A x)`` (Hu et al., LoRA, arXiv 2106.09685, section 4.1): A
begins random, B at nothing, so the first version is the base. What is trained, rounded and kept in
checkpoints are A and B, under peft's names. Two things can be published: the adapter as peft writes
it, for who serves it beside the base, and the whole model with ``W + alpha / rank * B A`` rounded
to bfloat16, for who does not know of adapters. :meth:`LoraPolicy.merged` computes as the latter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from services.trainer.learner import Learner
from services.trainer.policy import Policy, tensor_of
from services.trainer.rounding import rounded
from services.trainer.settings import Settings
from tailrace.weights import adapters
from tailrace.weights import tensors as weights
from tailrace.weights.tensors import digest

_PREFIX = "base_model.model."
"""peft's, before a module's name."""
_BASE = "base."
"""Ours, before a weight's name in a checkpoint."""


class LoraPolicy(Policy):
    """A policy of which only an adapter is trained."""

    def __init__(
        self,
        folder: Path,
        *,
        rank: int,
        alpha: float,
        modules: Sequence[str],
        seed: int = 0,
        name: str = "",
        **same: Any,
    ) -> None:
        """``modules``: names, or ends of names, of linear layers; ``name``: of the base, for peft.
        Else as :class:`Policy`. Raises ValueError too where no linear layer has such a name."""
        self._rank, self._alpha, self._seed, self._name = rank, alpha, seed, name
        self._wanted = tuple(modules)
        self._beside: dict[str, torch.nn.Linear] = {}
        """Layers with an adapter, by name."""
        self._added = True
        super().__init__(folder, **same)
        self._base = self._first = self._weights()
        self._begin()

    @property
    def base(self) -> weights.Tensors:
        """The weights that the adapter lies on."""
        return self._base

    def adapter(self) -> adapters.Adapter:
        """The rounding of A and B under peft's names, and peft's config."""
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self._name,
            "r": self._rank,
            "lora_alpha": self._alpha,
            "lora_dropout": 0.0,
            "target_modules": sorted({name.rpartition(".")[2] for name in self._beside}),
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "use_rslora": False,
            "use_dora": False,
            "modules_to_save": None,
        }
        tensors = {name: tensor_of(parameter) for name, parameter in self.parameters.items()}
        return adapters.Adapter(tensors, json.dumps(config, indent=2).encode())

    @torch.no_grad()
    def published(self) -> weights.Tensors:
        """The whole model, merged; what has no adapter is shared with the base."""
        found = dict(self._base)
        for name, linear in self._beside.items():
            found[f"{name}.weight"] = tensor_of(self._merged_weight(name, linear))
        return found

    @contextlib.contextmanager
    @torch.no_grad()
    def merged(self) -> Iterator[None]:
        """Within it, log-probabilities are those of :meth:`published`, to the bit."""
        kept = {name: linear.weight.data for name, linear in self._beside.items()}
        for name, linear in self._beside.items():
            linear.weight.data = self._merged_weight(name, linear).to(linear.weight.dtype)
        self._added = False
        try:
            yield
        finally:
            self._added = True
            for name, linear in self._beside.items():
                linear.weight.data = kept[name]

    def load(self, published: weights.Tensors) -> None:
        """Take published weights as the base; the adapter begins anew on them."""
        self._lay(published)
        self._begin()

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Within it the adapter lies on the model folder's weights."""
        if self._base is self._first:
            yield
            return
        parameters = dict(self._model.named_parameters())
        self._fill(parameters, self._first)
        try:
            yield
        finally:
            self._fill(parameters, self._base)

    def frozen(self) -> dict[str, Tensor]:
        """The base, where it is not the model folder's."""
        if self._base is self._first:
            return {}
        return {f"{_BASE}{name}": _values(tensor) for name, tensor in self._base.items()}

    def thaw(self, state: dict[str, Tensor]) -> None:
        """As :class:`Policy`. Raises ValueError where it is of another model."""
        found = {
            k.removeprefix(_BASE): tensor_of(v) for k, v in state.items() if k.startswith(_BASE)
        }
        if found or self._base is not self._first:
            self._lay(found or self._first)

    def _trained(self, model: Any) -> dict[str, torch.nn.Parameter]:
        model.requires_grad_(False)
        found: dict[str, torch.nn.Parameter] = {}
        for name, module in model.named_modules():
            if not isinstance(module, torch.nn.Linear) or not _named(name, self._wanted):
                continue
            self._beside[name] = module
            for letter, shape in (
                ("A", (self._rank, module.in_features)),
                ("B", (module.out_features, self._rank)),
            ):
                empty = torch.zeros(shape, dtype=module.weight.dtype, device=module.weight.device)
                found[_name(name, letter)] = torch.nn.Parameter(empty)
            down, up = found[_name(name, "A")], found[_name(name, "B")]
            module.register_forward_hook(self._adding(down, up))
        if not found:
            raise ValueError(f"no linear layer is named {' or '.join(self._wanted)}")
        return found

    def _adding(self, down_RI: Tensor, up_OR: Tensor) -> Any:
        scale = self._alpha / self._rank

        def add(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if not self._added:
                return None
            return output + (inputs[0] @ down_RI.t()) @ up_OR.t() * scale

        return add

    @torch.no_grad()
    def _begin(self) -> None:
        """A as peft draws it, the same for the same seed; B nothing."""
        chance = torch.Generator().manual_seed(self._seed)
        for name, master in self.masters.items():
            if name.endswith(".lora_A.weight"):
                bound = 1 / math.sqrt(master.shape[1])  # kaiming_uniform_ with a = sqrt(5)
                drawn = torch.rand(master.shape, generator=chance).mul_(2 * bound).sub_(bound)
                master.copy_(drawn)
            else:
                master.zero_()
        self.round()

    def _merged_weight(self, name: str, linear: torch.nn.Linear) -> Tensor:
        """bfloat16."""
        down, up = (self.parameters[_name(name, letter)].float() for letter in "AB")
        change = (up @ down).mul_(self._alpha / self._rank)
        return rounded(change.add_(linear.weight.float()))

    def _lay(self, base: weights.Tensors) -> None:
        self._fill(dict(self._model.named_parameters()), base)
        found = self._weights()
        self._base = self._first if digest(found) == digest(self._first) else found

    def _weights(self) -> weights.Tensors:
        return {name: tensor_of(each) for name, each in self._model.named_parameters()}


def policy_of(folder: Path, settings: Settings) -> Policy:
    """The policy that the settings ask for. Raises as :class:`LoraPolicy`."""
    same: dict[str, Any] = {
        "device": settings.device,
        "compute": settings.compute,
        "checkpointing": settings.activation_checkpointing,
    }
    if not settings.lora_rank:
        return Policy(folder, **same)
    return LoraPolicy(
        folder,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        modules=settings.lora_modules,
        seed=settings.seed,
        name=settings.model,
        **same,
    )


def learner_of(folder: Path, settings: Settings) -> Learner:
    """The learner of one process. Raises as :func:`policy_of`."""
    return Learner(policy_of(folder, settings), settings)


def _values(tensor: weights.Tensor) -> Tensor:
    bits = torch.from_numpy(tensor.bits.copy().view(np.int16))
    return bits.view(torch.bfloat16).view(tensor.shape)


def _name(module: str, letter: str) -> str:
    return f"{_PREFIX}{module}.lora_{letter}.weight"


def _named(name: str, wanted: Sequence[str]) -> bool:
    return any(name == end or name.endswith(f".{end}") for end in wanted)
