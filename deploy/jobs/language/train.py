"""Trains a small transformer of characters by PyTorch's DistributedDataParallel.

Every rank reads the same text and trains on other windows of it. Rank 0 saves a checkpoint every
few steps and when llmos asks the job to stop; after a failure all ranks go on from the newest.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import llmos
import llmos.pytorch

TEXT = ("README.md", "CONTRIBUTING.md", "agent/exec/DESIGN.md", "server/controller/DESIGN.md", "proto/llmos/v1/types.proto", "proto/llmos/v1/api.proto")


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.between = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = self.before(x)
        x = x + self.attention(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.between(x))


class Transformer(nn.Module):
    """Predicts the next character of every place."""

    def __init__(self, symbols: int, length: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(symbols, width)
        self.places = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.end = nn.LayerNorm(width)
        self.out = nn.Linear(width, symbols)
        self.register_buffer("mask", torch.triu(torch.full((length, length), -math.inf), diagonal=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[1]
        y = self.characters(x) + self.places(torch.arange(n, device=x.device))
        for block in self.blocks:
            y = block(y, self.mask[:n, :n])
        return self.out(self.end(y))


def corpus(root: Path) -> tuple[torch.Tensor, str]:
    """The text as numbers, and the character of each number."""
    text = "".join((root / name).read_text() for name in TEXT if (root / name).exists())
    symbols = "".join(sorted(set(text)))
    number = {c: i for i, c in enumerate(symbols)}
    return torch.tensor([number[c] for c in text]), symbols


def windows(data: torch.Tensor, count: int, length: int, source: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    at = torch.randint(0, len(data) - length - 1, (count,), generator=source)
    x = torch.stack([data[i : i + length + 1] for i in at.tolist()])
    return x[:, :-1], x[:, 1:]


@torch.no_grad()
def sample(model: Transformer, symbols: str, start: str, count: int, length: int) -> str:
    known = [symbols.index(c) for c in start]
    source = torch.Generator().manual_seed(1)
    for _ in range(count):
        logits = model(torch.tensor([known[-length:]]))[0, -1]
        known.append(int(torch.multinomial(torch.softmax(logits / 0.7, 0), 1, generator=source)))
    return "".join(symbols[i] for i in known)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=400)
    arguments.add_argument("--save-every", type=int, default=20)
    arguments.add_argument("--batch", type=int, default=16, help="windows of each rank")
    arguments.add_argument("--length", type=int, default=48)
    arguments.add_argument("--width", type=int, default=64)
    a = arguments.parse_args()

    device = llmos.pytorch.init()
    torch.set_num_threads(1)
    torch.manual_seed(7)
    data, symbols = corpus(Path.cwd())
    data, held_out = data[: -len(data) // 20], data[-len(data) // 20 :]
    model = Transformer(len(symbols), a.length, a.width, heads=4, layers=2).to(device)
    parallel = DistributedDataParallel(model) if llmos.world_size() > 1 else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    measure = nn.CrossEntropyLoss()

    step = 0
    saved = llmos.pytorch.load(device)
    if saved is not None:
        step = saved["step"]
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    print(f"rank {llmos.rank()} of {llmos.world_size()}, attempt {llmos.epoch()}: {len(data)} characters, begins at step {step}", flush=True)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = measure(parallel(x.to(device)).flatten(0, 1), y.to(device).flatten())
        return out

    while step < a.steps:
        # The windows of a step depend on the step and the rank alone: a resumed run sees the same.
        x, y = windows(data, a.batch, a.length, torch.Generator().manual_seed(1000 * step + llmos.rank()))
        optimizer.zero_grad()
        loss = loss_of(x, y)
        loss.backward()
        optimizer.step()
        step += 1
        llmos.report(step=step, steps=a.steps, loss=loss.item())
        stop = llmos.pytorch.any_should_stop()
        if step % a.save_every == 0 or stop or step == a.steps:
            llmos.pytorch.save(step, model=model.state_dict(), optimizer=optimizer.state_dict())
        if stop:
            return 0

    model.eval()
    with torch.no_grad():
        x, y = windows(held_out, 64, a.length, torch.Generator().manual_seed(1))
        loss = measure(model(x.to(device)).flatten(0, 1), y.to(device).flatten())
    print(f"held-out loss {loss.item():.4f} after {step} steps", flush=True)
    if llmos.rank() == 0:
        print("a sample of what was learned:", sample(model.cpu(), symbols, "llmos ", 120, a.length), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
