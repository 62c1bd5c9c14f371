"""The result of `tfprune.profile`: plain frozen values with a readable `str`.

A report is a snapshot of numbers. It holds no reference to the model, so it can be kept, compared,
pickled or written as JSON (`to_dict`) long after the model is gone.
"""

from dataclasses import asdict, dataclass
from typing import Any

from tfprune.text_table import align_columns

Shape = tuple[int | None, ...]

NO_RULE = "no MAC rule for this class: see tfprune.profiling.register_macs"
UNKNOWN_SHAPES = "a tensor shape is unknown until the model runs"
NOT_CALLED = "not called by the model"


@dataclass(frozen=True)
class Bytes:
    """Size of the parameters in three encodings, in bytes.

    Attributes:
        dense: every value in its stored dtype.
        sparse: per tensor one bit per position plus the non-zero values in their stored dtype, or
            the dense size where that is smaller.
        gzip: the dense bytes of all tensors, one after the other, as one gzip stream at level 6
            (what `gzip` does unless told otherwise); None where it was not asked for.
    """

    dense: int
    sparse: int
    gzip: int | None


@dataclass(frozen=True)
class LayerProfile:
    """Costs of one layer, without those sublayers that have a row of their own.

    Attributes:
        path: names from the model down to the layer, e.g. `"encoder/attention/query"`.
        class_name: class of the layer.
        calls: how often the layer runs for one example.
        input_shapes: shapes of the tensors in the first argument of the first call, batch first.
        output_shapes: shapes of the output tensors of the first call, batch first.
        parameters: number of values in the layer's weights, non-trainable ones included. A weight
            that several layers hold counts in the first of them.
        nonzeros: number of those values that are not zero, after masks.
        macs: multiply-accumulates for one example over all calls; None if they are not known.
        effective_macs: the same without those that a zero weight makes superfluous.
        flops: 2 per MAC, plus bias additions and elementwise operations; None if not known.
        effective_flops: the same with the effective MACs.
        note: why the costs are not known, or why they are zero; empty as a rule.
    """

    path: str
    class_name: str
    calls: int
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    parameters: int
    nonzeros: int
    macs: int | None
    effective_macs: int | None
    flops: int | None
    effective_flops: int | None
    note: str = ""

    @property
    def sparsity(self) -> float:
        """Fraction of zeros among the layer's parameters, biases included."""
        return _sparsity(self.parameters, self.nonzeros)


@dataclass(frozen=True)
class Profile:
    """Costs of a model for one example at inference.

    Attributes:
        name: name of the model.
        parameters: number of values in the weights; pruning masks and step counters never count.
        trainable_parameters: those of them that training changes.
        nonzeros: number of values that are not zero, after masks.
        macs: multiply-accumulates, without the layers in `uncounted`.
        effective_macs: multiply-accumulates of a runtime that skips zero weights.
        flops: 2 per MAC, plus bias additions and elementwise operations.
        effective_flops: the same with the effective MACs.
        bytes: size of the parameters, see `Bytes`.
        layers: one row per layer that has parameters or costs, in the model's order.
    """

    name: str
    parameters: int
    trainable_parameters: int
    nonzeros: int
    macs: int
    effective_macs: int
    flops: int
    effective_flops: int
    bytes: Bytes
    layers: tuple[LayerProfile, ...]

    @property
    def sparsity(self) -> float:
        """Fraction of zeros among all parameters, biases and statistics included."""
        return _sparsity(self.parameters, self.nonzeros)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Paths of the layers whose MACs are not known and so missing from the totals."""
        return tuple(layer.path for layer in self.layers if layer.macs is None)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values that JSON can hold."""
        values = asdict(self) | {"sparsity": self.sparsity, "uncounted": list(self.uncounted)}
        values["layers"] = [asdict(layer) | {"sparsity": layer.sparsity} for layer in self.layers]
        return values

    def __str__(self) -> str:
        return "\n".join([*self._summary(), "", *self._table(), *self._notes()])

    def _summary(self) -> list[str]:
        gzip = "not measured" if self.bytes.gzip is None else f"{self.bytes.gzip:,}"
        return [
            f"Profile of {self.name!r}, one example (1 MAC = 2 FLOPs)",
            f"  parameters  {self.parameters:,} ({self.trainable_parameters:,} trainable), "
            f"non-zero {self.nonzeros:,} (sparsity {_percent(self.sparsity)})",
            f"  MACs        {self.macs:,}, effective {self.effective_macs:,}",
            f"  FLOPs       {self.flops:,}, effective {self.effective_flops:,}",
            f"  bytes       dense {self.bytes.dense:,}, sparse {self.bytes.sparse:,}, gzip {gzip}",
        ]

    def _table(self) -> list[str]:
        header = ("layer", "class", "output", "params", "sparsity", "MACs", "effective", "FLOPs")
        rows = [header]
        for layer in self.layers:
            rows.append(
                (
                    layer.path,
                    layer.class_name,
                    " ".join(_shape(shape) for shape in layer.output_shapes),
                    f"{layer.parameters:,}",
                    _percent(layer.sparsity) if layer.parameters else "",
                    _count(layer.macs),
                    _count(layer.effective_macs),
                    _count(layer.flops),
                )
            )
        lines = align_columns(rows, right=range(3, len(header)))
        return [lines[0], "-" * max(map(len, lines)), *lines[1:]]

    def _notes(self) -> list[str]:
        return [f"note: {layer.path}: {layer.note}" for layer in self.layers if layer.note]


def _sparsity(parameters: int, nonzeros: int) -> float:
    return 1.0 - nonzeros / parameters if parameters else 0.0


def _percent(sparsity: float) -> str:
    return f"{100 * sparsity:.1f} %"


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _shape(shape: Shape) -> str:
    # The batch dimension is the same for every row: leave it out.
    return "x".join("?" if size is None else str(size) for size in shape[1:]) or "scalar"
