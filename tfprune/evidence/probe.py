"""`Probe`: a model, its data and the weights in question, as the collectors see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras.src.trainers.compile_utils import CompileLoss
from keras.src.trainers.data_adapters import get_data_adapter
from keras.src.trainers.data_adapters.data_adapter_utils import unpack_x_y_sample_weight

from tfprune.errors import InvalidArgumentError, UnsupportedModelError
from tfprune.pruned_weight import PrunedWeight


class Probe:
    """What collectors may ask of a model.

    Args:
        model: a built model.
        weights: the weights that are to be scored, in model order.
        data: arrays `x` or `(x, y)`, a `tf.data.Dataset` or a `keras.utils.PyDataset` of batches;
            `None` if there is none.
        loss: what `compile` takes as `loss`; by default what the model is compiled with.
        limit: how many batches are read at most.
        verbose: whether a progress bar is shown.

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> probe = Probe(model, [], data=np.ones((80, 8), "float32"), limit=2)
        >>> [x.shape[0] for x, y, sample_weight in probe.batches()]
        [32, 32]
    """

    def __init__(
        self,
        model: keras.layers.Layer,
        weights: Sequence[PrunedWeight],
        data: Any = None,
        *,
        loss: Any = None,
        limit: int = 32,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.weights = list(weights)
        self.limit = limit
        self._data = data
        # What `compile` makes of a loss: names, functions, and one loss per output.
        self._loss = None if loss is None else CompileLoss(loss)
        self._verbose = verbose

    def batches(self) -> Iterator[tuple[Any, Any, Any]]:
        """Yield up to `limit` batches `(x, y, sample_weight)` of tensors, from the start.

        Raises:
            InvalidArgumentError: if there is no data, or none in it.
        """
        if self._data is None:
            raise InvalidArgumentError(
                "This criterion looks at data: pass `data=(x, y)`, a tf.data.Dataset or a "
                "keras.utils.PyDataset of batches."
            )
        adapter = self._adapter()
        bar = keras.utils.Progbar(self._count(adapter), verbose=int(self._verbose))
        number = 0
        for number, batch in enumerate(adapter.get_tf_dataset().take(self.limit), start=1):
            yield unpack_x_y_sample_weight(batch)
            bar.update(number)
        if not number:
            raise InvalidArgumentError("`data` holds no batches.")

    def compute_loss(self, x: Any, y: Any, sample_weight: Any) -> Any:
        """Return the loss of a batch, a scalar tensor; the model runs in inference mode.

        Raises:
            UnsupportedModelError: if no loss is given and the model is not compiled.
        """
        outputs = self.model(x, training=False)
        if self._loss is not None:
            return self._loss(y, outputs, sample_weight)
        if not getattr(self.model, "compiled", False):
            raise UnsupportedModelError(
                f"{self.model.name!r} is not compiled, so its loss is unknown: compile it, or pass "
                "`loss=`, such as `loss='sparse_categorical_crossentropy'`."
            )
        return self.model.compute_loss(x, y, outputs, sample_weight, training=False)

    def _adapter(self) -> Any:
        if isinstance(self._data, tuple | list):
            x, y, sample_weight = unpack_x_y_sample_weight(tuple(self._data))
            return get_data_adapter(x, y, sample_weight, batch_size=32)
        return get_data_adapter(self._data, batch_size=32)

    def _count(self, adapter: Any) -> int:
        return min(self.limit, adapter.num_batches or self.limit)
