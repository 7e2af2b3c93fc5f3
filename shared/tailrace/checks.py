"""What verifiers of rewards and of benchmarks both look at: patterns, lengths, numbers. Pure."""

from __future__ import annotations

from collections.abc import Callable
import re

MAX_PROGRAM = 1000
"""Instructions of a compiled pattern: with the text's length, they bound the time it takes."""

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")


def finder(pattern: str) -> Callable[[str], bool]:
    """Whether a text has the RE2 pattern in it, in time linear in the text.

    Raises ValueError where it is none, or too large, and ImportError without google-re2.
    """
    import re2  # type: ignore[import-untyped]

    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    try:
        expression = re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0]
        raise ValueError(said.decode() if isinstance(said, bytes) else str(said)) from None
    if expression.programsize > MAX_PROGRAM:
        raise ValueError(f"too large: {expression.programsize} instructions of {MAX_PROGRAM}")
    return lambda text: expression.search(text) is not None


def within(length: int, least: int, most: int | None, slope: float) -> float:
    """1.0 from ``least`` to ``most`` (None: without end), falling to 0.0 over ``slope`` beyond.

    >>> within(12, 0, 12, 4), within(14, 0, 12, 4), within(9, 10, None, 0)
    (1.0, 0.5, 0.0)
    """
    beyond = max(least - length, 0)
    if most is not None:
        beyond = max(beyond, length - most)
    if not beyond:
        return 1.0
    return max(0.0, 1.0 - beyond / slope) if slope > 0 else 0.0


def last_number(text: str) -> float | None:
    """The last number in a text, of which it is usually the answer; None: it has none.

    >>> last_number("2 + 2 = 1,004."), last_number("four")
    (1004.0, None)
    """
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None
