"""The gateway's settings: table ``[gateway]`` of the settings file, ``TAILRACE_GATEWAY_*``."""

from __future__ import annotations

from pathlib import Path

from tailrace.settings import Common


class Settings(Common, frozen=True, kw_only=True):
    """See :mod:`tailrace.settings` for the common keys."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8080
    """Port to listen on; /healthz, /readyz and /metrics are there too."""
    engine_url: str = "http://127.0.0.1:8000"
    """vLLM's own address (started with --enable-scale-out)."""
    engine: str = "engine-0"
    """Id of that engine, as it signs its acks; written into every Output."""
    model_dir: Path = Path("model")
    """Folder with the served model's tokenizer.json and tokenizer_config.json."""
    logprobs_mode: str = "processed_logprobs"
    """What vLLM was started with (--logprobs-mode). Anything else makes answers untrainable."""
    learn_default: bool = False
    """Whether an interaction may be trained on when the request does not say."""
    keys: dict[str, str] = {}
    """API key to tenant. Empty: no authentication, everybody is tenant ``default``."""
    graders: tuple[str, ...] = ()
    """Those of ``keys`` whose holders may give feedback with ``source: grader``. Without ``keys``
    everybody may."""
    token_keys: tuple[str, ...] = ()
    """Secrets of 16 bytes or more for browser tokens: the first signs, all verify. Several gateways
    must share them. Empty: one is made at the first start, in ``state_dir``/gateway/token.key."""
    token_ttl_s: int = 3 * 3600
    """How long a browser token lasts that asks for nothing else; 7 days at most."""
    origins: tuple[str, ...] = ()
    """Origins (https://app.example.com) whose pages may call the feedback routes. Empty: none."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call every route, and so ask the model for answers: the dashboard's,
    for its *Talk*. Empty: none."""
    metrics: dict[str, str] = {}
    """Feedback metric to the kind of its values (boolean, number, category, comment, demonstration,
    preference); feedback of another kind is refused. Metrics not named here are not checked."""
    max_body_bytes: int = 4 * 1024 * 1024
    """A larger request body is refused with 413."""
    max_record_bytes: int = 7 * 1024 * 1024
    """Prompt and answer together; beyond it they are recorded without content, ``too_large``."""
    max_choices: int = 16
    """Largest ``n``."""
    engine_wait_s: float = 120.0
    """How long a request waits for an engine that does not answer (it may be restarting)."""
    engine_silence_s: float = 300.0
    """How long a running request may stay without a byte from the engine."""
    ack_s: float = 5.0
    """How long the brokers may take to acknowledge a record before it goes to the spool."""
    queue_bytes: int = 64 * 1024 * 1024
    """Records waiting in memory; beyond it prompts and outputs lose their content, counted."""
    spool_bytes: int = 256 * 1024 * 1024
    """Records waiting on disk; the last fifth is for feedback alone."""
    drain_s: float = 25.0
    """After SIGTERM: how long requests in flight may take to end."""
    fate_ttl_s: int = 30 * 24 * 3600
    """How long Redis remembers what became of a feedback."""
