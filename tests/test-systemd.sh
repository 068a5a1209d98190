#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# test-systemd.sh SOURCE BUILD
#
# The files for systemd and D-Bus, read by systemd and D-Bus themselves. Prints TAP.
set -euo pipefail
export LC_ALL=C

: "${KEVD:?the path of the daemon}"
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

# bus_start POLICY: a bus on which nobody may do anything but what the file says. Its pid: `bus`.
bus_start() {
        local policy=$1 address=''

        cat >"$directory/bus.conf" <<XML
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
          "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
        <listen>unix:path=$directory/bus</listen>
        <auth>EXTERNAL</auth>
        <policy context="default">
                <allow user="*"/>
                <deny own="*"/>
                <deny send_type="method_call"/>
                <allow send_destination="org.freedesktop.DBus"/>
                <allow send_requested_reply="true" send_type="method_return"/>
                <allow send_requested_reply="true" send_type="error"/>
                <allow receive_type="method_call"/>
                <allow receive_type="method_return"/>
                <allow receive_type="error"/>
                <allow receive_type="signal"/>
        </policy>
        <include>$policy</include>
</busconfig>
XML
        bus=
        # It tells both when it listens already.
        {
                read -r address
                read -r bus
        } < <(dbus-daemon --config-file="$directory/bus.conf" --fork --print-address=1 --print-pid=1 \
                2>"$directory/bus.log") || true
        cat "$directory/bus.log"
        [ -n "$address" ]
}

# The bus comes up with the policy as part of its configuration.
bus_reads_policy() {
        bus_start "$source/org.kevd.conf"
        kill "$bus"
}

# as USER COMMAND...: with nothing of root's.
as() {
        local user=$1
        shift

        setpriv --reuid="$user" --regid="$user" --clear-groups -- "$@"
}

ask() {
        local user=$1
        shift

        as "$user" busctl --address="unix:path=$directory/bus" --timeout=20 "$@" 2>&1
}

answered() {
        local answer

        answer=$(ask "$@") || printf '%s: %s\n' "$*" "$answer"
}

denied() {
        local answer

        if answer=$(ask "$@") || [[ $answer != *"rejected send message"* && $answer != *"Access denied"* ]]; then
                printf '%s: %s\n' "$*" "$answer"
        fi
}

# refused USER REASON METHOD: by the daemon's manager itself. busctl would tell only what kind of error it is.
refused() {
        local answer

        if answer=$(DBUS_SYSTEM_BUS_ADDRESS=unix:path=$directory/bus as "$1" dbus-send --system --print-reply \
                --dest=org.kevd /org/kevd/Manager "org.kevd.Manager.$3" 2>&1) || [[ $answer != *"$2"* ]]; then
                printf '%s: %s\n' "$*" "$answer"
        fi
}

has_name() {
        ask 0 call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus NameHasOwner s org.kevd |
                grep -q true
}

ask_for_all() {
        local manager=(org.kevd /org/kevd/Manager) log=(org.kevd /org/freedesktop/LogControl1) i
        local properties=org.freedesktop.DBus.Properties deadline=$((SECONDS + 20))

        until has_name; do
                [ "$SECONDS" -lt "$deadline" ] || { cat "$directory/kevd.log"; return 1; }
                sleep 0.01
        done
        for i in answered:0 denied:65534; do
                "${i%:*}" "${i#*:}" call "${manager[@]}" org.kevd.Manager GetStatus
                "${i%:*}" "${i#*:}" call "${manager[@]}" org.kevd.Manager ListQueues
                "${i%:*}" "${i#*:}" get-property "${manager[@]}" org.kevd.Manager Watches
                "${i%:*}" "${i#*:}" call "${manager[@]}" "$properties" GetAll s org.kevd.Manager
                "${i%:*}" "${i#*:}" get-property "${log[@]}" org.freedesktop.LogControl1 LogLevel
                "${i%:*}" "${i#*:}" set-property "${log[@]}" org.freedesktop.LogControl1 LogLevel s info
        done
        answered 65534 call "${manager[@]}" org.freedesktop.DBus.Introspectable Introspect
        answered 65534 call "${manager[@]}" org.freedesktop.DBus.Peer Ping
        # It comes to the daemon, which finds no polkit on this bus.
        refused 65534 "polkit can't be asked" ObserveProcesses
}

# Who may ask what, with the daemon on that bus: what its socket answers to root alone, the bus does, too.
bus_keeps_policy() {
        local status=0 daemon

        chmod 711 "$directory"
        bus_start "$source/org.kevd.conf" || return 1
        env DBUS_SYSTEM_BUS_ADDRESS="unix:path=$directory/bus" \
                "$KEVD" --mode=system --config=/dev/null --listen="$directory/socket" 2>"$directory/kevd.log" &
        daemon=$!
        ask_for_all || status=$?
        kill "$daemon" "$bus"
        wait "$daemon" || status=$?
        return "$status"
}

# The name is for root alone to take.
bus_refuses_name() {
        bus_start "$source/org.kevd.conf" || return 1
        as 65534 dbus-send --bus="unix:path=$directory/bus" --print-reply --dest=org.freedesktop.DBus \
                /org/freedesktop/DBus org.freedesktop.DBus.RequestName string:org.kevd uint32:0 \
                >"$directory/name" 2>&1 && cat "$directory/name"
        kill "$bus"
        grep -q 'AccessDenied' "$directory/name"
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
        if [ "$(id -u)" -eq 0 ]; then
                result "systemd:bus:callers" bus_keeps_policy
                result "systemd:bus:name" bus_refuses_name
        else
                skip "systemd:bus:callers" "only root can be two users"
                skip "systemd:bus:name" "only root can be two users"
        fi
else
        skip "systemd:bus:policy" "there is no dbus-daemon"
        skip "systemd:bus:callers" "there is no dbus-daemon"
        skip "systemd:bus:name" "there is no dbus-daemon"
fi
echo "1..$number"
