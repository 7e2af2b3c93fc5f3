"""Chat templates and tokens, held against transformers."""

from __future__ import annotations

import json
import warnings

import pytest

from services.gateway.errors import ApiError
from services.gateway.tokenizer import Tokenizer
from tailrace.errors import SettingsError

CONVERSATION = [
    {"role": "system", "content": "Answer in one sentence."},
    {"role": "user", "content": "What is the capital of France? 𝄞 <|im_end|>\n"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "  Why?  "},
]
TEMPLATE = """{{ bos_token }}
{%- for message in messages %}
    {%- if loop.index > 100 %}{% break %}{% endif %}
    {% if message['role'] not in ['user', 'assistant', 'system'] %}
        {{ raise_exception('unknown role ' + message['role']) }}
    {% endif %}
    {{ message | tojson }}
{%- endfor %}
{% if add_generation_prompt %}assistant: {% endif %}
"""


def expected(folder, messages):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tokenizer(text, add_special_tokens=False)["input_ids"]


def copy(tiny_model, folder, template):
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (folder / name).write_bytes((tiny_model / name).read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_the_models_own_template(tiny_model):
    assert Tokenizer(tiny_model).chat(CONVERSATION) == expected(tiny_model, CONVERSATION)


def test_a_template_with_everything(tiny_model, tmp_path):
    folder = copy(tiny_model, tmp_path, TEMPLATE)
    assert Tokenizer(folder).chat(CONVERSATION) == expected(folder, CONVERSATION)
    with pytest.raises(ApiError, match="unknown role tool") as caught:
        Tokenizer(folder).chat([{"role": "tool", "content": "4"}])
    assert caught.value.status == 400


def test_a_template_cannot_reach_out(tiny_model, tmp_path):
    folder = copy(tiny_model, tmp_path, "{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(ApiError):
        Tokenizer(folder).chat(CONVERSATION)


def test_no_template_and_no_tokenizer(tiny_model, tmp_path):
    folder = copy(tiny_model, tmp_path, None)
    assert Tokenizer(folder).text("The mill")
    with pytest.raises(ApiError, match="no chat template"):
        Tokenizer(folder).chat(CONVERSATION)
    with pytest.raises(SettingsError, match="model_dir"):
        Tokenizer(tmp_path / "nowhere")
