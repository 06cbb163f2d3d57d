#!/bin/sh
# Builds etcd, kube-apiserver and kube-controller-manager from their Go modules, for the tests that apply what deploys us to
# a real API server: eight minutes of two processors the first time. Usage: build_kubernetes.sh FOLDER; what is there
# already stays.
set -eu

KUBERNETES=1.34.2
ETCD=3.6.5

mkdir -p "$1"
folder=$(cd "$1" && pwd)
PATH="$PATH:/usr/local/go/bin"
export PATH
command -v go >/dev/null 2>&1 || {
	echo "go is needed for etcd and Kubernetes: https://go.dev/dl" >&2
	exit 1
}

# Neither can be had by `go install`, because their modules replace others: each is built as a program of two lines.
build_etcd() {
	mkdir -p "$folder/src-etcd"
	cd "$folder/src-etcd"
	cat >main.go <<-'END'
		package main

		import (
			"os"

			"go.etcd.io/etcd/server/v3/etcdmain"
		)

		func main() { etcdmain.Main(os.Args) }
	END
	rm -f go.mod go.sum
	go mod init etcd 2>/dev/null
	go mod edit -require "go.etcd.io/etcd/server/v3@v$ETCD"
	go mod tidy
	go build -trimpath -ldflags "-s -w" -o "$folder/etcd" .
}

# The staging modules are replaced by folders of Kubernetes' repository; published, they have its version behind a 0.
build_kubernetes() {
	mkdir -p "$folder/src-kubernetes"
	cd "$folder/src-kubernetes"
	go mod download "k8s.io/kubernetes@v$KUBERNETES"
	module="$(go env GOMODCACHE)/k8s.io/kubernetes@v$KUBERNETES"
	sed -E -e 's#^module .*#module kubernetes#' \
		-e "s#^([[:space:]]*)(k8s.io/[a-z-]+) => ./staging/.*#\1\2 => \2 v0.${KUBERNETES#1.}#" "$module/go.mod" >go.mod
	go mod edit -require "k8s.io/kubernetes@v$KUBERNETES"
	cp "$module/go.sum" go.sum
	chmod u+w go.sum
	version="-X k8s.io/component-base/version.gitVersion=v$KUBERNETES"
	version="$version -X k8s.io/component-base/version.gitMajor=1"
	version="$version -X k8s.io/component-base/version.gitMinor=$(echo "$KUBERNETES" | cut -d. -f2)"
	for name in kube-apiserver kube-controller-manager; do
		mkdir -p "$name"
		cp -f "$module/cmd/$name/${name#kube-}.go" "$name/main.go"
		go build -mod=mod -trimpath -ldflags "-s -w $version" -o "$folder/$name" "./$name"
	done
}

[ -x "$folder/etcd" ] || build_etcd
{ [ -x "$folder/kube-apiserver" ] && [ -x "$folder/kube-controller-manager" ]; } || build_kubernetes
