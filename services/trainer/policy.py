"""The model that is trained: float32 masters, and their bfloat16 rounding that computes.

Forward and backward passes run on the rounding, which is what gets published, so log-probabilities
here are those of the weights that serve; they may compute in float32, on the same values. Gradients
of each micro-batch are added up in float32 beside the masters as soon as they exist. Takes
decoder-only Hugging Face models whose head is one matrix without bias or logit scaling (Llama and
its kind).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
import transformers

from services.trainer.batch import MicroBatch
from services.trainer.head import token_logp
from tailrace.weights import tensors as weights

MIN_PREFIX_TOKENS = 8
"""A shorter common prefix is not worth a forward pass of its own."""


class Policy:
    """One causal language model on one device. For one thread."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "cpu",
        compute: Literal["bfloat16", "float32"] = "bfloat16",
    ) -> None:
        """Load a Hugging Face folder. Raises OSError or ValueError where it is none, or not
        bfloat16."""
        self.device = torch.device(device)
        transformers.utils.logging.disable_progress_bar()
        # eager attention: at these lengths its few small products beat the fused kernel on a CPU,
        # and its backward is deterministic everywhere.
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, attn_implementation="eager"
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
        self._decoder = getattr(model, model.base_model_prefix)
        self._head: Tensor = head.weight
        self.parameters: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
        """The rounding, by Hugging Face name; tied weights once."""
        self.masters: dict[str, Tensor] = {}
        """float32, same names; ``grad`` adds up over micro-batches."""
        for name, parameter in self.parameters.items():
            master = parameter.detach().to(torch.float32, copy=True)
            master.grad = torch.zeros_like(master)
            self.masters[name] = master
            parameter.register_post_accumulate_grad_hook(_into(master))

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return len(self._head)

    def logp(self, batch: MicroBatch) -> Tensor:
        """Log-probability of every answer token at its temperature: (T,), nats, differentiable."""
        ids_BL, real_BL = batch.ids_BL, batch.real_BL
        prefix = len(batch.prefix_P)
        rows, width = ids_BL.shape
        if 0 < prefix < MIN_PREFIX_TOKENS:
            ids_BL = torch.cat([batch.prefix_P.expand(rows, -1), ids_BL], 1)
            real_BL = torch.cat([real_BL.new_ones(rows, prefix), real_BL], 1)
            hidden_BLD = self._states(input_ids=ids_BL, attention_mask=real_BL, use_cache=False)
            hidden_BLD = hidden_BLD[:, prefix:]
        elif prefix:
            cache = transformers.DynamicCache()
            self._states(input_ids=batch.prefix_P[None], past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(rows)
            place_L = torch.arange(prefix, prefix + width, device=self.device)
            hidden_BLD = self._states(
                input_ids=ids_BL,
                attention_mask=torch.cat([real_BL.new_ones(rows, prefix), real_BL], 1),
                position_ids=place_L.expand(rows, -1),
                past_key_values=cache,
                use_cache=True,
            )
        else:
            hidden_BLD = self._states(input_ids=ids_BL, attention_mask=real_BL, use_cache=False)
        hidden_TD = hidden_BLD[batch.row_T, batch.column_T]
        return token_logp(hidden_TD, self._head, batch.target_T, batch.temperature_T)

    def gradients(self) -> list[Tensor]:
        """What has added up since :meth:`clear`, in the masters' order."""
        return [master.grad for master in self.masters.values() if master.grad is not None]

    def clear(self) -> None:
        """Gradients to zero."""
        for parameter in self.parameters.values():
            parameter.grad = None
        torch._foreach_zero_(self.gradients())

    @torch.no_grad()
    def round(self) -> None:
        """Masters into the rounding that computes and is published."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.masters[name].bfloat16())

    @torch.no_grad()
    def load(self, published: weights.Tensors) -> None:
        """Take published weights, masters included.

        Raises ValueError when names, shapes or dtypes are not this model's.
        """
        if published.keys() != self.parameters.keys():
            names = sorted(published.keys() ^ self.parameters.keys())
            raise ValueError(
                f"weights do not fit the model: {names[0]!r} and {len(names) - 1} more"
            )
        for name, parameter in self.parameters.items():
            tensor = published[name]
            if tensor.dtype != "bfloat16" or tensor.shape != tuple(parameter.shape):
                raise ValueError(
                    f"weights do not fit the model: {name} {tensor.dtype} {tensor.shape}"
                )
            bits = torch.from_numpy(np.array(tensor.bits).view(np.int16)).view(torch.bfloat16)
            parameter.copy_(bits.view(parameter.shape))
            self.masters[name].copy_(parameter)

    def published(self) -> weights.Tensors:
        """A copy of the rounding as published tensors."""
        found: weights.Tensors = {}
        for name, parameter in self.parameters.items():
            rounded = parameter.detach().to("cpu", torch.bfloat16, copy=True).contiguous()
            bits = rounded.view(torch.int16).numpy()
            found[name] = weights.Tensor.of("bfloat16", tuple(parameter.shape), bits)
        return found

    def _states(self, **inputs: Any) -> Tensor:
        states: Tensor = self._decoder(**inputs).last_hidden_state
        return states


def _into(master: Tensor) -> Any:
    def add(parameter: Tensor) -> None:
        assert master.grad is not None and parameter.grad is not None
        master.grad.add_(parameter.grad)
        parameter.grad = None

    return add
