"""Each alert fires when it should and at no other time: ``promtool test rules`` over these cases.

Of each case the series, one value a minute in promtool's notation (``0x9``: ten zeros; ``1+2x9``:
1, 3, 5, ...; ``_``: none), the minute that is looked at, and the labels that the alert then has;
None: it is silent.
"""

from __future__ import annotations

from pathlib import Path
import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.metrics.expressions import ALERTS, alerts

A = {"instance": "a"}
LOST = 'tailrace_gateway_lost_total{topic="feedback",reason="too_large"}'
SPOOL = "tailrace_gateway_spool_bytes" + '{instance="a"}'
LIMIT = "tailrace_gateway_spool_limit_bytes" + '{instance="a"}'
BURIED = 'tailrace_rewards_dead_letters_total{job="tailrace-rewards",topic="feedback",reason="%s"}'
DRIFT_LAG = 'tailrace_drift_lag_seconds{job="tailrace-drift"}'
DRIFT_READ = 'tailrace_drift_records_total{job="tailrace-drift",topic="outputs"}'
HELD = 'tailrace_trainer_held_answers{instance="a"}'
PUBLISHED = 'tailrace_trainer_published_version{instance="a"}'
FROZEN = 'tailrace_trainer_frozen_ratio{instance="a"}'
PAUSES = 'tailrace_engine_pause_seconds_bucket{instance="a",le="%s"}'
NO_SIGNAL = 'tailrace_trainer_no_signal_total{instance="a"}'
TRAINED = 'tailrace_trainer_steps_total{instance="a",outcome="trained"}'


def figure(name: str) -> str:
    return f'tailrace_trainer_figure_value{{instance="a",figure="{name}"}}'


def up(service: str) -> str:
    return f'up{{job="tailrace-{service}",instance="a"}}'


CORE = {up(name): "1x20" for name in ("gateway", "engine", "rewards", "trainer")}
CASES: list[tuple[str, dict[str, str], int, dict[str, str] | None]] = [
    ("ProcessDown", {up("gateway"): "1x4 0x9"}, 7, {"job": "tailrace-gateway", **A}),
    ("ProcessDown", {up("gateway"): "1x4 0 1x9", 'up{job="other"}': "0x20"}, 8, None),
    ("ProcessMissing", CORE | {up("trainer"): "1x2 _x18"}, 16, {"job": "tailrace-trainer"}),
    ("ProcessMissing", CORE, 16, None),
    (
        "EngineRestarts",
        {'tailrace_engine_vllm_restarts_total{instance="a",reason="exit"}': "0x5 1 2 3x9"},
        10,
        A,
    ),
    (
        "EngineRestarts",
        {'tailrace_engine_vllm_restarts_total{instance="a",reason="exit"}': "0x5 1 1x12"},
        10,
        None,
    ),
    # The first ever, another after a restart of the gateway, and one of long ago.
    ("FeedbackLost", {LOST: "_x5 1x20"}, 7, {}),
    ("FeedbackLost", {LOST: "5x30 0x5 1x5"}, 39, {}),
    ("FeedbackLost", {LOST: "_x5 1x40"}, 40, None),
    ("FeedbackLost", {LOST.replace("feedback", "prompts"): "1+1x20"}, 10, None),
    ("SpoolFilling", {SPOOL: "30x20", LIMIT: "100x20"}, 6, A),
    ("SpoolFilling", {SPOOL: "30x3 10x20", LIMIT: "100x23"}, 6, None),
    ("SpoolAlmostFull", {SPOOL: "71x3", LIMIT: "100x3"}, 1, A),
    ("SpoolAlmostFull", {SPOOL: "69x3", LIMIT: "100x3"}, 1, None),
    ("DeadLetters", {BURIED % "json": "_x5 1x9"}, 7, {"job": "tailrace-rewards"}),
    (
        "DeadLetters",
        {BURIED % "json": "7x40", BURIED % "id": "_x30 1x10"},
        33,
        {"job": "tailrace-rewards"},
    ),
    ("DeadLetters", {BURIED % "json": "0x20 1x40"}, 22, {"job": "tailrace-rewards"}),
    ("DeadLetters", {BURIED % "json": "7x60"}, 40, None),
    (
        "ConsumerLag",
        {'tailrace_rewards_lag_records{job="tailrace-rewards",topic="feedback"}': "20000x20"},
        15,
        {"job": "tailrace-rewards"},
    ),
    (
        "ConsumerLag",
        {'tailrace_rewards_lag_records{job="tailrace-rewards",topic="feedback"}': "20000x5 9x20"},
        15,
        None,
    ),
    ("ConsumerLag", {DRIFT_LAG: "900x20", DRIFT_READ: "0+9x20"}, 15, {"job": "tailrace-drift"}),
    ("ConsumerLag", {DRIFT_LAG: "900x20", DRIFT_READ: "9x20"}, 15, None),
    (
        "Imbalance",
        {'tailrace_dashboard_unaccounted_records{line="feedback"}': "2x9"},
        7,
        {"line": "feedback"},
    ),
    ("Imbalance", {'tailrace_dashboard_unaccounted_records{line="feedback"}': "2x3 0x9"}, 7, None),
    ("RewardsBlocked", {'tailrace_rewards_blocked_partitions{instance="a"}': "2x9"}, 7, A),
    ("RewardsBlocked", {'tailrace_rewards_blocked_partitions{instance="a"}': "2x3 0x9"}, 7, None),
    ("NoVersion", {HELD: "8x30", PUBLISHED: "5x30", FROZEN: "0x30"}, 20, A),
    ("NoVersion", {HELD: "8x30", PUBLISHED: "5x15 6x15", FROZEN: "0x30"}, 20, None),
    ("NoVersion", {HELD: "8x30", PUBLISHED: "5x30", FROZEN: "1x30"}, 20, None),
    ("NoVersion", {HELD: "8x10 0 8x20", PUBLISHED: "5x30", FROZEN: "0x30"}, 20, None),
    (
        "SwapRefused",
        {'tailrace_engine_swaps_total{instance="a",outcome="refused"}': "0x5 1x9"},
        7,
        A | {"outcome": "refused"},
    ),
    (
        "SwapRefused",
        {'tailrace_engine_swaps_total{instance="a",outcome="applied"}': "0+1x9"},
        7,
        None,
    ),
    (
        "PauseTooLong",
        {PAUSES % "0.5": "0x20", PAUSES % "2": "0+1x20", PAUSES % "+Inf": "0+1x20"},
        15,
        A,
    ),
    (
        "PauseTooLong",
        {PAUSES % "0.5": "0+1x20", PAUSES % "2": "0+1x20", PAUSES % "+Inf": "0+1x20"},
        15,
        None,
    ),
    (
        "CheckpointFailed",
        {'tailrace_trainer_checkpoints_total{instance="a",outcome="failed"}': "0x5 1x9"},
        7,
        A | {"outcome": "failed"},
    ),
    (
        "CheckpointFailed",
        {'tailrace_trainer_checkpoints_total{instance="a",outcome="begun"}': "0+1x9"},
        7,
        None,
    ),
    (
        "StepNotFinite",
        {'tailrace_trainer_steps_total{instance="a",outcome="non_finite"}': "0x5 1x9"},
        7,
        A | {"outcome": "non_finite"},
    ),
    ("StepNotFinite", {TRAINED: "0+1x9"}, 7, None),
    ("EssCollapse", {figure("ess"): "0.9x5 0.1x20"}, 18, A | {"figure": "ess"}),
    ("EssCollapse", {figure("ess"): "0.9x5 0.1x5 0.9x9"}, 18, None),
    (
        "MismatchGrowth",
        {figure("mismatch_kl"): "0.002x200 0.2x11"},
        211,
        A | {"figure": "mismatch_kl"},
    ),
    ("MismatchGrowth", {figure("mismatch_kl"): "0.2x211"}, 211, None),
    ("EntropyCollapse", {figure("entropy"): "1x5 0.01x20"}, 18, A | {"figure": "entropy"}),
    ("EntropyCollapse", {figure("entropy"): "1x30"}, 18, None),
    ("NoEffectiveSamples", {NO_SIGNAL: "0+1x60", TRAINED: "0+1x60"}, 50, A),
    ("NoEffectiveSamples", {NO_SIGNAL: "0+1x60", TRAINED: "0+2x60"}, 50, None),
    ("NoEffectiveSamples", {NO_SIGNAL: "0x60", TRAINED: "0x60"}, 50, None),
    (
        "Drift",
        {'tailrace_drift_firing_ratio{stream="reward",detector="adwin"}': "1x20"},
        15,
        {"stream": "reward"},
    ),
    (
        "Drift",
        {'tailrace_drift_firing_ratio{stream="reward",detector="adwin"}': "1x5 0x15"},
        15,
        None,
    ),
]


def expected(rule: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    """How promtool wants an alert that fires to be said."""
    return {
        "exp_labels": labels | rule["labels"],
        "exp_annotations": {
            name: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda m: labels[m[1]], text)
            for name, text in rule["annotations"].items()
        },
    }


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent():
    names = {rule["alert"] for rule in alerts()}
    assert {f"Tailrace{name}" for name, _, _, labels in CASES if labels is not None} == names
    assert {f"Tailrace{name}" for name, _, _, labels in CASES if labels is None} == names


@pytest.mark.tools
def test_promtool_takes_the_rules_and_each_does_what_its_cases_say(tmp_path: Path):
    rules = {rule["alert"]: rule for rule in alerts()}
    tests = [
        {
            "interval": "1m",
            "name": f"{name} {number}",
            "input_series": [{"series": s, "values": values} for s, values in series.items()],
            "alert_rule_test": [
                {
                    "eval_time": f"{minute}m",
                    "alertname": f"Tailrace{name}",
                    "exp_alerts": []
                    if labels is None
                    else [expected(rules[f"Tailrace{name}"], labels)],
                }
            ],
        }
        for number, (name, series, minute, labels) in enumerate(CASES)
    ]
    file = tmp_path / "cases.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests})
    )
    for arguments in (["check", "rules", str(ALERTS)], ["test", "rules", str(file)]):
        done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
