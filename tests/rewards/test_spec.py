"""Reward specs: what they say, and how a wrong one is refused."""

from __future__ import annotations

from pathlib import Path
import re
import textwrap

import pytest

from services.rewards import spec
from services.rewards.settings import Settings
from tailrace.errors import SettingsError


def test_the_default_spec_reads() -> None:
    given = spec.load(Settings().spec)
    assert (given.wait_s, given.late, set(given.metrics)) == (
        600.0,
        "correct",
        {"thumbs", "rating"},
    )


def test_the_hash_covers_the_meaning_not_the_text() -> None:
    one = spec.parse("wait_s = 3\n[metrics.a]\nweight = 2\n[metrics.b]\n")
    same = spec.parse("# a comment\nwait_s = 3.0\n[metrics.b]\n[metrics.a]\nweight = 2.0\n")
    other = spec.parse("wait_s = 3\n[metrics.a]\nweight = 2.5\n[metrics.b]\n")
    assert one.hash() == same.hash() != other.hash()


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("wait_s = 3\nlat = 'drop'", 2, "lat"),
        ("wait_s = 3\nlate = 'maybe'", 2, "late"),
        ("wait_s = 'soon'", 1, "wait_s"),
        ("wait_s = nan", 1, "wait_s"),
        ("wait_s = -1", 1, "wait_s"),
        ("horizon_s = 10", 1, "horizon_s"),
        ("late = 'drop'\nmax_records = 0", 2, "max_records"),
        ("max_records = 1.5", 1, "max_records"),
        ("clip = [1, -1]", 1, "clip"),
        ("[metrics.a]\nweight = 1\n[metrics.b]\nweight = 'x'", 4, "metrics.b.weight"),
        ("[metrics.a]\nwieght = 1", 2, "metrics.a.wieght"),
        ("[metrics.a]\nweight = 0", 2, "metrics.a.weight"),
        ("[metrics.a]\naggregate = 'median'", 2, "metrics.a.aggregate"),
        ("[verifiers.a]\nkind = 'regex'", 1, "verifiers.a.pattern"),
        ("[verifiers.a]\nkind = 'regex'\npattern = '('", 3, "verifiers.a.pattern"),
        ("[verifiers.a]\nkind = 'regex'\npattern = '(?=a)'", 3, "verifiers.a.pattern"),
        ("[verifiers.a]\nkind = 'regex'\npattern = '(a)\\1'", 3, "verifiers.a.pattern"),
        ("[verifiers.a]\nkind = 'regex'\npattern = 'a{999}b{999}'", 3, "verifiers.a.pattern"),
        (
            "[verifiers.a]\nkind = 'json_schema'\nschema = {pattern = '(?=a)'}",
            3,
            "verifiers.a.schema",
        ),
        (
            "[verifiers.a]\nkind = 'json_schema'\n"
            "schema = {items = {patternProperties = {'(?=a)' = true}}}",
            3,
            "verifiers.a.schema",
        ),
        (
            "[verifiers.a]\nkind = 'json_schema'\n"
            "schema = {unevaluatedProperties = false, patternProperties = {a = true}}",
            3,
            "verifiers.a.schema",
        ),
        ("[verifiers.a]\nkind = 'length'\nslope = -1", 3, "verifiers.a.slope"),
        ("[metrics.a]\ncategories = { x = inf }", 2, "metrics.a.categories"),
        ("clip = [0, inf]", 1, "clip"),
        ("[metrics.'']\nweight = 1", 1, "metrics."),
        ("[verifiers.a]\nkind = 'json_schema'\nschema = {type = 3}", 3, "verifiers.a.schema"),
        ("[verifiers.a]\nkind = 'oracle'", 2, "verifiers.a.kind"),
        ("metrics = 3", 1, "metrics"),
        ("[metrics.a]\nwait_s = -1", 2, "metrics.a.wait_s"),
        ("horizon_s = 3600\n[metrics.a]\nwait_s = 3601", 3, "metrics.a.wait_s"),
        ("[metrics.a]\nsession = 'first'", 2, "metrics.a.session"),
        ("[metrics.a]\ndiscount = 1.5", 2, "metrics.a.discount"),
        ("[metrics.a]\nrange = [5, 1]", 2, "metrics.a.range"),
        ("[metrics.a]\nrange = [-1e308, 1e308]", 2, "metrics.a.range"),
        ("[metrics.a]\nrange = [1]", 2, "metrics.a.range"),
        ("[metrics.a]\nto = [-1e308, 1e308]", 2, "metrics.a.to"),
        ("[implicit.smile]\nweight = 1", 1, "implicit.smile"),
        ("[implicit.retry]\nweight = -1", 2, "implicit.retry.weight"),
        ("[metrics.retry]\n[implicit.retry]\n", 2, "implicit.retry"),
        ("[implicit.retry]\n[verifiers.retry]\nkind = 'finished'", 2, "verifiers.retry"),
    ],
)
def test_errors_name_file_line_and_key(text: str, line: int, key: str) -> None:
    with pytest.raises(SettingsError) as error:
        spec.parse(text, "x.toml")
    assert str(error.value).startswith(f"x.toml:{line}: {key}: ")


def test_broken_toml_is_said_with_its_line() -> None:
    with pytest.raises(SettingsError, match=r"x\.toml: .*line 2"):
        spec.parse("wait_s = 1\nlate = = 1\n", "x.toml")


def test_an_answer_waits_for_the_slowest_term() -> None:
    given = spec.parse(
        "wait_s = 3\nhorizon_s = 7200\n[metrics.a]\nwait_s = 1\n[metrics.b]\n"
        "[implicit.retry]\nwait_s = 4\n"
    )
    assert [given.wait_ms_of(name) for name in ("a", "b", "retry", "c", None)] == [
        *(1000, 3000, 4000, 3000, 3000)
    ]
    assert given.longest_wait_ms == 4000
    assert given.slack_ms == 720_000
    assert given.lifetime_ms == 7_200_000 + 3_600_000 + 720_000
    assert spec.parse("wait_s = 3\n[verifiers.a]\nkind = 'finished'").longest_wait_ms == 3000


def test_what_the_documentation_shows_can_be_read() -> None:
    docstring = spec.__doc__ or ""
    shown = textwrap.dedent(docstring.partition("::\n")[2].partition("\nOther kinds")[0])
    page = (Path(__file__).parents[2] / "docs" / "feedback.md").read_text()
    (block,) = (b for b in re.findall(r"```toml\n(.*?)```", page, re.S) if "[metrics." in b)
    for text in (shown, block):
        given = spec.parse(text)
        assert given.metrics and given.implicit and given.verifiers
