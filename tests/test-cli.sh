#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# test-cli.sh
#
# kev as its users use it, with a real daemon. Prints TAP. KEV and KEVD name the programs.
#
# shellcheck disable=SC2317 # the cases are called by result()
set -euo pipefail
export LC_ALL=C

: "${KEV:?the path of kev}" "${KEVD:?the path of the daemon}"
directory=$(mktemp -d)
socket=$directory/socket
number=0
failed=0
daemon=
system= # the socket of a daemon that is told of all processes, or empty
system_daemon=

# Nothing of the user's is looked at, and no bus.
unset KEV_ADDRESS NO_COLOR JOURNAL_STREAM NOTIFY_SOCKET
export HOME=$directory XDG_RUNTIME_DIR=$directory XDG_CONFIG_HOME=$directory KEVD
export DBUS_SESSION_BUS_ADDRESS=unix:path=$directory/no-bus DBUS_SYSTEM_BUS_ADDRESS=unix:path=$directory/no-bus
ulimit -c 0

end() {
        [ -z "$daemon" ] || kill -KILL "$daemon" 2>/dev/null || true
        [ -z "$system_daemon" ] || kill -KILL "$system_daemon" 2>/dev/null || true
        rm -rf -- "$directory"
}
trap end EXIT

# ---- what the cases are made of ----------------------------------------------------------------------------

# result NAME COMMAND...: the command runs by itself in a directory of its own; it must not fail.
result() {
        local name=$1 status
        shift

        number=$((number + 1))
        mkdir -- "$directory/$number"
        set +e
        (
                set -e
                cd -- "$directory/$number"
                # What a case leaves running ends with it.
                trap 'jobs -p | xargs -r kill -KILL 2>/dev/null || true' EXIT
                "$@"
        ) >"$directory/result" 2>&1
        status=$?
        set -e
        if [ "$status" -eq 0 ]; then
                echo "ok $number - cli:$name"
        else
                failed=1
                echo "not ok $number - cli:$name"
                sed 's/^/# /' "$directory/result"
                (cd -- "$directory/$number" && for file in out err; do
                        [ ! -s "$file" ] || sed "s/^/# $file: /" "$file" | cat -v
                done)
        fi
        chmod -R u+w -- "${directory:?}/$number"
        rm -rf -- "${directory:?}/$number"
}

# skip NAME REASON: what this machine can't do.
skip() {
        number=$((number + 1))
        echo "ok $number - cli:$1 # SKIP $2"
}

die() {
        echo "$*"
        exit 1
}

# until COMMAND...: until it succeeds, for 20 seconds at most.
until_true() {
        local deadline=$((SECONDS + 20))

        until "$@"; do
                [ "$SECONDS" -lt "$deadline" ] || die "did not come true in time: $*"
                sleep 0.01
        done
}

# kev COMMAND...: with the daemon; to `out` and `err`; the exit status to `status`.
kev() {
        local command=$1
        shift

        status=0
        timeout -s KILL 20 "$KEV" "$command" --address "$socket" "$@" >out 2>err </dev/null || status=$?
}

# The same in the background, from when it says that it watches.
kev_begin() {
        local command=$1
        shift

        rm -f out err
        "$KEV" "$command" --address "$socket" "$@" >out 2>err </dev/null &
        pid=$!
        until_true grep -qxE 'kev: watching( with [a-z]+)?' err
}

is_gone() {
        ! kill -0 "$1" 2>/dev/null
}

# Its exit status has to be this.
kev_end() {
        local expected=$1

        until_true is_gone "$pid"
        status=0
        wait "$pid" || status=$?
        expect_status "$expected"
}

expect_status() {
        [ "$status" -eq "$1" ] || die "exit status $status, not $1"
}

# expect FILE TEXT: the whole of it.
expect() {
        printf '%s' "$2" | cmp -s - "$1" || die "$1 is '$(cat -v "$1")', not '$2'"
}

# The lines of `out` without the time in front, each space once.
events() {
        sed -E 's/^[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}  //; s/ +/ /g' out
}

expect_events() {
        [ "$(events)" = "$1" ] || die "events '$(events)', not '$1'"
}

# One line that begins with kev's name, and holds each of the texts.
expect_message() {
        local text

        if [ "$(wc -l <err)" -ne 1 ] || ! grep -q '^kev: ' err; then
                die "not one line of kev's: $(cat -v err)"
        fi
        for text; do
                grep -qF -- "$text" err || die "err does not say '$text': $(cat -v err)"
        done
}

# child_begin [SHELL]: a process that is not kev's child, and ends with what is written to it: `child`, and its
# input on 9.
children=0
child_begin() {
        children=$((children + 1))
        mkfifo "input-$children"
        # shellcheck disable=SC2016
        "${1-sh}" -c 'read -r how <"$0"; eval "$how"' "input-$children" 2>/dev/null &
        child=$!
        exec 9<>"input-$children"
}

# What is in the FIFO is there as long as somebody has it open: the child may not have come to that yet.
child_end() {
        echo "$1" >&9
}

# Every line is an Event as the interface has it, of this filter; there are so many.
expect_json() {
        python3 - "$@" <<'PYTHON'
import json
import sys

kinds = {"id": int, "seq": int, "filter": str, "notes": list, "flags": list, "data": int, "count": int,
         "realtimeUsec": int, "path": str, "pathBytes": str, "fromPath": str, "fromPathBytes": str, "kind": str,
         "process": dict, "link": dict}
always = {"id", "seq", "filter", "notes", "count", "realtimeUsec"}
with open("out") as file:
    events = [json.loads(line) for line in file]
assert len(events) == int(sys.argv[2]), f"{len(events)} events"
for seq, event in enumerate(events, 1):
    assert always <= event.keys() <= kinds.keys(), event
    assert all(type(value) is kinds[key] for key, value in event.items()), event
    assert event["filter"] == sys.argv[1] and event["seq"] == seq and event["count"] >= 1, event
PYTHON
}

# ---- help and usage -------------------------------------------------------------------------------------------

commands=(watch wait proc netdev timer fd monitor status)

help_of_all() {
        local option command

        for option in --help -h help; do
                "$KEV" "$option" >out 2>err
                expect err ''
                for command in "${commands[@]}"; do
                        grep -q "^  kev $command " out || die "$option does not name $command"
                done
        done
        "$KEV" --version >out
        grep -qE '^kev [0-9.]+, libkev [0-9.]+$' out || die "version"
}

help_of() {
        local command=$1 help option

        for help in --help -h; do
                "$KEV" "$command" "$help" >out 2>err
                expect err ''
                [[ $(head -n 1 out) == "Usage: kev $command [OPTION...]"* ]] || die "$(head -n 1 out)"
                for option in --address --json --quiet --help; do
                        grep -q "^  $option " out || die "nothing of $option"
                done
        done
        "$KEV" help "$command" | cmp - out
}

# Wrong usage: nothing is done, one line says what is wrong.
wrong() {
        status=0
        timeout -s KILL 20 "$KEV" "$@" --address "$socket" >out 2>err </dev/null || status=$?
        expect_status 2
        expect out ''
        expect_message "try 'kev "
}

usage() {
        touch file
        wrong nothing
        wrong watch --bogus
        wrong watch -x
        wrong watch --count 0
        wrong watch --count 1x
        wrong watch --timeout 0
        wrong watch --timeout soon
        wrong watch --depth 0
        wrong watch --notes create,nonsense
        wrong watch --notes ''
        wrong watch --quiet=1
        wrong watch --exec true --json
        wrong watch ''
        wrong watch --include '*.c' file
        wrong watch --notes open .
        wrong wait
        wrong wait 0
        wrong wait 4294967296
        wrong wait ''
        wrong wait --any --all 1
        wrong wait --any
        wrong proc --any 1
        wrong proc x
        wrong proc --comm x 1
        wrong proc --track --uid 0 1
        wrong proc --comm ''
        wrong proc --uid "no-such-$$"
        wrong proc --uid 4294967295
        wrong wait --track 1
        wrong wait --notes exit 1
        wrong proc -- -1
        wrong timer
        wrong timer 0
        wrong timer 5x
        wrong timer 1 2
        wrong fd
        wrong fd 0
        wrong fd --in
        wrong fd --in x
        wrong fd --in -1
        wrong fd --in 2147483648
        wrong fd --nval 0
        wrong fd --in 0 0
        wrong fd --lowat 0 --read 0
        wrong fd --lowat 1 --in 0
        wrong fd --level
        wrong fd --exclusive --oneshot --in 0
        wrong fd --exclusive --in 0 --rdhup 0
        wrong fd --exclusive --in 0 --read 0
        wrong monitor
        wrong status x
        wrong status --count 1
        wrong help nothing
        # Without a command there is all the help, where errors go.
        status=0
        "$KEV" >out 2>err || status=$?
        expect_status 2
        expect out ''
        grep -q '^Usage: kev ' err
        status=0
        "$KEV" watch --count >out 2>err || status=$?
        expect_status 2
        expect_message "option '--count' needs a value"
}

# ---- no daemon, nothing to watch ----------------------------------------------------------------------------------

unconnected() {
        status=0
        "$KEV" "$@" --address "$PWD/none" >out 2>err || status=$?
        expect_status 1
        expect out ''
        expect err "kev: Can't connect to kevd at $PWD/none: No such file or directory"$'\n'
}

no_daemon() {
        unconnected watch
        unconnected wait 1
        unconnected proc 1
        unconnected netdev
        unconnected timer 1s
        unconnected fd --in 1
        unconnected monitor '{"filter":"netdev"}'
        unconnected status
        status=0
        KEV_ADDRESS=$PWD/other "$KEV" status >out 2>err || status=$?
        expect_status 1
        expect_message "$PWD/other"
        status=0
        "$KEV" status --address nonsense >out 2>err || status=$?
        expect_status 1
        expect_message '"nonsense"'
}

no_private_daemon() {
        status=0
        KEVD=$PWD/none "$KEV" status --address private >out 2>err || status=$?
        expect_status 1
        expect out ''
        expect_message "$PWD/none"
}

no_path() {
        mkdir there
        kev watch --count 1 there nothing
        expect_status 1
        expect out ''
        expect_message 'kev: nothing: ' 'no such file or directory'
        kev wait 2147483646
        expect_status 1
        expect_message 'kev: 2147483646: '
        kev wait "no-such-$$" $$
        expect_status 1
        expect out ''
        expect_message "kev: no-such-$$: no such process"
        kev netdev nosuch0
        expect_status 1
        expect_message 'kev: nosuch0: '
}

# ---- kev watch --------------------------------------------------------------------------------------------------------

watch_directory() {
        mkdir -p d/below
        echo x >d/a
        kev_begin watch --count 6 d
        echo x >d/b
        mv d/a d/below/c
        rm d/below/c
        rmdir d/below
        kev_end 0
        expect err $'kev: watching with inotify\n'
        expect_events 'create d/b
write d/b
closewrite d/b
rename d/a -> d/below/c
delete d/below/c
delete d/below/'
}

# Without a path: where it was started. Paths are printed as if typed there.
watch_here() {
        mkdir d
        (cd d && exec "$KEV" watch --address "$socket" --notes create --count 2 >../out 2>../err </dev/null) &
        pid=$!
        until_true grep -qxF 'kev: watching with inotify' err
        mkdir d/sub
        until_true grep -q . out
        touch d/sub/f
        kev_end 0
        expect_events $'create sub/\ncreate sub/f'
}

watch_file() {
        echo x >f
        kev_begin watch --notes write,delete,link f
        echo y >f
        rm f
        # Nothing is left to be watched then.
        kev_end 0
        # What came while the file was being looked at is one event, also if it is all that came.
        events | sed 's/ x[0-9]*$//; s/^delete,write f$/write f\ndelete f/' | uniq >without-counts
        expect without-counts $'write f\ndelete f\n'
}

watch_notes() {
        mkdir d
        kev_begin watch --notes rename,delete --count 3 d
        echo x >d/a
        mv d/a d/b
        rm d/b
        mkdir d/e
        rmdir d/e
        kev_end 0
        expect_events 'rename d/a -> d/b
delete d/b
delete d/e/'
}

watch_globs() {
        mkdir -p d/no/deep d/yes/deep
        kev_begin watch --notes create --include '**/*.c' --include top --exclude 'no/**' --exclude '!no/but.c' --count 4 d
        touch d/top d/top.h d/no/x.c d/no/but.c d/yes/x.h d/yes/x.c d/yes/deep/x.c
        kev_end 0
        expect_events 'create d/top
create d/no/but.c
create d/yes/x.c
create d/yes/deep/x.c'
}

watch_depth() {
        mkdir -p d/1/2
        kev_begin watch --notes create --depth 2 --count 2 d
        touch d/1/2/x d/1/x d/x
        kev_end 0
        expect_events 'create d/1/x
create d/x'
}

watch_several() {
        mkdir d e
        touch f
        kev_begin watch --notes create,write --count 3 d e f
        touch e/1
        touch d/1
        echo x >>f
        kev_end 0
        events | sort >sorted
        expect sorted $'create d/1\ncreate e/1\nwrite f\n'
}

# ---- output ---------------------------------------------------------------------------------------------------------

json() {
        mkdir d
        kev_begin watch --json --count 4 d
        echo x >d/a
        mv d/a d/b
        kev_end 0
        expect_json tree 4
        python3 -c '
import json, os
rename = [json.loads(line) for line in open("out")][3]
assert rename["notes"] == ["rename"], rename
assert (rename["fromPath"], rename["path"]) == (os.path.realpath("d/a"), os.path.realpath("d/b")), rename'
}

json_timer() {
        kev timer --json --count 3 5ms
        expect_status 0
        expect_json timer 3
}

quiet() {
        kev timer --count 1 5ms
        expect_status 0
        expect err $'kev: watching\n'
        kev timer --quiet --count 1 5ms
        expect_status 0
        expect err ''
        grep -q . out
        # Errors are said all the same.
        kev watch --quiet nothing
        expect_status 1
        expect_message 'nothing'
}

count() {
        kev timer --count 3 1ms
        expect_status 0
        [ "$(wc -l <out)" -eq 3 ] || die "$(wc -l <out) lines"
}

timeout_124() {
        local before now

        mkdir d
        before=$(date +%s%N)
        kev watch --timeout 0.3 d
        now=$(date +%s%N)
        expect_status 124
        expect out ''
        [ $((now - before)) -ge 300000000 ] || die "after $((now - before)) ns"
        kev timer --timeout 1s --count 1 1ms
        expect_status 0
        # The longest that there is, for ever.
        kev timer --timeout 9223372036 --count 1 1ms
        expect_status 0
        expect err $'kev: watching\n'
}

once() {
        kev timer --once 20ms
        expect_status 0
        expect_events 'timer 20ms 1 expiration'
}

# Full, or not to be written to: it is said, and no success.
full_disk() {
        local arguments

        for arguments in 'timer 1ms' 'timer --json 1ms' 'status' 'status --json' 'watch --help' 'help'; do
                status=0
                # shellcheck disable=SC2086
                KEV_ADDRESS=$socket timeout -s KILL 20 "$KEV" $arguments >/dev/full 2>err </dev/null || status=$?
                expect_status 1
                sed -i '/^kev: watching$/d' err
                expect_message "can't write to standard output" 'No space left on device'
        done
        status=0
        KEV_ADDRESS=$socket timeout -s KILL 20 "$KEV" timer 1ms 2>err >&- || status=$?
        expect_status 1
}

# A reader that has had enough ends it, without a word.
reader_leaves() {
        local statuses

        set +o pipefail
        timeout -s KILL 20 "$KEV" timer --address "$socket" 5ms 2>err </dev/null | head -n 1 >out
        statuses=("${PIPESTATUS[@]}")
        [ "${statuses[0]}" -eq 0 ] || die "exit status ${statuses[0]}"
        expect err $'kev: watching\n'
        [ "$(wc -l <out)" -eq 1 ]
}

# Nothing in a name can start a line of its own, or command a terminal.
harmful_names() {
        local name=$'a\nb\e[31m\x9b2J\r\xe2\x80\xae\tc'

        mkdir "d$name"
        kev_begin watch --notes create,rename --count 2 "d$name"
        touch "d$name/$name"
        mv "d$name/$name" "d$name/$name-"
        kev_end 0
        [ "$(wc -l <out)" -eq 2 ] || die "$(wc -l <out) lines"
        [ "$(tr -d '\n[:print:]' <out | wc -c)" -eq 0 ] || die "raw: $(cat -v out)"
        grep -qF 'a\x0ab\x1b[31m\x9b2J\x0d\xe2\x80\xae\x09c' out || die "$(cat -v out)"
        # In messages neither.
        kev watch "no$name"
        expect_status 1
        expect_message 'no such file'
        [ "$(tr -d '\n[:print:]' <err | wc -c)" -eq 0 ] || die "raw: $(cat -v err)"
        status=0
        "$KEV" "$name" >out 2>err || status=$?
        expect_status 2
        [ "$(tr -d '\n[:print:]' <err | wc -c)" -eq 0 ] || die "raw: $(cat -v err)"
        # As JSON they are what they are.
        kev_begin watch --json --notes delete --count 1 "d$name"
        rm "d$name/$name-"
        kev_end 0
        expect_json tree 1
}

has_terminals() {
        python3 -c 'import pty; pty.openpty()' 2>/dev/null
}

# On a terminal there are colours, and no other sequences.
terminal() {
        mkdir d
        NO_COLOR='' TERM=xterm python3 - "$KEV" "$socket" <<'PYTHON'
import os
import pty
import re
import subprocess
import sys

kev, socket = sys.argv[1:]


def run(environment):
    ours, theirs = pty.openpty()
    child = subprocess.Popen([kev, "watch", "--address", socket, "--count", "1", "--notes", "create", "d"], stdout=theirs,
                             stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=dict(os.environ, **environment))
    os.close(theirs)
    assert child.stderr.readline() == b"kev: watching with inotify\n"
    name = "d/x\x1b[2J" + str(len(os.listdir("d")))
    open(name, "w").close()
    output = b""
    while not output.endswith(b"\n"):
        output += os.read(ours, 65536)
    assert child.wait(20) == 0
    child.stderr.close()
    os.close(ours)
    assert b"x\\x1b[2J" in output, output
    plain = re.sub(rb"\x1b\[[0-9;]*m", b"", output)
    assert b"\x1b" not in plain, output
    return plain != output


assert run({}), "no colour"
assert not run({"NO_COLOR": "1"}), "colour in spite of NO_COLOR"
assert not run({"TERM": "dumb"}), "colour on a dumb terminal"
PYTHON
}

# ---- kev watch --exec -------------------------------------------------------------------------------------------------

run_command() {
        mkdir d
        kev_begin watch --notes create --count 1 --exec 'cat >stdin; printf "%s\n" {} >arguments' d
        touch d/a
        kev_end 0
        expect out ''
        expect stdin $'d/a\n'
        expect arguments $'d/a\n'
}

# What a name holds is not for the shell.
run_with_any_name() {
        # shellcheck disable=SC2016
        local name='it'\''s; touch pwned $(touch pwned) `touch pwned` "'

        mkdir d
        kev_begin watch --notes create --count 1 --exec 'printf "%s\n" {} >arguments' d
        touch "d/$name"
        kev_end 0
        expect arguments "d/$name"$'\n'
        [ ! -e pwned ] || die "a file's name was run"
}

# Never twice at once; all that changed meanwhile is in one run, each path once, and nothing is forgotten.
run_in_turn() {
        local i

        mkdir d runs
        mkfifo go
        exec 7<>go
        # shellcheck disable=SC2016
        kev_begin watch --notes create,closewrite --exec 'mkdir lock || touch twice
cat >"runs/$(ls runs | wc -l)"; read -r line <go; rmdir lock; echo x >>ended' d
        touch d/first
        until_true test -e runs/0
        for i in 1 2 3 4 5; do
                echo x >"d/$i"
        done
        until_true nothing_pends # all of it is with kev
        echo >&7 # the first run ends
        until_true grep -qx d/5 -r runs
        for i in 1 2 3 4 5; do
                echo >&7
        done
        until_true all_ended
        kill -TERM "$pid"
        kev_end 143
        [ ! -e twice ] || die "two runs at once"
        # A run has each path once; the first file's two events may fall into two runs.
        sort runs/* | uniq -d | grep -v d/first >double || true
        expect double ''
        for i in first 1 2 3 4 5; do
                grep -qx "d/$i" -r runs || die "not told of $i"
        done
}

all_ended() {
        [ "$(wc -l <ended)" -eq "$(find runs -type f | wc -l)" ]
}

# The daemon has nothing more for anybody: what was done before has been delivered.
nothing_pends() {
        "$KEV" status --address "$socket" --json |
                python3 -c 'import json, sys; sys.exit(any(q["pendingEvents"] for q in json.load(sys.stdin)["queues"]))'
}

run_fails() {
        mkdir d
        kev_begin watch --notes create --count 2 --exec 'echo {} >>ran; exit 3' d
        touch d/a
        until_true grep -qs d/a ran
        touch d/b
        kev_end 0
        expect ran $'d/a\nd/b\n'
}

# ---- kev wait, kev proc -------------------------------------------------------------------------------------------------

# wait_for HOW STATUS TEXT
wait_for() {
        child_begin
        kev_begin wait "$child"
        child_end "$1"
        kev_end "$2"
        # Reaped at once, it may have no name any more.
        [ "$(events | sed 's/ (sh)//')" = "exit pid $child $3" ] || die "$(events)"
}

wait_code() {
        wait_for 'exit 7' 7 'exit code 7'
}

wait_zero() {
        wait_for 'exit 0' 0 'exit code 0'
}

wait_signal() {
        # shellcheck disable=SC2016
        wait_for 'kill -SEGV $$' 139 'killed by SIGSEGV'
}

# The last one counts; with --count the first is enough.
wait_several() {
        local first second

        child_begin
        first=$child
        exec 8>&9
        child_begin
        second=$child
        kev_begin wait "$first" "$second"
        child_end 'exit 3'
        until_true grep -q 'exit code 3' out
        kill -0 "$pid" || die "it did not wait for the other one"
        echo 'exit 4' >&8
        kev_end 4
        [ "$(wc -l <out)" -eq 2 ]
        child_begin
        kev_begin wait --count 1 "$child" $$
        child_end 'exit 5'
        kev_end 5
}

wait_any() {
        local first

        child_begin
        first=$child
        exec 8>&9
        child_begin
        kev_begin wait --any "$first" "$child"
        child_end 'exit 5'
        kev_end 5
        [ "$(wc -l <out)" -eq 1 ]
        child_begin
        kev_begin wait --all "$first" "$child"
        child_end 'exit 6'
        until_true grep -q 'exit code 6' out
        echo 'exit 7' >&8
        kev_end 7
}

runs() {
        [ "$(readlink "/proc/$1/exe")" = "$2" ]
}

# All that are called so, each once; the name is longer than what the kernel keeps of it.
wait_named() {
        local name="waited-for-$$-by-name" first

        cp -- "$(readlink -f "$(command -v sh)")" "$name"
        child_begin "./$name"
        first=$child
        exec 8>&9
        child_begin "./$name"
        until_true runs "$first" "$PWD/$name"
        until_true runs "$child" "$PWD/$name"
        kev_begin wait "$name" "$name"
        echo 'exit 3' >&8
        until_true grep -q "pid $first .*exit code 3" out
        kill -0 "$pid" || die "it did not wait for the other one"
        child_end 'exit 4'
        kev_end 4
        events | sed 's/ (.*)//' | sort >told
        printf 'exit pid %d exit code %d\n' "$first" 3 "$child" 4 | sort >expected
        cmp told expected || die "$(cat told)"
        # Those that have ended are none.
        kev wait "$name"
        expect_status 1
}

proc() {
        child_begin
        kev_begin proc "$child"
        child_end 'exit 9'
        wait "$child" || true
        kev_end 0
        [ "$(wc -l <out)" -eq 2 ]
        events | head -n 1 | grep -q "^exit pid $child" || die "$(events)"
        events | tail -n 1 | grep -q "^reap pid $child .*exit code 9$" || die "$(events)"
}

# ---- kev proc, of all processes --------------------------------------------------------------------------------------

# kevd tells of a child, what it runs, and how both end.
proc_track() {
        local socket=$system made

        child_begin
        kev_begin proc --track "$child"
        child_end 'sh -c "exit 3"; exit 2'
        kev_end 0
        made=$(events | sed -nE "s/^child pid ([0-9]+) .* parent $child\$/\1/p")
        events | sed -E 's/ \([^)]*\)//; s/^(exec pid [0-9]+).*/\1/' >told
        expect told "child pid $made parent $child
exec pid $made
exit pid $made exit code 3
exit pid $child exit code 2
"
        # The same as JSON, as it came.
        child_begin
        kev_begin proc --track --json "$child"
        child_end 'exit 2'
        kev_end 0
        expect_json proc 1
        kev proc --track 2147483646
        expect_status 1
        expect_message 'kev: 2147483646: '
}

# match OPTION...: the end of a process.
match() {
        kev_begin proc "$@"
        child_begin "./$name"
        until_true runs "$child" "$PWD/$name"
        # With this the daemon has looked at it, too.
        status=0
        timeout -s KILL 20 "$KEV" proc --quiet --track --timeout 1ms --address "$socket" "$child" || status=$?
        expect_status 124
        child_end 'exit 4'
        until_true grep -q 'reap  pid' out
        kill -TERM "$pid"
        kev_end 143
        # What is gone before anybody could see what it was is counted.
        events | sed -E 's/ \([^)]*\)//; /^lost /d' >told
        expect told "exit pid $child exit code 4"$'\n'"reap pid $child exit code 4"$'\n'
}

proc_match() {
        local socket=$system name="m$$"

        cp -- "$(readlink -f "$(command -v sh)")" "$name"
        match --comm "$name"
        match --comm "m$$*" --uid "$(id -un)"
        match --exe "$name" --uid "$(id -u)"
        match --exe "$PWD/$name"
        match --exe "**/m$$" --cgroup '**'
        kev_begin proc --track --exe "$name"
        child_begin "./$name"
        until_true grep -q "exec  pid $child " out
        child_end 'sh -c "exit 3"; exit 4'
        until_true grep -q "exit  pid $child .*exit code 4" out
        grep -q "child  pid .*  parent $child\$" out || die "$(cat out)"
        grep -q 'exit  pid .*exit code 3$' out || die "$(cat out)"
        kill -TERM "$pid"
        kev_end 143
        kev proc --comm '['
        expect_status 1
        expect_message 'kev: matching processes: ' '"[" is not a glob'
}

# The tree on a terminal: python has the terminal, and reads its screen.
proc_tree() {
        TERM=xterm NO_COLOR='' python3 - "$KEV" "$system" <<'PYTHON'
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

kev, address = sys.argv[1:]


class Screen:
    """A terminal of that size. It knows the sequences that may come, and no others."""

    def __init__(self, rows, columns):
        self.ours, theirs = pty.openpty()
        self.resize(rows, columns)
        self.state = termios.tcgetattr(theirs)
        self.theirs, self.text, self.output = theirs, "", b""

    def resize(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.lines, self.row, self.column = [""] * rows, 0, 0
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def put(self, character):
        assert character.isprintable(), (character, self.output)
        assert self.column < self.columns, ("a line wraps", self.lines)
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[:self.column] + character + line[self.column + 1:]
        self.column += 1

    def command(self, figure, letter):
        if letter == "A":
            self.row = max(0, self.row - int(figure))
        elif (figure, letter) == ("", "K"):
            self.lines[self.row] = self.lines[self.row][:self.column]
        elif (figure, letter) == ("", "J"):
            self.lines[self.row:] = [self.lines[self.row][:self.column]] + [""] * (self.rows - self.row - 1)
        elif (figure, letter) == ("", "H"):
            self.row = self.column = 0
        elif (figure, letter) == ("2", "J"):
            self.lines = [""] * self.rows
        else:
            assert letter == "m", (figure, letter)

    def feed(self, data):
        self.output += data
        self.text += data.decode()
        while self.text:
            sequence = re.match(r"\x1b\[([0-9]*)([A-Za-z])", self.text)
            if sequence:
                self.command(*sequence.groups())
            elif self.text[0] == "\x1b" and re.fullmatch(r"\x1b(\[[0-9]*)?", self.text):
                return
            elif self.text[0] == "\r":
                self.column = 0
            elif self.text[0] == "\n":
                self.row += 1
                if self.row == self.rows:
                    self.lines, self.row = self.lines[1:] + [""], self.rows - 1
            else:
                self.put(self.text[0])
            self.text = self.text[sequence.end() if sequence else 1:]

    def read(self, timeout):
        if select.select([self.ours], [], [], timeout)[0]:
            self.feed(os.read(self.ours, 65536))
            return True
        return False

    def shown(self):
        return [line.rstrip() for line in self.lines if line.strip()]

    def expect(self, *patterns):
        """Until these are all the lines that there are."""
        end = time.monotonic() + 20
        while not (len(self.shown()) == len(patterns) and
                   all(re.fullmatch(p, line) for p, line in zip(patterns, self.shown()))):
            assert time.monotonic() < end, ("not in time", patterns, self.shown(), self.output)
            self.read(0.1)

    def expect_order(self):
        """The cursor is below the tree, nothing is switched on, and the terminal is as it was."""
        while self.read(0):
            pass
        assert self.column == 0 and self.row == len(self.shown()), (self.row, self.column, self.shown())
        assert not any(self.lines[self.row:]), self.lines
        assert termios.tcgetattr(self.theirs) == self.state
        dims = re.findall(rb"\x1b\[[0-9;]*m", self.output)
        assert not dims or dims[-1] == b"\x1b[0m", dims
        os.close(self.ours)
        os.close(self.theirs)


class Shell:
    """What is followed."""

    def __init__(self):
        self.process = subprocess.Popen(["sh"], stdin=subprocess.PIPE, bufsize=0)
        self.pid = self.process.pid

    def say(self, line):
        self.process.stdin.write(line.encode() + b"\n")

    def end(self):
        self.process.stdin.close()
        self.process.wait(20)


def begin(screen, *pids, **environment):
    child = subprocess.Popen([kev, "proc", "--track", "--address", address, *map(str, pids)], stdin=subprocess.DEVNULL,
                             stdout=screen.theirs, stderr=subprocess.PIPE, env=dict(os.environ, **environment))
    assert child.stderr.readline() == b"kev: watching\n"
    return child


def grows_and_ends():
    name = "x\x1b[2J\r\xe9\t"
    os.symlink("/bin/sleep", name)
    screen, shell = Screen(24, 80), Shell()
    child = begin(screen, shell.pid)
    screen.expect(f"{shell.pid} sh")
    shell.say("sleep 1000 & one=$!")
    screen.expect(f"{shell.pid} sh", r"`- \d+ sleep")
    shell.say(f"(sleep 1000 & './{name}' 1000; :) & two=$!")
    escaped = re.escape("x\\x1b[2J\\x0d\xe9\\x09")
    screen.expect(f"{shell.pid} sh", r"\|- \d+ sleep", r"`- \d+ sh", r"   \|- \d+ sleep", rf"   `- \d+ {escaped}")
    pids = [int(re.search(r"\d+", line).group()) for line in screen.shown()]
    # The one in the middle is shown as long as there are those that it has made.
    os.kill(pids[2], signal.SIGKILL)
    shell.say("sh -c 'exit 7'")
    screen.expect(f"{shell.pid} sh", r"\|- \d+ sleep", r"\|- \d+ sh  killed by SIGKILL", r"\|  \|- \d+ sleep",
                  rf"\|  `- \d+ {escaped}", r"`- \d+ sh  exit code 7")
    # After a moment that one is gone.
    screen.expect(f"{shell.pid} sh", r"\|- \d+ sleep", r"`- \d+ sh  killed by SIGKILL", r"   \|- \d+ sleep",
                  rf"   `- \d+ {escaped}")
    for pid in pids[1], pids[3], pids[4]:
        os.kill(pid, signal.SIGTERM)
    shell.say("exit 3")
    shell.end()
    assert child.wait(20) == 0
    screen.read(0)
    assert screen.shown()[0] == f"{shell.pid} sh  exit code 3", screen.shown()
    screen.expect_order()
    child.stderr.close()


def small_window():
    screen, shell = Screen(6, 20), Shell()
    child = begin(screen, shell.pid)
    shell.say("for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done")
    screen.expect(f"{shell.pid} sh", *[r"\|- \d+ sleep"] * 3, r"\.\.\. 6 more")
    # A larger one is used from the next drawing on.
    screen.resize(30, 40)
    shell.say("sleep 1000 &")
    screen.expect(f"{shell.pid} sh", *[r"\|- \d+ sleep"] * 9, r"`- \d+ sleep")
    screen.resize(4, 8)
    shell.say("sleep 1000 &")
    screen.expect(r"\d+ .*", r"\|- \d+.*", r"\.\.\. 10.*")
    child.send_signal(signal.SIGINT)
    assert child.wait(20) == -signal.SIGINT
    screen.expect_order()
    shell.say("kill $(jobs -p); exit")
    shell.end()
    child.stderr.close()


def dumb():
    screen, shell = Screen(24, 80), Shell()
    child = begin(screen, shell.pid, TERM="dumb")
    shell.say("exit 3")
    shell.end()
    assert child.wait(20) == 0
    screen.expect(rf".* exit  pid {shell.pid}( \(sh\))?  exit code 3")
    assert b"\x1b" not in screen.output
    child.stderr.close()


def several():
    screen, first, second = Screen(24, 80), Shell(), Shell()
    child = begin(screen, first.pid, second.pid)
    screen.expect(f"{first.pid} sh", f"{second.pid} sh")
    first.say("sleep 1000 &")
    screen.expect(f"{first.pid} sh", r"`- \d+ sleep", f"{second.pid} sh")
    second.say("exit 1")
    second.end()
    first.say("kill $!; wait; exit 2")
    first.end()
    assert child.wait(20) == 0
    screen.read(0)
    assert screen.shown()[0] == f"{first.pid} sh  exit code 2", screen.shown()
    assert screen.shown()[-1] == f"{second.pid} sh  exit code 1", screen.shown()
    screen.expect_order()
    child.stderr.close()


for case in grows_and_ends, small_window, dumb, several:
    case()
PYTHON
}

# A daemon that is told of no processes but those it watches.
proc_without_feed() {
        local socket=$PWD/pidfd other

        "$KEVD" --mode=user --listen="$socket" --process-feed=pidfd 2>log &
        other=$!
        until_true listens "$socket"
        child_begin
        "$KEV" proc --address "$socket" >out 2>err </dev/null &
        pid=$!
        until_true grep -q '^kev: instead, the [0-9]* processes of user [0-9]* that run now are watched' err
        until_true grep -qx 'kev: watching' err
        child_end 'exit 3'
        wait "$child" || true
        until_true grep -q "reap  pid $child .*exit code 3" out
        kill -TERM "$pid"
        kev_end 143
        for option in --comm=x --track; do
                kev proc "$option"
                expect_status 1
                expect out ''
                expect_message ' processes: '
        done
        kev proc --track $$
        expect_status 1
        expect_message "kev: $$: " 'notes: '
        kill -TERM "$other"
        wait "$other" || die "kevd ended with $?"
}

# ---- kev netdev ------------------------------------------------------------------------------------------------------

# How they are, those that are named or all, in the words of the interface.
netdev_state() {
        kev netdev --json --timeout 1ms
        expect_status 124
        python3 - <<'PYTHON'
import json
import os


def attribute(name, key):
    with open(f"/sys/class/net/{name}/{key}") as file:
        return file.read().strip()


kinds = {"index": int, "name": str, "up": bool, "carrier": bool, "operState": str, "mtu": int, "address": str,
         "addresses": list}
lines = [json.loads(line) for line in open("out")]
states = [line["state"] for line in lines if "state" in line]
assert states and all(line.keys() == {"state"} for line in lines[:len(states)]), lines
assert "lo" in {state["name"] for state in states}, states
for state in states:
    assert kinds.keys() - {"address"} <= state.keys() <= kinds.keys(), state
    assert all(type(value) is kinds[key] for key, value in state.items()), state
    name = state["name"]
    assert state["index"] == int(attribute(name, "ifindex")) and state["mtu"] == int(attribute(name, "mtu")), state
    assert state["operState"] == attribute(name, "operstate"), state
    assert state["up"] == bool(int(attribute(name, "flags"), 16) & 1), state
    assert state.get("address", "") == attribute(name, "address"), state
PYTHON
        kev netdev --timeout 1ms lo
        expect_status 124
        events | head -n 1 | grep -qE '^state lo (up|down), (no )?carrier mtu [0-9]+ 00:00:00:00:00:00' || die "$(cat out)"
        [ "$(grep -c ' state ' out)" -eq 1 ] || die "$(cat out)"
        # It is no event, and does not count.
        kev netdev --count 1 --timeout 1ms lo
        expect_status 124
}

# Then changes, in a network namespace of its own.
netdev_changes() {
        local socket=$PWD/socket other

        unshare -n "$KEVD" --mode=user --listen="$socket" 2>log &
        other=$!
        until_true listens "$socket"
        nsenter -t "$other" -n "$KEV" netdev --address "$socket" lo >out 2>err </dev/null &
        pid=$!
        until_true grep -q . out
        expect_events 'state lo down, no carrier mtu 65536 00:00:00:00:00:00'
        nsenter -t "$other" -n ip link set lo up
        until_true grep -q '  address .* lo  up, carrier  127.0.0.1/8' out
        kill -TERM "$pid"
        kev_end 143
        nsenter -t "$other" -n timeout -s KILL 20 "$KEV" netdev --address "$socket" --timeout 1ms lo >out 2>err || true
        events | grep -q '^state lo up, carrier mtu 65536 00:00:00:00:00:00 127.0.0.1/8' || die "$(cat out)"
        kill -TERM "$other"
        wait "$other" || die "kevd ended with $?"
}

has_network_namespaces() {
        [ "$(id -u)" -eq 0 ] && command -v ip nsenter >/dev/null && unshare -n true 2>/dev/null
}

# ---- kev fd ---------------------------------------------------------------------------------------------------------

# A pipe: 7 is what is read from, 8 what is written to. Who waits for its end must not have 8.
pipe_open() {
        mkfifo pipe
        exec 9<>pipe
        exec 7<pipe
        exec 8>pipe
        exec 9>&-
}

# The daemon may look at kev's descriptors: else there are no figures.
has_figures() {
        pipe_open
        kev fd --read 7 --lowat 2 --timeout 1ms 8>&-
        exec 7<&- 8>&-
        rm pipe
        [ "$status" -eq 124 ]
}

fd_poll() {
        pipe_open
        kev_begin fd --in 7 --hup 7 8>&-
        echo x >&8
        until_true grep -q . out
        exec 8>&-
        kev_end 0
        expect err $'kev: watching\n'
        expect_events $'in descriptor 7\nin,hup descriptor 7'
}

# Several words for one descriptor are one watch; each descriptor has its own.
fd_joined() {
        pipe_open
        echo x >&8
        kev fd --in 7 --out 8 --rdnorm 7 --err 7 --wrnorm 8 --json --count 2
        expect_status 0
        expect_json poll 2
        python3 -c '
import json
events = {event["id"]: event["notes"] for event in map(json.loads, open("out"))}
assert events == {0: ["in", "rdnorm"], 1: ["out", "wrnorm"]}, events'
}

# Nothing ends while kev itself has the other end.
fd_both_ends() {
        pipe_open
        kev_begin fd --hup 7 --err 8 --count 2
        exec 7<&- 8>&-
        kill -0 "$pid" || die "kev itself has both ends"
        kill -TERM "$pid"
        kev_end 143
        expect out ''
        rm pipe
        pipe_open
        kev_begin fd --err 8 7<&-
        exec 7<&-
        until_true grep -q . out
        kill -TERM "$pid"
        kev_end 143
        expect_events 'err descriptor 8'
}

fd_read() {
        pipe_open
        kev_begin fd --read 7 8>&-
        echo hello >&8
        until_true grep -q . out
        exec 8>&-
        kev_end 0
        expect_events $'read lowat descriptor 7 data 6\nread lowat,eof descriptor 7 data 6'
}

# What is less than that is not told.
fd_lowat() {
        pipe_open
        kev_begin fd --read 7 --lowat 8 --count 1 8>&-
        echo hello >&8
        kev fd --in 7 --count 1
        expect_status 0
        events | grep -qxF 'in descriptor 7' || die "$(events)"
        echo x >&8
        wait "$pid" || die "kev ended with $?"
        kev fd --read 7 --lowat 8 --json --count 1
        expect_json read 1
        kev fd --read 7 --lowat 9 --timeout 0.05
        expect_status 124
        expect out ''
}

fd_write() {
        pipe_open
        kev fd --write 8 --count 1
        expect_status 0
        events | grep -qE '^write lowat descriptor 8 data [0-9]+$' || die "$(events)"
        kev_begin fd --write 8 --lowat 1000000000 7<&-
        exec 7<&-
        kev_end 0
        events | grep -qE '^write eof descriptor 8 data [0-9]+$' || die "$(events)"
}

# A regular file tells what is appended behind its offset.
fd_file() {
        echo hello >file
        exec 7<file
        kev_begin fd --read 7 --count 2
        until_true grep -q . out
        echo x >>file
        kev_end 0
        expect_events $'read lowat descriptor 7 data 6\nread lowat descriptor 7 data 8'
}

fd_listener() {
        python3 - "$KEV" "$socket" <<'PYTHON'
import socket
import subprocess
import sys

kev, address = sys.argv[1:]
listener = socket.create_server(("127.0.0.1", 0))
fd = str(listener.fileno())
child = subprocess.Popen([kev, "fd", "--address", address, "--in", fd, "--read", fd, "--count", "2"],
                         pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
assert child.stderr.readline() == "kev: watching\n"
client = socket.create_connection(listener.getsockname())
out, err = child.communicate(timeout=20)
assert child.returncode == 0 and err == "", err
lines = sorted(line.split("  ", 1)[1] for line in out.splitlines())
assert lines == [f"in  descriptor {fd}", f"read lowat  descriptor {fd}  data 1"], lines
PYTHON
}

fd_aio() {
        python3 - "$KEV" "$socket" <<'PYTHON'
import os
import subprocess
import sys

kev, address = sys.argv[1:]
try:
    fd = os.eventfd(0)
except AttributeError: # Python 3.10
    sys.exit(0)
child = subprocess.Popen([kev, "fd", "--address", address, "--aio", str(fd), "--count", "1"], pass_fds=[fd],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
assert child.stderr.readline() == "kev: watching\n"
os.eventfd_write(fd, 3)
out, err = child.communicate(timeout=20)
assert child.returncode == 0 and err == "", err
assert out.split("  ", 1)[1] == f"complete  descriptor {fd}  data 3\n", out
PYTHON
}

# Again and again; without it once, though nothing has changed.
fd_level() {
        pipe_open
        echo x >&8
        kev fd --level --in 7 --count 5
        expect_status 0
        [ "$(events | uniq -c | tr -s ' ')" = ' 5 in descriptor 7' ] || die "$(events)"
        kev fd --in 7 --timeout 0.1
        expect_status 124
        expect_events 'in descriptor 7'
        # Nothing holds: nothing is told.
        read -r _ <&7
        kev fd --level --in 7 --timeout 0.1
        expect_status 124
        expect out ''
}

fd_oneshot() {
        pipe_open
        echo x >&8
        kev fd --oneshot --in 7
        expect_status 0
        expect_events 'in descriptor 7'
}

# Of two one is told, and the other one next time.
fd_exclusive() {
        local i pids=()

        pipe_open
        for i in 1 2; do
                kev_begin fd --exclusive --in 7
                pids+=("$pid")
                mv out "out-$i"
        done
        echo x >&8
        until_true grep -q . out-1 out-2
        echo x >&8
        until_true grep -q . out-1
        until_true grep -q . out-2
        for pid in "${pids[@]}"; do
                kill -TERM "$pid"
                kev_end 143
        done
        [ "$(cat out-1 out-2 | wc -l)" -eq 2 ] || die "$(cat out-1 out-2)"
}

# refused_fd TEXT OPTION...: by the daemon, which is said of the descriptor.
refused_fd() {
        local text=$1
        shift

        kev fd "$@"
        expect_status 1
        expect out ''
        expect_message 'kev: descriptor 7: ' "$text"
}

# not_open FD: also where kev would have something of its own there.
not_open() {
        status=0
        timeout -s KILL 20 "$KEV" fd --address "$socket" --in 1 --err "$1" >out 2>err </dev/null || status=$?
        expect_status 2
        expect_message "--err: descriptor $1 is not open"
}

fd_wrong() {
        not_open 7
        not_open 3 3<&-
        not_open 5000
        status=0
        "$KEV" fd --address "$socket" --in 0 >out 2>err <&- || status=$?
        expect_status 2
        expect_message '--in: descriptor 0 is not open'
        touch file
        exec 7<file
        refused_fd 'regular file' --in 7
        refused_fd 'not an eventfd' --aio 7
        exec 7</
        refused_fd 'not permitted' --read 7
        exec 7</dev/null
        refused_fd 'not permitted' --in 7 --out 7
        # The good one beside it is not watched.
        kev fd --in 7 --err 1
        expect_status 1
}

# ---- kev monitor ----------------------------------------------------------------------------------------------------

# bad TEXT WATCH...: 2, and the message names what is wrong.
bad_watch() {
        local text=$1
        shift

        kev monitor "$@"
        expect_status 2
        expect out ''
        expect_message "$text" 'is not a watch'
}

monitor_bad() {
        bad_watch ': dat:' '{"filter":"timer","dat":3}'
        bad_watch ': filter:' '{"filter":"nothing"}'
        bad_watch ': filter:' '{"path":"/"}'
        bad_watch ': path:' '{"filter":"tree","path":5}'
        bad_watch ': notes' '{"filter":"tree","path":"/","notes":["nothing"]}'
        bad_watch ': tree.depht:' '{"filter":"tree","path":"/","tree":{"depht":1}}'
        bad_watch 'JSON' '{"filter":'
        bad_watch 'JSON' 'filter'
        bad_watch 'JSON' '[]'
        bad_watch ': data:' '{"filter":"timer"}'
        # The good one beside it is not made.
        bad_watch ': dat:' '{"filter":"timer","data":1}' '{"filter":"timer","dat":1}'
}

# kev_signal PID OPTION...: whether a daemon can tell of signals here.
has_signals() {
        kev signal --timeout 0.01 $$
        [ "$status" -eq 124 ]
}

signal_sent() {
        local target me

        sleep 100 &
        target=$!
        kev_begin signal "$target"
        kill -CONT "$target"
        kill -s RTMIN+3 "$target"
        until_true is_gone "$target"
        kev_end 0
        me="by pid $BASHPID (bash)"
        expect_events "signal $target SIGCONT $me"$'\n'"signal $target SIGRTMIN+3 $me"$'\n'"signal $target has ended"
}

signal_one() {
        local target

        sleep 100 &
        target=$!
        for name in TERM SIGTERM 15; do
                kev_begin signal --signal "$name" --count 1 "$target"
                kill -CONT "$target"
                [ "$name" = 15 ] || kill -WINCH "$target"
                (trap '' TERM; exec bash -c 'kill -TERM $0' "$target")
                kev_end 0
                events | grep -qxE "signal $target SIGTERM by pid [0-9]+ \(bash\)" || die "$(events)"
                wait "$target" || true
                sleep 100 &
                target=$!
        done
}

signal_wrong() {
        kev signal
        expect_status 2
        expect_message 'PID...' 'missing'
        kev signal --signal NOSUCH 1
        expect_status 2
        expect_message "'NOSUCH' is not a signal's name or number"
        kev signal --signal 65 1
        expect_status 2
        kev signal x
        expect_status 2
        expect_message "'x' is not a process's number"
        kev signal 2147483646
        expect_status 1
}

# What only the daemon finds wrong.
monitor_refused() {
        kev monitor '{"filter":"proc","pid":2147483646}'
        expect_status 1
        expect_message '{"filter":"proc","pid":2147483646}: ' 'pid:'
        kev monitor '{"filter":"tree","path":"/nonexistent"}'
        expect_status 1
        expect_message 'path:' 'no such file'
}

monitor_several() {
        mkdir d
        kev_begin monitor --json "{\"id\":5,\"filter\":\"tree\",\"path\":\"$PWD/d\",\"notes\":[\"create\"]}" \
                '{"filter":"timer","data":1,"flags":["oneshot"]}'
        until_true grep -q '"filter":"timer"' out
        touch d/a
        until_true grep -q '"filter":"tree"' out
        kill -TERM "$pid"
        kev_end 143
        python3 -c '
import json
timer, tree = [json.loads(line) for line in open("out")]
assert timer["filter"] == "timer" and timer["data"] >= 1, timer
assert tree["path"].endswith("/d/a") and tree["id"] != timer["id"], tree'
}

# ---- kev status -----------------------------------------------------------------------------------------------------

status_text() {
        local text

        kev_begin timer 1h
        status=0
        "$KEV" status --address "$socket" >text 2>err || status=$?
        expect_status 0
        expect err ''
        for text in "^kevd .*, user mode, pid $daemon, up " "^  address  *unix:$socket\$" '^  multiplexer  *[a-z]' \
                '^  log level  *info$' '^  holds  *[0-9]* connections*, 1 watch, ' 'inotify .*vnode, tree$' \
                'pidfd .* proc$' 'rtnetlink .* netdev$' '^  protocol errors  *[0-9]*$' "^ *$pid "; do
                grep -q "$text" text || die "nothing like '$text' in $(cat text)"
        done
        # No connection is older than the daemon, and that began a moment ago.
        awk -v pid="$pid" '$1 == pid { found = $NF ~ /^[0-9]+s$/ } END { exit !found }' text ||
                die "connected for: $(grep "^ *$pid " text)"
        kill -TERM "$pid"
        kev_end 143
}

status_json() {
        kev status --json
        expect_status 0
        expect err ''
        [ "$(wc -l <out)" -eq 1 ]
        python3 - "$daemon" <<'PYTHON'
import json
import sys

status = json.load(open("out"))
assert status["pid"] == int(sys.argv[1]) and status["mode"] == "user" and status["version"], status
assert {"timer", "user"} <= {f for source in status["sources"] for f in source["filters"]}, status
assert status["counters"]["connectionsAccepted"] >= 1 and status["uptimeUsec"] > 0, status
assert len(status["queues"]) == status["connections"] >= 1, status
PYTHON
}

# What is in it is test-statistics.c's.
status_metrics() {
        kev status --metrics
        expect_status 0
        expect err ''
        [ "$(tail -n 1 out)" = '# EOF' ] || die "the last line is $(tail -n 1 out)"
        grep -q '^kevd_build_info{version="[^"]*",mode="user",mux="[a-z]*"} 1$' out || die "no build: $(head out)"
        wrong status --metrics --json
        wrong timer --metrics 1s
}

# ---- the daemon ---------------------------------------------------------------------------------------------------

listens() {
        "$KEV" status --address "$1" >/dev/null 2>&1
}

# The daemon's end is kev's, and it says so.
daemon_goes() {
        local other

        "$KEVD" --mode=user --listen="$PWD/other" 2>log &
        other=$!
        until_true listens "$PWD/other"
        "$KEV" timer --address "unix:$PWD/other" 1h >out 2>err &
        pid=$!
        until_true grep -qx 'kev: watching' err
        kill -TERM "$other"
        wait "$other" || die "kevd ended with $?"
        kev_end 1
        sed -i '/^kev: watching$/d' err
        expect_message 'the connection to kevd is lost'
}

# kevd OPTION...: it has to end by itself; to `out` and `err`; the exit status to `status`.
kevd() {
        status=0
        timeout -s KILL 20 "$KEVD" --mode=user "$@" >out 2>err </dev/null || status=$?
}

# One line of the daemon's that holds each of the texts.
expect_complaint() {
        local text

        [ "$(wc -l <err)" -eq 1 ] || die "not one line: $(cat -v err)"
        for text; do
                grep -qF -- "$text" err || die "err does not say '$text': $(cat -v err)"
        done
}

# Only a socket that nobody serves gives way.
daemon_spares_files() {
        local other

        echo precious >file
        kevd --listen="$PWD/file"
        expect_status 1
        expect_complaint "$PWD/file" 'not a socket'
        expect file $'precious\n'
        ln -s nowhere link
        kevd --listen="$PWD/link"
        expect_status 1
        expect_complaint "$PWD/link" 'not a socket'
        [ -L link ] || die "the link is gone"
        kevd --listen="$socket"
        expect_status 1
        expect_complaint "$socket" 'another daemon does'
        listens "$socket"
        # One that a daemon left behind.
        "$KEVD" --mode=user --listen="$PWD/stale" 2>log &
        other=$!
        until_true listens "$PWD/stale"
        kill -KILL "$other"
        wait "$other" || true
        "$KEVD" --mode=user --listen="$PWD/stale" 2>log &
        other=$!
        until_true listens "$PWD/stale"
        kill -TERM "$other"
        wait "$other" || die "kevd ended with $?"
        [ ! -e stale ] || die "its socket is still there"
}

# A daemon removes its own socket, and none that took its place.
daemon_spares_successor() {
        local first second

        "$KEVD" --mode=user --listen="$PWD/socket" 2>log-1 &
        first=$!
        until_true listens "$PWD/socket"
        rm socket
        "$KEVD" --mode=user --listen="$PWD/socket" 2>log-2 &
        second=$!
        until_true listens "$PWD/socket"
        kill -TERM "$first"
        wait "$first" || die "the first ended with $?"
        listens "$PWD/socket" || die "the second one's socket is gone"
        kill -TERM "$second"
        wait "$second" || die "the second ended with $?"
        [ ! -e socket ] || die "its socket is still there"
}

# What can't be read is said, with its name, also when the configuration is only checked.
daemon_configuration() {
        local configuration=$PWD/kevd/kevd.conf
        export XDG_CONFIG_HOME=$PWD

        good() {
                kevd --check-config
                expect_status 0
                expect err ''
        }
        bad() {
                local expected=$1
                shift
                kevd --check-config
                expect_status 1
                expect_complaint "$@"
                kevd --listen="$PWD/socket"
                expect_status "$expected"
                expect_complaint "$@"
        }

        # Nothing need be there.
        good
        mkdir kevd
        good
        XDG_CONFIG_HOME=/dev/null good
        mkdir "$configuration.d"
        good
        echo 'log-level = debug' >"$configuration"
        echo 'mux = poll' >"$configuration.d/1.conf"
        echo 'no word of this is read' >"$configuration.d/2.disabled"
        good

        ln -s nowhere "$configuration.d/3.conf"
        bad 1 "$configuration.d/3.conf: No such file or directory"
        ln -sf 3.conf "$configuration.d/3.conf"
        bad 1 "$configuration.d/3.conf: Too many levels of symbolic links"
        rm "$configuration.d/3.conf"
        mkdir "$configuration.d/3.conf"
        bad 1 "$configuration.d/3.conf: Is a directory"
        rmdir "$configuration.d/3.conf"
        good
        rm "$configuration"
        mkdir "$configuration"
        bad 1 "$configuration: Is a directory"
        rmdir "$configuration"
        rm -r "$configuration.d"
        touch "$configuration.d"
        bad 1 "$configuration.d: Not a directory"
        rm "$configuration.d"
        kevd --check-config --config="$PWD/none"
        expect_status 1
        expect_complaint "$PWD/none: No such file or directory"

        # A line has any length.
        {
                printf '# %8000s\n' nonsense
                printf '%5000smux = poll\n' ''
                echo 'mux = nonsense'
        } >"$configuration"
        kevd --check-config
        expect_status 1
        grep -qF "$configuration:3: mux: \"nonsense\"" err || die "$(cat -v err)"
        sed -i '$d' "$configuration"
        good
        # The last one may lack its end.
        printf 'mode = nonsense' >>"$configuration"
        bad 2 "$configuration:3: mode: \"nonsense\""

        # All that is wrong is told at once, by file, line and key, and the files' order.
        mkdir "$configuration.d"
        printf '%s\n' '# fine' 'limit-watches = none' 'log-level = info' 'colour = red' >"$configuration"
        printf '%s\n' 'limit-timers = 5' >"$configuration.d/1.conf"
        printf '%s\n' 'log-level = loud' 'no value' >"$configuration.d/2.conf"
        kevd --check-config
        expect_status 1
        expect out ''
        [ "$(sed -E 's/^(kevd: [^:]*:[0-9]+: [a-z-]+).*/\1/' err)" = "kevd: $configuration:2: limit-watches
kevd: $configuration:4: there
kevd: $configuration.d/2.conf:1: log-level
kevd: $configuration.d/2.conf:2: not" ] || die "$(cat -v err)"
        grep -qF '4: there is no key "colour"' err || die "$(cat -v err)"
        # What is on the command line was not asked about.
        kevd --check-config --log-level=loud
        expect_status 2
        rm -r "$configuration.d" "$configuration"
        touch "$configuration"

        # Root may read everything.
        [ "$(id -u)" -ne 0 ] || return 0
        chmod a-r "$configuration"
        bad 1 "$configuration: Permission denied"
}

# The processes that run kevd with this very directory in their environment. Those of the others that root's has begin
# with "kevd-".
daemons_here() {
        local process

        for process in /proc/[0-9]*; do
                if [ "$(readlink "$process/exe" 2>/dev/null)" = "$(readlink -f "$KEVD")" ] &&
                        grep -qzxF "XDG_RUNTIME_DIR=$PWD" "$process/environ" 2>/dev/null; then
                        echo "${process##*/}"
                fi
        done
}

no_daemons_here() {
        [ -z "$(daemons_here)" ]
}

private() {
        export XDG_RUNTIME_DIR=$PWD
        mkdir d
        "$KEV" watch --address private --notes create d >out 2>err &
        pid=$!
        until_true grep -qx 'kev: watching with inotify' err
        [ "$(daemons_here | while read -r i; do cat "/proc/$i/comm"; done | grep -vc '^kevd-')" -eq 1 ] ||
                die "daemons: $(daemons_here)"
        touch d/a
        until_true grep -q 'create .* d/a$' out
        # However kev ends, its daemon does.
        kill -KILL "$pid"
        wait "$pid" || true
        until_true no_daemons_here
        # Without an address, and with nobody there, it is the same.
        timeout -s KILL 20 "$KEV" timer --count 1 1ms >out 2>err </dev/null
        grep -q 'timer' out
        until_true no_daemons_here
}

# ---- the run -------------------------------------------------------------------------------------------------------

"$KEVD" --mode=user --listen="$socket" 2>"$directory/kevd.log" &
daemon=$!
until_true listens "$socket"
if [ "$(id -u)" -eq 0 ]; then
        "$KEVD" --mode=system --listen="$directory/system" 2>"$directory/system.log" &
        system_daemon=$!
        until_true listens "$directory/system"
        # 124: the time was up, it was not refused.
        status=0
        "$KEV" proc --quiet --track --timeout 1ms --address "$directory/system" $$ >/dev/null 2>&1 || status=$?
        [ "$status" -ne 124 ] || system=$directory/system
fi

result help:all help_of_all
for command in "${commands[@]}"; do
        result "help:$command" help_of "$command"
done
result usage usage
result refused:no_daemon no_daemon
result refused:no_private_daemon no_private_daemon
result refused:no_path no_path
result watch:directory watch_directory
result watch:here watch_here
result watch:file watch_file
result watch:notes watch_notes
result watch:globs watch_globs
result watch:depth watch_depth
result watch:several watch_several
result output:json json
result output:json_timer json_timer
result output:quiet quiet
result output:count count
result output:timeout timeout_124
result output:once once
result output:full_disk full_disk
result output:reader_leaves reader_leaves
result output:harmful_names harmful_names
if has_terminals; then
        result output:terminal terminal
else
        skip output:terminal "no pseudo-terminal can be opened"
fi
result exec:run run_command
result exec:any_name run_with_any_name
result exec:in_turn run_in_turn
result exec:fails run_fails
result wait:code wait_code
result wait:zero wait_zero
result wait:signal wait_signal
result wait:several wait_several
result wait:any wait_any
result wait:named wait_named
result proc:one proc
result proc:without_feed proc_without_feed
if [ -n "$system" ]; then
        result proc:track proc_track
        result proc:match proc_match
else
        skip proc:track "no daemon can be told of all processes here"
        skip proc:match "no daemon can be told of all processes here"
fi
if [ -n "$system" ] && has_terminals; then
        result proc:tree proc_tree
else
        skip proc:tree "no daemon can be told of all processes here, or no pseudo-terminal opened"
fi
result netdev:state netdev_state
if has_network_namespaces; then
        result netdev:changes netdev_changes
else
        skip netdev:changes "no network namespace can be made, or ip and nsenter are missing"
fi
result fd:poll fd_poll
result fd:joined fd_joined
result fd:both_ends fd_both_ends
result fd:listener fd_listener
result fd:aio fd_aio
result fd:level fd_level
result fd:oneshot fd_oneshot
result fd:exclusive fd_exclusive
result fd:wrong fd_wrong
if (cd -- "$directory" && has_figures); then
        result fd:read fd_read
        result fd:lowat fd_lowat
        result fd:write fd_write
        result fd:file fd_file
else
        for name in read lowat write file; do
                skip "fd:$name" "the daemon may not look at other processes' descriptors here"
        done
fi
result signal:wrong signal_wrong
if (cd -- "$directory" && has_signals); then
        result signal:sent signal_sent
        result signal:one signal_one
else
        skip signal:sent "no daemon can tell of signals here"
        skip signal:one "no daemon can tell of signals here"
fi
result monitor:bad monitor_bad
result monitor:refused monitor_refused
result monitor:several monitor_several
result status:text status_text
result status:json status_json
result status:metrics status_metrics
result daemon:goes daemon_goes
result daemon:private private
result daemon:configuration daemon_configuration
result daemon:spares_files daemon_spares_files
result daemon:spares_successor daemon_spares_successor

# It has borne all that, and ends well.
daemon_ends() {
        [ "$1" -eq 0 ] || die "exit status $1: $(cat "$directory"/*.log)"
}
status=0
kill -TERM "$daemon"
wait "$daemon" || status=$?
daemon=
result daemon:ends daemon_ends "$status"
if [ -n "$system_daemon" ]; then
        status=0
        kill -TERM "$system_daemon"
        wait "$system_daemon" || status=$?
        system_daemon=
        result daemon:system_ends daemon_ends "$status"
fi
echo "1..$number"
exit "$failed"
