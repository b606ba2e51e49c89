#!/bin/sh
# Fails when the stubs beside the .proto files are not what `make proto` would write now.
# Compares with a fresh generation, not with git, so that it is right in any state of the work tree.
# Usage: tools/check_stubs.sh PYTHON (see tools/generate_stubs.sh)
set -eu

tools=$(cd "$(dirname "$0")" && pwd)
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"$tools/generate_stubs.sh" "$1" "$fresh"

# The other direction, a stub whose .proto file is gone, is found because diff lists both sides.
if ! diff -r --exclude='*.proto' --exclude='__init__.py' --exclude='py.typed' \
    --exclude='__pycache__' "$fresh/losswire/v1" "$tools/../proto/src/losswire/v1"; then
    echo "The stubs are not up to date; run: make proto" >&2
    exit 1
fi
