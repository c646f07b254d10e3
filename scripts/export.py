r"""Exports a block with weights: equations, LaTeX, a Flax module, JSON, StableHLO and a drawing.

  python scripts/export.py --block=lstm --out=exported/lstm
  python scripts/export.py --block=runs/small:1 --out=exported/best --task=reber
  python scripts/export.py --block=found.json --out=exported/found --in_features=2 --hidden_features=32

A block is a known one, a JSON file with a graph, or a run folder and a rank. The files in --out:

  block.txt, block.tex  equations
  block.py, block.npz   a Flax module that needs nothing of this package, and its weights
  block.stablehlo       `jax.export.deserialize(data).call(inputs)`: [N, T, in] -> [N, T or rows, out]
  block.json            the graph
  block.svg             a drawing
  export.json           what was exported, and how

With --task the weights are those that the search's evaluator trains, on the same data from the same seed;
without, they are drawn and not trained. A run's config gives widths, head, seed and settings of the
training, where flags do not.
"""

import sys
from pathlib import Path

from absl import app, flags
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elenas_jax.analysis.draw import draw_block
from elenas_jax.experiment.blocks import read_blocks
from elenas_jax.experiment.exporting import (
    check_folder,
    class_name,
    export_block,
    make_request,
    write_files,
)
from elenas_jax.experiment.flags import parse_flags, print_any_name, require
from elenas_jax.experiment.session import one_line_errors, prepare
from elenas_jax.graphs import equations, num_parameters
from elenas_jax.graphs.program import HEADS
from elenas_jax.spaces.elenas_drawing import draw_network
from elenas_jax.tasks import SEQUENCE_TASKS

_BLOCK = flags.DEFINE_string("block", None, "A known block, a JSON file, or a run folder and a rank.")
_OUT = flags.DEFINE_string("out", None, "Folder of the files.")
_NAME = flags.DEFINE_string("name", None, "Name of the Flax class; made from the block's by default.")
_IN = flags.DEFINE_integer("in_features", None, "Width of the inputs.", lower_bound=1)
_OUT_FEATURES = flags.DEFINE_integer("out_features", None, "Width of the outputs.", lower_bound=1)
_HIDDEN = flags.DEFINE_integer("hidden_features", None, "Width of what nothing ties down.", lower_bound=1)
_HEAD = flags.DEFINE_enum("head", None, HEADS, "Whether a dense layer follows the block.")
_TIME = flags.DEFINE_integer(
    "time_steps", None, "Length, for blocks that fit one length only.", lower_bound=1
)
_TASK = flags.DEFINE_enum("task", None, list(SEQUENCE_TASKS), "Train the weights on this task of the search.")
_STEPS = flags.DEFINE_integer("steps", None, "Of the training; 625, or the run's.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", None, "Of weights and data; 0, or the run's.", lower_bound=0)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Write into a folder that holds something else.")


def main(_: list[str]) -> None:
    console = Console(highlight=False, markup=False)
    with one_line_errors():
        print_any_name()
        require("block", "out")
        folder = Path(_OUT.value)
        check_folder(folder, _OVERWRITE.value)
        [(block, graph)] = read_blocks([_BLOCK.value]).items()
        request = make_request(
            _BLOCK.value,
            task=_TASK.value,
            steps=_STEPS.value,
            seed=_SEED.value,
            in_features=_IN.value,
            out_features=_OUT_FEATURES.value,
            hidden_features=_HIDDEN.value,
            head=_HEAD.value,
            time_steps=_TIME.value,
        )
        prepare(request.config, console)
        exported = export_block(block, graph, request, _NAME.value or class_name(block))
        head = exported.program.head
        drawing = draw_block(draw_network(graph, head), block)
        files = {**exported.files, "block.svg": drawing.encode(errors="replace")}
        write_files(folder, files)
        console.print(equations(graph, head), soft_wrap=True)
        console.print(f"{num_parameters(exported.program):,} parameters, {exported.origin}", soft_wrap=True)
        console.print(f"{folder}: {', '.join(sorted(files))}", soft_wrap=True)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
