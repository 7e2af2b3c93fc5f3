"""Jars, model, ports, settings file and checks: what happens before anything runs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
import re
import shutil
import socket
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import pytest

from services.local import composition, document, jars, lock, model, placement, ports, preflight
from services.local.settings import Settings
from services.local.status import last_line
from tailrace.errors import SettingsError
from tests.conftest import CACHE_DIR


def _by_copy(jar_folder: Path) -> Any:
    def fetch(path: str, repository: Path) -> None:
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(jar_folder / Path(path).name, repository / path)

    return fetch


@pytest.fixture(scope="module")
def jar_folder() -> Path:
    return jars.prepare(CACHE_DIR, print)


def test_every_jar_is_pinned() -> None:
    pinned = jars.pins()
    assert len(pinned) == 46
    assert all(len(digest) == 64 for digest in pinned.values())
    assert f"kafka_2.13-{jars.KAFKA_VERSION}.jar" in {Path(path).name for path in pinned}


def test_a_killed_preparation_goes_on_where_it_was(tmp_path: Path, jar_folder: Path) -> None:
    fetch = _by_copy(jar_folder)
    fetched: list[str] = []
    dies_at = 20

    def counting(path: str, repository: Path) -> None:
        fetched.append(path)
        if len(fetched) == dies_at:
            raise OSError("the line went dead")
        fetch(path, repository)

    with pytest.raises(jars.PreparationError, match=r"\.jar could not be fetched .*line went dead"):
        jars.prepare(tmp_path, print, counting)
    assert not jars.folder(tmp_path).exists()
    here = [path for path in jars.pins() if (tmp_path / "maven" / path).exists()]
    (tmp_path / "maven" / here[0]).write_bytes(b"half of a j")
    fetched.clear()
    dies_at = 0
    jars.prepare(tmp_path, print, counting)
    assert sorted(fetched) == sorted(set(jars.pins()) - set(here[1:]))
    jars.verify(jars.folder(tmp_path), jars.pins())


def test_a_jar_that_does_not_match_its_pin_is_refused_by_name(
    tmp_path: Path, jar_folder: Path
) -> None:
    fetch = _by_copy(jar_folder)

    def forging(path: str, repository: Path) -> None:
        fetch(path, repository)
        if "snakeyaml" in path:
            (repository / path).write_bytes(b"something else")

    with pytest.raises(jars.PreparationError, match="snakeyaml-2.5.jar: its sha256 is not"):
        jars.prepare(tmp_path, print, forging)
    assert not jars.folder(tmp_path).exists()


def test_a_damaged_jar_folder_is_made_again(tmp_path: Path, jar_folder: Path) -> None:
    said: list[str] = []
    folder = jars.prepare(tmp_path, said.append, _by_copy(jar_folder))
    (folder / "re2j-1.8.jar").unlink()
    (folder / "foreign.jar").write_bytes(b"")
    jars.prepare(tmp_path, said.append, _by_copy(jar_folder))
    assert any("foreign.jar, re2j-1.8.jar: not what its pinned" in line for line in said)
    jars.verify(folder, jars.pins())


def test_a_half_made_model_is_never_used(tmp_path: Path) -> None:
    def half(part: Path) -> None:
        part.mkdir()
        (part / "config.json").write_text("{")
        raise KeyboardInterrupt

    def whole(part: Path) -> None:
        part.mkdir()
        (part / "model.safetensors").write_bytes(b"weights")

    with pytest.raises(KeyboardInterrupt):
        model.prepare(tmp_path, print, convert=half)
    assert not model.folder(tmp_path).exists()
    folder = model.prepare(tmp_path, print, convert=whole)
    assert [file.name for file in folder.iterdir()] == ["model.safetensors"]
    assert model.prepare(tmp_path, print, convert=half) == folder


def test_a_foreign_package_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / model.GGUF).write_bytes(b"GGUF")
    with pytest.raises(jars.PreparationError, match="sha256"):
        model.convert(tmp_path / model.GGUF, tmp_path / "out")
    with model.package_file().open("rb") as stream:
        assert hashlib.file_digest(stream, "sha256").hexdigest() == model.GGUF_SHA256


def test_ports_are_remembered_while_they_are_free(tmp_path: Path) -> None:
    memory = tmp_path / "ports.json"
    first = ports.assign(["a", "b", "c"], memory)
    assert len(set(first.values())) == 3
    assert ports.assign(["c", "a", "b"], memory) == first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first["b"]))
        taken.listen()
        second = ports.assign(["a", "b", "c"], memory)
        assert second["b"] != first["b"] and second["a"] == first["a"]
        with pytest.raises(ValueError, match=f"b: port {first['b']} is taken"):
            ports.assign(["b"], memory, {"b": first["b"]})
    memory.write_text("{half")
    assert set(ports.assign(["a"], memory)) == {"a"}


def test_usual_ports_are_taken_only_where_they_are_free(tmp_path: Path) -> None:
    free = ports.is_free(ports.USUAL["gateway"])
    picked = ports.assign(["gateway"], tmp_path / "ports.json")["gateway"]
    assert (picked == ports.USUAL["gateway"]) == free


_names = st.text(min_size=1, max_size=8)
_plain = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
_documents = st.recursive(
    st.dictionaries(_names, _plain | st.lists(_plain, max_size=3), max_size=4),
    lambda inner: st.dictionaries(_names, inner | _plain, max_size=3),
    max_leaves=8,
)


@given(_documents)
def test_a_dumped_document_reads_back_the_same(made: dict[str, Any]) -> None:
    assert tomllib.loads(document.dump(made)) == made


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('model = "m"\n[gateway]\nport = 1\nhost = "::1"\n')
    environment = {"TAILRACE_GATEWAY_PORT": "2", "TAILRACE_MODEL": "n", "HOME": "/"}
    assert document.read(file, environment) == {
        "model": "n",
        "gateway": {"port": "2", "host": "::1"},
    }
    with pytest.raises(SettingsError, match="TAILRACE_NOPE"):
        document.read(None, {"TAILRACE_NOPE": "1"})
    with pytest.raises(SettingsError, match="No such file"):
        document.read(tmp_path / "other.toml", {})


def test_relative_paths_are_made_absolute_for_children_that_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    file = tmp_path / "settings.toml"
    file.write_text('[rewards]\nspec = "my.toml"\n[trainer]\nmodel_dir = "/m"\n')
    environment = {"TAILRACE_ENGINE_MODEL_FOLDER": "m", "TAILRACE_STATE_DIR": "s"}
    assert document.read(file, environment) == {
        "rewards": {"spec": str(tmp_path / "my.toml")},
        "trainer": {"model_dir": "/m"},
        "engine": {"model_folder": str(tmp_path / "here/m")},
        "state_dir": str(tmp_path / "here/s"),
    }


def test_every_service_gets_its_ports_and_the_users_word_is_last(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, engine_url="http://127.0.0.1:1")
    names = ["gateway", "vllm", "kafka", "redis", *(f"{s}_metrics" for s in settings.services)]
    addresses = composition.Addresses.of(settings, {name: i for i, name in enumerate(names)})
    made = composition.compose(settings, addresses, tmp_path / "model", "secret")
    for service in ("engine", "rewards", "drift", "trainer"):
        assert made[service]["metrics_port"] == addresses.ports[f"{service}_metrics"]
    assert made["engine"]["vllm_url"] == made["gateway"]["engine_url"] == "http://127.0.0.1:1"
    assert made["engine"]["admin_token"] is None
    merged = document.merge(made, {"trainer": {"threads": 7}})
    assert merged["trainer"]["threads"] == 7
    assert merged["trainer"]["model_dir"] == tmp_path / "model"


@given(st.sets(st.integers(0, 255), min_size=1, max_size=64))
def test_vllm_and_trainer_never_share_cores(cores: set[int]) -> None:
    engine, trainer, other = (
        placement.place(name, sorted(cores)).cores for name in ("engine", "trainer", "drift")
    )
    vllm = placement.serving(sorted(cores))
    assert engine is other is None
    if len(cores) == 1:
        assert vllm is trainer is None
    else:
        assert vllm and trainer
        assert set(vllm).isdisjoint(trainer) and set(vllm) | set(trainer) == cores


def test_shortages_are_said_with_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"state_dir": tmp_path / "a" / "b", "cache_dir": tmp_path}
    lines = preflight.check(["redis"], **asked, model=True, jars=True)
    assert lines[0].startswith("memory: about 50 MiB needed")
    assert len(lines) == 3
    monkeypatch.setattr(preflight, "STATE_DISK_MIB", 10**9)
    with pytest.raises(preflight.Shortage, match="disk: 1000000000 MiB for state"):
        preflight.check(["redis"], **asked, model=False, jars=False)
    monkeypatch.setattr(preflight, "available_memory_mib", lambda: 3)
    with pytest.raises(preflight.Shortage, match="3600 MiB needed, 3 MiB available"):
        preflight.check(["engine"], **asked, model=False, jars=False)


def test_the_readme_asks_for_what_the_whole_system_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    said = re.search(r"(\d+) GiB of free memory and (\d+) GiB of disk", readme)
    assert said is not None
    memory_mib, disk_mib = (int(figure) * 1024 for figure in said.groups())
    parts = [*Settings().services, "kafka", "redis"]
    monkeypatch.setattr(preflight, "available_memory_mib", lambda: memory_mib)
    lines = preflight.check(parts, state_dir=tmp_path, cache_dir=tmp_path, model=True, jars=True)
    needs = [int(re.findall(r"(\d+) MiB", line)[0]) for line in lines]
    assert needs[0] > 10500, (
        "vLLM 3.2 GB, trainer 4.5, its copy of a state 1.6, Kafka 0.4, others 1.5"
    )
    assert sum(needs[1:]) > 3 * 1.6e9 / preflight.MIB
    # The packages come on top. A machine of 16 GiB can run it.
    assert sum(needs[1:]) + 6500 <= disk_mib and memory_mib <= 12 * 1024


def test_a_containers_memory_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{100 * preflight.MIB}\n")
    (tmp_path / "memory.current").write_text(f"{60 * preflight.MIB}\n")
    assert preflight.available_memory_mib(tmp_path) == 40


def test_the_lock_waits_for_a_dead_runners_children(tmp_path: Path) -> None:
    held = lock.take(tmp_path, lambda: None)
    with pytest.raises(lock.AlreadyRunning, match="in use by another tailrace"):
        lock.take(tmp_path, lambda: None)
    (tmp_path / "lock").write_text("4194305")  # above the kernel's largest pid
    waited: list[int] = []

    def ending() -> None:
        waited.append(1)
        if len(waited) == 2:
            os.close(held)

    os.close(lock.take(tmp_path, ending))
    assert len(waited) == 2


def test_the_last_line_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert last_line(log) == ""
    log.write_text('{"message": "started"}\n{"message": "applied version=3"}\n\n')
    assert last_line(log) == "applied version=3"
    log.write_text("x" * 9000 + "\nplain\n")
    assert last_line(log) == "plain"
