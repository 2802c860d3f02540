#!/usr/bin/env bash
# On a machine with a GPU: tests, ceilings, operators, layers, memory, in at most nine minutes.
#
#   bash benchmarks/gpu/run.sh [--out FOLDER] [--parts tests operators ...]
#
# Needs no network and no installation of the package, but what it and its tests import: torch,
# torch_geometric, scipy, threadpoolctl, tqdm, triton, matplotlib, pytest, hypothesis, networkx.
# Wheels that the machine lacks may lie in the folder .whl/ of the repository.
set -euo pipefail
start=$(date +%s)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python3}

if compgen -G ".whl/*.whl" > /dev/null; then
  packages=$(mktemp -d)
  trap 'rm -rf "$packages"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --target "$packages" .whl/*.whl
  # they come before packages of the same name that the machine has
  PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$packages"
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

# 540 seconds from the start, but for the report and the plots
left=$((510 - $(date +%s) + start))
"$python" -m benchmarks.gpu.run --seconds "$left" "$@"
