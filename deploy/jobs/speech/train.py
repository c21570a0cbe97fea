"""Recognises spoken digits by JAX, as one program over the devices of all ranks.

Every rank feeds its share of a batch; XLA averages the gradients across them. Rank 0 saves the
parameters every few steps; after a failure all ranks go on from there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import llmos
import llmos.jax

llmos.jax.init()  # before anything else of JAX is used

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from audio import BANDS, FRAMES, digits  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

MESH = jax.sharding.Mesh(np.array(jax.devices()), ("ranks",))
EVERYWHERE, SHARED_OUT = NamedSharding(MESH, PartitionSpec()), NamedSharding(MESH, PartitionSpec("ranks"))


def network(key: Any) -> dict[str, Any]:
    def normal(k: Any, *shape: int) -> Any:
        return jax.random.normal(k, shape) * (2.0 / np.prod(shape[:-1])) ** 0.5

    k = jax.random.split(key, 4)
    return {
        "conv1": normal(k[0], 5, BANDS, 48), "bias1": jnp.zeros(48), "conv2": normal(k[1], 5, 48, 48), "bias2": jnp.zeros(48),
        "dense": normal(k[2], 8 * 48, 64), "bias3": jnp.zeros(64), "out": normal(k[3], 64, 10), "bias4": jnp.zeros(10),
    }  # fmt: skip


def predict(p: dict[str, Any], x: Any) -> Any:
    """Two convolutions over time, pooled to eight moments, and a dense layer."""

    def conv(x: Any, w: Any, b: Any) -> Any:
        y = jax.lax.conv_general_dilated(x, w, (2,), "SAME", dimension_numbers=("NHC", "HIO", "NHC"))
        return jax.nn.relu(y + b)

    y = conv(conv(x, p["conv1"], p["bias1"]), p["conv2"], p["bias2"])
    y = y.reshape(y.shape[0], 8, FRAMES // 32, -1).mean(2).reshape(y.shape[0], -1)
    return jax.nn.relu(y @ p["dense"] + p["bias3"]) @ p["out"] + p["bias4"]


def loss_of(p: dict[str, Any], x: Any, y: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(predict(p, x)), y[:, None], 1).mean()


@jax.jit
def train(state: Any, x: Any, y: Any, stop: Any) -> Any:
    """One step of Adam: the new state, the loss, and how many ranks were asked to stop."""
    p, m, v, step = state
    loss, g = jax.value_and_grad(loss_of)(p, x, y)
    step += 1
    m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
    v = jax.tree.map(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
    rate = 2e-3 * jnp.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    p = jax.tree.map(lambda a, b, c: a - rate * b / (jnp.sqrt(c) + 1e-8), p, m, v)
    return (p, m, v, step), loss, stop.sum()


def save(state: Any, step: int) -> None:
    if llmos.rank() != 0:
        return
    with llmos.saving(step, suffix=".npz") as path, open(path, "wb") as f:
        np.savez(f, **{str(i): np.asarray(leaf.addressable_data(0)) for i, leaf in enumerate(jax.tree.leaves(state))})


def load(state: Any, path: Path) -> Any:
    with np.load(path) as f:
        return jax.tree.unflatten(jax.tree.structure(state), [f[str(i)] for i in range(len(f.files))])


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=200)
    arguments.add_argument("--save-every", type=int, default=20)
    arguments.add_argument("--batch", type=int, default=24, help="clips of each rank")
    a = arguments.parse_args()

    data = digits(llmos.job_dir() or Path("."))
    p = network(jax.random.key(7))
    state: Any = (p, jax.tree.map(jnp.zeros_like, p), jax.tree.map(jnp.zeros_like, p), jnp.zeros(()))
    saved = llmos.resume_path()
    if saved is not None:
        state = load(state, saved)
    state = jax.device_put(state, EVERYWHERE)
    step = int(state[3])
    print(f"rank {llmos.rank()} of {llmos.world_size()}, attempt {llmos.epoch()}: {len(data['train_y'])} clips, begins at step {step}", flush=True)

    while step < a.steps:
        source = np.random.default_rng(1000 * step + llmos.rank())
        part = source.choice(len(data["train_y"]), a.batch, replace=False)
        noisy = data["train_x"][part] + source.normal(0, 0.1, (a.batch, FRAMES, BANDS)).astype("float32")
        x, y, asked = (
            jax.make_array_from_process_local_data(SHARED_OUT, local)
            for local in (noisy, data["train_y"][part], np.array([llmos.should_stop()] * jax.local_device_count(), "float32"))
        )
        state, loss, stops = train(state, x, y, asked)
        step += 1
        llmos.report(step=step, steps=a.steps, loss=float(loss))
        stop = float(stops) > 0
        if step % a.save_every == 0 or stop or step == a.steps:
            save(state, step)
        if stop:
            return 0

    p = jax.tree.map(lambda leaf: leaf.addressable_data(0), state[0])
    logits = predict(p, data["held_x"])
    loss = float(loss_of(p, jnp.asarray(data["held_x"]), jnp.asarray(data["held_y"])))
    right = float((logits.argmax(1) == data["held_y"]).mean())
    print(f"held-out loss {loss:.4f} after {step} steps; {100 * right:.1f} % of the words are right, by voices never heard", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
