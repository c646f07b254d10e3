"""Pre-trained policies on disk: made by `pretrain`, loaded where a config names their folder.

A folder holds `pretraining.json` (space, strategy, updates and, when it is finished, accuracy) and
checkpoints of parameters and optimiser. It is of as many updates as it was begun with. What a policy was
pre-trained for must be what the search is about.
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from elenas_jax.experiment import run_dir as files
from elenas_jax.experiment.checkpoint import Checkpoints
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.strategies.pretraining import make_optimiser, make_pretraining
from elenas_jax.types import PyTree, SearchSpace, Strategy

_MEASURE = 2**32 - 1  # folded into the seed's key for the episodes that accuracy is measured on
RECORD = "pretraining.json"
# Settings of a strategy that say what the policy is; of another width its parameters fit nowhere.
POLICY_SETTINGS = ("name", "width", "num_rounds", "num_layers", "num_heads", "use_prior", "exploration")


def pretrain(
    config: Mapping[str, Any],
    space: SearchSpace,
    strategy: Strategy,
    folder: Path,
    *,
    updates: int,
    learning_rate: float,
    save_every: int = 50,
    on_update: Callable[[int, float], None] = lambda done, loss: None,
) -> dict[str, Any]:
    """Pre-trains the policy of a config, or goes on with it; returns what is in the record.

    Args:
      config: resolved.
      space, strategy: of the config, which starts from scratch.
      folder: of the result; made if need be.
      updates: of the parameters.
      learning_rate: of Adam.
      save_every: updates between checkpoints.
      on_update: told the updates done and the last loss.

    Raises:
      ConfigError: if the strategy learns no policy, or the folder holds another pre-training.
    """
    if strategy.policy is None:
        raise ConfigError(f"strategy.name={config['strategy']['name']!r} learns no policy to pre-train.")
    settings = {"seed": config["seed"], "learning_rate": learning_rate, "updates": updates}
    about = files.plain(_about(config) | settings)
    try:
        jax.eval_shape(space.known, jax.random.key(0))
    except ValueError as error:
        raise ConfigError(f"space: {error}") from error
    record = folder / RECORD
    if record.exists():
        kept = files.read_json(record)
        if any(kept.get(name) != value for name, value in about.items()):
            raise ConfigError(f"{folder} holds a pre-training with other settings; use another folder.")
    elif folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} holds something else than a pre-training; use another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    if not record.exists():  # the first file, so that a folder without it holds nothing
        files.write_json(record, about)
    pretraining = make_pretraining(space, strategy.policy, learning_rate=learning_rate)
    key = jax.random.key(config["seed"])
    params = jax.tree.map(jnp.asarray, strategy.init(key).params)
    with contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        state: PyTree = (params, pretraining.init(params))
        done = checkpoints.newest() or 0
        if done:
            state = checkpoints.restore(done, state)
        key_measure = jax.random.fold_in(key, _MEASURE)
        before = pretraining.measure(key_measure, params)
        while done < updates:
            *state, loss = pretraining.update(jax.random.fold_in(key, done), *state)
            done += 1
            on_update(done, float(loss))
            if done % save_every == 0 or done == updates:
                state = checkpoints.save(done, tuple(state))
        after = pretraining.measure(key_measure, state[0])
    numbers = {
        name: {key: float(value) for key, value in accuracy._asdict().items()}
        for name, accuracy in (("before", before), ("after", after))
    }
    found = about | numbers
    files.write_json(record, found)
    return found


def load_params(config: Mapping[str, Any]) -> Callable[[PyTree], PyTree] | None:
    """Returns what gives a strategy its first parameters from those it would start with; None from scratch.

    Args:
      config: resolved; `strategy.pretrained` names the folder.

    Raises:
      ConfigError: if there is no pre-training, or one for another space or policy.
    """
    name = config["strategy"].get("pretrained", "")
    if not name:
        return None
    folder = Path(name)
    if not (folder / RECORD).exists():
        raise ConfigError(
            f"strategy.pretrained={name!r}: there is no {RECORD} in it; see scripts/pretrain.py."
        )
    kept, about = files.read_json(folder / RECORD), files.plain(_about(config))
    if "after" not in kept:
        raise ConfigError(f"strategy.pretrained={name!r} is not finished; call scripts/pretrain.py again.")
    for section, wanted in about.items():
        for setting, value in wanted.items():
            found = kept.get(section, {}).get(setting)
            if found != value:
                raise ConfigError(
                    f"strategy.pretrained={name!r} was made with {section}.{setting}={found!r}; "
                    f"this config has {value!r}."
                )

    def load(like: PyTree) -> PyTree:
        state = (like, make_optimiser(learning_rate=1.0).init(like))
        with contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints:
            return checkpoints.restore(kept["updates"], state)[0]

    return load


def _about(config: Mapping[str, Any]) -> dict[str, Any]:
    strategy = {name: config["strategy"][name] for name in POLICY_SETTINGS if name in config["strategy"]}
    return {"space": dict(config["space"]), "strategy": strategy}
