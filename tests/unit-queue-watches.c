/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * queue/: watches, from when they are made until they are removed. What each is told, and in which order, by its flags
 * and its options; what is refused; what a user is charged for them.
 */

#include <stdio.h>

#include "harness.h"
#include "macro.h"
#include "queue.h"
#include "queues.h"
#include "unit.h"

static uint64_t trigger(const char *name, int64_t data) {
        return user_trigger(&sources, asker.uid, name, data);
}

/* ---- order, flags -------------------------------------------------------------------------------------- */

START_TEST(order_and_seq) {
        add_user(5, "a", 0);
        add_user(0, "b", 0);
        add_user(INT64_MAX, "a", 0);
        ck_assert_uint_eq(trigger("a", 1), 2);
        ck_assert_uint_eq(trigger("b", 2), 1);
        ck_assert_uint_eq(trigger("c", 9), 0);
        ck_assert_uint_eq(user_trigger(&sources, asker.uid + 1, "a", 9), 0);
        ck_assert_uint_eq(trigger("a", ABSENT), 2);
        ck_assert_uint_eq(queue.n_entries, 5);
        expect_user(5, 1, 1);
        expect_user(INT64_MAX, 1, 1);
        expect_user(0, 2, 1);
        trigger("b", 3);
        expect_user(5, ABSENT, 1);
        expect_user(INT64_MAX, ABSENT, 1);
        expect_user(0, 3, 1);
        expect_none();
        ck_assert_uint_eq(queue.delivered, 6);
        ck_assert_uint_eq(queue.merged, 0);
}
END_TEST

START_TEST(ready_is_told_when_there_was_none) {
        add_user(1, "a", 0);
        add_user(2, "b", KEV_FLAG_DISABLED);
        trigger("a", 1);
        ck_assert_uint_eq(n_ready, 1);
        trigger("a", 2);
        trigger("b", 1);
        ck_assert_uint_eq(n_ready, 1);
        expect_user(1, 1, 1);
        trigger("a", 3);
        ck_assert_uint_eq(n_ready, 1);
        ck_assert_uint_eq(take_all_counts(), 2);
        enable(2, true);
        ck_assert_uint_eq(n_ready, 2);
        expect_user(2, 1, 1);
        trigger("a", 4);
        ck_assert_uint_eq(n_ready, 3);
        expect_user(1, 4, 1);
}
END_TEST

/* One event, that takes up what follows, and the watch is gone with it. */
START_TEST(oneshot) {
        struct event *event;

        report(add_user(1, "a", KEV_FLAG_ONESHOT), KEV_NOTE_TRIGGER, 10);
        report(queue_find(&queue, 1), KEV_NOTE_TRIGGER, 11);
        report(queue_find(&queue, 1), KEV_NOTE_TRIGGER, 12);
        event = take();
        ck_assert_int_eq(event->data, 12);
        ck_assert_uint_eq(event->count, 3);
        ck_assert_uint_eq(event->realtime_usec, 1);
        event_unref(event);
        expect_none();
        ck_assert_ptr_null(queue_find(&queue, 1));
        ck_assert_uint_eq(account->used[RESOURCE_WATCHES], 0);
        ck_assert_uint_eq(trigger("a", 13), 0);
        add_user(1, "a", 0);
        trigger("a", 14);
        expect_user(1, 14, 1);
}
END_TEST

START_TEST(oneshot_of_a_tree) {
        struct watch_spec spec;
        struct watch *watch;
        struct event *event;

        watch_spec_init(&spec, KEV_FILTER_TREE);
        spec.flags = KEV_FLAG_ONESHOT;
        watch = add_tree_with(&spec, harness_tempdir(), 1);
        report_file(watch, KEV_NOTE_CREATE, "a");
        report_file(watch, KEV_NOTE_CREATE, "b");
        event = take();
        ck_assert_str_eq(path_in_watch(event), "a");
        event_unref(event);
        expect_none();
        ck_assert_ptr_null(queue_find(&queue, 1));
}
END_TEST

START_TEST(dispatch) {
        add_user(1, "a", KEV_FLAG_DISPATCH);
        add_user(2, "b", 0);
        trigger("a", 1);
        trigger("b", 1);
        trigger("a", 2);
        expect_user(1, 1, 1);
        expect_user(2, 1, 1);
        expect_none();
        trigger("a", 3);
        expect_none();
        enable(1, true);
        expect_user(1, 2, 1);
        expect_none();
        enable(1, true);
        expect_user(1, 3, 1);
        expect_none();
        enable(1, true);
        expect_none();
        trigger("a", 4);
        expect_user(1, 4, 1);
}
END_TEST

START_TEST(disabled_accumulates) {
        add_user(1, "a", KEV_FLAG_DISABLED);
        add_user(2, "b", 0);
        for (int64_t i = 0; i < 10; i++) {
                trigger("a", i);
                trigger("b", 100 + i);
        }
        for (int64_t i = 0; i < 5; i++)
                expect_user(2, 100 + i, 1);
        enable(1, true);
        enable(1, true);
        /* Behind those that were to be taken already, in their own order. */
        for (int64_t i = 5; i < 10; i++)
                expect_user(2, 100 + i, 1);
        for (int64_t i = 0; i < 4; i++)
                expect_user(1, i, 1);
        enable(1, false);
        enable(1, false);
        expect_none();
        trigger("a", 10);
        enable(1, true);
        for (int64_t i = 4; i <= 10; i++)
                expect_user(1, i, 1);
        expect_none();
}
END_TEST

START_TEST(remove_drops) {
        add_user(1, "a", 0);
        add_user(2, "b", 0);
        add_user(3, "b", KEV_FLAG_DISABLED);
        trigger("a", 1);
        trigger("b", 1);
        trigger("a", 2);
        remove_watch(1);
        remove_watch(3);
        ck_assert_uint_eq(trigger("a", 3), 0);
        expect_user(2, 1, 1);
        expect_none();
        ck_assert_uint_eq(account->used[RESOURCE_QUEUE_BYTES], 0);
        ck_assert_uint_eq(account->used[RESOURCE_WATCHES], 1);
        /* The number may be used again; what was before isn't seen. */
        add_user(1, "a", 0);
        expect_none();
}
END_TEST

/* Random operations against lists of numbers. */
enum { MODEL_WATCHES = 12, MODEL_EVENTS = 4096 };

struct model_watch {
        bool there, disabled;
        uint32_t flags;
        char name[8];
};

struct model_event {
        int64_t id, data;
};

static struct model_watch model_watches[MODEL_WATCHES];
static struct model_event model_pending[MODEL_EVENTS];
static size_t n_model_pending;

static void model_drop(int64_t id) {
        size_t n = 0;

        for (size_t i = 0; i < n_model_pending; i++)
                if (model_pending[i].id != id)
                        model_pending[n++] = model_pending[i];
        n_model_pending = n;
}

/* To the end, as enabling does. */
static void model_append_again(int64_t id) {
        static struct model_event own[MODEL_EVENTS];
        size_t n = 0;

        for (size_t i = 0; i < n_model_pending; i++)
                if (model_pending[i].id == id)
                        own[n++] = model_pending[i];
        model_drop(id);
        memcpy(&model_pending[n_model_pending], own, n * sizeof(own[0]));
        n_model_pending += n;
}

static void model_take(void) {
        size_t i = 0;
        struct model_watch *w;
        int64_t id;

        while (i < n_model_pending && model_watches[model_pending[i].id].disabled)
                i++;
        if (i == n_model_pending) {
                expect_none();
                return;
        }
        id = model_pending[i].id;
        w = &model_watches[id];
        expect_user(id, model_pending[i].data, 1);
        memmove(&model_pending[i], &model_pending[i + 1], (n_model_pending - i - 1) * sizeof(model_pending[0]));
        n_model_pending--;
        if (w->flags & KEV_FLAG_DISPATCH)
                w->disabled = true;
}

static void model_step(struct random *r, int64_t data) {
        size_t id = random_below(r, MODEL_WATCHES);
        struct model_watch *w = &model_watches[id];

        switch (random_below(r, 12)) {
        case 0:
                if (w->there)
                        break;
                *w = (struct model_watch){ .there = true, .flags = (uint32_t)random_below(r, 3) * KEV_FLAG_DISPATCH };
                if (w->flags & KEV_FLAG_DISABLED)
                        w->disabled = true;
                (void)snprintf(w->name, sizeof(w->name), "n%zu", random_below(r, 3));
                add_user((int64_t)id, w->name, w->flags);
                break;
        case 1:
                if (!w->there || !random_once_in(r, 4))
                        break;
                remove_watch((int64_t)id);
                model_drop((int64_t)id);
                w->there = false;
                break;
        case 2:
        case 3:
                if (!w->there)
                        break;
                enable((int64_t)id, true);
                if (w->disabled)
                        model_append_again((int64_t)id);
                w->disabled = false;
                break;
        case 4:
                if (!w->there)
                        break;
                enable((int64_t)id, false);
                w->disabled = true;
                break;
        case 5:
        case 6:
        case 7:
                if (!w->there || n_model_pending + MODEL_WATCHES > MODEL_EVENTS)
                        break;
                report(queue_find(&queue, (int64_t)id), KEV_NOTE_TRIGGER, data);
                model_pending[n_model_pending++] = (struct model_event){ (int64_t)id, data };
                break;
        default:
                model_take();
                break;
        }
}

START_TEST(random_operations) {
        struct random r = { 51 };

        for (int64_t step = 0; step < 100000; step++) {
                size_t n_there = 0;

                model_step(&r, step);
                for (size_t i = 0; i < MODEL_WATCHES; i++)
                        n_there += model_watches[i].there;
                assert_often(queue.n_entries == n_model_pending, "step %lld: %zu events are held instead of %zu",
                             (long long)step, (size_t)queue.n_entries, n_model_pending);
                assert_often(account->used[RESOURCE_WATCHES] == n_there,
                             "step %lld: %zu watches are charged instead of %zu", (long long)step,
                             (size_t)account->used[RESOURCE_WATCHES], n_there);
                assert_often(account->used[RESOURCE_QUEUE_BYTES] == queue.bytes, "%zu bytes are charged, %zu are held",
                             (size_t)account->used[RESOURCE_QUEUE_BYTES], queue.bytes);
        }
        ck_assert_uint_gt(last_seq, 5000);
}
END_TEST

/* ---- refusals --------------------------------------------------------------------------------------------- */

static int refused_user(int64_t id, const char *name, struct refusal *refusal) {
        struct watch_spec spec;
        int r;

        watch_spec_init(&spec, KEV_FILTER_USER);
        spec.id = id;
        spec.name = strdup(name);
        memset(refusal, 0, sizeof(*refusal));
        r = queue_add(&queue, &spec, -1, refusal);
        watch_spec_free(&spec);
        if (r < 0) {
                ck_assert_int_eq(refusal->error, -r);
                ck_assert_str_ne(refusal->message, "");
        }
        return r;
}

START_TEST(refusals) {
        struct watch_spec spec;
        struct refusal refusal;

        add_user(1, "a", 0);
        ck_assert_int_eq(refused_user(1, "b", &refusal), -EEXIST);
        ck_assert_int_eq(queue_remove(&queue, 2, &refusal), -ENOENT);
        ck_assert_int_eq(refusal.error, ENOENT);
        ck_assert_int_eq(queue_enable(&queue, 2, true, &refusal), -ENOENT);
        ck_assert_int_eq(queue_enable(&queue, 2, false, &refusal), -ENOENT);

        watch_spec_init(&spec, KEV_FILTER_USER);
        spec.id = 2;
        ck_assert_int_eq(queue_modify(&queue, &spec, -1, &refusal), -ENOENT);
        spec.id = 1;
        spec.filter = KEV_FILTER_TIMER;
        ck_assert_int_eq(queue_modify(&queue, &spec, -1, &refusal), -EINVAL);
        ck_assert_ptr_nonnull(strstr(refusal.message, "filter"));
        spec.filter = KEV_FILTER_USER;
        (void)strcpy(spec.refusal, "name: because");
        ck_assert_int_eq(queue_modify(&queue, &spec, -1, &refusal), -EINVAL);
        ck_assert_str_eq(refusal.message, "name: because");
        spec.id = 3;
        ck_assert_int_eq(queue_add(&queue, &spec, -1, &refusal), -EINVAL);
        ck_assert_str_eq(refusal.message, "name: because");

        watch_spec_init(&spec, KEV_FILTER_AIO); /* no descriptor is left to it */
        spec.id = 3;
        ck_assert_int_eq(queue_add(&queue, &spec, -1, &refusal), -EDQUOT);
        ck_assert_ptr_nonnull(strstr(refusal.message, "descriptors"));
        ck_assert_uint_eq(account->used[RESOURCE_WATCHES], 1);
        trigger("a", 1);
        expect_user(1, 1, 1);
}
END_TEST

START_TEST(refusals_of_trees) {
        struct watch_spec spec;
        struct refusal refusal;
        char path[4096];

        (void)snprintf(path, sizeof(path), "%s/missing", harness_tempdir());
        watch_spec_init(&spec, KEV_FILTER_TREE);
        ck_assert_int_eq(try_tree(&spec, path, 1, &refusal), -ENOENT);
        ck_assert_ptr_null(queue_find(&queue, 1));
        ck_assert_uint_eq(account->used[RESOURCE_WATCHES], 0);

        watch_spec_init(&spec, KEV_FILTER_TREE);
        spec.tree.given = true;
        spec.tree.include = calloc(3, sizeof(char *));
        spec.tree.include[0] = strdup("good");
        spec.tree.include[1] = strdup("[bad");
        ck_assert_int_eq(try_tree(&spec, harness_tempdir(), 1, &refusal), -EINVAL);
        ck_assert_ptr_nonnull(strstr(refusal.message, "[bad"));
        ck_assert_ptr_null(queue_find(&queue, 1));
        ck_assert_uint_eq(account->used[RESOURCE_WATCHES], 0);
        ck_assert_uint_eq(context.prefixes.n_nodes, 0);
        ck_assert_uint_eq(context.options.n_nodes, 0);
        ck_assert_ptr_nonnull(add_tree(1));
}
END_TEST

/* Removed before it is in force: nothing comes of it. */
START_TEST(remove_while_starting) {
        struct watch_spec spec;
        struct refusal refusal;

        for (int64_t id = 1; id <= 3; id++) {
                watch_spec_init(&spec, KEV_FILTER_TREE);
                spec.id = id;
                spec.path = strdup(harness_tempdir());
                spec.path_size = strlen(spec.path);
                ck_assert_int_eq(queue_add(&queue, &spec, -1, &refusal), 1);
                watch_spec_free(&spec);
        }
        remove_watch(2);
        for (int64_t deadline = now_msec() + HARNESS_REPLY_MSEC; n_added < 2 && now_msec() < deadline;)
                ck_assert_int_eq(mux_wait(mux, 100 * (int64_t)NSEC_PER_MSEC), 0);
        for (unsigned i = 0; i < 20; i++)
                ck_assert_int_eq(mux_wait(mux, (int64_t)NSEC_PER_MSEC), 0);
        ck_assert_uint_eq(n_added, 2);
        ck_assert_uint_eq(account->used[RESOURCE_WATCHES], 2);
}
END_TEST

static void set_globs(struct watch_spec *spec, size_t n, char byte) {
        watch_spec_init(spec, KEV_FILTER_TREE);
        spec->id = 1;
        spec->tree.given = true;
        spec->tree.include = calloc(n + 1, sizeof(char *));
        ck_assert_ptr_nonnull(spec->tree.include);
        for (size_t i = 0; i < n; i++) {
                spec->tree.include[i] = calloc(1, WATCH_GLOB_BYTES_MAX + 1);
                ck_assert_ptr_nonnull(spec->tree.include[i]);
                memset(spec->tree.include[i], byte, WATCH_GLOB_BYTES_MAX);
        }
}

/* Paths and globs are charged, as long as they are there. */
START_TEST(quota_of_bytes) {
        size_t path_size = strlen(harness_tempdir()), *used = &account->used[RESOURCE_WATCH_BYTES], with_globs;
        struct watch_spec spec;
        struct refusal refusal;

        set_globs(&spec, 0, 0);
        ck_assert_int_eq(try_tree(&spec, harness_tempdir(), 1, &refusal), 0);
        ck_assert_uint_ge(*used, path_size);
        remove_watch(1);
        ck_assert_uint_eq(*used, 0);

        set_globs(&spec, 4, '?');
        ck_assert_int_eq(try_tree(&spec, harness_tempdir(), 1, &refusal), 0);
        with_globs = *used;
        ck_assert_uint_ge(with_globs, path_size + 4 * WATCH_GLOB_BYTES_MAX);
        set_globs(&spec, 1, 'x');
        ck_assert_int_eq(queue_modify(&queue, &spec, -1, &refusal), 0);
        ck_assert_uint_lt(*used, with_globs);
        watch_spec_free(&spec);
        set_globs(&spec, 4, '?');
        ck_assert_int_eq(queue_modify(&queue, &spec, -1, &refusal), 0);
        ck_assert_uint_eq(*used, with_globs);

        /* It has the old ones until it has the new. */
        accounts.limits.values[RESOURCE_WATCH_BYTES] = with_globs;
        ck_assert_int_eq(queue_modify(&queue, &spec, -1, &refusal), -EDQUOT);
        watch_spec_free(&spec);
        ck_assert_uint_eq(*used, with_globs);
        set_globs(&spec, 0, 0);
        ck_assert_int_eq(try_tree(&spec, harness_tempdir(), 2, &refusal), -EDQUOT);
        ck_assert_ptr_nonnull(strstr(refusal.message, "globs"));
        ck_assert_uint_eq(*used, with_globs);
        remove_watch(1);
        ck_assert_uint_eq(*used, 0);
        set_globs(&spec, 4, '?');
        ck_assert_int_eq(try_tree(&spec, harness_tempdir(), 2, &refusal), 0);
        ck_assert_uint_eq(*used, with_globs);
        set_globs(&spec, 1, '?');
        ck_assert_int_eq(try_tree(&spec, "/nowhere", 3, &refusal), -EDQUOT);
        ck_assert_uint_eq(*used, with_globs);
        accounts.limits.values[RESOURCE_WATCH_BYTES] *= 2;
        set_globs(&spec, 1, '?');
        ck_assert_int_eq(try_tree(&spec, "/nowhere", 3, &refusal), -ENOENT);
        ck_assert_uint_eq(*used, with_globs);
}
END_TEST

START_TEST(quota) {
        struct refusal refusal;
        char name[16];

        accounts.limits.values[RESOURCE_WATCHES] = 5;
        for (int64_t i = 0; i < 5; i++) {
                (void)snprintf(name, sizeof(name), "n%d", (int)i);
                ck_assert_int_eq(refused_user(i, name, &refusal), 0);
        }
        for (int64_t i = 5; i < 8; i++)
                ck_assert_int_eq(refused_user(i, "x", &refusal), -EDQUOT);
        ck_assert_ptr_nonnull(strstr(refusal.message, "5"));
        ck_assert_uint_eq(trigger("x", 1), 0);
        ck_assert_uint_eq(account->used[RESOURCE_WATCHES], 5);
        remove_watch(2);
        ck_assert_int_eq(refused_user(5, "x", &refusal), 0);
        ck_assert_int_eq(refused_user(6, "x", &refusal), -EDQUOT);
        ck_assert_uint_eq(trigger("x", 1), 1);
}
END_TEST

/* ---- modify, globs, names ------------------------------------------------------------------------------------ */

START_TEST(modify_notes_and_globs) {
        struct watch *watch = add_tree(1);
        struct watch_spec spec;
        struct refusal refusal;

        report_file(watch, KEV_NOTE_CREATE, "a.c");
        ck_assert_uint_eq(take_all_counts(), 1);
        watch_spec_init(&spec, KEV_FILTER_TREE);
        spec.id = 1;
        spec.notes = KEV_NOTE_DELETE;
        ck_assert_int_ge(queue_modify(&queue, &spec, -1, &refusal), 0);
        report_file(watch, KEV_NOTE_CREATE, "a.c");
        expect_none();
        report_file(watch, KEV_NOTE_DELETE | KEV_NOTE_WRITE, "a.c");
        {
                struct event *event = take();

                ck_assert_uint_eq(event->notes, KEV_NOTE_DELETE);
                event_unref(event);
        }

        /* Globs change, the notes stay. */
        spec.notes = 0;
        spec.tree.given = true;
        spec.tree.include = calloc(2, sizeof(char *));
        spec.tree.include[0] = strdup("*.h");
        ck_assert_int_ge(queue_modify(&queue, &spec, -1, &refusal), 0);
        report_file(watch, KEV_NOTE_DELETE, "a.c");
        expect_none();
        report_file(watch, KEV_NOTE_DELETE, "a.h");
        ck_assert_uint_eq(take_all_counts(), 1);
        report_file(watch, KEV_NOTE_CREATE, "a.h");
        expect_none();
        /* A rename is about both names; what was not asked for comes always. */
        spec.notes = KEV_NOTE_RENAME;
        ck_assert_int_ge(queue_modify(&queue, &spec, -1, &refusal), 0);
        report_path(watch, KEV_NOTE_RENAME, KEV_KIND_FILE, "x", "b.h");
        report_path(watch, KEV_NOTE_RENAME, KEV_KIND_FILE, "b.h", "x");
        report_path(watch, KEV_NOTE_RENAME, KEV_KIND_FILE, "x", "y");
        report_path(watch, KEV_NOTE_RESCAN, KEV_KIND_DIRECTORY, "d", NULL);
        ck_assert_uint_eq(take_all_counts(), 3);
        watch_spec_free(&spec);
}
END_TEST

/* A path is what the client called it, and what is below. */
START_TEST(paths_as_named) {
        char link[4096], with_slash[4096], expected[8192];
        struct watch_spec spec;
        struct watch *watch[3];
        struct report r = REPORT_INIT;

        (void)snprintf(link, sizeof(link), "%s/link", harness_tempdir());
        (void)snprintf(with_slash, sizeof(with_slash), "%s//", harness_tempdir());
        assert_system(symlink(".", link) == 0, "symlink");
        watch[0] = add_tree(1);
        watch_spec_init(&spec, KEV_FILTER_TREE);
        watch[1] = add_tree_with(&spec, link, 2);
        watch_spec_init(&spec, KEV_FILTER_TREE);
        watch[2] = add_tree_with(&spec, with_slash, 3);
        ck_assert_ptr_eq(watch[0]->prefix, watch[2]->prefix);

        /* One report for all, as sources do it. */
        r.notes = KEV_NOTE_RENAME | KEV_NOTE_REPLACE;
        r.below = below("d/\xff");
        r.from_below = below("");
        for (size_t i = 0; i < 3; i++)
                queue_sink.report(&watch[i]->subscription, &r);
        report_done(&r);
        for (size_t i = 0; i < 3; i++) {
                struct event *event = take();
                const char *root = i == 1 ? link : harness_tempdir();

                (void)snprintf(expected, sizeof(expected), "%s/d/\xff", root);
                ck_assert_int_eq(event->id, (int64_t)i + 1);
                ck_assert_str_eq(event->path.bytes, expected);
                ck_assert_str_eq(event->from_path.bytes, root);
                event_unref(event);
        }
        expect_none();
}
END_TEST

/* Watches that want different notes of one report get different events. */
START_TEST(shared_reports) {
        struct watch *watch[4];
        struct report r = REPORT_INIT;

        for (size_t i = 0; i < 4; i++) {
                watch[i] = add_tree((int64_t)i);
                watch[i]->subscription.notes = i == 1 ? KEV_NOTE_CREATE : i == 2 ? KEV_NOTE_DELETE : KEV_NOTE_CREATE | KEV_NOTE_WRITE;
        }
        r.notes = KEV_NOTE_CREATE | KEV_NOTE_WRITE;
        r.below = below("a");
        for (size_t i = 0; i < 4; i++)
                queue_sink.report(&watch[i]->subscription, &r);
        report_done(&r);
        for (size_t i = 0; i < 4; i++) {
                struct event *event;

                if (i == 2)
                        continue;
                event = take();
                ck_assert_int_eq(event->id, (int64_t)i);
                ck_assert_uint_eq(event->notes, i == 1 ? KEV_NOTE_CREATE : KEV_NOTE_CREATE | KEV_NOTE_WRITE);
                event_unref(event);
        }
        expect_none();
}
END_TEST

static struct watch *add_tree_of(int64_t id, const char *glob) {
        struct watch_spec spec;

        watch_spec_init(&spec, KEV_FILTER_TREE);
        spec.tree.given = true;
        spec.tree.include = calloc(2, sizeof(char *));
        ck_assert_ptr_nonnull(spec.tree.include);
        spec.tree.include[0] = strdup(glob);
        return add_tree_with(&spec, harness_tempdir(), id);
}

/* What was said once is kept once, as long as one of them needs it; of one report each is told what its own globs say. */
START_TEST(shared_options) {
        static const char *const globs[] = { "*.c", "*.h", "*.c", "*", "*.h", "*.c" };
        static const char *const names[] = { "a.c", "a.h", "a" };
        struct watch *watch[ARRAY_SIZE(globs)];

        for (size_t i = 0; i < ARRAY_SIZE(globs); i++)
                watch[i] = add_tree_of((int64_t)i, globs[i]);
        ck_assert_uint_eq(context.options.n_nodes, 3);
        ck_assert_ptr_eq(watch[0]->options, watch[2]->options);
        ck_assert_ptr_ne(watch[0]->options, watch[1]->options);
        ck_assert_uint_eq(account->used[RESOURCE_WATCH_BYTES], 3 * watch[0]->charged + 2 * watch[1]->charged + watch[3]->charged);
        for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
                struct report r = REPORT_INIT;

                r.notes = KEV_NOTE_WRITE;
                r.below = below(names[n]);
                for (size_t i = 0; i < ARRAY_SIZE(watch); i++)
                        queue_sink.report(&watch[i]->subscription, &r);
                report_done(&r);
                for (size_t i = 0; i < ARRAY_SIZE(watch); i++) {
                        struct event *event;

                        if (strcmp(globs[i], "*") != 0 && (n == 2 || strchr(globs[i], names[n][2]) == NULL))
                                continue;
                        event = take();
                        ck_assert_int_eq(event->id, (int64_t)i);
                        event_unref(event);
                }
                expect_none();
        }
        remove_watch(0);
        remove_watch(2);
        ck_assert_uint_eq(context.options.n_nodes, 3);
        report_file(watch[5], KEV_NOTE_WRITE, "b.c");
        ck_assert_uint_eq(take_all_counts(), 1);
        remove_watch(5);
        ck_assert_uint_eq(context.options.n_nodes, 2);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_queue_case(harness_suite("queue-watches"), "watches");

        tcase_add_test(c, order_and_seq);
        tcase_add_test(c, ready_is_told_when_there_was_none);
        tcase_add_test(c, oneshot);
        tcase_add_test(c, oneshot_of_a_tree);
        tcase_add_test(c, dispatch);
        tcase_add_test(c, disabled_accumulates);
        tcase_add_test(c, remove_drops);
        tcase_add_test(c, random_operations);
        tcase_add_test(c, refusals);
        tcase_add_test(c, refusals_of_trees);
        tcase_add_test(c, remove_while_starting);
        tcase_add_test(c, quota);
        tcase_add_test(c, quota_of_bytes);
        tcase_add_test(c, modify_notes_and_globs);
        tcase_add_test(c, paths_as_named);
        tcase_add_test(c, shared_reports);
        tcase_add_test(c, shared_options);
        return harness_main(argc, argv);
}
