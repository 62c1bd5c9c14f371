"""Rewrites a program so that chosen operators run in sparse mode, and no others can."""

from __future__ import annotations

import copy

from tfprune.export.sparse_runtime.compiler.borders import (
    enter,
    joined,
    keep_outside,
    leave,
    reshaped,
)
from tfprune.export.sparse_runtime.compiler.emitter import Emitter, mean
from tfprune.export.sparse_runtime.compiler.lowering import Context, Parts, is_stem, lower
from tfprune.export.sparse_runtime.compiler.plan import is_way_out
from tfprune.export.sparse_runtime.compiler.program import Op, Program, Tensor


def transformed(program: Program, inside: set[Op], stems: set[Op], context: Context) -> Program:
    """Return a program that computes the same with some operators in sparse mode.

    Args:
        program: the program; it is not changed.
        inside: the operators that go inside.
        stems: those of them that enter sparse mode by themselves.
        context: decides between forms.
    """
    emitter = Emitter()
    held: dict[Tensor, Parts] = {}
    consumers = program.consumers()

    def parts_of(tensor: Tensor) -> Parts:
        if tensor not in held:
            emitter.name = tensor.name
            held[tensor] = enter(emitter, tensor)
        return held[tensor]

    for op in program.ops:
        if op not in inside:
            emitter.ops.append(_outside(op))
            continue
        start = len(emitter.ops)
        if op in stems:
            held[op.output] = [_stem(emitter, op)]
        else:
            inputs = [parts_of(x) for x in op.activations]
            parts = lower(emitter, op, inputs, context)
            if is_way_out(op):
                emitter.ops[-1].outputs = [op.output]
            else:
                held[op.output] = parts
        readers = consumers.get(op.output, [])
        read_outside = any(reader not in inside for reader in readers)
        if op.output in held and (read_outside or op.output in program.outputs):
            _leave(emitter, op, held)
        for new in emitter.ops[start:]:
            new.origin = op
    result = copy.copy(program)
    result.ops = emitter.ops
    result.drop_unused()
    return result


def _stem(emitter: Emitter, op: Op) -> Tensor:
    """Emit the convolution as it is."""
    output = Tensor(f"{op.output.name}/stem", op.output.shape)
    emitter.ops.append(Op(op.code, list(op.inputs), [output], op.options, op.pads, entry=op.entry))
    return output


def _leave(emitter: Emitter, op: Op, held: dict[Tensor, Parts]) -> None:
    """Bring the output of an operator out, for those who read it outside."""
    emitter.name = op.output.name
    if op.code != "MEAN":
        leave(emitter, held[op.output], op.output)
        return
    # Without the axes: a reader outside that could run in sparse mode would be taken for a part of
    # the cluster if it read a map of 1x1.
    means = []
    for part in held[op.inputs[0]]:
        pooled = Tensor(f"{op.output.name}/pooled", (part.shape[0], part.shape[3]))
        emitter.ops.append(mean(part, pooled, keep_axes=False))
        means.append(pooled)
    if not op.output.is_map:
        joined(emitter, means, op.output)
        return
    channels = (op.output.shape[0], op.output.shape[3])
    pooled = Tensor(f"{op.output.name}/joined", channels)
    joined(emitter, means, pooled)
    reshaped(emitter, pooled, op.output)


def _outside(op: Op) -> Op:
    is_pointwise = op.code == "CONV_2D" and op.inputs[1].shape[1:3] == (1, 1)
    would_fit = is_pointwise and op.strides == (1, 1) and op.pads is not None
    kept = keep_outside(op) if would_fit or is_stem(op) else copy.copy(op)
    kept.outside, kept.origin = True, op
    return kept
