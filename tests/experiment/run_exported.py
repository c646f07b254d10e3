"""Runs exported blocks where this package cannot be imported; started by test_exporting, knows no test.

Each folder that is named holds block.py, block.npz, block.stablehlo and case.npz: inputs and a cotangent,
and under "outputs", "of_inputs" and "of/NAME" what the interpreter makes of them.
"""

import importlib.abc
import importlib.util
import json
import sys
from pathlib import Path


class Refuse(importlib.abc.MetaPathFinder):
    """Makes a package impossible to import, however it is installed."""

    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "elenas_jax":
            raise ImportError(f"{name} is not there")


sys.meta_path.insert(0, Refuse())

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import jax.export  # noqa: E402
import numpy as np  # noqa: E402
from flax.traverse_util import flatten_dict, unflatten_dict  # noqa: E402


def differences(found, expected, what):
    """Says what differs by more than rounding, relative to the largest number."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return [f"{what}: shape {found.shape}, not {expected.shape}"]
    error = np.max(np.abs(found - expected)) / max(1e-3, float(np.max(np.abs(expected))))
    return [] if error < 1e-4 else [f"{what}: off by {error}"]


def check(folder, name, recurrent):
    spec = importlib.util.spec_from_file_location("block", folder / "block.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = getattr(module, name)()
    if recurrent:
        model = nn.RNN(model)

    weights = unflatten_dict(dict(np.load(folder / "block.npz", allow_pickle=False)), sep="/")
    case = np.load(folder / "case.npz", allow_pickle=False)

    @jax.jit
    def run(weights, inputs, cotangent):
        def loss(weights, inputs):
            outputs = model.apply({"params": {"cell": weights} if recurrent else weights}, inputs)
            return (outputs * cotangent).sum(), outputs

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(weights, inputs)

    (of_weights, of_inputs), outputs = run(weights, case["inputs"], case["cotangent"])
    wrong = differences(outputs, case["outputs"], "outputs")
    wrong += differences(of_inputs, case["of_inputs"], "gradient of inputs")
    flat = flatten_dict(of_weights, sep="/")
    if {f"of/{key}" for key in flat} != {key for key in case if key.startswith("of/")}:
        wrong.append(f"weights are {sorted(flat)}")
    for key, gradient in flat.items():
        wrong += differences(gradient, case[f"of/{key}"], f"gradient of {key}")
    data = bytearray((folder / "block.stablehlo").read_bytes())
    wrong += differences(jax.export.deserialize(data).call(case["inputs"]), case["outputs"], "StableHLO")
    return wrong


def main():
    try:
        import elenas_jax  # noqa: F401
    except ImportError:
        found = {folder: check(Path(folder), *about) for folder, about in json.loads(sys.argv[1]).items()}
        assert not [name for name in sys.modules if name.startswith("elenas_jax")]
        print(json.dumps(found))


if __name__ == "__main__":
    main()
