"""A compiler that brings any convolutional network into XNNPACK's sparse mode, exactly.

Sparse mode has only 1x1 convolutions, and small depthwise ones, between one kind of entry and two
kinds of exit. Ordinary convolutions, strides, pooling and concatenations are said with these.

| module | its one job |
|---|---|
| `program` | the file as tensors and operators that can be edited |
| `reading`, `writing`, `encoding` | from the bytes of a file, and back |
| `canonical`, `upsampling`, `turn`, `ranges` | fewer forms; the half-turn; what is never negative |
| `emitter` | the few operators that lowered programs are made of |
| `convolution`, `depthwise`, `pooling`, `borders` | rewrites |
| `lowering` | which rewrite for which operator |
| `costs` | predicted milliseconds |
| `cut`, `plan` | which operators run sparse: a minimum cut |
| `transform` | the program with that choice |
| `driver` | all of it, with the check of what comes out |
| `verify` | how far two files are apart |
| `hints` | what a layer would cost, for pruning |
"""

from tfprune.export.sparse_runtime.compiler.costs import CostModel
from tfprune.export.sparse_runtime.compiler.driver import Compiled, compile_file
from tfprune.export.sparse_runtime.compiler.hints import LayerCost, layer_cost

__all__ = ["Compiled", "CostModel", "LayerCost", "compile_file", "layer_cost"]
