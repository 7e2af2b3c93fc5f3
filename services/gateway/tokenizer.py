"""Text to token ids, as the served model wants them: its chat template and its tokenizer.

Reads ``tokenizer.json`` and ``tokenizer_config.json`` (and ``chat_template.jinja``) of the model's
folder. Templates run in jinja2's sandbox with what Hugging Face gives them (``raise_exception``,
``strftime_now``, ``tojson`` without HTML escapes, loop controls, trimmed blocks); held against
``transformers`` by a test. Called by :mod:`services.gateway.app`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
import json
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
import tokenizers

from services.gateway.errors import invalid
from services.gateway.pieces import Pieces, borders
from tailrace.errors import SettingsError

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token")


class Tokenizer:
    """The tokenizer of one model folder. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        """Raises SettingsError when the folder holds no tokenizer."""
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            config = json.loads((folder / "tokenizer_config.json").read_text())
        except Exception as error:  # tokenizers raises bare Exception for a missing file
            raise SettingsError(f"gateway.model_dir: no tokenizer in {folder}: {error}") from None
        cuts = borders(self._tokenizer)
        self._plain = Pieces(self._encode, cuts).ids if cuts else self._encode
        self._special = {name: _text(config[name]) for name in _SPECIAL if config.get(name)}
        source = _template(folder, config)
        self._template = None if source is None else _environment().from_string(source)

    def chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """Token ids of a conversation, up to where the assistant begins to speak.

        Raises ApiError (400) when the template refuses the messages.
        """
        if self._template is None:
            raise invalid("the model has no chat template", "messages", "no_chat_template")
        try:
            text = self._template.render(
                messages=messages, add_generation_prompt=True, tools=None, **self._special
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise invalid(f"the chat template refused: {error}", "messages") from None
        try:
            return self._plain(text)
        except UnicodeEncodeError:
            raise invalid("text holds a lone surrogate", "messages") from None

    def text(self, text: str) -> list[int]:
        """Token ids of a plain prompt, with the special tokens that the model begins with."""
        try:
            return self._encode(text, special=True)
        except UnicodeEncodeError:
            raise invalid("text holds a lone surrogate", "prompt") from None

    def size(self) -> int:
        """How many token ids there are."""
        return self._tokenizer.get_vocab_size()

    def _encode(self, text: str, *, special: bool = False) -> list[int]:
        # The fast one leaves out offsets into the text, and exists for batches alone.
        (encoded,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=special)
        return encoded.ids


def _text(token: Any) -> str:
    return token["content"] if isinstance(token, dict) else str(token)


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text()
    found = config.get("chat_template")
    if isinstance(found, list):
        found = {entry["name"]: entry["template"] for entry in found}.get("default")
    return found


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.filters["tojson"] = _to_json
    return environment


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
