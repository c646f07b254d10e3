"""Numbers the nodes of a network: the input 0, initial nodes odd, intermediate nodes even.

Some nodes must have lower numbers than others, since numbers order the factors of a matmul. That
is scheduling of unit jobs on two machines that take turns: the smallest highest number is found
by a search that is cut by deadlines, and is almost always the first thing it tries.
"""

import numpy as np

_MOST_VISITS = 5_000  # of the search, for one bound; the hardest graphs may get a gap more than needed


def fill_slots(initial: list[int], intermediate: list[int], lower: list[int]) -> np.ndarray:
    """Numbers nodes 0 to n - 1, of which the one in neither list is the input.

    Args:
      initial: initial nodes, preferred first.
      intermediate: intermediate nodes, preferred first.
      lower: `[n]` masks of the nodes (bits) that must have lower numbers; without cycles.

    Returns:
      `[n]` int64 numbers, the highest as small as the search can make it.
    """
    given = sum(1 << node for node in (*initial, *intermediate))
    lower = [mask & given for mask in lower]
    slots = _greedily(initial, intermediate, lower)
    highest = max(slots.values())
    bound = max(2 * len(initial) - 1, 2 * len(intermediate))
    while bound < highest:
        better = _Search(initial, intermediate, lower, slots, bound).run()
        if better is not None:
            slots = better
            break
        bound += 1
    numbers = np.zeros(len(lower), np.int64)
    for node, slot in slots.items():
        numbers[node] = slot
    return numbers


def _greedily(initial: list[int], intermediate: list[int], lower: list[int]) -> dict[int, int]:
    """Fills slot after slot with the first node that may stand there."""
    waiting = (list(intermediate), list(initial))  # of even and of odd slots
    slots: dict[int, int] = {}
    placed, slot = 0, 1
    while waiting[0] or waiting[1]:
        queue = waiting[slot % 2]
        for node in queue:
            if not lower[node] & ~placed:
                slots[node] = slot
                placed |= 1 << node
                queue.remove(node)
                break
        slot += 1
    return slots


class _Search:
    """Depth first search for numbers up to a bound, slot by slot."""

    def __init__(
        self, initial: list[int], intermediate: list[int], lower: list[int], slots: dict[int, int], bound: int
    ):
        self.queues = (intermediate, initial)
        self.lower = lower
        self.visits = 0
        self.failed: set[tuple[int, int]] = set()  # (slot, placed)
        self.higher = [0] * len(lower)  # nodes that must come later, directly
        for node in slots:
            for other in slots:
                if lower[other] >> node & 1:
                    self.higher[node] |= 1 << other
        self.latest = self.deadlines(sorted(slots, key=lambda node: slots[node]), set(initial), bound)
        # Each queue's nodes by deadline, for counting.
        self.by_deadline = tuple(sorted(queue, key=lambda node: self.latest[node]) for queue in self.queues)

    def deadlines(self, ascending: list[int], initial: set[int], bound: int) -> dict[int, int]:
        """Returns the highest number each node may have, if all that must follow is to fit."""
        latest: dict[int, int] = {}
        following = [0] * len(self.lower)
        for node in reversed(ascending):
            odd = node in initial
            deadline = bound
            for other in ascending:
                if self.higher[node] >> other & 1:
                    following[node] |= 1 << other | following[other]
            for queue in self.queues:
                ends = sorted(latest[other] for other in queue if following[node] >> other & 1)
                deadline = min([deadline, *(end - 2 * place - 1 for place, end in enumerate(ends))])
            latest[node] = deadline - (deadline % 2 != odd)
        return latest

    def run(self) -> dict[int, int] | None:
        slots: dict[int, int] = {}
        return slots if self.fill(1, 0, slots) else None

    def fits(self, slot: int, placed: int) -> bool:
        """Says whether the nodes left can meet their deadlines if they only had to share slots."""
        for parity, nodes in enumerate(self.by_deadline):
            free = slot + (slot % 2 != parity)
            for node in nodes:
                if not placed >> node & 1:
                    if free > self.latest[node]:
                        return False
                    free += 2
        return True

    def fill(self, slot: int, placed: int, slots: dict[int, int]) -> bool:
        """Fills the slots from `slot` on; `slots` holds the numbers given so far."""
        if len(slots) == len(self.latest):
            return True
        self.visits += 1
        if self.visits > _MOST_VISITS or (slot, placed) in self.failed or not self.fits(slot, placed):
            return False
        free = [n for n in self.queues[slot % 2] if not placed >> n & 1 and not self.lower[n] & ~placed]
        if not free:  # a slot is left empty only if nothing may stand there
            return self.fill(slot + 1, placed, slots)
        tried = set()
        for node in free:
            if self.higher[node] not in tried:  # nodes with the same successors are alike
                tried.add(self.higher[node])
                slots[node] = slot
                if self.fill(slot + 1, placed | 1 << node, slots):
                    return True
                del slots[node]
        self.failed.add((slot, placed))
        return False
