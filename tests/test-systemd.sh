#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# test-systemd.sh SOURCE BUILD
#
# The files for systemd and D-Bus, read by systemd and D-Bus themselves. Prints TAP.
set -euo pipefail
export LC_ALL=C

: "${KEVD:?the path of the daemon}" "${KEV:?the path of the command}"
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
        local from=$1 to=$2 unit

        mkdir -p -- "$to"
        cp -- "$source/$from/"*.socket "$to"
        for unit in "$build/$from/"*.service; do
                sed "s|^ExecStart=[^ ]*|ExecStart=$KEVD|" "$unit" >"$to/${unit##*/}"
        done
}

verify() {
        local to=$1
        shift

        XDG_RUNTIME_DIR=$directory systemd-analyze verify --man=no "$@" "$to/"*.socket "$to/kevd.service"
}

# exposure UNIT TENTHS: what systemd makes of it, of 100. More than that many is too much.
exposure() {
        local output

        output=$(systemd-analyze security --offline=true --no-pager --threshold="$2" "$1" 2>&1) ||
                grep -E '^[^ ]*[✗→]' <<<"$output"
}

# The calls of the groups and the single ones that are named, one a line.
calls_of() {
        local name

        for name in "$@"; do
                case $name in
                @*) # shellcheck disable=SC2046
                        calls_of $(systemd-analyze syscall-filter "$name" | sed -n 's/^ \+\([@a-z_0-9-]\+\)$/\1/p') ;;
                *) printf '%s\n' "$name" ;;
                esac
        done
}

# lists_of PROCESS...: sandbox.c's lists of what they may call.
lists_of() {
        local process list lists=$source/../daemon/broker/sandbox.c

        for process in "$@"; do
                # shellcheck disable=SC2013 # they are words
                for list in $(sed -n "/\\[SANDBOX_$process\\] =/,/},/p" "$lists" | grep -o 'RULES([a-z_]*' | sed 's/.*(//'); do
                        sed -n "/^static const struct rule $list\\[\\]/,/^};/p" "$lists"
                done
        done
}

# calls_that_are_missing UNIT PROCESS...: of those that their own lists have, since the unit's filter is in force as well.
calls_that_are_missing() {
        local line allowed='' unit=$1
        shift

        while read -r line; do
                # shellcheck disable=SC2086
                case $line in
                "~"*) allowed=$(comm -23 <(printf '%s\n' "$allowed" | sort -u) <(calls_of ${line#\~} | sort -u)) ;;
                *) allowed=$(printf '%s\n' "$allowed"; calls_of $line) ;;
                esac
        done < <(sed -n 's/^SystemCallFilter=//p' "$unit")
        comm -13 <(printf '%s\n' "$allowed" | sort -u) \
                <(lists_of "$@" | grep -oE '\b(ANY|IS|WITHOUT|MASKED)\([a-z_0-9]+' | sed 's/.*(//' | sort -u)
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
                <allow send_type="signal"/>
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

# The user is made when kevd is installed. Here somebody else stands for it.
policy_here() {
        sed 's/<policy user="kevd">/<policy user="daemon">/' "$source/org.kevd.conf" >"$directory/org.kevd.conf"
        echo "$directory/org.kevd.conf"
}

# The bus comes up with the policy as part of its configuration.
bus_reads_policy() {
        bus_start "$(policy_here)"
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

# refused USER REASON PATH METHOD ARGUMENT...: by the daemon itself. busctl would tell only what kind of error it is.
refused() {
        local answer user=$1 reason=$2
        shift 2

        if answer=$(DBUS_SYSTEM_BUS_ADDRESS=unix:path=$directory/bus as "$user" dbus-send --system --print-reply \
                --dest=org.kevd "$@" 2>&1) || [[ $answer != *"$reason"* ]]; then
                printf '%s: %s\n' "$*" "$answer"
        fi
}

# Two users listen, and somebody connects: how many are connected is root's to know.
signals_told_to_root_alone() {
        local rule="type='signal',interface='org.freedesktop.DBus.Properties',member='PropertiesChanged'"
        local deadline=$((SECONDS + 20)) user listeners=()

        for user in 0 65534; do
                as "$user" stdbuf -oL dbus-monitor --address "unix:path=$directory/bus" "$rule" >"$directory/told.$user" \
                        2>"$directory/told.$user.errors" &
                listeners+=($!)
                # It has its name, and asks for the signals next, long before the second of these.
                until grep -qs NameAcquired "$directory/told.$user" || [ "$SECONDS" -ge "$deadline" ]; do
                        sleep 0.01
                done
        done
        until [ "$(grep -c Connections "$directory/told.0")" -ge 2 ] || [ "$SECONDS" -ge "$deadline" ]; do
                "$KEV" status --address "$directory/socket" >"$directory/status" || cat "$directory/status"
                sleep 0.1
        done
        grep -q Connections "$directory/told.0" || { echo "root was not told"; cat "$directory"/told.0*; }
        ! grep PropertiesChanged "$directory/told.65534" || echo "user 65534 was told"
        kill "${listeners[@]}"
        wait "${listeners[@]}" 2>/dev/null || true
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
                "${i%:*}" "${i#*:}" call "${manager[@]}" org.kevd.Manager GetStatistics
                "${i%:*}" "${i#*:}" get-property "${manager[@]}" org.kevd.Manager Watches
                "${i%:*}" "${i#*:}" call "${manager[@]}" "$properties" GetAll s org.kevd.Manager
                "${i%:*}" "${i#*:}" get-property "${log[@]}" org.freedesktop.LogControl1 LogLevel
        done
        # What changes something is root's, and for others polkit is asked, which the daemon does not find on this bus.
        answered 0 set-property "${log[@]}" org.freedesktop.LogControl1 LogLevel s debug
        answered 0 call "${manager[@]}" org.kevd.Manager Reload
        refused 65534 "polkit can't be asked" "${manager[1]}" org.kevd.Manager.ObserveProcesses
        refused 65534 "polkit can't be asked" "${manager[1]}" org.kevd.Manager.Reload
        refused 65534 "polkit can't be asked" "${manager[1]}" org.kevd.Manager.Disconnect uint64:1
        refused 65534 "polkit can't be asked" "${log[1]}" "$properties.Set" string:org.freedesktop.LogControl1 \
                string:LogLevel variant:string:info
        denied 65534 call "${log[@]}" "$properties" GetAll s org.freedesktop.LogControl1
        answered 65534 call "${manager[@]}" org.freedesktop.DBus.Introspectable Introspect
        answered 65534 call "${manager[@]}" org.freedesktop.DBus.Peer Ping
        signals_told_to_root_alone
}

# Who may ask what, with the daemon on that bus: what its socket answers to root alone, the bus does, too.
bus_keeps_policy() {
        local status=0 daemon

        chmod 711 "$directory"
        bus_start "$(policy_here)" || return 1
        env DBUS_SYSTEM_BUS_ADDRESS="unix:path=$directory/bus" \
                "$KEVD" --mode=system --config=/dev/null --listen="$directory/socket" 2>"$directory/kevd.log" &
        daemon=$!
        ask_for_all || status=$?
        kill "$daemon" "$bus"
        wait "$daemon" || status=$?
        return "$status"
}

# The name is for root and the daemon's user alone to take.
bus_refuses_name() {
        bus_start "$(policy_here)" || return 1
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

# installed NAME DIRECTORY...: a file of that name goes to where those who need it look below the prefix or, with
# systemd's own prefix, where systemd.pc says.
installed() {
        local name=$1 found
        shift

        found=$(meson introspect --installed "$(dirname -- "$build")" |
                python3 -c 'import json, sys
for source, target in json.load(sys.stdin).items():
    print(source, target)' | awk -v name="/$name" 'substr($2, length($2) - length(name) + 1) == name')
        [ -n "$found" ] || { echo "$name is not installed"; return 1; }
        while read -r source_file target; do
                [ -s "$source_file" ] || echo "$source_file is not there"
                [[ " $* " == *" $(basename -- "$(dirname -- "$target")") "* ]] || echo "$name goes to $target"
        done <<<"$found"
}

files_are_installed() {
        installed org.kevd.conf system.d
        installed org.kevd.policy actions
        installed org.kevd.service services system-services
        installed kevd.service system user
        installed kevd.socket system user
        installed kevd-broker@.service system
        installed kevd-broker.socket system
        installed kevd.catalog catalog
        installed kevd.conf sysusers.d tmpfiles.d
}

# The daemon asks for each action that there is, and for no other.
actions_are_those_asked_for() {
        diff <(python3 -c 'import sys, xml.etree.ElementTree as tree
for action in tree.parse(sys.argv[1]).iter("action"):
    assert all(action.findtext(f"defaults/allow_{who}").startswith("auth_admin") for who in ("any", "inactive", "active"))
    print(action.get("id"))' "$source/org.kevd.policy" | sort) \
                <(grep -ho '"org\.kevd\.[a-z-]*", [a-z_]*, error)' "$source/../daemon/bus/"*.c | cut -d'"' -f2 | sort)
}

# Each id that the daemon writes is explained, in the catalog as in the manual page, and none else.
catalog_has_all() {
        local ids id

        ids=$(grep -rhoE '"[0-9a-f]{32}"' "$source/../daemon" | tr -d '"' | sort)
        [ -n "$ids" ] || { echo "no ids"; return; }
        diff <(echo "$ids") <(sed -n 's/^-- //p' "$source/kevd.catalog" | sort)
        diff <(echo "$ids") <(grep -oE '[0-9a-f]{32}' "$source/../man/kevd.8" | sort -u)
        mkdir -p -- "$directory/usr/lib/systemd/catalog"
        cp -- "$source/kevd.catalog" "$directory/usr/lib/systemd/catalog"
        journalctl --root="$directory" --update-catalog
        for id in $ids; do
                journalctl --root="$directory" --dump-catalog "$id" >"$directory/entry"
                grep -q '^Subject: ..' "$directory/entry" || echo "$id has no subject"
                grep -q '^Defined-By: kevd$' "$directory/entry" || echo "$id is not kevd's"
        done
}

# What the units say of reloading and the watchdog the daemon does; the manager reads it so.
units_reload() {
        local unit

        for unit in "$build/kevd.service" "$build/user/kevd.service"; do
                # shellcheck disable=SC2016 # it is the unit's
                grep -qxF 'ExecReload=kill -HUP $MAINPID' "$unit" || echo "$unit: no ExecReload="
                grep -qE '^WatchdogSec=[1-9]' "$unit" || echo "$unit: no WatchdogSec="
        done
}

result "systemd:files:installed" files_are_installed
result "systemd:files:actions" actions_are_those_asked_for
result "systemd:files:reload" units_reload
if command -v journalctl >/dev/null; then
        result "systemd:files:catalog" catalog_has_all
else
        skip "systemd:files:catalog" "there is no journalctl"
fi

if command -v systemd-analyze >/dev/null; then
        unit_copies . "$directory/system"
        unit_copies user "$directory/user"
        result "systemd:units:system" verify "$directory/system"
        result "systemd:units:user" verify "$directory/user" --user
        result "systemd:security:system" exposure "$directory/system/kevd.service" 40
        result "systemd:security:broker" exposure "$directory/system/kevd-broker@.service" 50
        result "systemd:security:user" exposure "$directory/user/kevd.service" 66
        result "systemd:security:calls" calls_that_are_missing "$directory/system/kevd.service" DAEMON
        result "systemd:security:calls:broker" calls_that_are_missing "$directory/system/kevd-broker@.service" \
                BROKER SURVEYOR STAND_IN OPENER DEPUTY
else
        skip "systemd:units:system" "there is no systemd-analyze"
        skip "systemd:units:user" "there is no systemd-analyze"
        skip "systemd:security:system" "there is no systemd-analyze"
        skip "systemd:security:user" "there is no systemd-analyze"
        skip "systemd:security:broker" "there is no systemd-analyze"
        skip "systemd:security:calls" "there is no systemd-analyze"
        skip "systemd:security:calls:broker" "there is no systemd-analyze"
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
