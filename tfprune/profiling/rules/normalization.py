"""Normalization and scaling layers: FLOPs per element, no MACs.

A scale is not called a MAC although it multiplies by a weight: a runtime folds it into the kernel
before it, and the literature's MAC counts leave it out.
"""

from collections.abc import Iterable

import keras
from keras.src.applications.convnext import LayerScale

from tfprune.profiling.rules.registry import Call, Work, register_macs


@register_macs(keras.layers.BatchNormalization, keras.layers.Normalization, keras.layers.Rescaling)
def count_stored_statistics(layer, call: Call) -> Iterable[Work]:
    """A scale and a shift per element."""
    yield Work(flops=2 * call.output_elements)


@register_macs(keras.layers.GroupNormalization, keras.layers.LayerNormalization)
def count_own_statistics(layer, call: Call) -> Iterable[Work]:
    """Per element: sum; difference, square, sum; difference, division, scale, shift."""
    yield Work(flops=8 * call.output_elements)


@register_macs(keras.layers.RMSNormalization)
def count_rms(layer, call: Call) -> Iterable[Work]:
    """Per element: square, sum, division, scale."""
    yield Work(flops=4 * call.output_elements)


@register_macs(keras.layers.UnitNormalization)
def count_unit(layer, call: Call) -> Iterable[Work]:
    """Per element: square, sum, division."""
    yield Work(flops=3 * call.output_elements)


@register_macs(LayerScale)
def count_layer_scale(layer, call: Call) -> Iterable[Work]:
    """The learned scale of ConvNeXt: one product per element."""
    yield Work(flops=call.output_elements)


@register_macs(keras.layers.SpectralNormalization)
def count_spectral_normalization(layer, call: Call) -> Iterable[Work]:
    """Normalizes its layer's kernel while training; at inference it only calls the layer."""
    return ()
