"""How many MACs and FLOPs a call of each layer class takes.

What counts, per example at inference:

- MACs: every multiplication with a weight, and the matrix products of attention, `Dot` and the
  inline operations `matmul` and `einsum`. A convolution counts every tap of its window at every
  output position, also where the window hangs over the padding; causal attention counts the whole
  score matrix. An `Embedding` looks up and multiplies nothing.
- FLOPs: 2 per MAC, 1 per bias addition, 1 per elementwise operation and element (an activation is
  one operation, whatever the function), normalization by stored statistics 2 per element, by the
  example's own 4 (RMS) to 8 (layer, group), pooling 1 per element of each window.
- Data movement (padding, reshaping, concatenation, up-sampling, dropout, preprocessing) is zero.

A rule is found by class, subclasses count as their base. A layer that holds weights and has no rule
is reported as uncounted, never guessed; a layer without weights and without a rule counts as zero.
Add a rule for a class of your own with `register_macs`.
"""

from tfprune.profiling.rules import (  # noqa: F401  (imported for the rules that they register)
    attention,
    convolution,
    elementwise,
    matrix,
    normalization,
    recurrent,
)
from tfprune.profiling.rules.registry import Call, Rule, Work, find_rule, register_macs

__all__ = ["Call", "Rule", "Work", "find_rule", "register_macs"]
