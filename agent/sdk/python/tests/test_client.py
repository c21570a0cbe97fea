"""What the client asks of the llmos program, and what it makes of the answers."""

from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import llmos

# A program that notes its arguments and answers as llmos does.
FAKE = """#!/bin/sh
echo "$@" >> {log}
case "$1" in
run)  [ "$2 $3" = "-o json" ] && [ "$4" != bad.yaml ] && echo '{{"job_id": "train-1", "index": "7"}}' && exit 0
      echo "bad.yaml:3: count: the role has 0 tasks, at least 1" >&2; exit 2;;
wait) echo '{{"job": {{"id": "train-1", "state": "JOB_STATE_FAILED", "exit_code": 3, "reason": "rank 1: exit 3", "epoch": "2"}}}}'
      exit 3;;
logs) echo "[0] hello"; echo "[1] sorry" >&2;;
why)  echo '{{"reason": "it waits for 2 GPUs"}}';;
stop) echo "llmos: there is no job train-1" >&2; exit 3;;
esac
"""


class Client(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        program, self.log = Path(folder.name) / "llmos", Path(folder.name) / "log"
        program.write_text(FAKE.format(log=self.log))
        program.chmod(0o755)
        patch = mock.patch.dict(os.environ, {"LLMOS_PROGRAM": str(program)})
        patch.start()
        self.addCleanup(patch.stop)

    def asked(self) -> str:
        return self.log.read_text().splitlines()[-1]

    def test_a_file(self) -> None:
        self.assertEqual(llmos.run("train.yaml", name="t", retries=2).id, "train-1")
        self.assertEqual(self.asked(), "run -o json --name t --retries 2 train.yaml")

    def test_a_command(self) -> None:
        llmos.run(["python", "train.py", "--lr", "1"], tasks="2..4", gpus=1, framework="pytorch", env={"A": "1"}, options=["--priority", "high"])
        self.assertEqual(
            self.asked(), "run -o json --tasks 2..4 --gpus 1 --framework pytorch --env A=1 --priority high -- python train.py --lr 1"
        )

    def test_a_refusal(self) -> None:
        with self.assertRaisesRegex(llmos.LlmosError, "bad.yaml:3: count: the role has 0 tasks") as caught:
            llmos.run("bad.yaml")
        self.assertEqual(caught.exception.code, 2)
        with self.assertRaisesRegex(llmos.LlmosError, "there is no job"):
            llmos.Job("train-1").stop()

    def test_the_end(self) -> None:
        result = llmos.Job("train-1").wait()
        self.assertEqual(result, llmos.Result("train-1", "failed", 3, "rank 1: exit 3", 2))
        self.assertFalse(result.ok)
        self.assertEqual(llmos.Job("train-1").why(), "it waits for 2 GPUs")

    def test_logs(self) -> None:
        job = llmos.Job("train-1")
        self.assertEqual(job.logs(rank=1, tail=5), "[0] hello\n[1] sorry\n")
        self.assertEqual(self.asked(), "logs train-1 --rank 1 --tail 5")
        self.assertEqual(sorted(job.follow()), ["[0] hello", "[1] sorry"])

    def test_without_the_program(self) -> None:
        with mock.patch.dict(os.environ, {"LLMOS_PROGRAM": "/nowhere/llmos"}), self.assertRaisesRegex(llmos.LlmosError, "put llmos in PATH"):
            llmos.run("train.yaml")


if __name__ == "__main__":
    unittest.main()
