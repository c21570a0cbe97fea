"""What a task of llmos says to its cluster, and how to submit a job from Python.

In a training program::

    import llmos

    llmos.init()                                # SIGTERM now asks, by should_stop()
    start = llmos.resume_step()
    ...                                         # load llmos.resume_path(), if there is one
    for step in range(start, steps):
        loss = train_one_step()
        llmos.report(step=step + 1, steps=steps, loss=loss)
        if (step + 1) % 100 == 0 or llmos.should_stop():
            with llmos.saving(step + 1) as path:
                save(path)
        if llmos.should_stop():
            break

``llmos.pytorch``, ``llmos.tensorflow`` and ``llmos.jax`` join the ranks of those frameworks.
``llmos.run`` submits a job. Nothing here needs more than the standard library, and outside
llmos the same program runs as a job of one rank.
"""

from __future__ import annotations

from ._checkpoint import (
    StaleAttemptError,
    checkpoint_dir,
    checkpoint_saved,
    resume_path,
    resume_step,
    saving,
)
from ._client import Job, LlmosError, Result, run
from ._report import report
from ._task import (
    Task,
    epoch,
    init,
    job_dir,
    local_rank,
    local_world_size,
    rank,
    should_stop,
    task,
    world_size,
)

__all__ = [
    "Job",
    "LlmosError",
    "Result",
    "StaleAttemptError",
    "Task",
    "checkpoint_dir",
    "checkpoint_saved",
    "epoch",
    "init",
    "job_dir",
    "local_rank",
    "local_world_size",
    "rank",
    "report",
    "resume_path",
    "resume_step",
    "run",
    "saving",
    "should_stop",
    "task",
    "world_size",
]

__version__ = "0.1.0"
