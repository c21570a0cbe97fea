"""The place of a process, its reports and the stop signal."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import unittest
from typing import Dict
from unittest import mock

import llmos
from llmos import _task

SRC = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src")


def place(env: Dict[str, str]) -> "contextlib.AbstractContextManager[object]":
    """The environment of a task, and nothing remembered of another."""
    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.dict(os.environ, env, clear=True))
    stack.enter_context(mock.patch.object(_task, "_state", _task._State()))
    return stack


class Place(unittest.TestCase):
    def test_of_a_rank(self) -> None:
        with place({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "LLMOS_EPOCH": "2", "LLMOS_JOB_ID": "t-1",
                    "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "20000", "LLMOS_JOB_DIR": "/shared/t-1"}):  # fmt: skip
            t = llmos.task()
            self.assertEqual((llmos.rank(), llmos.world_size(), llmos.local_rank(), llmos.local_world_size(), llmos.epoch()), (3, 4, 1, 2, 2))
            self.assertEqual((t.master_addr, t.master_port, str(llmos.job_dir()), t.inside), ("10.0.0.1", 20000, "/shared/t-1", True))

    def test_by_hand_is_a_world_of_its_own(self) -> None:
        with place({}):
            t = llmos.task()
            self.assertEqual((t.rank, t.world_size, t.epoch, t.job_dir, t.inside), (0, 1, 0, None, False))

    def test_below_mpirun_without_llmos(self) -> None:
        with place({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}):
            self.assertEqual((llmos.rank(), llmos.world_size()), (1, 2))

    def test_nonsense_is_named(self) -> None:
        with place({"RANK": "x"}), self.assertRaisesRegex(ValueError, "RANK is 'x', want a number"):
            llmos.task()
        with place({"RANK": "4", "WORLD_SIZE": "4"}), self.assertRaisesRegex(ValueError, "RANK is 4 and WORLD_SIZE 4"):
            llmos.task()


class Stop(unittest.TestCase):
    def test_sigterm_asks(self) -> None:
        with place({}):
            before = signal.getsignal(signal.SIGTERM)
            try:
                llmos.init()
                self.assertFalse(llmos.should_stop())
                llmos.init()
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a framework may
                _task.take_signal_back()
                os.kill(os.getpid(), signal.SIGTERM)
                self.assertTrue(llmos.should_stop())
            finally:
                signal.signal(signal.SIGTERM, before)

    def test_the_handler_before_is_called(self) -> None:
        with place({}):
            called = []
            before = signal.signal(signal.SIGTERM, lambda n, f: called.append(n))
            try:
                llmos.init()
                os.kill(os.getpid(), signal.SIGTERM)
                self.assertEqual((called, llmos.should_stop()), ([signal.SIGTERM], True))
            finally:
                signal.signal(signal.SIGTERM, before)


class Report(unittest.TestCase):
    def said(self, **what: float) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            llmos.report(**what)  # type: ignore[arg-type]
        return out.getvalue()

    def test_lines(self) -> None:
        class Scalar:
            def __float__(self) -> float:
                return 0.25

        self.assertEqual(self.said(step=120, steps=400, loss=1.83), "@llmos step=120 steps=400 loss=1.83\n")
        self.assertEqual(self.said(step=1, loss=Scalar(), lr=3e-4), "@llmos step=1 loss=0.25 lr=0.0003\n")  # type: ignore[arg-type]
        self.assertEqual(self.said(step=1, loss=float("nan"), a=float("inf")), "@llmos step=1\n")

    def test_refusals(self) -> None:
        with self.assertRaises(ValueError):
            llmos.report(step=-1)
        with self.assertRaisesRegex(ValueError, "'a b' is not a value's name"):
            llmos.report(step=1, **{"a b": 1.0})  # type: ignore[arg-type]
        with self.assertRaisesRegex(ValueError, "33 values are too many"):
            llmos.report(step=1, **{f"v{i}": 1.0 for i in range(33)})  # type: ignore[arg-type]

    def test_needs_no_framework(self) -> None:
        probe = "import sys, llmos; print(sorted(set(sys.modules) & {'torch', 'tensorflow', 'jax', 'numpy'}))"
        out = subprocess.run([sys.executable, "-c", probe], env={"PYTHONPATH": SRC}, stdout=subprocess.PIPE, text=True, check=True)
        self.assertEqual(out.stdout, "[]\n")


if __name__ == "__main__":
    unittest.main()
