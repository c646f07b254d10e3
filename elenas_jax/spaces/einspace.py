"""The einspace search space: networks of fundamental operations, derived from a grammar.

A candidate is a `Derivation`. It is valid if each operation fits the shapes that reach it and the network
keeps to the budgets. Source: Ericsson et al. (2024). Derivations are handled on the host; see `on_host`.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

from elenas_jax.ops.fundamental_shapes import NO_DERIVATION, NOT_AS_INFERRED, REASONS, TOO_DEEP, VALID
from elenas_jax.spaces.einspace_canonical import network_text, simplify
from elenas_jax.spaces.einspace_drawing import draw_derivation, draw_tree
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_growth import make_valid_rules
from elenas_jax.spaces.einspace_listing import describe_derivation
from elenas_jax.spaces.einspace_network import make_network
from elenas_jax.spaces.einspace_options import make_options
from elenas_jax.spaces.einspace_sampling import Budget, Drawn, draw, over_budget
from elenas_jax.spaces.einspace_seeds import SEEDS, make_seed
from elenas_jax.spaces.einspace_statistics import runs_as_inferred, too_deep
from elenas_jax.spaces.einspace_typing import Typed, TypingError, infer, state_of
from elenas_jax.spaces.einspace_variation import compat_mutate, crossover, mutate
from elenas_jax.spaces.grammar import Derivation, Grammar, Node, flatten, to_derivation, to_tree
from elenas_jax.spaces.grammar_growth import make_grammar_growth, tree_graph
from elenas_jax.spaces.grammar_terms import from_json, to_json
from elenas_jax.spaces.on_host import jittable, jittable_draw
from elenas_jax.types import DataTask, Network, SearchSpace, Task

_MOST_WITHOUT_DEPTH = 512  # nodes; draws of 2,000 go deeper than Python recurs


def make_einspace(
    *,
    computation_probability: float = 0.32,
    rules: Literal["strict", "compat"] = "strict",
    max_nodes: int = 512,
    max_parameters: int = 50_000_000,
    max_activations: int = 32_000_000,
    max_depth: int = 100,
    max_draws: int = 1000,
    seeds: tuple[str, ...] = (),
    head_pool: Literal["published", "token_mean"] = "published",
    prediction: Literal["auto", "classes", "dense"] = "auto",
    in_shape: tuple[int, ...] = (3, 64, 64),
    out_features: int = 10,
) -> SearchSpace:
    """Builds the space.

    Args:
      computation_probability: of a module that is one leaf operation.
      rules: "strict" is what the paper says, "compat" what the public code does.
      max_nodes: most rules of a derivation; what copies share counts once.
      max_parameters: of a network without its head, copies counted; 0 is no limit.
      max_activations: numbers that a network holds for one example, copies counted; 0 is no limit.
      max_depth: modules around a module at most; 0 is no limit, for at most 512 nodes: with thousands a
        draw goes deeper than Python recurs.
      max_draws: most tries to draw, mutate or cross within the budgets.
      seeds: names of published architectures that a search may start from, see `einspace_seeds`.
      head_pool: what the head averages over where the output is tokens: "published" averages features,
        "token_mean" tokens.
      prediction: "classes" for one output a class (or number); "dense" for one number for each pixel; "auto"
        is dense for images with as many outputs as pixels.
      in_shape: of a network's input, without the examples: (C, H, W), or (C, L) for sequences.
      out_features: of the head.

    Raises:
      ValueError: if a setting is out of range, or a seed does not fit.
    """
    shape = tuple(int(side) for side in in_shape)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"in_shape is {shape}; it must be (C, H, W) or (C, L), all of them positive.")
    if max_nodes < 5:
        raise ValueError(
            f"max_nodes is {max_nodes}; it must be at least 5, the size of the smallest network."
        )
    fits_dense = len(shape) == 3 and shape[1] * shape[2] == out_features
    if prediction == "dense" and not fits_dense:
        raise ValueError(
            f"prediction is 'dense': one number for each pixel of {shape}, but the task has {out_features}."
        )
    kind: Literal["classes", "dense"] = "dense" if fits_dense else "classes"
    if prediction != "auto":
        kind = prediction
    limits = {"max_parameters": max_parameters, "max_activations": max_activations, "max_depth": max_depth}
    for name, limit in limits.items():
        if limit < 0:
            raise ValueError(f"{name} is {limit}; it must be positive, or 0 for no limit.")
    if not max_depth and max_nodes > _MOST_WITHOUT_DEPTH:
        raise ValueError(
            f"max_depth is 0 (no limit) and max_nodes {max_nodes}; without a limit of depth at most "
            f"{_MOST_WITHOUT_DEPTH} nodes are allowed."
        )
    if max_draws < 1:
        raise ValueError(f"max_draws is {max_draws}; it must be at least 1.")
    grammar = make_einspace_grammar(computation_probability, len(shape))
    options = make_options(grammar, rules)
    state = state_of(shape)
    budget = Budget(max_nodes, max_parameters, max_activations, max_depth)
    nothing = Derivation(np.zeros(max_nodes, np.int16))
    compat = rules == "compat"

    def typed(node: Node) -> Typed:
        return infer(node, state, rules=rules, grammar=grammar)

    def find_status(node: Node) -> int:
        try:
            found = typed(node)
        except TypingError as error:
            return error.reason
        if too_deep(found, max_depth):
            return TOO_DEEP
        reason = over_budget(found, budget)
        return reason or (VALID if not compat or runs_as_inferred(found) else NOT_AS_INFERRED)

    def status(candidate: Derivation) -> np.int32:
        try:
            return np.int32(find_status(to_tree(grammar, candidate)))
        except ValueError:
            return np.int32(NO_DERIVATION)

    def read(candidate: Derivation) -> Drawn | None:
        """Returns a candidate with its types, or None if it is no network."""
        try:
            node = to_tree(grammar, candidate)
            return Drawn(node, typed(node))
        except ValueError:
            return None

    def written(drawn: Drawn) -> Derivation:
        return to_derivation(drawn.node, max_nodes)

    def draw_one(rng: np.random.Generator) -> Drawn:
        return draw(rng, options, state, budget=budget, compat=compat, max_draws=max_draws)

    def change(rng: np.random.Generator, drawn: Drawn) -> Drawn:
        change_fn = compat_mutate if compat else mutate
        return change_fn(rng, grammar, options, drawn, budget=budget, max_draws=max_draws)

    def mutate_one(rng: np.random.Generator, candidate: Derivation) -> Derivation:
        # What is no network has no slots to draw anew.
        drawn = read(candidate)
        return written(draw_one(rng) if drawn is None else change(rng, drawn))

    def cross_two(rng: np.random.Generator, candidate: Derivation, other: Derivation) -> Derivation:
        parent, giver = read(candidate), read(other)
        if parent is None or giver is None:
            return candidate
        return written(crossover(rng, grammar, parent, giver, budget=budget, max_draws=max_draws))

    starts = [_seed_candidate(name, grammar, find_status, max_nodes) for name in seeds]
    known_nodes = _known(grammar, find_status, max_nodes)

    def known(rng: np.random.Generator) -> Derivation:
        if not known_nodes:
            raise ValueError(f"None of the published architectures fits an input of {shape} and the budgets.")
        node = known_nodes[int(rng.integers(len(known_nodes)))]
        drawn = Drawn(node, typed(node))
        return written(change(rng, drawn) if rng.integers(2) else drawn)

    def build(candidate: Derivation, task: Task | DataTask) -> Network:
        if tuple(task.in_shape) != shape or task.out_features != out_features:
            raise ValueError(
                f"The space is of inputs {shape} and {out_features} outputs; the task {task.name!r} has "
                f"{tuple(task.in_shape)} and {task.out_features}."
            )
        # The representative is what is trained: equal canonical form, equal bits.
        network = simplify(typed(to_tree(grammar, candidate)))
        return make_network(network, out_features=out_features, pool=head_pool, kind=kind)

    def canonical(candidate: Derivation) -> bytes:
        drawn = read(candidate)
        if drawn is None:  # as their reason
            return REASONS[int(status(candidate))].encode()
        return network_text(simplify(drawn.typed)).encode()

    def describe(candidate: Derivation) -> str:
        drawn = read(candidate)
        return f"y = {REASONS[int(status(candidate))]}" if drawn is None else describe_derivation(drawn.typed)

    def drawing(candidate: Derivation) -> dict[str, Any]:
        derived = typed(to_tree(grammar, candidate))
        return draw_derivation(derived) | {"tree": draw_tree(derived)}

    growth = make_grammar_growth(
        grammar,
        max_rules=max_nodes,
        valid_rules=make_valid_rules(
            grammar, options, state, max_rules=max_nodes, rules=rules, max_depth=max_depth
        ),
    )
    # Published architectures have leaves where a policy may not put them.
    unchecked_growth = make_grammar_growth(grammar, max_rules=max_nodes)
    return SearchSpace(
        name="einspace",
        reasons=REASONS,
        sample=jittable_draw(lambda rng: written(draw_one(rng)), nothing),
        mutate=jittable_draw(mutate_one, nothing),
        crossover=jittable_draw(cross_two, nothing),
        status=jittable(status, np.int32(0)),
        canonical=canonical,
        to_graph=lambda candidate: tree_graph(unchecked_growth, candidate),
        build=build,
        describe=describe,
        drawing=drawing,
        to_json=lambda candidate: to_json(grammar, candidate),
        from_json=lambda data: from_json(grammar, data, max_nodes),
        known=jittable_draw(known, nothing),
        starts=jax.tree.map(lambda *leaves: np.stack(leaves), *starts) if starts else None,
        growth=growth,
    )


def _seed_candidate(
    name: str, grammar: Grammar, find_status: Callable[[Node], int], max_nodes: int
) -> Derivation:
    node = make_seed(name, grammar)
    if len(flatten(node)) > max_nodes:
        raise ValueError(f"The seed {name!r} has {len(flatten(node))} nodes; max_nodes is {max_nodes}.")
    reason = find_status(node)
    if reason != VALID:
        raise ValueError(f"The seed {name!r} does not fit these inputs and budgets: {REASONS[reason]}.")
    return to_derivation(node, max_nodes)


def _known(grammar: Grammar, find_status: Callable[[Node], int], max_nodes: int) -> list[Node]:
    """Returns the published architectures that a search could draw itself and that fit."""
    found = []
    for name in SEEDS:
        try:
            node = make_seed(name, grammar, wrapped=True)
        except ValueError:
            continue
        is_drawn = all(grammar.productions[rule].weight for rule in flatten(node))
        if is_drawn and len(flatten(node)) <= max_nodes and find_status(node) == VALID:
            found.append(node)
    return found
