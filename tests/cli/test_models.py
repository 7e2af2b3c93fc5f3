"""``tailrace models``: what it lists, what an export holds, what verifying finds."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
import subprocess
import sys

import pytest
import torch
import transformers

from tailrace import cli, status, topics, versions
from tailrace.events import ModelUpdate
from tailrace.log import kafka
from tailrace.log.memory import MemoryLog
from tailrace.weights import bundle, folder, trust
from tailrace.weights.tensors import digest
from tests.cli.conftest import Run, publish
from tests.cli.play import Play
from tests.engine.models import MODEL
from tests.engine.real import SIZES, TOKENS, Reference, distance, real_vllm, write_shape
from tests.trainer.traffic import spoil


def test_what_is_listed(memory: Play) -> None:
    memory.engine("one")
    memory.give("rollback", 1)
    found = versions.gather(memory.scene.log, memory.common)
    assert (found.served, found.trained) == (1, 1)
    assert [(v.version, v.base, v.kind, v.withdrawn) for v in found.versions] == [
        (0, None, "keyframe", False),
        (1, 0, "delta", False),
        (2, 1, "delta", True),
        (3, 2, "delta", True),
    ]
    assert found.versions[1].engines == ["one"]
    memory.give("pin", 3)
    found = versions.gather(memory.scene.log, memory.common)
    assert (found.served, found.trained) == (3, 1)
    seen = status.gather(memory.scene.log, memory.common)
    assert (seen["versions"]["served"], seen["versions"]["trained"]) == (3, 1)
    assert seen["engines"]["one"]["version"] == 3 and not seen["engines"]["one"]["stale"]
    assert any("version 3 is pinned; served is 3" in line for line in status.in_words(seen))
    lines = versions.in_words(found, limit=2)
    assert "version 3 is pinned; served is 3, trained on is 1" in lines[0]
    assert len(lines) == 2 + 2 + 1
    assert "withdrawn <- one" in lines[3] and lines[4].startswith("engine one: applied version 3")
    assert (
        "may be gone"
        in versions.in_words(
            versions.gather(memory.scene.log, memory.common, now_ms=memory.wall_ms() + 61_000)
        )[-1]
    )


def test_an_export_is_a_folder_that_transformers_loads(
    run: Run, published: list[ModelUpdate], tiny_model: Path, tmp_path: Path
) -> None:
    assert run("export", "1", "out") == 0
    assert digest(folder.read(tmp_path / "out")) == published[1].digest
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    changed = sum(
        int((a != b).sum())
        for a, b in zip(model.state_dict().values(), base.state_dict().values(), strict=True)
    )
    assert changed == 7 and model.dtype == torch.bfloat16
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    was = transformers.AutoTokenizer.from_pretrained(tiny_model)
    assert tokenizer("hello").input_ids == was("hello").input_ids


@pytest.mark.soak
def test_an_export_is_a_folder_that_vllm_serves(found_log: MemoryLog, tmp_path: Path) -> None:
    made = write_shape(tmp_path / "made", "llama", tied=True)
    publish(found_log, made, tmp_path / "signer")
    assert cli.main(["models", "export", "1", "out", "--model", MODEL]) == 0
    out = tmp_path / "out"
    expected = Reference(out).logprobs(folder.read(out), TOKENS)
    flat = [-math.log(SIZES["vocab_size"])] * len(expected)
    with real_vllm(out, tmp_path) as vllm:
        said = vllm.admin.score(TOKENS)
    assert distance(said, expected) < 0.1 < 0.5 < distance(said, flat)


def test_an_export_never_overwrites(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    assert run("export", "1", "mine") == 1
    assert "is there already" in capsys.readouterr().err
    assert run("export", "7", "out") == 1
    assert "no version 7 of tiny: the newest is 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    assert run("export", "1", "file/out") == 1
    assert "file" in capsys.readouterr().err


def test_a_signed_export_is_verified_by_the_tool_of_its_format(run: Run, tmp_path: Path) -> None:
    key, public = tmp_path / "ec.key", tmp_path / "ec.pub"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
    subprocess.run(make, check=True, capture_output=True)
    shown = ["openssl", "ec", "-in", str(key), "-pubout", "-out", str(public)]
    subprocess.run(shown, check=True, capture_output=True)
    assert run("export", "1", "out", "--sign", str(key)) == 0
    bundle.verify(tmp_path / "out", public)
    tool = [sys.executable, "-W", "ignore", "-m", "model_signing", "verify", "key", "out"]
    tool += ["--signature", "out.sig", "--public_key", str(public)]
    done = subprocess.run(tool, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / "out" / "config.json").write_text("{}")
    assert subprocess.run(tool, cwd=tmp_path, capture_output=True).returncode != 0


def test_a_wrong_key_leaves_no_folder(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong").write_text("no key")
    for key in ("wrong", "absent", "signer"):  # the last one signs versions, not folders
        assert run("export", "1", "out", "--sign", key) == 2
        assert f"{key}: no private key on an elliptic curve" in capsys.readouterr().err
        assert not (tmp_path / "out").exists() and not (tmp_path / "out.sig").exists()
    (tmp_path / "out.sig").write_text("another's")
    assert run("export", "1", "out", "--sign", "wrong") == 1
    assert "out.sig is there already" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_signature_that_cannot_be_written_leaves_no_folder(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def sign(folder: Path, key: Path) -> Path:
        if folder.name == "out":
            folder.with_name("out.sig").write_text("{")
            raise OSError(errno.ENOSPC, "no space left", "out.sig")
        return folder

    monkeypatch.setattr(bundle, "sign", sign)
    assert run("export", "1", "out", "--sign", "key") == 1
    assert capsys.readouterr().err == "tailrace models: out.sig: no space left\n"
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.sig").exists()


def test_an_adapter_is_said_to_be_one(
    memory: Play,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    memory.scene.trainer.adapter(4)
    monkeypatch.setattr(kafka, "KafkaLog", lambda bootstrap: memory.scene.log)
    monkeypatch.chdir(tmp_path)
    for action in ("verify 4", "export 4 out", "rollback --to 4", "pin 4"):
        assert cli.main(["models", *action.split(), "--model", MODEL]) == 1
        said = capsys.readouterr().err
        assert "version 4 is an adapter, no version of tiny" in said, said
        assert "serve it as tiny@4" in said and "version 3" in said
    assert memory.scene.log.ends(topics.CONTROL.name) == {0: 0}, "nothing was ordered"
    assert cli.main(["models", "--model", MODEL]) == 0
    assert "adapter" in capsys.readouterr().out.splitlines()[-1]


def test_verify_builds_the_version_and_holds_a_folder_against_it(
    run: Run, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", "1") == 0
    said = capsys.readouterr().out
    assert "built from 2 updates" in said and "signatures were not looked at" in said
    assert run("verify", "1", "--key", str(tmp_path / "signer.pub")) == 0
    assert "signed by a trusted key" in capsys.readouterr().out
    assert run("verify", "0", "--folder", str(tiny_model)) == 0
    assert run("verify", "1", "--folder", str(tiny_model)) == 1
    assert "digest" in capsys.readouterr().err


def test_verify_refuses_a_stranger_and_broken_bytes(
    run: Run,
    found_log: MemoryLog,
    published: list[ModelUpdate],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trust.new_key(tmp_path / "other")
    assert run("verify", "1", "--key", str(tmp_path / "other.pub")) == 1
    assert "none that these keys signed" in capsys.readouterr().err
    spoil(found_log, published[1])
    assert run("verify", "1") == 1
    assert "corrupt" in capsys.readouterr().err
    assert run("verify", "0") == 0


def test_the_list_by_the_command(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert "follows the newest version; served is 1" in lines[0] and len(lines) == 4
    assert run("--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [v["version"] for v in found["versions"]] == [0, 1]
    assert run("rollback", "--to", "5") == 1
    assert "no version 5" in capsys.readouterr().err


def test_the_list_without_versions(
    found_log: MemoryLog, capsys: pytest.CaptureFixture[str]
) -> None:
    found_log.create(topics.TOPICS, session_partitions=1)
    assert cli.main(["models", "--model", MODEL]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "model tiny: follows the newest version",
        "no version is published",
    ]
    assert cli.main(["models", "--json", "--model", MODEL]) == 0
    assert json.loads(capsys.readouterr().out)["versions"] == []


def test_options_before_the_action_count(published: object) -> None:
    arguments = cli.parser().parse_args(["models", "--kafka", "h:1", "rollback", "--to", "3"])
    assert (arguments.kafka, arguments.version, arguments.data) == ("h:1", 3, "skip")
    assert (arguments.timeout, arguments.reason, arguments.json) == (90.0, None, False)
