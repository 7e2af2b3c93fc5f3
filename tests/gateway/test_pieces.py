"""Ids by pieces are the ids of the whole, for every text and every tokenizer that may be cut."""

from __future__ import annotations

from array import array
from concurrent.futures import ThreadPoolExecutor
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from services.gateway.pieces import Pieces, borders, size_of

BORDERS = ("<|end|>", "<|end|>x", "[B]", "\n\n", "<t>")
TEXTS = st.lists(
    st.sampled_from([*BORDERS, "<|end", "|>", "[", "B]", "\n", " ", "  ", "x", "river", " river"])
    | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=4)
).map("".join)
SPLITS = {
    "bytes": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "prefixed": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "digits": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel()]
    ),
    "always": pre_tokenizers.Metaspace(prepend_scheme="always"),
    "first": pre_tokenizers.Metaspace(prepend_scheme="first"),
    "nothing": None,
}


def tokenizer(split: str, *tokens: AddedToken | str) -> Tokenizer:
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Prepend("_")])
    if SPLITS[split] is not None:
        made.pre_tokenizer = SPLITS[split]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["the river runs past the mill\n\nx x [B end|>"] * 3, trainer)
    made.add_tokens([AddedToken(t, normalized=False) if isinstance(t, str) else t for t in tokens])
    return made


@pytest.fixture(scope="module")
def cut() -> list[tuple[Tokenizer, Pieces]]:
    made = [tokenizer(split, *BORDERS) for split in SPLITS if split != "first"]
    return [(one, Pieces(lambda t, one=one: ids(one, t), borders(one))) for one in made]


def ids(one: Tokenizer, text: str) -> list[int]:
    return one.encode(text, add_special_tokens=False).ids


@given(text=TEXTS)
def test_pieces_are_the_whole(cut, text):
    for one, pieces in cut:
        assert pieces.ids(text) == ids(one, text)
        assert pieces.ids(text) == ids(one, text), "and from what was kept"


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word", "normalized"])
def test_a_token_that_looks_beside_itself_is_no_border(flag):
    given = {"normalized": False} | {flag: True}
    assert borders(tokenizer("bytes", "[B]", AddedToken("<s>", **given))) == {}


def test_where_the_place_counts_nothing_is_cut():
    first = tokenizer("first", *BORDERS)
    assert ids(first, "x[B]x") != [*ids(first, "x"), first.token_to_id("[B]"), *ids(first, "x")]
    assert borders(first) == {}
    shortened = tokenizer("bytes", *BORDERS)
    assert borders(shortened)
    shortened.enable_truncation(4)
    assert borders(shortened) == {}


def test_what_was_encoded_is_not_again_until_there_is_no_room():
    asked: list[str] = []

    def encode(text: str) -> list[int]:
        asked.append(text)
        return [len(text)]

    pieces = Pieces(encode, {"|": 0}, room_bytes=2 * size_of("aaaa", array("i", [4])))
    assert pieces.ids("aaaa|bbb|aaaa") == [4, 0, 3, 0, 4]
    assert asked == ["aaaa", "bbb"]
    # The one that was used longest ago goes.
    pieces.ids("cccc")
    assert pieces.ids("aaaa|cccc") == [4, 0, 4]
    assert asked == ["aaaa", "bbb", "cccc"]
    pieces.ids("bbb")
    assert asked == ["aaaa", "bbb", "cccc", "bbb"]
    # A piece that is larger than the room leaves nothing behind.
    assert pieces.ids("d" * 999) == pieces.ids("d" * 999) == [999]
    assert asked[4:] == ["d" * 999] * 2


@pytest.mark.parametrize(
    "piece",
    ["{0:x}", "{0:x}" + "é" * 30, "{0:x}" + "水" * 30, "{0:x}" + "𝄞" * 30, "{0:x}" + " river" * 60],
    ids=["short", "latin", "wide", "widest", "long"],
)
def test_what_is_kept_takes_no_more_memory_than_is_said(piece):
    room_bytes, most = 256 * 1024, 0
    one = tokenizer("bytes", *BORDERS)
    pieces = Pieces(lambda text: ids(one, text), borders(one), room_bytes=room_bytes)
    tracemalloc.start()
    try:
        for number in range(1000):
            pieces.ids(piece.format(number))
            most = max(most, tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert 0.5 * room_bytes < most < 1.2 * room_bytes


def test_from_many_threads_at_once():
    one = tokenizer("bytes", *BORDERS)
    pieces = Pieces(
        lambda text: ids(one, text), borders(one), room_bytes=4 * size_of("", array("i"))
    )
    texts = [f"river {n % 7}[B]x{n}<|end|>{'past' * (n % 5)}" for n in range(300)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(pieces.ids, texts)) == [ids(one, text) for text in texts]
