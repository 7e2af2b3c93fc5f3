"""What the gateway adds to a request, beside the LiteLLM proxy, in the same run.

    python -m benchmarks.gateway [--rate 100] [--calm-rate 10] [--seconds 8] [--rounds 3] [--json]

A fake model server (:mod:`benchmarks.upstream`: 100 tokens, no delay) is asked bare, through the
gateway with everything recorded on the embedded broker, and through LiteLLM, in turn; then
feedback is given at 200 a second. Requests are sent on a schedule whatever the answers do, and time
counts from the schedule. What a proxy adds is the difference of the percentiles. All is done again
at a calmer rate (``calm``), for a proxy that does not keep up is measured by its queue.

Prompts have about 215 tokens by the demo's model: a system prompt of 110 that all share, as those
of an application do, and a question of a hundred words or so drawn by chance, no two alike. LiteLLM
needs ``uv`` and a package index; without them its figure is null.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
import json
import random
import secrets
import sys
import time
from typing import Any

from benchmarks.load import Load, Times
from benchmarks.servers import CACHE_DIR, Servers, ready, say
from services.local import model, redis
from services.local.ports import free_port
from tailrace import ids, topics
from tailrace.log.kafka import KafkaLog

FEEDBACK_RATE = 200
KEY = f"sk-{secrets.token_hex(32)}"
"""LiteLLM does not start without one; the gateway has none set and does not look."""
LITELLM = (
    *("uv", "run", "--isolated", "--no-project", "--python", "3.11"),
    *("--exclude-newer", "2026-11-19T00:00:00Z", "--with", "litellm[proxy]==1.106.2", "litellm"),
)
LITELLM_CONFIG = """
model_list:
  - model_name: {name}
    litellm_params: {{model: openai/{name}, api_base: "{url}/v1", api_key: none}}
"""
SYSTEM = (
    "You keep the books of a water mill and answer the questions of its customers. Be brief and "
    "friendly. Give weights in kilograms and prices in full, say which day you mean, and never "
    "promise flour that has not been milled yet. If the river is low, say that the wheel may stand "
    "still for some days and offer to write again once it turns. When you do not know something, "
    "say so and name the person to ask. Do not speak of other customers or of what they pay."
)
WORDS = (
    "the water runs down a channel and back into our river below that old mill when could you "
    "grind ten more sacks of rye or spelt for bread which we want before Sunday please tell me "
    "what it costs because last month stone turned slowly"
).split()


def chat(number: int) -> dict[str, Any]:
    """About 200 tokens: a system prompt as all have it, and as much of the customer's own."""
    question = f"{number}: {' '.join(random.Random(number).choices(WORDS, k=90))}?"
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    return {"model": model.NAME, "messages": messages, "max_tokens": 100}


def thumb(number: int) -> dict[str, Any]:
    turn = ids.new_interaction(f"default:b{number % 500}", time.time_ns() // 1_000_000)
    return {"metric_name": "thumbs", "value": number % 3 != 0, "inference_id": turn}


def upstream_of(servers: Servers) -> str:
    """The URL of the fake model server."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.upstream", str(port)]
    return ready(f"http://127.0.0.1:{port}", "/", servers.start("upstream", command))


def gateway_of(servers: Servers, upstream: str) -> str:
    """The URL of the gateway, with all that it needs."""
    bootstrap = servers.kafka()
    log = KafkaLog(bootstrap)
    log.create(topics.TOPICS, session_partitions=4)
    log.close()
    part = redis.Redis(servers.folder, port=free_port())
    store = servers.start("redis", part.command())
    redis.wait_ready(part.url, 20.0, lambda: store.poll() is None)
    port = free_port()
    settings = servers.folder / "settings.toml"
    settings.write_text(
        f'kafka = "{bootstrap}"\nredis = "{part.url}"\nstate_dir = "state"\n'
        f'[gateway]\nport = {port}\nengine_url = "{upstream}"\nlearn_default = true\n'
        f'model_dir = "{model.prepare(CACHE_DIR, say)}"\n'
    )
    command = [sys.executable, "-m", "services.gateway", "--settings", str(settings)]
    return ready(f"http://127.0.0.1:{port}", "/readyz", servers.start("gateway", command))


def litellm_of(servers: Servers, upstream: str) -> str | None:
    """The URL of LiteLLM; None where it cannot be had."""
    config = servers.folder / "litellm.yaml"
    config.write_text(LITELLM_CONFIG.format(name=model.NAME, url=upstream))
    port = free_port()
    say("litellm: may download its packages, once")
    try:
        child = servers.start(
            "litellm",
            [*LITELLM, "--config", str(config), "--port", str(port), "--telemetry", "False"],
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            LITELLM_MASTER_KEY=KEY,
        )
        return ready(f"http://127.0.0.1:{port}", "/health/liveliness", child, 240.0)
    except (OSError, RuntimeError) as error:
        say(f"litellm: not measured: {error}")
        say(servers.tail("litellm"))
        return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gateway", description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=100.0, help="chat requests a second")
    parser.add_argument("--calm-rate", type=float, default=10.0, help="the same, once more")
    parser.add_argument("--seconds", type=float, default=8.0, help="a round of one of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-litellm", action="store_true")
    parser.add_argument("--json", action="store_true", help="the last line alone")
    given = parser.parse_args()
    with Servers() as servers:
        upstream = upstream_of(servers)
        gateway = gateway_of(servers, upstream)
        litellm = None if given.without_litellm else litellm_of(servers, upstream)
        urls = {"direct": upstream, "tailrace": gateway, "litellm": litellm}
        chats = {
            rate: {
                name: Load(url, "/v1/chat/completions", chat, KEY)
                for name, url in urls.items()
                if url is not None
            }
            for rate in (given.calm_rate, given.rate)
        }
        for rate, loads in chats.items():
            for _ in range(given.rounds):
                for load in loads.values():
                    asyncio.run(load.run(rate, given.seconds))
        feedback = Load(gateway, "/v1/feedback", thumb, KEY)
        asyncio.run(feedback.run(FEEDBACK_RATE, given.seconds))
    found = {
        rate: {name: load.times() for name, load in loads.items()} for rate, loads in chats.items()
    }
    if not given.json:
        for rate, times in found.items():
            show(rate, times)
        show(FEEDBACK_RATE, {"feedback": feedback.times()})
    result = section(given.rate, found[given.rate])
    result["feedback"] = feedback.times()._asdict()
    result["calm"] = section(given.calm_rate, found[given.calm_rate])
    print(json.dumps(result))
    every = [*(load for loads in chats.values() for load in loads.values()), feedback]
    wrong = [load.wrong[:3] for load in every if load.wrong]
    if wrong:
        say(f"wrong answers: {wrong}")
    return 1 if wrong else 0


def show(rate: float, found: Mapping[str, Times]) -> None:
    for name, times in found.items():
        line = f"{rate:5.0f}/s {name:9} p50 {times.p50_ms:8.2f} ms  p99 {times.p99_ms:8.2f} ms"
        if name in ("tailrace", "litellm"):
            added = Times(*(a - b for a, b in zip(times, found["direct"], strict=True)))
            line += f"  adds {added.p50_ms:.2f} and {added.p99_ms:.2f} ms"
        print(line)


def section(rate: float, found: Mapping[str, Times]) -> dict[str, Any]:
    names = ("direct", "tailrace", "litellm")
    return {"rate": rate} | {n: found[n]._asdict() if n in found else None for n in names}


if __name__ == "__main__":
    sys.exit(main())
