"""Lines on standard output by which a task speaks to its agent."""

from __future__ import annotations

import math
import re
import sys
import threading
from typing import Optional, SupportsFloat, SupportsIndex, Union

Number = Union[SupportsFloat, SupportsIndex]

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
_VALUES_MAX = 32
_lock = threading.Lock()


def say(text: str) -> None:
    """Writes one whole line at once, so that lines of threads do not mix."""
    with _lock:
        sys.stdout.write(f"@llmos {text}\n")
        sys.stdout.flush()


def report(*, step: int, steps: Optional[int] = None, loss: Optional[Number] = None, **values: Number) -> None:
    """Tells how far the task is: `llmos ps` and `llmos top` show it. Any number can be told
    beside the loss, also one in a tensor of one element; what is not finite is left out."""
    if step < 0 or (steps is not None and steps < 0):
        raise ValueError(f"step {step} of {steps}: steps count from 0")
    words = [f"step={int(step)}"]
    if steps is not None:
        words.append(f"steps={int(steps)}")
    told = dict(values) if loss is None else {"loss": loss, **values}
    if len(told) > _VALUES_MAX:
        raise ValueError(f"{len(told)} values are too many, at most {_VALUES_MAX}")
    for key, value in told.items():
        if not _KEY.match(key):
            raise ValueError(f"{key!r} is not a value's name: use letters, digits, _ . and -, at most 64")
        number = float(value)
        if math.isfinite(number):
            words.append(f"{key}={number:.8g}")
    say(" ".join(words))
