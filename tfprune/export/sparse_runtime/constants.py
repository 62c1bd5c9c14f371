"""Constants of ADD and MUL in the form that XNNPACK's sparse mode takes: four axes, and first."""

from __future__ import annotations

import numpy as np

from tfprune.export.flatbuffer import load_model, pack_model


def settle_constants(content: bytes) -> bytes:
    """Give constants of ADD and MUL on 4-D tensors four axes, and make them the first operand.

    Values are the same: a constant of fewer axes is broadcast over the leading ones, and both
    operators commute.

    Args:
        content: a `.tflite` file.

    Returns:
        The file, the same one if there is nothing to change.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = load_model(content)
    commuting = {schema.BuiltinOperator.ADD, schema.BuiltinOperator.MUL}
    changed = False
    for graph in model.subgraphs:
        computed = {tensor for op in graph.operators for tensor in op.outputs} | {*graph.inputs}
        users: dict[int, set[int]] = {}
        for index, op in enumerate(graph.operators):
            for tensor in op.inputs:
                users.setdefault(tensor, set()).add(index)
        for op in graph.operators:
            if model.operatorCodes[op.opcodeIndex].builtinCode not in commuting:
                continue
            first, second = op.inputs
            if len(graph.tensors[op.outputs[0]].shape) != 4 or {first, second} <= computed:
                continue
            constant = second if first in computed else first
            tensor = graph.tensors[constant]
            shape = [] if tensor.shape is None else list(tensor.shape)
            if len(shape) < 4 and all(_commutes(model, graph, user) for user in users[constant]):
                tensor.shape = np.array([1] * (4 - len(shape)) + shape, np.int32)
                changed = True
            if constant == second:
                op.inputs = np.array([second, first], np.int32)
                changed = True
    return pack_model(model) if changed else content


def _commutes(model: object, graph: object, user: int) -> bool:
    """Whether an operator is an ADD or MUL with a result of four axes."""
    from ai_edge_litert import schema_py_generated as schema

    op = graph.operators[user]
    code = model.operatorCodes[op.opcodeIndex].builtinCode
    four = len(graph.tensors[op.outputs[0]].shape) == 4
    return four and code in (schema.BuiltinOperator.ADD, schema.BuiltinOperator.MUL)
