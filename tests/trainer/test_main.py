"""How the process ends when it cannot begin, or go on."""

from __future__ import annotations

from pathlib import Path
import shutil
import threading

import pytest

from services.local.ports import free_port
from services.trainer import __main__ as trainer
from tailrace import process
from tailrace.log import kafka
from tailrace.log.memory import MemoryLog
from tests.trainer import traffic
from tests.trainer.conftest import Mill
from tests.trainer.lives import run_until


def broken_config(model: Path) -> None:
    (model / "config.json").write_text("{")


def broken_weights(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\x08")


def broken_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text("{")


def _stands_in(monkeypatch: pytest.MonkeyPatch, log: MemoryLog | None = None) -> None:
    log = log or MemoryLog()
    traffic.make_topics(log)
    monkeypatch.setattr(kafka, "KafkaLog", lambda bootstrap: log)
    # What a process does to itself is not done to the tests.
    monkeypatch.setattr(process, "configure_logging", lambda service, level: None)
    monkeypatch.setattr(process, "stopping", threading.Event)
    monkeypatch.setattr(process, "expose", lambda port, ready: None)
    monkeypatch.setattr(trainer.heap, "keep", bool)


@pytest.mark.parametrize("breaks", [broken_config, broken_weights, broken_tokenizer])
def test_a_model_folder_that_is_none_is_a_message_and_exit_2(
    breaks: object,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert callable(breaks)
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    breaks(model)
    _stands_in(monkeypatch)
    file = tmp_path / "settings.toml"
    file.write_text(f'state_dir = "{tmp_path}"\n[trainer]\nmodel_dir = "{model}"\n')
    assert trainer.main(["--settings", str(file)]) == 2
    assert "trainer: trainer.model_dir: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "why"), [("cudaa", "'cudaa' is no device"), ("meta", "'meta' is not there or")]
)
def test_a_device_that_is_none_is_a_message_and_exit_2(
    device: str,
    why: str,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _stands_in(monkeypatch)
    file = tmp_path / "settings.toml"
    file.write_text(f'[trainer]\nmodel_dir = "{tiny_model}"\ndevice = "{device}"\n')
    monkeypatch.setenv("TAILRACE_STATE_DIR", str(tmp_path))
    assert trainer.main(["--settings", str(file)]) == 2
    assert f"trainer: trainer.device: {why}" in capsys.readouterr().err


def test_no_broker_is_a_message_and_exit_1(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real = kafka.KafkaLog
    _stands_in(monkeypatch)
    monkeypatch.setattr(kafka, "KafkaLog", real)
    monkeypatch.setattr(trainer, "_REACH_S", 0.5)
    file, away = tmp_path / "settings.toml", f"127.0.0.1:{free_port()}"
    file.write_text(
        f'kafka = "{away}"\nstate_dir = "{tmp_path}"\n[trainer]\nmodel_dir = "{tiny_model}"\n'
    )
    assert trainer.main(["--settings", str(file)]) == 1
    assert f"ended error=no answer from {away}: " in caplog.text


def test_no_version_to_go_on_from_is_a_message_and_exit_1(
    mill: Mill,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mill.put(*(traffic.trajectory(n) for n in range(8)))
    run_until(mill, "published", 1)
    mill.release(live=1)
    assert isinstance(mill.log, MemoryLog)
    traffic.spoil(mill.log, mill.versions()[1])
    _stands_in(monkeypatch, mill.log)
    file = tmp_path / "settings.toml"
    file.write_text(
        f'state_dir = "{tmp_path}"\nmodel = "{traffic.MODEL}"\n[trainer]\nreplay_steps = 0\n'
        f'model_dir = "{mill.settings.model_dir}"\n'
    )
    assert trainer.main(["--settings", str(file)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "trainer: no version of tiny to go on from can be read: corrupt: version 1"
    )
    assert line.endswith("(tailrace models rollback --to V names another)")
