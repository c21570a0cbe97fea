"""Checkpoints: written whole or not at all, found again, fenced by the attempt."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Union

from ._report import say
from ._task import task

_RECORDS = ".llmos"
_TRAILING = re.compile(r"([0-9]{1,18})(\.[A-Za-z][A-Za-z0-9]*)*\Z")
_TEMPORARY = {"tmp", "temp", "partial", "incomplete", "inprogress"}


class StaleAttemptError(RuntimeError):
    """A newer attempt of the job has saved already: this one has been replaced."""


@dataclass(frozen=True)
class _Record:
    """What checkpoint_saved notes of one rank's checkpoint."""

    rank: int
    step: int
    epoch: int
    world: int
    path: Path


def checkpoint_dir() -> Path:
    """Where saving() puts checkpoints: a folder of the job that all nodes share, or without
    one a folder of the working directory."""
    shared = task().job_dir
    return (shared if shared is not None else Path.cwd()) / "checkpoints"


@contextmanager
def saving(step: int, *, suffix: str = "", keep: int = 3) -> Iterator[Path]:
    """Gives a path to write the checkpoint of a step to, as a file or a folder. When the block
    ends it is moved into place whole and announced, and all but the newest `keep` of this rank
    go; when it raises, nothing is left. Of data-parallel ranks one, rank 0, saves for all."""
    me, folder = task(), checkpoint_dir()
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step-{step}{suffix}" if me.rank == 0 else f"rank-{me.rank}-step-{step}{suffix}"
    partial = folder / f".tmp-{name}-{me.epoch}-{os.getpid()}"
    try:
        yield partial
        final = folder / name
        _sync(partial)
        _refuse_stale()
        if final.is_dir():
            shutil.rmtree(final)  # of an attempt that was stopped between its move and its word
        os.replace(partial, final)
    finally:
        _remove(partial)
    checkpoint_saved(final, step)
    _prune(max(1, keep))


def _sync(path: Path) -> None:
    for one in [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]:
        with open(one, "rb") as f:
            os.fsync(f.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def checkpoint_saved(path: Union[str, "os.PathLike[str]"], step: int) -> None:
    """Announces a finished checkpoint of this rank, so that the job goes on from it after a
    failure. Raises StaleAttemptError when a newer attempt has saved already."""
    where = Path(path)
    if not where.exists():
        raise FileNotFoundError(f"there is no checkpoint {where}")
    if step < 0:
        raise ValueError(f"step {step} is negative")
    if "\n" in str(where):
        raise ValueError("the checkpoint's path has a line break")
    _refuse_stale()
    me = task()
    if me.job_dir is not None:
        _write_record(me.job_dir, _Record(me.rank, step, me.epoch, me.world_size, where.absolute()))
    say(f"checkpoint step={step} path={_told(where)}")


def _refuse_stale() -> None:
    """An attempt that has been replaced, and does not know it yet, must not save any more."""
    me = task()
    if me.job_dir is None:
        return
    newest = max((r.epoch for r in _records(me.job_dir)), default=0)
    if newest > me.epoch:
        raise StaleAttemptError(f"attempt {me.epoch} has been replaced: attempt {newest} has saved already")


def _told(path: Path) -> Path:
    """The path as seen from the working directory when it lies below it."""
    whole = path.absolute()
    try:
        return whole.relative_to(Path.cwd())
    except ValueError:
        return whole


def _write_record(root: Path, r: _Record) -> None:
    folder = root / _RECORDS / f"rank-{r.rank}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        where = str(r.path.relative_to(root.absolute()))
    except ValueError:
        where = str(r.path)
    partial = folder / f".step-{r.step}.{os.getpid()}"
    partial.write_text(json.dumps({"step": r.step, "epoch": r.epoch, "world": r.world, "path": where}))
    os.replace(partial, folder / f"step-{r.step}.json")


def _records(root: Path) -> List[_Record]:
    """Every announced checkpoint that is still there."""
    out = []
    for file in (root / _RECORDS).glob("rank-*/step-*.json"):
        try:
            says = json.loads(file.read_text())
            record = _Record(int(file.parent.name[5:]), int(says["step"]), int(says["epoch"]), int(says["world"]), root / str(says["path"]))
        except (ValueError, KeyError, OSError):
            continue  # another rank is replacing it, or it is none of ours
        if record.path.exists():
            out.append(record)
    return out


def _prune(keep: int) -> None:
    me = task()
    if me.job_dir is None:
        return
    mine = sorted((r for r in _records(me.job_dir) if r.rank == me.rank), key=lambda r: (r.epoch, r.step))
    for old in mine[:-keep]:
        (me.job_dir / _RECORDS / f"rank-{old.rank}" / f"step-{old.step}.json").unlink(missing_ok=True)
        if old.path.parent == checkpoint_dir().absolute():
            _remove(old.path)


def _newest() -> Optional[_Record]:
    """The checkpoint to go on from: the newest step that every rank which saves has saved. A
    rank that saves none takes that of the lowest rank that does."""
    me = task()
    if me.job_dir is None:
        return _named(checkpoint_dir())
    records = _records(me.job_dir)
    if not records:
        return _named(checkpoint_dir())
    last = max(records, key=lambda r: (r.epoch, r.step))
    by_step: Dict[int, Dict[int, _Record]] = {}
    savers = set()
    for r in records:
        if r.rank < last.world:
            savers.add(r.rank)
            by_step.setdefault(r.step, {})[r.rank] = r
    for step in sorted(by_step, reverse=True):
        ranks = by_step[step]
        if set(ranks) == savers:
            return ranks[me.rank] if me.rank in ranks else ranks[min(ranks)]
    return None


def _named(folder: Path) -> Optional[_Record]:
    """Without records: the finished entry of a folder whose name has the highest step."""
    best: Optional[_Record] = None
    if not folder.is_dir():
        return None
    for entry in sorted(folder.iterdir()):
        number = _TRAILING.search(entry.name)
        if number is None or _is_temporary(entry.name):
            continue
        if best is None or int(number.group(1)) > best.step:
            best = _Record(0, int(number.group(1)), 0, 1, entry)
    return best


def _is_temporary(name: str) -> bool:
    lower = name.lower()
    return lower.startswith((".", "tmp")) or lower.endswith("~") or bool(_TEMPORARY & set(re.split(r"[._-]+", lower)))


def resume_path() -> Optional[Path]:
    """What to go on from: $LLMOS_RESUME, which llmos has fetched to this node, else the newest
    checkpoint in $LLMOS_JOB_DIR that every rank which saves has finished; None: begin anew."""
    given = os.environ.get("LLMOS_RESUME", "")
    if given:
        return Path(given)
    found = _newest()
    return found.path if found is not None else None


def resume_step() -> int:
    """The step of resume_path(): how many steps are done; 0: none."""
    if os.environ.get("LLMOS_RESUME", ""):
        text = os.environ.get("LLMOS_RESUME_STEP", "")
        if text.isdigit():
            return int(text)
        number = _TRAILING.search(Path(os.environ["LLMOS_RESUME"]).name)
        return int(number.group(1)) if number else 0
    found = _newest()
    return found.step if found is not None else 0
