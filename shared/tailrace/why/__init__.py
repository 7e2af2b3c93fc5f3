"""Why an answer was learnt from, and why a version is what it is: the log, asked backwards.

    why.gather(log, common, "acme:chat-1~01HF7YAT00000")      # an interaction: a Turn
    why.gather(log, common, "acme:chat-1~01HF7YAT00000!x")    # a feedback: the same, it marked
    why.gather(log, common, "42")                             # a version: Weights

The structs are :mod:`.records`. Called by ``tailrace why`` and the dashboard.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace.log.base import Log
    from tailrace.settings import Common
    from tailrace.why.interaction import Spell
    from tailrace.why.records import Advantage as Advantage
    from tailrace.why.records import Ancestor as Ancestor
    from tailrace.why.records import Answer as Answer
    from tailrace.why.records import Asked as Asked
    from tailrace.why.records import Decision as Decision
    from tailrace.why.records import Mover as Mover
    from tailrace.why.records import Probe as Probe
    from tailrace.why.records import Serving as Serving
    from tailrace.why.records import StepTaken as StepTaken
    from tailrace.why.records import Token as Token
    from tailrace.why.records import Trained as Trained
    from tailrace.why.records import Turn as Turn
    from tailrace.why.records import Weights as Weights
    from tailrace.why.records import Where as Where

__all__ = [
    "Advantage",
    "Ancestor",
    "Answer",
    "Asked",
    "Decision",
    "Mover",
    "Probe",
    "Serving",
    "StepTaken",
    "Token",
    "Trained",
    "Turn",
    "Weights",
    "Where",
]


def __getattr__(name: str) -> Any:
    """A struct, on first use (PEP 562): ``tailrace --help`` needs none."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("tailrace.why.records"), name)


def gather(
    log: Log,
    common: Common,
    subject: str,
    *,
    now_ms: int | None = None,
    spell: Spell | None = None,
) -> Turn | Weights:
    """The chain of an interaction, of a feedback or of a version, by its id or number.

    ``spell`` gives the text of each token, where the caller has the model's tokenizer. Only what
    the chain leads to is read. With ``trusted_keys`` a version that none of them signed is not
    there, and what its steps and receipts say is not told. Raises ValueError for what is none of
    these or is not on the log, LogError, SettingsError for a key file that is none.
    """
    import time

    from tailrace import ids
    from tailrace.stream import Decoder
    from tailrace.why.feedback import interactions
    from tailrace.why.interaction import interaction
    from tailrace.why.weights import weights
    from tailrace.wire import Wire

    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    decoder = Decoder(log, Wire(common.registry), prefix=common.prefix)
    if subject.isascii() and subject.isdigit() and len(subject) < 19:
        return weights(log, decoder, common, int(subject), now_ms=now_ms, spell=spell)
    asked: str | None = None
    found = [subject]
    if "!" in subject:
        asked = subject
        found = interactions(log, decoder, subject, prefix=common.prefix)
    elif not ids.is_interaction(subject):
        raise ValueError(
            f"{subject!r} is none of these: an interaction <tenant>:<session>~<turn>, a feedback "
            "<interaction or session>!<token>, the number of a version"
        )
    return interaction(
        log,
        decoder,
        common,
        found[0],
        feedback_id=asked,
        also=found[1:],
        now_ms=now_ms,
        spell=spell,
    )


def add_parser(
    commands: argparse._SubParsersAction[Any], command: Callable[..., argparse.ArgumentParser]
) -> None:
    """``why``. ``command`` adds one with the options that say where the log is."""
    text = "an interaction from prompt to weights, or what moved a version"
    why = command(commands, "why", text)
    why.add_argument("subject", help="the id of an answer or of a feedback, or a version's number")
    why.add_argument("--json", action="store_true", help="for programs, one object")


def run(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    """Print it; the exit code. Raises TailraceError and ValueError."""
    import msgspec

    from tailrace.why.words import in_words

    found = gather(log, common, arguments.subject)
    if arguments.json:
        print(msgspec.json.encode(found).decode())
    else:
        print("\n".join(in_words(found)))
    return 0
