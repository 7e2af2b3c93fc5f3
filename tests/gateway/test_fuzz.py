"""10,000 feedback bodies, wrong in every way that came to mind, against the whole application.

In-process through ASGI, over a log in memory: each is a 202 or a 4xx with a code, and the log holds
exactly the records that were promised.
"""

from __future__ import annotations

import asyncio
from collections import Counter
import json
import random
import time

import httpx

from services.gateway.build import build
from services.gateway.settings import Settings
from tailrace import ids, topics
from tests.gateway.conftest import read

BODIES = 10_000
NOW_MS = time.time_ns() // 1_000_000
KEYS = {"sk-acme": "acme", "sk-other": "other"}
TURNS = [ids.new_interaction(f"acme:s{n}", NOW_MS) for n in range(20)]
SUBJECTS = [
    *TURNS,
    "acme:s1",
    "s1",
    TURNS[0].partition(":")[2],
    TURNS[1].lower(),
    ids.new_interaction("other:s", NOW_MS),
    ids.new_interaction("acme:s", 1),
    ids.new_interaction("acme:s", NOW_MS + 10**9),
    "acme:s~ZZZZZZZZZZZZZ",
    "acme:" + "s" * 200,
    "\u0000",
    "acme:s~",
    "~",
    ":",
    "!",
    "",
]
VALUES = [
    *(True, False, None, 0, 1, -1, 0.5, 4, 10**400, -(2**63), 1e308, float("nan"), float("inf")),
    *("", "good", "x" * 5_000, "\ud800", "\u0000", "é" * 300, [], [1], {}, {"a": {"b": []}}),
]
NAMES = [
    *("thumbs", "stars", "comment", "demonstration", "best", "edit", "", "m" * 3_000, "\ud800"),
    *(None, 4, True, ["thumbs"]),
]
KINDS = [
    *("boolean", "number", "category", "comment", "demonstration", "preference", "thing", "", 4),
]
OVER = ["0", "1", "127", "128", "-1", "1e3", TURNS[0], f"{TURNS[0]}/1", f"{TURNS[1]}/", "x", 1, "~"]
FIELDS = {
    "metric_name": NAMES,
    "value": VALUES,
    "inference_id": SUBJECTS,
    "episode_id": SUBJECTS,
    "feedback_id": [*("a", "b", "c", "a b", "!", "", 4), f"{TURNS[0]}!t", "acme:s!x", "x" * 129],
    "kind": KINDS,
    "preferred_over": OVER,
    "choice": [0, 1, 127, 128, -1, 2**60, 1.5, "1", True],
    "tags": [{}, {"a": "b"}, {"a": 1}, {"": ""}, [], "x", {"a": "\ud800"}],
    "replaces": ["a", f"{TURNS[0]}!t", "other:s!x", "!", "", 4],
    "action": ["set", "retract", "delete", "", 4],
    "source": ["user", "implicit", "grader", "engine", "", 4],
    "grader": ["polite", "", 4],
    "user": ["u", "", "u" * 5_000, 4, "\ud800"],
    "event_time_ms": [0, 1, NOW_MS, 2**53, 2**53 + 1, 2**70, -1, "now", 1.5],
    "more": [1],
}


def document(chance):
    """A good one, with none, one or several things changed, left out or added."""
    said = {"metric_name": "thumbs", "value": True, "inference_id": chance.choice(TURNS)}
    for name in chance.sample(list(FIELDS), chance.choice((0, 0, 1, 1, 1, 2, 2, 3, 6))):
        said[name] = chance.choice(FIELDS[name])
    if chance.random() < 0.1:
        said.pop(chance.choice(list(said)))
    return said


def body(chance):
    kind = chance.random()
    if kind < 0.72:
        text = json.dumps(document(chance))
    elif kind < 0.9:
        text = json.dumps([document(chance) for _ in range(chance.choice((0, 1, 2, 3, 8)))])
    elif kind < 0.92:
        text = "[" * chance.randrange(1, 50_000)
    elif kind < 0.93:
        text = json.dumps({"metric_name": "comment", "value": "x" * 70_000})
    elif kind < 0.95:
        text = json.dumps(chance.choice(VALUES))
    else:
        text = json.dumps(document(chance))
        at = chance.randrange(len(text))
        changed = bytearray(text.encode())
        changed[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(4))
        return bytes(changed)
    return text.encode("utf-8", "surrogatepass")


def test_ten_thousand_bodies(tmp_path, tiny_model, log, engine_url):
    chance = random.Random(4)
    values = {"state_dir": tmp_path, "model_dir": tiny_model, "engine_url": engine_url}
    settings = Settings(
        **values, keys=KEYS, max_body_bytes=60_000, metrics={"stars": "number", "thumbs": "boolean"}
    )
    gateway, _ = build(settings, now_ms=lambda: time.time_ns() // 1_000_000, log=log)
    app = gateway.app()
    seen: Counter[tuple[int, str]] = Counter()
    promised: list[str] = []

    async def run():
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=True)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                asked = {"authorization": "Bearer sk-acme"}
                made = await client.post(
                    "/v1/feedback/tokens", json={"inference_id": TURNS[0]}, headers=asked
                )
                tokens = ["sk-acme"] * 6 + ["sk-other", made.json()["token"], "trt1.x.y", "é"]
                for at in range(0, BODIES, 50):
                    batch = (give(client, chance.choice(tokens)) for _ in range(50))
                    await asyncio.gather(*batch)
                    if at == BODIES // 2:
                        log.down = True
                    if at == BODIES * 3 // 4:
                        log.down = False
                async with asyncio.timeout(30):
                    while (await client.get("/readyz")).json()["records"] != "kafka":
                        await asyncio.sleep(0.01)

    async def give(client, token):
        headers = {"authorization": f"Bearer {token}".encode()}
        answer = await client.post("/v1/feedback", content=body(chance), headers=headers)
        told = answer.json()
        if answer.status_code == 202:
            promised.extend(
                one["feedback_id"] for one in (told if isinstance(told, list) else [told])
            )
            seen[202, ""] += 1
        else:
            assert 400 <= answer.status_code < 500, (answer.status_code, told)
            assert told["error"]["code"] and told["error"]["message"], told
            seen[answer.status_code, told["error"]["code"]] += 1

    asyncio.run(run())
    assert seen.total() == BODIES
    assert seen[202, ""] > 1_000 and len(seen) > 15, seen
    records = read(log, topics.FEEDBACK)
    assert {r.feedback_id for r in records} == set(promised)
    assert all(r.tenant in KEYS.values() for r in records)
