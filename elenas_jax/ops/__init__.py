"""What a node may compute: tables of operations, one row an operation."""

from elenas_jax.ops.elementary import (
    COMBINING,
    COMBINING_BY_NAME,
    OPERATION_SETS,
    TRANSFORMING,
    TRANSFORMING_BY_NAME,
    add_operation,
)
from elenas_jax.ops.table import Combining, Extent, Transforming

__all__ = (
    "COMBINING",
    "COMBINING_BY_NAME",
    "OPERATION_SETS",
    "TRANSFORMING",
    "TRANSFORMING_BY_NAME",
    "Combining",
    "Extent",
    "Transforming",
    "add_operation",
)
