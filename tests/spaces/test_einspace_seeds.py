"""The published architectures: parameters, shapes and sizes as the public code counts them."""

import pytest

from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_seeds import MIXED_SEEDS, SEEDS, make_seed
from elenas_jax.spaces.einspace_statistics import size_of
from elenas_jax.spaces.einspace_typing import infer, state_of
from elenas_jax.spaces.grammar import flatten

SHAPES = ((3, 64, 64), (3, 28, 28), (1, 27, 18))
PARAMETERS = {
    "resnet18_no_maxpool": (11_210_560, 11_210_560, 11_209_408),
    "wideresnet16_4": (2_748_576, 2_748_576, 2_748_288),
    "transformer": (4_367_872, 4_261_888, 4_232_704),
    "mlp_mixer": (6_472_192, 2_317_288, 2_170_304),
}
OUTPUTS = {
    "resnet18_no_maxpool": ((512, 4, 4), (512, 2, 2), (512, 2, 2)),
    "wideresnet16_4": ((256, 16, 16), (256, 7, 7), (256, 7, 5)),
    "transformer": ((256, 512), (49, 512), (24, 512)),
    "mlp_mixer": ((256, 512), (49, 512), (24, 512)),
}
# Terminals, non-terminals, nodes, depth, mean branching factor.
SIZES = {
    "resnet18_no_maxpool": (121, 144, 265, 11, 1.802),
    "wideresnet16_4": (89, 103, 192, 10, 1.742),
    "transformer": (220, 192, 412, 13, 2.036),
    "mlp_mixer": (116, 148, 264, 11, 1.897),
}
OTHERS = {
    "resnet18": ((3, 64, 64), 11_173_632, (512, 4, 4)),
    "resnet10": ((3, 64, 64), 676_352, (128, 16, 16)),
    "resnet34_no_maxpool": ((3, 64, 64), 21_330_112, (512, 2, 2)),
    "transformer_layer": ((49, 512), 4 * 3 * 513 * 64 + 257 * 512 + 2 * 513 * 512 + 4 * 512, (49, 512)),
    "attention_head": ((49, 512), 3 * 513 * 64, (49, 64)),
    "resnet_block": ((64, 8, 8), 2 * 577 * 64 + 4 * 64, (64, 8, 8)),
}


def typed(name, shape, rules="strict"):
    grammar = make_einspace_grammar(num_axes=3)
    return infer(make_seed(name, grammar), state_of(shape), rules=rules, grammar=grammar)


@pytest.mark.parametrize("name", MIXED_SEEDS)
def test_parameters_and_outputs(name):
    found = [typed(name, shape) for shape in SHAPES]
    assert tuple(seed.parameters for seed in found) == PARAMETERS[name]
    assert tuple(seed.after.shape for seed in found) == OUTPUTS[name]


@pytest.mark.parametrize("name", MIXED_SEEDS)
def test_sizes(name):
    size = size_of(typed(name, (3, 64, 64)))
    assert (size.terminals, size.nonterminals, size.nodes, size.depth) == SIZES[name][:4]
    assert size.mean_branches == pytest.approx(SIZES[name][4], abs=5e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_seeds(name):
    shape, parameters, output = OTHERS[name]
    found = typed(name, shape)
    assert (found.parameters, found.after.shape) == (parameters, output)
    assert set(OTHERS) | set(MIXED_SEEDS) == set(SEEDS)


@pytest.mark.parametrize("name", SEEDS)
def test_both_rules_infer_the_same(name):
    shape = OTHERS.get(name, ((3, 64, 64),))[0]
    assert typed(name, shape) == typed(name, shape, "compat")


def test_wrapped_seeds_are_what_a_search_may_draw():
    grammar = make_einspace_grammar()
    for name in ("resnet18_no_maxpool", "wideresnet16_4", "transformer"):
        bare, wrapped = (make_seed(name, grammar, wrapped=each) for each in (False, True))
        assert not all(grammar.productions[rule].weight for rule in flatten(bare))
        assert all(grammar.productions[rule].weight for rule in flatten(wrapped))
        assert infer(wrapped, state_of((3, 28, 28))).parameters == PARAMETERS[name][1]


def test_errors_name_the_seed():
    with pytest.raises(ValueError, match="There is no seed 'resnet'; there are resnet18_no_maxpool, "):
        make_seed("resnet", make_einspace_grammar())
    with pytest.raises(
        ValueError, match=r"The seed 'resnet10' needs 'P -> im2col.3,1,1.', which the grammar"
    ):
        make_seed("resnet10", make_einspace_grammar(num_axes=2))
