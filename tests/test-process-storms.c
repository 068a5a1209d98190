/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * proc watches on a feed of all processes, when there are many: all that ended is told or counted, whatever the kernel
 * or a queue had no room for, and of a tracked process every descendant. $KEVD_STORM_PROCESSES makes the storms larger.
 */

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "macro.h"
#include "processes.h"

enum {
        USUAL = 4000,
        TALLY_MSEC = 9000,
        LATEST_MSEC = 700, /* what was lost is told by then */
        STALLED = 200,     /* processes that one page has no room for */
        OTHERS_MAX = 16384, /* processes of the machine */
        PIDS_MAX = 4 * 1024 * 1024, /* of the kernel */
};

/* ---- all of them ------------------------------------------------------------------------------------------------- */

struct tally {
        const struct storm *storm;
        int n_exits, n_without_status;
        int64_t n_lost;
};

static void count_exit(struct json_object *event, void *userdata) {
        struct tally *tally = userdata;
        pid_t pid = pid_of(event);
        bool is_writer;

        if (is_note(event, "lost")) {
                tally->n_lost += number_at(event, "/count");
                return;
        }
        /* Its fork was lost, and it was reaped before it was told: whose child it was nobody knows. */
        if (is_note(event, "exit") && !json_at(event, "/process/parent")) {
                tally->n_exits++;
                tally->n_without_status += !json_at(event, "/data");
                return;
        }
        if (!is_of_storm(tally->storm, event))
                return;
        tally->n_exits++;
        is_writer = pid == tally->storm->writers[0] || pid == tally->storm->writers[1];
        if (json_at(event, "/data"))
                check_status(event, is_writer ? 0 : code_of(pid) << 8);
        else
                tally->n_without_status++;
}

/* Others' ends come all the while: it is the time that counts. */
static void count_until(int fd, struct tally *tally, int64_t n) {
        int64_t deadline = now_msec() + TALLY_MSEC, before = 0;

        while (tally->n_exits + tally->n_lost < n) {
                (void)take_events(fd, TALLY_MSEC, count_exit, tally);
                if (tally->n_exits + tally->n_lost > before)
                        deadline = now_msec() + TALLY_MSEC;
                before = tally->n_exits + tally->n_lost;
                ck_assert_msg(now_msec() < deadline, "%d exits, %d without status, and %lld lost, instead of %lld",
                              tally->n_exits, tally->n_without_status, (long long)tally->n_lost, (long long)n);
        }
}

/* What else the machine does is told as well: there is no moment at which nothing comes any more. */
static void count_for(int fd, struct tally *tally, int msec) {
        int64_t deadline = now_msec() + msec;

        for (int64_t now; (now = now_msec()) < deadline;)
                (void)take_events(fd, (int)(deadline - now), count_exit, tally);
}

static bool has_forked(void *userdata) {
        const int64_t *n = userdata;

        return count_forks() >= *n;
}

/* In a storm: the kernel's queue is full before the daemon goes on. */
static void stall(const struct daemon *daemon) {
        int64_t n;

        ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
        n = count_forks() + STALLED;
        ck_assert(wait_until(has_forked, &n, TALLY_MSEC));
        ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
}

static bool runs(pid_t pid) {
        char path[32], state = 0;
        bool is_read;
        FILE *stat;

        (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        stat = fopen(path, "re");
        is_read = stat && fscanf(stat, "%*d (%*[^)]) %c", &state) == 1;
        if (stat)
                (void)fclose(stat);
        return is_read && state != 'Z' && state != 'X';
}

static size_t list_running(pid_t pids[static OTHERS_MAX]) {
        DIR *processes = opendir("/proc");
        struct dirent *entry;
        size_t n = 0;

        assert_system(processes, "/proc");
        while ((entry = readdir(processes))) {
                pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

                if (pid > 0 && runs(pid)) {
                        ck_assert_uint_lt(n, OTHERS_MAX);
                        pids[n++] = pid;
                }
        }
        (void)closedir(processes);
        return n;
}

/* Beside the storm's processes others may have been forked, or have ended: so many at most may be among the lost ones. */
START_TEST(test_storm) {
        static pid_t running[OTHERS_MAX];
        bool is_small = _i % 2;
        int n = storm_size(USUAL), fd;
        struct daemon *daemon = start_following(is_small ? "--process-buffer=4096" : NULL); /* so that some are lost */
        struct tally tally = { 0 };
        int64_t before, others, n_losses;
        size_t n_running;
        struct storm storm;
        char label[128];

        fd = client_connect(daemon->socket);
        watch(fd, "", "'id':0,'match':{},'notes':['exit']");
        n_running = list_running(running);
        before = count_forks();
        storm = storm_begin(n, "kevd-storm");
        tally.storm = &storm;
        if (is_small)
                stall(daemon);
        count_until(fd, &tally, n + 2);
        storm_end(&storm);
        if (is_small)
                count_for(fd, &tally, LATEST_MSEC);
        others = count_forks() - before - n - 2;
        for (size_t i = 0; i < n_running; i++)
                others += !runs(running[i]);
        (void)snprintf(label, sizeof(label), "%s buffer, %d: %d exits, %d without status, %lld lost, %lld others",
                       is_small ? "small" : "default", n + 2, tally.n_exits, tally.n_without_status,
                       (long long)tally.n_lost, (long long)others);
        harness_label(label);
        ck_assert_int_le(tally.n_exits, n + 2);
        ck_assert_int_ge(tally.n_exits + tally.n_lost, n + 2);
        ck_assert_int_le(tally.n_exits + tally.n_lost, n + 2 + others);
        if (!is_small) {
                ck_assert_int_eq(tally.n_lost, 0);
                ck_assert_int_eq(tally.n_without_status, 0);
        }
        n_losses = daemon_expect_repaired(daemon);
        if (is_small && harness_rounds(5) == 5) /* with the sanitizers forks are slow enough */
                ck_assert_msg(n_losses > 0, "nothing was lost: the buffer is too large");
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- what is watched while much is lost -------------------------------------------------------------------------- */

enum { WATCHED = 100 };

struct watched {
        pid_t pids[WATCHED];
        int exits[WATCHED], n_exits, n_with_status;
};

static void count_watched(struct json_object *event, void *userdata) {
        struct watched *watched = userdata;
        int64_t id = number_at(event, "/id");

        ck_assert_msg(is_note(event, "exit") && pid_of(event) == watched->pids[id], "%s",
                      json_object_to_json_string(event));
        watched->exits[id]++;
        watched->n_exits++;
        if (!json_at(event, "/data"))
                return;
        watched->n_with_status++;
        check_status(event, (int)id << 8);
}

/* Half of them end within the storm. None of these is taken to be alive for ever, and none of the others for dead. */
START_TEST(test_watched_in_loss) {
        struct daemon *daemon = start_following("--process-buffer=4096");
        int fd = client_connect(daemon->socket);
        struct watched watched = { 0 };
        struct maker makers[] = { maker_start(0), maker_start(0) };
        struct storm storm;
        char label[64];

        maker_fork_many(&makers[0], run_exit, WATCHED / 2, watched.pids);
        for (int i = WATCHED / 2; i < WATCHED; i++)
                watched.pids[i] = maker_fork(&makers[1], run_exit, i);
        for (int i = 0; i < WATCHED; i++)
                watch(fd, "", "'id':%d,'pid':%d,'notes':['exit']", i, (int)watched.pids[i]);
        storm = storm_begin(storm_size(USUAL), "kevd-storm");
        go(&makers[0], WATCHED / 2);
        while (watched.n_exits < WATCHED / 2)
                ck_assert_msg(take_events(fd, TALLY_MSEC, count_watched, &watched) > 0, "%d of %d exits",
                              watched.n_exits, WATCHED / 2);
        storm_end(&storm);
        (void)snprintf(label, sizeof(label), "%d of %d with a status", watched.n_with_status, watched.n_exits);
        harness_label(label);
        for (int i = 0; i < WATCHED; i++)
                ck_assert_int_eq(watched.exits[i], i < WATCHED / 2);
        go(&makers[1], WATCHED / 2);
        while (watched.n_exits < WATCHED)
                ck_assert_msg(take_events(fd, TALLY_MSEC, count_watched, &watched) > 0, "%d of %d exits",
                              watched.n_exits, WATCHED);
        for (int i = 0; i < WATCHED; i++)
                ck_assert_int_eq(watched.exits[i], 1);
        expect_only_others(fd, NULL, 0);
        for (size_t i = 0; i < ARRAY_SIZE(makers); i++)
                maker_stop(&makers[i]);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* What it becomes, and where that can be seen from outside. */
struct change_in_loss {
        const char *note, *match, *comm;
};

static const struct change_in_loss changes_in_loss[] = {
        { "comm", "'comm':'kevd-other'", "kevd-other" },
        { "exec", "'exe':'sleep'", "sleep" },
};

static int run_change(int i) {
        wait_go();
        if (i == 1) {
                (void)execl("/bin/sleep", "sleep", "100", NULL);
                return 95;
        }
        (void)prctl(PR_SET_NAME, changes_in_loss[i].comm);
        (void)pause();
        return 0;
}

struct changing {
        const struct change_in_loss *change;
        pid_t pid;
        int n_changes, n_lost, n_exits;
};

static bool has_changed(void *userdata) {
        const struct changing *changing = userdata;
        char path[32], comm[32] = "";
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/comm", (int)changing->pid);
        file = fopen(path, "re");
        if (file) {
                (void)!fgets(comm, sizeof(comm), file);
                (void)fclose(file);
        }
        return strncmp(comm, changing->change->comm, strlen(changing->change->comm)) == 0;
}

static void count_changing(struct json_object *event, void *userdata) {
        struct changing *changing = userdata;
        bool is_watched = number_at(event, "/id") == 1;

        if (is_note(event, "lost")) {
                if (is_watched) /* nobody knows how much */
                        ck_assert_int_eq(number_at(event, "/count"), 0);
                changing->n_lost += is_watched;
        } else if (pid_of(event) == changing->pid && !is_note(event, "trackerr")) { /* the end of a watch not for that */
                check_event(event, is_watched ? 1 : 2, is_watched ? changing->change->note : "exit", changing->pid);
                changing->n_changes += is_watched;
                changing->n_exits += !is_watched;
        }
}

/* What became of a process whose record was lost is told from what is found, with the word that more may be missing; and
 * what it is like by then is what counts at its end. */
START_TEST(test_changed_in_loss) {
        struct daemon *daemon = start_following("--process-buffer=4096");
        int fd = client_connect(daemon->socket);
        struct maker maker = maker_start(0);
        struct changing changing = { .change = &changes_in_loss[_i] };
        struct storm storm;

        changing.pid = maker_fork(&maker, run_change, _i);
        watch(fd, "", "'id':1,'pid':%d,'notes':['exec','comm']", (int)changing.pid);
        watch(fd, "", "'id':2,'match':{%s},'notes':['exit']", changing.change->match);
        ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
        storm = storm_begin(2 * STALLED, "kevd-storm"); /* the queue is full with that */
        storm_end(&storm);
        go(&maker, 1);
        ck_assert(wait_until(has_changed, &changing, TALLY_MSEC));
        ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
        while (changing.n_changes == 0 || changing.n_lost == 0)
                ck_assert_msg(take_events(fd, TALLY_MSEC, count_changing, &changing) > 0, "%d changes, %d lost",
                              changing.n_changes, changing.n_lost);
        ck_assert_int_eq(changing.n_exits, 0);
        ck_assert_int_eq(kill(changing.pid, SIGKILL), 0);
        while (changing.n_exits == 0)
                ck_assert_uint_gt(take_events(fd, TALLY_MSEC, count_changing, &changing), 0);
        ck_assert_int_eq(changing.n_changes, 1);
        ck_assert_int_gt(daemon_expect_repaired(daemon), 0);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

struct zombie {
        pid_t pid;
        int n_exits;
};

static void count_zombie(struct json_object *event, void *userdata) {
        struct zombie *zombie = userdata;

        zombie->n_exits += pid_of(event) == zombie->pid;
}

/* What is there still, and has ended, is not told once more each time that all are looked at. */
START_TEST(test_zombie_in_loss) {
        struct daemon *daemon = start_following("--process-buffer=4096");
        int fd = client_connect(daemon->socket);
        struct maker maker = maker_start(0);
        struct zombie zombie = { 0 };
        struct storm storm;

        watch(fd, "", "'id':0,'match':{},'notes':['exit']");
        zombie.pid = maker_fork(&maker, run_exit_at_once, 8);
        while (zombie.n_exits == 0)
                ck_assert_uint_gt(take_events(fd, TALLY_MSEC, count_zombie, &zombie), 0);
        storm = storm_begin(storm_size(USUAL) / 2, "kevd-storm");
        storm_end(&storm);
        for (int64_t deadline = now_msec() + LATEST_MSEC; now_msec() < deadline;)
                (void)take_events(fd, LATEST_MSEC, count_zombie, &zombie);
        ck_assert_int_eq(zombie.n_exits, 1);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- descendants ------------------------------------------------------------------------------------------------- */

static int report_fds[2]; /* what the tracked processes say of each other */

struct descendant {
        pid_t pid, parent;
        int code;
};

static void report(pid_t pid, pid_t parent, int code) {
        struct descendant descendant = { pid, parent, code };

        if (write(report_fds[1], &descendant, sizeof(descendant)) != sizeof(descendant))
                _exit(97);
}

/* In the child, which says so itself; 0: it is the child. */
static pid_t fork_descendant(void) {
        pid_t parent = getpid(), pid = fork();

        if (pid < 0)
                _exit(96);
        if (pid == 0)
                report(getpid(), parent, code_of(getpid()));
        return pid;
}

static pid_t start_program(void) {
        pid_t pid = vfork();

        if (pid == 0) {
                (void)execl("/bin/sh", "sh", "-c", "exit 77", NULL);
                _exit(95);
        }
        report(pid, getpid(), 77);
        return pid;
}

/* Every other one leaves its child behind. */
__attribute__((noreturn)) static void run_generation(int i) {
        pid_t pid = i % 10 == 0 ? start_program() : fork_descendant();

        if (pid == 0)
                _exit(code_of(getpid()));
        if (i % 2)
                (void)waitpid(pid, NULL, 0);
        _exit(code_of(getpid()));
}

__attribute__((noreturn)) static void run_service(int n) {
        (void)setsid();
        for (int i = 0; i < n; i++) {
                pid_t pid = fork_descendant();

                if (pid == 0)
                        run_generation(i);
                (void)waitpid(pid, NULL, 0);
        }
        _exit(code_of(getpid()));
}

static int run_double_fork(int n) {
        pid_t pid;

        wait_go();
        pid = fork_descendant();
        if (pid == 0) {
                if (fork_descendant() == 0)
                        run_service(n);
                _exit(code_of(getpid()));
        }
        (void)waitpid(pid, NULL, 0);
        return 5;
}

struct told {
        pid_t parent;
        int status;
        uint8_t n_children, n_exits;
};

struct track {
        struct told *by_pid;
        int n_children, n_exits;
        int64_t n_lost;
        bool has_ended;
};

static void note_descendant(struct json_object *event, void *userdata) {
        struct track *track = userdata;
        const char *text = json_object_to_json_string(event);
        struct told *told;

        if (is_note(event, "lost")) {
                track->n_lost += number_at(event, "/count");
                return;
        }
        told = &track->by_pid[pid_of(event)];
        ck_assert_msg(number_at(event, "/id") == 1 && number_at(event, "/count") == 1, "%s", text);
        ck_assert_msg(!track->has_ended, "after the last one: %s", text);
        track->has_ended = has_flag(event, "eof");
        if (is_note(event, "child")) {
                told->parent = (pid_t)number_at(event, "/data");
                ck_assert_msg(number_at(event, "/process/parent") == told->parent, "%s", text);
                ck_assert_msg(++told->n_children == 1, "twice: %s", text);
                track->n_children++;
        } else {
                ck_assert_msg(is_note(event, "exit") && json_at(event, "/data"), "%s", text);
                told->status = (int)number_at(event, "/data");
                ck_assert_msg(++told->n_exits == 1, "twice: %s", text);
                track->n_exits++;
        }
}

static void check_descendants(const struct track *track, int n) {
        struct descendant descendant;

        for (int i = 0; i < n; i++) {
                const struct told *told;

                ck_assert_int_eq(read(report_fds[0], &descendant, sizeof(descendant)), sizeof(descendant));
                told = &track->by_pid[descendant.pid];
                ck_assert_msg(told->n_children == 1 && told->n_exits == 1, "%d: %d times a child, %d exits",
                              (int)descendant.pid, told->n_children, told->n_exits);
                ck_assert_int_eq(told->parent, descendant.parent);
                ck_assert_int_eq(told->status, descendant.code << 8);
        }
}

START_TEST(test_track) {
        int n = MAX(storm_size(USUAL) / 20, 1), n_descendants = 2 + 2 * n, fd;
        struct daemon *daemon = start_following(_i ? "--process-buffer=4096" : NULL);
        struct track track = { .by_pid = calloc(PIDS_MAX, sizeof(*track.by_pid)) };
        struct storm storm;
        struct maker maker;
        char label[64];
        pid_t pid;

        ck_assert_ptr_nonnull(track.by_pid);
        assert_system(pipe2(report_fds, O_CLOEXEC) == 0, "pipe2");
        ck_assert_int_ge(fcntl(report_fds[1], F_SETPIPE_SZ, 1024 * 1024), 0);
        fd = client_connect(daemon->socket);
        maker = maker_start(0);
        pid = maker_fork(&maker, run_double_fork, n);
        watch(fd, "", "'id':1,'pid':%d,'notes':['exit','track']", (int)pid);
        storm = storm_begin(storm_size(USUAL) / 5, "kevd-storm");
        go(&maker, 1);
        if (_i)
                stall(daemon);
        while (track.n_exits < n_descendants + 1)
                ck_assert_msg(take_events(fd, TALLY_MSEC, note_descendant, &track) > 0,
                              "%d children and %d exits of %d", track.n_children, track.n_exits, n_descendants);
        storm_end(&storm);
        ck_assert_int_eq(take_events(fd, 0, note_descendant, &track), 0);
        ck_assert_int_eq(track.n_children, n_descendants); /* and no stranger */
        ck_assert_int_eq(track.n_exits, n_descendants + 1);
        ck_assert(track.has_ended);
        ck_assert_int_eq(track.by_pid[pid].n_children, 0);
        ck_assert_int_eq(track.by_pid[pid].status, 5 << 8);
        check_descendants(&track, n_descendants);
        (void)snprintf(label, sizeof(label), "%d descendants, %lld lost", n_descendants, (long long)track.n_lost);
        harness_label(label);
        maker_stop(&maker);
        for (size_t i = 0; i < ARRAY_SIZE(report_fds); i++)
                (void)close(report_fds[i]);
        free(track.by_pid);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- clients ----------------------------------------------------------------------------------------------------- */

/* A process of its own, which holds its connection alone. */
static pid_t start_client(const struct daemon *daemon, pid_t pid) {
        int ready[2];
        pid_t client;
        char byte;

        assert_system(pipe2(ready, O_CLOEXEC) == 0, "pipe2");
        client = fork();
        assert_system(client >= 0, "fork");
        if (client == 0) {
                int fd = client_connect(daemon->socket);

                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                watch(fd, "", "'id':0,'match':{},'notes':['exit','reap','track']");
                watch(fd, "", "'id':1,'pid':%d,'notes':['exit','reap','track']", (int)pid);
                (void)!write(ready[1], "r", 1);
                for (;;)
                        (void)pause();
        }
        (void)close(ready[1]);
        ck_assert_int_eq(read(ready[0], &byte, 1), 1);
        (void)close(ready[0]);
        return client;
}

/* One that reads nothing goes in the middle: who stays does not notice, and nothing is held any more. */
START_TEST(test_client_goes) {
        struct daemon *daemon = start_following(NULL);
        struct maker maker = maker_start(0);
        int fd = client_connect(daemon->socket), n = storm_size(USUAL);
        pid_t pid = maker_fork(&maker, run_exit, 3), client = start_client(daemon, pid);
        struct tally tally = { 0 };
        struct storm storm;

        watch(fd, "", "'id':0,'match':{},'notes':['exit']");
        storm = storm_begin(n, "kevd-storm");
        tally.storm = &storm;
        while (tally.n_exits < n / 2)
                ck_assert_uint_gt(take_events(fd, TALLY_MSEC, count_exit, &tally), 0);
        ck_assert_int_eq(kill(client, SIGKILL), 0);
        ck_assert_int_eq(waitpid(client, NULL, 0), client);
        count_until(fd, &tally, n + 2);
        storm_end(&storm);
        ck_assert_int_eq(tally.n_exits, n + 2);
        ck_assert_int_eq(tally.n_lost, 0);
        (void)close(fd);
        expect_pidfds(daemon, 0);
        go(&maker, 1);
        maker_stop(&maker);
        daemon_stop(daemon);
}
END_TEST

/* ---- a queue without room ---------------------------------------------------------------------------------------- */

/* Together they have more to tell than a queue takes. */
enum { ALIKE = 30, TRACKED_ID = 100, SINGLE_ID = 101 };

struct bound {
        int n_events[ALIKE], n_lost_events[ALIKE];
        int64_t n_lost[ALIKE];
        int n_tracked, n_tracked_lost_events, n_single;
        int64_t n_tracked_lost;
};

static void count_bound(struct json_object *event, void *userdata) {
        struct bound *bound = userdata;
        int64_t id = number_at(event, "/id"), count = number_at(event, "/count");

        if (id == SINGLE_ID) {
                ck_assert_msg(is_note(event, "exit"), "%s", json_object_to_json_string(event));
                check_status(event, 44 << 8);
                bound->n_single++;
        } else if (id == TRACKED_ID) {
                if (is_note(event, "lost")) {
                        bound->n_tracked_lost_events++;
                        bound->n_tracked_lost += count;
                } else
                        bound->n_tracked += (int)count;
        } else if (is_note(event, "lost")) {
                bound->n_lost_events[id]++;
                bound->n_lost[id] += count;
        } else
                bound->n_events[id] += (int)count;
}

static int run_parent(int n) {
        wait_go();
        for (int i = 0; i < n; i++) {
                pid_t pid = fork();

                if (pid == 0)
                        _exit(0);
                if (pid < 0 || waitpid(pid, NULL, 0) != pid)
                        return 1;
        }
        return 0;
}

static bool has_all(const struct bound *bound, int n, int n_tracked) {
        for (int i = 0; i < ALIKE; i++)
                if (bound->n_events[i] + bound->n_lost[i] < n)
                        return false;
        return bound->n_tracked + bound->n_tracked_lost >= n_tracked && bound->n_single > 0;
}

/* The client reads nothing until all is over. */
START_TEST(test_bound) {
        int n = MAX(storm_size(USUAL), USUAL), n_children = 200, fd; /* fewer have room */
        struct daemon *daemon = start_following(NULL);
        struct maker makers[] = { maker_start(0), maker_start(0) };
        struct bound bound = { 0 };
        pid_t parent, single;
        int64_t others = count_forks();
        struct storm storm;

        fd = client_connect(daemon->socket);
        parent = maker_fork(&makers[0], run_parent, n_children);
        single = maker_fork(&makers[1], run_exit, 44);
        for (int i = 0; i < ALIKE; i++)
                watch(fd, "", "'id':%d,'match':{'comm':'kevd-burst'},'notes':['exit']", i);
        watch(fd, "", "'id':%d,'pid':%d,'notes':['exit','track']", TRACKED_ID, (int)parent);
        watch(fd, "", "'id':%d,'pid':%d,'notes':['exit']", SINGLE_ID, (int)single);
        storm = storm_begin(n, "kevd-burst");
        storm_end(&storm);
        go(&makers[0], 1);
        go(&makers[1], 1);
        ck_assert_int_eq(maker_reap(&makers[0], parent), 0);
        ck_assert_int_eq(maker_reap(&makers[1], single), 44 << 8);
        while (!has_all(&bound, n + 2, 2 * n_children + 1))
                ck_assert_msg(take_events(fd, TALLY_MSEC, count_bound, &bound) > 0,
                              "%d exits and %lld lost of %d; %d and %lld of %d; %d", bound.n_events[0],
                              (long long)bound.n_lost[0], n + 2, bound.n_tracked, (long long)bound.n_tracked_lost,
                              2 * n_children + 1, bound.n_single);
        while (take_events(fd, 0, count_bound, &bound) > 0)
                ;
        others = count_forks() - others - n - 2 - n_children; /* may be lost where they can't be judged */
        for (int i = 0; i < ALIKE; i++) {
                ck_assert_int_ge(bound.n_lost_events[i], 1);
                ck_assert_int_le(bound.n_lost_events[i], 1 + others);
                ck_assert_int_le(bound.n_events[i], n + 2);
                ck_assert_int_ge(bound.n_events[i] + bound.n_lost[i], n + 2);
                ck_assert_int_le(bound.n_events[i] + bound.n_lost[i], n + 2 + others);
        }
        ck_assert_int_eq(bound.n_tracked_lost_events, 1);
        ck_assert_int_eq(bound.n_tracked + bound.n_tracked_lost, 2 * n_children + 1);
        ck_assert_int_eq(bound.n_single, 1);
        for (size_t i = 0; i < ARRAY_SIZE(makers); i++)
                maker_stop(&makers[i]);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- a user's share ---------------------------------------------------------------------------------------------- */

enum { WATCHES = 256, ROUND = 25, ROUNDS = 41, FOLLOWED = 262144 }; /* the last one of all rounds is too many */

/* Each time it may: so many more, which end with it. */
static int run_growing(int n_rounds) {
        pid_t own = getpid();

        for (int i = 0; i < n_rounds; i++) {
                wait_go();
                for (int k = 0; k < ROUND; k++) {
                        pid_t pid = fork();

                        if (pid == 0) {
                                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                                while (getppid() == own)
                                        (void)pause();
                                _exit(0);
                        }
                        if (pid < 0)
                                return 1;
                }
        }
        wait_go();
        return 0;
}

struct followed {
        int n_children, n_errors;
};

static void count_followed(struct json_object *event, void *userdata) {
        struct followed *followed = userdata;

        followed->n_children += is_note(event, "child");
        followed->n_errors += is_note(event, "trackerr");
}

static void expect_followed(int fd, struct followed *followed, int n) {
        while (followed->n_children + followed->n_errors < n)
                ck_assert_msg(take_events(fd, TALLY_MSEC, count_followed, followed) > 0, "%d followed and %d not, of %d",
                              followed->n_children, followed->n_errors, n);
}

/* What one user's watches may follow has a limit, and another's go on. */
START_TEST(test_share) {
        struct daemon *daemon = start_following(NULL);
        int fd = client_connect_as(daemon->socket, (uid_t)USER), other = client_connect_as(daemon->socket, (uid_t)STRANGER);
        struct maker makers[] = { maker_start((uid_t)USER), maker_start((uid_t)STRANGER) };
        struct followed followed = { 0 }, others = { 0 };
        pid_t pid = maker_fork(&makers[0], run_growing, ROUNDS);

        for (int i = 0; i < WATCHES; i++)
                watch(fd, "", "'id':%d,'pid':%d,'notes':['track']", i, (int)pid);
        for (int i = 1; i <= ROUNDS; i++) {
                go(&makers[0], 1);
                expect_followed(fd, &followed, i * ROUND * WATCHES);
        }
        ck_assert_int_eq(followed.n_children, FOLLOWED);
        watch(other, "", "'id':1,'pid':%d,'notes':['track']", (int)maker_fork(&makers[1], run_growing, 1));
        go(&makers[1], 1);
        expect_followed(other, &others, ROUND);
        ck_assert_int_eq(others.n_errors, 0);
        for (size_t i = 0; i < ARRAY_SIZE(makers); i++) {
                go(&makers[i], 1);
                maker_stop(&makers[i]);
        }
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("process-storms");
        TCase *c;

        c = harness_case(suite, "all");
        tcase_add_loop_test(c, test_storm, 0, 6);
        tcase_set_timeout(c, 60);
        c = harness_case(suite, "watched");
        tcase_add_test(c, test_watched_in_loss);
        tcase_add_loop_test(c, test_changed_in_loss, 0, (int)ARRAY_SIZE(changes_in_loss));
        tcase_add_test(c, test_zombie_in_loss);
        tcase_add_test(c, test_client_goes);
        c = harness_case(suite, "track");
        tcase_add_loop_test(c, test_track, 0, daemon_is_on_bpf() ? 2 : 1); /* with a small buffer only there */
        c = harness_case(suite, "bound");
        tcase_add_test(c, test_bound);
        c = harness_case(suite, "share");
        tcase_set_timeout(c, 120);
        tcase_add_test(c, test_share);
        return harness_main(argc, argv);
}
