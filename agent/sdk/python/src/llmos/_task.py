"""The place of this process in its job, as the agent tells it by variables."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Callable, Mapping, Optional


@dataclass(frozen=True)
class Task:
    """One rank of one attempt at running a job."""

    job_id: str = ""
    job_name: str = ""
    task_id: str = ""
    role: str = "worker"
    role_index: int = 0
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    epoch: int = 0
    master_addr: str = "127.0.0.1"
    master_port: Optional[int] = None
    framework: str = ""
    job_dir: Optional[Path] = None

    @property
    def inside(self) -> bool:
        """Whether llmos started this process."""
        return self.job_id != ""

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Task:
        """Reads the variables that the agent sets. Without them: a job of one rank."""
        shared = env.get("LLMOS_JOB_DIR", "")
        # A rank that mpirun has started is told its number by Open MPI; in a task of llmos
        # the two are the same.
        world = _number(env, "WORLD_SIZE", _number(env, "OMPI_COMM_WORLD_SIZE", 1))
        number = _number(env, "RANK", _number(env, "OMPI_COMM_WORLD_RANK", 0))
        if number < 0 or number >= world:
            raise ValueError(f"RANK is {number} and WORLD_SIZE {world}: a rank is from 0 to WORLD_SIZE - 1")
        port = _number(env, "MASTER_PORT", 0)
        return cls(
            job_id=env.get("LLMOS_JOB_ID", ""),
            job_name=env.get("LLMOS_JOB_NAME", ""),
            task_id=env.get("LLMOS_TASK_ID", ""),
            role=env.get("LLMOS_ROLE", "worker"),
            role_index=_number(env, "LLMOS_ROLE_INDEX", 0),
            rank=number,
            world_size=world,
            local_rank=_number(env, "LOCAL_RANK", 0),
            local_world_size=_number(env, "LOCAL_WORLD_SIZE", 1),
            epoch=_number(env, "LLMOS_EPOCH", 0),
            master_addr=env.get("MASTER_ADDR", "127.0.0.1"),
            master_port=port if port > 0 else None,
            framework=env.get("LLMOS_FRAMEWORK", ""),
            job_dir=Path(shared) if shared else None,
        )


def _number(env: Mapping[str, str], name: str, otherwise: int) -> int:
    text = env.get(name, "")
    if text == "":
        return otherwise
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}, want a number") from None


class _State:
    def __init__(self) -> None:
        self.task: Optional[Task] = None
        self.stop = threading.Event()
        self.handler: Optional[Callable[[int, Optional[FrameType]], None]] = None


_state = _State()


def init() -> Task:
    """Takes this process's place in its job. From now on SIGTERM does not end it: it makes
    should_stop() true, and the program has the job's grace to save and end by itself. May be
    called again; the first call must be in the main thread for the signal to be taken."""
    now = task()
    if _state.handler is None and threading.current_thread() is threading.main_thread():
        before = signal.getsignal(signal.SIGTERM)

        def asked(number: int, frame: Optional[FrameType]) -> None:
            _state.stop.set()
            if callable(before):
                before(number, frame)

        signal.signal(signal.SIGTERM, asked)
        _state.handler = asked
    return now


def take_signal_back() -> None:
    """Takes SIGTERM again from a framework that has put a handler of its own in place."""
    if _state.handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _state.handler)


def task() -> Task:
    """The place of this process in its job."""
    if _state.task is None:
        _state.task = Task.from_environment(os.environ)
    return _state.task


def rank() -> int:
    """Number of this task among all of its attempt, from 0."""
    return task().rank


def world_size() -> int:
    """How many tasks the attempt has. An elastic job may have another number next time."""
    return task().world_size


def local_rank() -> int:
    """Number of this task among those of the attempt on this node."""
    return task().local_rank


def local_world_size() -> int:
    """How many tasks of the attempt run on this node."""
    return task().local_world_size


def epoch() -> int:
    """Number of the attempt, from 1; 0 outside llmos."""
    return task().epoch


def job_dir() -> Optional[Path]:
    """The job's folder in the directory that all nodes share; None when there is none."""
    return task().job_dir


def should_stop() -> bool:
    """Whether llmos has asked the task to save and end: true after SIGTERM."""
    return _state.stop.is_set()
