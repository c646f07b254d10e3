"""From a computation graph to a program: shapes, instructions, or the reason why not.

A pure function that is jitted and vmapped over graphs. Conventions are those of the ELENAS
specification of this project (its [H] marks); the paper's are in its appendix D.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs.computation import (
    MATMUL,
    RECURSION,
    ComputationGraph,
    initial_nodes,
    intermediate_nodes,
)
from elenas_jax.graphs.liveness import (
    FIXED_LENGTH,
    NO_PARAMETERS,
    OUTPUT_ROWS,
    SHAPES,
    TOO_LONG,
    VALID,
    Liveness,
    liveness,
    reachable,
)
from elenas_jax.graphs.program import (
    AFTER,
    BEFORE,
    CONSTANT,
    CONSTANTS,
    DATA,
    HEADS,
    INSIDE,
    LOAD_MATRIX,
    LOAD_ROW,
    PARAMETER,
    TIME,
    Program,
)
from elenas_jax.ops import COMBINING, TRANSFORMING, TRANSFORMING_BY_NAME

_TRANSPOSES = np.array([row.shape_rule == "transpose" for row in TRANSFORMING])
_ONE_ROW = np.array([row.shape_rule == "one_row" for row in TRANSFORMING])
_ACTIVATION = np.array([row.is_activation for row in TRANSFORMING])
_ALONE = np.array([TRANSFORMING_BY_NAME[row.alone].code for row in COMBINING], np.int32)

# Known widths, as variables of the shape equations after two for each node.
_ONE, _TIME, _IN, _HIDDEN, _OUT = range(5)


class _Flow(NamedTuple):
    """How values depend on the input and on earlier steps; `[M]` each."""

    phase: jax.Array  # int32, see `program`
    constant: jax.Array  # bool, an intermediate node of parameters alone
    num_ancestors: jax.Array  # int32, within the step


class _Operands(NamedTuple):
    """The operands of the D intermediate nodes in the order of evaluation. Q = M places."""

    source: jax.Array  # [Q, D] int32 node
    code: jax.Array  # [Q, D] int32 combining code, 0 past the last operand
    number: jax.Array  # [D] int32, how many


def construct(
    graph: ComputationGraph,
    *,
    in_features: int,
    out_features: int,
    hidden_features: int = 64,
    head: str = "none",
    time_steps: int | None = None,
    max_instructions: int | None = None,
) -> Program:
    """Turns a graph into a program; jittable, and vmappable over graphs.

    Args:
      graph: unbatched, any number of nodes.
      in_features, out_features, hidden_features: widths; free widths become `hidden_features`.
      head: "none" (the final node has width out and is the logits) or "linear" (it has width
        hidden and a dense layer follows).
      time_steps: length of the sequence; None: any length, which then cannot size a parameter.
      max_instructions: room of the padded program; None has room for any graph of that many nodes.

    Returns:
      A program whose `status` is 0 or the first reason that holds (`explain` says it in words).

    Raises:
      ValueError: for widths that are not positive integers, or an unknown head.
    """
    _check_sizes(in_features, out_features, hidden_features, head, time_steps, max_instructions)
    edges = jnp.asarray(graph.edges)
    capacity = _capacity(edges.shape[-1]) if max_instructions is None else max_instructions
    sizes = (1, TIME if time_steps is None else time_steps, in_features, hidden_features, out_features)
    return Program(
        **_construct(edges, jnp.array(sizes), head, capacity),
        in_features=in_features,
        out_features=out_features,
        hidden_features=hidden_features,
        head=head,
        time_steps=time_steps,
    )


def construct_batch(
    graphs: ComputationGraph,
    *,
    in_features: int,
    out_features: int,
    hidden_features: int = 64,
    head: str = "none",
    time_steps: int | None = None,
    max_instructions: int | None = None,
) -> Program:
    """As `construct`, of a batch of graphs `[B, M, M]`, compiled.

    Compiled once for a number of graphs and nodes: widths and time are data.
    """
    _check_sizes(in_features, out_features, hidden_features, head, time_steps, max_instructions)
    edges = jnp.asarray(graphs.edges)
    capacity = _capacity(edges.shape[-1]) if max_instructions is None else max_instructions
    sizes = (1, TIME if time_steps is None else time_steps, in_features, hidden_features, out_features)
    return Program(
        **_construct_batch(edges, jnp.array(sizes), head, capacity),
        in_features=in_features,
        out_features=out_features,
        hidden_features=hidden_features,
        head=head,
        time_steps=time_steps,
    )


def _capacity(num_nodes: int) -> int:
    """Instructions of the longest program of that many nodes: one an edge, self-edges included."""
    return max(1, len(range(2, num_nodes, 2)) * num_nodes)


# Compiled also where the caller is not: op by op, a graph would take seconds the first time.
@functools.partial(jax.jit, static_argnames=("head", "capacity"))
def _construct(edges, sizes, head: str, capacity: int) -> dict:
    """Returns the arrays of a program; `sizes` `[5]` are the known widths in the order of `_ONE` and on."""
    num_nodes = edges.shape[0]
    live = liveness(ComputationGraph(edges))
    transforms = jnp.where(jnp.asarray(intermediate_nodes(num_nodes)), jnp.diagonal(live.edges), 0).astype(
        jnp.int32
    )
    if head == "none":
        # Rule 6: the losses take logits.
        dropped = (jnp.arange(num_nodes) == live.final) & jnp.asarray(_ACTIVATION)[transforms]
        transforms = jnp.where(dropped, 0, transforms)
    flow = _find_phases(live)
    operands = _order_operands(live, flow)
    rows, cols, result_rows, result_cols, fits = _infer_shapes(live, operands, transforms, head, sizes)

    initial = jnp.asarray(initial_nodes(num_nodes)) & live.network
    final_rows = result_rows[live.final]
    right_rows = jnp.where(live.recurrent, final_rows == 1, (final_rows == 1) | (final_rows == sizes[_TIME]))
    needs_length = jnp.any(initial & ((rows == TIME) | (cols == TIME)))

    fields, total = _lower(live, flow, operands, transforms, rows, cols, result_rows, result_cols, capacity)
    status = jnp.where(total > capacity, TOO_LONG, VALID)
    status = jnp.where(needs_length, FIXED_LENGTH, status)
    status = jnp.where(~jnp.any(initial), NO_PARAMETERS, status)
    status = jnp.where(~right_rows, OUTPUT_ROWS, status)
    status = jnp.where(~fits, SHAPES, status)
    status = jnp.where(live.reason != VALID, live.reason, status).astype(jnp.int32)

    valid = status == VALID
    fields["phase_ends"] = jnp.where(valid, fields["phase_ends"], 0)
    return fields | {
        "recurrent": live.recurrent & valid,
        "parameter_rows": jnp.where(initial & valid, rows, 0)[1::2],
        "parameter_cols": jnp.where(initial & valid, cols, 0)[1::2],
        "status": status,
    }


@functools.partial(jax.jit, static_argnames=("head", "capacity"))
def _construct_batch(edges, sizes, head: str, capacity: int) -> dict:
    return jax.vmap(lambda one: _construct(one, sizes, head, capacity))(edges)


def _check_sizes(in_features, out_features, hidden_features, head, time_steps, max_instructions) -> None:
    sizes = {"in_features": in_features, "out_features": out_features, "hidden_features": hidden_features}
    sizes |= {"time_steps": time_steps} if time_steps is not None else {}
    sizes |= {"max_instructions": max_instructions} if max_instructions is not None else {}
    for name, value in sizes.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} is {value!r}; it must be a positive integer.")
    if head not in HEADS:
        raise ValueError(f"head is {head!r}; allowed are {', '.join(map(repr, HEADS))}.")


def _find_phases(live: Liveness) -> _Flow:
    """Sorts nodes by what they read of the input and of earlier steps."""
    num_nodes = live.edges.shape[0]
    node = jnp.arange(num_nodes)
    same = node[:, None] == node[None, :]
    recursion = (live.edges == RECURSION) & ~same
    delayed = jnp.any(recursion, axis=1)  # read at the next step
    within = live.reach_within_step | same
    after_recursion = jnp.any(within & jnp.any(recursion, axis=0)[:, None], axis=0)
    before_recursion = jnp.any(within & delayed[None, :], axis=1)
    # A parameter's value of the previous step is zero at first: it is no constant.
    varies = live.depends_on_input | after_recursion | jnp.any(within & delayed[:, None], axis=0)
    constant = live.network & jnp.asarray(intermediate_nodes(num_nodes)) & ~varies
    phase = jnp.where(after_recursion, jnp.where(before_recursion, INSIDE, AFTER), BEFORE)
    return _Flow(jnp.where(constant, CONSTANTS, phase), constant, jnp.sum(live.reach_within_step, axis=0))


def _order_operands(live: Liveness, flow: _Flow) -> _Operands:
    """Sorts each node's operands: group by group, and in a group by class and node index.

    In a matmul what depends on the input comes before the rest; in other groups, whose order
    changes nothing but rounding, values come before constants and parameters.
    """
    num_nodes = live.edges.shape[0]
    index = jnp.arange(num_nodes)
    code = jnp.where(index[:, None] == index[None, :], 0, live.edges).astype(jnp.int32)[:, 2::2]
    fixed = jnp.asarray(initial_nodes(num_nodes)) | flow.constant
    later = jnp.where(code == MATMUL, ~live.depends_on_input[:, None], fixed[:, None])
    keys = 2 * len(COMBINING)
    key = jnp.where(code > 0, 2 * code + later, 0)
    # A counting sort, stable in the node index: rows of a short table are slow to sort otherwise.
    sizes = jnp.sum(key[None] == jnp.arange(1, keys)[:, None, None], axis=1)
    start = jnp.cumsum(sizes, axis=0) - sizes

    def visit(following, row):
        own = row[None, :] == jnp.arange(1, keys)[:, None]
        return following + own, jnp.sum(jnp.where(own, following, 0), axis=0)

    _, place = jax.lax.scan(visit, start, key)
    place = jnp.where(code > 0, place, num_nodes)  # out of range, dropped
    packed = index[:, None] * len(COMBINING) + code
    target = jnp.broadcast_to(jnp.arange(code.shape[1]), code.shape)
    packed = jnp.zeros_like(code).at[place, target].set(packed, mode="drop", unique_indices=True)
    return _Operands(packed // len(COMBINING), packed % len(COMBINING), jnp.sum(sizes, axis=0))


def _infer_shapes(live, operands, transforms, head, sizes):
    """Solves the equations between widths.

    Variables are the rows and columns of every node before its transform, 2M in all, and five
    known widths. Equal variables form classes; a class with two different known sizes does not
    fit, one without takes `hidden_features`.

    Returns:
      rows, cols `[M]` before the transform, rows, cols `[M]` of the result, and whether it fits.
    """
    num_nodes = live.edges.shape[0]
    num_variables = 2 * num_nodes + sizes.shape[0]
    known = 2 * num_nodes + jnp.arange(sizes.shape[0])
    node = jnp.arange(num_nodes)
    row_of, col_of = node, num_nodes + node
    transposes, one_row = jnp.asarray(_TRANSPOSES)[transforms], jnp.asarray(_ONE_ROW)[transforms]
    result_row_of = jnp.where(transposes, col_of, jnp.where(one_row, known[_ONE], row_of))
    result_col_of = jnp.where(transposes, row_of, col_of)

    source, code = operands.source, operands.code
    is_parameter = source % 2 == 1
    is_matmul, is_elementwise = code == MATMUL, code > MATMUL
    source_row, source_col = result_row_of[source], result_col_of[source]
    is_last = ~jnp.roll(is_matmul, -1, axis=0)
    is_first = (node == 0)[:, None]
    target_row, target_col = row_of[None, 2::2], col_of[None, 2::2]
    one = known[_ONE]
    # Rows: a chain has those of its first factor; a parameter of an elementwise group has one.
    of_parameter = is_elementwise & is_parameter
    relates = is_elementwise | (is_matmul & is_first)
    left = jnp.where(of_parameter, row_of[source], source_row)
    right = jnp.where(of_parameter, one, target_row)
    pairs = [(jnp.where(relates, left, one), jnp.where(relates, right, one))]
    # Columns: a chain has those of its last factor; inside it columns meet rows.
    right = jnp.where(is_matmul & ~is_last, jnp.roll(source_row, -1, axis=0), target_col)
    pairs.append((jnp.where(code > 0, source_col, one), jnp.where(code > 0, right, one)))
    # A node of parameters without a product has one row.
    has_data = jnp.any(is_matmul | (is_elementwise & ~is_parameter), axis=0)
    lone = live.network[2::2] & ~has_data
    pairs.append((jnp.where(lone, row_of[2::2], one), jnp.full(lone.shape, one)))
    final_width = known[_OUT] if head == "none" else known[_HIDDEN]
    ends = jnp.stack([row_of[0], col_of[0], result_col_of[live.final]])
    ties = jnp.stack([jnp.where(live.recurrent, known[_ONE], known[_TIME]), known[_IN], final_width])
    pairs.append((ends, ties))

    left = jnp.concatenate([jnp.ravel(pair[0]) for pair in pairs])
    right = jnp.concatenate([jnp.ravel(pair[1]) for pair in pairs])
    equal = jnp.zeros((num_variables, num_variables), bool).at[left, right].set(True)
    equal = equal | equal.T | jnp.eye(num_variables, dtype=bool)
    labels = _classes(equal)

    known_labels = labels[known]
    together = known_labels[:, None] == known_labels[None, :]
    fits = ~jnp.any(together & (sizes[:, None] != sizes[None, :]))
    belongs = labels[:, None] == known_labels[None, :]
    size = jnp.where(jnp.any(belongs, axis=1), sizes[jnp.argmax(belongs, axis=1)], sizes[_HIDDEN])
    size = size.astype(jnp.int32)
    return size[row_of], size[col_of], size[result_row_of], size[result_col_of], fits


def _classes(equal: jax.Array) -> jax.Array:
    """Returns `[U]` labels, the smallest member of each class; the relation is symmetric and reflexive."""
    return jnp.argmax(reachable(equal), axis=1)


def _lower(live, flow, operands, transforms, rows, cols, result_rows, result_cols, capacity):
    """Emits instructions node by node: operands from left to right, then the transform.

    Nodes are ordered by phase and then by their number of ancestors within the step, which
    orders any graph without a cycle. Returns the fields of a program and the number of instructions.
    """
    num_nodes = live.edges.shape[0]
    node = jnp.arange(num_nodes)
    is_initial = jnp.asarray(initial_nodes(num_nodes))
    first, first_code = operands.source[0], operands.code[0]
    # One row an intermediate node.
    computed, transform, constant = live.network[2::2], transforms[2::2], flow.constant[2::2]
    loads = computed & (is_initial[first] | (flow.constant[first] & ~constant))
    alone = jnp.where(first_code > 0, jnp.asarray(_ALONE)[first_code], 0)
    before = loads.astype(jnp.int32) + (computed & (alone > 0))  # instructions that prepare the first operand
    joined = before + jnp.maximum(operands.number - 1, 0)
    count = jnp.where(computed, joined + ((transform > 0) | (joined == 0)), 0)
    phase = flow.phase[2::2]
    key = (phase * num_nodes + flow.num_ancestors[2::2]) * num_nodes + node[2::2]
    base = jnp.sum(jnp.where(key[:, None] < key[None, :], count[:, None], 0), axis=0)
    # The slot of each node's value, and where it is read as a parameter: itself, or the constant
    # of its last instruction.
    result = jnp.zeros(num_nodes, jnp.int32).at[2::2].set(base + count)
    reference = jnp.where(is_initial, node // 2, num_nodes // 2 + result - 1)

    # From here on one row an instruction; `owner` counts intermediate nodes.
    place = jnp.arange(capacity)
    owns = (place[:, None] >= base[None, :]) & (place[:, None] < (base + count)[None, :])
    owner = jnp.argmax(owns, axis=1)
    real = place < jnp.sum(count)
    local = place - base[owner]
    prepares = local < before[owner]
    joins = ~prepares & (local < joined[owner])
    transforms_it = ~prepares & ~joins
    operand = jnp.where(joins, local - before[owner] + 1, 0)
    source, code = operands.source[operand, owner], operands.code[operand, owner]
    is_parameter, is_constant = source % 2 == 1, flow.constant[source]
    is_fixed = is_parameter | is_constant
    loads_it = prepares & loads[owner] & (local == 0)

    block = jnp.where(is_constant & (code != MATMUL), CONSTANT, PARAMETER)
    op = jnp.where(transforms_it, transform[owner], alone[owner])
    op = jnp.where(joins, jnp.where(is_fixed, block, DATA) + code, op)
    op = jnp.where(loads_it, jnp.where(is_parameter & (code != MATMUL), LOAD_ROW, LOAD_MATRIX), op)
    # What stands to the left is the instruction before, or the first operand itself.
    starts = (local == 0) & ~loads_it
    arg_a = jnp.where(starts, result[first[owner]], jnp.where(loads_it, 0, place))
    delay_a = starts & (first_code[owner] == RECURSION)
    arg_b = jnp.where(joins & ~is_fixed, result[source], 0)
    delay_b = joins & (code == RECURSION)
    parameter = jnp.where(real & (loads_it | (joins & is_fixed)), reference[source], -1)

    is_chain = (joins | loads_it) & (code == MATMUL)
    source_cols = jnp.where(is_parameter, cols[source], result_cols[source])
    value_rows = jnp.where(transforms_it, result_rows[2::2][owner], rows[2::2][owner])
    value_cols = jnp.where(transforms_it, result_cols[2::2][owner], cols[2::2][owner])
    value_cols = jnp.where(is_chain, source_cols, value_cols)

    def only_real(values):
        return jnp.where(real if values.ndim == 1 else real[:, None], values, 0).astype(jnp.int32)

    ends = jnp.cumsum(jnp.stack([jnp.sum(jnp.where(phase == which, count, 0)) for which in range(AFTER + 1)]))
    fields = dict(
        op=only_real(op),
        arg=only_real(jnp.stack([arg_a, arg_b], axis=1)),
        delay=only_real(jnp.stack([delay_a, delay_b], axis=1)),
        parameter=parameter.astype(jnp.int32),
        rows=jnp.concatenate([rows[:1], only_real(value_rows)]),
        cols=jnp.concatenate([cols[:1], only_real(value_cols)]),
        phase_ends=ends.astype(jnp.int32),
        output=jnp.where(live.final >= 0, result[live.final], 0).astype(jnp.int32),
    )
    return fields, jnp.sum(count)
