"""Networks from typed derivations of einspace: few operations, and those compiled once that repeat.

Three things cut what has to be compiled and run. An unfolding, a linear layer and a folding are one
convolution. The copies of a shared branch are one layer with stacked weights under `vmap`. What a sequence
repeats is one layer with stacked weights under `scan`. Source of what a network is: Ericsson et al. (2024).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import jax

from elenas_jax.ops.fundamental import FundamentalOperation
from elenas_jax.ops.fundamental_shapes import Shape
from elenas_jax.spaces.einspace_convolution import multiplies_patches
from elenas_jax.spaces.einspace_heads import make_head
from elenas_jax.spaces.einspace_layers import (
    NOTHING,
    Layer,
    convolution_layer,
    initialise,
    leaf_layer,
    merge,
    merge_stacked,
    split,
    split_stacked,
)
from elenas_jax.spaces.einspace_typing import Typed
from elenas_jax.types import Array, Network, PyTree

# What a sequence does in one step: an operation, a branching, or the parts of a convolution.
Item = tuple[Typed, ...]
MIN_SAVED = 12  # operations that a scan must save: with fewer its loop takes longer to compile than they do


class Form(NamedTuple):
    """Which of the equal forms of a network is built.

    The first has the same params either way. Else copies of a shared branch, and what a sequence repeats,
    lie along the first axis of their arrays; where they are run one by one, each has params of its own.
    """

    fold_convolutions: bool = True  # False: patches are unfolded, multiplied and folded
    stack_branches: bool = True
    scan_repeats: bool = True
    stacked: bool = False  # whether it stands in a shared branch


DEFAULT = Form()


def make_network(
    typed: Typed,
    *,
    out_features: int,
    pool: Literal["published", "token_mean"] = "published",
    kind: Literal["classes", "dense"] = "classes",
    form: Form = DEFAULT,
) -> Network:
    """Returns a derivation with a head as a network.

    Params are `{"backbone": ..., "head": ...}`, the former as those of `make_backbone`.

    Args:
      typed: root of a typed derivation, or a simplified one.
      out_features: classes; the number of pixels for dense predictions.
      pool: what the head of classes averages over where the backbone ends in tokens.
      kind: "classes", or "dense" for one number for each pixel of the input: `[N, 1, H, W]`.
      form: of its parts.

    Raises:
      ValueError: if predictions are dense and the input is no image of `out_features` pixels.
    """
    before, after = typed.before.shape, typed.after.shape
    backbone = _chain(typed, form)
    head = make_head(before, after, out_features, pool, kind)

    def apply(params, state, values, train):
        values, state = backbone.apply(params["backbone"], state, values, train)
        return head.apply(params["head"], NOTHING, values, train)[0], state

    params = {"backbone": backbone.params, "head": head.params}
    return _network(Layer(params, backbone.state, apply), before)


def make_backbone(typed: Typed, form: Form = DEFAULT) -> Network:
    """Returns a derivation as a network without a head.

    Params are tuples of what runs one after another and of branches, and dicts of arrays; where a branch
    has weights, each has a place; what stands in a sequence without weights has none. The state holds the
    statistics of batch norms likewise.
    """
    return _network(_chain(typed, form), typed.before.shape)


def _network(layer: Layer, shape: Shape) -> Network:
    # Jitted, as its many small arrays would else be compiled one by one.
    @jax.jit
    def init(key: Array) -> tuple[PyTree, PyTree]:
        return initialise(key, layer.params), initialise(key, layer.state)

    def apply(
        params: PyTree, state: PyTree, inputs: Array, *, train: bool = False, key: Array | None = None
    ) -> tuple[Array, PyTree]:
        if inputs.shape[1:] != shape:
            raise ValueError(f"An input has the shape {inputs.shape[1:]}; the network takes {shape}.")
        return layer.apply(params, state, inputs, train)

    return Network(init, apply)


def _chain(typed: Typed, form: Form) -> Layer:
    """Returns a module as one layer."""
    items = list(_items(typed, form))
    parts: list[Layer] = []
    for begin, length, times in _repeats(items, form):
        part = [_item_layer(item, form) for item in items[begin : begin + length]]
        parts += part if times == 1 else [_scan(_sequence(part), times)]
    return _sequence(parts)


def _items(typed: Typed, form: Form) -> Iterator[Item]:
    """Yields what a module does, step by step."""
    leaves = list(_flatten(typed))
    while leaves:
        kinds = [leaf.op.kind if leaf.op else leaf.kind for leaf in leaves[:3]]
        is_folded = form.fold_convolutions and kinds[0] == "im2col"
        if is_folded and kinds[1:2] in (["linear"], ["relative_linear"]):
            size = 3 if kinds[2:] == ["col2im"] else 2
        else:
            size = 1
        yield tuple(leaves[:size])
        leaves = leaves[size:]


def _flatten(typed: Typed) -> Iterator[Typed]:
    """Yields the operations and branchings of a module in the order they run in."""
    if typed.kind in ("leaf", "branching"):
        if typed.name != "identity":
            yield typed
        return
    for child in typed.children:
        yield from _flatten(child)


def _item_layer(item: Item, form: Form) -> Layer:
    first = item[0]
    if first.kind == "branching":
        return _branching(first, form)
    if len(item) > 1:
        return convolution_layer(first, item[1], as_image=len(item) == 3, stacked=form.stacked)
    return leaf_layer(first, stacked=form.stacked)


def _sequence(layers: Sequence[Layer]) -> Layer:
    """Runs layers one after another; params and state have a place for each layer with weights."""

    def apply(params, state, values, train):
        each_params, each_state, states = iter(params), iter(state), []
        for layer in layers:
            own_params = next(each_params) if layer.params else NOTHING
            own_state = next(each_state) if layer.state else NOTHING
            values, own_state = layer.apply(own_params, own_state, values, train)
            states += [own_state] if layer.state else []
        return values, tuple(states)

    return Layer(
        tuple(layer.params for layer in layers if layer.params),
        tuple(layer.state for layer in layers if layer.state),
        apply,
    )


def _branching(typed: Typed, form: Form) -> Layer:
    branch, *modules, merging = typed.children
    assert branch.op is not None and merging.op is not None
    splitter, merger = branch.op, merging.op
    if typed.copies > 1 and form.stack_branches:
        return _stacked(_chain(modules[0], form._replace(stacked=True)), typed.copies, splitter, merger)
    layers = [_chain(module, form) for module in modules] * (splitter.num_branches // len(modules))
    nothing = [NOTHING] * len(layers)

    def apply(params, state, values, train):
        results, states = [], []
        parts = split(splitter, values)
        for layer, own_params, own_state, part in zip(
            layers, params or nothing, state or nothing, parts, strict=True
        ):
            result, own_state = layer.apply(own_params, own_state, part, train)
            results.append(result)
            states.append(own_state)
        return merge(merger, results), tuple(states) if state else NOTHING

    params, state = tuple(layer.params for layer in layers), tuple(layer.state for layer in layers)
    return Layer(params if any(params) else NOTHING, state if any(state) else NOTHING, apply)


def _stacked(
    inner: Layer, copies: int, splitter: FundamentalOperation, merger: FundamentalOperation
) -> Layer:
    """Runs copies of a layer at once."""
    has_weights = inner.params or inner.state

    def apply(params, state, values, train):
        parts, axis = split_stacked(splitter, values)
        if axis is None and not has_weights:  # all copies compute the same
            result, state = inner.apply(params, state, parts, train)
            return merge(merger, [result] * copies), state
        run = jax.vmap(lambda params, state, part: inner.apply(params, state, part, train), (0, 0, axis))
        results, state = run(params, state, parts)
        return merge_stacked(merger, results), state

    return Layer(_times(inner.params, copies), _times(inner.state, copies), apply)


def _scan(inner: Layer, times: int) -> Layer:
    """Runs a layer several times in a row, each time with weights of its own."""

    def apply(params, state, values, train):
        def step(values, weights):
            own_params, own_state = weights
            return inner.apply(own_params, own_state, values, train)

        return jax.lax.scan(step, values, (params, state), length=times)

    return Layer(_times(inner.params, times), _times(inner.state, times), apply)


def _times(initials: PyTree, times: int) -> PyTree:
    return jax.tree.map(lambda each: dataclasses.replace(each, shape=(times, *each.shape)), initials)


def _repeats(items: Sequence[Item], form: Form) -> Iterator[tuple[int, int, int]]:
    """Yields begin, length and times of what repeats, and of items alone as (begin, 1, 1), in order."""
    numbers: dict[Item, int] = {}
    names = [numbers.setdefault(item, len(numbers)) for item in items]
    begin = 0
    while begin < len(items):
        length, times = _best_repeat(items[begin:], names[begin:]) if form.scan_repeats else (1, 1)
        yield begin, length, times
        begin += length * times


def _best_repeat(items: Sequence[Item], names: Sequence[int]) -> tuple[int, int]:
    """Returns the length and the times of what is repeated from the first item on and saves most."""
    best, most_saved = (1, 1), MIN_SAVED - 1
    for length in range(1, len(items) // 2 + 1):
        times = 1
        while names[times * length : (times + 1) * length] == names[:length]:
            times += 1
        saved = (times - 1) * sum(_num_operations(each) for item in items[:length] for each in item)
        if saved > most_saved and not any(_convolves(each) for item in items[:length] for each in item):
            best, most_saved = (length, times), saved
    return best


def _num_operations(typed: Typed) -> int:
    return sum(map(_num_operations, typed.children)) if typed.children else 1


def _convolves(typed: Typed) -> bool:
    """Whether there is a convolution that a loop would slow down."""
    if typed.op is None:
        # Within copies there are only products.
        return typed.copies == 1 and any(map(_convolves, typed.children))
    if typed.op.kind == "conv1d":
        return not multiplies_patches(typed.op.values[:1], 1, typed.after.shape[1:], stacked=False)
    if typed.op.kind == "im2col":
        kernel, stride, _ = typed.op.values
        assert typed.after.grid is not None
        return not multiplies_patches((kernel, kernel), stride, typed.after.grid, stacked=False)
    return False
