# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash disable=SC2034 # the lists are for those who source it
#
# What the commands here share: installing what is missing, and building. To be sourced with
# `set -euo pipefail` in force. Everything it has to say goes to stderr.

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)

# One package a line: Debian's name, and how to tell that it need not be installed - a command,
# a pkg-config module, or a file or directory that is there.
build_packages='
meson           command  meson
ninja-build     command  ninja
gcc             command  cc
libc6-dev       file     /usr/include/stdio.h
pkg-config      command  pkg-config
libsystemd-dev  module   libsystemd
libjson-c-dev   module   json-c
libmnl-dev      module   libmnl
libseccomp-dev  module   libseccomp
'
# systemd is for systemd-analyze and busctl; no manager is started.
test_packages='
acl                           command  setfacl
bpftool                       command  bpftool
btrfs-progs                   command  mkfs.btrfs
check                         module   check
clang                         command  clang
dbus-daemon                   command  dbus-daemon
golang-go                     command  go
golang-github-varlink-go-dev  file     /usr/share/gocode/src/github.com/varlink/go
iproute2                      command  ip
libbpf-dev                    module   libbpf
python3                       command  python3
python3-prometheus-client     file     /usr/lib/python3/dist-packages/prometheus_client
systemd                       command  systemd-analyze
valgrind                      command  valgrind
varlink-go                    command  varlink-go-interface-generator
xfsprogs                      command  mkfs.xfs
'
# For tests/machine: Debian's own keys, or debootstrap doesn't trust what it gets.
machine_packages='
debian-archive-keyring  file     /usr/share/keyrings/debian-archive-keyring.gpg
debootstrap             command  debootstrap
mount                   command  mount
procps                  command  pgrep
systemd-container       command  systemd-nspawn
util-linux              command  nsenter
'
# libFuzzer's headers come with its library.
fuzz_packages='
clang               command  clang
libclang-rt-14-dev  file     /usr/lib/clang/14/include/fuzzer/FuzzedDataProvider.h
'
# What kevd is measured beside, and what draws the plots: bench/run. iproute2 is for `ip monitor`.
bench_packages='
forkstat          command  forkstat
fswatch           command  fswatch
gnuplot-nox       command  gnuplot
inotify-tools     command  fsnotifywait
iproute2          command  ip
python3-watchdog  file     /usr/lib/python3/dist-packages/watchdog
watchman          command  watchman
'

say() {
        printf 'tools/%s: %s\n' "${0##*/}" "$*" >&2
}

# Runs a command, and shows what it wrote only if it failed.
quietly() {
        local log status=0

        log=$(mktemp)
        "$@" >"$log" 2>&1 </dev/null || status=$?
        [ "$status" -eq 0 ] || cat -- "$log" >&2
        rm -f -- "$log"
        return "$status"
}

is_present() {
        local kind=$1 what=$2

        case $kind in
        # Users other than root often have no sbin directory in PATH, where Debian keeps ip.
        command) PATH=$PATH:/usr/sbin:/sbin command -v "$what" >/dev/null ;;
        module) command -v pkg-config >/dev/null && pkg-config --exists "$what" ;;
        file) [ -e "$what" ] ;;
        esac
}

# Prints the names of the packages of the given lists that are missing, one a line.
missing_packages() {
        local package kind what

        printf '%s\n' "$@" | while read -r package kind what; do
                [ -z "$package" ] || is_present "$kind" "$what" || printf '%s\n' "$package"
        done
}

apt() {
        local as_root=()

        [ "$(id -u)" -eq 0 ] || as_root=(sudo)
        quietly "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
                -o DPkg::Lock::Timeout=300 -o APT::Install-Recommends=false "$@"
}

# Sees to it that the packages of the given lists are there.
need_packages() {
        local missing

        mapfile -t missing < <(missing_packages "$@")
        [ "${#missing[@]}" -gt 0 ] || return 0

        if ! command -v apt-get >/dev/null; then
                say "missing, by their names in Debian: ${missing[*]}"
                exit 1
        fi
        if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
                say "missing, and neither root nor sudo to install them: ${missing[*]}"
                exit 1
        fi

        say "installing ${missing[*]}"
        # A source that can't be reached need not be one that these packages come from.
        apt update || say "apt-get update failed; going on with the lists that are there"
        if ! apt install "${missing[@]}"; then
                say "could not install ${missing[*]}"
                exit 1
        fi
}

# What sets the build apart that is for fuzzing: neither what is not fuzzed, nor a program for the kernel. With CC=clang.
fuzz_options=(-Dfuzzers=true -Db_sanitize=address,undefined -Db_lundef=false -Dbpf=disabled -Dtests=false
        -Dbenchmarks=false -Dexamples=false)

# The same for what can be done without: what is not to be had is told, and that is all.
want_packages() {
        local missing package

        mapfile -t missing < <(missing_packages "$@")
        [ "${#missing[@]}" -gt 0 ] || return 0

        if ! command -v apt-get >/dev/null || { [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; }; then
                say "missing, and left out; by their names in Debian: ${missing[*]}"
                return 0
        fi
        say "installing ${missing[*]}"
        apt update || say "apt-get update failed; going on with the lists that are there"
        for package in "${missing[@]}"; do
                apt install "$package" || say "could not install $package: it is left out"
        done
}

# build FOLDER [OPTIONS FOR MESON]: sets up the build folder, below the root, unless it is there,
# and builds. A folder that came along with a copied tree belongs to the tree's old place, and is
# set up anew.
build() {
        local folder=$root/$1
        shift

        if [ ! -e "$folder/build.ninja" ]; then
                quietly meson setup "$folder" "$root" "$@" || return
        elif ! grep -qF "\"source\": \"$root\"" "$folder/meson-info/meson-info.json"; then
                quietly meson setup --wipe "$folder" "$root" "$@" || return
        fi
        quietly ninja -C "$folder" --quiet
}
