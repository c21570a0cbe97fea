"""Recognises handwritten digits by TensorFlow's MultiWorkerMirroredStrategy.

Every rank trains on its share of the images; the gradients are averaged by collectives. After
each epoch rank 0 saves the weights and the state of the optimizer; after a failure all ranks go
on from there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import llmos
import llmos.tensorflow

strategy = llmos.tensorflow.strategy()  # before anything else of TensorFlow is used

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402


def images() -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Pixels from 0 to 1 and digits: for training, and held out."""
    digits = load_digits()
    order = np.random.default_rng(7).permutation(len(digits.target))
    x = (digits.images[order] / 16.0).astype("float32")[..., None]
    y = digits.target[order].astype("int32")
    return (x[:1500], y[:1500]), (x[1500:], y[1500:])


def network() -> Any:
    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def batches(x: Any, y: Any, batch: int, epoch: int) -> Any:
    """One epoch of this rank's share, in an order that depends on the epoch alone."""
    order = np.random.default_rng(epoch).permutation(len(y))[llmos.rank() :: llmos.world_size()]
    whole = len(y) // llmos.world_size() // batch
    for i in range(whole):
        part = order[i * batch : (i + 1) * batch]
        yield tf.constant(x[part]), tf.constant(y[part])


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--epochs", type=int, default=12)
    arguments.add_argument("--batch", type=int, default=25, help="images of each rank")
    a = arguments.parse_args()

    (x, y), (held_x, held_y) = images()
    keras.utils.set_random_seed(7)
    measure = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    with strategy.scope():
        model = network()
        optimizer = keras.optimizers.Adam(2e-3)
        optimizer.build(model.trainable_variables)
        done = tf.Variable(0, dtype=tf.int64, trainable=False)
        checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, done=done)
    saved = llmos.resume_path()
    if saved is not None:
        checkpoint.read(str(saved / "state")).expect_partial()
    per_epoch = len(y) // llmos.world_size() // a.batch
    step, steps = int(done.numpy()), a.epochs * per_epoch
    print(f"rank {llmos.rank()} of {llmos.world_size()}, attempt {llmos.epoch()}: {len(y)} images, begins at step {step}", flush=True)

    @tf.function
    def train(images: Any, digits: Any, stop: Any) -> Any:
        """One step of all ranks: the loss, and how many ranks were asked to stop."""

        def here(images: Any, digits: Any, stop: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = measure(digits, model(images, training=True)) / (a.batch * llmos.world_size())
            optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))
            return loss, stop

        each = strategy.run(here, args=(images, digits, stop))
        return tuple(strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) for value in each)

    while step < steps:
        for images_, digits in batches(x, y, a.batch, step // per_epoch):
            loss, stops = train(images_, digits, tf.constant(float(llmos.should_stop())))
            step += 1
            llmos.report(step=step, steps=steps, loss=loss)
            if float(stops) > 0:
                return 0  # the epoch is begun again from its checkpoint
        done.assign(step)
        save(checkpoint, step)

    loss = float(measure(held_y, model(held_x, training=False))) / len(held_y)
    right = float(np.mean(np.argmax(model(held_x, training=False), axis=1) == held_y))
    print(f"held-out loss {loss:.4f} after {step} steps; {100 * right:.1f} % of the digits are right", flush=True)
    return 0


def save(checkpoint: Any, step: int) -> None:
    """Saves by every rank, since the strategy's variables are read by all; rank 0's is kept."""
    if llmos.rank() == 0:
        with llmos.saving(step) as path:
            path.mkdir()
            checkpoint.write(str(path / "state"))
        return
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        checkpoint.write(str(Path(folder) / "state"))


if __name__ == "__main__":
    sys.exit(main())
