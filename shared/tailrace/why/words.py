"""The chains for people, some lines each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import itertools
import json
from typing import Any

from tailrace.explain import (
    clock,
    heard_in_words,
    named,
    number,
    plain,
    revision_in_words,
    text_of,
)
from tailrace.versions import age, size
from tailrace.why.records import Advantage, Answer, Decision, Mover, Serving, Trained, Turn, Weights

_BASIS = {
    "revision": "what this revision changed",
    "demonstration": "to be imitated",
    "pair": "of a pair",
    "step": "reward less the mean of its step",
}
_SHOWN_FIGURES = 8


def in_words(found: Turn | Weights) -> list[str]:
    """One line for each thing that happened. Nothing in it moves a terminal."""
    lines = _turn(found) if isinstance(found, Turn) else _weights(found)
    return [plain(line) for line in lines]


def _turn(found: Turn) -> Iterator[str]:
    yield found.interaction_id
    if found.asked is not None:
        asked = found.asked
        who = f" for {asked.user}" if asked.user else ""
        learn = "may be trained on" if asked.learn else "may not be trained on"
        yield f"  {clock(asked.where.time_ms)} model {asked.model}{who}, {learn}"
        yield f"  asked: {_text(asked.messages)}"
    for answer in found.answers:
        yield from _answer(answer)
    yield "feedback" if found.feedback else "no feedback"
    for heard in found.feedback:
        mark = ">" if heard.record.feedback_id == found.feedback_id else " "
        yield f"{mark} {heard_in_words(heard)}"
    if found.also:
        yield f"  (it is about the session, and also made the reward of {', '.join(found.also)})"
    for one in found.revisions:
        yield from revision_in_words(one)
        for decision in found.decisions:
            if decision.trajectory_id == one.trajectory_id:
                yield from _decision(decision)
    if not found.revisions:
        yield "no trajectory yet"
    if found.expired:
        yield f"of that time nothing is kept any more of {', '.join(found.expired)}"


def _answer(answer: Answer) -> Iterator[str]:
    end = answer.error or answer.untrainable or answer.finish_reason
    took = "" if answer.total_ms is None else f", {answer.total_ms / 1000:.1f} s"
    versions = ", ".join(map(str, answer.versions)) or "unknown"
    yield f"answer {answer.choice} ({end}, version {versions}) by {answer.engine}{took}"
    yield f"  {_text(answer.message)}"
    first = 0
    for version, group in itertools.groupby(answer.tokens, key=lambda token: token.version):
        members = list(group)
        known = [token.logprob for token in members if token.logprob is not None]
        mean = f", mean logprob {sum(known) / len(known):.3g}" if known else ""
        last = first + len(members) - 1
        yield f"  tokens {first} to {last} by version {_known(version)}{mean}"
        first = last + 1


def _decision(decision: Decision) -> Iterator[str]:
    version = decision.fate.version
    yield f"    {clock(decision.where.time_ms)} {named(decision.fate)}, version {_known(version)}"
    if decision.trained is not None:
        yield from (f"      {line}" for line in _trained(decision.trained))
    if decision.into is not None and decision.trained is not None:
        row = decision.into
        gone = ", withdrawn since" if row.withdrawn else ""
        made = f"{row.kind} of {_known(row.base)}, {size(row.bytes)}{gone}"
        yield f"      version {row.version}: {made}"
    yield from (f"      {line}" for line in _serving(decision.serving))


def _trained(trained: Trained) -> Iterator[str]:
    where = trained.where
    yield (
        f"step {trained.step} (steps/{where.partition}/{where.offset}), answer "
        f"{trained.place + 1} of {trained.answers}, by {trained.objective}, "
        f"weight {number(trained.weight)}, age {_known(trained.age_versions)}"
    )
    if trained.advantage is not None:
        before = "" if trained.before is None else f" (before: {number(trained.before)})"
        yield f"reward {number(trained.reward)}{before}, {_advantage(trained.advantage)}"
    if trained.figures:
        yield _figures(trained.figures)


def _weights(found: Weights) -> Iterator[str]:
    row = found.row
    notes = ["withdrawn"] if row.withdrawn else []
    notes += ["served now"] if found.served else []
    notes += ["trained on now"] if found.trained else []
    state = f" ({', '.join(notes)})" if notes else ""
    yield f"version {found.version} of {found.model}{state}"
    yield f"  {row.kind}, {size(row.bytes)}, made {clock(row.created_ms)}, digest {row.digest}"
    if found.uri is not None:
        yield f"  its bytes are at {found.uri}"
    bases = [
        f"{base.version}{' (withdrawn)' if base.withdrawn else ''}"
        + (f" [forks: {', '.join(map(str, base.children))}]" if len(base.children) > 1 else "")
        for base in found.ancestors
    ]
    bases += [f"{found.older} older"] if found.older else []
    yield f"comes from {' <- '.join(bases)}" if bases else "comes from nothing"
    children = [f"{c.version}{' (withdrawn)' if c.withdrawn else ''}" for c in found.children]
    yield f"led to {', '.join(children)}" if children else "led to nothing yet"
    for one in found.ranges:
        held = f", {len(one.held)} held back" if one.held else ""
        yield f"  trajectories/{one.partition}: {one.start} to {one.end}{held}"
    if found.first_feedback_ms is not None and found.last_feedback_ms is not None:
        span = f"{clock(found.first_feedback_ms)} to {clock(found.last_feedback_ms)}"
        yield f"  feedback from {span}"
    yield f"decided: {_counts(found.outcomes)}; trained by {_counts(found.objectives)}"
    for step in found.steps:
        reset = ", reseeded" if step.reseeded else ""
        yield f"step {step.step}: {step.answers} answers, lr {number(step.lr)}{reset}"
        yield f"  {_figures(step.figures)}"
    if found.canary is not None:
        yield f"canary: {len(found.canary.output)} tokens after {len(found.canary.prompt)}"
    yield from _serving(found.serving) if found.serving else ("no engine was heard",)
    if found.movers:
        yield "moved most by"
        yield from (f"  {_mover(mover)}" for mover in found.movers)


def _mover(mover: Mover) -> str:
    who = mover.interaction_id
    if who is None:
        who = f"trajectories/{mover.partition}/{mover.offset}, which is gone"
    choice = f" answer {mover.choice}" if mover.choice else ""
    reward = "" if mover.reward is None else f", reward {number(mover.reward)}"
    return f"{_advantage(mover.advantage)}{reward}, by {mover.objective}: {who}{choice}"


def _serving(found: Iterable[Serving]) -> Iterator[str]:
    for one in found:
        since = "never had it" if one.since_ms is None else f"has it since {clock(one.since_ms)}"
        if one.refused is not None:
            since = f"refused it ({one.refused})"
        pause = "" if one.pause_ms is None else f", pause {one.pause_ms / 1000:.2f} s"
        verb = "served" if one.now.stale else "serves"
        now = f"{verb} {one.now.version}" + ("" if one.serves else ", which is not made from it")
        if one.now.state == "refused":
            now = f"its last word: {one.now.version} refused"
        heard = f", {age(one.now.seconds_ago)} ago" if one.now.stale else ""
        yield f"engine {one.engine}: {since}{pause}; {now}{heard}"


def _advantage(advantage: Advantage) -> str:
    return f"advantage {advantage.value:+.4g} ({_BASIS[advantage.basis]})"


def _figures(figures: dict[str, float]) -> str:
    shown = [f"{name} {number(value)}" for name, value in list(figures.items())[:_SHOWN_FIGURES]]
    more = len(figures) - len(shown)
    return ", ".join(shown) + (f" and {more} more (--json)" if more else "")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or 'unnamed'} {count}" for name, count in counts.items()) or "nothing"


def _known(value: int | None) -> str:
    return "unknown" if value is None else str(value)


def _text(value: Any) -> str:
    return text_of(value if isinstance(value, str) else json.dumps(value))
