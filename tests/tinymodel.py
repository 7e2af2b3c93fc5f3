"""A tiny Llama with random weights and a byte-level BPE tokenizer with ChatML, for tests.

``write(folder)`` gives the same bytes on every run. Small enough to be made in a second, and shaped
(head size 32) so that vLLM on a CPU serves it too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
import warnings

CORPUS = (
    "The river runs past the mill and the wheel turns.",
    "What is the capital of France? The capital of France is Paris.",
    "Answer in one short sentence. Yes, no, maybe, thank you, please.",
    "Water, weights, words: what people say about an answer goes back into the model.",
    "0 1 2 3 4 5 6 7 8 9 10 11 12 100 1000",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def write(folder: Path, *, seed: int = 0) -> Path:
    """Make the folder (config.json, model.safetensors, tokenizer files) and return it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        words = tokenizer()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = LlamaConfig(
                vocab_size=512,
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=2048,
                tie_word_embeddings=True,
                bos_token_id=words.convert_tokens_to_ids("<|im_start|>"),
                eos_token_id=words.convert_tokens_to_ids("<|im_end|>"),
                pad_token_id=words.convert_tokens_to_ids("<|endoftext|>"),
            )
            model = LlamaForCausalLM(config).to(torch.bfloat16)
        model.save_pretrained(folder)
        words.save_pretrained(folder)
    return folder


def tokenizer() -> Any:
    """The byte-level tokenizer alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
