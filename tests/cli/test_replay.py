"""``tailrace replay --train``: its words and exit codes, and once the whole way on a broker."""

from __future__ import annotations

from collections.abc import Iterator
import json
import os
from pathlib import Path
import subprocess
import sys

import pytest
import torch

from services.trainer.replay.__main__ import main
from tailrace import cli
from tailrace.log.kafka import KafkaLog
from tests.rollouts.scene import line, write
from tests.trainer.conftest import Clock, Mill
from tests.trainer.traffic import MODEL, trajectory

STRETCH = ("--from-version", "0", "--to-version", "2")


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--train",), "--from-version and --to-version"),
        (("--train", *STRETCH, "--since", "1h"), "--since does not go with --train"),
        (("--train", *STRETCH, "prompts"), "topic does not go with --train"),
        (("prompts", "--without", "a"), "--without does not go without --train"),
        (("prompts", "--from-version", "0"), "--from-version does not go without --train"),
        ((), "name a topic, or --train"),
    ],
)
def test_wrong_usage_ends_with_2(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["replay", *words]) == 2
    assert said in capsys.readouterr().err


def test_without_a_checkout_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "lib" / "tailrace" / "cli.py"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["replay", "--train", *STRETCH]) == 2
    assert "tailrace replay --train: this runs the services" in capsys.readouterr().err


def test_a_trainer_without_a_model_is_said_at_once(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TAILRACE_")}
    done = subprocess.run(
        [sys.executable, "-m", "tailrace.cli", "replay", "--train", *STRETCH],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "trainer.model_dir: a model folder is required" in done.stderr


@pytest.mark.kafka
def test_from_the_command_line_to_an_export(  # type: ignore[no-untyped-def]
    broker,
    prefix: str,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    threads: None,
) -> None:
    log = KafkaLog(broker.bootstrap)
    mill = Mill(log, tiny_model, tmp_path / "state", clock=Clock(), prefix=prefix)
    mill.put(*(trajectory(n, user="ann" if n == 3 else None) for n in range(16)))
    trainer = mill.trainer(horizon_s=1e10)  # the broker's clock is not that of these answers
    for _ in range(100):
        if trainer.head.version < 2:
            trainer.turn(0.2)
    assert trainer.head.version == 2
    mill.close()
    file = tmp_path / "settings.toml"
    file.write_text(
        f'kafka = "{broker.bootstrap}"\nprefix = "{prefix}"\nmodel = "{MODEL}"\n'
        f'state_dir = "state"\n[trainer]\nmodel_dir = "{tiny_model}"\nmicro_answers = 4\n'
    )
    handed = []

    def run_in_checkout(module: str, argv: list[str], *, name: str) -> int:
        handed.append(module)  # else this process would become it
        return main(argv)

    monkeypatch.setattr(cli, "run_in_checkout", run_in_checkout)
    monkeypatch.chdir(tmp_path)
    whole = ["replay", "--train", "--settings", str(file), *STRETCH]
    assert cli.main([*whole, "--json"]) == 0
    out, progress = capsys.readouterr()
    result = json.loads(out.splitlines()[-1])
    assert (result["from"], result["to"], result["steps"], result["equal"]) == (0, 2, 2, True)
    assert result["digest"] == result["published_digest"] == trainer.head.digest
    assert result["prefix"].startswith(f"{prefix}replay-")
    assert "2/2: step 2 of version 2, 8 answers" in progress

    where = ["--kafka", broker.bootstrap, "--prefix", result["prefix"], "--model", MODEL]
    assert cli.main(["models", *where, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["versions"]
    assert [(v["version"], v["kind"], v["steps"]) for v in found] == [
        *((0, "keyframe", 0), (1, "delta", 1), (2, "delta", 1)),
    ]
    assert cli.main(["models", "export", "2", "folder", *where]) == 0
    assert (tmp_path / "folder" / "model.safetensors").exists()
    tasks = write(tmp_path / "sums", [line(0, split="heldout")])
    capsys.readouterr()
    assert cli.main(["eval", str(tasks), "--version", "2", *where, "--json"]) == 0
    (measured,) = json.loads(capsys.readouterr().out)["benchmarks"]
    assert (measured["versions"], measured["scored"]) == ([2], 1)

    assert cli.main([*whole, "--without", "ann", "--into", f"{prefix}ann."]) == 0
    said = capsys.readouterr().out
    assert "left out: 1 of 16 answers (ann)" in said and "of the weights differ" in said
    assert cli.main([*whole, "--without", "bob", "--into", f"{prefix}bob."]) == 1
    assert "nothing of bob is among the 16 answers" in capsys.readouterr().err
    assert handed == ["services.trainer.replay"] * 3
    log.close()
