#!/usr/bin/env bash
# How fast a step is, in all the ways in which it can be sent, for at most SECONDS; then four runs at once: `OUT=results bash fast.sh 150`.
set -uo pipefail
cd "$(dirname "$0")/../.."
limit=${1:-150}
out=$(mkdir -p "${OUT:-results}" && cd "${OUT:-results}" && pwd)
source benchmarks/gpu/installed.sh
timeout $((limit - 35)) "$python" benchmarks/gpu/speed.py "$out" --limit $((limit - 42)) ${ARGUMENTS:-} 2>&1 | cut -c1-600
begin_sharing
timeout 35 "$python" benchmarks/gpu/speed.py "$out" --limit 30 --together 4 ${ARGUMENTS:-} 2>&1 | cut -c1-400
end_sharing
tail -n 2 "$out"/speed*.err | grep -v "^$" | cut -c1-300
tar czf "$out/speed-errors.tar.gz" -C "$out" $(cd "$out" && ls speed*.err) && rm -f "$out"/speed*.err
