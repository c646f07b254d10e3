"""Numbering nodes: every condition kept, and the highest number as small as can be."""

import itertools

import numpy as np
import pytest

from elenas_jax.graphs.slots import fill_slots


def random_conditions(rng: np.random.Generator) -> tuple[list[int], list[int], list[int], int]:
    """Draws conditions that a random numbering of some nodes meets, and its highest number."""
    num_initial, num_intermediate = rng.integers(0, 5), rng.integers(1, 5)
    odd, even = rng.permutation(range(1, 10, 2)), rng.permutation(range(2, 10, 2))
    slots = [0, *odd[:num_initial], *even[:num_intermediate]]
    share = rng.choice([0.1, 0.3, 0.6])
    lower = [0] * len(slots)
    for node, other in itertools.permutations(range(1, len(slots)), 2):
        if slots[other] < slots[node] and rng.random() < share:
            lower[node] |= 1 << other
    initial = list(range(1, 1 + num_initial))
    return initial, list(range(1 + num_initial, len(slots))), lower, max(slots)


def check(initial: list[int], intermediate: list[int], lower: list[int], numbers: np.ndarray) -> None:
    assert numbers[0] == 0
    assert len(set(numbers.tolist())) == len(numbers)
    assert np.all(numbers[initial] % 2 == 1)
    assert np.all(numbers[intermediate] % 2 == 0)
    for node, other in itertools.product(range(len(lower)), repeat=2):
        assert not lower[node] >> other & 1 or numbers[other] < numbers[node]


def smallest_highest(initial: list[int], intermediate: list[int], lower: list[int]) -> int:
    """Tries everything."""
    for highest in itertools.count(1):
        odd, even = range(1, highest + 1, 2), range(2, highest + 1, 2)
        for odd_slots in itertools.permutations(odd, len(initial)):
            for even_slots in itertools.permutations(even, len(intermediate)):
                slots = dict(zip(initial + intermediate, odd_slots + even_slots, strict=True)) | {0: 0}
                if all(slots[o] < slots[n] for n in slots for o in slots if lower[n] >> o & 1):
                    return highest
    raise AssertionError


@pytest.mark.parametrize("seed", range(4))
def test_no_number_is_higher_than_needed(seed):
    rng = np.random.default_rng(seed)
    for _ in range(50):
        initial, intermediate, lower, highest = random_conditions(rng)
        numbers = fill_slots(initial, intermediate, lower)
        check(initial, intermediate, lower, numbers)
        assert numbers.max() <= highest
        if len(lower) < 7:
            assert numbers.max() == smallest_highest(initial, intermediate, lower)


def test_preferences_decide_where_conditions_do_not():
    np.testing.assert_array_equal(fill_slots([3, 1], [2, 4], [0] * 5), [0, 3, 2, 1, 4])
    # Node 1 waits for node 3, which waits for node 4.
    lower = [0, 1 << 3, 0, 1 << 4, 0]
    np.testing.assert_array_equal(fill_slots([1, 3], [2, 4], lower), [0, 5, 4, 3, 2])
