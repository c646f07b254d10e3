"""The network that an einspace derivation stands for, without what does not change it.

Many derivations compute the same: sequences can be grouped in many ways, and identities can stand anywhere.
`simplify` brings them to one typed tree, from which networks are built: sequences are flattened and
grouped anew in halves, modules of one leaf become that leaf, identities and what undoes itself vanish, the
two branches of a sum are ordered, and an unfolding, a linear layer and a folding become a convolution
wherever they meet.
"""

from elenas_jax.ops.fundamental import FUNDAMENTAL_BY_NAME
from elenas_jax.ops.fundamental_shapes import Shape
from elenas_jax.spaces.einspace_typing import State, Typed, branching, leaf, routing, sequential, state_of


def simplify(typed: Typed) -> Typed:
    """Returns the tree of the same network that all derivations of it share.

    Leaves stand in the places of modules. Only convolutions are routings; a network of nothing is a leaf,
    the identity.
    """
    return _join(_items(typed), typed.before)


def network_text(typed: Typed) -> str:
    """Returns a simplified network as one line: "im2col(3,1,1) > linear(64) > col2im(32,32) > norm"."""
    if typed.kind == "leaf":
        grid = typed.before.grid
        return typed.name if typed.name != "col2im" or grid is None else f"col2im({grid[0]},{grid[1]})"
    if typed.kind == "branching":
        branch, *inner, merge = typed.children
        return f"{branch.name}{{{' | '.join(map(network_text, inner))}}}{merge.name}"
    return " > ".join(map(network_text, typed.children))


def _items(typed: Typed) -> list[Typed]:
    """Returns what a module does one after another: leaves, branchings and convolutions."""
    if typed.kind == "leaf":
        return [] if typed.name == "identity" else [_without_grid(typed)]
    if typed.kind == "branching":
        return _branching_items(typed)
    items: list[Typed] = []
    for child in typed.children:
        for item in _items(child):
            _append(items, item)
    return items


def _without_grid(leaf: Typed) -> Typed:
    """Forgets where patches came from, but for what folds them: equal networks have equal leaves."""
    return leaf if leaf.name == "col2im" else leaf._replace(before=state_of(leaf.before.shape))


def _branching_items(typed: Typed) -> list[Typed]:
    branch, *inner, merge = typed.children
    branch, merge = _without_grid(branch), _without_grid(merge)
    assert branch.op is not None and merge.op is not None
    inner_items = [_items(module) for module in inner]
    is_split = branch.op.kind == "group" and merge.op.kind == "concat" and branch.op.values == merge.op.values
    if is_split and not any(inner_items):
        return []
    modules = [_join(items, branch.after) for items in inner_items]
    if branch.name == "clone(2)" and merge.name == "add":
        modules.sort(key=network_text)
    return [branching((branch, *modules, merge))]


def _append(items: list[Typed], item: Typed) -> None:
    """Appends to a sequence, taking it together with what stands at its end."""
    assert item.kind in ("leaf", "branching", "routing")
    kinds = [each.op.kind if each.op else each.kind for each in (*items[-2:], item)]
    if kinds[-2:] == ["permute", "permute"]:
        first = items.pop()
        composed = _compose(first, item)
        if composed is not None:
            _append(items, composed)
    elif kinds[-2:] == ["im2col", "col2im"] and items[-1].name == "im2col(1,1,0)":
        items.pop()
    elif kinds in (["im2col", "linear", "col2im"], ["im2col", "relative_linear", "col2im"]):
        linear, unfolding = items.pop(), items.pop()
        items.append(routing(unfolding, linear, item))
    else:
        items.append(item)


def _compose(first: Typed, second: Typed) -> Typed | None:
    """Returns the permutation that two make one after the other, or None if they make none."""
    assert first.op is not None and second.op is not None
    order: Shape = tuple(first.op.values[axis - 1] for axis in second.op.values)
    if order == tuple(sorted(order)):
        return None
    return leaf(FUNDAMENTAL_BY_NAME[f"permute({','.join(map(str, order))})"], first.before)


def _join(items: list[Typed], before: State) -> Typed:
    """Groups a sequence in halves."""
    if not items:
        return leaf(FUNDAMENTAL_BY_NAME["identity"], state_of(before.shape))
    if len(items) == 1:
        return items[0]
    middle = (len(items) + 1) // 2
    return sequential(_join(items[:middle], before), _join(items[middle:], items[middle].before))
