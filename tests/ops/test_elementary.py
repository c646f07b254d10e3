"""Adding an operation: what is refused, and that what is added works, in a process of its own."""

import pathlib
import re
import subprocess
import sys

import jax.numpy as jnp
import pytest

import elenas_jax.graphs  # noqa: F401 (whoever imports it has made constants of the tables)
from elenas_jax.ops import COMBINING, OPERATION_SETS, TRANSFORMING, Combining, Transforming, add_operation

SINE = Transforming(
    "sine", len(TRANSFORMING), "sin", "#ffd7a8", lambda x, _: jnp.sin(x), "jnp.sin({x})", "same"
)
MINIMUM = Combining(
    "min", len(COMBINING), "min", "#8a5a3c", jnp.minimum, "elementwise", flax="jnp.minimum({x}, {y})"
)


@pytest.mark.parametrize("row", (SINE, MINIMUM))
def test_an_operation_that_comes_too_late_is_refused(row):
    with pytest.raises(RuntimeError, match=f"{row.name!r} comes too late: restart Python"):
        add_operation(row)
    assert row not in TRANSFORMING and row not in COMBINING


@pytest.mark.parametrize(
    ("row", "message"),
    (
        (SINE._replace(name="tanh"), "There is an operation 'tanh' already"),
        (MINIMUM._replace(name="add"), "There is an operation 'add' already"),
        (SINE._replace(code=3), f"'sine' has code 3; the next one is {len(TRANSFORMING)}"),
        (
            SINE._replace(shape_rule="elementwise"),
            "shape rule 'elementwise'; allowed are same, transpose, one_row",
        ),
        (MINIMUM._replace(shape_rule="same"), "shape rule 'same'; allowed are elementwise"),
        *(
            (MINIMUM._replace(symbol=sign), f"'min' has symbol {sign!r}; it must be")
            for sign in ("+", "@", "")
        ),
        (SINE._replace(symbol="*"), "'sine' has symbol '*'; it must be a function's name"),
        (
            MINIMUM._replace(flax=""),
            "'min' has flax=''; it must be a Python expression of {x} and {y}, outside",
        ),
        (MINIMUM._replace(flax="jnp.sin({x})"), "'min' has flax='jnp.sin({x})'"),
        (
            SINE._replace(flax="jnp.sin(x)"),
            "flax='jnp.sin(x)'; it must be a Python expression of {x}, outside",
        ),
        (SINE._replace(flax="np.sin({x})"), "that knows no names but jax, jnp and Python's own"),
    ),
)
def test_rows_that_fit_no_table_are_refused(row, message, monkeypatch):
    monkeypatch.delitem(sys.modules, "elenas_jax.graphs")
    with pytest.raises(ValueError, match=re.escape(message)):
        add_operation(row)


def test_rows_are_appended_to_their_table_and_to_the_extended_set(monkeypatch):
    monkeypatch.delitem(sys.modules, "elenas_jax.graphs")
    for table in (TRANSFORMING, COMBINING):
        monkeypatch.setattr(sys.modules["elenas_jax.ops.elementary"], _name(table), list(table))
    for name in ("TRANSFORMING_BY_NAME", "COMBINING_BY_NAME", "OPERATION_SETS"):
        changed = dict(getattr(sys.modules["elenas_jax.ops.elementary"], name))
        monkeypatch.setattr(sys.modules["elenas_jax.ops.elementary"], name, changed)
    before = OPERATION_SETS["extended"]
    add_operation(SINE)
    add_operation(MINIMUM)
    now = sys.modules["elenas_jax.ops.elementary"]
    assert [*TRANSFORMING, SINE] == now.TRANSFORMING and [*COMBINING, MINIMUM] == now.COMBINING
    assert now.TRANSFORMING_BY_NAME["sine"] is SINE and now.COMBINING_BY_NAME["min"] is MINIMUM
    assert now.OPERATION_SETS["extended"] == ((*before[0], "min"), (*before[1], "sine"))
    assert now.OPERATION_SETS["paper"] == OPERATION_SETS["paper"]


def test_added_operations_are_drawn_computed_and_exported():
    script = pathlib.Path(__file__).parent / "added_operations.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all agree\n"


def _name(table):
    return "TRANSFORMING" if table is TRANSFORMING else "COMBINING"
