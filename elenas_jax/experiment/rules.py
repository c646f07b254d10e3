"""Rules: what a key of a config may be, and what is said when it is something else."""

import collections.abc
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple


class ConfigError(ValueError):
    """A config that cannot be run; the message is one line."""


class Rule(NamedTuple):
    """What a key may be. Bounds hold for numbers, and for each number of a tuple."""

    default: Any
    kinds: tuple[type, ...]  # of bool, int, float, str, tuple and dict; a float may be given as an int
    low: float | None = None
    high: float | None = None
    above: float | None = None  # like low, but not equal to it
    choices: tuple[str, ...] = ()
    items: type | None = None  # of a tuple
    optional: bool = False  # may be None


def maker_rules(
    maker: Callable, without: Iterable[str] = (), bounds: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Rule]:
    """Reads rules off the signature of a function: names, defaults and annotations of its arguments.

    Args:
      maker: its arguments have defaults, but for those of `without`.
      without: arguments that are no keys.
      bounds: further fields of `Rule` by the name of the argument.
    """
    hints = typing.get_type_hints(maker)
    rules = {}
    for name, parameter in inspect.signature(maker).parameters.items():
        if name in without or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        kinds, choices, items, optional = _read_hint(hints.get(name, type(parameter.default)))
        fields = {"choices": choices, "items": items, "optional": optional} | dict(
            (bounds or {}).get(name, {})
        )
        rules[name] = Rule(parameter.default, kinds, **fields)
    return rules


def _read_hint(hint: Any) -> tuple[tuple[type, ...], tuple[str, ...], type | None, bool]:
    """Returns kinds, choices, kind of a tuple's items and whether None is allowed."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        parts = [_read_hint(part) for part in typing.get_args(hint)]
        return (
            tuple(dict.fromkeys(kind for kinds, *_ in parts for kind in kinds)),
            tuple(choice for part in parts for choice in part[1]),
            next((part[2] for part in parts if part[2]), None),
            any(part[3] for part in parts),
        )
    if hint in (None, type(None)):
        return (), (), None, True
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is typing.Literal:
        return (str,), arguments, None, False
    if origin in (tuple, list, collections.abc.Sequence):
        items = arguments[0] if arguments and arguments[0] in (bool, int, float, str) else None
        return (tuple,), (), items, False
    if origin in (dict, collections.abc.Mapping):
        return (dict,), (), None, False
    return (origin,), (), None, False


def check_section(prefix: str, given: Any, rules: Mapping[str, Rule], when: str = "") -> dict[str, Any]:
    """Returns the values of a section, defaults filled in.

    Args:
      prefix: "evaluator.", say; stands before the key in messages.
      given: the section of a config.
      rules: of the section.
      when: added to the message for an unknown key.

    Raises:
      ConfigError: for the first unknown key, wrong type or value out of range.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{prefix.rstrip('.')}={given!r}: it is a section of keys, so a dict.")
    check_keys(prefix, given, rules, when)
    return {
        key: check_value(f"{prefix}{key}", given.get(key, rule.default), rule) for key, rule in rules.items()
    }


def check_keys(prefix: str, given: Iterable[str], known: Iterable[str], when: str = "") -> None:
    known = tuple(known)
    for key in given:
        if key not in known:
            raise ConfigError(f"{prefix}{key} is no key of a config{when}{suggestion(key, known)}.")


def check_name(key: str, name: Any, known: Iterable[str]) -> str:
    """Returns `name` if it is known."""
    known = tuple(known)
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"{key}={name!r}: no such name{suggestion(str(name), known)}.")
    return name


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean ...? Allowed are ..." for an unknown name."""
    known = tuple(map(str, known))
    close = difflib.get_close_matches(str(name), known, n=1)
    allowed = ", ".join(known)
    return f"; did you mean {close[0]!r}? Allowed are {allowed}" if close else f"; allowed are {allowed}"


def check_value(key: str, value: Any, rule: Rule) -> Any:
    """Returns `value` in a kind of its rule: lists as tuples, and ints as floats where those are meant.

    Raises:
      ConfigError: if it is none of them, or out of range.
    """
    if value is None and rule.optional:
        return None
    value = _freeze(value)
    if type(value) is int and float in rule.kinds and int not in rule.kinds:
        value = float(value)
    if type(value) not in rule.kinds:
        raise ConfigError(f"{key}={value!r} is of type {type(value).__name__}; it must be {_allowed(rule)}.")
    if isinstance(value, tuple):
        if rule.items is not None:
            each = rule._replace(kinds=(rule.items,), items=None, optional=False)
            value = tuple(check_value(f"{key}[{place}]", item, each) for place, item in enumerate(value))
        if rule.default and not value:
            raise ConfigError(f"{key}=() is empty; it must be {_allowed(rule)}.")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if not (math.isfinite(value) and _in_range(value, rule)):
            raise ConfigError(f"{key}={value!r} is out of range; it must be {_allowed(rule)}.")
    elif isinstance(value, str) and rule.choices:
        check_name(key, value, rule.choices)
    return value


def _freeze(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _freeze(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    return value


def _in_range(number: float, rule: Rule) -> bool:
    return (
        (rule.low is None or number >= rule.low)
        and (rule.high is None or number <= rule.high)
        and (rule.above is None or number > rule.above)
    )


_WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a string", dict: "a dict"}
_MANY = {bool: "booleans", int: "whole numbers", float: "numbers", str: "strings"}


def _allowed(rule: Rule) -> str:
    """What a rule allows, in words."""
    words = []
    for kind in rule.kinds:
        if kind is tuple:
            words.append(f"a tuple of {_MANY[rule.items]}" if rule.items else "a tuple")
        elif kind is str and rule.choices:
            words.append(f"one of {', '.join(rule.choices)}")
        else:
            words.append(_WORDS.get(kind, kind.__name__))
    limits = [f"above {rule.above:g}"] if rule.above is not None else []
    limits += [f"at least {rule.low}"] if rule.low is not None else []
    limits += [f"at most {rule.high}"] if rule.high is not None else []
    text = " or ".join(words) + (f" {' and '.join(limits)}" if limits else "")
    return text + (" (or None)" if rule.optional else "")
