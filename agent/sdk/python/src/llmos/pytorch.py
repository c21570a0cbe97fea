"""PyTorch: the ranks of the attempt as a process group, in two lines::

    import llmos.pytorch
    device = llmos.pytorch.init()
"""

from __future__ import annotations

from typing import Any, Optional

import torch
import torch.distributed

from ._checkpoint import resume_path, saving
from ._task import init as _init


def init(backend: Optional[str] = None) -> Any:
    """Joins the process group of the attempt and gives this rank's torch.device. The backend is
    nccl when the task has a GPU, else gloo. With one rank no group is made."""
    me = _init()
    cuda = bool(torch.cuda.is_available())
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if me.world_size > 1 and not torch.distributed.is_initialized():
        if me.master_port is None:
            raise RuntimeError("MASTER_PORT is not set: the ranks cannot meet")
        torch.distributed.init_process_group(
            backend or ("nccl" if cuda else "gloo"),
            init_method=f"tcp://{me.master_addr}:{me.master_port}",
            rank=me.rank,
            world_size=me.world_size,
        )
    return device


def any_should_stop() -> bool:
    """Whether any rank was asked to stop. Every rank gets the same answer at the same step, so
    that none leaves the others alone in a collective; every rank must call it."""
    from ._task import should_stop

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return should_stop()
    flag = torch.tensor([1.0 if should_stop() else 0.0])
    if torch.distributed.get_backend() == "nccl":
        flag = flag.cuda()
    torch.distributed.all_reduce(flag)
    return bool(flag.item() > 0)


def save(step: int, **state: Any) -> None:
    """Saves a checkpoint by rank 0: state_dicts and values by name. The other ranks do nothing."""
    if _init().rank != 0:
        return
    with saving(step, suffix=".pt") as path:
        torch.save({"step": step, **state}, path)


def load(map_location: Any = "cpu") -> Optional[Any]:
    """What save() saved last, with its "step"; None: begin anew."""
    path = resume_path()
    return None if path is None else torch.load(path, map_location=map_location)
