"""The spec: what it says, what it refuses and where."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys
from typing import Any

import pytest

from services.graders.app import share_of
from services.graders.spec import load
from tailrace.errors import SettingsError
from tests.borders.test_imports import ROOT

FUNCTION = '[functions.polite]\nfile = "polite.py"\nfunction = "reward"\n'
JUDGE = (
    '[judges.helpful]\nurl = "http://127.0.0.1:8000/v1"\nmodel = "judge"\n'
    'prompt = "{question} {answer}"\nrange = [1, 5]\n'
)


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "polite.py").write_text("def reward(**kwargs):\n    return [1.0]\n")
    (tmp_path / "broken.py").write_text("def reward(:\n")
    file = tmp_path / "graders.toml"
    file.write_text(text)
    return file


def test_what_is_not_said_has_a_default(tmp_path: Path) -> None:
    spec = load(written(tmp_path, FUNCTION + JUDGE), {})
    polite, helpful = spec.functions["polite"], spec.judges["helpful"]
    assert polite.file == str(tmp_path / "polite.py")
    assert (polite.metric, polite.batch, polite.timeout_s) == ("polite", 16, 5.0)
    assert (helpful.metric, helpful.attempts, helpful.concurrency) == ("helpful", 3, 4)
    assert (helpful.max_age_s, helpful.share) == (300.0, 1.0)


WRONG = {
    "": "no grader",
    "[function.x]\n": "function: unknown key",
    FUNCTION + "batches = 2\n": r"functions.polite: .*batches",
    FUNCTION + 'timeout_s = "1"\n': r"functions.polite.timeout_s: Expected `float`",
    FUNCTION + "timeout_s = 0\n": "functions.polite.timeout_s: must be between",
    FUNCTION + "batch = 0\n": "functions.polite.batch: must be between",
    FUNCTION + "share = 0\n": "functions.polite.share",
    FUNCTION + "max_age_s = nan\n": "functions.polite.max_age_s",
    FUNCTION.replace("polite.py", "rude.py"): r"functions.polite.file: .*rude.py: No such file",
    FUNCTION.replace('"reward"', '"score"'): r"functions.polite.function: .*no 'score'",
    FUNCTION.replace("polite.py", "broken.py"): r"functions.polite.file: .*broken.py",
    FUNCTION.replace(".polite", '."a.b"'): "a name is",
    FUNCTION + JUDGE.replace("helpful", "polite"): "judges.polite: a function has that name",
    JUDGE.replace("http:", "ftp:"): "judges.helpful.url",
    JUDGE.replace(":8000", ":x"): "judges.helpful.url: must be a URL",
    JUDGE.replace("{answer}", ""): "judges.helpful.prompt",
    JUDGE.replace("[1, 5]", "[5, 1]"): "judges.helpful.range",
    JUDGE.replace("[1, 5]", "[1, inf]"): "judges.helpful.range",
    JUDGE + 'key = "k"\n': "judges.helpful.key: 'k' is not in graders.keys",
    JUDGE + "attempts = 0\n": "judges.helpful.attempts",
    "judges = 3\n": "judges: a table of tables",
    "[judges\n": "graders.toml",
}


@pytest.mark.parametrize("text", WRONG, ids=WRONG.values())
def test_what_is_wrong_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=WRONG[text]) as caught:
        load(written(tmp_path, text), {})
    assert "graders.toml" in str(caught.value)


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(tmp_path: Path) -> None:
    file = written(tmp_path, JUDGE + 'key = "k"\n')
    for key in ("schl\u00fcssel", "two\nlines"):
        with pytest.raises(SettingsError, match=r"graders\.keys\.k: ") as caught:
            load(file, {"k": key})
        assert key not in str(caught.value)
    load(file, {"k": "right"})


def test_the_hash_is_of_what_it_is_and_not_of_where_or_how_fast(tmp_path: Path) -> None:
    def hashes(text: str, code: bytes = b"one") -> tuple[str, str]:
        spec = load(written(tmp_path, text), {"k": "secret"})
        return spec.functions["polite"].hash(code), spec.judges["helpful"].hash()

    first = hashes(FUNCTION + JUDGE)
    assert all(len(mark) == 12 for mark in first)
    moved = JUDGE.replace("8000", "9000") + 'key = "k"\ntimeout_s = 3\nconcurrency = 1\n'
    assert hashes(FUNCTION + "batch = 1\ntimeout_s = 1\n" + moved) == first
    assert hashes(FUNCTION + JUDGE, b"two")[0] != first[0]
    for change in (("{question}", "Q: {question}"), ("[1, 5]", "[1, 4]"), ('"judge"', '"other"')):
        assert hashes(FUNCTION + JUDGE.replace(*change))[1] != first[1]


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "a/b", "1/2/3"])
def test_a_share_is_one_of_so_many(text: str) -> None:
    assert share_of("1/2") == (1, 2)
    with pytest.raises(SettingsError, match="graders.share"):
        share_of(text)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "graders.spec: name the file"),
        ('spec = "none.toml"\n', "none.toml: No such file"),
        ('spec = "graders.toml"\nshare = "3"\n', "graders.share"),
        ('spec = "graders.toml"\ncommit_s = "x"\n', "commit_s"),
    ],
)
def test_a_process_ends_with_2_and_says_why(tmp_path: Path, table: str, said: Any) -> None:
    written(tmp_path, FUNCTION)
    settings = tmp_path / "settings.toml"
    settings.write_text(f'kafka = "127.0.0.1:9"\nstate_dir = "{tmp_path}"\n[graders]\n{table}')
    done = subprocess.run(
        [sys.executable, "-m", "services.graders", "--settings", str(settings)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
