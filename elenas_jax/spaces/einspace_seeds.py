"""The architectures published with einspace that a search may start from, as derivations.

Source: structures of the code published with Ericsson et al. (2024). A term is written as nested tuples of
names: ("sequential", first, second), ("clone(2)", left, right, "add"), ("routing", "im2col(3,1,1)", inner,
"col2im"); a leaf operation alone is a computation module, and a `Bare` one stands in a module's place.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from elenas_jax.spaces.einspace_grammar import module_kind
from elenas_jax.spaces.grammar import Grammar, Node

Term = Any  # a name, a Bare name, or a tuple of a name and terms


class Bare(NamedTuple):
    """A leaf operation without a computation module around it; a search never draws one."""

    name: str


def chain(*terms: Term) -> Term:
    """Returns terms one after another, grouped from the left."""
    first, *rest = terms
    for term in rest:
        first = ("sequential", first, term)
    return first


def halves(*terms: Term) -> Term:
    """Returns terms one after another, grouped as a balanced tree; the first half is the longer one."""
    if len(terms) == 1:
        return terms[0]
    middle = (len(terms) + 1) // 2
    return ("sequential", halves(*terms[:middle]), halves(*terms[middle:]))


def convolution(kernel: int, stride: int, width: int) -> Term:
    padding = (kernel - 1) // 2
    return ("routing", f"im2col({kernel},{stride},{padding})", f"linear({width})", "col2im")


def residual(inner: Term, shortcut: Term = "identity") -> Term:
    return ("clone(2)", inner, shortcut, "add")


_NORM, _ACT = Bare("norm"), Bare("leaky_relu")
_NORM_ACT = ("sequential", "norm", "leaky_relu")


def resnet_block(width: int, stride: int = 1) -> Term:
    """Two 3x3 convolutions around a shortcut; a strided one has a convolution as its shortcut."""
    inner = (
        "sequential",
        chain(convolution(3, stride, width), "norm", "leaky_relu"),
        ("sequential", convolution(3, 1, width), "norm"),
    )
    shortcut = "identity" if stride == 1 else ("sequential", convolution(1, stride, width), "norm")
    return ("sequential", residual(inner, shortcut), "leaky_relu")


def resnet_stem(kernel: int, stride: int, end: Term) -> Term:
    return chain(convolution(kernel, stride, 64), _NORM, _ACT, end)


def resnet_stage(width: int) -> Term:
    """A strided block and another one."""
    return ("sequential", resnet_block(width, 2), resnet_block(width))


_POOLED_STEM = resnet_stem(3, 1, Bare("max_pool(3,2,1)"))
_FIRST_STAGE = ("sequential", resnet_block(64), resnet_block(64))


def _resnet18(stem: Term) -> Term:
    front = ("sequential", stem, ("sequential", _FIRST_STAGE, resnet_stage(128)))
    return ("sequential", front, ("sequential", resnet_stage(256), resnet_stage(512)))


def _resnet34() -> Term:
    third = chain(resnet_stage(256), ("sequential", resnet_block(256), resnet_block(256)))
    third = ("sequential", third, ("sequential", resnet_block(256), resnet_block(256)))
    second = ("sequential", resnet_stage(128), ("sequential", resnet_block(128), resnet_block(128)))
    first = chain(resnet_block(64), resnet_block(64), resnet_block(64))
    fourth = ("sequential", resnet_stage(512), resnet_block(512))
    stem = resnet_stem(7, 2, convolution(3, 2, 64))
    return ("sequential", ("sequential", stem, ("sequential", first, second)), ("sequential", third, fourth))


def wide_block(width: int, stride: int = 1, widens: bool = False) -> Term:
    """Two 3x3 convolutions around a shortcut, normalised and activated between and behind."""
    inner = ("sequential", ("sequential", convolution(3, stride, width), _NORM_ACT), convolution(3, 1, width))
    shortcut = convolution(1, stride, width) if widens else "identity"
    return ("sequential", residual(inner, shortcut), _NORM_ACT)


def _wide_stage(width: int, stride: int) -> Term:
    return ("sequential", wide_block(width, stride, widens=True), wide_block(width))


def _wide_resnet16_4() -> Term:
    stem = chain(convolution(3, 1, 16), _NORM, _ACT)
    front = ("sequential", _wide_stage(64, 1), _wide_stage(128, 2))
    return ("sequential", stem, ("sequential", front, _wide_stage(256, 2)))


def attention_head() -> Term:
    """Scaled dot-product attention of width 64."""
    keys = ("routing", "identity", "linear(64)", "permute(2,1)")
    weights = ("sequential", ("clone(2)", "linear(64)", keys, "scaled_matmul"), "softmax")
    return ("clone(2)", weights, "linear(64)", "matmul")


def transformer_layer() -> Term:
    """Four attention heads, a feed-forward part, both with a shortcut and a norm behind."""
    heads = ("sequential", ("clone(4)", attention_head(), "concat(2,4)"), "linear(512)")
    feed_forward = chain("linear(512)", "leaky_relu", Bare("linear(512)"))
    return (
        "sequential",
        ("sequential", residual(heads), _NORM),
        ("sequential", residual(feed_forward), _NORM),
    )


def mixer_layer() -> Term:
    """Mixing of tokens, then of features, with one norm and one shortcut."""
    tokens = chain(
        ("routing", "permute(2,1)", "linear(x4)", "identity"),
        "leaky_relu",
        ("routing", "identity", "linear(/4)", "permute(2,1)"),
    )
    features = chain("linear(256)", "leaky_relu", "linear(512)")
    return residual(("sequential", "norm", ("sequential", tokens, features)))


def _on_patches(layer: Callable[[], Term], num_layers: int) -> Term:
    patches = ("routing", "im2col(4,4,0)", "linear(512)", "identity")
    layers = halves(*(layer() for _ in range(num_layers)))
    return ("sequential", ("sequential", patches, "positional_encoding"), layers)


SEEDS: dict[str, Callable[[], Term]] = {
    "resnet18_no_maxpool": lambda: _resnet18(resnet_stem(3, 1, convolution(3, 2, 64))),
    "wideresnet16_4": _wide_resnet16_4,
    "transformer": lambda: _on_patches(transformer_layer, 4),
    "mlp_mixer": lambda: _on_patches(mixer_layer, 8),
    "resnet18": lambda: _resnet18(_POOLED_STEM),
    "resnet10": lambda: ("sequential", _POOLED_STEM, ("sequential", _FIRST_STAGE, resnet_stage(128))),
    "resnet34_no_maxpool": _resnet34,
    "transformer_layer": transformer_layer,
    "attention_head": attention_head,
    "resnet_block": lambda: resnet_block(64),
}
# Those that the paper starts its mixed searches from.
MIXED_SEEDS = ("resnet18_no_maxpool", "wideresnet16_4", "transformer", "mlp_mixer")


def make_seed(name: str, grammar: Grammar, wrapped: bool = False) -> Node:
    """Returns a seed as a derivation of a grammar.

    Args:
      name: one of `SEEDS`.
      grammar: of einspace.
      wrapped: whether bare leaves get computation modules around them, where the grammar has such.

    Raises:
      ValueError: if there is no seed of this name, or the grammar lacks something that it is made of.
    """
    if name not in SEEDS:
        raise ValueError(f"There is no seed {name!r}; there are {', '.join(SEEDS)}.")
    try:
        return to_node(grammar, SEEDS[name](), "S", wrapped)
    except KeyError as error:
        raise ValueError(
            f"The seed {name!r} needs {error}, which the grammar for these inputs lacks."
        ) from None


def to_node(grammar: Grammar, term: Term, head: str = "S", wrapped: bool = False) -> Node:
    """Returns a term as a derivation from `head`; raises KeyError for what the grammar lacks."""
    rules = {
        (production.head, production.symbols[0]): rule for rule, production in enumerate(grammar.productions)
    }
    return _node(rules, term, head, wrapped)


def _node(rules: dict[tuple[str, str], int], term: Term, head: str, wrapped: bool) -> Node:
    if isinstance(term, Bare):
        if wrapped and ("C", term.name) in rules:
            return _node(rules, term.name, head, wrapped)
        return Node(_rule(rules, head, term.name), ())
    if isinstance(term, str):
        if head not in "SM":
            return Node(_rule(rules, head, term), ())
        return Node(_rule(rules, head, "computation"), (Node(_rule(rules, "C", term), ()),))
    name, *parts = term
    heads = {"sequential": "MM", "routing": "PMR"}.get(name, "M" * (len(parts) - 1) + "A")
    assert module_kind(name) != "leaf", name
    children = tuple(_node(rules, part, each, wrapped) for part, each in zip(parts, heads, strict=True))
    return Node(_rule(rules, head, name), children)


def _rule(rules: dict[tuple[str, str], int], head: str, name: str) -> int:
    if (head, name) not in rules:
        raise KeyError(f"{head} -> {name}")
    return rules[head, name]
