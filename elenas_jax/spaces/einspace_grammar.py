"""The grammar of einspace: modules, branching, routing and leaf operations as productions.

Source: Ericsson et al. (2024), section 3. Branching operations stand in the productions of modules, so
that a branching into 4 or 8 has one inner module, shared by its copies (with parameters of their own), and
a branching into 2 has two. The first symbol of a production is its name. Productions of weight 0 are those
that only the published seeds use.
"""

from collections.abc import Iterable

from elenas_jax.ops.fundamental import (
    AGGREGATION,
    BRANCHING,
    COMPUTATION,
    CONVOLUTION_1D,
    OFF_GRAMMAR,
    POST_ROUTING,
    PRE_ROUTING,
    FundamentalOperation,
)
from elenas_jax.spaces.grammar import Grammar, parse_grammar

COMPUTATION_PROBABILITY = 0.32
# What may stand in the place of a module without being one.
BARE_LEAVES = ("norm", "leaky_relu", "linear(512)", "max_pool(3,2,1)")

MODULE_KINDS = ("sequential", "branching", "routing", "computation")


def grammar_text(
    computation_probability: float = COMPUTATION_PROBABILITY, num_axes: int = 3, unfolded: bool = False
) -> str:
    """Returns the grammar as text, a rule a line.

    Args:
      computation_probability: of a module that is a leaf operation; the other kinds share the rest equally.
      num_axes: of an input without its batch axis: 3 for images; 2 for sequences, which have convolutions
        over the second axis as leaves and nothing to unfold.
      unfolded: whether a branching into 4 or 8 has as many inner modules, as in the network; for analysis.

    Raises:
      ValueError: if the probability is not between 0 and 1, or the number of axes is neither 2 nor 3.
    """
    if not 0 < computation_probability < 1:
        raise ValueError(
            f"computation_probability is {computation_probability}; it must be between 0 and 1, exclusively."
        )
    if num_axes not in (2, 3):
        raise ValueError(f"Inputs have {num_axes} axes; they must have 3 (images) or 2 (sequences).")
    # In 36ths, so that a kind's probability and a third of a twelfth of it are short decimals.
    other = 1 - computation_probability
    leaves, pre, post = COMPUTATION, PRE_ROUTING, POST_ROUTING
    if num_axes == 2:
        leaves = (*COMPUTATION, *CONVOLUTION_1D)
        pre, post = (tuple(row for row in rows if "col" not in row.kind) for rows in (pre, post))
    relative, unfolding = (
        [f"{row.name} [0]" for row in OFF_GRAMMAR if row.kind == kind]
        for kind in ("relative_linear", "im2col")
    )
    rules = {
        "S": _modules(1, unfolded),
        "M": [
            *_modules(other, unfolded),
            f"computation C [{_number(36 * computation_probability)}]",
            *(f"{name} [0]" for name in BARE_LEAVES),
        ],
        "A": _names(AGGREGATION),
        "P": [*_names(pre), *unfolding],
        "R": _names(post),
        "C": [*_names(leaves), *relative],
    }
    return "".join(f"{head} -> {' | '.join(options)}\n" for head, options in rules.items())


def make_einspace_grammar(
    computation_probability: float = COMPUTATION_PROBABILITY, num_axes: int = 3, unfolded: bool = False
) -> Grammar:
    """Returns the grammar, see `grammar_text`. Productions have the same order for every probability."""
    return parse_grammar(grammar_text(computation_probability, num_axes, unfolded))


def module_kind(name: str) -> str:
    """Returns what a production of a module is by its name: one of `MODULE_KINDS`, or "leaf"."""
    if name in ("sequential", "routing", "computation"):
        return name
    return "branching" if name in _BRANCHING_NAMES else "leaf"


_BRANCHING_NAMES = frozenset(row.name for row in BRANCHING)


def _modules(share: float, unfolded: bool) -> list[str]:
    """Returns the kinds of modules but computation, of which each has `share` of the 12 parts."""
    return [
        f"sequential M M [{_number(12 * share)}]",
        *(f"{row.name} {_inner(row, unfolded)} A [{_number(share)}]" for row in BRANCHING),
        f"routing P M R [{_number(12 * share)}]",
    ]


def _inner(row: FundamentalOperation, unfolded: bool) -> str:
    return " ".join("M" * row.num_branches) if unfolded or row.num_branches == 2 else "M"


def _names(rows: Iterable[FundamentalOperation]) -> list[str]:
    return [f"{row.name} [1]" for row in rows]


def _number(value: float) -> str:
    return f"{value:.12g}"
