#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# test-interop-go.sh PROTO
#
# A Go program on Debian's Varlink package talks to the daemon. Its code for our interfaces is
# generated here, from the files in PROTO, and used as it comes. Prints TAP.
set -euo pipefail
export LC_ALL=C

proto=$1
: "${KEVD:?the path of the daemon}"
sources=$(dirname -- "$(readlink -f -- "$0")")/interop-go
packages=/usr/share/gocode

skip_all() {
        echo "1..0 # SKIP $1"
        exit 0
}

command -v go >/dev/null || skip_all "there is no go (golang-go)"
command -v varlink-go-interface-generator >/dev/null ||
        skip_all "there is no varlink-go-interface-generator (varlink-go)"
[ -d "$packages/src/github.com/varlink/go/varlink" ] ||
        skip_all "there is no Varlink package for Go (golang-github-varlink-go-dev)"

directory=$(mktemp -d)
# Go makes what it keeps read-only.
trap 'chmod -R u+w -- "$directory" && rm -rf -- "$directory"' EXIT

# Everything from the file system, nothing from the network, and nothing of the user's.
export GO111MODULE=off GOPROXY=off GOSUMDB=off GOTOOLCHAIN=local GOFLAGS=''
export GOPATH="$directory/go:$packages" GOCACHE="$directory/cache" GOTMPDIR="$directory" GOENV=off
export HOME="$directory" XDG_RUNTIME_DIR="$directory" XDG_CONFIG_HOME="$directory"
export DBUS_SESSION_BUS_ADDRESS="unix:path=$directory/no-bus"

build() {
        local name package

        mkdir -p -- "$directory/run" "$directory/go/src/interop"
        cp -- "$proto"/org.*.varlink "$directory/run"
        for name in org.kevd.events org.kevd.manager; do
                package=$directory/go/src/${name//./}
                mkdir -p -- "$package"
                cp -- "$proto/$name.varlink" "$package"
                varlink-go-interface-generator "$package/$name.varlink"
        done
        cp -- "$sources/main.go" "$directory/go/src/interop"
        go vet interop
        go build -o "$directory/interop" interop
}

if ! (set -e; build) >"$directory/build.log" 2>&1; then
        echo "not ok 1 - interop-go:build"
        sed 's/^/# /' "$directory/build.log"
        echo "1..1"
        exit 1
fi
status=0
"$directory/interop" "$directory/run" || status=$?
exit "$status"
