"""A vLLM without a model: the worker's rules for updates, failures and hangs by script.

It knows what of an update it has taken and refuses to be asked out of order, as vLLM's worker does;
a test asks it afterwards what it served, and when.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import contextlib
import json
from pathlib import Path

from services.engine.admin import Gone, Refused, Unanswered

BASE = "base"
CHANGES = ("pause", "start", "update", "finish", "resume", "label", "load_adapter")


class FakeVllm:
    """State of one vLLM, and :class:`services.engine.admin.Admin` of it.

    ``script`` maps (call, how many-th) to ``refuse``, ``lose`` (it takes effect, the answer is
    lost), ``late`` (it does not yet: nothing answers for a while, then everything sent meanwhile
    is worked off in order), ``drop`` (it never does, and the answer is lost), ``hang`` (nothing
    answers from then on) or ``die``.
    """

    def __init__(self, script: dict[tuple[str, int], str] | None = None) -> None:
        self.script = script or {}
        self.calls: list[str] = []
        self.weights: str | None = BASE
        """Digest of what it holds; None: half of one."""
        self.label_ = "default"
        self.paused = False
        self.active = False
        self.broken = False
        self.loaded: str | None = None
        self.hung = self.dead = False
        self._busy = 0
        """How many more calls go without an answer."""
        self._sent: list[Callable[[], None]] = []
        """What is worked off after that."""
        self._open: str | None = None
        """A call that changes something, whose answer is missing, until a read is answered."""
        self.served: list[tuple[str | None, str]] = [(BASE, "default")]
        """What requests could meet: (weights, label), each time either changed while running."""
        self.logprobs: dict[str, list[float]] = {}
        self.adapters: dict[str, str] = {}
        """Path by name."""
        self.resumed_with: list[list[str]] = []
        """The adapters that were there at each resume."""
        self.worked_tokens, self.pace_tokens = 0.0, 0.0
        """How many it has worked off, and how many more until it is asked next."""
        self.mislabels = 0
        """How often finish leaves the label as it was."""

    def pause(self) -> None:
        self._call("pause", lambda: setattr(self, "paused", True))

    def resume(self) -> None:
        def work() -> None:
            self.paused = False
            self.resumed_with.append(sorted(self.adapters))

        self._call("resume", work)

    def start(self) -> None:
        def work() -> None:
            if self.active:
                raise Refused("start", 500, "start_weight_update called while already active")
            self.active = True

        self._call("start", work)

    def update(self, path: str, digest: str) -> None:
        def work() -> None:
            if not self.active:
                raise Refused("update", 500, "start first")
            assert self.paused, "weights were touched while requests ran"
            if self.broken or digest_of(path) != digest:
                self.active = False
                raise Refused("update", 500, "half-loaded" if self.broken else "another version")
            self.weights, self.loaded = None, digest

        self._call("update", work)

    def finish(self, label: str) -> None:
        def work() -> None:
            if not self.active or self.loaded is None:
                raise Refused("finish", 500, "nothing was loaded")
            self.weights, self.loaded, self.active = self.loaded, None, False
            if self.mislabels:
                self.mislabels -= 1
            else:
                self.label_ = label

        self._call("finish", work)

    def label(self, label: str) -> None:
        self._call("label", lambda: setattr(self, "label_", label))

    def weight_info(self) -> str:
        self._call("weight_info", lambda: None)
        return self.label_

    def is_paused(self) -> bool:
        self._call("is_paused", lambda: None)
        return self.paused

    def score(self, tokens: Sequence[int]) -> list[float]:
        self._call("score", lambda: None)
        assert self.weights is not None
        return self.logprobs.get(self.weights, [-1.0] * (len(tokens) - 1))

    def tokens(self) -> float:
        if self.dead:
            raise Gone("tokens")
        self.worked_tokens += self.pace_tokens
        return self.worked_tokens

    def models(self) -> list[str]:
        self._call("models", lambda: None, core=False)
        return ["tiny", *self.adapters]

    def load_adapter(self, name: str, path: str) -> None:
        def work() -> None:
            if name in self.adapters:
                raise Refused("load_adapter", 400, "has already been loaded")
            config = json.loads((Path(path) / "adapter_config.json").read_text())
            if config["r"] > 16:
                raise Refused("load_adapter", 400, "LoRA rank is greater than max_lora_rank")
            assert (Path(path) / "adapter_model.safetensors").exists()
            self.adapters[name] = path

        self._call("load_adapter", work)

    def unload_adapter(self, name: str) -> None:
        def work() -> None:
            if name not in self.adapters:
                raise Refused("unload_adapter", 404, "cannot be found")
            del self.adapters[name]

        self._call("unload_adapter", work, core=False)

    def healthy(self) -> bool:
        return not self.dead and not self.hung

    def _call(self, name: str, work: Callable[[], None], *, core: bool = True) -> None:
        """``core`` False: the API server answers by itself, whatever the core is at."""
        if self.dead:
            raise Gone(name)
        if self.hung:
            raise Unanswered(name)
        self.calls.append(name)
        assert self._open is None or name not in CHANGES, f"{name} beside {self._open}"
        try:
            self._answer(name, work, core)
        except Unanswered:
            self._open = name if name in CHANGES else self._open
            raise
        if name == "weight_info":
            self._open = None

    def _answer(self, name: str, work: Callable[[], None], core: bool) -> None:
        what = self.script.get((name, self.calls.count(name)))
        if what == "refuse":
            raise Refused(name, 500, "no")
        if what == "die":
            self.dead = True
            raise Unanswered(name)
        if what == "hang":
            self.hung = True
            raise Unanswered(name)
        if what == "late":
            self._busy = 4
        if self._busy and (core or what == "late"):
            self._busy -= 1
            self._sent.append(work)
            raise Unanswered(name)
        if core:
            self._work_off()
        if what != "drop":
            self._do(work)
        if what in ("lose", "drop"):
            raise Unanswered(name)

    def _work_off(self) -> None:
        sent, self._sent = self._sent, []
        for work in sent:
            with contextlib.suppress(Refused):
                self._do(work)

    def _do(self, work: Callable[[], None]) -> None:
        work()
        now = (self.weights, self.label_)
        if not self.paused and self.served[-1] != now:
            self.served.append(now)


def digest_of(path: str) -> str | None:
    """The digest that a slot's file carries."""
    with Path(path).open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(size))["__metadata__"]["digest"]
