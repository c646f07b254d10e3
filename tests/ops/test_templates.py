"""Templates of Python expressions: which can be used, and what they need around them."""

import pytest

from elenas_jax.ops import COMBINING, TRANSFORMING
from elenas_jax.ops.templates import is_arithmetic, is_primary, is_template, takes_arguments

# template: takes arguments, is a primary, is arithmetic
USABLE = {
    "{x}": (False, True, False),
    "jnp.sin({x})": (True, True, False),
    "jnp.clip(a={x}, max=1)": (True, True, False),
    "jnp.f(\n{x})": (True, True, False),
    "(lambda v: v * 2)({x})": (True, True, False),
    "{x}[..., ::-1]": (False, True, False),
    "{x}.sum()": (False, True, False),
    "jnp.f(*{x})": (False, True, False),
    "jnp.maximum({x}, 0.1 * {x})": (False, True, False),
    "{x} * jax.nn.sigmoid({x})": (False, False, True),
    "jnp.sin({x}) + 1": (True, False, True),
    "-{x}": (False, False, True),
    "jnp.sin({x}) | 1": (True, False, False),
    "not {x}": (False, False, False),
    "{x} > 0": (False, False, False),
    "abs({x}) if True else {x}": (False, False, False),
}
REFUSED = (
    "",
    "x",
    "jnp.sin({y})",
    "jnp.sin({x}",
    "jnp.sin({x}}",
    "{0}",
    "{x!r}",
    "{x:>3}",
    "{x.real}",
    "{x}_",
    "'{x}'",
    "np.sin({x})",
    "{x} + h",
    "{x} # comment",
    "{x}\n+ 1",
    "y = {x}",
    "lambda v: v + {x}",
    "[v + {x} for v in (1, 2)]",
    None,
)


@pytest.mark.parametrize("template", USABLE)
def test_what_a_template_needs(template):
    assert is_template(template, ("x",)) and not is_template(template, ("x", "y"))
    assert (takes_arguments(template), is_primary(template), is_arithmetic(template)) == USABLE[template]


@pytest.mark.parametrize("template", REFUSED)
def test_what_cannot_be_used_is_refused(template):
    assert not is_template(template, ("x",))


def test_templates_of_two_operands():
    assert is_template("jnp.where({x} < {y}, {x}, {y})", ("x", "y"))
    assert not takes_arguments("jnp.maximum({x}, 2 * {y})")
    assert not is_template("{x} + {y} + {z}", ("x", "y"))


def test_the_tables_can_be_written():
    assert all(is_template(row.flax, ("x",)) for row in TRANSFORMING)
    functions = [row for row in COMBINING if row.flax]
    assert all(is_template(row.flax, ("x", "y")) for row in functions)
    assert {row.symbol for row in COMBINING if row not in functions} == {"", "@", "*", "+", "-"}
