"""tailrace.settings: a file, the environment over it, and a clear refusal of anything else."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from tailrace import settings
from tailrace.errors import SettingsError


class Settings(settings.Common, frozen=True, kw_only=True):
    port: int = 8080
    """Where it listens."""
    wait_s: float = 600.0
    """How long it waits."""
    learn: bool = True
    """A flag."""
    names: list[str] = []
    """A list."""
    keys: dict[str, str] = {}
    """A table."""
    origins: tuple[str, ...] = ()
    """An array."""
    log_file: Path | None = None
    """A path."""


def load(tmp_path: Path, text: str = "", **environment: str) -> Settings:
    file = tmp_path / "tailrace.toml"
    file.write_text(text)
    return settings.load(Settings, "gateway", environment, file)


def test_without_anything_the_defaults_hold():
    assert settings.load(Settings, "gateway", {}) == Settings()


def test_a_service_takes_the_common_keys_and_its_own_table(tmp_path):
    got = load(
        tmp_path,
        'kafka = "broker.example.com:9092"\nprefix = "a."\n'
        '[gateway]\nport = 1\nnames = ["x"]\n[trainer]\nanything = 1\n',
    )
    assert (got.kafka, got.prefix, got.port, got.names) == (
        "broker.example.com:9092",
        "a.",
        1,
        ["x"],
    )


def test_a_table_may_override_a_common_key(tmp_path):
    assert (
        load(tmp_path, 'log_level = "INFO"\n[gateway]\nlog_level = "DEBUG"\n').log_level == "DEBUG"
    )


def test_the_environment_is_above_the_file(tmp_path):
    got = load(
        tmp_path,
        'kafka = "a:1"\n[gateway]\nport = 1\n',
        TAILRACE_KAFKA="b:2",
        TAILRACE_GATEWAY_PORT="2",
        TAILRACE_GATEWAY_WAIT_S="1.5",
        TAILRACE_GATEWAY_LEARN="false",
        TAILRACE_TRAINER_LR="3",
        HOME="/",
    )
    assert (got.kafka, got.port, got.wait_s, got.learn) == ("b:2", 2, 1.5, False)


def test_a_service_variable_is_above_a_common_one(tmp_path):
    for environment in (
        {"TAILRACE_LOG_LEVEL": "INFO", "TAILRACE_GATEWAY_LOG_LEVEL": "DEBUG"},
        {"TAILRACE_GATEWAY_LOG_LEVEL": "DEBUG", "TAILRACE_STATE_DIR": "x"},
    ):
        assert load(tmp_path, **environment).log_level == "DEBUG"


def test_a_common_variable_is_above_the_file(tmp_path):
    assert load(tmp_path, 'log_level = "INFO"\n', TAILRACE_LOG_LEVEL="DEBUG").log_level == "DEBUG"


def test_tables_and_arrays_are_written_in_the_environment_as_in_the_file(tmp_path):
    got = load(
        tmp_path,
        '[gateway]\nkeys = { a = "1" }\n',
        TAILRACE_GATEWAY_KEYS='{judge = "secret", "two words" = "=}"}',
        TAILRACE_GATEWAY_NAMES='["x", "y"]',
        TAILRACE_GATEWAY_ORIGINS="[]",
    )
    assert got.keys == {"judge": "secret", "two words": "=}"}
    assert (got.names, got.origins) == (["x", "y"], ())
    folded = load(tmp_path, "[gateway]\nkeys = '{judge = \"secret\"}'\n")
    assert folded.keys == {"judge": "secret"}


@pytest.mark.parametrize(
    "text", ["secret", '{"a": "secret"}', '{}\nport = "secret"', "", "secret = 1"]
)
def test_a_table_that_is_none_names_its_key_and_keeps_its_secret(tmp_path, text):
    with pytest.raises(SettingsError, match="^gateway: keys: ") as wrong:
        load(tmp_path, TAILRACE_GATEWAY_KEYS=text)
    assert "secret" not in str(wrong.value)
    with pytest.raises(SettingsError, match="keys"):
        load(tmp_path, TAILRACE_GATEWAY_KEYS="[1]")


def test_the_file_can_be_named_by_the_environment(tmp_path):
    file = tmp_path / "t.toml"
    file.write_text("[gateway]\nport = 7\n")
    assert settings.load(Settings, "gateway", {"TAILRACE_SETTINGS": str(file)}).port == 7


def test_a_home_path_is_expanded(tmp_path):
    assert load(tmp_path, 'state_dir = "~/x"\n').state_dir == Path.home() / "x"
    assert load(tmp_path, '[gateway]\nlog_file = "~/y"\n').log_file == Path.home() / "y"


def test_a_relative_path_begins_at_its_files_folder_or_where_the_process_is(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load(tmp_path, 'state_dir = "x"\n').state_dir == tmp_path / "x"
    assert load(tmp_path, '[gateway]\nstate_dir = "../y"\n').state_dir == tmp_path / "../y"
    keys = load(tmp_path, 'trusted_keys = ["k.pub", "/z/k.pub", "~/k.pub"]\n').trusted_keys
    assert keys == (tmp_path / "k.pub", Path("/z/k.pub"), Path.home() / "k.pub")
    assert load(tmp_path, 'state_dir = "/z"\n').state_dir == Path("/z")
    got = load(tmp_path, 'state_dir = "x"\n', TAILRACE_STATE_DIR="y")
    assert got.state_dir.absolute() == elsewhere / "y"
    assert load(tmp_path).state_dir.absolute() == elsewhere / ".tailrace"
    monkeypatch.chdir(tmp_path)
    (elsewhere / "t.toml").write_text('state_dir = "x"\n')
    got = settings.load(Settings, "gateway", {}, Path("elsewhere/t.toml"))
    assert got.state_dir == elsewhere / "x"


def test_the_keys_that_are_paths_are_known_by_name():
    """The local runner makes them absolute for services whose settings it does not import."""
    classes = [settings.Common]
    for file in Path(__file__).parents[2].glob("services/*/settings.py"):
        classes.append(importlib.import_module(f"services.{file.parent.name}.settings").Settings)
    assert len(classes) > 5
    paths = {
        key
        for cls in classes
        for key, kind in get_type_hints(cls).items()
        if Path in (kind, *get_args(kind))
    }
    assert paths == {*settings.PATHS}


@pytest.mark.parametrize(
    ("text", "environment", "named"),
    [
        ("kafkaa = 1\n", {}, "kafkaa"),
        ("[gateway]\nprot = 1\n", {}, "gateway.prot"),
        ("[gatway]\nport = 1\n", {}, "gatway"),
        ('[gateway]\nport = "many"\n', {}, "port"),
        ("[gateway]\nwait_s = []\n", {}, "wait_s"),
        ("kafka = 1\n", {}, "kafka"),
        ("gateway = 1\n", {}, "gateway"),
        ("[gateway]\nport = 1\nport = 2\n", {}, "tailrace.toml"),
        ("", {"TAILRACE_KAFKAA": "1"}, "TAILRACE_KAFKAA"),
        ("", {"TAILRACE_GATEWAY_PROT": "1"}, "TAILRACE_GATEWAY_PROT"),
        ("", {"TAILRACE_GATEWAY_PORT": "many"}, "port"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, environment, named):
    with pytest.raises(SettingsError, match=named):
        load(tmp_path, text, **environment)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8081",
        "htp://registry.example.com",
        "http://",
        "http:///subjects",
        "http://registry.example.com:http",
        "http://registry.example.com:99999",
        "http://[::1",
        "http://registry example.com",
        "http://a.example.com,b.example.com",
        "http://a.example.com,",
    ],
)
def test_a_registry_that_is_no_url_is_refused(tmp_path, url):
    with pytest.raises(SettingsError, match="gateway: registry: "):
        load(tmp_path, f'registry = "{url}"\n')
    with pytest.raises(SettingsError, match="gateway: registry: "):
        load(tmp_path, TAILRACE_REGISTRY=url)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8081",
        "https://user:hush@registry.example.com/base",
        "http://a.example.com,http://b.example.com",
        "http://[::1]:8081",
        "",
    ],
)
def test_a_registry_that_is_one_is_taken(tmp_path, url):
    assert load(tmp_path, TAILRACE_REGISTRY=url).registry == url


def test_a_wrong_registrys_password_is_not_said(tmp_path):
    with pytest.raises(SettingsError) as refused:
        load(tmp_path, TAILRACE_REGISTRY="http://user:hush@:8081")
    assert "hush" not in str(refused.value)


def test_a_missing_or_unreadable_file_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="nowhere"):
        settings.load(Settings, "gateway", {}, tmp_path / "nowhere.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="binary"):
        settings.load(Settings, "gateway", {}, binary)
