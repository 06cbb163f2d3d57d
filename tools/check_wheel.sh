#!/bin/sh
# Installs a wheel into a new environment in a new folder, and uses it there: what a checkout has beside it must not be needed.
#
#     tools/check_wheel.sh PYTHON FOLDER
#
# FOLDER has the wheels; the one that is of this Python is taken. A document is executed in one process, then by a runner, over gRPC.
set -eu
python=$1
tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
wheel=$(realpath "$2"/fastrunner-*-"$tag"-"$tag"-*.whl)
[ -f "$wheel" ] || { echo "$2 has no wheel of $tag: make wheels PYTHONS=$python" >&2; exit 2; }
example=$(realpath "$(dirname "$0")/../examples/routing.yaml")
folder=$(mktemp -d)
runner=
finish() {
    [ -z "$runner" ] || { kill "$runner" && wait "$runner"; } || true
    rm -rf "$folder"
}
trap finish EXIT
cd "$folder"
unset PYTHONPATH
"$python" -m venv env
env/bin/python -m pip install --quiet "$wheel"
cp "$example" mine.yaml
input='{"topic": "api", "severity": 3}'
output='{"team":"engineering","ticket":{"topic":"api","severity":3}}'

env/bin/fastrunner validate mine.yaml
test "$(env/bin/fastrunner run mine.yaml --quiet --input "$input")" = "$output"

export FASTRUNNER_DATA_DIR="$folder/data" GRPC_PORT=0 FASTRUNNER_HTTP_PORT=0 FASTRUNNER_WORKERS=1
env/bin/fastrunner serve 2>served.log &
runner=$!
for _ in $(seq 600); do
    [ ! -f data/ports.json ] || break
    kill -0 "$runner" || { cat served.log >&2; exit 1; }
    sleep 0.1
done
port=$(env/bin/python -c 'import json; print(json.load(open("data/ports.json"))["grpc_port"])')
said=$(env/bin/fastrunner submit mine.yaml --target "localhost:$port" --id first --input "$input" --follow)
test "$said" = "$output" || { echo "$said" >&2; cat served.log >&2; exit 1; }
kill "$runner"
wait "$runner"
runner=

env/bin/fastrunner bench --seconds 0.2
echo "$(basename "$wheel") works with $("$python" --version)"
