#!/bin/sh
# Generates the Python stubs of every .proto file below proto/src into a directory.
# Usage: tools/generate_stubs.sh PYTHON DIRECTORY
# PYTHON belongs to the environment that proto/generator.txt describes.
set -eu

python=$1
out=$2
bin=$(dirname "$python")
root=$(cd "$(dirname "$0")/.." && pwd)/proto/src

protoc() {
    "$python" -m grpc_tools.protoc --proto_path="$root" \
        --plugin="$bin/protoc-gen-mypy" --plugin="$bin/protoc-gen-mypy_grpc" "$@"
}

# The plugins name every file that they write on stderr; only errors are of interest.
# shellcheck disable=SC2046 # proto file names hold no spaces
protoc --python_out="$out" --mypy_out=quiet:"$out" $(cd "$root" && find losswire -name '*.proto' | sort)

# Only files with a service get gRPC stubs, because the others would be empty shells.
# shellcheck disable=SC2046
protoc --grpc_python_out="$out" --mypy_grpc_out=quiet:"$out" \
    $(cd "$root" && grep -rl --include='*.proto' '^service ' losswire | sort)
