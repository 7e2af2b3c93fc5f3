"""A model server that costs nothing: one fixed answer of 100 tokens, for benchmarks.

    python -m benchmarks.upstream PORT

``/inference/v1/generate`` answers as vLLM does (token ids, a logprob each, a weight version),
``/v1/chat/completions`` as OpenAI does. The body is read and thrown away.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import uvicorn

TOKENS = 100
WORD = " river"


def generated() -> bytes:
    entry = {"token": WORD, "logprob": -0.6931471824645996, "bytes": list(WORD.encode())}
    choice = {
        "index": 0,
        "text": WORD * TOKENS,
        "token_ids": list(range(1000, 1000 + TOKENS)),
        "logprobs": {"content": [entry | {"top_logprobs": [entry]}] * TOKENS},
        "finish_reason": "length",
        "weight_versions": [{"version": "1", "start": 0, "end": TOKENS}],
    }
    return json.dumps({"request_id": "x", "choices": [choice]}).encode()


def completed() -> bytes:
    message = {"role": "assistant", "content": WORD * TOKENS}
    return json.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "fake",
            "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 200, "completion_tokens": TOKENS, "total_tokens": 300},
        }
    ).encode()


ANSWERS = {"/inference/v1/generate": generated(), "/v1/chat/completions": completed()}


async def app(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    body = ANSWERS.get(scope["path"], b"{}")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        lifespan="off",
        access_log=False,
        log_level="warning",
        loop="uvloop",
    )
