#!/bin/sh
# Measures calls on a GPU where nothing can be installed. In two parts, each from the repository's root:
#
#   benchmarks/gpu.sh packages FOLDER [PYTHON_VERSION]   where there is a network: what the engine imports, for the GPU's Python
#   benchmarks/gpu.sh measure KIT FOLDER [OPTION ...]    where the GPU is: options go to `python3 -m benchmarks.gpu`
#
# KIT holds llama.cpp built for the GPU (llama-cuda-*.tar.xz, with lib/ and python/ in it) and make_model.py. GPU_SHAPE names the
# model's shape (qwen2.5-3b), GPU_MODEL a file to use instead.
set -eu

case "${1:-}" in
packages)
    # Beside numpy, jinja2 and typing_extensions, which the machine has. gguf is for make_model.py alone.
    python3 -m pip install --disable-pip-version-check --quiet --no-deps --no-compile --target "$2" --only-binary=:all: \
        --python-version "${3:-3.12}" --implementation cp --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 \
        annotated-types platformdirs pydantic pydantic-core pydantic-settings python-dotenv sentencex typing-inspection \
        rich typer shellingham annotated-doc gguf
    ;;
measure)
    kit=$2 packages=$(cd "$3" && pwd)
    shift 3
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    tar xJf "$kit"/llama-*.tar.xz -C "$work"
    cuda=$(python3 -c "import os, nvidia; print(':'.join(os.path.join(p, 'cu13', 'lib') for p in nvidia.__path__))" 2> /dev/null || true)
    export PYTHONPATH="$work/python:$packages${PYTHONPATH:+:$PYTHONPATH}" LLAMA_CPP_LIB_PATH="$work/lib"
    export LD_LIBRARY_PATH="$work/lib${cuda:+:$cuda}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    shape=${GPU_SHAPE:-qwen2.5-3b}
    model=${GPU_MODEL:-$work/$shape.gguf}
    [ -e "$model" ] || python3 "$kit/make_model.py" "$model" --shape "$shape"
    python3 -m benchmarks.gpu --model "$model" "$@"
    ;;
*)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
