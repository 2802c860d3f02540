"""Philox-4x32-10 against its published vectors, and the dropout that rests on it."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyg_gt.ops.dropout import draw_seed, keep_edges, keep_pairs, keep_rows, philox, threshold

WORD = 2**32
WORDS = st.integers(0, WORD - 1)
SEEDS = st.integers(0, 2**63 - 1)


def by_hand(counter: list[int], key: list[int]) -> list[int]:
    """Salmon et al. 2011, in Python's own integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, WORD)
        high1, low1 = divmod(0xCD9E8D57 * c2, WORD)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % WORD, (k1 + 0xBB67AE85) % WORD
    return [c0, c1, c2, c3]


def factor(seed: int, counter: list[int], word: int, p: float) -> float:
    """The factor of one weight."""
    found = by_hand(counter, [seed % WORD, seed // WORD])[word]
    if p >= 1:
        return 0.0
    return 1 / (1 - p) if found >= math.floor(Fraction(p) * WORD) else 0.0


def pair_factor(seed: int, row: int, position: int, head: int, p: float) -> float:
    """The factor of a pair at a head, as docs/design.md has it."""
    return factor(seed, [position // 4, row, head, 0], position % 4, p)


def edge_factor(seed: int, edge: int, head: int, p: float) -> float:
    """The factor of an edge at a head, as docs/design.md has it."""
    return factor(seed, [edge % WORD, edge // WORD, head // 4, 1], head % 4, p)


# kat_vectors of Random123
PUBLISHED = pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)


@PUBLISHED
def test_the_published_words(counter: str, key: str, words: str) -> None:
    numbers = [[int(word, 16) for word in text.split()] for text in (counter, key, words)]
    assert by_hand(*numbers[:2]) == numbers[2]
    seed = numbers[1][0] + WORD * numbers[1][1]
    signed = torch.tensor([seed - 2**64 if seed >= 2**63 else seed])
    assert philox(signed, *torch.tensor(numbers[0])).tolist() == numbers[2]


@given(SEEDS, st.tuples(WORDS, WORDS, WORDS, WORDS))
def test_words_are_philox_for_all_seeds_and_counters(seed: int, counter: tuple[int, ...]) -> None:
    words = philox(torch.tensor([seed]), *torch.tensor(counter))
    assert words.tolist() == by_hand(list(counter), [seed % WORD, seed // WORD])
    assert words.dtype == torch.int64


def test_counters_broadcast() -> None:
    seed, parts = torch.tensor([2**40 + 3]), [torch.arange(n) for n in (2, 3, 4, 5)]
    grid = torch.meshgrid(*parts, indexing="ij")
    words = philox(seed, *(x.view([-1 if i == d else 1 for i in range(4)])
                           for d, x in enumerate(parts)))  # fmt: skip
    assert words.shape == (2, 3, 4, 5, 4)
    assert torch.equal(words, philox(seed, *grid))
    assert len(set(words.flatten().tolist())) == words.numel()


@pytest.mark.cuda
def test_words_are_the_same_on_a_gpu() -> None:
    seed = torch.tensor([2**62 + 12345])
    counters = [torch.arange(0, WORD, 2**22 + step) for step in (1, 3, 5, 7)]
    counters = [x[:1000] for x in counters]
    found = philox(seed.cuda(), *(x.cuda() for x in counters))
    assert torch.equal(found.cpu(), philox(seed, *counters))


def test_words_are_evenly_spread() -> None:
    zero = torch.zeros(1, dtype=torch.int64)
    words = philox(torch.tensor([5]), torch.arange(50_000), zero, zero, zero)
    assert 0 <= words.min() < 2**18 and WORD - 2**18 < words.max() < WORD
    for word in words.unbind(-1):
        share = torch.histc(word.double(), 10, 0, WORD) / 50_000
        assert (share - 0.1).abs().max() < 4 * (0.09 / 50_000) ** 0.5


@given(
    SEEDS,
    st.integers(0, 2**31),
    st.integers(0, 2**31),
    st.integers(1, 6),
    st.floats(0, 1),
)
def test_pairs_are_kept_by_their_formula(
    seed: int, row: int, position: int, heads: int, p: float
) -> None:
    rows, positions = torch.tensor([[row], [row + 1]]), position + torch.arange(5)
    found = keep_pairs(torch.tensor([seed]), rows, positions, heads, p, torch.float64)
    want = [
        [
            [pair_factor(seed, r, j, h, p) for h in range(heads)]
            for j in range(position, position + 5)
        ]
        for r in (row, row + 1)
    ]
    assert found.tolist() == want


@given(SEEDS, st.integers(0, 2**62), st.integers(1, 9), st.floats(0, 1))
def test_edges_are_kept_by_their_formula(seed: int, edge: int, heads: int, p: float) -> None:
    numbers = torch.tensor([[edge], [edge + 1]])
    found = keep_edges(torch.tensor([seed]), numbers, heads, p, torch.float64)
    want = [[[edge_factor(seed, e, h, p) for h in range(heads)]] for e in (edge, edge + 1)]
    assert found.tolist() == want


@pytest.mark.parametrize("width", [0, 1, 3, 4, 5, 17])
@pytest.mark.parametrize("heads", [1, 3])
def test_whole_rows_are_kept_as_their_pairs_are(width: int, heads: int) -> None:
    seed, rows = torch.tensor([7]), torch.tensor([[3, 0, 8], [2**31, 5, 6]])
    found = keep_rows(seed, rows, width, heads, 0.4, torch.float64)
    pairs = rows.unsqueeze(-1), torch.arange(width)
    assert found.shape == (2, 3, width, heads)
    assert torch.equal(found, keep_pairs(seed, *pairs, heads, 0.4, torch.float64))


def test_a_weight_is_dropped_whatever_the_number_of_heads() -> None:
    seed, n = torch.tensor([7]), torch.arange(30)
    few, many = (
        [keep_pairs(seed, n[:, None], n, heads, 0.5, torch.float32)[..., :3],
         keep_edges(seed, n, heads, 0.5, torch.float32)[..., :3]]
        for heads in (3, 11)
    )  # fmt: skip
    assert torch.equal(few[0], many[0]) and torch.equal(few[1], many[1])


def test_pairs_and_edges_draw_other_numbers() -> None:
    seed, n = torch.tensor([7]), torch.arange(100)
    pairs = keep_pairs(seed, 0 * n, n, 4, 0.5, torch.float32)
    edges = keep_edges(seed, n, 4, 0.5, torch.float32)
    assert 100 < (pairs != edges).sum() < 300
    shifted = [keep_edges(seed, n + s, 4, 0.5, torch.float32) for s in (0, WORD, 2**40)]
    for a, b in ((0, 1), (0, 2), (1, 2)):  # beyond a word the numbers do not begin again
        assert 100 < (shifted[a] != shifted[b]).sum() < 300


def test_keep_all_and_keep_none() -> None:
    seed, n = torch.tensor([11]), torch.arange(100)
    for p, want in ((0.0, 1.0), (1.0, 0.0)):
        for kept in (
            keep_pairs(seed, n, n, 2, p, torch.float32),
            keep_rows(seed, n, 9, 2, p, torch.float32),
            keep_edges(seed, n, 2, p, torch.float32),
        ):
            assert kept.dtype == torch.float32 and (kept == want).all()


def test_a_word_at_the_threshold_is_kept() -> None:
    (word, *_) = philox(torch.tensor([3]), *torch.tensor([0, 0, 0, 0])).tolist()
    zero = torch.tensor([0])
    for steps, kept in ((word, True), (word + 0.9, True), (word + 1, False)):
        (found,) = keep_pairs(torch.tensor([3]), zero, zero, 1, steps / WORD, torch.float64)
        assert bool(found) is kept
        assert (word >= threshold(steps / WORD)) is kept


@given(st.floats(0, 1))
def test_the_threshold_is_a_word(p: float) -> None:
    assert threshold(p) == min(math.floor(Fraction(p) * WORD), WORD - 1)
    assert threshold(1.0) == threshold(1 - 2**-53) == WORD - 1


@pytest.mark.slow
def test_compiled_code_keeps_the_same_at_every_probability() -> None:
    def kept(seed: Tensor, numbers: Tensor, p: float) -> Tensor:
        return keep_edges(seed, numbers, 5, p, torch.float32)

    # the second probability is traced as a symbol, which the later ones reuse
    compiled = torch.compile(kept, fullgraph=True, dynamic=True)
    for p, size in ((0.3, 17), (0.6, 19), (0.7, 12), (0.11, 15)):
        seed, numbers = torch.tensor([2**50 + size]), torch.arange(size)
        assert torch.equal(compiled(seed, numbers, p), kept(seed, numbers, p))


def test_a_seed_is_drawn_from_torchs_generator() -> None:
    first = [draw_seed(torch.device("cpu")) for _ in range(3)]
    assert len({int(seed) for seed in first}) == 3
    torch.manual_seed(0)
    assert [int(draw_seed(torch.device("cpu"))) for _ in range(3)] == [int(s) for s in first]
    assert first[0].shape == (1,) and first[0].dtype == torch.int64
