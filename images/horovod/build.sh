#!/usr/bin/env bash
# Builds Horovod into the environment of a Python that has torch: images/horovod/build.sh PYTHON
# Its last release asks for C++14, and torch 2.13 needs C++17; that, and nothing else, is changed in its sources. PyTorch
# only, over gloo: no MPI, no NCCL. JOBS compilers run at once (2).
set -euo pipefail
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# pip checks the digest, and asks the sources for their name with the environment's own tools.
PATH=$(dirname "$python"):$PATH
export PATH
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary horovod --no-build-isolation \
  --require-hashes --requirement "$here/source.txt" --dest "$work"
tar -xzf "$work"/horovod-*.tar.gz -C "$work"
cd "$work"/horovod-*/
for file in CMakeLists.txt horovod/torch/CMakeLists.txt; do
  sed -i 's/set(CMAKE_CXX_STANDARD 14)/set(CMAKE_CXX_STANDARD 17)/' "$file"
  grep -q 'set(CMAKE_CXX_STANDARD 17)' "$file" || { echo "$file is not as expected" >&2; exit 1; }
done
export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1
export HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_CPU_OPERATIONS=GLOO
export MAKEFLAGS="-j${JOBS:-2}"
"$python" -m pip wheel --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$work/wheel" . > "$work/log" 2>&1 \
  || { tail -n 60 "$work/log" >&2; exit 1; }
cd /
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$work"/wheel/horovod-*.whl
"$python" -c 'import horovod.torch as hvd; assert hvd.gloo_built(); print("Horovod", __import__("horovod").__version__, "is built")'
