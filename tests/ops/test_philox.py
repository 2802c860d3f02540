"""Philox-4x32-10 against its published vectors, and the dropout that rests on it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_gt.ops._philox import draw_seed, keep, philox_uniform

WORD = 2**32


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Salmon et al. 2011, in Python's own integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, WORD)
        high1, low1 = divmod(0xCD9E8D57 * c2, WORD)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % WORD, (k1 + 0xBB67AE85) % WORD
    return [c0, c1, c2, c3]


def uniform(word: int) -> float:
    """As ``triton.language.rand`` turns a word into a number: the sign folded, times 2^-31."""
    signed = word - WORD if word >= 2**31 else word
    number = np.float32(-signed - 1 if signed < 0 else signed)
    return float(number * np.float32(4.6566127342e-10))


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    # kat_vectors of Random123
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
def test_the_test_s_own_philox_gives_the_published_words(
    counter: str, key: str, words: str
) -> None:
    numbers = [[int(word, 16) for word in text.split()] for text in (counter, key, words)]
    assert philox(*numbers[:2]) == numbers[2]


def test_the_published_word_at_zero() -> None:
    (found,) = philox_uniform(torch.tensor([0]), torch.tensor([0]))
    assert float(found) == pytest.approx(0x6627E8D5 / 2**31, abs=1e-7)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 2**62))
def test_uniform_is_philox_for_all_seeds_and_offsets(seed: int, offset: int) -> None:
    (found,) = philox_uniform(torch.tensor([seed]), torch.tensor([offset]))
    word = philox([offset % WORD, offset // WORD, 0, 0], [seed % WORD, seed // WORD])[0]
    assert float(found) == uniform(word)


@pytest.mark.cuda
def test_numbers_are_the_same_on_a_gpu() -> None:
    seed, offset = torch.tensor([2**62 + 12345]), torch.arange(0, 2**40, 2**27 + 1)
    want = philox_uniform(seed, offset)
    assert torch.equal(philox_uniform(seed.cuda(), offset.cuda()).cpu(), want)


def test_offsets_beyond_a_word_do_not_wrap() -> None:
    seed, low = torch.tensor([3]), torch.arange(100)
    numbers = [philox_uniform(seed, low + shift) for shift in (0, WORD, 2 * WORD, 2**40)]
    for i, a in enumerate(numbers):
        for b in numbers[:i]:
            assert (a != b).sum() > 95


def test_numbers_lie_in_the_unit_interval_and_fill_it() -> None:
    numbers = philox_uniform(torch.tensor([5]), torch.arange(200_000))
    assert numbers.dtype == torch.float32
    assert 0 <= numbers.min() < 1e-4 and 1 - 1e-4 < numbers.max() < 1
    share = torch.histc(numbers, 10, 0, 1) / numbers.numel()
    assert (share - 0.1).abs().max() < 4 * (0.09 / 200_000) ** 0.5


def test_keep_follows_its_formula() -> None:
    seed, rows, p = torch.tensor([11]), torch.tensor([[0, 5], [7, 2**33]]), 0.3
    factors = keep(seed, rows, 3, p, torch.float64)
    for i, row in enumerate(rows.flatten().tolist()):
        for head in range(3):
            number = philox_uniform(seed, torch.tensor([row * 3 + head]))
            want = 1 / 0.7 if float(number) >= p else 0.0
            assert float(factors.view(4, 3)[i, head]) == pytest.approx(want)
    assert factors.shape == (2, 2, 3)


def test_keep_all_and_keep_none() -> None:
    seed, rows = torch.tensor([11]), torch.arange(100)
    assert (keep(seed, rows, 2, 0.0, torch.float32) == 1).all()
    assert (keep(seed, rows, 2, 1.0, torch.float32) == 0).all()


def test_a_seed_is_drawn_from_torchs_generator() -> None:
    first = [draw_seed(torch.device("cpu")) for _ in range(3)]
    assert len({int(seed) for seed in first}) == 3
    torch.manual_seed(0)
    assert [int(draw_seed(torch.device("cpu"))) for _ in range(3)] == [int(s) for s in first]
    assert first[0].shape == (1,) and first[0].dtype == torch.int64
