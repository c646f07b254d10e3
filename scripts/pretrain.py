r"""Pre-trains the policy of a config: to build known recurrent blocks and variants of them.

  python scripts/pretrain.py --config=configs/elenas/small.py --run_dir=runs/pretrained --updates=300
  python scripts/search.py --config=configs/elenas/small.py --run_dir=runs/from_known \
      --config.strategy.pretrained=runs/pretrained

Episodes that build the Elman network, the LSTM, ELENA1, ELENA2 and, where the operations allow it, GRU
and the minimal gated unit, each second one changed by a mutation, teach the policy of strategy reinforce
or ppo to foresee the next edge. Printed at the end, on episodes of their own, before and after: the share
of edges foreseen; the same of the edges at which the space's sampler would be wrong; the mean
log-probability of an episode. Interrupted, it goes on when called again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import app, flags
from ml_collections import config_flags
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from elenas_jax.experiment.build import build_space, build_strategy, build_tasks
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.flags import parse_flags, require
from elenas_jax.experiment.pretrained import pretrain
from elenas_jax.experiment.session import one_line_errors, prepare

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe whose space and policy are meant.")
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the result; made if need be.")
_UPDATES = flags.DEFINE_integer("updates", 300, "Updates of the parameters.", lower_bound=1)
_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Of Adam.", lower_bound=1e-8)


def main(_: list[str]) -> None:
    console = Console(highlight=False)
    with one_line_errors():
        require("config", "run_dir")
        config = check_config(_CONFIG.value)
        if "pretrained" in config["strategy"]:
            config["strategy"]["pretrained"] = ""  # this is where it comes from
        prepare(config, console)
        space = build_space(config, build_tasks(config))
        strategy = build_strategy(config, space)
        columns = (TextColumn("loss {task.fields[loss]}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            bar = progress.add_task("", total=_UPDATES.value, loss="-")

            def on_update(done: int, loss: float) -> None:
                progress.update(bar, completed=done, loss=f"{loss:.4f}")

            found = pretrain(
                config,
                space,
                strategy,
                Path(_RUN_DIR.value),
                updates=_UPDATES.value,
                learning_rate=_RATE.value,
                on_update=on_update,
            )
        table = Table(title=f"{found['updates']} updates, {config['space']['num_nodes']} nodes")
        for column in ("", "sampler", "before", "after"):
            table.add_column(column, justify="left" if not column else "right")
        before, after = found["before"], found["after"]
        rows = (
            ("edges foreseen", before["sampler"], before["policy"], after["policy"]),
            ("... where the sampler is wrong", 0.0, before["rare"], after["rare"]),
        )
        for name, *shares in rows:
            table.add_row(name, *(f"{share:.1%}" for share in shares))
        nats = (before["sampler_episode"], before["episode"], after["episode"])
        table.add_row("log-probability of an episode", *(f"{each:.1f}" for each in nats))
        console.print(table)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
