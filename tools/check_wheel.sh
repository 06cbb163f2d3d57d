#!/bin/sh
# Installs a wheel into a new environment in a new folder, and uses it there: what a checkout has beside it must not be needed.
#
#     tools/check_wheel.sh PYTHON WHEEL
set -eu
python=$1
wheel=$(realpath "$2")
example=$(realpath "$(dirname "$0")/../examples/routing.yaml")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH
"$python" -m venv env
env/bin/python -m pip install --quiet "$wheel"
cp "$example" mine.yaml
env/bin/fastrunner validate mine.yaml
test "$(env/bin/fastrunner run mine.yaml --quiet --input '{"topic": "api", "severity": 3}')" = \
    '{"team":"engineering","ticket":{"topic":"api","severity":3}}'
env/bin/fastrunner bench --seconds 0.2
echo "$(basename "$wheel") works in $folder"
