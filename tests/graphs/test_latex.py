"""Equations as LaTeX: golden texts, the same equations as in plain text, and a renderer that takes them."""

import re

import pytest
from matplotlib.mathtext import MathTextParser

from elenas_jax.graphs import KNOWN_BLOCKS, ComputationGraph, equations, from_edges
from elenas_jax.graphs.latex import latex, latex_document
from elenas_jax.ops import COMBINING, TRANSFORMING
from tests.graphs.random_graphs import Widths, draw

LATEX = {
    "lstm": r"""
        h_1 &= \sigma(x W_1 + y^{(t-1)} W_2 + b_1) \\
        h_2 &= \sigma(x W_3 + y^{(t-1)} W_4 + b_2) \\
        h_3 &= \tanh(x W_5 + y^{(t-1)} W_6 + b_3) \\
        h_4 &= \sigma(x W_7 + y^{(t-1)} W_8 + b_4) \\
        h_5 &= h_1 \odot h_3 + h_5^{(t-1)} \odot h_2 \\
        y &= h_4 \odot \tanh(h_5)""",
    "gru": r"""
        h_1 &= \sigma(x W_1 + y^{(t-1)} W_2 + b_1) \\
        h_2 &= \sigma(x W_3 + y^{(t-1)} W_4 + b_2) \\
        h_3 &= \tanh(x W_5 + b_3 + h_1 \odot (y^{(t-1)} W_6 + b_4)) \\
        y &= h_3 \odot (1 - h_2) + y^{(t-1)} \odot h_2""",
    "elena2": r"""
        h &= \tanh(x W_1 + h^{(t-1)} + b_1 + b_2) \\
        y &= (x W_2) \odot h + y^{(t-1)} + b_2""",
    "softmax_attention": r"""
        h &= \operatorname{softmax}(x W_1 (x W_2)^{\top}) \\
        y &= h (x W_3)""",
}

# edges of 9 nodes, LaTeX
BY_HAND = {
    "the transpose of an earlier value": (
        "0 2 recursion, 2 2 transpose, 0 4 matmul, 2 4 matmul, 4 6 matmul, 1 6 matmul",
        r"y &= x {x^{(t-1)}}^{\top} W_1",
    ),
    "a square and a transpose of it": (
        "0 2 matmul, 1 2 matmul, 2 4 add, 4 4 square, 4 6 add, 6 6 transpose, 0 8 matmul, 6 8 matmul",
        r"y &= x {(x W_1)^{\odot 2}}^{\top}",
    ),
    "a sum that ends with an earlier value, transposed": (
        "0 2 matmul, 1 2 matmul, 0 4 recursion, 2 4 add, 4 4 transpose, 0 6 matmul, 4 6 matmul",
        r"y &= x (x W_1 + x^{(t-1)})^{\top}",
    ),
    "signs": (
        "0 2 matmul, 1 2 matmul, 2 4 subtract, 4 4 negate, 3 6 subtract, 4 6 max, 6 8 add, 8 8 one_minus",
        r"y &= 1 - \max(-b_1, -(-(x W_1)))",
    ),
}


def graph_of(num_nodes, text):
    edges = (edge.split() for edge in text.split(", "))
    return from_edges(num_nodes, [(int(source), int(target), name) for source, target, name in edges])


def lines_of(text):
    return text.split(" \\\\\n")


def as_plain_text(text):
    """Turns LaTeX into what `equations` writes."""
    text = text.replace(" \\\\\n&\\quad {}", "").replace(" \\\\\n", "\n")
    text = re.sub(r"\\operatorname\{([\w-]+)\}", lambda found: found[1].lower().replace("-", "_"), text)
    for name, plain in {"sigma": "sigmoid", "tanh": "tanh", "max": "max", "odot": "*", "top": "T"}.items():
        text = text.replace(f"\\{name}", plain)
    text = text.replace("^{* 2}", "^2").replace("^{T}", "^T").replace("&=", "=")
    text = re.sub(r"\^\{(\(t-\d+\))\}", r"\1", text)
    return re.sub(r"_\{?(\d+)\}?", r"\1", text).replace("{", "").replace("}", "")


def check(graph, head="linear"):
    """The same equations as in plain text, in lines that a renderer takes."""
    text = latex(graph, head)
    assert as_plain_text(text) == equations(graph, head)
    parser = MathTextParser("path")
    for line in lines_of(text):
        assert line.count("{") == line.count("}") and line.count("&") == 1
        parser.parse(f"${line.replace('&', '')}$")
    return text


@pytest.mark.parametrize("name", LATEX)
def test_known_blocks_by_hand(name):
    assert lines_of(latex(KNOWN_BLOCKS[name])) == [
        line.strip().removesuffix(" \\\\") for line in LATEX[name].strip().splitlines()
    ]


@pytest.mark.parametrize("name", BY_HAND)
def test_blocks_by_hand(name):
    edges, expected = BY_HAND[name]
    assert check(graph_of(9, edges)) == expected


@pytest.mark.parametrize("name", KNOWN_BLOCKS)
def test_known_blocks_are_those_of_plain_text(name):
    check(KNOWN_BLOCKS[name])


def test_without_a_head_the_final_activation_is_gone():
    assert check(KNOWN_BLOCKS["elman"], "none") == r"y &= x W_1 + y^{(t-1)} W_2 + b_1"


def test_random_graphs_are_those_of_plain_text():
    texts = [
        check(ComputationGraph(found.edges))
        for found in draw(13, 40, 0, 14, Widths(4, 4, 4, "linear", 4), True)
    ]
    together = " ".join(texts)
    signs = (r"\sigma", r"\max", r"\top", r"\odot 2", "softmax", "layer-norm", "mean-rows", "GELU")
    assert [sign for sign in signs if sign not in together] == []


@pytest.mark.parametrize("row", [*COMBINING[1:], *TRANSFORMING], ids=lambda row: row.name)
def test_every_operation_is_written(row):
    if row in COMBINING:
        edge = f"0 2 add, 1 2 add, 2 4 {row.name}, 3 4 {'add' if row.delayed else row.name}"
    else:
        edge = f"0 2 matmul, 1 2 matmul, 2 2 {row.name}, 2 4 add, 4 4 tanh"
    check(graph_of(5, edge))


def test_long_equations_go_on_below():
    edges = [(0, 2, "matmul"), *((node, 2, "matmul") for node in (1, 3)), (2, 2, "tanh")]
    edges += [(node, 2, "hadamard") for node in range(5, 15, 2)]
    edges += [(node, 2, "add") for node in range(15, 61, 2)]
    text = check(from_edges(63, edges))
    lines = lines_of(text)
    assert len(lines) > 2 and lines[0].startswith(r"y &= \tanh((x W_1 W_2) \odot b_1")
    assert all(re.match(r"&\\quad \{\} (\+|\\odot) b_", line) for line in lines[1:])
    assert lines[-1][-1] == ")" and max(len(as_plain_text(line)) for line in lines) <= 90


def test_documents_say_what_letters_mean():
    recurrent = latex_document(KNOWN_BLOCKS["elena2"], "linear", r"my_block 50% {a} \x")
    assert r"\section*{my\_block 50\% \{a\} \textbackslash{}x}" in recurrent
    assert "time steps before" in recurrent and "dense layer" in recurrent
    begin, end = (rf"\{word}{{align*}}" for word in ("begin", "end"))
    assert recurrent.split(begin)[1].split(end)[0].strip() == latex(KNOWN_BLOCKS["elena2"])
    whole = latex_document(KNOWN_BLOCKS["linear_attention"], "none")
    assert "Rows of $x$ are time steps." in " ".join(whole.split())
    assert not any(word in whole for word in ("section", "before", "dense layer"))
    for text in (recurrent, whole):
        assert text.startswith(r"\documentclass") and text.endswith("\\end{document}\n")
        assert text.count(r"\begin") == text.count(r"\end") and text.count("$") % 2 == 0


def test_what_a_title_cannot_print_is_a_space():
    text = latex_document(KNOWN_BLOCKS["elman"], title="a\x00b\x1b[1m\nc\td\u2028e\x7f\udcff é")
    assert r"\section*{a b [1m c d e   é}" in text
    assert all(sign.isprintable() or sign == "\n" for sign in text)


def test_what_is_no_network_is_refused():
    with pytest.raises(ValueError, match="no path from input"):
        latex(from_edges(3, [(1, 2, "add")]))
    with pytest.raises(ValueError, match="head is 'dense'"):
        latex_document(KNOWN_BLOCKS["elman"], "dense")
