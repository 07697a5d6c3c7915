# To be sourced: what `pack.py` packed is importable afterwards; the same wheels are not installed a second time.
site=${GPU_SITE:-${TMPDIR:-/tmp}/distillctl-gpu-$(cat "${GPU_FOLDER:-.gpu}"/wheels/*.whl | sha256sum | cut -c1-12)}
python=${PYTHON:-python3}
if [[ ! -d $site/distillctl ]]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        --target "$site" "${GPU_FOLDER:-.gpu}"/wheels/*.whl || exit 1
fi
export PYTHONUNBUFFERED=1 PYTHONPATH=$site
# Several processes may share the device at once; nothing of its settings changes, and the daemon ends with `end_sharing`.
begin_sharing() {
    export CUDA_MPS_PIPE_DIRECTORY=/tmp/distillctl-mps CUDA_MPS_LOG_DIRECTORY=/tmp/distillctl-mps-log
    mkdir -p "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
    if command -v nvidia-cuda-mps-control >/dev/null && timeout 10 nvidia-cuda-mps-control -d; then
        echo "processes share the device (MPS)"
    else
        unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
        echo "processes take turns on the device (no MPS)"
    fi
}
end_sharing() {
    [[ -z ${CUDA_MPS_PIPE_DIRECTORY:-} ]] || echo quit | timeout 10 nvidia-cuda-mps-control
}
