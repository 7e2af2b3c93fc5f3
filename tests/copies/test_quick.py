"""The quick decoder and the library's say the same of every record, and of no broken one."""

from __future__ import annotations

from pathlib import Path
import random

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from tailrace import events
from tailrace.errors import InvalidRecord
from tailrace.export.quick import Quick
from tailrace.wire import Wire
from tests.golden.samples import SAMPLES

WIRE = Wire()
TEXT = st.text(max_size=80)
MAYBE = st.none() | TEXT
LONG = st.integers(-(2**63), 2**63 - 1)
REAL = st.none() | st.floats(allow_nan=False)
TRAJECTORIES = st.builds(
    events.Trajectory,
    trajectory_id=TEXT,
    interaction_id=TEXT,
    choice=LONG,
    event_time_ms=LONG,
    reward=REAL,
    components=st.lists(
        st.builds(events.Component, name=TEXT, value=REAL, weight=REAL, reason=MAYBE), max_size=3
    ),
    feedback_ids=st.lists(TEXT, max_size=70),
    learn=st.none() | st.booleans(),
    route=st.none() | st.builds(events.Route, channel=MAYBE, version=st.none() | LONG),
    tags=st.dictionaries(TEXT, TEXT, max_size=3),
    weight_versions=st.lists(
        st.builds(events.VersionSpan, version=st.none() | LONG, start=LONG, end=LONG), max_size=3
    ),
    closed_log_time_ms=st.none() | LONG,
    content=st.none()
    | st.builds(
        events.TrajectoryContent, messages=MAYBE, token_ids=st.none() | st.binary(max_size=300)
    ),
)


@settings(max_examples=60)
@given(TRAJECTORIES)
def test_what_was_encoded_is_decoded(one: events.Trajectory) -> None:
    value = WIRE.encode(one)
    assert Quick(events.Trajectory)(value) == one == WIRE.decode(events.Trajectory, value)


@pytest.mark.parametrize("kind", events.RECORDS, ids=lambda kind: kind.__name__)
def test_all_records_are_read(kind: type[events.Struct]) -> None:
    quick = Quick(kind)
    for sample in (each for each in SAMPLES.values() if type(each) is kind):
        assert quick(WIRE.encode(sample)) == sample


def test_what_is_broken_is_left_to_the_other() -> None:
    quick, chance = Quick(events.Trajectory), random.Random(1)
    sample = max(
        (each for each in SAMPLES.values() if isinstance(each, events.Trajectory)), key=repr
    )
    value = WIRE.encode(sample)
    assert quick(None) is quick(b"") is quick(value[:-1]) is quick(value + b"\0") is None
    old = Path(__file__).parents[1] / "golden" / "Trajectory.v1.bin"
    assert quick(old.read_bytes()) is None
    for _ in range(2000):
        bad = bytearray(value)
        for _ in range(chance.randint(1, 3)):
            bad[chance.randrange(10, len(bad))] = chance.randrange(256)
        found = quick(bytes(bad))
        try:
            said = WIRE.decode(events.Trajectory, bytes(bad))
        except InvalidRecord:
            assert found is None
            continue
        assert found is None or repr(found) == repr(said)
