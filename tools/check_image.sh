#!/bin/sh
# Builds the image on a base made of Debian's packages here, without a registry of images, and uses it as a pod does: as
# nobody, on a read-only root, without rights and without a network.
#
#     tools/check_image.sh [CFLAGS]
#
# Needs podman, buildah, runc and mmdebstrap, as root. What is built trusts, and looks for packages, as this machine does.
set -eu
folder=$(mktemp -d)
root=$(realpath "$(dirname "$0")/..")
base=localhost/fastrunner-base:check
image=localhost/fastrunner:check
export CONTAINERS_STORAGE_CONF="$folder/storage.conf" CONTAINERS_CONF="$folder/containers.conf"

clean() {
    podman rm --force --all >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap clean EXIT

cat >"$CONTAINERS_STORAGE_CONF" <<END
[storage]
driver = "vfs"
graphroot = "$folder/graph"
runroot = "$folder/run"
END
cat >"$CONTAINERS_CONF" <<'END'
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
END

mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3 bookworm "$folder/base.tar"
podman import --quiet "$folder/base.tar" "$base" >/dev/null
rm "$folder/base.tar"
set -- --build-arg "CFLAGS=${1:--O2}" --volume /etc/ssl/certs:/etc/ssl/certs:ro
if [ -e /etc/pip.conf ]; then set -- "$@" --volume /etc/pip.conf:/etc/pip.conf:ro; fi
buildah bud --quiet --isolation chroot --ulimit nofile=20000:20000 --ulimit nproc=4096:4096 --build-arg "BASE=$base" "$@" \
    --file "$root/deploy/container/Containerfile" --tag "$image" "$root" >/dev/null

as_pod() { podman run --network none --read-only --tmpfs /tmp --cap-drop all --security-opt no-new-privileges "$@"; }

as_pod --rm "$image" --version
test "$(as_pod --rm --entrypoint id "$image" -u)" = 65532
test "$(as_pod --rm --volume "$root/examples/routing.yaml:/routing.yaml:ro" "$image" \
    run /routing.yaml --quiet --input '{"topic": "api", "severity": 3}')" = \
    '{"team":"engineering","ticket":{"topic":"api","severity":3}}'
as_pod --rm --entrypoint cat "$image" /usr/share/doc/fastrunner/sbom.cdx.json >"$folder/sbom.json"
grep -q '"name": "grpcio"' "$folder/sbom.json"

as_pod --detach --name runner --volume data:/var/lib/fastrunner "$image" >/dev/null
tries=0
until podman exec runner fastrunner status >/dev/null 2>&1; do
    tries=$((tries + 1))
    test "$tries" -lt 60 || { podman logs runner; exit 1; }
    sleep 1
done
podman exec runner fastrunner bench --target localhost:9090 --seconds 0.2
code=0
as_pod --rm --volume data:/var/lib/fastrunner "$image" serve --grpc-port 0 --http-port 0 2>"$folder/second" || code=$?
test "$code" = 5
grep -q 'is in use by another runner' "$folder/second"
podman stop --time 45 runner >/dev/null
test "$(podman inspect --format '{{.State.ExitCode}}' runner)" = 0
echo "the image works: $(podman image inspect --format '{{.Size}}' "$image") bytes"
