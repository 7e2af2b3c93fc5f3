"""vLLM on a CPU with its weights as they come, as an accelerator has them.

vLLM repacks linear weights on a CPU where it has oneDNN; without, it computes with the weights as
they are. :class:`Extension` in a worker's process, :func:`worker` in this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
from pathlib import Path
from typing import Any
from unittest import mock
import warnings

import numpy as np

from services.engine.slot import Slot
from tailrace.weights.tensors import Tensor, Tensors, digest

KEEP = ("--worker-extension-cls", "tests.engine.unpacked.Extension")
"""vLLM's arguments."""


def unpack(stack: contextlib.ExitStack) -> None:
    """Until the stack is closed vLLM finds no library to repack for."""
    from vllm import _custom_ops
    from vllm.model_executor.layers import utils

    stack.enter_context(mock.patch.object(_custom_ops, "_supports_onednn", False))
    stack.enter_context(mock.patch.object(utils, "check_cpu_sgl_kernel", lambda *_: False))


class Extension:
    """vLLM mixes it into its worker before it loads the model."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        unpack(contextlib.ExitStack())
        return super().__new__(cls)


def changed(
    tensors: Mapping[str, Tensor], names: list[str], seed: int, share: float = 0.01
) -> Tensors:
    """The tensors with any bits (NaN, infinite, -0.0 among them) at some places of some."""
    random = np.random.default_rng(seed)
    found = dict(tensors)
    for name in names:
        tensor = tensors[name]
        bits = tensor.bits.copy()
        places = random.random(bits.size) < share
        places[random.integers(bits.size)] = True
        any_bits = random.integers(0, 256, bits.nbytes, dtype=np.uint8).view(bits.dtype)
        bits[places] = any_bits[places]
        found[name] = Tensor.of(tensor.dtype, tensor.shape, bits)
    return found


class Worker:
    """One model with the plugin, driven as vLLM's worker drives it."""

    def __init__(self, config: Any, model: Any, folder: Path) -> None:
        self.config, self.model, self.folder = config, model, folder
        self.slot = Slot([folder], "patches")
        self.restart()

    def restart(self) -> None:
        """The plugin trusts nothing that it did before."""
        import torch
        from vllm.config import WeightTransferConfig

        from tailrace.plugins.transfer import SharedFileTransfer

        backend = WeightTransferConfig(backend="tailrace")
        self.plugin = SharedFileTransfer(backend, self.config, torch.device("cpu"), self.model)

    def load(self, tensors: Mapping[str, Tensor], base: str | None = None) -> bool:
        """A swap; was it a patch?"""
        from vllm.config import set_current_vllm_config

        mark = digest(tensors)
        path = self.slot.write(tensors, mark, base)
        with set_current_vllm_config(self.config):
            self.plugin.start_weight_update()
            self.plugin.update_weights({"path": str(path), "digest": mark})
            self.plugin.finish_weight_update()
        self.slot.clear()
        return self.plugin._patched

    def bits(self) -> dict[str, bytes]:
        """Every parameter and buffer of the model."""
        import torch

        state = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        return {
            name: value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            for name, value in state.items()
        }


@contextlib.contextmanager
def worker(model: Path, folder: Path, *, rank: int = 0, ranks: int = 1) -> Iterator[Worker]:
    """A model in this process. Of several ranks it is the shard of one, and cannot compute."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from vllm.config import set_current_vllm_config
        from vllm.distributed import parallel_state
        from vllm.engine.arg_utils import EngineArgs
        from vllm.model_executor.model_loader import get_model
        from vllm.model_executor.models import registry

        arguments = EngineArgs(model=str(model), enforce_eager=True, max_model_len=128)
        with contextlib.ExitStack() as stack:
            # vLLM looks at a model's class in another process, for the sake of a GPU.
            stack.enter_context(
                mock.patch.object(registry, "_run_in_subprocess", lambda look: look())
            )
            config = arguments.create_engine_config()
            stack.enter_context(set_current_vllm_config(config))
            unpack(stack)
            if parallel_state._TP is None:
                where = f"file://{folder / 'rendezvous'}"
                parallel_state.init_distributed_environment(1, 0, where, 0, "gloo")
                parallel_state.initialize_model_parallel(1)
            group = parallel_state._TP
            assert group is not None
            stack.enter_context(mock.patch.object(group, "rank_in_group", rank))
            stack.enter_context(mock.patch.object(group, "world_size", ranks))
            torch.set_num_threads(1)
            yield Worker(config, get_model(vllm_config=config), folder)
