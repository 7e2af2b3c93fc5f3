"""The command ``tailrace``: its words, its errors in one line, its exit codes."""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from tailrace import cli, commands, events, status, topics
from tailrace.errors import LogError, SettingsError
from tailrace.reading import moment_ms
from tailrace.settings import Common
from tailrace.stream import Writer, publish_schemas
from tailrace.wire import Wire
from tests.audit.history import History

HEAVY = ("torch", "vllm", "faust", "river", "starlette", "numba", "httpx", "confluent_kafka")


def _environment(**changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TAILRACE_")}
    return kept | changes


def _command(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tailrace.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=_environment(**environment),
        timeout=60,
    )


def test_help_comes_at_once(tmp_path: Path) -> None:
    took_s = []
    for _ in range(3):
        start = os.times()
        done = _command("--help", cwd=tmp_path)
        end = os.times()
        took_s.append(
            end.children_user - start.children_user + end.children_system - start.children_system
        )
        assert done.returncode == 0
    assert "audit" in done.stdout
    assert min(took_s) < 0.5  # of its own: others may be at work on the machine


def test_importing_the_library_is_quick_and_slim() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import tailrace; "
        "took = time.perf_counter() - start; "
        f"assert not set({HEAVY!r}) & set(sys.modules), sys.modules; assert took < 0.2, took"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_command_shows_the_help_and_is_wrong_usage(tmp_path: Path) -> None:
    done = _command(cwd=tmp_path)
    assert done.returncode == 2
    assert "usage: tailrace" in done.stdout


def test_wrong_settings_exit_2_and_name_the_key(tmp_path: Path) -> None:
    file = tmp_path / "typo.toml"
    file.write_text('kafak = "x"\n')
    done = _command("audit", "--settings", str(file), cwd=tmp_path)
    assert (done.returncode, "kafak" in done.stderr) == (2, True)
    done = _command("status", cwd=tmp_path, TAILRACE_PREFX="x")
    assert (done.returncode, "TAILRACE_PREFX" in done.stderr) == (2, True)
    done = _command("status", "--state-dir", "nowhere", cwd=tmp_path)
    assert (done.returncode, "nowhere" in done.stderr) == (2, True)


@pytest.mark.parametrize("command", ["demo", "up"])
def test_without_a_checkout_the_services_are_not_there(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "lib" / "tailrace" / "cli.py"))
    monkeypatch.chdir(tmp_path)
    assert cli.main([command]) == 2
    assert "checkout" in capsys.readouterr().err


def test_demo_and_up_hand_their_options_on(tmp_path: Path) -> None:
    file = tmp_path / "typo.toml"
    file.write_text("[local]\nkafka_prot = 1\n")
    for command in ("demo", "up"):
        done = _command(command, "--settings", "typo.toml", cwd=tmp_path)
        assert (done.returncode, "local.kafka_prot" in done.stderr) == (2, True), done.stderr


def test_paths_begin_where_the_user_is_or_where_the_settings_are(tmp_path: Path) -> None:
    """``up`` ends at once here: no folder that is named holds a model."""
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "own.toml"
    file.write_text('[local]\nmodel_dir = "m"\ncheck_resources = false\nkafka = "127.0.0.1:1"\n')
    done = _command("up", "--settings", "etc/own.toml", cwd=tmp_path)
    assert f"local.model_dir: {tmp_path}/etc/m is no model" in done.stderr
    assert (tmp_path / ".tailrace").is_dir()
    done = _command(
        *("up", "--settings", "etc/own.toml", "--state-dir", "s"),
        cwd=tmp_path,
        TAILRACE_LOCAL_MODEL_DIR="n",
    )
    assert f"local.model_dir: {tmp_path}/n is no model" in done.stderr
    assert (tmp_path / "s").is_dir()


def test_a_settings_file_says_where_the_state_is(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('state_dir = "s"\n')
    arguments = cli.parser().parse_args(["status", "--settings", str(file)])
    assert cli.settings(arguments, {}).state_dir == tmp_path / "s"
    arguments = cli.parser().parse_args(["status", "--settings", str(file), "--state-dir", "x"])
    assert cli.settings(arguments, {}).state_dir == Path("x")
    arguments = cli.parser().parse_args(["status"])
    named = {"TAILRACE_SETTINGS": str(file), "TAILRACE_STATE_DIR": "y"}
    assert cli.settings(arguments, named).state_dir == Path("y")


def test_the_settings_that_a_local_system_was_started_with_lead_to_it(tmp_path: Path) -> None:
    file = tmp_path / "dev.toml"
    file.write_text('kafka = ""\nstate_dir = "other"\n[local]\nstate_dir = "here"\n')
    arguments = cli.parser().parse_args(["audit", "--settings", str(file)])
    assert cli.settings(arguments, {}).state_dir == tmp_path / "here"
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.toml").write_text(f'kafka = "{name}:1"\n')
    for environment in ({}, {"TAILRACE_SETTINGS": str(file)}):
        if environment:
            arguments = cli.parser().parse_args(["audit"])
        common = cli.settings(arguments, environment)
        assert (common.kafka, common.state_dir) == ("here:1", tmp_path / "here")
    moved = {"TAILRACE_SETTINGS": str(file), "TAILRACE_LOCAL_STATE_DIR": str(tmp_path / "there")}
    common = cli.settings(arguments, moved)
    assert (common.kafka, common.state_dir) == ("there:1", tmp_path / "there")
    file.write_text(f'kafka = "far:1"\nstate_dir = "{tmp_path}/here"\n')
    assert cli.settings(arguments, {"TAILRACE_SETTINGS": str(file)}).kafka == "far:1"


def test_where_the_log_is(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(
        'kafka = "127.0.0.1:1234"\nprefix = "p."\n[gateway]\nport = 5\n[trainer]\nthreads = 1\n'
    )
    arguments = cli.parser().parse_args(["status", "--state-dir", str(tmp_path)])
    common = cli.settings(arguments, {})
    assert (common.kafka, common.prefix) == ("127.0.0.1:1234", "p.")
    assert commands._gateway(common) == "http://127.0.0.1:5"
    arguments = cli.parser().parse_args(
        ["audit", "--state-dir", str(tmp_path), "--kafka", "b:1", "--prefix", "q."]
    )
    common = cli.settings(arguments, {"TAILRACE_KAFKA": "c:1"})
    assert (common.kafka, common.prefix) == ("b:1", "q.")
    nowhere = cli.parser().parse_args(["send", "--state-dir", str(tmp_path / "x"), "a", "true"])
    with pytest.raises(SettingsError, match="holds no system"):
        cli.settings(nowhere, {})


def test_status_of_a_log(tmp_path: Path) -> None:
    history = History()
    for _ in range(3):
        history.trajectory()
    history.version(1, 0, {0: (0, 2, [1])})
    ack = events.ModelAck(
        engine="engine-0", model="m", version=1, event_time_ms=history.now_ms, state="applied"
    )
    history.writer.write(topics.MODEL_ACKS, ack)
    common = Common(model="m", state_dir=tmp_path)
    found = status.gather(history.log, common, now_ms=history.now_ms + 2_000)
    assert found["versions"]["head"] == 1
    assert found["versions"]["undecided"] == 2
    assert found["engines"]["engine-0"]["seconds_ago"] == 2.0
    assert found["topics"]["trajectories"]["records"] == 3
    assert json.loads(json.dumps(found)) == found
    assert any("head 1" in line for line in status.in_words(found))
    with pytest.raises(LogError, match="no topic of tailrace"):
        status.gather(history.log, Common(prefix="other."))


def test_processes_that_do_not_answer_are_said_to(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[gateway]\nport = 1\n[trainer]\nmetrics_port = 1\n")
    found = status.processes(tmp_path)
    assert list(found) == ["gateway", "trainer"]
    assert all(health.startswith("does not answer") for health in found.values())
    assert status.processes(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("given", [["--since", "1h"], ["--since", "-1h"], ["--since=-1h"]])
def test_a_moment_ago_is_no_option(given: list[str]) -> None:
    found = cli.parser().parse_args(cli._moments(["tail", "feedback", *given]))
    assert moment_ms(found.since, 7_200_000) == 3_600_000
    assert cli._moments(["send", "a", "-1h"]) == ["send", "a", "-1h"]


def test_values_on_the_command_line() -> None:
    assert commands.value("False", "thumbs") is False
    assert commands.value("4.5", "stars") == 4.5
    assert commands.value("good", "grade") == "good"
    assert commands.value("true", "comment") == "true"
    assert commands.value("true", "category") == "true"
    assert commands.value(None, "better") is None
    for text in ("0", "-4.", "+.5", "1e-3", "2E6"):
        assert commands.value(text, "stars") == float(text)
    for text in ("nan", "inf", "-Infinity", "1e999", "1_000", " 4", "٤", "0x4", ".", ""):
        assert commands.value(text, "stars") == text
    sent = cli.parser().parse_args(["send", "a", "--preferred-over", "0", "--choice", "1"])
    assert (sent.value, sent.preferred_over, sent.choice) == (None, "0", 1)


@pytest.mark.kafka
def test_audit_tail_and_status_on_a_broker(broker, prefix: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from tailrace.log.kafka import KafkaLog

    log = KafkaLog(broker.bootstrap)
    log.create(topics.TOPICS, prefix=prefix, session_partitions=2)
    publish_schemas(log, prefix=prefix)
    writer = Writer(log.producer(), Wire(), prefix=prefix)
    alarm = events.Alarm(stream="reward", event_time_ms=1)
    writer.write(topics.ALARMS, alarm).result(10)
    where = ("--kafka", broker.bootstrap, "--prefix", prefix)
    done = _command("tail", "alarms", *where, cwd=tmp_path)
    assert json.loads(done.stdout)["event"]["stream"] == "reward", done.stderr
    done = _command("replay", "alarms", "--events", *where, cwd=tmp_path)
    assert json.loads(done.stdout)["stream"] == "reward"
    done = _command("status", "--json", *where, cwd=tmp_path)
    assert json.loads(done.stdout)["topics"]["alarms"]["records"] == 1
    done = _command("audit", "--json", *where, cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, True)
    feedback = events.Feedback(feedback_id="default:s!f", session_id="default:s", event_time_ms=1)
    at = writer.write(topics.FEEDBACK, feedback).result(10)
    tick = events.Tick(partition=at.partition, event_time_ms=time.time_ns() // 1_000_000 + 9_000)
    writer.write(topics.TICKS, tick, partition=at.partition).result(10)
    done = _command("audit", "--decide-within", "1", *where, cwd=tmp_path)
    assert done.returncode == 1
    assert f"no_receipt: feedback/{at.partition}/{at.offset}" in done.stdout
    done = _command("reward", "explain", "default:s~0000000000000", *where, cwd=tmp_path)
    assert (done.returncode, "is on the log" in done.stderr) == (1, True)
    done = _command("tail", "nothing", *where, cwd=tmp_path)
    assert (done.returncode, "no topic 'nothing'" in done.stderr) == (1, True)
    assert _followed(where, tmp_path) == (1, "feedback 1 = in flight 0 + missing 1")
    writer.producer.close()
    log.close()


def _followed(where: tuple[str, ...], folder: Path) -> tuple[int, str]:
    """Exit code and account of an audit that is followed for two rounds, then stopped."""
    options = ("--follow", "--every", "0.1", "--decide-within", "1")
    following = subprocess.Popen(
        [sys.executable, "-m", "tailrace.cli", "audit", *options, *where],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=_environment(),
        # Where the tests themselves run in the background, SIGINT comes down to it as ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert following.stdout is not None
    first, second = following.stdout.readline(), following.stdout.readline()
    following.send_signal(signal.SIGINT)
    rest, _ = following.communicate(timeout=60)
    assert first.split(";")[1:] == second.split(";")[1:]
    assert "1 problems" in rest
    return following.returncode, first.split("; ")[1]
