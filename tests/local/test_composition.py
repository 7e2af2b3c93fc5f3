"""What the children are told."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys

import pytest

from services.local.composition import Addresses, check, compose
from services.local.preparation import of_children
from services.local.settings import Settings
from services.rewards import spec
from tailrace.errors import SettingsError
from tests.borders.test_imports import ROOT

PORTS = dict.fromkeys(("kafka", "redis", "gateway", "vllm"), 1)


def document(settings: Settings) -> dict[str, object]:
    ports = PORTS | {f"{service}_metrics": 2 for service in settings.services}
    addresses = Addresses.of(settings, ports)
    return compose(settings, addresses, Path("model"), "token")


def test_a_rewards_worker_keeps_its_name_on_the_embedded_broker_only() -> None:
    assert document(Settings())["rewards"]["instance"] == "local"  # type: ignore[index]
    shared = document(Settings(kafka="127.0.0.1:9092"))
    assert "instance" not in shared["rewards"]  # type: ignore[operator]


def test_a_thumb_counts_at_once_unless_the_user_names_a_reward_spec() -> None:
    decided = document(Settings())
    named: Path = decided["rewards"]["spec"]  # type: ignore[index]
    found = spec.load(named)
    assert found.metrics["thumbs"].final and found.late == "correct"
    assert found.longest_wait_ms <= 10_000
    assert found.orphan_s >= 300, "a long answer takes minutes, and its prompt must wait for it"
    own = of_children(decided, {"rewards": {"spec": "mine.toml"}})["rewards"]
    assert own == {"spec": "mine.toml", "instance": "local", "metrics_port": 2}


def test_the_dashboard_may_talk_to_the_gateway() -> None:
    decided = document(Settings())
    page = {"port": 2, "gateway_url": "http://127.0.0.1:1", "model_dir": Path("model")}
    assert decided["dashboard"] == page
    gateway: dict[str, object] = decided["gateway"]  # type: ignore[assignment]
    assert gateway["cors_origins"] == ["http://127.0.0.1:2", "http://localhost:2"]
    without = document(Settings(services=("gateway",)))
    assert "dashboard" not in without
    assert "cors_origins" not in without["gateway"]  # type: ignore[operator]


def test_graders_run_where_their_spec_is_named() -> None:
    with_graders = Settings(services=("gateway", "graders"))
    with pytest.raises(SettingsError, match=r"graders\.spec"):
        check(with_graders, {"graders": {"share": "0/1"}})
    check(with_graders, {"graders": {"spec": "graders.toml"}})
    check(Settings(), {})
    assert document(with_graders)["graders"] == {"metrics_port": 2}


def test_rollouts_run_where_their_tasks_are_named_and_know_the_engine() -> None:
    with_rollouts = Settings(services=("engine", "rollouts"), engine_url="http://10.0.0.1:8001")
    with pytest.raises(SettingsError, match=r"rollouts\.tasks"):
        check(with_rollouts, {"rollouts": {"share": 0.5}})
    check(with_rollouts, {"rollouts": {"tasks": ["sums"]}})
    table = {"engines": {"engine-0": "http://10.0.0.1:8001"}, "metrics_port": 2}
    assert document(with_rollouts)["rollouts"] == table
    assert "rollouts" not in document(Settings())


def test_rollouts_know_how_many_slots_the_engine_has() -> None:
    decided = document(Settings(services=("engine", "rollouts")))
    engine: dict[str, object] = {"max_num_seqs": 8}
    assert "max_num_seqs" not in table(of_children(decided, {}))
    assert table(of_children(decided, {"engine": engine}))["max_num_seqs"] == 8
    less = {"engine": engine, "rollouts": {"max_num_seqs": 4}}
    assert table(of_children(decided, less))["max_num_seqs"] == 4
    assert "rollouts" not in of_children(document(Settings()), {"engine": engine})


def table(settings: dict[str, object]) -> dict[str, object]:
    found = settings["rollouts"]
    assert isinstance(found, dict)
    return found


def test_a_start_without_it_ends_with_2(tmp_path: Path) -> None:
    file = tmp_path / "tailrace.toml"
    file.write_text(f'state_dir = "{tmp_path}/state"\n[local]\nservices = ["graders"]\n')
    done = subprocess.run(
        [sys.executable, "-m", "services.local", "up", "--settings", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "graders.spec" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "state").exists()
