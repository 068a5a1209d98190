/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * queue/: at its bound a queue merges events. None is lost or told twice, what a merged one says holds for all that it
 * stands for, and the bound holds, for the queue and for its user.
 */

#include <stdio.h>

#include "harness.h"
#include "macro.h"
#include "queue.h"
#include "queues.h"
#include "unit.h"

/* ---- single objects --------------------------------------------------------------------------------------- */

START_TEST(under_the_bound_nothing_is_merged) {
        struct watch *watch = add_user(1, "a", 0), *tree = add_tree(2);

        for (int64_t i = 0; i < 5000; i++) {
                report(watch, KEV_NOTE_TRIGGER, i);
                report_file(tree, i % 2 ? KEV_NOTE_CREATE : KEV_NOTE_DELETE, "x");
        }
        ck_assert_uint_le(queue.bytes, queue.bytes_max);
        for (int64_t i = 0; i < 5000; i++) {
                struct event *event;

                expect_user(1, i, 1);
                event = take();
                ck_assert_uint_eq(event->notes, i % 2 ? KEV_NOTE_CREATE : KEV_NOTE_DELETE);
                ck_assert_uint_eq(event->count, 1);
                event_unref(event);
        }
        expect_none();
        ck_assert_uint_eq(queue.merged, 0);
}
END_TEST

START_TEST(single_objects_are_merged) {
        struct watch *watch = add_user(1, "a", 0);
        struct event *event;
        uint64_t sum = 0, last_time = 0;
        int64_t newest = -1;

        queue.bytes_max = 8192;
        for (int64_t i = 0; i < 10000; i++) {
                report(watch, KEV_NOTE_TRIGGER, i);
                ck_assert_uint_le(queue.bytes, queue.bytes_max + 4096);
        }
        while ((event = take())) {
                if (sum == 0)
                        ck_assert_uint_eq(event->realtime_usec, 1);
                /* In order, and each with the newest data of those it stands for. */
                ck_assert_uint_eq(event->realtime_usec, sum + 1);
                ck_assert_uint_gt(event->realtime_usec, last_time);
                last_time = event->realtime_usec;
                sum += event->count;
                newest = event->data;
                ck_assert_int_eq(newest, (int64_t)sum - 1);
                event_unref(event);
        }
        ck_assert_uint_eq(sum, 10000);
        ck_assert_int_eq(newest, 9999);
}
END_TEST

/* Notes are or'ed: of a timer, say, which has several. */
START_TEST(single_objects_or_their_notes) {
        struct watch *watch = add_user(1, "a", KEV_FLAG_ONESHOT);
        struct event *event;

        watch->subscription.notes = UINT64_MAX;
        report(watch, KEV_NOTE_TRIGGER, 1);
        report(watch, KEV_NOTE_MTU, 2);
        report(watch, KEV_NOTE_ADDRESS | KEV_NOTE_MTU, 3);
        event = take();
        ck_assert_uint_eq(event->notes, KEV_NOTE_TRIGGER | KEV_NOTE_MTU | KEV_NOTE_ADDRESS);
        ck_assert_int_eq(event->data, 3);
        ck_assert_uint_eq(event->count, 3);
        event_unref(event);
}
END_TEST

enum { MANY = 50 };

/* Many watches, some disabled, random takes: no event is lost or told twice, the order of each
 * watch holds, and the bound. */
static void many_singles(uint64_t seed, size_t bytes_max) {
        struct watch *watches[MANY];
        uint64_t pushed[MANY] = { 0 }, taken[MANY] = { 0 };
        struct random r = { seed };
        struct event *event;
        size_t charge;

        for (int64_t i = 0; i < MANY; i++)
                watches[i] = add_user(i, "n", 0);
        report(watches[0], KEV_NOTE_TRIGGER, INT64_MAX);
        charge = queue.bytes + 256;
        event_unref(take());
        queue.bytes_max = bytes_max;
        for (unsigned step = 0; step < 50000; step++) {
                size_t i = random_once_in(&r, 2) ? random_below(&r, MANY) : random_below(&r, 3);

                if (random_once_in(&r, 20))
                        enable((int64_t)i, random_once_in(&r, 2));
                else if (random_once_in(&r, 4)) {
                        event = take();
                        if (!event)
                                continue;
                        taken[event->id] += event->count;
                        ck_assert_int_eq(event->data, (int64_t)taken[event->id]);
                        event_unref(event);
                } else
                        report(watches[i], KEV_NOTE_TRIGGER, (int64_t)++pushed[i]);
                assert_often(queue.bytes <= bytes_max + MANY * charge, "%zu bytes are held", queue.bytes);
                assert_often(account->used[RESOURCE_QUEUE_BYTES] == queue.bytes, "%zu bytes are charged, %zu are held",
                             (size_t)account->used[RESOURCE_QUEUE_BYTES], queue.bytes);
        }
        for (int64_t i = 0; i < MANY; i++)
                enable(i, true);
        while ((event = take())) {
                taken[event->id] += event->count;
                ck_assert_int_eq(event->data, (int64_t)taken[event->id]);
                event_unref(event);
        }
        for (size_t i = 0; i < MANY; i++) {
                ck_assert_uint_eq(taken[i], pushed[i]);
                remove_watch((int64_t)i);
        }
}

START_TEST(many_single_objects) {
        many_singles(61, 8192);
        many_singles(62, 0);
        many_singles(63, 100000);
}
END_TEST

/* An exit is never merged. */
START_TEST(processes_are_not_merged) {
        struct watch_spec spec;
        struct refusal refusal;
        struct watch *watch;
        int r;

        watch_spec_init(&spec, KEV_FILTER_PROC);
        spec.id = 1;
        spec.pid = getpid();
        r = queue_add(&queue, &spec, -1, &refusal);
        ck_assert_msg(r >= 0, "%s", refusal.message);
        watch = queue_find(&queue, 1);
        queue.bytes_max = 4096;
        for (int64_t i = 0; i < 500; i++)
                report(watch, KEV_NOTE_EXIT, i);
        for (int64_t i = 0; i < 500; i++) {
                struct event *event = take();

                ck_assert_int_eq(event->data, i);
                ck_assert_uint_eq(event->count, 1);
                event_unref(event);
        }
        expect_none();
}
END_TEST

/* What one connection of a user holds leaves less to the others, and is given back. */
START_TEST(the_user_has_a_bound_too) {
        struct queue other;
        struct watch *watch;
        uint64_t sum = 0;

        watch = add_user(1, "a", 0);
        accounts.limits.values[RESOURCE_QUEUE_BYTES] = 100000;
        for (int64_t i = 0; i < 2000; i++)
                report(watch, KEV_NOTE_TRIGGER, i);
        ck_assert_uint_le(account->used[RESOURCE_QUEUE_BYTES], 100000 + 1024);
        ck_assert_uint_gt(queue.merged, 0);
        account_charge_anyway(account, RESOURCE_QUEUE_BYTES, 200000);
        queue_init(&other, &context, &listener, account, &asker, 16 * MIB);
        for (int64_t i = 0; i < 100; i++)
                report(watch, KEV_NOTE_TRIGGER, i);
        ck_assert_uint_eq(queue.n_entries, 1);
        sum = take_all_counts();
        ck_assert_uint_eq(sum, 2100);
        account_return(account, RESOURCE_QUEUE_BYTES, 200000);
        queue_close(&other);
        ck_assert_uint_eq(account->used[RESOURCE_QUEUE_BYTES], 0);
}
END_TEST

/* ---- trees ------------------------------------------------------------------------------------------------- */

/* Bytes that one event of this test takes. */
static size_t charge_of(struct watch *watch, const char *path) {
        size_t before = queue.bytes, bytes;

        report_file(watch, KEV_NOTE_CREATE | KEV_NOTE_WRITE, path);
        bytes = queue.bytes - before;
        (void)take_all_counts();
        return bytes;
}

/* Fills the queue until it is merged, with events of one other path. */
static void fill_until_merged(struct watch *watch) {
        uint64_t before = queue.merged;

        for (unsigned i = 0; queue.merged == before; i++) {
                ck_assert_uint_lt(i, 100000);
                report_file(watch, KEV_NOTE_WRITE, "filler");
        }
}

static uint64_t notes_of(const char *path) {
        struct event *event;
        uint64_t notes = 0;
        unsigned n = 0;

        while ((event = take())) {
                ck_assert_msg(!(event->notes & KEV_NOTE_RESCAN), "rescan of %s", event->path.bytes);
                if (strcmp(path_in_watch(event), path) == 0) {
                        notes = event->notes;
                        n++;
                }
                event_unref(event);
        }
        ck_assert_uint_eq(n, 1);
        return notes;
}

START_TEST(trees_are_merged_by_path) {
        static const struct {
                uint64_t in[6], out;
        } cases[] = {
                { { KEV_NOTE_CREATE, KEV_NOTE_WRITE }, KEV_NOTE_CREATE | KEV_NOTE_WRITE },
                { { KEV_NOTE_CREATE, KEV_NOTE_DELETE }, KEV_NOTE_DELETE },
                { { KEV_NOTE_DELETE, KEV_NOTE_CREATE }, KEV_NOTE_DELETE | KEV_NOTE_CREATE },
                { { KEV_NOTE_DELETE, KEV_NOTE_CREATE, KEV_NOTE_DELETE }, KEV_NOTE_DELETE },
                { { KEV_NOTE_CREATE, KEV_NOTE_DELETE, KEV_NOTE_CREATE }, KEV_NOTE_DELETE | KEV_NOTE_CREATE },
                { { KEV_NOTE_WRITE, KEV_NOTE_CLOSEWRITE, KEV_NOTE_ATTRIB, KEV_NOTE_WRITE },
                  KEV_NOTE_WRITE | KEV_NOTE_CLOSEWRITE | KEV_NOTE_ATTRIB },
        };
        struct watch *watch = add_tree(1);

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                uint64_t notes;

                queue.bytes_max = 16384;
                for (size_t j = 0; j < 6 && cases[i].in[j]; j++)
                        report_file(watch, cases[i].in[j], "x");
                fill_until_merged(watch);
                notes = notes_of("x");
                if (cases[i].out == KEV_NOTE_DELETE) /* what was before it was gone is of no use, but does no harm */
                        notes &= ~(KEV_NOTE_WRITE | KEV_NOTE_CLOSEWRITE);
                ck_assert_msg(notes == cases[i].out, "case %zu: 0x%llx", i, (unsigned long long)notes);
        }
}
END_TEST

/* The first's time, all counts; and events of other paths stay by themselves. */
START_TEST(merged_paths_add_up) {
        struct watch *watch = add_tree(1);
        struct event *event;
        uint64_t sum = 0, pushed = 0;
        char path[32];

        queue.bytes_max = 40 * charge_of(watch, "x00");
        now_usec = 0;
        for (unsigned i = 0; i < 2000; i++) {
                (void)snprintf(path, sizeof(path), "x%02u", i % 10);
                report_file(watch, KEV_NOTE_WRITE, path);
                pushed++;
        }
        for (unsigned i = 0; (event = take()); i++) {
                ck_assert_uint_eq(event->notes, KEV_NOTE_WRITE);
                if (i < 10) {
                        (void)snprintf(path, sizeof(path), "x%02u", i);
                        ck_assert_str_eq(path_in_watch(event), path);
                        ck_assert_uint_eq(event->realtime_usec, i + 1);
                }
                sum += event->count;
                event_unref(event);
        }
        ck_assert_uint_eq(sum, pushed);
        ck_assert_uint_eq(context.figures[FIGURE_RESCANS], 0);
}
END_TEST

/* Too many paths: a rescan, of the smallest directory that covers them. */
START_TEST(rescans_are_small) {
        struct watch *watch = add_tree(1);
        struct event *event;
        uint64_t sum = 0;
        char path[64];

        queue.bytes_max = 100 * charge_of(watch, "a/b/c/file00000");
        for (unsigned i = 0; i < 5000; i++) {
                (void)snprintf(path, sizeof(path), "a/b/c/file%05u", i);
                report_file(watch, KEV_NOTE_CREATE, path);
        }
        while ((event = take())) {
                ck_assert_uint_eq(event->notes, KEV_NOTE_RESCAN);
                ck_assert_str_eq(path_in_watch(event), "a/b/c");
                ck_assert_int_eq((int)event->kind, KEV_KIND_DIRECTORY);
                sum += event->count;
                event_unref(event);
        }
        ck_assert_uint_eq(sum, 5000);
}
END_TEST

/* The user's bound is that of each queue's trees, too: one that is far below its own gives half of what it has. */
START_TEST(trees_of_a_user_are_bounded) {
        enum { TREES = 50, BOUND = 500000, N = 20000 };
        struct watch *watches[TREES];
        char path[64];

        for (int64_t i = 0; i < TREES; i++)
                watches[i] = add_tree(i);
        accounts.limits.values[RESOURCE_QUEUE_BYTES] = BOUND;
        for (unsigned i = 0; i < N; i++) {
                (void)snprintf(path, sizeof(path), "%u/%u/file%u", i % 7, i % 100, i);
                report_file(watches[i % TREES], KEV_NOTE_CREATE, path);
                ck_assert_uint_le(account->used[RESOURCE_QUEUE_BYTES], BOUND + (size_t)TREES * 1024);
        }
        ck_assert_uint_gt(context.figures[FIGURE_RESCANS], 0);
        ck_assert_uint_eq(take_all_counts(), N);
}
END_TEST

/* Of many trees those that hold little are left as they are, as far as that goes. */
START_TEST(many_trees_are_folded) {
        enum { TREES = 4000, SMALL = 100 };
        struct event *event;
        unsigned n_small = 0;
        char path[64];

        accounts.limits.values[RESOURCE_WATCHES] = TREES;
        for (int64_t i = 0; i < TREES; i++)
                (void)add_tree(i);
        for (int64_t i = 0; i < SMALL; i++)
                report_file(queue_find(&queue, i), KEV_NOTE_CREATE, "one");
        queue.bytes_max = 2 * MIB;
        for (unsigned k = 0; k < 10; k++)
                for (int64_t i = SMALL; i < TREES; i++) {
                        (void)snprintf(path, sizeof(path), "%u/file", k);
                        report_file(queue_find(&queue, i), KEV_NOTE_CREATE, path);
                        ck_assert_uint_le(queue.bytes, 2 * MIB + (size_t)TREES * 1024);
                }
        while ((event = take())) {
                if (event->id < SMALL) {
                        ck_assert_str_eq(path_in_watch(event), "one");
                        n_small++;
                }
                event_unref(event);
        }
        ck_assert_uint_eq(n_small, SMALL);
}
END_TEST

/* Watches go, and their table with them, while what is to be folded is looked for among them. */
START_TEST(watches_go_meanwhile) {
        enum { USERS = 4096, KEPT = 10, N = 200 };
        struct watch *tree = add_tree(0);
        char text[32];

        accounts.limits.values[RESOURCE_WATCHES] = USERS + 2;
        for (int64_t i = 1; i <= USERS; i++) {
                (void)snprintf(text, sizeof(text), "%d", (int)i);
                (void)add_user(i, text, 0);
        }
        queue.bytes_max = 20 * charge_of(tree, "a/file00");
        for (unsigned i = 0; i < N; i++) {
                (void)snprintf(text, sizeof(text), "d%u/file", i);
                report_file(tree, KEV_NOTE_CREATE, text);
                if (!queue.compaction.is_under_way || queue.watches.n_nodes < USERS)
                        continue;
                for (int64_t k = KEPT; k <= USERS; k++)
                        remove_watch(k);
                (void)add_user(USERS, "last", 0);
                ck_assert_uint_lt(queue.watches.n_buckets, USERS);
        }
        ck_assert_uint_eq(queue.watches.n_nodes, KEPT + 1);
        ck_assert_uint_eq(take_all_counts(), N);
}
END_TEST

/* As deep as paths can be. */
START_TEST(deep_trees_are_folded) {
        enum { CHAINS = 65, LEVELS = 1900, N = 5000 };
        struct watch *watch = add_tree(1);
        char path[2 * LEVELS + 64];
        struct event *event;
        uint64_t sum = 0;

        queue.bytes_max = MIB;
        for (unsigned i = 0; i < N; i++) {
                char *at = path + snprintf(path, sizeof(path), "c%u", i % CHAINS);

                for (unsigned k = 0; k < LEVELS - i % 50; k++)
                        at = stpcpy(at, "/a");
                (void)snprintf(at, 32, "/%u", i);
                report_file(watch, KEV_NOTE_CREATE, path);
        }
        while ((event = take())) {
                sum += event->count;
                event_unref(event);
        }
        ck_assert_uint_eq(sum, N);
}
END_TEST

/* What is told are the smallest directories that cover it: those next to each other are put together first. */
START_TEST(rescans_are_next_to_what_they_cover) {
        enum { NEAR = 150, FAR = 40 };
        struct watch *watch = add_tree(1);
        struct event *event;
        unsigned n_far = 0, n_near = 0;
        char path[64];

        queue.bytes_max = 200 * charge_of(watch, "near/d00/file");
        for (unsigned i = 0; i < NEAR; i++) {
                (void)snprintf(path, sizeof(path), "near/with/d%u/file", i);
                report_file(watch, KEV_NOTE_CREATE, path);
        }
        for (unsigned i = 0; i < 4 * FAR; i++) {
                (void)snprintf(path, sizeof(path), "far%u/file%u", i % FAR, i);
                report_file(watch, KEV_NOTE_CREATE, path);
        }
        while ((event = take())) {
                const char *name = path_in_watch(event);

                if (event->notes & KEV_NOTE_RESCAN) {
                        n_near += strncmp(name, "near", 4) == 0;
                        n_far += strncmp(name, "far", 3) == 0;
                        ck_assert_str_ne(name, "");
                }
                event_unref(event);
        }
        ck_assert_uint_ge(n_near, 1);
        ck_assert_uint_eq(n_far, FAR);
}
END_TEST

/* "realtimeUsec is the time of the first of them." */
START_TEST(rescans_have_the_first_time) {
        struct watch *watch = add_tree(1);
        struct event *event;
        uint64_t earliest = UINT64_MAX;
        char path[64];

        queue.bytes_max = 20 * charge_of(watch, "deep/er/file00000");
        now_usec = 100;
        for (unsigned i = 0; i < 200; i++) {
                (void)snprintf(path, sizeof(path), i < 10 ? "deep/er/file%05u" : "file%05u", i);
                report_file(watch, KEV_NOTE_CREATE, path);
        }
        while ((event = take())) {
                earliest = MIN(earliest, event->realtime_usec);
                event_unref(event);
        }
        ck_assert_uint_eq(earliest, 101);
}
END_TEST

/* Counts add up, the bound holds, and all is given back. */
static void random_trees(uint64_t seed, size_t n_watches, size_t bytes_max, unsigned steps) {
        struct watch *watches[100];
        struct random r = { seed };
        uint64_t pushed = 0, taken = 0;
        size_t charge = 0;

        for (size_t i = 0; i < n_watches; i++)
                watches[i] = add_tree((int64_t)i);
        charge = charge_of(watches[0], "name10/name10/name10/name10/name10") + 256;
        queue.bytes_max = bytes_max;
        for (unsigned step = 0; step < steps; step++) {
                struct event *event;

                random_report(&r, watches[random_below(&r, n_watches)], 20, 5);
                pushed++;
                assert_often(queue.bytes <= bytes_max + n_watches * charge,
                             "seed %llu: %zu bytes are held after %u events; the bound is %zu, for %zu watches with events "
                             "of %zu bytes",
                             (unsigned long long)seed, queue.bytes, step, bytes_max, n_watches, charge);
                assert_often(account->used[RESOURCE_QUEUE_BYTES] == queue.bytes, "%zu bytes are charged, %zu are held",
                             (size_t)account->used[RESOURCE_QUEUE_BYTES], queue.bytes);
                if (!random_once_in(&r, 20) || !(event = take()))
                        continue;
                taken += event->count;
                event_unref(event);
        }
        taken += take_all_counts();
        ck_assert_uint_eq(taken, pushed);
        ck_assert_uint_eq(queue.bytes, 0);
        ck_assert_uint_eq(queue.n_entries, 0);
}

START_TEST(random_tree) {
        random_trees(71, 1, 64 * 1024, 100000);
}
END_TEST

/* The bound is less than the rescans of one watch may take. */
START_TEST(random_tree_small_bound) {
        random_trees(72, 1, 4096, 30000);
}
END_TEST

START_TEST(random_trees_of_one_queue) {
        random_trees(73, 50, 256 * 1024, 100000);
}
END_TEST

/* Single objects and trees side by side. */
START_TEST(a_tree_does_not_cost_others) {
        struct watch *tree = add_tree(1), *user = add_user(2, "a", 0);
        struct random r = { 74 };
        struct event *event;
        uint64_t sums[3] = { 0 };

        queue.bytes_max = 64 * 1024;
        for (int64_t i = 0; i < 20000; i++) {
                random_report(&r, tree, 10, 4);
                if (i % 10 == 0)
                        report(user, KEV_NOTE_TRIGGER, i);
        }
        while ((event = take())) {
                sums[event->id] += event->count;
                if (event->id == 2)
                        ck_assert_int_eq(event->data, ((int64_t)sums[2] - 1) * 10);
                event_unref(event);
        }
        ck_assert_uint_eq(sums[1], 20000);
        ck_assert_uint_eq(sums[2], 2000);
}
END_TEST

/* Disabled: it is kept, merged, and released. */
START_TEST(a_disabled_tree_at_the_bound) {
        struct watch *tree = add_tree(1);
        struct random r = { 75 };

        queue.bytes_max = 64 * 1024;
        enable(1, false);
        for (unsigned i = 0; i < 20000; i++)
                random_report(&r, tree, 10, 4);
        expect_none();
        ck_assert_uint_eq(n_ready, 0);
        ck_assert_uint_gt(queue.n_entries, 0);
        enable(1, true);
        ck_assert_uint_eq(n_ready, 1);
        ck_assert_uint_eq(take_all_counts(), 20000);
        /* Removed with its rescans. */
        for (unsigned i = 0; i < 20000; i++)
                random_report(&r, tree, 10, 4);
        remove_watch(1);
        expect_none();
        ck_assert_uint_eq(queue.bytes, 0);
}
END_TEST

/* Told, whatever happens. */
START_TEST(gone_and_listed_are_kept) {
        struct watch *tree = add_tree(1);
        struct random r = { 76 };
        struct event *event;
        uint64_t listed = 0, gone = 0;
        unsigned n_listed = 0;

        queue.bytes_max = 32 * 1024;
        for (unsigned i = 0; i < 5000; i++) {
                random_report(&r, tree, 10, 4);
                if (i % 1000 == 500)
                        report_path(tree, i % 2000 == 500 ? KEV_NOTE_LISTED : KEV_NOTE_GONE, KEV_KIND_DIRECTORY, "", NULL);
        }
        while ((event = take())) {
                listed += event->notes & KEV_NOTE_LISTED ? event->count : 0;
                gone += event->notes & KEV_NOTE_GONE ? event->count : 0;
                n_listed += (event->notes & KEV_NOTE_LISTED) != 0;
                event_unref(event);
        }
        ck_assert_uint_eq(n_listed, 3);
        ck_assert_uint_eq(listed, 3);
        ck_assert_uint_eq(gone, 2);
}
END_TEST

/* Over and over: of each the last is told, in their order. */
START_TEST(trees_that_go_and_come) {
        enum { TREES = 20, ROUNDS = 2000 };
        struct watch *trees[TREES];
        struct random r = { 77 };
        uint64_t pushed = 0, taken = 0, last[TREES] = { 0 };
        bool is_gone[TREES] = { false };
        struct event *event;

        for (size_t i = 0; i < TREES; i++)
                trees[i] = add_tree((int64_t)i);
        queue.bytes_max = 32 * 1024;
        for (unsigned i = 0; i < ROUNDS * TREES; i++) {
                size_t k = random_below(&r, TREES);

                is_gone[k] = !is_gone[k];
                report_path(trees[k], is_gone[k] ? KEV_NOTE_GONE : KEV_NOTE_BACK | KEV_NOTE_RESCAN, KEV_KIND_DIRECTORY, "",
                            NULL);
                pushed++;
                if (!is_gone[k] && random_once_in(&r, 3)) {
                        random_report(&r, trees[k], 10, 4);
                        pushed++;
                }
                assert_often(queue.bytes <= queue.bytes_max + (size_t)TREES * 3 * 512, "%zu bytes are held", queue.bytes);
        }
        while ((event = take())) {
                if (event->notes & (KEV_NOTE_GONE | KEV_NOTE_BACK))
                        last[event->id] = event->notes;
                taken += event->count;
                event_unref(event);
        }
        ck_assert_uint_eq(taken, pushed);
        for (size_t i = 0; i < TREES; i++)
                ck_assert_uint_eq(last[i] & KEV_NOTE_GONE ? 1 : 0, is_gone[i]);
}
END_TEST

/* Directories moved in all places, one rescan for each: they do not become many. */
START_TEST(rescans_stay_few) {
        struct watch *tree = add_tree(1);
        char path[32], from[32];

        queue.bytes_max = 4096;
        for (unsigned i = 0; i < 50; i++) { /* until it is folded */
                (void)snprintf(path, sizeof(path), "other/%u", i);
                report_path(tree, KEV_NOTE_WRITE, KEV_KIND_FILE, path, NULL);
        }
        ck_assert(tree->folded && tree->folded->n_nodes > 0);
        queue.bytes_max = 64 * 1024 * 1024;
        for (unsigned i = 0; i < 20000; i++) {
                (void)snprintf(from, sizeof(from), "d%u/a", i);
                (void)snprintf(path, sizeof(path), "d%u/b", i);
                report_path(tree, KEV_NOTE_RENAME, KEV_KIND_DIRECTORY, path, from);
                ck_assert_uint_le(tree->folded->n_nodes, 1024);
        }
        ck_assert_uint_eq(take_all_counts(), 20050);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_queue_case(harness_suite("queue-bound"), "bound");

        tcase_add_test(c, under_the_bound_nothing_is_merged);
        tcase_add_test(c, single_objects_are_merged);
        tcase_add_test(c, single_objects_or_their_notes);
        tcase_add_test(c, many_single_objects);
        tcase_add_test(c, processes_are_not_merged);
        tcase_add_test(c, the_user_has_a_bound_too);
        tcase_add_test(c, trees_are_merged_by_path);
        tcase_add_test(c, merged_paths_add_up);
        tcase_add_test(c, rescans_are_small);
        tcase_add_test(c, trees_of_a_user_are_bounded);
        tcase_add_test(c, many_trees_are_folded);
        tcase_add_test(c, watches_go_meanwhile);
        tcase_add_test(c, deep_trees_are_folded);
        tcase_add_test(c, rescans_are_next_to_what_they_cover);
        tcase_add_test(c, rescans_have_the_first_time);
        tcase_add_test(c, random_tree);
        tcase_add_test(c, random_tree_small_bound);
        tcase_add_test(c, random_trees_of_one_queue);
        tcase_add_test(c, a_tree_does_not_cost_others);
        tcase_add_test(c, a_disabled_tree_at_the_bound);
        tcase_add_test(c, gone_and_listed_are_kept);
        tcase_add_test(c, trees_that_go_and_come);
        tcase_add_test(c, rescans_stay_few);
        return harness_main(argc, argv);
}
