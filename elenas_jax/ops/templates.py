"""Templates of Python expressions: how operations are written as source code.

`{x}` stands for an operand and `{y}` for a second one, as in `jnp.maximum({x}, {y})`; jax and jnp are
in scope. What an expression needs around its operands, and around itself, is read off its syntax tree.
"""

import ast
import builtins
import functools
import string

_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.MatMult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_SCOPES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def is_template(template: str, operands: tuple[str, ...]) -> bool:
    """Whether a text is a Python expression of these operands that runs where only jax and jnp are known.

    Operands inside a lambda or a comprehension are refused: names of its own could be theirs.
    """
    try:
        parts = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
        if any(part not in [(operand, "", None) for operand in operands] for part in parts):
            return False
        tree = _parse(template)
        ast.parse(f"({template})".format(x="x", y="y"))  # no comment that would take what follows with it
    except (TypeError, ValueError, SyntaxError, RecursionError):
        return False
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    inner = {node for scope in ast.walk(tree) if isinstance(scope, _SCOPES) for node in ast.walk(scope)}
    bound = {node.arg for node in inner if isinstance(node, ast.arg)}
    bound |= {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    found = [node.id for node in names if _is_operand(node) and node not in inner]
    known = {"jax", "jnp", *dir(builtins), *bound}
    is_known = all(node.id in known for node in names if not _is_operand(node))
    return set(found) == {_name(operand) for operand in operands} and len(found) == len(parts) and is_known


@functools.cache
def takes_arguments(template: str) -> bool:
    """Whether each operand is a whole argument of a call, so that it never needs brackets."""
    tree = _parse(template)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    arguments = {id(part) for call in calls for part in (*call.args, *(each.value for each in call.keywords))}
    return all(id(node) in arguments for node in ast.walk(tree) if _is_operand(node))


@functools.cache
def is_primary(template: str) -> bool:
    """Whether the expression is one call, index or attribute, which holds together in any other."""
    return isinstance(_parse(template), ast.Call | ast.Subscript | ast.Attribute | ast.Name)


@functools.cache
def is_arithmetic(template: str) -> bool:
    """Whether the expression holds together at least as tightly as a sum."""
    tree = _parse(template)
    if isinstance(tree, ast.UnaryOp):
        return not isinstance(tree.op, ast.Not)
    return isinstance(tree, ast.BinOp) and isinstance(tree.op, _ARITHMETIC)


def _parse(template: str) -> ast.expr:
    return ast.parse(template.format(x=_name("x"), y=_name("y")), mode="eval").body


def _name(operand: str) -> str:
    return f"_operand_{operand}_"


def _is_operand(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in (_name("x"), _name("y"))
