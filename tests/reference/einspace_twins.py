"""The published architectures of einspace as plain Flax modules, and their weights.

Written from the table of the specification, with Flax's own layers, channels last and attention of Flax.
Layers are named in the order of the derivation: the main path before the shortcut.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class ConvolutionalTwin(nn.Module):
    """A residual network on `[N, C, H, W]` images, and a linear head on means."""

    stem: Sequence[tuple[int, int, bool]]  # width and stride of 3x3 convolutions, whether a norm follows
    blocks: Sequence[tuple[int, int, bool]]  # width, stride, whether the shortcut is a convolution
    is_wide: bool  # the norm stands behind the sum, and not in the shortcut
    classes: int = 10

    @nn.compact
    def __call__(self, images):
        counts = {"conv": 0, "norm": 0}

        def name(kind):
            counts[kind] += 1
            return f"{kind}_{counts[kind] - 1}"

        def conv(x, width, kernel, stride):
            side = (kernel - 1) // 2
            padding = ((side, side), (side, side))
            return nn.Conv(width, (kernel, kernel), (stride, stride), padding, name=name("conv"))(x)

        def norm(x):
            return nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, name=name("norm"))(x)

        x = jnp.transpose(images, (0, 2, 3, 1))
        for width, stride, has_norm in self.stem:
            x = conv(x, width, 3, stride)
            x = nn.leaky_relu(norm(x)) if has_norm else x
        for width, stride, is_convolved in self.blocks:
            y = nn.leaky_relu(norm(conv(x, width, 3, stride)))
            y = conv(y, width, 3, 1)
            y = y if self.is_wide else norm(y)
            if is_convolved:
                x = conv(x, width, 1, stride)
                x = x if self.is_wide else norm(x)
            x = x + y
            x = nn.leaky_relu(norm(x) if self.is_wide else x)
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


class PatchTwin(nn.Module):
    """Patches of 4 x 4 with positions, layers on tokens, and the published head, which averages features."""

    layer: Any
    num_layers: int
    classes: int = 10

    @nn.compact
    def __call__(self, images):
        x = jnp.transpose(images, (0, 2, 3, 1))
        x = nn.Conv(512, (4, 4), (4, 4), "VALID", name="patches")(x)
        x = x.reshape(len(x), -1, 512)
        x = x + self.param("encoding", nn.initializers.normal(1.0), x.shape[1:])
        for place in range(self.num_layers):
            x = self.layer(name=f"layer_{place}")(x)
        return nn.Dense(self.classes, name="head")(x.mean(2))


class TransformerLayer(nn.Module):
    """Four heads of width 64 and a feed-forward part, each with a shortcut and a norm behind."""

    @nn.compact
    def __call__(self, x):
        heads = nn.MultiHeadDotProductAttention(4, qkv_features=256, out_features=512, name="heads")(x)
        x = nn.LayerNorm(epsilon=1e-5, name="norm_0")(x + heads)
        y = nn.Dense(512, name="dense_1")(nn.leaky_relu(nn.Dense(512, name="dense_0")(x)))
        return nn.LayerNorm(epsilon=1e-5, name="norm_1")(x + y)


class MixerLayer(nn.Module):
    """Tokens are mixed, then features, behind one norm and beside one shortcut."""

    @nn.compact
    def __call__(self, x):
        tokens = x.shape[1]
        y = nn.LayerNorm(epsilon=1e-5, name="norm")(x).swapaxes(1, 2)
        y = nn.Dense(tokens, name="dense_1")(nn.leaky_relu(nn.Dense(4 * tokens, name="dense_0")(y)))
        y = y.swapaxes(1, 2)
        return x + nn.Dense(512, name="dense_3")(nn.leaky_relu(nn.Dense(256, name="dense_2")(y)))


RESNET_BLOCKS = [
    (width, stride, stride == 2)
    for width, first in ((64, 1), (128, 2), (256, 2), (512, 2))
    for stride in (first, 1)
]
WIDE_BLOCKS = [
    (width, stride, is_first)
    for width, first in ((64, 1), (128, 2), (256, 2))
    for stride, is_first in ((first, True), (1, False))
]
TWINS = {
    "resnet18_no_maxpool": ConvolutionalTwin([(64, 1, True), (64, 2, False)], RESNET_BLOCKS, False),
    "wideresnet16_4": ConvolutionalTwin([(16, 1, True)], WIDE_BLOCKS, True),
    "transformer": PatchTwin(TransformerLayer, 4),
    "mlp_mixer": PatchTwin(MixerLayer, 8),
}


# Parts of a layer of tokens in the order of the derivation.
LAYER_PARTS = {
    "transformer": ("query", "key", "value", "out", "norm_0", "dense_0", "dense_1", "norm_1"),
    "mlp_mixer": ("norm", "dense_0", "dense_1", "dense_2", "dense_3"),
}


def twin_params(name: str, params: dict, shapes: dict) -> dict:
    """Returns the weights of a network as those of its twin.

    Args:
      name: of the architecture.
      params: of the network, with the repeated layers of tokens along the first axis of arrays.
      shapes: of the twin's params, as `jax.eval_shape` gives them.
    """
    parts = jax.tree.leaves(params["backbone"], is_leaf=lambda each: isinstance(each, dict))
    found = {"head": params["head"]}
    if name in LAYER_PARTS:
        patches, encoding, *layers = parts
        found |= {"patches": patches, "encoding": encoding["encoding"]}
        for place in range(TWINS[name].num_layers):
            layer = [jax.tree.map(lambda leaf, place=place: leaf[place], part) for part in layers]
            found[f"layer_{place}"] = _layer(dict(zip(LAYER_PARTS[name], layer, strict=True)))
    else:
        convolutions = [part for part in parts if "kernel" in part]
        norms = [part for part in parts if "scale" in part]
        for kind, some in (("conv", convolutions), ("norm", norms)):
            found |= {f"{kind}_{place}": part for place, part in enumerate(some)}
    return jax.tree.map(_in_shape, found, shapes)


def _layer(parts: dict) -> dict:
    """Puts the parts of attention where Flax has them, heads behind what they read."""
    if "query" not in parts:
        return parts
    heads = {name: parts.pop(name) for name in ("query", "key", "value", "out")}
    for name in ("query", "key", "value"):
        heads[name] = heads[name] | {"kernel": np.swapaxes(heads[name]["kernel"], 0, 1)}
    return parts | {"heads": heads}


def _in_shape(leaf: Any, shape: Any) -> np.ndarray:
    """Brings weights to Flax's shapes; kernels of images have channels last but one there, not first."""
    if len(shape.shape) != 4:
        return np.reshape(leaf, shape.shape)
    rows, columns, channels, width = shape.shape
    return np.transpose(np.reshape(leaf, (channels, rows, columns, width)), (1, 2, 0, 3))
