#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# test-machine.sh SOURCE BUILD DRIVER
#
# kevd under a real systemd: builds and installs it as README.md says into a small Debian, boots that with
# systemd-nspawn, and has cases.sh run in it. Prints TAP.
#
# The Debian is made once by debootstrap and kept below $KEVD_MACHINE_CACHE, by default ~/.cache/kevd-machine; what
# is booted is an overlay of it in memory. All that is mounted is so in a namespace of this script's own, and all that
# runs is in a control group below the one that it was started in, and ends with it.
#
# KEVD_MACHINE_ROUNDS   how often the daemon is restarted, and killed, under load (3)
# KEVD_MACHINE_CLIENTS  how many clients watch meanwhile (20)
# KEVD_MACHINE_GAP      the longest that an event may take, in milliseconds (0: any)
# KEVD_MACHINE_RESTART  1: no client may notice a restart
# KEVD_MACHINE_MIRROR   where Debian is (http://deb.debian.org/debian)
set -euo pipefail
export LC_ALL=C

source=$1
build=$2
driver=$3
# What kevd is linked with, and what it is to get along with.
packages=dbus,dbus-user-session,iproute2,libbpf1,libjson-c5,libmnl0,libpam-systemd,polkitd,systemd
boot_seconds=60
poweroff_seconds=60

# Why none of it can run here.
skip_all() {
        echo "1..0 # SKIP $*"
        exit 0
}

# ---- a namespace of its own ------------------------------------------------------------------------------------

if [ -z "${KEVD_MACHINE_NAMESPACE-}" ]; then
        [ "$(id -u)" -eq 0 ] || skip_all "only root can boot a machine"
        for command in debootstrap meson nsenter pgrep setpriv systemd-nspawn unshare; do
                command -v "$command" >/dev/null || skip_all "there is no $command"
        done
        unshare --mount true 2>/dev/null || skip_all "there can be no mount namespace"
        KEVD_MACHINE_NAMESPACE=1 exec unshare --mount --propagation private -- "$0" "$@"
fi
unset KEVD_MACHINE_NAMESPACE

run=$(mktemp -d -t kevd-machine-XXXXXX)
group= # the control group
machine= # the process that ends last

# Leaves nothing, wherever the script is.
# shellcheck disable=SC2317 # it is called at the end
end() {
        trap '' INT TERM HUP
        if [ -n "$group" ]; then
                echo 1 >"$group/cgroup.kill"
                [ -z "$machine" ] || wait "$machine" || true
                remove_group "$group" || echo "can't remove $group" >&2
        fi
        ! mountpoint -q "$run" || umount --recursive "$run"
        rmdir -- "$run"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Processes that were killed are in it for a moment.
remove_group() {
        local deadline=$((SECONDS + 10))

        until find "$1" -depth -type d -exec rmdir -- {} + 2>/dev/null; do
                [ "$SECONDS" -lt "$deadline" ] || return 1
                sleep 0.02
        done
}

mount -t tmpfs -o mode=755 kevd-machine "$run" || skip_all "there can be no tmpfs"
mkdir "$run/root" "$run/upper" "$run/work"

# nspawn looks for the unified hierarchy here.
mount -t cgroup2 kevd-machine /sys/fs/cgroup || skip_all "there is no cgroup2"
own_group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
# Of those who could not clean up.
for group in "$own_group"/kevd-machine-*; do
        [ ! -d "$group" ] || [ -d "/proc/${group##*-}" ] || remove_group "$group" || true
done
group=
mkdir -- "$own_group/kevd-machine-$$" || skip_all "there can be no control group"
group=$own_group/kevd-machine-$$

# ---- what is booted --------------------------------------------------------------------------------------------

# The programs that are built here run there.
suite() {
        # shellcheck disable=SC1091
        (. /etc/os-release && [ "${ID-}" = debian ] && echo "${VERSION_CODENAME-}") || true
}

# make_base DIRECTORY SUITE: unless it is there. Who comes meanwhile waits.
make_base() {
        local base=$1 suite=$2 lock mirror=${KEVD_MACHINE_MIRROR:-http://deb.debian.org/debian}

        mkdir -p -- "$(dirname -- "$base")"
        exec {lock}>"$(dirname -- "$base")/lock"
        flock "$lock"
        if [ ! -d "$base" ]; then
                rm -rf -- "$base.new"
                echo "# making $base, once"
                debootstrap --variant=minbase --include="$packages" "$suite" "$base.new" "$mirror" \
                        >"$run/log" 2>&1 </dev/null {lock}>&- || skip_all "no $suite from $mirror: $(tail -n 1 "$run/log")"
                rm -f -- "$base.new"/var/cache/apt/archives/*.deb
                mv -T -- "$base.new" "$base"
        fi
        exec {lock}>&-
}

# Runs a command, and shows what it wrote only if it failed.
quietly() {
        "$@" >"$run/log" 2>&1 </dev/null || {
                cat -- "$run/log" >&2
                echo "Bail out! ${*@Q} failed"
                exit 1
        }
}

# By README.md's recipe.
install_kevd() {
        local folder=$build/machine-install there=$run/root/usr/libexec/kevd-machine version

        [ -e "$folder/build.ninja" ] || quietly meson setup "$folder" "$source" --prefix=/usr \
                --libdir="lib/$(cc -print-multiarch)" -Dtests=false -Dbenchmarks=false -Dexamples=false
        quietly ninja -C "$folder"
        DESTDIR=$run/root quietly meson install -C "$folder" --no-rebuild

        mkdir -p -- "$there"
        cp -- "$source/tests/machine/cases.sh" "$driver" "$there"
        # Another version: the same program with another number.
        version=$("$folder/daemon/kevd" --version)
        version=${version#kevd }
        sed "s/\\x00${version//./\\.}\\x00/\\x00${version//[0-9]/9}\\x00/" "$folder/daemon/kevd" >"$there/kevd-next"
        chmod 755 "$there/kevd-next"
}

suite=$(suite)
[ -n "$suite" ] || skip_all "what is built here need not run in Debian"
cache=${KEVD_MACHINE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/kevd-machine}
base=$cache/$suite-$(echo "$packages" | sha256sum | cut -c 1-12)
make_base "$base" "$suite"
mount -t overlay -o "lowerdir=$base,upperdir=$run/upper,workdir=$run/work" kevd-machine "$run/root" ||
        skip_all "there can be no overlay of $base"
install_kevd

# ---- booting it --------------------------------------------------------------------------------------------------

# nspawn leaves files there.
mount -t tmpfs -o mode=755 kevd-machine /run

# It ends with this script, even if that is killed: it has a pid namespace, the first process of which is ended then.
# nspawn's own filter of system calls would refuse bpf(2) and file systems' marks of fanotify.
boot() {
        echo "$BASHPID" >"$group/cgroup.procs"
        exec setpriv --pdeathsig KILL -- unshare --pid --fork --kill-child --mount-proc -- \
                env SYSTEMD_SECCOMP=0 systemd-nspawn --quiet --register=no --keep-unit --directory="$run/root" --machine=kevd-machine \
                --private-network --capability=all --link-journal=no --resolv-conf=off --timezone=off \
                --console=pipe --boot
}
boot >"$run/console" 2>&1 </dev/null &
machine=$!

# in_machine COMMAND...: within, with nothing of what is here in the environment.
in_machine() {
        nsenter --target "$leader" --mount --uts --ipc --net --pid --cgroup --root --wd -- \
                env -i PATH=/usr/sbin:/usr/bin HOME=/root TERM=dumb LC_ALL=C "$@"
}

leader=
find_leader() {
        local nspawn

        nspawn=$(pgrep -P "$machine") && leader=$(pgrep -x -P "$nspawn" systemd)
}

has_booted() {
        local state

        [ -n "$leader" ] || find_leader || return 1
        state=$(in_machine systemctl is-system-running 2>/dev/null) || true
        [ "$state" = running ] || [ "$state" = degraded ]
}

deadline=$((SECONDS + boot_seconds))
until has_booted; do
        if ! kill -0 "$machine" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
                sed 's/^/# /' "$run/console"
                skip_all "the machine does not boot: $(tail -n 1 "$run/console" | tr -d '\r')"
        fi
        sleep 0.1
done

# ---- the cases ---------------------------------------------------------------------------------------------------

number=0
failed=0
result() {
        number=$((number + 1))
        [ "$1" = ok ] || failed=1
        echo "$1 $number - $2"
}

settings=()
for variable in KEVD_MACHINE_ROUNDS KEVD_MACHINE_CLIENTS KEVD_MACHINE_GAP KEVD_MACHINE_RESTART; do
        [ -z "${!variable-}" ] || settings+=("$variable=${!variable}")
done
while IFS= read -r line; do
        case $line in
        "ok - "*) result ok "${line#* - }" ;;
        "not ok - "*) result "not ok" "${line#* - }" ;;
        *) printf '%s\n' "$line" ;;
        esac
done < <(in_machine "${settings[@]}" /usr/libexec/kevd-machine/cases.sh </dev/null || echo "not ok - machine:cases")

# The bus may be gone before it has answered.
in_machine systemctl poweroff </dev/null >"$run/log" 2>&1 || true
deadline=$((SECONDS + poweroff_seconds))
while kill -0 "$machine" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do
        sleep 0.1
done
if grep -q '^populated 0$' "$group/cgroup.events" && wait "$machine"; then
        result ok machine:poweroff
else
        result "not ok" machine:poweroff
        cat "$run/log" "$run/console" | sed 's/^/# /'
fi
echo "1..$number"
exit "$failed"
