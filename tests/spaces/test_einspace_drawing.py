import numpy as np
import pytest

from elenas_jax.spaces.einspace_canonical import simplify
from elenas_jax.spaces.einspace_drawing import GROUPS, draw_derivation, draw_tree
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_options import make_options
from elenas_jax.spaces.einspace_sampling import Budget, draw
from elenas_jax.spaces.einspace_seeds import make_seed, to_node
from elenas_jax.spaces.einspace_typing import Typed, infer, state_of

GRAMMAR = make_einspace_grammar()
SHAPE = (3, 16, 16)


def typed(term, shape=SHAPE) -> Typed:
    return infer(to_node(GRAMMAR, term), state_of(shape))


def links(drawing):
    """Edges as labels of source and target, with their symbols."""
    labels = {node["id"]: node["label"] for node in drawing["nodes"]}
    return [(labels[edge["source"]], labels[edge["target"]], edge["symbol"]) for edge in drawing["edges"]]


def num_leaves(typed: Typed) -> int:
    """Operations of a simplified network, what copies share once, a convolution as one."""
    if typed.name == "identity":
        return 0
    is_box = typed.kind in ("leaf", "routing")
    return 1 if is_box else sum(map(num_leaves, typed.children))


@pytest.fixture(scope="module")
def samples():
    rng, options = np.random.default_rng(0), make_options(GRAMMAR)
    return [draw(rng, options, state_of(SHAPE), budget=Budget(nodes=200)).typed for _ in range(60)]


def test_a_residual_block_skips_the_identity():
    block = ("clone(2)", ("sequential", "norm", "leaky_relu"), "identity", "add")
    drawing = draw_derivation(typed(block))
    assert sorted(links(drawing)) == [
        ("clone(2)", "add", ""),
        ("clone(2)", "norm", ""),
        ("leaky_relu", "add", ""),
        ("norm", "leaky_relu", ""),
        ("x", "clone(2)", ""),
    ]
    assert [node["label"] for node in drawing["nodes"] if node["is_output"]] == ["add"]
    assert [node["kind"] for node in drawing["nodes"]].count("input") == 1
    assert {entry["label"] for entry in drawing["legend"]} == {
        "branching",
        "aggregation",
        "norm",
        "activation",
    }


def test_a_convolution_is_one_box():
    drawing = draw_derivation(typed(("routing", "im2col(3,2,1)", "linear(32)", "col2im")))
    assert links(drawing) == [("x", "conv 3x3 /2, 32", "")]
    assert drawing["nodes"][1]["note"] == "32x8x8"
    assert "896 parameters" in drawing["nodes"][1]["about"]
    assert "im2col(3,2,1) > linear(32) > col2im" in drawing["nodes"][1]["about"]


def test_a_shared_branch_is_drawn_once_and_says_how_often():
    inner = ("clone(8)", "softmax", "add")
    drawing = draw_derivation(typed(("group(2,4)", inner, "concat(2,4)")))
    assert links(drawing) == [
        ("x", "group(2,4)", ""),
        ("group(2,4)", "clone(8)", "\u00d74"),
        ("clone(8)", "softmax", "\u00d78"),
        ("softmax", "add", "\u00d78"),
        ("add", "concat(2,4)", "\u00d74"),
    ]
    copies = {node["label"]: node["copies"] for node in drawing["nodes"]}
    assert copies == {"x": 1, "group(2,4)": 1, "clone(8)": 4, "softmax": 32, "add": 4, "concat(2,4)": 1}
    assert {node["label"]: node["note"] for node in drawing["nodes"]}["softmax"] == "32 \u00d7 3x4x16"


def test_the_order_of_branches_is_written_where_it_matters():
    split = ("group(1,2)", "softmax", "identity", "concat(1,2)")
    assert links(draw_derivation(typed(split, (4, 8, 8)))) == [
        ("x", "group(1,2)", ""),
        ("group(1,2)", "softmax", "1"),
        ("softmax", "concat(1,2)", "1"),
        ("group(1,2)", "concat(1,2)", "2"),
    ]


def test_a_network_of_nothing_is_its_input():
    drawing = draw_derivation(typed(("sequential", "identity", "identity")))
    assert [(node["label"], node["is_output"]) for node in drawing["nodes"]] == [("x", True)]
    assert drawing["edges"] == []


def test_networks_flow_from_the_input_to_the_output(samples):
    for sample in samples:
        drawing = draw_derivation(sample)
        assert len(drawing["nodes"]) == 1 + num_leaves(simplify(sample))
        # Nodes are numbered as data flows, so nothing goes back.
        assert all(edge["source"] < edge["target"] for edge in drawing["edges"])
        (output,) = (node["id"] for node in drawing["nodes"] if node["is_output"])
        sources = {edge["source"] for edge in drawing["edges"]}
        targets = {edge["target"] for edge in drawing["edges"]}
        assert sources == {node["id"] for node in drawing["nodes"]} - {output}
        assert targets == {node["id"] for node in drawing["nodes"]} - {0}
        assert drawing["nodes"][output]["note"].endswith("x".join(map(str, sample.after.shape)))


def test_trees_have_all_nodes_of_a_derivation(samples):
    def count(typed: Typed) -> int:
        return 1 + sum(map(count, typed.children))

    for sample in samples:
        drawing = draw_tree(sample)
        assert len(drawing["nodes"]) == count(sample) == len(drawing["edges"]) + 1
        assert sorted(edge["target"] for edge in drawing["edges"]) == list(range(1, len(drawing["nodes"])))


def test_the_tree_of_a_shared_branch_says_how_often():
    drawing = draw_tree(typed(("clone(4)", "norm", "add")))
    assert links(drawing) == [
        ("clone(4)", "clone(4)", ""),
        ("computation", "norm", ""),
        ("clone(4)", "computation", "\u00d74"),
        ("clone(4)", "add", ""),
    ]


def test_published_architectures_are_drawn_with_a_legend_for_each_colour():
    for name in ("resnet18_no_maxpool", "transformer", "mlp_mixer", "resnet10"):
        drawing = draw_derivation(infer(make_seed(name, GRAMMAR), state_of((3, 64, 64))))
        colours = {node["colour"] for node in drawing["nodes"]} - {"#ffffff"}
        assert colours == {entry["colour"] for entry in drawing["legend"]}
    assert len({group.colour for group in GROUPS}) == len(GROUPS)
