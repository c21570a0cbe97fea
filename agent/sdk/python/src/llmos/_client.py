"""Submitting and following jobs, by the llmos program."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Union

_PathLike = Union[str, "os.PathLike[str]"]


class LlmosError(RuntimeError):
    """What the llmos program refused, or why it failed. code is its exit code: 2 bad input,
    3 not found, 4 denied, 5 unavailable or timed out, 6 conflict, 7 a limit was met."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Result:
    """How a job ended."""

    job_id: str
    state: str  # "succeeded", "failed" or "cancelled"
    exit_code: int  # 0 on success; of the first task that failed
    reason: str  # one sentence, such as "rank 3: exit 1"
    attempts: int

    @property
    def ok(self) -> bool:
        """Whether the job succeeded."""
        return self.state == "succeeded"


def _program() -> str:
    return os.environ.get("LLMOS_PROGRAM", "llmos")


def _call(arguments: Sequence[str], timeout: Optional[float] = None) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run([_program(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False, timeout=timeout)
    except FileNotFoundError:
        raise LlmosError(f"the program {_program()} is not here; put llmos in PATH, or its path in LLMOS_PROGRAM", 127) from None


def _checked(arguments: Sequence[str]) -> str:
    done = _call(arguments)
    if done.returncode != 0:
        raise LlmosError(done.stderr.strip() or f"llmos {arguments[0]} exited with {done.returncode}", done.returncode)
    return done.stdout


@dataclass(frozen=True)
class Job:
    """A submitted job."""

    id: str

    def logs(self, *, rank: Optional[int] = None, tail: int = 0, attempt: int = 0) -> str:
        """What its tasks have printed to standard output and standard error, of the newest
        attempt unless told another. Of several ranks every line begins with its rank."""
        done = _call(self._logs(rank, tail, attempt))
        if done.returncode != 0:
            raise LlmosError(done.stderr.strip(), done.returncode)
        return done.stdout + done.stderr

    def follow(self, *, rank: Optional[int] = None, tail: int = 0, attempt: int = 0) -> Iterator[str]:
        """Its lines as they come, without their line breaks, until the job has ended."""
        arguments = [_program(), *self._logs(rank, tail, attempt), "--follow"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    yield line.rstrip("\n")
            finally:
                process.terminate()

    def _logs(self, rank: Optional[int], tail: int, attempt: int) -> List[str]:
        arguments = ["logs", self.id]
        if rank is not None:
            arguments += ["--rank", str(rank)]
        if tail:
            arguments += ["--tail", str(tail)]
        if attempt:
            arguments += ["--attempt", str(attempt)]
        return arguments

    def wait(self, timeout: Optional[float] = None) -> Result:
        """Stays until the job has ended. Raises TimeoutError after so many seconds; the job
        then goes on."""
        try:
            done = _call(["wait", "-o", "json", self.id], timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"job {self.id} has not ended after {timeout} s") from None
        if not done.stdout.strip():
            raise LlmosError(done.stderr.strip(), done.returncode)
        return _result(json.loads(done.stdout))

    def why(self) -> str:
        """One sentence: why the job waits, runs or ended."""
        return str(json.loads(_checked(["why", "-o", "json", self.id])).get("reason", ""))

    def stop(self) -> None:
        """Stops the job."""
        _checked(["stop", self.id])


def _result(view: Mapping[str, Any]) -> Result:
    job: Dict[str, Any] = view["job"]
    return Result(
        job_id=str(job["id"]),
        state=str(job["state"])[len("JOB_STATE_") :].lower(),
        exit_code=int(job.get("exit_code", 0)),
        reason=str(job.get("reason", "")),
        attempts=int(job.get("epoch", 0)),
    )


def run(
    job: Union[_PathLike, Sequence[str]],
    *,
    name: Optional[str] = None,
    tasks: Union[int, str, None] = None,
    gpus: Union[int, str, None] = None,
    cpu: Union[int, str, None] = None,
    memory: Optional[str] = None,
    framework: Optional[str] = None,
    queue: Optional[str] = None,
    retries: Optional[int] = None,
    workdir: Optional[_PathLike] = None,
    env: Optional[Mapping[str, str]] = None,
    options: Sequence[str] = (),
    request_id: Optional[str] = None,
) -> Job:
    """Submits a job and returns at once: a job file by its path, or a command by its words::

        llmos.run("train.yaml")
        llmos.run(["python", "train.py"], tasks=4, gpus=1, framework="pytorch")

    tasks and gpus may be spans such as "2..8". options are further flags of `llmos run`."""
    arguments = ["run", "-o", "json"]
    for flag, value in (
        ("--name", name), ("--tasks", tasks), ("--gpus", gpus), ("--cpu", cpu), ("--memory", memory), ("--framework", framework),
        ("--queue", queue), ("--retries", retries), ("--workdir", None if workdir is None else Path(workdir)), ("--request-id", request_id),
    ):  # fmt: skip
        if value is not None:
            arguments += [flag, str(value)]
    for variable, text in (env or {}).items():
        arguments += ["--env", f"{variable}={text}"]
    arguments += options
    if isinstance(job, (str, os.PathLike)):
        arguments.append(os.fspath(job))
    else:
        if not job:
            raise ValueError("the command is empty")
        arguments += ["--", *job]
    return Job(str(json.loads(_checked(arguments))["job_id"]))
