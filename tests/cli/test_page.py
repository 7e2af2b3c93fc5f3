"""docs/commands.md: what it shows is what comes out."""

from __future__ import annotations

import re

from tailrace import audit, lag, status, why
from tailrace.deadline import Deadline
from tailrace.why.words import in_words
from tailrace.wire import Wire
from tests.borders.test_imports import ROOT
from tests.cli.river import River

PAGE = (ROOT / "docs" / "commands.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_what_it_shows_is_what_comes_out(river: River) -> None:
    _, bad = river.learn()
    river.ack("engine-0", 1, apply_ms=300.0, pause_ms=210.0)
    river.train(2, 1)
    river.ack("engine-0", 2, apply_ms=300.0, pause_ms=190.0)
    lines: list[str] = []
    for subject in (f"{bad}!b", "1"):
        found = why.gather(river.log, river.common, subject, now_ms=river.now_ms)
        lines += in_words(found)
    river.ask("And of Spain?", "Rome.")
    river.now_ms += 3000
    committed = {
        "tailrace-rewards": {("prompts", 0): 2, ("outputs", 0): 2, ("feedback", 0): 2},
        "tailrace-graders-polite": {("outputs", 0): 3},
    }
    rows = lag.gather(river.log, river.common, committed, now_ms=river.now_ms)
    lines += lag.in_words(rows)
    lines += status.in_words(status.gather(river.log, river.common, now_ms=river.now_ms))
    account = audit.read(river.log, Wire(), model=river.common.model, deadline=Deadline())
    lines += audit.in_words(account.report())
    shown = [block for block in BLOCKS if not block.startswith("tailrace ")]
    assert len(shown) == 5
    for line in "".join(shown).splitlines():
        assert line in lines
