"""JAX: the ranks of the attempt as one computer, in two lines::

    import llmos.jax
    llmos.jax.init()

After that jax.devices() are those of all ranks, and jax.process_index() is the rank.
"""

from __future__ import annotations

import jax

from ._task import init as _init
from ._task import take_signal_back


def init() -> None:
    """Joins the coordinator of the attempt. Call it before anything else of JAX is used. With
    one rank there is nothing to join."""
    me = _init()
    if me.world_size == 1:
        return
    if me.master_port is None:
        raise RuntimeError("MASTER_PORT is not set: the ranks cannot meet")
    jax.distributed.initialize(
        coordinator_address=f"{me.master_addr}:{me.master_port}",
        num_processes=me.world_size,
        process_id=me.rank,
    )
    take_signal_back()  # JAX's preemption service has taken SIGTERM
