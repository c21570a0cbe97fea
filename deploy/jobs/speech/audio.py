"""Spoken digits, made by a speech synthesiser, as log-mel spectra."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import wave
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Voice, words a minute, pitch. Those of HELD_OUT are never trained on.
TRAINED = [("en-us+m1", 150, 40), ("en-us+m3", 175, 55), ("en-us+f1", 160, 50), ("en-us+f3", 190, 65), ("en-gb+m2", 150, 35),
           ("en-gb+m4", 180, 50), ("en-gb+f2", 165, 60), ("en-gb+f4", 185, 45), ("en-gb-scotland+m1", 155, 45), ("en-gb-scotland+f2", 170, 60),
           ("en-gb-x-rp+m5", 165, 40), ("en-gb-x-rp+f1", 180, 55), ("en-us+m7", 165, 30), ("en-gb+m6", 170, 60), ("en-us+f5", 175, 70),
           ("en-us+m2", 200, 50), ("en-gb+f3", 145, 50), ("en-gb-x-rp+m3", 190, 60)]  # fmt: skip
HELD_OUT = [("en-us+m4", 165, 45), ("en-us+f2", 180, 55), ("en-gb+m1", 175, 45), ("en-gb+f1", 160, 55), ("en-gb-scotland+m3", 170, 50), ("en-gb-x-rp+f2", 165, 60)]

BANDS, FRAMES = 32, 64
_RATE, _WINDOW, _HOP = 22050, 551, 276  # 25 and 12.5 ms


def clip(word: str, voice: str, speed: int, pitch: int) -> Any:
    """One spoken word, as samples from -1 to 1."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise SystemExit("espeak-ng is not here: install the Debian package espeak-ng on every node")
    out = subprocess.run([program, "--stdout", "-v", voice, "-s", str(speed), "-p", str(pitch), word], stdout=subprocess.PIPE, check=True).stdout
    with wave.open(io.BytesIO(out)) as f:
        frames = f.readframes(f.getnframes())
    return np.frombuffer(frames, dtype="<i2")[: len(frames) // 2].astype("float32") / 32768


def mel_bands() -> Any:
    """Triangular filters, evenly spaced on the mel scale from 80 to 8,000 Hz."""
    mel = np.linspace(2595 * np.log10(1 + 80 / 700), 2595 * np.log10(1 + 8000 / 700), BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    frequencies = np.fft.rfftfreq(1024, 1 / _RATE)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return np.maximum(0, np.minimum((frequencies - low) / (middle - low), (high - frequencies) / (high - middle)))


def spectrum(samples: Any) -> Any:
    """The log-mel spectrum, without the silence at both ends, of FRAMES frames."""
    loud = np.flatnonzero(np.abs(samples) > 0.02)
    samples = samples[loud[0] : loud[-1] + 1]
    samples = np.pad(samples, (0, max(0, FRAMES * _HOP + _WINDOW - len(samples))))
    at = np.arange(FRAMES)[:, None] * _HOP + np.arange(_WINDOW)
    power = np.abs(np.fft.rfft(samples[at] * np.hanning(_WINDOW), 1024)) ** 2
    return (np.log(power @ mel_bands().T + 1e-5) / 6).astype("float32")


def digits(folder: Path) -> dict[str, Any]:
    """Spectra and digits, for training and held out. They are made once: every rank that finds
    none makes the same, and the first or the last whole file stays."""
    path = folder / "spoken-digits.npz"
    if not path.exists():
        made = {}
        for name, voices in (("train", TRAINED), ("held", HELD_OUT)):
            made[name + "_x"] = np.stack([spectrum(clip(w, *v)) for v in voices for w in WORDS])
            made[name + "_y"] = np.tile(np.arange(10, dtype="int32"), len(voices))
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".spoken-digits-{os.getpid()}-{os.environ.get('RANK', '0')}.npz"
        np.savez(partial, **made)
        os.replace(partial, path)
    with np.load(path) as f:
        return {name: f[name] for name in f.files}
