"""What people say an answer should have been, as the token ids that the model would have sampled.

In: a model folder. Out: a function from text to ids, end of turn included, which the intake and a
replay use alike (:class:`services.trainer.answer.Limits`); the folder's digest is in every version,
so both have the same words. Called by :mod:`services.trainer.trainer`, once.
"""

from __future__ import annotations

from collections.abc import Callable
import json
import logging
from pathlib import Path
from typing import Any

from services.trainer.answer import Limits
from services.trainer.settings import Settings

_log = logging.getLogger(__name__)


def limits_of(settings: Settings, folder: Path, vocabulary: int) -> Limits:
    """What a trainer with this model can take; whoever replays its steps can take the same. Raises
    ValueError for a tokenizer.json that is none."""
    return Limits(
        model=settings.model,
        vocabulary=vocabulary,
        max_tokens=settings.max_tokens,
        max_reward=settings.max_reward,
        encode=encoder_of(folder),
    )


def encoder_of(folder: Path) -> Callable[[str], list[int]] | None:
    """None, and said in the log, where the folder has no tokenizer.json or names no end of turn:
    then demonstrations are not trained on. Raises ValueError for a tokenizer.json that is none."""
    path = folder / "tokenizer.json"
    end = _end_of_turn(folder)
    if not path.exists() or end is None:
        what = "end of turn" if path.exists() else "tokenizer.json"
        _log.warning("demonstrations are not trained on: no %s in %s", what, folder)
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path}: {error}") from error
    # What looks like a mark of the template is what somebody wrote, here.
    tokenizer.encode_special_tokens = True

    def encode(text: str) -> list[int]:
        # An empty edit says that there should have been no answer, which is none to learn.
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return [*ids, end] if ids else []

    return encode


def _end_of_turn(folder: Path) -> int | None:
    """Of the ids that end an answer the first, as the engine has it."""
    for name in ("generation_config.json", "config.json"):
        try:
            found: Any = json.loads((folder / name).read_bytes()).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        found = found[0] if isinstance(found, list) and found else found
        if isinstance(found, int):
            return found
    return None
