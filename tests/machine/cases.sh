#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# cases.sh
#
# What test-machine.sh has run within the machine: kevd as systemd, D-Bus and polkit have it. Prints lines of TAP
# without numbers, and figures behind "# ". The machine is thrown away afterwards: nothing is put back.
#
# shellcheck disable=SC2317 # the cases are called by result()
set -euo pipefail
export LC_ALL=C

# What systemd-analyze may find at most.
exposure_system=4.0
exposure_broker=5.0
exposure_user=6.6

here=$(dirname -- "$(readlink -f -- "$0")")
clients=${KEVD_MACHINE_CLIENTS:-20}
rounds=${KEVD_MACHINE_ROUNDS:-3}
# The longest that anything may take to be told, in milliseconds. 0: only the figure is printed.
gap=${KEVD_MACHINE_GAP:-0}
user=tester
directory=$(mktemp -d)
chmod 755 "$directory"

# ---- what the cases are made of ----------------------------------------------------------------------------

# result NAME COMMAND...: the command runs by itself; it must not fail.
result() {
        local name=$1 status
        shift

        set +e
        (
                set -e
                # What a case leaves running ends with it.
                trap 'jobs -p | xargs -r kill -KILL 2>/dev/null || true' EXIT
                "$@"
        ) >"$directory/result" 2>&1
        status=$?
        set -e
        if [ "$status" -eq 0 ]; then
                echo "ok - machine:$name"
                grep '^# ' "$directory/result" || true
        else
                echo "not ok - machine:$name"
                {
                        echo "status $status"
                        cat "$directory/result"
                        journalctl --no-pager --quiet --lines=30 --output=short-monotonic --unit=kevd.service
                } | sed '/^# /!s/^/# /'
        fi
}

skip() {
        echo "ok - machine:$1 # SKIP $2"
}

die() {
        echo "$*"
        exit 1
}

# until_true COMMAND...: until it succeeds, for 20 seconds at most.
until_true() {
        local deadline=$((SECONDS + 20))

        until "$@"; do
                [ "$SECONDS" -lt "$deadline" ] || die "still not so after 20 seconds: $*"
                sleep 0.02
        done
}

has() {
        grep -qF -- "$2" "$1" || {
                cat -- "$1"
                die "$1 has no \"$2\""
        }
}

as_user() {
        local runtime
        runtime=/run/user/$(id -u "$user")

        runuser -u "$user" -- env HOME="/home/$user" XDG_RUNTIME_DIR="$runtime" \
                DBUS_SESSION_BUS_ADDRESS="unix:path=$runtime/bus" "$@"
}

# is STATE [COMMAND...]: of the service, as systemctl has it.
is() {
        local state=$1 found
        shift

        found=$("$@" systemctl ${1:+--user} is-active kevd.service || true)
        [ "$found" = "$state" ] || die "kevd.service is $found, not $state"
}

property() {
        systemctl show --value --property="$1" kevd.service
}

# Commands that fail, and say so.
refused() {
        local message=$1
        shift

        ! "$@" >"$directory/refused" 2>&1 || die "not refused: $*"
        has "$directory/refused" "$message"
}

# ---- the machine, and starting the daemon -------------------------------------------------------------------

boot() {
        [ "$(systemctl is-system-running)" = running ] || {
                systemctl --no-pager --failed
                die "the machine is not in order"
        }
        getent passwd kevd
        [ "$(stat -c %a:%u:%g /run/kevd)" = 755:0:0 ]
        is inactive
}

activation_root() {
        systemctl enable --now kevd.socket
        is inactive
        kev status --address system >"$directory/status"
        has "$directory/status" "system mode"
        is active
}

activation_other() {
        systemctl stop kevd.service
        is inactive
        as_user kev timer --address system --timeout 20 --count 1 10ms
        is active
        refused PermissionDenied as_user kev status --address system
}

activation_bus() {
        systemctl stop kevd.service
        is inactive
        busctl call org.kevd /org/kevd/Manager org.kevd.Manager GetStatus >"$directory/status"
        has "$directory/status" 'mode\":\"system'
        is active
}

activation_user() {
        as_user systemctl --user enable --now kevd.socket
        is inactive as_user
        as_user kev status --address user >"$directory/status"
        has "$directory/status" "user mode"
        is active as_user
}

# ---- log level, polkit ---------------------------------------------------------------------------------------

# Of what can't be watched with fanotify the daemon tells at this level.
log_level() {
        local watching

        systemctl service-log-level kevd.service debug
        [ "$(systemctl service-log-level kevd.service)" = debug ]
        kev status --address system >"$directory/status"
        has "$directory/status" "log level    debug"
        refused "it takes an authentication" as_user systemctl service-log-level kevd.service info
        kev watch --address system /var/tmp >"$directory/watching" 2>&1 &
        watching=$!
        until_true grep -q "watching" "$directory/watching"
        kill "$watching"
        until_true journal_has_debug
}

journal_has_debug() {
        journalctl --quiet --unit=kevd.service --output=cat PRIORITY=7 >"$directory/journal"
        grep -q "fanotify: " "$directory/journal"
}

log_level_user() {
        as_user systemctl --user service-log-level kevd.service debug
        [ "$(as_user systemctl --user service-log-level kevd.service)" = debug ]
        as_user kev status --address user >"$directory/status"
        has "$directory/status" "log level    debug"
}

# polkit_rule ANSWER: what polkit says to the user from here on.
polkit_rule() {
        cat >/etc/polkit-1/rules.d/50-kevd.rules <<JS
polkit.addRule(function(action, subject) {
        if (action.id == "org.kevd.observe-processes" && subject.user == "$user")
                return polkit.Result.$1;
});
JS
        systemctl restart polkit.service
}

# Without a rule a password is asked for, and there is nobody to type one.
polkit_refuses() {
        rm -f /etc/polkit-1/rules.d/50-kevd.rules
        sleep 1000 &
        refused "it takes an authentication" as_user kev proc --address system --all-users $!
        refused "another user's" as_user kev proc --address system $!
        polkit_rule NO
        refused "polkit doesn't permit org.kevd.observe-processes" as_user kev proc --address system --all-users $!
}

polkit_grants() {
        local process observer

        polkit_rule YES
        sleep 1000 &
        process=$!
        as_user kev proc --address system --timeout 60 --all-users --json "$process" >"$directory/observed" \
                2>"$directory/observer" &
        observer=$!
        until_true grep -q "watching" "$directory/observer"
        kill -KILL "$process"
        until_true grep -q '"exit"' "$directory/observed"
        has "$directory/observed" '"signal":9'
        wait "$observer"
        # It was that connection's alone.
        sleep 1000 &
        refused "another user's" as_user kev proc --address system $!
}

# ---- security, watchdog --------------------------------------------------------------------------------------

# status PID FIELD: of /proc/PID/status.
status() {
        awk -v field="$2:" '$1 == field { print $2 }' "/proc/$1/status"
}

# Of the daemon, and of its broker, which is another service.
privileges() {
        local daemon broker

        kev status --address system >"$directory/status"
        has "$directory/status" "fanotify"
        daemon=$(property MainPID)
        broker=$(systemctl show --value --property=MainPID 'kevd-broker@*.service')
        echo "# the daemon: user $(stat -c %U "/proc/$daemon"), $(status "$daemon" CapPrm); the broker: user" \
                "$(stat -c %U "/proc/$broker"), $(status "$broker" CapPrm)"
        [ "$(status "$daemon" Uid)" = "$(id -u kevd)" ]
        [ "$(status "$daemon" CapPrm)" = 0000000000000004 ] # CAP_DAC_READ_SEARCH
        [ "$(status "$daemon" CapBnd)" = 0000000000000004 ]
        for pid in "$daemon" "$broker"; do
                [ "$(status "$pid" CapInh)$(status "$pid" CapAmb)" = 00000000000000000000000000000000 ]
                [ "$(status "$pid" NoNewPrivs)" = 1 ]
                [ "$(status "$pid" Seccomp)" = 2 ]
        done
        [ "$(status "$broker" Uid)" = 0 ]
}

# exposure UNIT MOST COMMAND...
exposure() {
        local unit=$1 most=$2 found
        shift 2

        "$@" security --no-pager "$unit" >"$directory/exposure"
        found=$(sed -n 's/.*exposure level for [^ ]*: \([0-9.]*\) .*/\1/p' "$directory/exposure")
        echo "# exposure level $found, at most $most"
        awk -v found="$found" -v most="$most" 'BEGIN { exit !(found != "" && found + 0 <= most + 0) }' ||
                { cat "$directory/exposure"; exit 1; }
}

# drop_in NAME LINES: part of the unit from here on.
drop_in() {
        mkdir -p /etc/systemd/system/kevd.service.d
        printf '%s\n' "$2" >"/etc/systemd/system/kevd.service.d/$1.conf"
        systemctl daemon-reload
}

has_restarted() {
        [ "$(property NRestarts)" -gt "$1" ] && [ "$(systemctl is-active kevd.service)" = active ]
}

# Sooner than the unit has it. Who does nothing is left alone; who is stopped doesn't answer, and is ended.
watchdog() {
        local before

        drop_in watchdog $'[Service]\nWatchdogSec=2s\nLimitCORE=0'
        systemctl restart kevd.service
        before=$(property NRestarts)
        kev timer --address system --timeout 20 --count 1 5s
        [ "$(property NRestarts)" -eq "$before" ]
        systemctl kill --kill-whom=main --signal=STOP kevd.service
        until_true has_restarted "$before"
        journalctl --quiet --unit=kevd.service --output=cat >"$directory/journal"
        has "$directory/journal" "Watchdog timeout"
        kev timer --address system --timeout 20 --count 1 10ms
        rm -- /etc/systemd/system/kevd.service.d/watchdog.conf
        systemctl daemon-reload
        systemctl restart kevd.service
}

# ---- under load -----------------------------------------------------------------------------------------------


# / is an overlay, where fanotify can't be.
fanotify_trees=/tmp/kevd-trees
inotify_trees=/var/tmp/kevd-trees

# load "OPTION... DIRECTORY..." COMMAND...
load() {
        local arguments=()

        read -ra arguments <<<"--clients=$clients --gap=$gap --user=$(id -u "$user") --link=kevm0 $1"
        shift
        rm -rf -- "$fanotify_trees" "$inotify_trees"
        mkdir -- "$fanotify_trees" "$inotify_trees"
        "$here/machine-driver" "${arguments[@]}" -- "$@"
}

# The least that has to work before the daemon may go away.
load_undisturbed() {
        load "--rounds=1 $fanotify_trees $inotify_trees" true
}

# restart "OPTION... DIRECTORY...": what clients see of it is for the options to say.
restart() {
        load "--rounds=$rounds $1" systemctl restart kevd.service
}

killed() {
        local before

        systemctl restart kevd.service
        before=$(property NRestarts)
        load "--may-disconnect --rounds=$rounds $fanotify_trees $inotify_trees" \
                systemctl kill --kill-whom=main --signal=KILL kevd.service
        [ "$(property NRestarts)" -eq $((before + rounds)) ] || die "restarted $(property NRestarts) times"
}

upgrade() {
        local next

        next=$("$here/kevd-next" --version)
        [ "$next" != "$(kevd --version)" ]
        load "--may-cover --rounds=1 $fanotify_trees $inotify_trees" \
                sh -c "install -m 755 '$here/kevd-next' /usr/bin/kevd && systemctl restart kevd.service"
        kev status --address system >"$directory/status"
        has "$directory/status" "$next, system mode"
}

# Who is connected sees the end, as there is no next daemon; whoever connects again, as libkev does, starts one.
stop_connected() {
        local client before

        kev timer --address system 1h >"$directory/client" 2>&1 &
        client=$!
        until_true grep -q "watching" "$directory/client"
        before=$(property InvocationID)
        systemctl stop kevd.service
        until_true is_another "$before"
        kill "$client"
}

is_another() {
        [ "$(property InvocationID)" != "$1" ] && [ "$(systemctl is-active kevd.service)" = active ]
}

# In order, and with nothing left.
stop() {
        local group

        group=/sys/fs/cgroup$(property ControlGroup)
        systemctl stop kevd.service
        [ "$(property Result)" = success ]
        [ ! -d "$group" ]
        [ "$(property NFileDescriptorStore)" = 0 ]
        [ "$(systemctl is-active kevd.socket)" = active ]
}

ldconfig
useradd --create-home "$user"
loginctl enable-linger "$user"
until_true test -S "/run/user/$(id -u "$user")/bus"
ip link add kevm0 type veth peer name kevm1

result boot boot
result activation:root activation_root
result activation:other activation_other
result activation:bus activation_bus
result activation:user activation_user
result log-level:system log_level
result log-level:user log_level_user
result polkit:refuses polkit_refuses
result polkit:grants polkit_grants
result privileges privileges
result exposure:system exposure kevd.service "$exposure_system" systemd-analyze
result exposure:broker exposure kevd-broker@.service "$exposure_broker" systemd-analyze
result exposure:user exposure kevd.service "$exposure_user" as_user systemd-analyze --user
if [[ $(property WatchdogUSec) == [1-9]* ]]; then
        result watchdog watchdog
else
        skip watchdog "the unit has no WatchdogSec="
fi

# It is started more often than any unit should be.
drop_in often $'[Unit]\nStartLimitIntervalSec=0'
result load:undisturbed load_undisturbed
# On a machine that has no time for it a watch may be made anew. What is asked on behalf of other users ends with the
# daemon, and so do deputies. Clients are told to look again then.
if [ "${KEVD_MACHINE_RESTART-}" = 1 ]; then
        result load:restart restart "--user=0 $fanotify_trees $inotify_trees"
        result load:restart:others restart "$fanotify_trees $inotify_trees"
else
        result load:restart restart "--may-cover-some --user=0 $fanotify_trees $inotify_trees"
        result load:restart:others restart "--may-cover $fanotify_trees $inotify_trees"
fi
result load:upgrade upgrade
result load:killed killed
result stop:connected stop_connected
result stop:alone stop
rm -rf -- "$directory"
