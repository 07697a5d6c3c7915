#!/usr/bin/env bash
# CIFAR-100 in two calls, since its archives are too large for one: `right.sh unpack ARCHIVE` for the first, and
# `OUT=results right.sh SECONDS ARCHIVE [options of accuracy.py]` for the second, which trains as well.
set -uo pipefail
cd "$(dirname "$0")/../.."
source benchmarks/gpu/installed.sh
images=/tmp/distillctl-cifar100
what=$1
"$python" benchmarks/gpu/unpack_cifar100.py "$images" "$2" || exit 1
[[ $what == unpack ]] && exit 0
shift 2
out=$(mkdir -p "${OUT:-results}" && cd "${OUT:-results}" && pwd)
begin_sharing
timeout $((what + 25)) "$python" benchmarks/gpu/accuracy.py "$out" --data "$images" --runs /tmp/distillctl-runs --limit "$what" \
    --set train.precision=bf16 --set evaluate.every=20 --set train.save_every=never "$@" 2>&1
end_sharing
for log in "$out"/*.log; do tail -n 3 "$log" | cut -c1-200; done
