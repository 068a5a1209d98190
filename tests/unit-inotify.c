/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* source/inotify as a deputy has it, with a root directory of the test's own, which can be closed to its user. */

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "harness.h"
#include "inotify.h"
#include "macro.h"
#include "mux.h"
#include "source.h"
#include "workers.h"

enum { USER = 64100 };

static struct mux *mux;
static struct source_context context;
static struct source *source;
static struct asker asker;

/* What the sink was told. */
static bool attached;
static uint64_t notes;

static void on_report(struct subscription *subscription _unused_, struct report *report) {
        notes |= report->notes;
}

static void on_attached(struct subscription *subscription _unused_, const struct refusal *refusal) {
        ck_assert_msg(!refusal, "%s", refusal ? refusal->message : "");
        attached = true;
}

static const struct sink sink = { .report = on_report, .attached = on_attached };

static void open_source(void) {
        ck_assert_int_eq(mux_open(NULL, &mux), 0);
        ck_assert_int_eq(workers_new(mux, &context.workers), 0);
        asker = (struct asker){ .uid = geteuid(), .gid = getegid() };
        context.mux = mux;
        context.sink = &sink;
        context.uid = geteuid();
        context.revokes = true;
        ck_assert_int_eq(source_inotify.open(&context, &source), 0);
        source->class = &source_inotify;
        source->context = &context;
}

static void close_source(void) {
        ck_assert(workers_free(context.workers));
        source_inotify.close(source);
        mux_close(mux);
}

/* Until it is told. */
static void wait_for(uint64_t note) {
        int64_t until = now_msec() + HARNESS_REPLY_MSEC;

        notes = 0;
        while (!(notes & note)) {
                ck_assert_int_lt(now_msec(), until);
                ck_assert_int_eq(mux_wait(mux, 100 * NSEC_PER_MSEC), 0);
        }
}

static void attach(struct subscription *subscription, const char *path) {
        struct subject subject = { .filter = KEV_FILTER_TREE, .notes = KEV_NOTE_CREATE, .path = path, .fd = -1,
                                   .pid = ABSENT, .data = ABSENT, .asker = &asker };
        int64_t until = now_msec() + HARNESS_REPLY_MSEC;
        struct refusal refusal;

        *subscription = (struct subscription){ .source = source, .notes = subject.notes };
        list_init(&subscription->link);
        ck_assert_int_eq(source_inotify.attach(source, subscription, &subject, &refusal), 1);
        source->n_subscriptions++;
        for (attached = false; !attached;) {
                ck_assert_int_lt(now_msec(), until);
                ck_assert_int_eq(mux_wait(mux, 100 * NSEC_PER_MSEC), 0);
        }
}

static void change_root(mode_t mode) {
        assert_system(seteuid(0) == 0, "seteuid");
        change_mode("/", mode);
        assert_system(seteuid(USER) == 0, "seteuid");
}

static void close_and_open_root(void) {
        const struct inotify *s;
        struct subscription first, second;

        open_source();
        s = container_of(source, const struct inotify, source);
        attach(&first, "/");
        change_root(0711);
        wait_for(KEV_NOTE_GONE);
        ck_assert_int_eq(mux_wait(mux, 0), 0); /* what was thrown away is freed */
        ck_assert_uint_eq(s->tree.n_dirs, 1);
        change_root(0755);
        attach(&second, "/");
        make_file("/w/file");
        wait_for(KEV_NOTE_CREATE);
        source_detach(&first);
        source_detach(&second);
        close_source();
}

/* The root directory is not to be read any more: its watch ends, and it can be watched again. */
START_TEST(root_is_closed) {
        const char *proc = at("%s/proc", harness_tempdir());
        pid_t pid;

        need_private_mounts();
        make_dir(proc);
        change_mode(make_root("w"), 0777);
        assert_system(mount("/proc", proc, NULL, MS_BIND, NULL) == 0, proc);
        assert_system(chmod(harness_tempdir(), 0755) == 0, "chmod");
        pid = fork_writer();
        if (pid == 0) {
                assert_system(chroot(harness_tempdir()) == 0 && chdir("/") == 0, "chroot");
                assert_system(setegid(USER) == 0 && seteuid(USER) == 0, "seteuid");
                close_and_open_root();
                _exit(0);
        }
        reap(pid);
        assert_system(umount2(proc, 0) == 0, proc);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("inotify"), "root");

        tcase_add_test(c, root_is_closed);
        return harness_main(argc, argv);
}
