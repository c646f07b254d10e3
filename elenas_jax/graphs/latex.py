r"""Networks as LaTeX: the equations of `export.equations` for a paper.

A product of matrices is written without a sign, `\odot` is elementwise, and `h^{(t-1)}` is the
value of the previous step. Lines that are too long for a page go on below, with `\quad`.
"""

import re
import textwrap

from elenas_jax.graphs.computation import ComputationGraph
from elenas_jax.graphs.statements import ATOM, SUM, Form, Notation, Text, Writer, call, read
from elenas_jax.ops import Combining, Transforming

_OPERATORS = {"@": " ", "*": r" \odot "}
_FUNCTIONS = {"sigmoid": r"\sigma", "tanh": r"\tanh", "max": r"\max"}
_SPELLINGS = {"relu": "ReLU", "gelu": "GELU"}  # of functions that have no command
# Transforms that are not written as a function. A square is elementwise, so no power of a matrix.
_FORMS = {
    "transpose": Form(r"{x}^{{\top}}", encloses=False),
    "one_minus": Form("1 - {x}", SUM, encloses=False),
    "negate": Form("-{x}", SUM, encloses=False),
    "square": Form(r"{x}^{{\odot 2}}", encloses=False),
}
_SIGNS = (" + ", " - ", r" \odot ")
_ROOM = 80  # characters of a line as they are seen, about what an A4 page holds


def _function(row: Combining | Transforming) -> str:
    spelling = _SPELLINGS.get(row.symbol, row.symbol.replace("_", "-"))
    return _FUNCTIONS.get(row.symbol, rf"\operatorname{{{spelling}}}")


_LATEX = Notation(
    operator=lambda symbol: _OPERATORS.get(symbol, f" {symbol} "),
    combine=lambda row: call(_function(row), "x", "y"),
    transform=lambda row: _FORMS.get(row.name) or call(_function(row), "x"),
    delayed=lambda name, steps: f"{name}^{{(t-{steps})}}",
)


def latex(graph: ComputationGraph, head: str = "linear") -> str:
    r"""Writes a network as the body of an `align` or `aligned` environment of amsmath.

    Names are those of `equations`, as `h_1`, `W_2` and `b_3`.

    Args:
      graph: of a network.
      head: as in `construct`; it is not written, but without one the final node has no activation.

    Returns:
      Lines such as `y &= \tanh(x W_1 + y^{(t-1)} W_2 + b_1)`, joined by `\\`.

    Raises:
      ValueError: for a graph that is no network, with the reason.
    """
    reading = read(graph, head)
    writer = _LatexWriter(reading, _LATEX)
    lines = []
    for node in reading.named:
        text = writer.expression(node).text
        lines += _broken(f"{writer.name(node)} &= {text}")
    return " \\\\\n".join(lines)


def latex_document(graph: ComputationGraph, head: str = "linear", title: str = "") -> str:
    """Writes a document, to be compiled as it is, with the equations and what their letters mean.

    Args:
      graph, head: as in `latex`.
      title: plain text; may be empty.

    Raises:
      ValueError: as `latex`.
    """
    recurrent = read(graph, head).recurrent
    about = "$x$ is the input, $y$ the result; $W$ and $b$ are parameters; $\\odot$ is elementwise."
    if recurrent:
        about += " Values at $t-k$ are those of $k$ time steps before, zero at the start."
    else:
        about += " Rows of $x$ are time steps."
    if head == "linear":
        about += " Outputs are a dense layer of $y$."
    return "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage{amsmath}",
            r"\allowdisplaybreaks",
            r"\pagestyle{empty}",
            r"\begin{document}",
            *([rf"\section*{{{_escaped(title)}}}"] if title else []),
            r"\begin{align*}",
            latex(graph, head),
            r"\end{align*}",
            *textwrap.wrap(about, 100),
            r"\end{document}",
            "",
        ]
    )


class _LatexWriter(Writer):
    """Writes names with subscripts, and sees to it that nothing has two superscripts."""

    def name(self, node: int) -> str:
        name = super().name(node)
        letter = name.rstrip("0123456789")
        number = name.removeprefix(letter)
        if not number:
            return letter
        return f"{letter}_{number}" if len(number) == 1 else f"{letter}_{{{number}}}"

    def transform(self, row: Transforming, text: Text) -> Text:
        has_superscript = re.search(r"\^\{[^{}]*\}$", text.text)
        if has_superscript and text.level == ATOM and "^" in self.notation.transform(row).text:
            text = Text(f"{{{text.text}}}")
        return super().transform(row, text)


def _broken(line: str) -> list[str]:
    """Breaks an equation before signs, outside braces, into lines that fit a page."""
    parts, depth = [""], 0
    for piece in re.split(r"( (?:[+-]|\\odot) |[{}])", line):
        depth += (piece == "{") - (piece == "}")
        if depth == 0 and piece in _SIGNS:
            parts.append(piece)
        else:
            parts[-1] += piece
    lines = [parts[0]]
    for part in parts[1:]:
        if _seen(lines[-1] + part) > _ROOM:
            lines.append(r"&\quad {}" + part)
        else:
            lines[-1] += part
    return lines


def _seen(text: str) -> int:
    """Returns about how many letters wide a text is once it is set."""
    text = re.sub(r"\\operatorname|[{}_^&]", "", text)
    return len(re.sub(r"\\(odot|top|sigma|quad)", "o", text).replace("\\", ""))


def _escaped(text: str) -> str:
    """Writes plain text so that LaTeX prints it as it is, with a space for what cannot be printed."""
    text = "".join(sign if sign.isprintable() else " " for sign in text)
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(sign, f"\\{sign}" if sign in "&%$#_{}" else sign) for sign in text)
