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
    WORD,
    Liveness,
    close_bits,
    liveness,
    pack_bits,
    unpack_bits,
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

# Nodes a compiled loop takes at a time: the same work, more of it side by side.
_UNROLL = 16

# Known widths, by their place in `sizes`.
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
    place: jax.Array  # [M, D] int32, of an operand among those of a node


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
        **_construct(edges, np.array(sizes, np.int32), head, capacity),
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
        **_construct_batch(edges, np.array(sizes, np.int32), head, capacity),
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
    # Distinct, and groups in their order; what is no operand comes last.
    none = 2 * len(COMBINING) * num_nodes
    key = jnp.where(code > 0, (2 * code + later) * num_nodes + index[:, None], none)
    packed = jnp.where(code > 0, index[:, None] * len(COMBINING) + code, 0)
    # Counting smaller keys, then selecting by the count: a row at a time, as sums of whole tables,
    # because short sorts and scatters are an order slower on a CPU.
    rows = functools.partial(jax.lax.fori_loop, 0, num_nodes, unroll=_UNROLL)
    place = rows(lambda s, count: count + (key[s] < key), jnp.zeros_like(key))
    chosen = rows(lambda s, found: found + jnp.where(place[s] == index[:, None], packed[s], 0), packed * 0)
    return _Operands(chosen // len(COMBINING), chosen % len(COMBINING), jnp.sum(code > 0, axis=0), place)


def _infer_shapes(live, operands, transforms, head, sizes):
    """Solves the equations between widths.

    Variables are the rows and columns of every node before its transform, 2M in all. Equal
    variables form classes; a class that equals two different known sizes does not fit, one that
    equals none takes `hidden_features`.

    Returns:
      rows, cols `[M]` before the transform, rows, cols `[M]` of the result, and whether it fits.
    """
    num_nodes = live.edges.shape[0]
    node = jnp.arange(num_nodes)
    transposes, one_row = jnp.asarray(_TRANSPOSES)[transforms], jnp.asarray(_ONE_ROW)[transforms]
    code = jnp.where(node[:, None] == node[None, :], 0, live.edges)[:, 2::2]
    is_parameter = jnp.asarray(initial_nodes(num_nodes))
    is_matmul, is_elementwise = code == MATMUL, code > MATMUL
    is_first = is_matmul & (operands.place == 0)
    is_last = is_matmul & (operands.place == jnp.sum(is_matmul, axis=0) - 1)
    # The result of an operand has the rows of the node: elementwise, and the first of a chain. A
    # parameter of an elementwise group has one row. Columns: elementwise, and the last of a chain.
    same_rows = _spread((is_elementwise & ~is_parameter[:, None]) | is_first, num_nodes)
    same_cols = _spread(is_elementwise | is_last, num_nodes)
    # Inside a chain the columns of a factor are the rows of the next.
    following = jnp.take_along_axis(operands.source, jnp.minimum(operands.place + 1, num_nodes - 1), axis=0)
    word, bit = following // WORD, jnp.uint32(1) << (following % WORD).astype(jnp.uint32)
    in_word = word[None] == jnp.arange(-(-num_nodes // WORD))[:, None, None]
    meets_words = jnp.bitwise_or.reduce(jnp.where(is_matmul & ~is_last & in_word, bit, 0), axis=2)
    meets = unpack_bits(meets_words, num_nodes)

    # A result's rows are columns before a transpose, and one after a mean over rows.
    swaps, keeps = transposes[:, None], (~transposes & ~one_row)[:, None]
    row_row = (same_rows & keeps) | (meets & swaps & keeps.T)
    col_row = (same_rows & swaps) | (meets & ~swaps & keeps.T)
    row_col = (same_cols & swaps) | (meets & swaps & swaps.T)
    col_col = (same_cols & ~swaps) | (meets & ~swaps & swaps.T)
    equal = jnp.block([[row_row, row_col], [col_row, col_col]])
    equal = equal | equal.T | jnp.eye(2 * num_nodes, dtype=bool)

    # A node of parameters without a product has one row.
    has_data = jnp.any(is_matmul | (is_elementwise & ~is_parameter[:, None]), axis=0)
    lone = live.network & _spread(~has_data, num_nodes)
    meets_one = jnp.any(meets_words & pack_bits(one_row)[:, None] != 0, axis=0)
    row_is_one = is_parameter & jnp.any(is_elementwise, axis=1) | lone
    row_is_one |= jnp.any(same_rows & one_row[:, None], axis=0) | (meets_one & transposes)
    is_data, is_final = node == 0, node == live.final
    nowhere = jnp.zeros(num_nodes, bool)
    is_known = {
        _ONE: (row_is_one | (is_data & live.recurrent), meets_one & ~transposes),
        _TIME: (is_data & ~live.recurrent, nowhere),
        _IN: (nowhere, is_data),
        _OUT if head == "none" else _HIDDEN: (is_final & transposes, is_final & ~transposes),
    }
    together = close_bits(pack_bits(equal))
    least = jnp.full(2 * num_nodes, jnp.iinfo(jnp.int32).max)
    most = jnp.full(2 * num_nodes, jnp.iinfo(jnp.int32).min)
    for which, members in is_known.items():
        member = jnp.any(together & pack_bits(jnp.concatenate(members))[:, None] != 0, axis=0)
        least = jnp.where(member, jnp.minimum(least, sizes[which]), least)
        most = jnp.where(member, jnp.maximum(most, sizes[which]), most)
    free = least > most
    size = jnp.where(free, sizes[_HIDDEN], most).astype(jnp.int32)
    rows, cols = size[:num_nodes], size[num_nodes:]
    result_rows = jnp.where(transposes, cols, jnp.where(one_row, 1, rows))
    return rows, cols, result_rows, jnp.where(transposes, rows, cols), jnp.all(free | (least == most))


def _spread(values: jax.Array, num_nodes: int) -> jax.Array:
    """From `[..., D]` intermediate nodes to `[..., M]` nodes, zero at the others."""
    last = num_nodes - 2 - max(2 * values.shape[-1] - 1, 0)
    config = [(0, 0, 0)] * (values.ndim - 1) + [(2, last, 1)]
    return jax.lax.pad(values, jnp.zeros((), values.dtype), config)


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
    result = _spread(base + count, num_nodes)
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
