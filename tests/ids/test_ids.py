"""tailrace.ids: every id carries its tenant and its partition key, and nothing else is one."""

from __future__ import annotations

import string
import uuid

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tailrace import ids
from tailrace.errors import InvalidRecord

NAMES = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=128)
TENANTS = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=32)
TIMES_MS = st.integers(0, (1 << 45) - 1)


@given(TENANTS, NAMES, TIMES_MS, NAMES)
def test_every_id_leads_back_to_its_session(tenant, name, now_ms, token):
    session = ids.claim_session(name, tenant)
    interaction = ids.new_interaction(session, now_ms)
    for subject in (session, interaction):
        for any_id in (subject, ids.new_feedback(subject), ids.feedback_of(subject, token)):
            assert ids.session_of(any_id) == session
            assert ids.tenant_of(any_id) == tenant
        assert ids.subject_of(ids.feedback_of(subject, token)) == subject
    assert ids.turn_time_ms(interaction) == now_ms
    assert ids.is_interaction(interaction)
    assert not ids.is_interaction(session)


@given(TENANTS, st.integers(0, 1 << 48), st.integers(0, 1 << 62), NAMES)
def test_ids_of_rollouts_are_known(tenant, book, number, name):
    session = ids.rollouts_session(tenant, f"{book % (1 << 48):012x}", number)
    interaction = ids.new_interaction(session, 1)
    for any_id in (session, interaction, ids.new_feedback(interaction), ids.new_feedback(session)):
        assert ids.session_of(any_id) == session
        assert ids.is_of_rollouts(any_id)
    assert not ids.is_of_rollouts(ids.new_interaction(f"{tenant}:{name}", 1))
    assert not ids.is_of_rollouts(ids.new_session(tenant, 1))


@given(TENANTS, TIMES_MS)
def test_a_new_session_is_a_uuid_of_version_7(tenant, now_ms):
    session = ids.new_session(tenant, now_ms)
    made = uuid.UUID(session.partition(":")[2])
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == now_ms
    assert ids.session_of(session) == session


@given(st.lists(TIMES_MS, min_size=2, max_size=20, unique=True))
def test_turns_sort_by_time(times_ms):
    made = [ids.new_interaction("default:s", now_ms) for now_ms in sorted(times_ms)]
    assert made == sorted(made)


def test_interactions_of_one_millisecond_differ():
    assert len({ids.new_interaction("default:s", 1) for _ in range(50)}) > 45


@given(st.text(max_size=40))
def test_any_text_is_an_id_or_refused(text):
    for parse in (ids.session_of, ids.subject_of, ids.tenant_of):
        try:
            parse(text)
        except InvalidRecord as error:
            assert error.reason == "id"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "chat",
        ":chat",
        "acme:",
        "Acme:chat",
        "acme:ch at",
        "acme:ch:at",
        "acme:" + "x" * 129,
        "a" * 33 + ":chat",
        "acme:chat~",
        "acme:chat~short",
        "acme:chat~01HF7YAT0000U",
        "acme:chat~01hf7yat00000",
        "acme:chat~01HF7YAT00000~01HF7YAT00000",
        "acme:chat\n",
        "acme:chät",
        "acme:١٢",
    ],
)
def test_malformed_ids_are_refused(bad):
    with pytest.raises(InvalidRecord):
        ids.session_of(bad)


@pytest.mark.parametrize("bad", ["acme:chat", "acme:chat!", "acme:chat!a!b", "acme:chat!a b", "!a"])
def test_malformed_feedback_ids_are_refused(bad):
    with pytest.raises(InvalidRecord):
        ids.subject_of(bad)


def test_a_tenant_cannot_claim_another_ones_session():
    assert ids.claim_session("acme:chat", "acme") == "acme:chat"
    with pytest.raises(ids.ForeignTenant) as refused:
        ids.claim_session("acme:chat", "other")
    assert refused.value.reason == "foreign"


def test_a_token_of_another_subject_is_refused():
    assert ids.feedback_of("acme:a", "acme:a!t") == "acme:a!t"
    with pytest.raises(InvalidRecord):
        ids.feedback_of("acme:a", "acme:b!t")
    with pytest.raises(InvalidRecord):
        ids.feedback_of("acme:a", "")


@given(NAMES, st.integers(0, 7), st.lists(NAMES, max_size=5))
def test_a_trajectory_id_depends_on_all_its_inputs_and_their_order(name, choice, inputs):
    interaction = f"default:{name}~01HF7YAT00000"
    made = ids.trajectory(interaction, choice, inputs)
    assert uuid.UUID(made).version == 5
    assert made == ids.trajectory(interaction, choice, list(inputs))
    assert made != ids.trajectory(interaction, choice + 1, inputs)
    assert made != ids.trajectory(interaction, choice, [*inputs, "another"])
    if inputs != inputs[::-1]:
        assert made != ids.trajectory(interaction, choice, inputs[::-1])


def test_a_trajectory_id_never_changes():
    """Logs written before hold these."""
    made = ids.trajectory("default:s~01HF7YAT00000", 0, ["default:s~01HF7YAT00000!a"])
    assert made == "dffdf4fb-a56b-5a3e-9b04-6ce5cc34dc2b"


TURN, OTHER = "acme:chat~01HF7YAT00000", "acme:chat~01HF7YAT11111"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("0", (TURN, 0)),
        ("127", (TURN, 127)),
        (OTHER, (OTHER, 0)),
        (f"{OTHER}/3", (OTHER, 3)),
        (ids.answer(TURN, 5), (TURN, 5)),
    ],
)
def test_another_answer_of_the_session(text, answer):
    assert ids.other_answer(TURN, text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/1",
        "-1",
        "128",
        "1.0",
        "\u0663",
        "acme:chat",
        f"{OTHER}/",
        f"{OTHER}/128",
        f"{OTHER}/x",
        f"{OTHER}!f",
        f"{OTHER}!f/1",
        "acme:other~01HF7YAT00000",
        "other:chat~01HF7YAT00000",
    ],
)
def test_what_is_no_answer_of_the_session(text):
    with pytest.raises(InvalidRecord) as refused:
        ids.other_answer(TURN, text)
    assert refused.value.reason == "preferred_over"


@given(st.text(max_size=40))
def test_any_text_is_an_answer_or_refused(text):
    try:
        ids.other_answer(TURN, text)
    except InvalidRecord as error:
        assert error.reason == "preferred_over"
