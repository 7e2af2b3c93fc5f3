"""The model that is trained: float32 masters, and their bfloat16 rounding that computes.

Forward and backward passes run on the rounding, which is what gets published, so log-probabilities
here are those of the weights that serve; they may compute in float32, on the same values. Gradients
of each micro-batch are added up in float32 beside the masters as soon as they exist. Takes
decoder-only Hugging Face models whose head is one matrix without bias or logit scaling (Llama and
its kind).
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
import transformers

from services.trainer import attention
from services.trainer.batch import MicroBatch
from services.trainer.head import token_logp
from services.trainer.rounding import rounded
from services.trainer.tree import tree
from tailrace.weights import tensors as weights

_S = TypeVar("_S", bound=msgspec.Struct)


class Scorer(torch.nn.Module):
    """A model's forward pass, from a micro-batch to what is asked of it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        # Masks of four dimensions are passed on as they are: the tree says what is seen.
        self._no_mask = torch.zeros(1, 1, 1, 1, device=model.device)

    def forward(self, batch: MicroBatch) -> Tensor:
        """Log-probability of every answer token, (T,)."""
        states = self.model.base_model(
            input_ids=batch.tree.ids_N[None],
            position_ids=batch.tree.place_N[None],
            attention_mask=self._no_mask,
            use_cache=False,
            tree=batch.tree,
        )
        hidden_TD = states.last_hidden_state[0].index_select(0, batch.state_T)
        weight_VD = self.model.get_output_embeddings().weight
        return token_logp(hidden_TD, weight_VD, batch.target_T, batch.temperature_T)


class Policy:
    """One causal language model on one device. For one thread."""

    processes = 1
    """How many it takes to compute with it."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "cpu",
        compute: Literal["bfloat16", "float32"] = "bfloat16",
        checkpointing: bool = False,
    ) -> None:
        """Load a Hugging Face folder. ``checkpointing``: keep no states within decoder layers
        between the passes, and make them again: the same bits in less memory and a third more time.

        Raises OSError or ValueError where the folder is none, or not bfloat16, or of a kind whose
        tokens would see other rows.
        """
        self.device = torch.device(device)
        transformers.utils.logging.disable_progress_bar()
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, attn_implementation=attention.NAME
        )
        for name, parameter in model.named_parameters():
            if parameter.dtype != torch.bfloat16:
                raise ValueError(f"{folder}: {name} is {parameter.dtype}, not bfloat16")
        if compute == "float32":
            model.float()
        self._model = model.to(self.device).eval()
        head = model.get_output_embeddings()
        if getattr(head, "bias", None) is not None:
            raise ValueError(f"{folder}: an output head with a bias is not supported")
        if not _ends_with_its_head(model):
            kind = model.config.model_type
            raise ValueError(f"{folder}: a {kind} scales its logits, which is not supported")
        self.vocabulary = len(head.weight)
        """How many token ids there are."""
        if checkpointing:
            for layer in layers_of(model):
                layer.forward = _checkpointed(layer.forward)
        self._scorer = Scorer(model)
        self.parameters: dict[str, torch.nn.Parameter] = self._trained(model)
        """The rounding of what is trained, by Hugging Face name; tied weights once."""
        self.masters: dict[str, Tensor] = {}
        """float32, same names; ``grad`` adds up over micro-batches."""
        for name, parameter in self.parameters.items():
            master = self._own(parameter).to(torch.float32, copy=True)
            self.masters[name] = master
            parameter.register_post_accumulate_grad_hook(self._into(master))
        if not self._rows_are_apart():
            raise ValueError(f"{folder}: tokens of a {model.config.model_type} see other rows")

    def logp(self, batch: MicroBatch) -> Tensor:
        """Log-probability of every answer token at its temperature: (T,), nats, differentiable."""
        found: Tensor = self._scorer(batch)
        return found

    def gradients(self) -> list[Tensor]:
        """What has added up since :meth:`clear`, in the masters' order."""
        found = []
        for master in self.masters.values():
            if master.grad is None:
                master.grad = torch.zeros_like(master)
            found.append(master.grad)
        return found

    def norm(self) -> float:
        """Of the whole gradient."""
        return float(torch.nn.utils.get_total_norm(self.gradients()))

    def turns(self, batches: Sequence[MicroBatch]) -> list[tuple[int, MicroBatch]]:
        """The passes of a step that this process takes, and each one's place: all of them."""
        return list(enumerate(batches))

    def total(self, sums: _S) -> _S:
        """What all processes added up in a step: what this one did."""
        return sums

    def clear(self) -> None:
        """Gradients to nothing."""
        for tensor in (*self.parameters.values(), *self.masters.values()):
            tensor.grad = None

    @torch.no_grad()
    def round(self) -> None:
        """Masters into the rounding that computes and is published."""
        for name, parameter in self.parameters.items():
            self._own(parameter).copy_(rounded(self.masters[name], self._start(parameter)))

    def load(self, published: weights.Tensors) -> None:
        """Take published weights, masters included.

        Raises ValueError when names, shapes or dtypes are not this model's.
        """
        self._fill(self.parameters, published)
        for name, parameter in self.parameters.items():
            self.masters[name].copy_(self._own(parameter))

    def published(self) -> weights.Tensors:
        """A copy of the rounding as published tensors: the whole model."""
        return {name: tensor_of(self._whole(each)) for name, each in self.parameters.items()}

    def merged(self) -> contextlib.AbstractContextManager[None]:
        """Within it, log-probabilities are those of :meth:`published`, to the bit."""
        return contextlib.nullcontext()

    def begun(self) -> contextlib.AbstractContextManager[None]:
        """Within it, what has no masters is as it was at first."""
        return contextlib.nullcontext()

    def frozen(self) -> dict[str, Tensor]:
        """What a checkpoint needs beside the masters: nothing."""
        return {}

    def thaw(self, state: dict[str, Tensor]) -> None:
        """Take what :meth:`frozen` gave, before masters are taken."""

    @torch.no_grad()
    def _rows_are_apart(self) -> bool:
        """Whether a row keeps its log-probabilities, to the bit, when the one before it changes.

        A model may not hand the tree on to its attention, or see by other means than that.
        """
        found = []
        for first in (1, 2):
            packed, _ = tree([[first] * 3, [3, 4, 5]])
            one_T = torch.ones(3, device=self.device)
            batch = MicroBatch(
                tree=packed.to(self.device),
                state_T=torch.arange(3, 6, device=self.device),
                answer_T=one_T.long(),
                target_T=one_T.long(),
                **{
                    f"{name}_T": one_T for name in ("behaviour", "advantage", "temperature", "mask")
                },
            )
            found.append(self.logp(batch))
        return torch.equal(*found)

    def _trained(self, model: Any) -> dict[str, torch.nn.Parameter]:
        """What of the model has masters."""
        return dict(model.named_parameters())

    def _own(self, tensor: Tensor) -> Tensor:
        """The part of a parameter or its gradient that this process has: all of it."""
        return tensor.detach()

    def _start(self, parameter: Tensor) -> int:
        """How many weights of a parameter are before that part."""
        return 0

    def _whole(self, tensor: Tensor) -> Tensor:
        """A parameter with the parts that other processes have: there are none."""
        return tensor.detach()

    def part(self, whole: Tensor, of: Tensor) -> Tensor:
        """What of a whole value is this process's part of a parameter."""
        return whole

    def _into(self, master: Tensor) -> Any:
        def add(parameter: Tensor) -> None:
            assert parameter.grad is not None
            gradient = self._own(parameter.grad)
            parameter.grad = None
            if master.grad is None:
                master.grad = gradient.to(torch.float32)
            else:
                master.grad.add_(gradient)

        return add

    @torch.no_grad()
    def _fill(self, parameters: dict[str, torch.nn.Parameter], published: weights.Tensors) -> None:
        if published.keys() != parameters.keys():
            names = sorted(published.keys() ^ parameters.keys())
            raise ValueError(
                f"weights do not fit the model: {names[0]!r} and {len(names) - 1} more"
            )
        for name, parameter in parameters.items():
            tensor = published[name]
            if tensor.dtype != "bfloat16" or tensor.shape != tuple(parameter.shape):
                raise ValueError(
                    f"weights do not fit the model: {name} {tensor.dtype} {tensor.shape}"
                )
            bits = torch.from_numpy(np.array(tensor.bits).view(np.int16)).view(torch.bfloat16)
            self._own(parameter).copy_(self.part(bits.view(parameter.shape), parameter))


def tensor_of(values: Tensor) -> weights.Tensor:
    """A copy of its bfloat16 rounding, as published."""
    rounded = values.detach().to("cpu", torch.bfloat16, copy=True).contiguous()
    return weights.Tensor.of("bfloat16", tuple(values.shape), rounded.view(torch.int16).numpy())


@torch.no_grad()
def _ends_with_its_head(model: Any) -> bool:
    """Whether the logits are what comes out of the last matrix: nothing scales or caps them."""
    found: list[Tensor] = []
    head = model.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, given, out: found.append(out))
    try:
        packed = tree([[0, 1, 2]])[0].to(model.device)
        logits = model(
            input_ids=packed.ids_N[None],
            position_ids=packed.place_N[None],
            attention_mask=torch.zeros(1, 1, 1, 1, device=model.device),
            use_cache=False,
            tree=packed,
        ).logits
    finally:
        hook.remove()
    return len(found) == 1 and torch.equal(found[0].float(), logits.float())


def layers_of(model: Any) -> list[Any]:
    """Its decoder layers."""
    return list(model.base_model.layers)


def _checkpointed(forward: Any) -> Any:
    def again(*given: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*given, **named)
        return checkpoint(forward, *given, use_reentrant=False, preserve_rng_state=False, **named)

    return again
