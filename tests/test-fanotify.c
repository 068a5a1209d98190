/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches of a daemon that has fanotify: what it can tell that inotify can't, and
 * what becomes of watches when a part of it ends. What both tell is in the tests
 * of trees, which run with both.
 */

#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "files.h"
#include "harness.h"
#include "macro.h"
#include "replay.h"

static struct daemon *kevd;

static void start(void) {
        if (!fanotify_missing())
                kevd = daemon_start("--file-mechanism=fanotify");
}

static void start_among_private_mounts(void) {
        need_private_mounts();
        start();
}

static void stop(void) {
        if (kevd)
                daemon_stop(kevd);
}

/* The notes of all that is due about the path. */
static uint64_t notes_about(struct follower *f, const char *path) {
        const struct kev_event *event;
        uint64_t notes = 0;

        while (follower_take(f, 0, &event))
                if (kev_event_path(event) && strcmp(kev_event_path(event), path) == 0)
                        notes |= kev_event_notes(event);
        return notes;
}

/* ---- what is told ---------------------------------------------------------------------------- */

START_TEST(test_mechanism) {
        const char *root;
        struct follower *f;
        char *name;

        need_fanotify();
        root = make_root("w");
        f = follower_new(kevd, root, REPLAY_STRICT);
        ck_assert_int_eq(kev_get_mechanism(f->kev, f->id, &name), 0);
        ck_assert_str_eq(name, "fanotify");
        free(name);
        ck_assert_int_eq(kev_get_mechanism(f->kev, f->id + 1, &name), -ENOENT);
        follower_free(f);
}
END_TEST

START_TEST(test_replace) {
        const char *root, *a, *b;
        struct follower *f;
        uint64_t notes;
        int n = 0;

        need_fanotify();
        root = make_root("w");
        a = at("%s/a", root);
        b = at("%s/b", root);
        f = follower_new(kevd, root, REPLAY_STRICT);
        for (int i = 0; i < 20; i++) {
                append(a, "new");
                move(a, b);
                notes = notes_about(f, b);
                ck_assert_uint_ne(notes & KEV_NOTE_RENAME, 0);
                n += (notes & KEV_NOTE_REPLACE) != 0;
                ck_assert(i > 0 || n == 0); /* there was nothing */
        }
        /* It shows by what follows, which may be too late. */
        ck_assert_int_gt(n, 0);
        remove_file(b);
        n = 0;
        for (int i = 0; i < 20; i++) {
                make_dir(a);
                if (i == 0)
                        make_dir(b);
                move(a, b);
                n += (notes_about(f, b) & KEV_NOTE_REPLACE) != 0;
        }
        ck_assert_int_gt(n, 0);
        follower_check(f, "replaced");
        follower_free(f);
}
END_TEST

START_TEST(test_who) {
        const char *root, *path;
        const struct kev_event *event;
        struct follower *f;
        bool told = false;
        pid_t writer, pid;
        uid_t uid;

        need_fanotify();
        root = make_root("w");
        path = at("%s/file", root);
        f = follower_new_with(kevd, new_tree_watch(root, KEV_NOTE_WHO), root, REPLAY_STRICT);
        writer = fork_writer();
        if (writer == 0) {
                int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

                (void)close(fd);
                (void)pause(); /* there as long as it may be looked at */
                _exit(0);
        }
        while (!told && follower_take(f, HARNESS_REPLY_MSEC, &event)) {
                ck_assert_str_eq(kev_event_path(event), path);
                ck_assert_int_eq(kev_event_pid(event, &pid), 0);
                ck_assert_int_eq(pid, writer);
                ck_assert_int_eq(kev_event_uid(event, &uid), 0);
                ck_assert_uint_eq(uid, 0);
                ck_assert_str_eq(kev_event_comm(event), "test-fanotify");
                ck_assert_ptr_nonnull(kev_event_exe(event));
                told = true;
        }
        ck_assert(told);
        (void)kill(writer, SIGKILL);
        (void)waitpid(writer, NULL, 0);
        follower_free(f);
        /* Who has not asked is not told. */
        f = follower_new(kevd, root, REPLAY_STRICT);
        remove_file(path);
        ck_assert(follower_take(f, HARNESS_REPLY_MSEC, &event));
        ck_assert_int_lt(kev_event_pid(event, &pid), 0);
        follower_free(f);
}
END_TEST

START_TEST(test_exclude_self) {
        struct kev_watch *watch;
        struct follower *f;
        const char *root;
        uint64_t n;
        pid_t pid;

        need_fanotify();
        root = make_root("w");
        watch = new_tree_watch(root, 0);
        ck_assert_int_eq(kev_watch_set_exclude_self(watch, true), 0);
        f = follower_new_with(kevd, watch, root, REPLAY_STRICT);
        make_file(at("%s/mine", root));
        ck_assert(!follower_take(f, 0, NULL));
        pid = fork_writer();
        if (pid == 0) {
                make_file(at("%s/others", root));
                _exit(0);
        }
        reap(pid);
        ck_assert_uint_ne(notes_about(f, at("%s/others", root)) & KEV_NOTE_CREATE, 0);
        n = f->n_events;
        make_file(at("%s/mine too", root));
        ck_assert(!follower_take(f, 0, NULL));
        watch = new_tree_watch(root, KEV_NOTE_CREATE);
        ck_assert_int_eq(kev_modify(f->kev, f->id, watch), 0); /* which says nothing of it */
        kev_watch_free(watch);
        make_file(at("%s/mine again", root));
        ck_assert(!follower_take(f, 0, NULL));
        ck_assert_uint_eq(f->n_events, n);
        follower_free(f);
}
END_TEST

/* ---- what ends ----------------------------------------------------------------------------------- */

static bool is_back(void *userdata) {
        const struct kev_event *event;
        struct follower *f = userdata;

        (void)follower_take(f, 0, &event);
        return f->notes & KEV_NOTE_BACK;
}

static bool has_helper(void *name) {
        return daemon_find_helper(kevd->pid, name) > 0;
}

/* It says that it is ready just before it has its name. */
static pid_t expect_helper(const char *name) {
        ck_assert_msg(wait_until(has_helper, (void *)name, HARNESS_REPLY_MSEC), "there is no %s", name);
        return daemon_find_helper(kevd->pid, name);
}

/* What looks up directories ends: the watch says so, begins anew, and goes on. */
START_TEST(test_surveyor_ends) {
        struct follower *f;
        const char *root;
        pid_t pid;

        need_fanotify();
        root = make_root("w");
        f = follower_new(kevd, root, REPLAY_AT_REST);
        pid = expect_helper("kevd-surveyor");
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ck_assert(wait_until(is_back, f, HARNESS_REPLY_MSEC));
        ck_assert_uint_ne(f->notes & KEV_NOTE_DEGRADED, 0);
        make_tree(root, 3, 2);
        follower_check(f, "with another");
        follower_free(f);
}
END_TEST

/* A directory that was passed can't be found again: its watch ends with what looked up directories. */
START_TEST(test_surveyor_of_descriptor_ends) {
        static const char change[] = "{\"method\":\"org.kevd.events.Change\",\"parameters\":"
                                     "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"descriptor\":0,"
                                     "\"notes\":[\"create\",\"back\"]}]}}";
        struct json_object *reply, *event;
        const char *root;
        int fd, directory;

        need_fanotify();
        root = make_root("w");
        fd = client_connect(kevd->socket);
        directory = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_system(directory >= 0, root);
        client_send_with_fds(fd, change, sizeof(change), &directory, 1);
        (void)close(directory);
        reply = client_receive(fd, HARNESS_REPLY_MSEC);
        ck_assert_ptr_null(json_at(reply, "/parameters/refused/0"));
        json_object_put(reply);
        ck_assert_int_eq(kill(expect_helper("kevd-surveyor"), SIGKILL), 0);
        event = next_event(fd);
        ck_assert_msg(has_note(event, "gone") && has_flag(event, "eof"), "%s", json_object_to_json_string(event));
        json_object_put(event);
        make_file(at("%s/after", root));
        expect_nothing(fd);
        (void)close(fd);
}
END_TEST

START_TEST(test_stand_in_ends) {
        struct follower *f, *next;
        const char *root;
        pid_t pid;

        need_fanotify();
        root = make_root("w");
        f = follower_new(kevd, root, REPLAY_AT_REST);
        pid = expect_helper("kevd-stand-in");
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        make_tree(root, 3, 2);
        follower_check(f, "without");
        follower_free(f);
        next = follower_new(kevd, make_root("v"), REPLAY_STRICT); /* gets another */
        follower_free(next);
}
END_TEST

/* proc_tid_children(5): the daemon's only child. */
static pid_t find_broker(void) {
        FILE *file = fopen(at("/proc/%d/task/%d/children", (int)kevd->pid, (int)kevd->pid), "re");
        int pid = 0;

        assert_system(file, "children");
        ck_assert_int_eq(fscanf(file, "%d", &pid), 1);
        (void)fclose(file);
        return pid;
}

static bool may_watch(void *userdata) {
        struct follower *f = userdata;
        struct kev_watch *watch = new_tree_watch("/", KEV_NOTE_GONE);
        int64_t id;
        int r = kev_add(f->kev, watch, NULL, NULL, &id);

        kev_watch_free(watch);
        ck_assert_msg(r == 0 || r == -EAGAIN, "%s", strerror(-r));
        return r == 0;
}

/* For a while the broker can start none, however often it is asked. Then there is one, and what waits for it goes on. */
START_TEST(test_stand_in_is_not_to_be_had) {
        enum { TIMES = 40 };
        struct follower *f;
        struct rlimit before, none = { 0, 0 };
        const char *root;
        pid_t broker;

        need_fanotify();
        root = make_root("w");
        f = follower_new_with(kevd, new_tree_watch(root, KEV_NOTE_GONE | KEV_NOTE_BACK), root, REPLAY_AT_REST);
        (void)expect_helper("kevd-stand-in");
        broker = find_broker();
        assert_system(prlimit(broker, RLIMIT_NOFILE, NULL, &before) == 0, "prlimit");
        none.rlim_max = before.rlim_max;
        assert_system(prlimit(broker, RLIMIT_NOFILE, &none, NULL) == 0, "prlimit");
        ck_assert_uint_eq(daemon_signal_helpers(kevd->pid, "kevd-stand-in", SIGKILL), 1);
        while (may_watch(f))
                ;
        for (int i = 0; i < TIMES; i++)
                ck_assert(!may_watch(f));
        remove_dir(root);
        make_dir(root);
        follower_drain(f);
        ck_assert_uint_eq(f->notes & (KEV_NOTE_GONE | KEV_NOTE_BACK), KEV_NOTE_GONE);
        assert_system(prlimit(broker, RLIMIT_NOFILE, &before, NULL) == 0, "prlimit");
        ck_assert(wait_until(is_back, f, HARNESS_REPLY_MSEC));
        ck_assert(wait_until(may_watch, f, HARNESS_REPLY_MSEC));
        follower_free(f);
}
END_TEST

/* It ends while it is asked whether a directory is still where it was named: the next one is asked. */
START_TEST(test_stand_in_ends_as_it_is_asked) {
        struct follower *f;
        const char *root;

        need_fanotify();
        root = make_root("w");
        f = follower_new_with(kevd, new_tree_watch(root, KEV_NOTE_GONE | KEV_NOTE_BACK), root, REPLAY_AT_REST);
        (void)expect_helper("kevd-stand-in");
        ck_assert_uint_eq(daemon_signal_helpers(kevd->pid, "kevd-stand-in", SIGSTOP), 1);
        assert_system(mount("tmpfs", root, "tmpfs", 0, NULL) == 0, root);
        (void)daemon_expect_repaired(kevd); /* it serves the call in a turn that has seen the mount */
        ck_assert_uint_eq(daemon_signal_helpers(kevd->pid, "kevd-stand-in", SIGKILL), 1);
        ck_assert(wait_until(is_back, f, HARNESS_REPLY_MSEC));
        ck_assert_uint_ne(f->notes & KEV_NOTE_GONE, 0);
        follower_free(f);
        assert_system(umount2(root, MNT_DETACH) == 0, root);
}
END_TEST

/* What looks up directories ends while the queue waits for it, and the answer where a watched directory is for its
 * place in that: the directory is there, and nothing says that it is gone. */
START_TEST(test_surveyor_ends_as_a_check_waits) {
        const char *root, *elsewhere;
        struct kev_watch *absent;
        struct follower *f;

        need_fanotify();
        root = make_root("w");
        elsewhere = make_root("elsewhere");
        f = follower_new_with(kevd, new_tree_watch(root, KEV_NOTE_CREATE | KEV_NOTE_GONE | KEV_NOTE_BACK), root,
                              REPLAY_AT_REST);
        (void)expect_helper("kevd-surveyor");
        (void)expect_helper("kevd-stand-in");
        ck_assert_uint_eq(daemon_signal_helpers(kevd->pid, "kevd-surveyor", SIGSTOP), 1);
        ck_assert_uint_eq(daemon_signal_helpers(kevd->pid, "kevd-stand-in", SIGSTOP), 1);
        make_file(at("%s/file", elsewhere));
        assert_system(mount("tmpfs", root, "tmpfs", 0, NULL) == 0, root);
        (void)daemon_expect_repaired(kevd); /* it serves the call in a turn that has seen the mount */
        assert_system(umount2(root, MNT_DETACH) == 0, root);
        (void)daemon_signal_helpers(kevd->pid, "kevd-stand-in", SIGCONT);
        absent = new_tree_watch(at("%s/absent", elsewhere), KEV_NOTE_GONE);
        ck_assert_int_lt(kev_add(f->kev, absent, NULL, NULL, NULL), 0); /* what was asked before is answered */
        kev_watch_free(absent);
        ck_assert_uint_eq(daemon_signal_helpers(kevd->pid, "kevd-surveyor", SIGKILL), 1);
        ck_assert(wait_until(is_back, f, HARNESS_REPLY_MSEC));
        ck_assert_uint_ne(f->notes & KEV_NOTE_DEGRADED, 0);
        ck_assert_uint_eq(f->notes & KEV_NOTE_GONE, 0);
        make_file(at("%s/file", root));
        follower_check(f, "with another");
        follower_free(f);
}
END_TEST

/* ---- watches that wait ----------------------------------------------------------------------------- */

/* A number that proc_pid_status(5) has. */
static unsigned long status_of(pid_t pid, const char *format) {
        FILE *file = fopen(at("/proc/%d/status", (int)pid), "re");
        unsigned long n = 0;
        bool found = false;
        char line[256];

        assert_system(file, "status");
        while (fgets(line, sizeof(line), file))
                found |= sscanf(line, format, &n) == 1;
        (void)fclose(file);
        ck_assert_msg(found, "%s", format);
        return n;
}

/* How often it has waited for something. */
static unsigned long n_waits(pid_t pid) {
        return status_of(pid, "voluntary_ctxt_switches: %lu");
}

struct polled {
        pid_t stand_in;
        unsigned long n;
};

static bool is_polled(void *userdata) {
        const struct polled *p = userdata;

        return n_waits(p->stand_in) >= p->n;
}

/* Where no event comes paths are looked at less and less often, be they one, two or very many. */
START_TEST(test_looks_become_rare) {
        enum { LOOKS = 7, MANY = 150 };
        struct daemon *other;
        struct follower *one, *more[MANY];
        int n_more = _i == 0 ? 2 : MANY;
        struct polled polled;
        unsigned long before;
        pid_t stand_in;

        need_fanotify();
        one = follower_new_with(kevd, new_tree_watch(at("%s/absent", harness_tempdir()), KEV_NOTE_BACK), "",
                                REPLAY_AT_REST);
        polled.stand_in = expect_helper("kevd-stand-in");
        other = daemon_start("--file-mechanism=fanotify");
        for (int i = 0; i < n_more; i++)
                more[i] = follower_new_with(other,
                                            new_tree_watch(at("%s/absent%d", harness_tempdir(), i), KEV_NOTE_BACK), "",
                                            REPLAY_AT_REST);
        stand_in = daemon_find_helper(other->pid, "kevd-stand-in");
        ck_assert_int_gt(stand_in, 0);
        polled.n = n_waits(polled.stand_in) + LOOKS;
        before = n_waits(stand_in);
        ck_assert(wait_until(is_polled, &polled, 2 * HARNESS_REPLY_MSEC));
        ck_assert_uint_le(n_waits(stand_in) - before, (unsigned long)(n_more + 3) * LOOKS);
        for (int i = 0; i < n_more; i++)
                follower_free(more[i]);
        follower_free(one);
        daemon_stop(other);
}
END_TEST

/* The most memory that the daemon had so far. */
static unsigned long peak_kib(void) {
        return status_of(kevd->pid, "VmHWM: %lu");
}

/* So many watches of a path that is not there, with ids from 0 on. */
static void wait_for_path(int fd, const char *path, int n) {
        enum { A_CALL = 250 };
        char *text = malloc(A_CALL * 1000);

        ck_assert_ptr_nonnull(text);
        for (int i = 0; i < n;) {
                size_t size = (size_t)sprintf(text, "{\"add\":[");

                for (int k = 0; k < A_CALL && i < n; k++, i++)
                        size += (size_t)sprintf(text + size, "%s{\"id\":%d,\"filter\":\"tree\",\"path\":\"%s\","
                                                "\"notes\":[\"back\"]}", k ? "," : "", i, path);
                (void)sprintf(text + size, "]}");
                client_change(fd, "%s", text);
        }
        free(text);
}

/* A name on the paths of very many comes to be, and where they are can't be answered just then: that is not asked for
 * all of them at once, and they are asked for all the same. */
START_TEST(test_many_wait) {
        enum {
                MANY = 8500,
                ROOM_KIB = 16 * 1024, /* a question has 4 */
        };
        const char *a;
        unsigned long before;
        int fd;

        need_fanotify();
        a = at("%s/a", harness_tempdir());
        fd = client_connect(kevd->socket);
        client_change(fd, "{\"add\":[{\"id\":%d,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"gone\"]}]}", MANY,
                      harness_tempdir()); /* by which names are heard of */
        wait_for_path(fd, at("%s/b", a), MANY);
        (void)expect_helper("kevd-stand-in");
        before = peak_kib();
        ck_assert_uint_eq(daemon_signal_helpers(kevd->pid, "kevd-stand-in", SIGSTOP), 1);
        make_dir(a);
        expect_nothing(fd); /* it is answered before it is known, as that takes too long */
        (void)daemon_signal_helpers(kevd->pid, "kevd-stand-in", SIGCONT);
        ck_assert(IS_SANITIZED || peak_kib() < before + ROOM_KIB);
        make_dir(at("%s/b", a));
        for (size_t n = 0; n < MANY;) {
                struct json_object *events = next_events(fd);
                size_t n_more = json_object_array_length(events);

                for (size_t i = 0; i < n_more; i++)
                        ck_assert(has_note(json_object_array_get_idx(events, i), "back"));
                json_object_put(events);
                n += n_more;
        }
        (void)close(fd);
}
END_TEST

/* Somebody has so many that wait where no event comes that to look at all of them takes longer than anybody else should
 * have to wait. */
START_TEST(test_many_of_another) {
        enum { MANY = 20000 };
        struct daemon *system;
        struct json_object *event;
        const char *a;
        int fd, other;

        need_fanotify();
        if (geteuid() != 0)
                harness_skip("to be another user takes root");
        change_mode(harness_tempdir(), 0755);
        system = daemon_start("--mode=system", "--file-mechanism=fanotify");
        other = client_connect_as(system->socket, OTHER_CLIENT);
        wait_for_path(other, at("%s/never", harness_tempdir()), MANY);
        a = at("%s/a", harness_tempdir());
        fd = client_connect(system->socket);
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"back\"]}]}", a);
        make_dir(a);
        event = next_event(fd);
        ck_assert(has_note(event, "back"));
        json_object_put(event);
        (void)close(fd);
        (void)close(other);
        daemon_stop(system);
}
END_TEST

/* ---- a queue that is not long enough ------------------------------------------------------------- */

static size_t max_queued(void) {
        FILE *file = fopen("/proc/sys/fs/fanotify/max_queued_events", "re");
        size_t n;

        ck_assert_ptr_nonnull(file);
        ck_assert_int_eq(fscanf(file, "%zu", &n), 1);
        (void)fclose(file);
        return n;
}

/* More than it holds: a file each, as events of one file are merged. */
static void make_many(const char *path) {
        size_t n = max_queued() + 100;

        make_dir(path);
        for (size_t i = 0; i < n; i++) {
                char file[PATH_MAX];

                (void)snprintf(file, sizeof(file), "%s/%zu", path, i);
                make_file(file);
        }
}

/* What is lost is said to be, and what comes after it is told; a second loss while the first is being seen to as well. */
START_TEST(test_overflow) {
        struct daemon *limited;
        struct follower *f;
        const char *root;

        need_fanotify();
        if (max_queued() > 100000)
                harness_skip("fs.fanotify.max_queued_events is above 100000");
        root = make_root("w");
        limited = daemon_start("--file-mechanism=fanotify", "--file-queue=limited");
        f = follower_new(limited, root, REPLAY_AT_REST);
        for (int i = 0; i < 2; i++) {
                assert_system(kill(limited->pid, SIGSTOP) == 0, "SIGSTOP");
                make_many(at("%s/many%d", harness_tempdir(), i));
                run(root, at("mkdir -p a%d/b/c && touch a%d/b/c/file", i, i));
                if (i == 1)
                        run(root, "rm -r a0");
                assert_system(kill(limited->pid, SIGCONT) == 0, "SIGCONT");
                make_file(at("%s/behind%d", root, i));
                if (i == 0)
                        continue;
                follower_check(f, "after two losses");
                ck_assert_uint_gt(replay_n_rescans(f->replay), 0);
        }
        make_tree(at("%s/a1", root), 2, 2);
        follower_check(f, "later");
        ck_assert_int_gt(daemon_expect_repaired(limited), 0);
        follower_free(f);
        daemon_stop(limited);
}
END_TEST

/* More happens while a directory is being looked up than the daemon reads ahead: what takes the directory away, and
 * would say where it was, lies behind that. */
START_TEST(test_more_than_is_read_ahead) {
        enum {
                AHEAD = 64 * 1024 * 1024,
                NAME_SIZE = 250,
        };
        const char *root, *elsewhere, *d;
        char from[PATH_MAX], to[PATH_MAX];
        bool covered = false, left = false;
        int fd;

        need_fanotify();
        root = make_root("w");
        elsewhere = make_root("elsewhere");
        d = at("%s/d", root);
        make_dir(d);
        fd = client_connect(kevd->socket);
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"create\",\"movedout\","
                          "\"rescan\"]}]}", root);
        (void)expect_helper("kevd-surveyor");
        ck_assert_uint_eq(daemon_signal_helpers(kevd->pid, "kevd-surveyor", SIGSTOP), 1);
        make_file(at("%s/file", d));
        format(to, sizeof(to), "%s/%0*d", elsewhere, NAME_SIZE, 0);
        make_file(to);
        for (int i = 1; i < AHEAD / (2 * NAME_SIZE) + 2000; i++) {
                memcpy(from, to, sizeof(from));
                format(to, sizeof(to), "%s/%0*d", elsewhere, NAME_SIZE, i);
                move(from, to);
        }
        move(d, at("%s/d", elsewhere));
        ck_assert_uint_eq(daemon_signal_helpers(kevd->pid, "kevd-surveyor", SIGCONT), 1);
        while (!left) {
                struct json_object *event = next_event(fd);

                covered |= has_note(event, "rescan") || strcmp(text_at(event, "/path"), at("%s/file", d)) == 0;
                left = has_note(event, "movedout");
                json_object_put(event);
        }
        ck_assert(covered);
        (void)close(fd);
}
END_TEST

/* What was done before is merged with what is done again, unless another process does it: so that a directory left the
 * place to which it comes in the end isn't told. What is in it must not be lost. */
START_TEST(test_merged_moves) {
        struct follower *f;
        const char *root, *b, *c;
        pid_t other;

        need_fanotify();
        root = make_root("w");
        b = at("%s/b", root);
        c = at("%s/c", root);
        f = follower_new(kevd, root, REPLAY_STRICT);
        make_dir(b);
        make_tree(b, 3, 2);
        follower_check(f, "before");
        for (int round = 0; round < 2; round++) {
                assert_system(kill(kevd->pid, SIGSTOP) == 0, "SIGSTOP");
                move(b, c);
                move(c, b);
                if (round == 1)
                        make_dir(c);
                move(b, c);
                other = fork_writer();
                if (other == 0) {
                        move(c, b);
                        _exit(0);
                }
                reap(other);
                assert_system(kill(kevd->pid, SIGCONT) == 0, "SIGCONT");
                follower_check(f, "moved there and back");
        }
        follower_free(f);
}
END_TEST

/* A name of which the events say too little is looked at by way of the mount, which is elsewhere by then. */
START_TEST(test_merged_on_moved_mount) {
        const char *from, *to, *stays, *path;
        struct follower *f;

        need_fanotify();
        from = make_root("from");
        to = make_root("to");
        stays = make_root("stays");
        path = at("%s/link", harness_tempdir());
        assert_system(mount("tmpfs", from, "tmpfs", 0, NULL) == 0, from);
        assert_system(mount(from, stays, NULL, MS_BIND, NULL) == 0, stays);
        assert_system(symlink(from, path) == 0, path);
        f = follower_new(kevd, path, REPLAY_AT_REST);
        make_file(at("%s/a", path));
        follower_check(f, "before");
        assert_system(kill(kevd->pid, SIGSTOP) == 0, "SIGSTOP");
        assert_system(link(at("%s/a", path), at("%s/b", path)) == 0, "link");
        remove_file(at("%s/b", path));
        assert_system(link(at("%s/a", path), at("%s/b", path)) == 0, "link");
        assert_system(mount(from, to, NULL, MS_MOVE, NULL) == 0, to);
        remove_file(path);
        assert_system(symlink(to, path) == 0, path);
        assert_system(kill(kevd->pid, SIGCONT) == 0, "SIGCONT");
        follower_check(f, "on the moved mount");
        follower_free(f);
        assert_system(umount2(to, MNT_DETACH) == 0 && umount2(stays, MNT_DETACH) == 0, to);
}
END_TEST

static bool is_asleep(void *pid) {
        FILE *file = fopen(at("/proc/%d/stat", *(const pid_t *)pid), "re");
        char state = 0;
        int n = file ? fscanf(file, "%*d (%*[^)]) %c", &state) : 0;

        if (file)
                (void)fclose(file);
        return n == 1 && state == 'S';
}

/* A directory is looked for while something is mounted over it, and that has gone before the answer is heard. */
START_TEST(test_uncovered_meanwhile) {
        const char *root, *other;
        struct json_object *event;
        pid_t surveyor;
        int fd;

        need_fanotify();
        root = make_root("w");
        other = make_root("other");
        assert_system(mount("tmpfs", root, "tmpfs", 0, NULL) == 0, root);
        make_dir(at("%s/d", root));
        assert_system(mount(root, other, NULL, MS_BIND, NULL) == 0, other);
        assert_system(mount("tmpfs", at("%s/d", root), "tmpfs", 0, NULL) == 0, "cover");
        fd = client_connect(kevd->socket);
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"create\"]}]}", root);
        surveyor = expect_helper("kevd-surveyor");
        assert_system(kill(surveyor, SIGSTOP) == 0, "SIGSTOP");
        make_file(at("%s/d/covered", other));
        expect_nothing(fd); /* by then it is asked */
        assert_system(kill(kevd->pid, SIGSTOP) == 0, "SIGSTOP");
        assert_system(kill(surveyor, SIGCONT) == 0, "SIGCONT");
        ck_assert(wait_until(is_asleep, &surveyor, HARNESS_REPLY_MSEC));
        assert_system(umount2(at("%s/d", root), 0) == 0, "uncover");
        assert_system(kill(kevd->pid, SIGCONT) == 0, "SIGCONT");
        while ((event = due_event(fd))) /* of the mount, and what was covered may be told */
                json_object_put(event);
        make_file(at("%s/d/seen", other));
        event = next_event(fd);
        ck_assert_str_eq(text_at(event, "/path"), at("%s/d/seen", root));
        json_object_put(event);
        (void)close(fd);
        assert_system(umount2(other, MNT_DETACH) == 0 && umount2(root, MNT_DETACH) == 0, root);
}
END_TEST

/* A watch of a directory that is passed. */
static void watch_passed(int fd, const char *path) {
        static const char change[] = "{\"method\":\"org.kevd.events.Change\",\"parameters\":"
                                     "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"descriptor\":0}]}}";
        int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct json_object *reply;

        assert_system(directory >= 0, path);
        client_send_with_fds(fd, change, sizeof(change), &directory, 1);
        (void)close(directory);
        reply = client_receive(fd, HARNESS_REPLY_MSEC);
        ck_assert_ptr_null(json_at(reply, "/parameters/refused/0"));
        json_object_put(reply);
}

/* The mount itself is covered as something in it is looked for, which is over before the answer is heard: a directory
 * that was passed from it is watched on, and nothing is lost. */
START_TEST(test_covered_for_a_moment) {
        const char *root, *other;
        struct json_object *event;
        pid_t surveyor;
        int fd;

        need_fanotify();
        root = make_root("w");
        other = make_root("other");
        assert_system(mount("tmpfs", root, "tmpfs", 0, NULL) == 0, root);
        make_dir(at("%s/d", root));
        assert_system(mount(root, other, NULL, MS_BIND, NULL) == 0, other);
        fd = client_connect(kevd->socket);
        watch_passed(fd, root);
        surveyor = expect_helper("kevd-surveyor");
        assert_system(kill(surveyor, SIGSTOP) == 0, "SIGSTOP");
        make_file(at("%s/d/file", other));
        expect_nothing(fd); /* by then it is asked */
        assert_system(kill(kevd->pid, SIGSTOP) == 0, "SIGSTOP");
        assert_system(mount("tmpfs", root, "tmpfs", 0, NULL) == 0, "cover");
        assert_system(kill(surveyor, SIGCONT) == 0, "SIGCONT");
        ck_assert(wait_until(is_asleep, &surveyor, HARNESS_REPLY_MSEC));
        assert_system(umount2(root, 0) == 0, "uncover");
        assert_system(kill(kevd->pid, SIGCONT) == 0, "SIGCONT");
        event = next_event(fd);
        ck_assert_msg(has_note(event, "create"), "%s", json_object_to_json_string(event));
        json_object_put(event);
        (void)close(fd);
        assert_system(umount2(other, MNT_DETACH) == 0 && umount2(root, MNT_DETACH) == 0, root);
}
END_TEST

/* The mount of a directory that was passed goes, or is covered: that watch ends, and others of the file system, which
 * goes on elsewhere, hear nothing of it. */
START_TEST(test_passed_of_lost_mount) {
        const char *root, *other;
        struct json_object *event;
        struct follower *f;
        int fd;

        harness_label(_i ? "covered" : "unmounted");
        need_fanotify();
        root = make_root("w");
        other = make_root("other");
        assert_system(mount("tmpfs", root, "tmpfs", 0, NULL) == 0, root);
        assert_system(mount(root, other, NULL, MS_BIND, NULL) == 0, other);
        f = follower_new(kevd, root, REPLAY_STRICT);
        make_dir(at("%s/d", root));
        fd = client_connect(kevd->socket);
        watch_passed(fd, at("%s/d", other));
        if (_i)
                assert_system(mount("tmpfs", other, "tmpfs", 0, NULL) == 0, other);
        else
                assert_system(umount2(other, MNT_DETACH) == 0, other);
        event = next_event(fd);
        ck_assert_msg(has_note(event, "gone") && has_flag(event, "eof"), "%s", json_object_to_json_string(event));
        json_object_put(event);
        make_tree(root, 3, 3);
        follower_check(f, "elsewhere");
        ck_assert_uint_eq(replay_n_rescans(f->replay), 0);
        follower_free(f);
        (void)close(fd);
        for (int i = 0; i < 2 * _i; i++)
                assert_system(umount2(other, MNT_DETACH) == 0, other);
        assert_system(umount2(root, MNT_DETACH) == 0, root);
}
END_TEST

/* A file system on two mounts. The second one goes, and whether the path of another user's watch there leads anywhere
 * can't be told for him: it stays, and nobody else hears of it. */
struct two_mounts {
        struct daemon *daemon;
        const char *root, *gate, *second;
        int fd; /* of the other user */
};

static struct two_mounts begin_on_two_mounts(void) {
        struct two_mounts m;

        need_fanotify();
        change_mode(harness_tempdir(), 0755);
        m.root = make_root("w");
        m.gate = make_root("gate");
        m.second = at("%s/second", m.gate);
        make_dir(m.second);
        assert_system(mount("tmpfs", m.root, "tmpfs", 0, NULL) == 0, m.root);
        assert_system(mount(m.root, m.second, NULL, MS_BIND, NULL) == 0, m.second);
        m.daemon = daemon_start("--mode=system", "--file-mechanism=fanotify");
        m.fd = client_connect_as(m.daemon->socket, OTHER_CLIENT);
        return m;
}

static void watch_second(const struct two_mounts *m) {
        client_change(m->fd, "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"}]}", m->second);
}

static void lose_second(const struct two_mounts *m) {
        change_mode(m->gate, 0700);
        assert_system(umount2(m->second, MNT_DETACH) == 0, m->second);
        (void)daemon_expect_repaired(m->daemon); /* it serves the call in a turn that has seen the mount */
}

static void end_on_two_mounts(const struct two_mounts *m) {
        (void)close(m->fd);
        daemon_stop(m->daemon);
        assert_system(umount2(m->root, MNT_DETACH) == 0, m->root);
}

/* What happens in a directory that was not known there before. */
START_TEST(test_unknown_on_lost_mount) {
        struct two_mounts m = begin_on_two_mounts();
        struct follower *f = follower_new(m.daemon, m.root, REPLAY_STRICT);
        const char *d = at("%s/d", m.root);

        make_dir(d);
        follower_check(f, "before");
        watch_second(&m);
        lose_second(&m);
        make_file(at("%s/a", d));
        follower_check(f, "made");
        move(at("%s/a", d), at("%s/b", d));
        follower_check(f, "renamed");
        follower_free(f);
        end_on_two_mounts(&m);
}
END_TEST

/* A name of which the events say too little, in one that was. */
START_TEST(test_merged_on_lost_mount) {
        struct two_mounts m = begin_on_two_mounts();
        struct follower *f;
        const char *a = at("%s/a", m.root), *b = at("%s/b", m.root);

        watch_second(&m);
        f = follower_new(m.daemon, m.root, REPLAY_STRICT);
        make_file(a);
        follower_check(f, "before");
        lose_second(&m);
        assert_system(kill(m.daemon->pid, SIGSTOP) == 0, "SIGSTOP");
        assert_system(link(a, b) == 0, "link");
        remove_file(b);
        assert_system(link(a, b) == 0, "link");
        assert_system(kill(m.daemon->pid, SIGCONT) == 0, "SIGCONT");
        follower_check(f, "merged");
        follower_free(f);
        end_on_two_mounts(&m);
}
END_TEST

/* The queue waits for where a directory is in a mount, and the last watch of that ends. */
START_TEST(test_view_goes_as_it_is_asked_for) {
        const char *root, *other, *d;
        struct json_object *reply;
        pid_t surveyor;
        int fd, second;

        need_fanotify();
        root = make_root("w");
        other = make_root("other");
        assert_system(mount("tmpfs", root, "tmpfs", 0, NULL) == 0, root);
        assert_system(mount(root, other, NULL, MS_BIND, NULL) == 0, other);
        fd = client_connect(kevd->socket);
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"create\"]}]}", root);
        d = at("%s/d", root);
        make_dir(d);
        json_object_put(next_event(fd));
        second = client_connect(kevd->socket);
        client_change(second, "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"}]}", other);
        surveyor = expect_helper("kevd-surveyor");
        assert_system(kill(surveyor, SIGSTOP) == 0, "SIGSTOP");
        client_send_message(fd, "{\"method\":\"org.kevd.events.Wait\"}");
        (void)daemon_expect_repaired(kevd); /* the Wait has begun */
        make_file(at("%s/file", d));
        (void)daemon_expect_repaired(kevd); /* the event is read */
        client_change(second, "{\"remove\":[1]}");
        reply = client_receive(fd, HARNESS_REPLY_MSEC);
        ck_assert_ptr_nonnull(reply);
        ck_assert_str_eq(text_at(reply, "/parameters/events/0/path"), at("%s/file", d));
        json_object_put(reply);
        assert_system(kill(surveyor, SIGCONT) == 0, "SIGCONT");
        (void)close(second);
        (void)close(fd);
        assert_system(umount2(other, MNT_DETACH) == 0 && umount2(root, MNT_DETACH) == 0, root);
}
END_TEST

/* ---- where it can't be had --------------------------------------------------------------------- */

START_TEST(test_second_choice) {
        const struct kev_event *event;
        struct daemon *system;
        struct kev *kev;
        struct kev_watch *watch;
        char *name;
        int64_t id;

        need_fanotify();
        system = daemon_start("--mode=system");
        ck_assert_int_eq(kev_open(at("unix:%s", system->socket), &kev), 0);
        watch = new_tree_watch("/proc/sys/kernel", 0);
        ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, &id), 0);
        ck_assert_int_eq(kev_get_mechanism(kev, id, &name), 0);
        ck_assert_str_eq(name, "inotify");
        free(name);
        ck_assert_int_eq(kev_wait(kev, HARNESS_REPLY_MSEC, &event), 1);
        ck_assert_uint_eq(kev_event_notes(event), KEV_NOTE_DEGRADED);
        ck_assert_str_eq(kev_event_path(event), "/proc/sys/kernel");
        kev_watch_free(watch);
        kev_close(kev);
        daemon_stop(system);
}
END_TEST

/* What neither can do is refused, late as that is found out, and the daemon lives on. */
START_TEST(test_no_choice) {
        static const uint64_t notes[] = { KEV_NOTE_WHO, KEV_NOTE_WHO, 0 };
        struct daemon *system;
        struct kev *kev;
        int64_t id;

        need_fanotify();
        system = daemon_start("--mode=system");
        ck_assert_int_eq(kev_open(at("unix:%s", system->socket), &kev), 0);
        for (size_t i = 0; i < ARRAY_SIZE(notes); i++) {
                struct kev_watch *watch = new_tree_watch("/proc/sys/kernel", notes[i]);

                ck_assert_int_eq(kev_watch_set_cross_mounts(watch, i == 1), 0);
                ck_assert_int_eq(kev_watch_set_exclude_self(watch, i == 2), 0);
                ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, &id), -EOPNOTSUPP);
                kev_watch_free(watch);
        }
        kev_close(kev);
        daemon_stop(system);
}
END_TEST

/* Whose events wait until it is known what he may see is told the end of a list behind it. */
START_TEST(test_list_of_other_user) {
        struct daemon *system;
        const char *root;
        int fd;

        need_fanotify();
        if (geteuid() != 0)
                harness_skip("to be another user takes root");
        system = daemon_start("--mode=system", "--file-mechanism=fanotify");
        ck_assert_int_eq(chmod(harness_tempdir(), 0755), 0);
        root = make_root("w");
        make_tree(root, 3, 2);
        for (int round = 0; round < harness_rounds(10); round++) {
                struct json_object *event = NULL;
                size_t n = 0;

                fd = client_connect_as(system->socket, OTHER_CLIENT);
                json_object_put(client_call(fd, "org.kevd.events.Change",
                                            at("{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\","
                                               "\"tree\":{\"list\":true}}]}", root)));
                for (bool listed = false; !listed; n++) {
                        event = next_event(fd);
                        listed = strcmp(text_at(event, "/notes/0"), "listed") == 0;
                        json_object_put(event);
                }
                ck_assert_uint_eq(n, 3 + 9 + 1 + 3 + 9 + 1); /* directories, files, the end */
                (void)close(fd);
        }
        daemon_stop(system);
}
END_TEST

/* ---- the program --------------------------------------------------------------------------------- */

int main(int argc, char **argv) {
        Suite *suite = harness_suite("fanotify");
        TCase *c = harness_case(suite, "told");

        tcase_add_checked_fixture(c, start, stop);
        tcase_add_test(c, test_mechanism);
        tcase_add_test(c, test_replace);
        tcase_add_test(c, test_who);
        tcase_add_test(c, test_exclude_self);
        c = harness_case(suite, "ends");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_test(c, test_surveyor_ends);
        tcase_add_test(c, test_surveyor_of_descriptor_ends);
        tcase_add_test(c, test_stand_in_ends);
        tcase_add_test(c, test_stand_in_is_not_to_be_had);
        c = harness_case(suite, "mounts");
        tcase_add_checked_fixture(c, start_among_private_mounts, stop);
        tcase_add_test(c, test_stand_in_ends_as_it_is_asked);
        tcase_add_test(c, test_surveyor_ends_as_a_check_waits);
        tcase_add_test(c, test_merged_on_moved_mount);
        tcase_add_test(c, test_uncovered_meanwhile);
        tcase_add_test(c, test_covered_for_a_moment);
        tcase_add_loop_test(c, test_passed_of_lost_mount, 0, 2);
        tcase_add_test(c, test_unknown_on_lost_mount);
        tcase_add_test(c, test_merged_on_lost_mount);
        tcase_add_test(c, test_view_goes_as_it_is_asked_for);
        c = harness_case(suite, "waits");
        tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, 60);
        tcase_add_loop_test(c, test_looks_become_rare, 0, 2);
        tcase_add_test(c, test_many_wait);
        tcase_add_test(c, test_many_of_another);
        c = harness_case(suite, "queue");
        tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, 60);
        tcase_add_test(c, test_overflow);
        tcase_add_test(c, test_more_than_is_read_ahead);
        tcase_add_test(c, test_merged_moves);
        c = harness_case(suite, "choice");
        tcase_add_test(c, test_second_choice);
        tcase_add_test(c, test_no_choice);
        tcase_add_test(c, test_list_of_other_user);
        return harness_main(argc, argv);
}
