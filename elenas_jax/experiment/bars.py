"""Bars that a search wants a block to clear: thresholds of the ladder, or a known block as reference.

*LSTM-class*: on each task the mean over ten seeds is at least the LSTM's over the same ten seeds (same
data keys), less 0.01, with at most half of its parameters. One seed says little on near misses (the LSTM
itself ranges over 0.72 to 0.97), so a candidate whose one seed of the search comes near is trained ten times
more, unless the mean over three or six is well below.

*Memory* (`memory_bar`): over ten seeds at least the LSTM's mean on each of these tasks, with at most a
quarter of its parameters; and on the memory task at every length from 20 to 80, under the protocol of
`ranking`, at least the LSTM's mean over the same ten seeds and that which the paper gives for ELENA2.
"""

import itertools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from elenas_jax.evaluation.cache import Cache, MemoryCache
from elenas_jax.evaluation.population import evaluate_seeds
from elenas_jax.experiment import run_dir as files
from elenas_jax.experiment.archive import Row
from elenas_jax.experiment.build import build_evaluator, build_space, build_tasks
from elenas_jax.experiment.config import LIMIT
from elenas_jax.experiment.ranking import MEMORY_STEPS, memory_config, paper_means
from elenas_jax.graphs import KNOWN_BLOCKS, ComputationGraph
from elenas_jax.types import DIVERGED, OK, PyTree, explain_status

# How far below the bar a mean over so many seeds may be for the next seeds to be trained. On near misses one
# seed's metric has a deviation of about 0.05, 0.08 at most. On the memory task it may be more: there a block
# may be dropped that ten seeds would have let pass, never the other way round.
_MARGINS = {1: 0.08, 3: 0.05, 6: 0.03}


class Verdict(NamedTuple):
    """A block over the bar."""

    row: Row
    metrics: dict[str, list[float]]  # by task, one a seed


def ladder_passed(rows: Sequence[Row], config: Mapping[str, Any]) -> Verdict | None:
    """Returns the best of those that reach the thresholds of all tasks, if any.

    Args:
      rows: candidates of a search on that config.
      config: resolved.
    """
    passed = []
    for row in rows:
        metrics = json.loads(row.metrics)
        thresholds = {name: config["tasks"][name]["threshold"] for name in config["ladder"]}
        if row.status == OK and all((metrics[name] or 0.0) >= least for name, least in thresholds.items()):
            passed.append(Verdict(row, {name: [metrics[name]] for name in thresholds}))
    return max(passed, key=lambda each: each.row.score or 0.0, default=None)


class ReferenceBar:
    """A known block, trained over some seeds on all tasks of a config, and who is of its class."""

    def __init__(
        self,
        config: Mapping[str, Any],
        folder: Path,
        *,
        reference: str = "lstm",
        num_seeds: int = 10,
        margin: float = 0.01,
        parameter_share: float = 0.5,
        least: float = 0.0,
        file: str = "reference.json",
        cache: Cache | None = None,
    ) -> None:
        """Trains nothing yet.

        Args:
          config: resolved; its thresholds only decide whom `over` looks at.
          folder: where the reference's metrics are kept; a run folder.
          reference: one of `KNOWN_BLOCKS`.
          num_seeds: replicates 0 and up.
          margin: below the reference's mean that is allowed.
          parameter_share: of the reference's parameters that are allowed.
          least: what is wanted on every task where the reference has less.
          file: of the folder, for the reference's metrics.
          cache: of trainings; None keeps them as long as the process.
        """
        self.names = tuple(config["ladder"])
        self.path, self.least = folder / file, least
        self.reference, self.num_seeds, self.margin = reference, num_seeds, margin
        self.config, self.share = config, parameter_share
        # Everybody is trained on every task: no threshold stops anyone, nor does a limit the reference.
        tasks = {name: {**config["tasks"][name], "threshold": 0.0} for name in self.names}
        everything = {**config, "tasks": tasks, "space": {**config["space"], LIMIT: 0}}
        tasks_of_all = build_tasks(everything)
        self.space = build_space(everything, tasks_of_all)
        self.evaluator = build_evaluator(everything, tasks_of_all, MemoryCache() if cache is None else cache)
        self.seen: set[str] = set()

    def first_over(self, rows: Sequence[Row]) -> Verdict | None:
        """Returns the first of the candidates that is over the bar, if any; looks at each block once."""
        return next(iter(self.over(rows)), None)

    def over(self, rows: Sequence[Row]) -> list[Verdict]:
        """Returns those of a search's candidates that are over the bar; looks at each block once."""
        near = []
        for row in rows:
            if row.hash not in self.seen and ladder_passed([row], self.config):
                self.seen.add(row.hash)
                near.append(row)
        if not near:
            return []
        targets, most_parameters = self.targets()
        of_one_seed = [[json.loads(row.metrics)[name] for name in self.names] for row in near]
        return self.judge(
            [
                row
                for row, metrics in zip(near, of_one_seed, strict=True)
                if row.parameters <= most_parameters and (metrics >= targets - _MARGINS[1]).all()
            ]
        )

    def judge(self, rows: Sequence[Row]) -> list[Verdict]:
        """Trains candidates, whatever one seed said of them, and returns those that are over the bar."""
        targets, _ = self.targets()
        found = self._train([self.space.from_json(json.loads(row.candidate)) for row in rows], targets)
        verdicts = []
        for row, metrics in zip(rows, found, strict=True):
            mean = metrics.mean(0)
            said = ", ".join(
                f"{name} {value:.3f} ({target:.3f})"
                for name, value, target in zip(self.names, mean, targets, strict=True)
            )
            logging.getLogger(__name__).warning(
                "%s: %d seeds, means (least wanted): %s", row.hash[:8], len(metrics), said
            )
            if len(metrics) == self.num_seeds and (mean >= targets).all():
                verdicts.append(Verdict(row, dict(zip(self.names, metrics.T.tolist(), strict=True))))
        return verdicts

    def targets(self) -> tuple[np.ndarray, float]:
        """Returns the `[tasks]` means that are wanted, and the most parameters."""
        metrics, parameters = self.measure_reference()
        return np.maximum(metrics.mean(0) - self.margin, self.least), self.share * parameters

    def measure_reference(self) -> tuple[np.ndarray, int]:
        """Returns the reference's `[seeds, tasks]` metrics, and its parameters; trained once in a folder.

        Where it diverged it has 0, as candidates have.

        Raises:
          RunError: if what was kept is damaged, or this machine could not train the reference.
        """
        if not self.path.exists():
            graphs = ComputationGraph(np.asarray(KNOWN_BLOCKS[self.reference].edges)[None])
            found = evaluate_seeds(self.evaluator, graphs, range(self.num_seeds))
            # A bar that a lack of memory has lowered would be kept as the reference's.
            for status in np.unique(found.status):
                if status not in (OK, DIVERGED):
                    raise files.RunError(
                        f"The reference, {self.reference}, was not trained: "
                        f"{explain_status(int(status), self.space.reasons)}."
                    )
            metrics = np.nan_to_num(np.asarray(found.metrics[:, 0], np.float64))
            kept = {
                "block": self.reference,
                "parameters": int(found.parameters[0, 0]),
                "metrics": dict(zip(self.names, metrics.T.tolist(), strict=True)),
            }
            files.write_json(self.path, kept)
        kept = files.read_json(self.path)
        try:
            metrics = np.array([kept["metrics"][name] for name in self.names], np.float64).T
            return metrics, int(kept["parameters"])
        except (KeyError, TypeError, ValueError) as error:
            raise files.RunError(f"{self.path} is damaged: {type(error).__name__}: {error}") from error

    def _train(self, candidates: list[PyTree], targets: np.ndarray) -> list[np.ndarray]:
        """Returns `[seeds, tasks]` metrics of each; fewer seeds of those that are far below."""
        found: list[list[np.ndarray]] = [[] for _ in candidates]
        going = list(range(len(candidates)))
        # Few seeds first: most are dropped after them.
        counts = [count for count in _MARGINS if 1 < count < self.num_seeds] + [self.num_seeds]
        for first, last in itertools.pairwise([0, *counts]):
            if not going:
                break
            seeds = range(first, last)
            batch = jax.tree.map(lambda *leaves: np.stack(leaves), *(candidates[place] for place in going))
            metrics = evaluate_seeds(self.evaluator, batch, seeds).metrics
            for place, of_seeds in zip(going, np.swapaxes(metrics, 0, 1), strict=True):
                found[place] += list(np.nan_to_num(np.asarray(of_seeds, np.float64)))
            margin = _MARGINS.get(last, 0.0)
            going = [p for p in going if (np.mean(found[p], axis=0) >= targets - margin).all()]
        return [np.stack(each) for each in found]


def without_memory(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config whose ladder has no memory task, which is there for the search's sake."""
    return {**config, "ladder": tuple(name for name in config["ladder"] if name != "memory")}


def memory_bar(
    config: Mapping[str, Any], folder: Path, cache: Cache | None = None
) -> Callable[[Sequence[Row]], Verdict | None]:
    """Returns what finds the first of a search's candidates over the bar *memory*, if any.

    The share of parameters is that on the ladder's tasks, memory apart. The verdict's metrics have a
    `memory_LENGTH` for each length.

    Args:
      config: resolved; see `without_memory`.
      folder: where metrics of the LSTM are kept; a run folder.
      cache: of trainings; None keeps them as long as the process.

    Raises:
      RunError: when called, if what was kept in the folder is damaged.
    """
    near_misses = ReferenceBar(without_memory(config), folder, margin=0.0, parameter_share=0.25, cache=cache)
    machine = {name: config["evaluator"][name] for name in ("num_devices", "memory_gib")}

    def bar_of(length: int, least: float) -> ReferenceBar:
        of_length = memory_config(length, steps=MEMORY_STEPS, seed=config["seed"])
        return ReferenceBar(
            {**of_length, "evaluator": {**of_length["evaluator"], **machine}},
            folder,
            margin=0.0,
            least=least / 100,
            file=f"reference_memory_{length}.json",
            cache=cache,
        )

    def first_over(rows: Sequence[Row]) -> Verdict | None:
        for verdict in near_misses.over(rows):
            metrics = dict(verdict.metrics)
            wanted = paper_means("ELENA2")
            # The shortest takes least and wants most, 0.998; then those that most blocks miss.
            for length in sorted(wanted, key=lambda each: (each != min(wanted), -each)):
                # One at a time: each keeps the data of its task.
                found = bar_of(length, wanted[length]).judge([verdict.row])
                if not found:
                    break
                metrics[f"memory_{length}"] = found[0].metrics["memory"]
            else:
                return Verdict(verdict.row, metrics)
        return None

    return first_over
