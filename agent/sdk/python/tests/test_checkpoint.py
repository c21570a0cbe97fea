"""Checkpoints: whole, announced, found again, fenced."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import unittest
from pathlib import Path
from typing import Optional

import llmos
from test_task import place


class Checkpoints(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.out = io.StringIO()
        redirect = contextlib.redirect_stdout(self.out)
        redirect.__enter__()
        self.addCleanup(redirect.__exit__, None, None, None)

    def at(self, rank: int = 0, epoch: int = 1, world: int = 2, **more: str) -> "contextlib.AbstractContextManager[object]":
        return place({"RANK": str(rank), "WORLD_SIZE": str(world), "LLMOS_EPOCH": str(epoch), "LLMOS_JOB_DIR": str(self.dir), **more})

    def save(self, step: int, keep: int = 3) -> None:
        with llmos.saving(step, suffix=".txt", keep=keep) as path:
            path.write_text(f"{llmos.rank()}:{step}")

    def found(self) -> Optional[str]:
        path = llmos.resume_path()
        return None if path is None else path.read_text()

    def test_nothing_yet(self) -> None:
        with self.at():
            self.assertEqual((llmos.resume_path(), llmos.resume_step()), (None, 0))

    def test_rank_0_saves_for_all(self) -> None:
        with self.at():
            self.save(10)
            self.save(20)
        self.assertIn(f"@llmos checkpoint step=20 path={self.dir}/checkpoints/step-20.txt\n", self.out.getvalue())
        for rank in (0, 1):
            with self.at(rank, epoch=2):
                self.assertEqual((self.found(), llmos.resume_step()), ("0:20", 20))

    def test_each_saves_and_the_newest_common_step_counts(self) -> None:
        for rank, steps in ((0, (10, 20, 30)), (1, (10, 20))):
            with self.at(rank):
                for step in steps:
                    self.save(step)
        for rank in (0, 1):
            with self.at(rank, epoch=2):
                self.assertEqual((self.found(), llmos.resume_step()), (f"{rank}:20", 20))
        with self.at(2, epoch=2, world=3):  # an elastic job that has grown
            self.assertEqual(self.found(), "0:20")
        with self.at(0, epoch=2, world=1):  # one that has shrunk, and gone on alone
            self.save(40)
        with self.at(0, epoch=3):
            self.assertEqual(self.found(), "0:40")

    def test_the_newest_are_kept(self) -> None:
        with self.at():
            for step in (1, 2, 3, 4):
                self.save(step, keep=2)
        self.assertEqual(sorted(os.listdir(self.dir / "checkpoints")), ["step-3.txt", "step-4.txt"])

    def test_what_fails_leaves_nothing(self) -> None:
        with self.at():
            self.save(10)
            with self.assertRaises(OSError), llmos.saving(20) as path:
                path.mkdir()
                raise OSError("the disk is full")
            self.assertEqual(self.found(), "0:10")
        self.assertEqual(os.listdir(self.dir / "checkpoints"), ["step-10.txt"])

    def test_a_folder_is_replaced_whole(self) -> None:
        with self.at():
            for text in ("a", "b"):
                with llmos.saving(5) as path:
                    path.mkdir()
                    (path / text).write_text(text)
            found = llmos.resume_path()
            assert found is not None
            self.assertEqual(os.listdir(found), ["b"])

    def test_a_replaced_attempt_is_refused(self) -> None:
        with self.at(epoch=2):
            self.save(10)
        with self.at(epoch=1), self.assertRaisesRegex(llmos.StaleAttemptError, "attempt 1 has been replaced: attempt 2 has saved already"):
            self.save(10)
        with self.at(epoch=3):
            self.assertEqual(self.found(), "0:10")

    def test_llmos_resume_counts_most(self) -> None:
        with self.at():
            self.save(10)
        with self.at(LLMOS_RESUME="/data/resume/step-700.pt"):
            self.assertEqual((str(llmos.resume_path()), llmos.resume_step()), ("/data/resume/step-700.pt", 700))
        with self.at(LLMOS_RESUME="/data/resume/latest", LLMOS_RESUME_STEP="12"):
            self.assertEqual(llmos.resume_step(), 12)

    def test_without_announcements_names_count(self) -> None:
        folder = self.dir / "checkpoints"
        folder.mkdir()
        for name in ("step-9.pt", "step-80.pt", "step-90.pt.tmp", ".tmp-step-95", "notes"):
            (folder / name).write_text(name)
        with self.at():
            self.assertEqual((self.found(), llmos.resume_step()), ("step-80.pt", 80))

    def test_announced_by_the_program(self) -> None:
        with self.at():
            with self.assertRaises(FileNotFoundError):
                llmos.checkpoint_saved(self.dir / "nothing", 3)
            (self.dir / "own").write_text("own")
            llmos.checkpoint_saved(self.dir / "own", 3)
            self.assertEqual((self.found(), llmos.resume_step()), ("own", 3))

    def test_without_a_shared_folder(self) -> None:
        before = os.getcwd()
        os.chdir(self.dir)
        try:
            with place({}):
                self.save(10)
                self.assertEqual(self.found(), "0:10")
        finally:
            os.chdir(before)
        self.assertIn("@llmos checkpoint step=10 path=checkpoints/step-10.txt\n", self.out.getvalue())


if __name__ == "__main__":
    unittest.main()
