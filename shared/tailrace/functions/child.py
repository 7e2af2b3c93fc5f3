"""The process that a user's function runs in: a script on its own, started by :mod:`.calls`.

JSON lines. In, first: ``{"code": …}``, the file's bytes as Latin-1; then for each call
``{"prompts": […], "completions": […], "completion_ids": […], "columns": {…}}``.
Out, first: ``{"ready": true}``; then for each line ``{"values": […]}``, each a number, null or a
word that says why there is none, or ``{"reason": …, "detail": …}`` where the call failed. What the
function prints goes to standard error. The process ends with its input, and with its parent.
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
    function = _load(file, name, json.loads(asked.readline())["code"].encode("latin-1"))
    print('{"ready": true}', file=said, flush=True)
    for line in asked:
        try:
            answer = _call(function, json.loads(line))
        except Exception as error:  # the user's code raises what it will
            answer = {"reason": "raised", "detail": repr(error)[:500]}
        print(json.dumps(answer), file=said, flush=True)


def _load(file: str, name: str, code: bytes) -> Any:
    folder, base = os.path.split(file)
    # In place of this script's own folder, whose modules are not for the user's code to meet.
    sys.path[0] = folder
    module_name = f"user_{os.path.splitext(base)[0]}"
    found = importlib.util.spec_from_file_location(module_name, file)
    assert found is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[module_name] = module
    exec(compile(code, file, "exec", dont_inherit=True), module.__dict__)
    return getattr(module, name)


def _call(function: Any, request: dict[str, Any]) -> dict[str, Any]:
    given = request.pop("columns") | request | {"trainer_state": None}
    parameters = inspect.signature(function).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        given = {name: value for name, value in given.items() if name in parameters}
    result = function(**given)
    values = list(asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result)
    wanted = len(request["prompts"])
    if len(values) != wanted:
        detail = f"{len(values)} values for {wanted} answers"
        return {"reason": "wrong_length", "detail": detail}
    return {"values": [_value(value) for value in values]}


async def _awaited(result: Any) -> Any:
    return await result


def _value(value: Any) -> Any:
    if value is None:
        return None
    try:
        number = float("" if isinstance(value, str | bytes) else value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return "no_number"
    return number if math.isfinite(number) else "not_finite"


if __name__ == "__main__":
    main()
