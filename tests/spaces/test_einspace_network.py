"""Networks: equal forms, heads, the published architectures and what is inferred of random ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.spaces.einspace_canonical import simplify
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_network import Form, make_backbone, make_network
from elenas_jax.spaces.einspace_options import make_options
from elenas_jax.spaces.einspace_sampling import Budget, draw
from elenas_jax.spaces.einspace_seeds import MIXED_SEEDS, chain, convolution, make_seed, residual, to_node
from elenas_jax.spaces.einspace_typing import infer, state_of
from tests.reference.einspace_twins import TWINS, twin_params

GRAMMARS = {num_axes: make_einspace_grammar(num_axes=num_axes) for num_axes in (2, 3)}
KEY = jax.random.key(0)


def typed(term, shape):
    grammar = GRAMMARS[len(shape)]
    return infer(to_node(grammar, term), state_of(shape), grammar=grammar)


def seed(name, shape):
    return infer(make_seed(name, GRAMMARS[3]), state_of(shape))


def examples(shape, number=4):
    return np.random.default_rng(0).normal(size=(number, *shape)).astype(np.float32)


def weights_of(network):
    """Draws params and a state without compiling anything."""
    rng = np.random.default_rng(1)

    def drawn(path, leaf):
        values = rng.normal(size=leaf.shape)
        is_kernel = path[-1].key == "kernel"
        return np.float32(values / np.sqrt(leaf.shape[-2]) if is_kernel else 1 + 0.1 * values)

    return jax.tree_util.tree_map_with_path(drawn, jax.eval_shape(network.init, KEY))


def run(network, params, state, inputs):
    """Returns the gradients of the outputs' squares by params and by inputs, the outputs and the state."""

    def squares(params, inputs):
        outputs, after = network.apply(params, state, inputs, train=True)
        return jnp.mean(jnp.square(outputs)), (outputs, after)

    (slopes, of_inputs), (outputs, after) = jax.jit(jax.grad(squares, (0, 1), has_aux=True))(params, inputs)
    return slopes, of_inputs, outputs, after


def assert_close(one, other, tolerance=1e-4):
    """Compares pytrees; errors count against the largest number, as some slopes are 0 but for rounding."""
    largest = max((np.abs(leaf).max() for leaf in jax.tree.leaves(other)), default=0)
    jax.tree.map(
        lambda left, right: np.testing.assert_allclose(left, right, atol=tolerance * largest), one, other
    )


def stacked(parts):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)


NORM = ("sequential", convolution(3, 1, 16), "norm")
BRANCHES = {
    "clones of tokens": ((6, 8), ("clone(4)", ("sequential", "linear(16)", "leaky_relu"), "concat(2,4)")),
    "clones of images": ((3, 6, 6), ("clone(4)", NORM, "add")),
    "clones of small images": ((3, 2, 2), ("clone(8)", NORM, "concat(1,8)")),
    "groups of channels": ((8, 5, 6), ("group(1,4)", NORM, "concat(1,4)")),
    "groups of rows": ((3, 16, 4), ("group(2,8)", "positional_encoding", "concat(2,8)")),
    "groups of columns": ((3, 4, 8), ("group(3,4)", "linear(16)", "add")),
    "nothing to learn": ((6, 8), ("clone(4)", "softmax", "add")),
    "nothing to learn, in groups": ((8, 8), ("group(1,8)", "softmax", "concat(2,8)")),
    "one axis": ((3, 20), ("clone(4)", "conv1d(8,32)", "add")),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_copies_at_once_are_copies_one_by_one(name):
    shape, term = BRANCHES[name]
    found = typed(term, shape)
    at_once, one_by_one = (make_backbone(found, Form(stack_branches=stack)) for stack in (True, False))
    weights = weights_of(one_by_one)
    assert sum(leaf.size for leaf in jax.tree.leaves(weights[0])) == found.parameters

    def of_copies(tree):  # of a sequence of one branching, in which each copy has a place
        return tuple(stacked(copies) for copies in tree)

    slopes, of_inputs, outputs, state = run(one_by_one, *weights, examples(shape))
    found_slopes, *others = run(at_once, *map(of_copies, weights), examples(shape))
    assert outputs.shape[1:] == found.after.shape
    assert all(leaf.shape[0] == found.copies for leaf in jax.tree.leaves(found_slopes))
    assert_close(found_slopes, of_copies(slopes))
    assert_close(others, [of_inputs, outputs, of_copies(state)])


def test_copies_within_copies():
    term = ("clone(4)", ("group(1,2)", ("group(2,8)", "linear(16)", "add"), "norm", "concat(2,2)"), "add")
    found = typed(term, (8, 16))
    at_once, one_by_one = (make_backbone(found, Form(stack_branches=stack)) for stack in (True, False))
    params, state = weights_of(one_by_one)
    # Of a copy: a sequence of one branching, whose left module is again one with copies.
    both = (stacked([(((stacked(inner),), right),) for (((inner,), right),) in params[0]]),)
    apply = jax.jit(
        lambda: [
            network.apply(weights, state, examples((8, 16)), train=True)[0]
            for network, weights in ((at_once, both), (one_by_one, params))
        ]
    )
    assert_close(*apply())


LAYER = ("linear(16)", "leaky_relu", residual(chain("linear(16)", "softmax", "linear(16)")), "norm")


def test_repeats_at_once_are_repeats_one_by_one():
    found = typed(chain("linear(16)", *LAYER, *LAYER, *LAYER, "linear(32)"), (5, 16))
    at_once, one_by_one = (make_backbone(found, Form(scan_repeats=scan)) for scan in (True, False))
    params, state = weights_of(one_by_one)
    assert len(params) == 11

    def of_repeats(each):
        first, *middle, last = each
        return (first, stacked([tuple(middle[place : place + 3]) for place in (0, 3, 6)]), last)

    slopes, *others = run(one_by_one, params, state, examples((5, 16)))
    found_slopes, *found_others = run(at_once, of_repeats(params), state, examples((5, 16)))
    assert_close(found_slopes, of_repeats(slopes))
    assert_close(found_others, others)


def test_repeats_carry_statistics():
    layer = (("group(1,2)", "norm", "norm", "concat(1,2)"), "leaky_relu", "softmax", "positional_encoding")
    found = typed(chain(*layer, *layer, *layer), (4, 3, 3))
    at_once, one_by_one = (make_backbone(found, Form(scan_repeats=scan)) for scan in (True, False))
    params, state = weights_of(one_by_one)
    inputs = examples((4, 3, 3))

    def of_repeats(each, size):
        return (stacked([tuple(each[place : place + size]) for place in range(0, 3 * size, size)]),)

    expected = run(one_by_one, params, state, inputs)
    assert len(jax.tree.leaves(state)) == 12
    slopes, *others = run(at_once, of_repeats(params, 2), of_repeats(state, 1), inputs)
    assert_close(slopes, of_repeats(expected[0], 2))
    assert_close(others, [*expected[1:3], of_repeats(expected[3], 1)])


def traced(term, shape):
    """Returns what a network does as text."""
    network = make_backbone(typed(term, shape))
    params, state = weights_of(network)
    return str(jax.make_jaxpr(lambda inputs: network.apply(params, state, inputs)[0])(examples(shape)))


def test_what_is_scanned():
    assert traced(chain(*LAYER, *LAYER, *LAYER), (5, 16)).count("scan[") == 1
    assert "scan[" not in traced(chain(*LAYER, "softmax", *LAYER), (5, 16))  # nothing repeats
    assert "scan[" not in traced(chain(*(["linear(16)", "leaky_relu"] * 4)), (5, 16))  # too little to save
    block = (convolution(3, 1, 16), "norm", "leaky_relu")
    assert "scan[" not in traced(chain(*(block * 6)), (16, 8, 8))  # a loop would slow convolutions down
    assert traced(chain(*(block * 6)), (16, 2, 2)).count("scan[") == 1  # these are products


def test_convolutions_of_copies_are_products():
    alone = traced(("clone(2)", convolution(3, 1, 16), convolution(3, 1, 16), "add"), (3, 8, 8))
    copies = traced(("clone(4)", convolution(3, 1, 16), "add"), (3, 8, 8))
    assert alone.count("conv_general_dilated[") == 2
    assert "conv_general_dilated" not in copies and copies.count("dot_general[") == 1


def test_unfoldings_without_a_folding_are_convolutions_too():
    found = typed(chain(("routing", "im2col(3,2,1)", "linear(16)", "identity"), "softmax"), (3, 9, 8))
    folded, unfolded = (make_backbone(found, Form(fold_convolutions=fold)) for fold in (True, False))
    params, state = weights_of(folded)
    inputs = examples((3, 9, 8))
    assert_close(run(folded, params, state, inputs), run(unfolded, params, state, inputs))
    jaxpr = jax.make_jaxpr(lambda inputs: folded.apply(params, state, inputs)[0])(inputs)
    assert "conv_general_dilated" in str(jaxpr)


@pytest.mark.parametrize("pool", ["published", "token_mean"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 6)], ids=["image", "tokens"])
def test_heads_of_classes(pool, shape):
    network = make_network(typed(("sequential", "identity", "identity"), shape), out_features=7, pool=pool)
    params, state = weights_of(network)
    assert (params["backbone"], state) == ((), ())
    inputs = examples(shape)
    axes = (2, 3) if len(shape) == 3 else (2,) if pool == "published" else (1,)
    expected = inputs.mean(axes) @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(network.apply(params, state, inputs)[0], expected, rtol=1e-5, atol=1e-6)


def means(values, wanted):
    """Adaptive average pooling of `[..., H, W]`, window by window."""
    size = values.shape[-2:]
    result = np.empty((*values.shape[:-2], *wanted))
    for row, column in np.ndindex(wanted):
        top, left = row * size[0] // wanted[0], column * size[1] // wanted[1]
        bottom = -(-(row + 1) * size[0] // wanted[0])
        right = -(-(column + 1) * size[1] // wanted[1])
        result[..., row, column] = values[..., top:bottom, left:right].mean((-2, -1))
    return result


def test_dense_heads():
    inputs = examples((3, 7, 6))
    shrinking = typed(
        ("sequential", ("routing", "im2col(1,2,0)", "identity", "col2im"), "identity"), (3, 7, 6)
    )
    network = make_network(shrinking, out_features=42, kind="dense")
    params, state = weights_of(network)
    head = params["head"]
    mixed = np.einsum("nchw,cd->ndhw", means(inputs[:, :, ::2, ::2], (7, 6)), head["kernel"])
    found = network.apply(params, state, inputs)[0]
    np.testing.assert_allclose(found, mixed + head["bias"][0], rtol=1e-5, atol=1e-6)

    tokens = typed(
        ("sequential", ("routing", "im2col(1,2,0)", "identity", "identity"), "identity"), (3, 7, 6)
    )
    network = make_network(tokens, out_features=42, kind="dense")
    params, state = weights_of(network)
    assert params["head"] == ()
    values = inputs[:, :, ::2, ::2].reshape(4, 3, 12).swapaxes(1, 2)
    found = network.apply(params, state, inputs)[0]
    np.testing.assert_allclose(found, means(values, (7, 6))[:, None], rtol=1e-5, atol=1e-6)


def test_errors():
    image, tokens = (typed(("sequential", "norm", "identity"), shape) for shape in ((3, 7, 6), (7, 6)))
    message = r"one number for each pixel; the input is \(3, 7, 6\), out_features is 10"
    with pytest.raises(ValueError, match=message):
        make_network(image, out_features=10, kind="dense")
    with pytest.raises(ValueError, match=r"the input is \(7, 6\)"):
        make_network(tokens, out_features=6, kind="dense")
    network = make_network(image, out_features=10)
    params, state = weights_of(network)
    with pytest.raises(ValueError, match=r"has the shape \(6, 7\); the network takes \(3, 7, 6\)"):
        network.apply(params, state, np.zeros((2, 6, 7)))


@pytest.mark.parametrize("name", MIXED_SEEDS)
def test_seeds_are_as_their_twins(name):
    shape, twin = (3, 16, 12), TWINS[name]
    network = make_network(seed(name, shape), out_features=10)
    params, state = weights_of(network)
    inputs = examples(shape, 8)
    shapes = jax.eval_shape(twin.init, KEY, inputs)
    weights = {"params": twin_params(name, params, shapes["params"])}
    statistics = statistics_of(state)
    if statistics:
        weights["batch_stats"] = {
            f"norm_{place}": {"mean": each["mean"], "var": each["variance"]}
            for place, each in enumerate(statistics)
        }
        assert set(weights["batch_stats"]) == set(shapes["batch_stats"])

    @jax.jit
    def both(params, state, weights):
        outputs, after = network.apply(params, state, inputs, train=True)
        expected, changed = twin.apply(weights, inputs, mutable=["batch_stats"])
        return outputs, after, expected, changed

    outputs, after, expected, changed = both(params, state, weights)
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert np.std(expected) > 0.01
    for place, each in enumerate(statistics_of(after)):
        mean = changed["batch_stats"][f"norm_{place}"]["mean"]
        np.testing.assert_allclose(each["mean"], mean, rtol=1e-3, atol=1e-3 * np.abs(mean).max())


def statistics_of(state):
    return jax.tree.leaves(state, is_leaf=lambda each: isinstance(each, dict))


# With a head of 10 classes, at 3 x 64 x 64.
TOTALS = {
    "resnet18_no_maxpool": 11_215_690,
    "wideresnet16_4": 2_751_146,
    "transformer": 4_370_442,
    "mlp_mixer": 6_474_762,
}


@pytest.mark.parametrize("name", MIXED_SEEDS)
def test_seeds_of_full_size(name):
    """Case V2 of the specification: the counts of the twin, of what is inferred and of the network."""
    for shape in ((3, 64, 64), (1, 27, 18)):
        found = seed(name, shape)
        inputs = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
        for each in (found, simplify(found)):
            backbone, network = make_backbone(each), make_network(each, out_features=10)
            params, state = jax.eval_shape(backbone.init, KEY)
            assert count(params) == found.parameters
            outputs, _ = jax.eval_shape(backbone.apply, params, state, inputs)
            assert outputs.shape == (2, *found.after.shape)
            total = count(jax.eval_shape(network.init, KEY)[0])
        assert total == count(jax.eval_shape(TWINS[name].init, KEY, inputs)["params"])
        if shape == (3, 64, 64):
            assert total == TOTALS[name]


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(("shape", "number"), [((3, 16, 16), 120), ((2, 32), 60)], ids=["images", "one axis"])
def test_shapes_are_those_inferred(shape, number):
    grammar = GRAMMARS[len(shape)]
    options, rng = make_options(grammar, "strict"), np.random.default_rng(0)
    budget = Budget(nodes=80, parameters=10**7, activations=10**6, depth=30)
    inputs = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    for _ in range(number):
        drawn = draw(rng, options, state_of(shape), budget=budget).typed
        for each in (drawn, simplify(drawn)):
            network = make_backbone(each)
            params, state = jax.eval_shape(network.init, KEY)
            outputs, after = jax.eval_shape(network.apply, params, state, inputs)
            assert outputs.shape == (2, *drawn.after.shape)
            assert count(params) == drawn.parameters
            assert jax.tree.map(lambda leaf: leaf.shape, after) == jax.tree.map(
                lambda leaf: leaf.shape, state
            )


def test_a_simplified_network_computes_the_same():
    term = chain(
        ("sequential", "identity", ("routing", "permute(2,3,1)", "norm", "permute(3,1,2)")),
        ("routing", "im2col(1,1,0)", ("routing", "permute(2,1)", "linear(16)", "permute(2,1)"), "identity"),
        ("clone(4)", ("sequential", "identity", "linear(32)"), "concat(2,4)"),
    )
    found = typed(term, (3, 5, 4))
    networks = [make_backbone(each) for each in (found, simplify(found))]
    params, state = weights_of(networks[0])
    inputs = examples((3, 5, 4))
    as_it_is, simplified = (run(network, params, state, inputs) for network in networks)
    assert_close(simplified, as_it_is)
