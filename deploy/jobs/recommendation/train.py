"""Factorises a matrix of ratings over the ranks of MPI.

Every rank owns a share of the users, with their ratings; the films' factors are the same on all
ranks, and their gradients are summed by an all-reduce. Every rank saves its own part; after a
failure all go on from the newest step that all have saved.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

import llmos

FACTORS, DECAY, RATE = 8, 0.15, 0.05


class Part:
    """Parameters of users or of films, with the state of Adam: a bias and factors of each."""

    def __init__(self, count: int, seed: int) -> None:
        self.value = np.random.default_rng(seed).normal(0, 0.05, (count, 1 + FACTORS))
        self.value[:, 0] = 0
        self.first, self.second = np.zeros_like(self.value), np.zeros_like(self.value)

    def step(self, gradient: Any, number: int) -> None:
        self.first += 0.1 * (gradient - self.first)
        self.second += 0.01 * (gradient**2 - self.second)
        self.value -= RATE * (self.first / (1 - 0.9**number)) / (np.sqrt(self.second / (1 - 0.99**number)) + 1e-8)


def summed(rows: Any, values: Any, count: int) -> Any:
    """The sum of the values of each row."""
    return np.stack([np.bincount(rows, values[:, k], count) for k in range(values.shape[1])], 1)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--steps", type=int, default=100)
    arguments.add_argument("--save-every", type=int, default=10)
    a = arguments.parse_args()

    world = MPI.COMM_WORLD
    llmos.init()
    if world.rank != llmos.rank() or world.size != llmos.world_size():
        raise SystemExit(f"MPI's rank {world.rank} of {world.size} is llmos' rank {llmos.rank()} of {llmos.world_size()}")
    with np.load(a.data) as f:
        user, film, rating = f["user"], f["film"], f["rating"].astype(float)
    users, films = user.max() + 1, film.max() + 1
    held = np.random.default_rng(7).random(len(rating)) < 0.1
    mine = user % world.size == world.rank
    mean = rating[~held].mean()
    train = tuple(c[mine & ~held] for c in (user, film, rating - mean))
    test = tuple(c[mine & held] for c in (user, film, rating - mean))

    people, things, step = Part(users, 1), Part(films, 2), 0
    saved = llmos.resume_path()
    if saved is not None:
        with np.load(saved) as f:
            for part, name in ((people, "people"), (things, "things")):
                part.value, part.first, part.second = f[name]
        step = llmos.resume_step()
    print(f"rank {world.rank} of {world.size}, attempt {llmos.epoch()}: {len(train[2])} ratings, begins at step {step}", flush=True)

    def errors(u: Any, i: Any, r: Any) -> Any:
        p, q = people.value[u], things.value[i]
        return p[:, 0] + q[:, 0] + (p[:, 1:] * q[:, 1:]).sum(1) - r

    def rmse(e: Any) -> float:
        total = world.allreduce(np.array([float(e @ e), float(len(e))]))
        return float(np.sqrt(total[0] / total[1]))

    while step < a.steps:
        u, i, r = train
        e = errors(u, i, r)
        p, q = people.value[u], things.value[i]
        one = np.ones((len(e), 1))
        for_users = summed(u, e[:, None] * np.hstack([one, q[:, 1:]]) + DECAY * p, users)
        for_films = summed(i, e[:, None] * np.hstack([one, p[:, 1:]]) + DECAY * q, films)
        world.Allreduce(MPI.IN_PLACE, for_films)
        step += 1
        people.step(for_users, step)
        things.step(for_films, step)
        loss = rmse(e)
        llmos.report(step=step, steps=a.steps, loss=loss)
        stop = world.allreduce(llmos.should_stop(), MPI.LOR)
        if step % a.save_every == 0 or stop or step == a.steps:
            with llmos.saving(step, suffix=".npz") as path, open(path, "wb") as out:
                np.savez(out, people=(people.value, people.first, people.second), things=(things.value, things.first, things.second))
        if stop:
            return 0

    print(f"held-out loss {rmse(errors(*test)):.4f} after {step} steps, in stars; always guessing the mean gives {rmse(test[2]):.4f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
