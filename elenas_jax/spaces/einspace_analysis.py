"""What analysis of the einspace grammar needs besides the grammar: lengths, and copies written out.

Source: Ericsson et al. (2024), section 3.3. The paper counts the inner module of a branching into 4 or 8
once; the networks hold it 4 or 8 times, so what is built grows faster than what is derived.
"""

from elenas_jax.ops.fundamental import BRANCHING
from elenas_jax.spaces.grammar import Grammar, make_grammar

_NUM_BRANCHES = {row.name: row.num_branches for row in BRANCHING}
_MODULE_NAMES = ("sequential", "routing", "computation")  # name a production and are no operation


def terminal_length(symbol: str) -> int:
    """Returns 1 for the symbol of an operation, 0 for one that only names a kind of module."""
    return 0 if symbol in _MODULE_NAMES else 1


def with_copies(grammar: Grammar) -> Grammar:
    """Returns the grammar with the inner module of a branching once for each of its branches."""
    rows = []
    for row in grammar.productions:
        name, *others = row.symbols
        if name in _NUM_BRANCHES:
            modules = others[:1] * _NUM_BRANCHES[name]
            row = row._replace(symbols=(name, *modules, others[-1]))
        rows.append(row)
    return make_grammar(rows, grammar.start)
