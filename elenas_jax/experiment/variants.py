"""Variants of strategies by name, for comparisons: `reinforce`, `ppo+pretrained`, `reinforce-positions`.

A name is that of a strategy and modifiers, each of which changes settings of the space, the reward or the
strategy. Those with a minus are ablations: of what Aichberger and Klambauer (2023) claim without numbers,
which is position features, the order of edges by sub-graphs, and shaping of rewards; and of the imitation of
the best episodes, which is this package's.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from elenas_jax.experiment.config import PRETRAINED, SHAPING
from elenas_jax.experiment.rules import ConfigError

_PRETRAINED = f"+{PRETRAINED}"
# What a modifier changes, by section. Policies learn from rewards and see positions: search by sampling and
# mutation is the same with and without.
MODIFIERS: dict[str, dict[str, dict[str, Any]]] = {
    _PRETRAINED: {},
    "+masks": {"space": {"masks": True}},
    "-positions": {"space": {"positions": False}},
    "-subgraphs": {"space": {"order": "random"}},
    "-shaping": {"reward": dict.fromkeys(SHAPING, 0.0)},
    "-elites": {"strategy": {"num_elites": 0}},
}


class Variant(NamedTuple):
    """A strategy with modifiers."""

    name: str  # as given
    strategy: str
    modifiers: tuple[str, ...]
    changes: Mapping[str, Mapping[str, Any]]  # settings by section, of all modifiers
    pretrained: bool


def parse_variant(name: str, strategies: Collection[str], learning: Collection[str]) -> Variant:
    """Returns the variant of a name.

    Args:
      name: such as "reinforce+pretrained-shaping".
      strategies: names there are.
      learning: those that learn a policy; the others have no modifiers.

    Raises:
      ConfigError: for an unknown strategy or modifier, or one given twice.
    """
    match = re.fullmatch(r"([a-z_0-9]+)((?:[+-][a-z_]+)*)", name)
    if not match or match[1] not in strategies:
        raise ConfigError(
            f"{name!r} is no strategy; known are {', '.join(strategies)}, and for those that learn with "
            f"{', '.join(MODIFIERS)} behind."
        )
    strategy, modifiers = match[1], re.findall(r"[+-][a-z_]+", match[2])
    for modifier in modifiers:
        if modifier not in MODIFIERS:
            raise ConfigError(f"{name!r}: unknown {modifier!r}; allowed are {', '.join(MODIFIERS)}.")
        if strategy not in learning:
            raise ConfigError(f"{name!r}: {strategy} learns no policy, so {modifier!r} changes nothing.")
    if len(set(modifiers)) < len(modifiers):
        raise ConfigError(f"{name!r}: each modifier stands once.")
    changes: dict[str, dict[str, Any]] = {}
    for modifier in modifiers:
        for section, settings in MODIFIERS[modifier].items():
            changes.setdefault(section, {}).update(settings)
    return Variant(name, strategy, tuple(modifiers), changes, _PRETRAINED in modifiers)


def apply_changes(config: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    """Returns a config with the settings of a variant changed.

    Raises:
      ConfigError: for a setting that the config does not have, or a modifier that changes nothing in it.
    """
    for section, settings in variant.changes.items():
        if missing := settings.keys() - config[section].keys():
            space = config["space"]["name"]
            raise ConfigError(f"{variant.name!r}: with space {space!r} there is no {section}.{min(missing)}.")
    for modifier in variant.modifiers:
        wanted = [
            (section, key, value)
            for section, changes in MODIFIERS[modifier].items()
            for key, value in changes.items()
        ]
        if wanted and all(config[section][key] == value for section, key, value in wanted):
            names = ", ".join(f"{section}.{key} is {value}" for section, key, value in wanted)
            raise ConfigError(f"{variant.name!r}: {modifier} changes nothing, as {names} without it.")
    return dict(config) | {
        section: {**config[section], **settings} for section, settings in variant.changes.items()
    }
