"""One seed for every generator, and the number of threads."""

import math
import random

import numpy as np
import pytest
import torch

from lowrank_utils import set_seed


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw():
    return random.random(), np.random.rand(), torch.rand(3).tolist()


def test_every_generator_is_seeded():
    set_seed(7)
    first = draw()
    assert draw() != first
    set_seed(7)
    assert draw() == first
    set_seed(8)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_the_same_draws_as_the_seed_notebook():
    set_seed(42)
    ours = draw()
    random.seed(42), np.random.seed(42), torch.manual_seed(42)
    assert draw() == ours


def test_threads_and_cudnn():
    set_seed(0, threads=2)
    assert torch.get_num_threads() == 2
    torch.backends.cudnn.benchmark = True
    set_seed(0)
    assert torch.get_num_threads() == 1
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark


@pytest.mark.parametrize(
    ("seed", "threads", "error", "message"),
    [
        (-1, 1, ValueError, "seed=-1 must be an integer from 0 to 4294967295"),
        (2**32, 1, ValueError, "seed=4294967296 must be an integer from 0 to 4294967295"),
        (1.5, 1, TypeError, "seed=1.5 must be an integer"),
        (True, 1, TypeError, "seed=True must be an integer"),
        (None, 1, TypeError, "seed=None must be an integer"),
        (math.nan, 1, TypeError, "seed=nan must be an integer"),
        (0, 0, ValueError, "threads=0 must be an integer >= 1"),
        (0, True, TypeError, "threads=True must be"),
    ],
)
def test_impossible_seeds_change_nothing(seed, threads, error, message):
    before = torch.get_num_threads()
    with pytest.raises(error) as caught:
        set_seed(seed, threads)
    assert str(caught.value).startswith(message) and torch.get_num_threads() == before
