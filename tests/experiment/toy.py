"""A search without networks: numbers that are sorted, scored by their bytes, and remembered.

Everything the loop relies on is there (chunks, a cache, invalid and equal candidates, a state with
a typed key), and a generation takes milliseconds.
"""

import hashlib
import sys
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.evaluation.cache import Cache, Record
from elenas_jax.experiment import plan, session
from elenas_jax.experiment import run_dir as files
from elenas_jax.experiment.archive import Archive
from elenas_jax.experiment.checkpoint import Checkpoints
from elenas_jax.experiment.loop import Experiment, Outcome, restore, search
from elenas_jax.types import DIVERGED, OK, Evaluation, Proposal, SearchSpace, Strategy

REASONS = ("valid", "sum is a multiple of five")
BATCH = 10
CHUNK = 3
TASK_NAMES = ("first", "second")


def status(candidate: jax.Array) -> jax.Array:
    return (jnp.sum(candidate) % 5 == 0).astype(jnp.int32)


def canonical(candidate: np.ndarray) -> bytes:
    return np.sort(np.asarray(candidate, np.int32)).tobytes()


def _never(*arguments: Any) -> Any:
    raise AssertionError("The loop does not need this.")


SPACE = SearchSpace(
    name="toy",
    reasons=REASONS,
    sample=lambda key: jax.random.randint(key, (3,), 0, 6),
    mutate=_never,
    crossover=_never,
    status=status,
    canonical=canonical,
    to_graph=_never,
    build=_never,
    describe=lambda candidate: " + ".join(map(str, np.asarray(candidate))),
    drawing=lambda candidate: {"nodes": [], "edges": [], "legend": []},
    to_json=lambda candidate: np.asarray(candidate).tolist(),
    from_json=lambda listed: np.asarray(listed, np.int32),
    known=None,
    growth=None,
)


class State(NamedTuple):
    key: jax.Array
    best: jax.Array  # [3] int32
    best_score: jax.Array  # [] float32
    nothing: jax.Array  # [0] float32


def _init(key: jax.Array) -> State:
    return State(key, jnp.zeros(3, jnp.int32), jnp.float32(-1.0), jnp.zeros(0))


@jax.jit
def _ask(key: jax.Array, state: State) -> tuple[Proposal, State]:
    """Half at random, half near the best; the last row is padding."""
    key_state, key_next = jax.random.split(state.key)
    drawn = jax.vmap(SPACE.sample)(jax.random.split(key, BATCH))
    near = (state.best + jax.random.randint(key_state, (BATCH, 3), 0, 2)) % 6
    candidates = jnp.where(jnp.arange(BATCH)[:, None] % 2 == 0, drawn, near)
    proposal = Proposal(candidates, jnp.zeros(BATCH, jnp.int32), jnp.arange(BATCH) < BATCH - 1)
    return proposal, state._replace(key=key_next)


def _tell(key: jax.Array, state: State, proposal: Proposal, evaluation: Evaluation) -> State:
    place = int(np.argmax(evaluation.score))
    if evaluation.score[place] > state.best_score:
        state = state._replace(
            best=proposal.candidates[place], best_score=jnp.float32(evaluation.score[place])
        )
    return state._replace(key=jax.random.fold_in(state.key, jax.random.bits(key)))


STRATEGY = Strategy(_init, _ask, _tell, lambda state: {"best": state.best_score})


class ToyEvaluator:
    """Trains nothing, in chunks of `CHUNK`; `fail_at` is called at moments that a kill may hit."""

    task_names = TASK_NAMES
    plan: ClassVar = {
        "devices": "2 x toy",
        "num_devices": 2,
        "candidates_per_chunk": 2 * CHUNK,
        "executor": "toy",
        "memory_limit_gib": 0.001,
    }

    def __init__(self, cache: Cache, fail_at: Callable[[str], None] = lambda where: None) -> None:
        self.cache = cache
        self.fail_at = fail_at
        self.trained: list[bytes] = []

    def prepare(self) -> None: ...

    def close(self) -> None: ...

    def seconds(self) -> dict[str, float]:
        return {}

    @staticmethod
    def cache_key(form: bytes, budget: int, replicate: int) -> bytes:
        return form + bytes([budget, replicate])

    def evaluate(self, candidates, budget, replicate=0, valid_candidates=None, on_chunk=None) -> Evaluation:
        rows = np.asarray(candidates)
        is_valid = rows.sum(axis=1) % 5 != 0
        if valid_candidates is not None:
            is_valid &= np.asarray(valid_candidates)
        forms = [canonical(row) for row in rows]
        keys = [self.cache_key(form, int(b), replicate) for form, b in zip(forms, budget, strict=True)]
        found = self.cache.get([key for key, valid in zip(keys, is_valid, strict=True) if valid])
        wanted = list(
            dict.fromkeys(k for k, valid in zip(keys, is_valid, strict=True) if valid and k not in found)
        )
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            self.fail_at("before a chunk is kept")
            self.cache.put([(key, _digest(key[:-2]), self._train(key)) for key in chunk])
            self.fail_at("after a chunk is kept")
            if on_chunk is not None:
                on_chunk(start + len(chunk), len(wanted))
        found = self.cache.get(keys)
        invalid = Record(0.0, (float("nan"), float("nan")), 1, 0, 0.0, 0, 0.0)
        records = [found[key] if valid else invalid for key, valid in zip(keys, is_valid, strict=True)]
        columns = [np.array(column) for column in zip(*records, strict=True)]
        score, metrics, statuses, parameters, flops, train_steps, seconds = columns
        return Evaluation(
            score.astype(np.float32), metrics, statuses, parameters, flops, train_steps, seconds
        )

    def _train(self, key: bytes) -> Record:
        self.trained.append(key)
        number = int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "little")
        if number % 7 == 0:
            return Record(0.0, (float("nan"), float("nan")), DIVERGED, 3, 10.0, 5, 0.01)
        score = float(np.float32(number % 1000 / 999))
        second = score / 2 if score > 0.5 else float("nan")
        return Record(score, (score, second), OK, 3, 10.0, 20, number % 13 / 10)


def _digest(form: bytes) -> str:
    return hashlib.blake2b(form, digest_size=16).hexdigest()


def run_toy(
    path: Any, generations: int = 6, fail_at: Callable[[str], None] = lambda where: None, **limits: float
) -> tuple[Outcome, ToyEvaluator]:
    """Runs or resumes a toy search at `path`."""
    run = files.run_dir(path)
    config = {"generations": generations, "evaluations": 0, "minutes": 0.0} | limits
    with files.locked(run), Archive(run.archive) as archive:
        archive.open({"task_names": list(TASK_NAMES), "reasons": list(REASONS)})
        evaluator = ToyEvaluator(archive, fail_at)
        experiment = Experiment(config, SPACE, STRATEGY, evaluator, jax.random.key(0))
        checkpoints = Checkpoints(run.checkpoints)
        try:
            state, rows = restore(experiment, run, archive, checkpoints)
            return search(experiment, run, archive, checkpoints, state, rows), evaluator
        finally:
            checkpoints.close()


if __name__ == "__main__":
    run_toy(sys.argv[1], int(sys.argv[2]))


def use_toy(monkeypatch) -> None:
    """Lets sessions search among the toy's numbers, whatever the config says."""

    def build(resolved, archive):
        return Experiment(resolved, SPACE, STRATEGY, ToyEvaluator(archive), jax.random.key(resolved["seed"]))

    monkeypatch.setattr(session, "build", build)
    monkeypatch.setattr(session, "prepare", lambda resolved, console: None)
    monkeypatch.setattr(plan, "seconds_per_training", lambda config: (1.0, 2.0))
