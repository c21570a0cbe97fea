"""TensorFlow: the ranks of the attempt as a MultiWorkerMirroredStrategy, in two lines::

    import llmos.tensorflow
    strategy = llmos.tensorflow.strategy()

and `callbacks=[llmos.tensorflow.Reporter(steps)]` for progress. The job file says
`framework: tensorflow`, which makes llmos set TF_CONFIG.
"""

from __future__ import annotations

from typing import Any, Mapping, Optional

import tensorflow as tf

from ._report import report
from ._task import init as _init
from ._task import should_stop


def strategy() -> Any:
    """The strategy of the attempt's workers, by TF_CONFIG; with one rank the default one. Call
    it before anything else of TensorFlow is used."""
    if _init().world_size == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MultiWorkerMirroredStrategy()


class Reporter(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Reports the steps and the loss of fit(), and ends the training when llmos asks."""

    def __init__(self, steps: Optional[int] = None, first: int = 0) -> None:
        super().__init__()
        self._steps = steps
        self._step = first

    def on_train_batch_end(self, batch: int, logs: Optional[Mapping[str, Any]] = None) -> None:
        """Called by fit()."""
        self._step += 1
        values = {k: float(v) for k, v in (logs or {}).items() if k != "loss"}
        loss = (logs or {}).get("loss")
        report(step=self._step, steps=self._steps, loss=None if loss is None else float(loss), **values)
        if should_stop():
            self.model.stop_training = True
