"""An einspace architecture as text: an operation a line with its shape and parameters, then one line of all.

The network is the simplified one, as in drawings. Branches are indented between the operations that make and
merge them; "4x" stands before what 4 copies do, each with parameters of its own.
"""

from collections.abc import Iterator
from typing import NamedTuple

from elenas_jax.ops.fundamental_shapes import Shape
from elenas_jax.spaces.einspace_canonical import network_text, simplify
from elenas_jax.spaces.einspace_drawing import convolution_label, shape_text
from elenas_jax.spaces.einspace_statistics import size_of
from elenas_jax.spaces.einspace_typing import Typed


class _Line(NamedTuple):
    words: str
    shape: Shape
    parameters: int  # copies counted


def describe_derivation(typed: Typed) -> str:
    """Returns the listing of a network, its sizes, and all of it in one line, "y = x > norm > softmax"."""
    size = size_of(typed)
    return (
        f"{network_listing(typed)}\n{typed.parameters:,} parameters; {size.terminals:,} operations in "
        f"{size.nonterminals:,} modules, depth {size.depth}\n{one_line(typed)}"
    )


def one_line(typed: Typed) -> str:
    """Returns the network that a derivation stands for as one line."""
    return f"y = x > {network_text(simplify(typed))}"


def network_listing(typed: Typed) -> str:
    """Returns the network that a derivation stands for, a line for each operation, in columns."""
    network = simplify(typed)
    lines = [_Line("x", network.before.shape, 0), *_lines(network, 1)]
    shapes = [shape_text(line.shape) for line in lines]
    numbers = [f"{line.parameters:,}" if line.parameters else "" for line in lines]
    widths = [max(map(len, column)) for column in ([line.words for line in lines], shapes, numbers)]
    return "\n".join(
        f"{line.words:{widths[0]}}  {shape:>{widths[1]}}  {number:>{widths[2]}}".rstrip()
        for line, shape, number in zip(lines, shapes, numbers)
    )


def _lines(typed: Typed, copies: int) -> Iterator[_Line]:
    if typed.kind == "sequential":
        for child in typed.children:
            yield from _lines(child, copies)
        return
    if typed.kind == "branching":
        branch, *inner, merge = typed.children
        yield from _lines(branch, copies)
        for module in inner:
            mark = f"{typed.copies}x " if typed.copies > 1 else "- "
            for line in _lines(module, copies * typed.copies):
                yield line._replace(words=mark + line.words)
                mark = " " * len(mark)
        yield from _lines(merge, copies)
        return
    label = typed.name if typed.op else convolution_label(typed)
    yield _Line(label, typed.after.shape, copies * typed.parameters)
