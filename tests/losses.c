/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "losses.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <json-c/json.h>

#include "connect.h"
#include "files.h"
#include "kev.h"
#include "macro.h"
#include "replay.h"

enum { QUEUE_MAX = 1000 * 1000 }; /* of events: more take too long to make */

struct daemon *kevd;
static struct kev *noise; /* watches what fills the kernel's queue */

/* ---- the daemon -------------------------------------------------------------------------------- */

static void watch_noise(void) {
        const char *path = make_root("noise");
        struct kev_watch *watch = new_tree_watch(path, KEV_NOTE_GONE); /* the kernel is asked for all the same */

        make_file(at("%s/0", path));
        make_file(at("%s/1", path));
        ck_assert_int_eq(open_kev(kevd->socket, &noise), 0);
        ck_assert_int_eq(kev_add(noise, watch, NULL, NULL, NULL), 0);
        kev_watch_free(watch);
}

void start(void) {
        kevd = daemon_start(NULL);
        watch_noise();
}

void stop(void) {
        noise = kev_close(noise);
        daemon_stop(kevd);
}

static bool has_watches(void *userdata) {
        const size_t *n = userdata;

        return daemon_fdinfo_inotify_watches(kevd->pid) == *n;
}

void check_held(size_t n, const char *what) {
        n++;
        ck_assert_msg(wait_until(has_watches, &n, HARNESS_REPLY_MSEC), "%s: %zu inotify watches instead of %zu", what,
                      daemon_fdinfo_inotify_watches(kevd->pid), n);
}

/* ---- the loss ---------------------------------------------------------------------------------- */

size_t max_queued(void) {
        FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
        size_t n = 0;

        if (!file || fscanf(file, "%zu", &n) != 1)
                harness_skip("fs.inotify.max_queued_events can't be read");
        (void)fclose(file);
        if (n > QUEUE_MAX)
                harness_skip("fs.inotify.max_queued_events is too large to be reached");
        return n;
}

/* Every thread: workers go on watching otherwise. */
static bool is_stopped(void *userdata _unused_) {
        DIR *threads = opendir(at("/proc/%d/task", kevd->pid));
        struct dirent *thread;
        bool stopped = true;

        assert_system(threads, "/proc");
        while ((thread = readdir(threads))) {
                FILE *stat = thread->d_name[0] == '.' ? NULL :
                                                        fopen(at("/proc/%d/task/%s/stat", kevd->pid, thread->d_name), "re");
                char state = 0;

                if (!stat)
                        continue;
                stopped &= fscanf(stat, "%*d (%*[^)]) %c", &state) == 1 && state == 'T';
                (void)fclose(stat);
        }
        (void)closedir(threads);
        return stopped;
}

void stop_daemon(void) {
        assert_system(kill(kevd->pid, SIGSTOP) == 0, "kill");
        ck_assert_msg(wait_until(is_stopped, NULL, HARNESS_REPLY_MSEC), "the daemon does not stop");
}

void let_go_on(void) {
        assert_system(kill(kevd->pid, SIGCONT) == 0, "kill");
}

/* So many events of their own: the kernel merges only what is equal to the last. */
static void make_noise(size_t n) {
        const char *files[] = { at("%s/noise/0", harness_tempdir()), at("%s/noise/1", harness_tempdir()) };

        for (size_t i = 0; i < n; i++)
                assert_system(chmod(files[i % 2], 0600) == 0, files[i % 2]);
}

void fill_queue(size_t room) {
        stop_daemon();
        make_noise(max_queued() - room);
}

void begin_loss(void) {
        fill_queue(0);
        make_noise(2);
}

uint64_t count_overflows(void) {
        struct json_object *status, *found;
        uint64_t n;
        char *text;

        ck_assert_int_eq(kev_call(noise, "org.kevd.manager.GetStatus", NULL, &text), 0);
        status = json_tokener_parse(text);
        ck_assert_int_eq(json_pointer_get(status, "/counters/kernelOverflows", &found), 0);
        n = (uint64_t)json_object_get_int64(found);
        json_object_put(status);
        free(text);
        return n;
}
