"""Flags of scripts that take a config: every mistake in a recipe or an override is one line.

absl and ml-collections report a file that cannot be read, an error in it, an unknown key and a
value of the wrong type in four ways, three of them tracebacks.
"""

import importlib.util
import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags, logging

from elenas_jax.experiment.rules import ConfigError, suggestion


def parse_flags(arguments: list[str]) -> list[str]:
    """As absl's parser, but a mistake, or what is no flag, ends the process with one line and code 2.

    Use: `app.run(main, flags_parser=parse_flags)`, with the recipe in `--config=file.py`.
    """
    try:
        _check_recipe(arguments)
        rest = flags.FLAGS(arguments)
        if len(rest) > 1:
            raise ConfigError(f"{rest[1]!r} is no flag; see --helpshort.")
    except (flags.Error, ConfigError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # JAX and Orbax tell absl what they do
    return rest


def print_any_name() -> None:
    """Has standard output replace what it cannot write: names of files may hold bytes that are no text."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def require(*names: str) -> None:
    """Raises ConfigError for the first of these flags that is not given, or empty."""
    for name in names:
        if flags.FLAGS[name].value in (None, ""):
            raise ConfigError(f"--{name}=... is missing; see --helpshort.")


def check_writable(name: str, value: str | None) -> None:
    """Raises ConfigError if the file of a flag cannot be written; writes nothing, None is no file."""
    if value is None:
        return
    path = Path(value).absolute()
    if path.is_dir():
        raise ConfigError(f"--{name}={value}: it is a folder; name a file.")
    if not path.parent.is_dir():
        raise ConfigError(f"--{name}={value}: there is no folder {path.parent}.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"--{name}={value}: {path.parent} cannot be written; choose another folder.")


def with_recipe(arguments: Sequence[str], path: Path) -> list[str]:
    """Returns a script's arguments with the recipe at `path`, where none is given.

    A default of the flag itself would be read as the flag is defined, and mistakes in overrides with it.
    """
    given = any(re.match(r"--?config(=|$)", argument) for argument in arguments[1:])
    return [*arguments[:1], *([] if given else [f"--config={path}"]), *arguments[1:]]


def _check_recipe(arguments: list[str]) -> None:
    """Raises ConfigError if the recipe cannot be read or an override names a key it does not have."""
    text = "\n".join(arguments[1:])
    recipe = re.search(r"^--?config[=\n](.+)$", text, re.MULTILINE)
    if not recipe:
        return
    name, _, argument = recipe[1].partition(":")
    config = load_recipe(name, *([argument] if argument else []))
    for given in re.findall(r"^--?(?:no)?config\.([\w.]+)", text, re.MULTILINE):
        node: Any = config
        for key in given.split("."):
            known = list(node) if isinstance(node, ml_collections.ConfigDict) else []
            if key not in known:
                raise ConfigError(f"--config.{given}: {key!r} is no key of {name}{suggestion(key, known)}.")
            node = node[key]


def load_recipe(name: str, *arguments: str) -> ml_collections.ConfigDict:
    """Returns `get_config()` of the file `name`.

    Raises:
      ConfigError: if there is no such file, or it has an error; one line with its place.
    """
    path = Path(name)
    if not path.is_file():
        near = [str(each) for each in sorted(Path("configs").glob("*/*.py"))]
        raise ConfigError(f"--config={name}: no such file{suggestion(name, near) if near else ''}.")
    try:
        spec = importlib.util.spec_from_file_location("recipe", path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"--config={name}: it is no Python file.")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config(*arguments)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    except Exception as error:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
        ]
        where = f" line {lines[-1]}" if lines else ""
        raise ConfigError(f"{name}{where}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(f"{name}: get_config() must return a ConfigDict, not a {type(config).__name__}.")
    return config


def parse_seeds(text: str) -> list[int]:
    """Returns the seeds that "0..4", "0,3,5" or a mixture names."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\.\.(\d+))?\s*", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise ConfigError(f"--seeds={text}: it must look like 0..4 or 0,3,5.")
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(seeds))


def parse_settings(texts: Sequence[str]) -> dict[str, str]:
    """Returns the settings that ["length=64", "validation=fold"] names, as text."""
    settings = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name and sign and value):
            raise ConfigError(
                f"--task_settings={','.join(texts)}: it must look like length=64,validation=fold."
            )
        settings[name.strip()] = value.strip()
    return settings


def parse_lengths(texts: Sequence[str]) -> list[int]:
    """Returns the lengths that ["20", "30", "40"] names, ascending."""
    if not texts or not all(text.strip().isdecimal() for text in texts):
        raise ConfigError(f"--lengths={','.join(texts)}: it must look like 20,30,40.")
    return sorted({int(text) for text in texts})
