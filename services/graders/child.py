"""The process that a user's function runs in: a script on its own, started by :mod:`.calls`.

JSON lines. In: ``{"prompts": […], "completions": […], "completion_ids": […], "columns": {…}}``.
Out, first: ``{"ready": true}``; then for each line ``{"values": […]}``, each a number, null or
``{"reason": …}``, or ``{"reason": …, "detail": …}`` where the call failed. What the function prints
goes to standard error. The process ends with its input, and with its parent.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import inspect
import json
import math
import os
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_OWN = ("prompts", "completions", "completion_ids", "trainer_state")


def main() -> None:
    """``child.py <file> <function> <pid of the parent>``."""
    file, name, parent = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)
    # The function must neither read what is asked nor write among the answers.
    asked, said = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    function = _load(file, name)
    print('{"ready": true}', file=said, flush=True)
    for line in asked:
        try:
            answer: dict[str, Any] = {"values": _call(function, json.loads(line))}
        except _Wrong as error:
            answer = {"reason": error.reason, "detail": str(error)}
        except Exception as error:
            answer = {"reason": "raised", "detail": repr(error)[:500]}
        print(json.dumps(answer), file=said, flush=True)


class _Wrong(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _load(file: str, name: str) -> Any:
    folder, base = os.path.split(file)
    # In place of this script's own folder, whose modules are not for the user's code to meet.
    sys.path[0] = folder
    module_name = f"graders_{os.path.splitext(base)[0]}"
    found = importlib.util.spec_from_file_location(module_name, file)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[module_name] = module
    found.loader.exec_module(module)
    return getattr(module, name)


def _call(function: Any, request: dict[str, Any]) -> list[Any]:
    given = {name: values for name, values in request["columns"].items() if name not in _OWN}
    given |= {name: request[name] for name in _OWN[:3]} | {"trainer_state": None}
    parameters = inspect.signature(function).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        given = {name: value for name, value in given.items() if name in parameters}
    result = function(**given)
    if inspect.isawaitable(result):
        result = asyncio.run(_awaited(result))
    values = list(result)
    if len(values) != len(request["prompts"]):
        wanted = len(request["prompts"])
        raise _Wrong("wrong_length", f"{len(values)} values for {wanted} answers")
    return [_value(value) for value in values]


async def _awaited(result: Any) -> Any:
    return await result


def _value(value: Any) -> Any:
    if value is None:
        return None
    try:
        number = float("" if isinstance(value, str | bytes) else value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return {"reason": "no_number"}
    return number if math.isfinite(number) else {"reason": "not_finite"}


if __name__ == "__main__":
    main()
