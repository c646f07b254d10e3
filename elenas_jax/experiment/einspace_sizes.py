"""How large architectures of einspace are as they are drawn, beside the published sizes.

Source: Ericsson et al. (2024), table 10; the shape of its inputs is not stated there.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_options import make_options
from elenas_jax.spaces.einspace_sampling import Budget, draw
from elenas_jax.spaces.einspace_statistics import Distribution
from elenas_jax.spaces.einspace_typing import Rules, Typed, state_of

Found = Sequence[tuple[float, Distribution]]  # with the probability of a computation

# By probability: mean, median and maximum of terminals, mean of non-terminals, mean b.
PUBLISHED = {
    0.9: ("3.87", "3", "28", "3.63", "1.75"),
    0.8: ("5.34", "4", "54", "5.04", "2.05"),
    0.7: ("6.72", "4", "118", "6.00", "2.05"),
    0.6: ("8.65", "4", "202", "7.74", "2.17"),
    0.5: ("40.2", "5", "4,779", "39.0", "2.34"),
    0.4: ("100", "8", "12,026", "88.6", "2.81"),
    0.3: ("6,071", "9", "878,122", "4,588", "2.80"),
}
SIZE_COLUMNS = (
    "p",
    "",
    "terminals: mean",
    "median",
    "90%",
    "max",
    "non-terminals: mean",
    "mean b",
    "invalid",
)
SHARE_COLUMNS = (
    *("p", "depth: mean", "median", "max", "parameters: median", "95%", "max", "none"),
    *("root: sequential", "branching", "routing", "ends in tokens"),
)


def draw_architectures(
    computation_probability: float,
    num: int,
    in_shape: tuple[int, ...],
    *,
    rules: Rules,
    max_nodes: int = 0,
    seed: int = 0,
) -> Iterator[Typed]:
    """Yields architectures drawn within no budget but that of nodes, 0 being no limit."""
    options = make_options(make_einspace_grammar(computation_probability, len(in_shape)), rules)
    rng, state = np.random.default_rng(seed), state_of(in_shape)
    for _ in range(num):
        yield draw(rng, options, state, budget=Budget(nodes=max_nodes), compat=rules == "compat").typed


def size_rows(found: Found) -> list[tuple[str, ...]]:
    """Returns rows of `SIZE_COLUMNS`: what was drawn, and below it what was published if anything was."""
    rows: list[tuple[str, ...]] = []
    for p, row in found:
        rows.append(
            (
                f"{p:g}",
                "drawn",
                f"{row.mean_terminals:,.2f}",
                f"{row.median_terminals:g}",
                f"{row.ninety_terminals:,.0f}",
                f"{row.max_terminals:,}",
                f"{row.mean_nonterminals:,.2f}",
                f"{row.mean_branches:.2f}",
                f"{row.invalid:.1%}",
            )
        )
        if p in PUBLISHED:
            mean, median, most, nonterminals, branches = PUBLISHED[p]
            rows.append((f"{p:g}", "published", mean, median, "", most, nonterminals, branches, ""))
    return rows


def share_rows(found: Found) -> list[tuple[str, ...]]:
    """Returns rows of `SHARE_COLUMNS`."""
    return [
        (
            f"{p:g}",
            f"{row.mean_depth:.2f}",
            f"{row.median_depth:g}",
            f"{row.max_depth}",
            f"{row.median_parameters:,.0f}",
            f"{row.ninety_five_parameters:,.0f}",
            f"{row.max_parameters:,}",
            f"{row.without_parameters:.1%}",
            f"{row.root_sequential:.1%}",
            f"{row.root_branching:.1%}",
            f"{row.root_routing:.1%}",
            f"{row.ends_in_columns:.1%}",
        )
        for p, row in found
    ]
