#!/usr/bin/env bash
# Runs the tests marked `gpu` on a machine that has what `pack.py` lists in there.txt, from the folder that it packed.
#
#   OUT=results bash benchmarks/gpu/works.sh [SECONDS] [pytest options]
#
# What came out lies in $OUT even if time ended: log.txt, figures.txt, *.xml. The last thing printed is a table of failures.
# PYTHON: the interpreter (python3). GPU_FOLDER: what pack.py made (.gpu). DISTILLCTL_GPU_TESTS=cpu: on a CPU. PROCESSES: 6.
set -uo pipefail
cd "$(dirname "$0")/../.."
limit=${1:-200}
shift $(($# > 0 ? 1 : 0))
out=$(mkdir -p "${OUT:-results}" && cd "${OUT:-results}" && pwd)
begun=$SECONDS
source benchmarks/gpu/installed.sh
export DISTILLCTL_GPU_FIGURES=$out/figures.txt
export TRITON_CACHE_DIR=$site/.triton TORCHINDUCTOR_CACHE_DIR=$site/.inductor TORCHINDUCTOR_COMPILE_THREADS=2

# The tests see the installed wheels, and of this checkout only what lies in tests/: copied, since the folder one stands in comes first.
tree=$(mktemp -d)
cp -r tests conftest.py pyproject.toml "$tree"
cd "$tree"
{
    "$python" - <<'PYTHON'
import platform

import torch
import torchvision

import distillctl
from distillctl.plugin.registry import Registry

device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
print("python", platform.python_version(), "torch", torch.__version__, "torchvision", torchvision.__version__, "on", device)
registry = Registry.load()
print(distillctl.__file__, len(list(registry.methods)), "methods", *(f"{p.name}: {p.problem}" for p in registry.plugins if p.problem))
PYTHON
    echo "installed in $((SECONDS - begun)) s"
} 2>&1 | tee "$out/log.txt"

# In the order of what they tell and of how long they take.
files=(tests/gpu/test_precision.py tests/gpu/test_methods.py)
slowest=(tests/gpu/test_compile.py tests/gpu/test_machine.py)
for file in tests/gpu/test_*.py tests/data/test_resident_views.py; do
    [[ " ${files[*]} ${slowest[*]} tests/gpu/test_costs.py " == *" $file "* ]] || files+=("$file")
done
files+=("${slowest[@]}")

# Name of the report, seconds, more arguments. An interrupt lets pytest write its report.
tests() {
    local name=$1 seconds=$2
    shift 2
    timeout -k 8 -s INT "$seconds" "$python" -m pytest -m gpu -W default -p no:cacheprovider -vv --tb=short --show-capture=no --durations=8 \
        --junitxml="$out/$name.xml" "$@" >>"$out/log.txt" 2>&1
    echo "$name: exit code $?, after $((SECONDS - begun)) s" | tee -a "$out/log.txt"
}
# Figures first, alone on the device; then everything else side by side.
share=$((limit / 4))
tests costs "$share" -n0 --timeout=40 tests/gpu/test_costs.py "$@"
left=$((limit - (SECONDS - begun)))
tests works "$left" -n "${PROCESSES:-6}" --maxprocesses "${PROCESSES:-6}" --dist load --maxschedchunk 1 --timeout=120 "${files[@]}" "$@"

echo "=== figures"
grep -v "difference of a gradient" "$out/figures.txt" 2>/dev/null
echo "=== tests that failed, and the first and the last line of what they say"
"$python" - "$out" <<'PYTHON' | tee "$out/failures.txt"
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

out, counts, failed = Path(sys.argv[1]), {}, []
for file in sorted(out.glob("*.xml")):
    for case in ET.parse(file).iter("testcase"):
        problem = next((case.find(kind) for kind in ("failure", "error") if case.find(kind) is not None), None)
        kind = "failed" if problem is not None else "skipped" if case.find("skipped") is not None else "passed"
        counts[kind] = counts.get(kind, 0) + 1
        if problem is not None:
            said = [line for line in (problem.text or "").splitlines() if line.startswith("E ")]
            said = said or [problem.get("message", "").partition("\n")[0]]
            ends = dict.fromkeys((said[0][2:].strip()[:240], said[-1][2:].strip()[:160]))
            failed.append(f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}: {' … '.join(ends)}")
log = (out / "log.txt").read_text(errors="replace")
if not counts:  # killed before a report was written
    failed = sorted(set(re.findall(r"(?:FAILED|ERROR) (?:\x1b\[0m)?tests/\S+.*", log)))
print("\n".join(failed) or "none")
print(counts)
PYTHON
echo "took $((SECONDS - begun)) s"
