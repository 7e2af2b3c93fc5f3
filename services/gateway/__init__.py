"""The gateway: OpenAI's HTTP API in front of the engine, and the way in for feedback.

    client ── /v1/chat/completions ──> app ── chat ── engine ──> vLLM
                                        │        └─ records ─> capture ─> Kafka, or spool ─> Kafka
    client ── /v1/feedback ───────────> app ── feedback ─────> capture        (202 when durable)
    client ── GET /v1/feedback/{id} ──> app ── fate <── Redis <── fold <── receipts, updates, acks

Serving never waits for learning: without Kafka, Redis or a trainer every answer is still given.
"""
