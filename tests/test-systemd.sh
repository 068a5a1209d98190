#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# test-systemd.sh SOURCE BUILD
#
# The files for systemd and D-Bus, read by systemd and D-Bus themselves. Prints TAP.
set -euo pipefail
export LC_ALL=C

source=$1
build=$2
number=0
directory=$(mktemp -d)
trap 'rm -rf -- "$directory"' EXIT

# result NAME COMMAND...: the command must succeed and write nothing.
result() {
        local name=$1 status=0 output
        shift

        number=$((number + 1))
        output=$("$@" 2>&1) || status=$?
        if [ "$status" -eq 0 ] && [ -z "$output" ]; then
                echo "ok $number - $name"
        else
                echo "not ok $number - $name"
                printf 'status %s\n%s\n' "$status" "$output" | sed 's/^/# /'
        fi
}

skip() {
        number=$((number + 1))
        echo "ok $number - $1 # SKIP $2"
}

# The units as they are installed, but for the daemon's place: it is where it was built.
unit_copies() {
        local from=$1 to=$2

        mkdir -p -- "$to"
        cp -- "$source/$from/kevd.socket" "$to"
        sed "s|^ExecStart=[^ ]*|ExecStart=$KEVD|" "$build/$from/kevd.service" >"$to/kevd.service"
}

verify() {
        local to=$1
        shift

        XDG_RUNTIME_DIR=$directory systemd-analyze verify --man=no "$@" "$to/kevd.socket" "$to/kevd.service"
}

# The bus comes up with the policy as part of its configuration.
bus_reads_policy() {
        cat >"$directory/bus.conf" <<XML
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
          "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
        <listen>unix:path=$directory/bus</listen>
        <include>$source/org.kevd.conf</include>
</busconfig>
XML
        local address='' pid

        # It tells both when it listens already.
        {
                read -r address
                read -r pid
        } < <(dbus-daemon --config-file="$directory/bus.conf" --fork --print-address=1 --print-pid=1 \
                2>"$directory/bus.log") || true
        # Where kevd isn't installed, its user is not known.
        grep -v 'Unknown username "kevd"' "$directory/bus.log" || true
        [ -n "$address" ] && kill "$pid"
}

makes_user() {
        mkdir -p -- "$directory/etc"
        systemd-sysusers --root="$directory" - <"$source/kevd.sysusers" >/dev/null 2>&1
        grep -q '^kevd:' "$directory/etc/passwd"
}

makes_directory() {
        systemd-tmpfiles --create --root="$directory" - <"$source/kevd.tmpfiles"
        [ "$(stat -c %a:%u:%g "$directory/run/kevd")" = 755:0:0 ]
}

if command -v systemd-analyze >/dev/null; then
        unit_copies . "$directory/system"
        unit_copies user "$directory/user"
        result "systemd:units:system" verify "$directory/system"
        result "systemd:units:user" verify "$directory/user" --user
else
        skip "systemd:units:system" "there is no systemd-analyze"
        skip "systemd:units:user" "there is no systemd-analyze"
fi

if [ "$(id -u)" -ne 0 ]; then
        skip "systemd:files:sysusers" "only root can make files of other users"
        skip "systemd:files:tmpfiles" "only root can make files of other users"
elif command -v systemd-sysusers >/dev/null; then
        result "systemd:files:sysusers" makes_user
        result "systemd:files:tmpfiles" makes_directory
else
        skip "systemd:files:sysusers" "there is no systemd-sysusers"
        skip "systemd:files:tmpfiles" "there is no systemd-tmpfiles"
fi

if command -v dbus-daemon >/dev/null; then
        result "systemd:bus:policy" bus_reads_policy
else
        skip "systemd:bus:policy" "there is no dbus-daemon"
fi
echo "1..$number"
