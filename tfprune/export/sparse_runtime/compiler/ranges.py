"""Which tensors hold no negative value.

Zeros around such a map are never larger than what is in it, so a maximum may read them.
"""

from __future__ import annotations

from tfprune.export.sparse_runtime.compiler.program import Program, Tensor

_ZERO_OR_MORE = ("RELU", "RELU6", "LOGISTIC", "EXP", "ABS", "SQUARE", "SQRT")
_KEEP = ("CONCATENATION", "MAX_POOL_2D", "AVERAGE_POOL_2D", "ADD", "MUL", "MEAN", "PAD", "RESHAPE")
_CLAMPED_AT_ZERO = (1, 3)  # Fused RELU and RELU6.


def nonnegative(program: Program) -> set[Tensor]:
    """Return tensors that cannot be negative, as far as the operators before them tell."""
    found: set[Tensor] = set()
    for op in program.ops:
        constants = (x for x in op.inputs if x is not None and x.is_constant)
        if (
            op.code in _ZERO_OR_MORE
            or op.activation in _CLAMPED_AT_ZERO
            or (
                op.code in _KEEP
                and op.activations
                and found.issuperset(op.activations)
                and all((constant.values >= 0).all() for constant in constants)
            )
        ):
            found.update(op.outputs)
    return found
