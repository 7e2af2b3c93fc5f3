"""The canary of a manifest: a fixed line of text and its logprobs under the weights just published.

An engine scores the same tokens after a swap. The line is ours, never a user's: manifests are kept
for ever.
"""

from __future__ import annotations

from pathlib import Path

import torch

from services.trainer.answer import Answer
from services.trainer.batch import pack
from services.trainer.policy import Policy
from tailrace.events import Canary
from tailrace.packing import pack_ids, pack_logprobs

TEXT = (
    "The water that turned the wheel goes back to the river, a little slower than it came. "
    "What the mill has learned of it stays with the mill."
)
PROMPT_TOKENS, OUTPUT_TOKENS = 8, 16


class CanaryLine:
    """The line in one model's tokens."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        """Raises ValueError when the folder's tokenizer.json cannot be used."""
        count = PROMPT_TOKENS + OUTPUT_TOKENS
        tokens: list[int] = []
        if (folder / "tokenizer.json").exists():
            from tokenizers import Tokenizer

            try:
                tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            except Exception as error:  # the library raises nothing narrower
                raise ValueError(f"{folder}/tokenizer.json: {error}") from error
            tokens = tokenizer.encode(TEXT, add_special_tokens=False).ids[:count]
        tokens += [(7 + 11 * i) % vocabulary for i in range(count - len(tokens))]
        self.prompt, self.output = tokens[:PROMPT_TOKENS], tokens[PROMPT_TOKENS:]

    def score(self, policy: Policy) -> Canary:
        """Its logprobs under the policy's published rounding, at temperature 1."""
        line = Answer(
            partition=0,
            offset=0,
            time_ms=0,
            trajectory_id="",
            session="",
            prompt=self.prompt,
            tokens=self.output,
            logprobs=[0.0] * len(self.output),
            temperature=1.0,
            reward=0.0,
            oldest_version=0,
            closed_ms=0,
        )
        with torch.no_grad():
            logp_T = policy.logp(pack([line], [0.0]).to(policy.device))
        return Canary(
            prompt_tokens=pack_ids(self.prompt),
            output_tokens=pack_ids(self.output),
            logprobs=pack_logprobs(logp_T.tolist()),
        )
