/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * queue/: watches and events, without a socket. User watches are set off by name;
 * for trees there is a real directory in which nothing happens, and the reports
 * are made here and given to the queue's sink, as a source would.
 */

#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include "harness.h"
#include "macro.h"
#include "message.h"
#include "queue.h"
#include "unit.h"
#include "workers.h"

enum { MIB = 1024 * 1024 };

static const struct limits limits = {
        .values = { [RESOURCE_CONNECTIONS] = 10,
                    [RESOURCE_WATCHES] = 2000,
                    [RESOURCE_WATCH_BYTES] = 16 * MIB,
                    [RESOURCE_QUEUE_BYTES] = 64 * MIB,
                    [RESOURCE_OUTPUT_BYTES] = 1 * MIB },
};

static struct mux *mux;
static struct workers *workers;
static struct sources sources;
static struct queue_context context;
static struct accounts accounts;
static struct account *account;
static struct asker asker;
static struct queue queue;

static unsigned n_ready, n_added;
static int64_t added_id;
static struct refusal added_refusal; /* error 0: it was added */
static uint64_t last_seq;
static uint64_t now_usec; /* the time of the last report */

/* ---- listening ---------------------------------------------------------------------------------- */

static void on_ready(struct queue *q) {
        ck_assert(queue_has_events(q));
        n_ready++;
}

static void on_added(struct queue *q _unused_, int64_t id, const struct refusal *refusal) {
        n_added++;
        added_id = id;
        added_refusal = refusal ? *refusal : (struct refusal){ 0 };
}

static void on_lost(struct queue *q _unused_) {
        ck_abort_msg("an event was lost");
}

static const struct queue_listener listener = { .ready = on_ready, .added = on_added, .lost = on_lost };

static void setup(void) {
        static const struct source_settings settings = { .file_mechanism = FILE_MECHANISM_INOTIFY };

        ck_assert_int_eq(mux_open(NULL, &mux), 0);
        ck_assert_int_eq(workers_new(&workers), 0);
        sources_open(&sources, mux, workers, &queue_sink, &settings, -EOPNOTSUPP);
        queue_context_init(&context, &sources);
        accounts_init(&accounts, &limits, NULL);
        account = account_get(&accounts, geteuid());
        ck_assert_ptr_nonnull(account);
        asker = (struct asker){ .uid = geteuid(), .pid = getpid() };
        queue_init(&queue, &context, &listener, account, &asker, 16 * MIB);
        last_seq = now_usec = 0;
}

/* Every event has become of something. */
static void check_sum(void) {
        const uint64_t *f = context.figures;

        ck_assert_uint_eq(f[FIGURE_EVENTS_IN] + f[FIGURE_SUMMARIES] + f[FIGURE_RESTORED],
                          f[FIGURE_DELIVERED] + f[FIGURE_MERGED] + f[FIGURE_DISCARDED] + queue.n_entries);
        ck_assert_uint_eq(account->n_entries, queue.n_entries);
        ck_assert_mem_eq(account->figures, f, sizeof(context.figures));
}

static void teardown(void) {
        queue_close(&queue);
        ck_assert_uint_eq(account->used[RESOURCE_WATCHES], 0);
        ck_assert_uint_eq(account->used[RESOURCE_WATCH_BYTES], 0);
        ck_assert_uint_eq(account->used[RESOURCE_QUEUE_BYTES], 0);
        ck_assert_uint_eq(queue.bytes, 0);
        ck_assert_uint_eq(queue.n_entries, 0);
        ck_assert_uint_eq(account->n_entries, 0);
        check_sum();
        ck_assert_uint_eq(context.n_watches, 0);
        ck_assert_uint_eq(context.prefixes.n_nodes, 0);
        ck_assert_uint_eq(context.options.n_nodes, 0);
        queue_context_free(&context);
        account_unref(account);
        accounts_free(&accounts);
        ck_assert(workers_free(workers));
        sources_close(&sources);
        mux_close(mux);
}

/* ---- making watches ------------------------------------------------------------------------------- */

static struct watch *add_user(int64_t id, const char *name, uint32_t flags) {
        struct watch_spec spec;
        struct refusal refusal;

        watch_spec_init(&spec, KEV_FILTER_USER);
        spec.id = id;
        spec.flags = flags;
        spec.name = strdup(name);
        ck_assert_int_eq(queue_add(&queue, &spec, -1, &refusal), 0);
        watch_spec_free(&spec);
        return queue_find(&queue, id);
}

/* 0, or the error. Waits until it is in force, or refused. */
static int try_tree(struct watch_spec *spec, const char *path, int64_t id, struct refusal *refusal) {
        unsigned before = n_added;
        int64_t deadline = now_msec() + HARNESS_REPLY_MSEC;
        int r;

        spec->id = id;
        spec->path = strdup(path);
        spec->path_size = strlen(path);
        r = queue_add(&queue, spec, -1, refusal);
        while (r == 1 && n_added == before && now_msec() < deadline)
                ck_assert_int_eq(mux_wait(mux, 100 * (int64_t)NSEC_PER_MSEC), 0);
        if (r == 1) {
                ck_assert_uint_eq(n_added, before + 1);
                ck_assert_int_eq(added_id, id);
                *refusal = added_refusal;
                r = -added_refusal.error;
        }
        watch_spec_free(spec);
        return r;
}

static struct watch *add_tree_with(struct watch_spec *spec, const char *path, int64_t id) {
        struct refusal refusal;

        ck_assert_msg(try_tree(spec, path, id, &refusal) == 0, "refused: %s", refusal.message);
        ck_assert_ptr_nonnull(queue_find(&queue, id));
        return queue_find(&queue, id);
}

static struct watch *add_tree(int64_t id) {
        struct watch_spec spec;

        watch_spec_init(&spec, KEV_FILTER_TREE);
        return add_tree_with(&spec, harness_tempdir(), id);
}

static void remove_watch(int64_t id) {
        struct refusal refusal;

        ck_assert_int_eq(queue_remove(&queue, id, &refusal), 0);
}

static void enable(int64_t id, bool yes) {
        struct refusal refusal;

        ck_assert_int_eq(queue_enable(&queue, id, yes, &refusal), 0);
}

/* ---- events in, events out -------------------------------------------------------------------------- */

static uint64_t trigger(const char *name, int64_t data) {
        return user_trigger(&sources, asker.uid, name, data);
}

/* Of a watch by its number. */
static void report(struct watch *watch, uint64_t notes, int64_t data) {
        struct report r = REPORT_INIT;

        r.notes = notes;
        r.data = data;
        r.realtime_usec = ++now_usec;
        queue_sink.report(&watch->subscription, &r);
        report_done(&r);
}

static struct event_path below(const char *path) {
        return path ? (struct event_path){ path, strlen(path) } : (struct event_path){ 0 };
}

static void report_path(struct watch *watch, uint64_t notes, enum kev_kind kind, const char *path, const char *from) {
        struct report r = REPORT_INIT;

        r.notes = notes;
        r.kind = kind;
        r.below = below(path);
        r.from_below = below(from);
        r.realtime_usec = ++now_usec;
        queue_sink.report(&watch->subscription, &r);
        report_done(&r);
}

static void report_file(struct watch *watch, uint64_t notes, const char *path) {
        report_path(watch, notes, KEV_KIND_FILE, path, NULL);
}

/* The next event; NULL: there is none. The caller frees it. */
static struct event *take(void) {
        struct buffer b = BUFFER_INIT;
        struct json_object *json;
        struct event *event = NULL;

        if (!queue_has_events(&queue))
                return NULL;
        ck_assert_int_eq(queue_take(&queue, &b), 0);
        ck_assert_int_eq(message_parse(b.data, b.size, &json), 0);
        ck_assert_int_eq(event_from_json(json, &event), 0);
        json_object_put(json);
        buffer_free(&b);
        ck_assert_uint_eq(event->seq, ++last_seq);
        return event;
}

static void expect_user(int64_t id, int64_t data, uint64_t count) {
        struct event *event = take();

        ck_assert_ptr_nonnull(event);
        ck_assert_int_eq(event->id, id);
        ck_assert_int_eq(event->data, data);
        ck_assert_uint_eq(event->count, count);
        ck_assert_uint_eq(event->notes, KEV_NOTE_TRIGGER);
        event_unref(event);
}

static void expect_none(void) {
        ck_assert(!queue_has_events(&queue));
}

static const char *path_in_watch(const struct event *event) {
        size_t size = strlen(harness_tempdir());

        ck_assert_ptr_nonnull(event->path.bytes);
        ck_assert_msg(strncmp(event->path.bytes, harness_tempdir(), size) == 0, "%s", event->path.bytes);
        return event->path.bytes[size] == '/' ? event->path.bytes + size + 1 : event->path.bytes + size;
}

static uint64_t take_all_counts(void) {
        struct event *event;
        uint64_t sum = 0;

        while ((event = take())) {
                sum += event->count;
                event_unref(event);
        }
        return sum;
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

/* ---- the bound: single objects ------------------------------------------------------------------------------------ */

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

/* ---- the bound: trees ---------------------------------------------------------------------------------------------- */

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

static void random_tree_path(struct random *r, size_t width, size_t depth, char *path) {
        size_t n = 0;

        for (size_t i = random_below(r, depth) + 1; i > 0; i--)
                n += (size_t)sprintf(path + n, "%sname%zu", n ? "/" : "", random_below(r, width));
}

static void random_report(struct random *r, struct watch *watch, size_t width, size_t depth) {
        static const uint64_t notes[] = { KEV_NOTE_CREATE, KEV_NOTE_DELETE, KEV_NOTE_WRITE, KEV_NOTE_WRITE, KEV_NOTE_ATTRIB,
                                          KEV_NOTE_CLOSEWRITE };
        char path[1024], from[1024];
        enum kev_kind kind = random_once_in(r, 8) ? KEV_KIND_DIRECTORY : KEV_KIND_FILE;

        random_tree_path(r, width, depth, path);
        random_tree_path(r, width, depth, from);
        if (random_once_in(r, 20))
                report_path(watch, KEV_NOTE_RENAME, kind, path, from);
        else
                report_path(watch, notes[random_below(r, ARRAY_SIZE(notes))], kind, path, NULL);
}

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

/* Told as they are, whatever happens. */
START_TEST(gone_and_listed_are_kept) {
        struct watch *tree = add_tree(1);
        struct random r = { 76 };
        struct event *event;
        unsigned n = 0;

        queue.bytes_max = 32 * 1024;
        for (unsigned i = 0; i < 5000; i++) {
                random_report(&r, tree, 10, 4);
                if (i % 1000 == 500)
                        report_path(tree, i % 2000 == 500 ? KEV_NOTE_LISTED : KEV_NOTE_GONE, KEV_KIND_DIRECTORY, "", NULL);
        }
        while ((event = take())) {
                if (event->notes & (KEV_NOTE_LISTED | KEV_NOTE_GONE)) {
                        ck_assert_uint_eq(event->notes, n % 2 ? KEV_NOTE_GONE : KEV_NOTE_LISTED);
                        ck_assert_uint_eq(event->count, 1);
                        n++;
                }
                event_unref(event);
        }
        ck_assert_uint_eq(n, 5);
}
END_TEST

/* ---- speed ------------------------------------------------------------------------------------------------------------ */

/* Must end in the test's time, however slow the machine. */
START_TEST(million_in_a_tree) {
        const unsigned n = (unsigned)harness_rounds(1000000);
        struct watch *tree = add_tree(1);
        struct random r = { 81 };

        for (unsigned i = 0; i < n; i++) {
                char path[64];

                (void)sprintf(path, "dir%zu/file%zu", random_below(&r, 1000), random_below(&r, 1000));
                report_file(tree, random_once_in(&r, 2) ? KEV_NOTE_CREATE : KEV_NOTE_DELETE, path);
        }
        ck_assert_uint_le(queue.bytes, 16 * MIB + 1024);
        ck_assert_uint_gt(queue.merged, 0);
        ck_assert_uint_eq(take_all_counts(), n);
}
END_TEST

START_TEST(million_of_directories) {
        const unsigned n = (unsigned)harness_rounds(1000000);
        struct watch *tree = add_tree(1);

        for (unsigned i = 0; i < n; i++) {
                char path[64];

                (void)sprintf(path, "dir%u/sub%u", i / 1000, i);
                report_path(tree, KEV_NOTE_CREATE, KEV_KIND_DIRECTORY, path, NULL);
        }
        ck_assert_uint_le(queue.bytes, 16 * MIB + 1024);
        ck_assert_uint_gt(queue.merged, 0);
        ck_assert_uint_eq(take_all_counts(), n);
}
END_TEST

START_TEST(million_deep) {
        const unsigned n = (unsigned)harness_rounds(200000);
        struct watch *tree = add_tree(1);
        struct random r = { 82 };

        for (unsigned i = 0; i < n; i++)
                random_report(&r, tree, 3, 60);
        ck_assert_uint_le(queue.bytes, 16 * MIB + 4096);
        ck_assert_uint_gt(queue.merged, 0);
        ck_assert_uint_eq(take_all_counts(), n);
}
END_TEST

START_TEST(million_of_one_name) {
        const int64_t n = harness_rounds(1000000);
        struct watch *watch = add_user(1, "a", 0);

        for (int64_t i = 0; i < n; i++)
                report(watch, KEV_NOTE_TRIGGER, i);
        ck_assert_uint_le(queue.bytes, 16 * MIB + 1024);
        ck_assert_uint_gt(queue.merged, 0);
        ck_assert_uint_eq(take_all_counts(), n);
}
END_TEST

/* The bound is full of what can't be merged further: the next ones are not slow for that. */
START_TEST(million_beside_a_full_queue) {
        const unsigned n = (unsigned)harness_rounds(300000);
        struct watch *trees[100];
        struct random r = { 83 };

        for (int64_t i = 0; i < 100; i++)
                trees[i] = add_tree(i);
        queue.bytes_max = MIB;
        for (unsigned i = 0; i < n; i++)
                random_report(&r, trees[random_below(&r, 100)], 50, 3);
        ck_assert_uint_gt(queue.merged, 0);
        ck_assert_uint_eq(take_all_counts(), n);
}
END_TEST

/* ---- the model ----------------------------------------------------------------------------------------------------------- */

/*
 * Files and directories, as a list of paths. Random operations are done to the
 * model and reported; the queue, with a small bound, merges; what is taken from
 * it is done to a replica that was equal at first. `rescan` copies what is below
 * a path from the model as it is at that time. In the end they are equal.
 */

enum { ITEMS = 160, PATH_BYTES = 40, DEPTH_MAX = 5 };

struct item {
        bool used, is_dir;
        unsigned version; /* of a file's content */
        char path[PATH_BYTES];
};

struct tree_model {
        struct item items[ITEMS];
};

static struct tree_model truth, replica;
static unsigned next_version;
static struct buffer trace; /* of the round */

static _printf_(1, 2) void trace_line(const char *format, ...) {
        char line[256];
        va_list arguments;

        va_start(arguments, format);
        (void)vsnprintf(line, sizeof(line), format, arguments);
        va_end(arguments);
        buffer_put_string(&trace, line);
        buffer_put_literal(&trace, "\n");
}

static struct item *find_item(struct tree_model *m, const char *path) {
        for (size_t i = 0; i < ITEMS; i++)
                if (m->items[i].used && strcmp(m->items[i].path, path) == 0)
                        return &m->items[i];
        return NULL;
}

static struct item *put_item(struct tree_model *m, const char *path, bool is_dir, unsigned version) {
        struct item *item = find_item(m, path);

        for (size_t i = 0; i < ITEMS && !item; i++)
                if (!m->items[i].used)
                        item = &m->items[i];
        ck_assert_ptr_nonnull(item);
        *item = (struct item){ .used = true, .is_dir = is_dir, .version = version };
        (void)snprintf(item->path, sizeof(item->path), "%s", path);
        return item;
}

/* What is left behind the directory's path: NULL, if it isn't below or the same. */
static const char *within(const char *dir, const char *path) {
        size_t size = strlen(dir);

        if (size == 0)
                return path;
        if (strncmp(dir, path, size) != 0 || (path[size] != '/' && path[size] != 0))
                return NULL;
        return path + size;
}

static void drop_item(struct tree_model *m, const char *path) {
        for (size_t i = 0; i < ITEMS; i++)
                if (m->items[i].used && within(path, m->items[i].path))
                        m->items[i].used = false;
}

static bool has_children(struct tree_model *m, const char *path) {
        for (size_t i = 0; i < ITEMS; i++) {
                const char *rest = m->items[i].used ? within(path, m->items[i].path) : NULL;

                if (rest && *rest && (*path || m->items[i].path[0]))
                        return true;
        }
        return false;
}

static void move_item(struct tree_model *m, const char *from, const char *to) {
        for (size_t i = 0; i < ITEMS; i++) {
                const char *rest = m->items[i].used ? within(from, m->items[i].path) : NULL;
                char path[2 * PATH_BYTES];

                if (!rest)
                        continue;
                (void)snprintf(path, sizeof(path), "%s%s", to, rest);
                ck_assert_uint_lt(strlen(path), PATH_BYTES);
                memcpy(m->items[i].path, path, strlen(path) + 1);
        }
}

static size_t depth_of_path(const char *path) {
        size_t depth = 1;

        for (; *path; path++)
                depth += *path == '/';
        return depth;
}

static size_t height_of(struct tree_model *m, const char *path) {
        size_t most = 0;

        for (size_t i = 0; i < ITEMS; i++)
                if (m->items[i].used && within(path, m->items[i].path))
                        most = MAX(most, depth_of_path(m->items[i].path));
        return most - depth_of_path(path);
}

static size_t count_items(struct tree_model *m) {
        size_t n = 0;

        for (size_t i = 0; i < ITEMS; i++)
                n += m->items[i].used;
        return n;
}

/* ---- operations, done and reported */

enum operations {
        FILES = 1 << 0,       /* create, write, delete */
        FILE_MOVES = 1 << 1,  /* rename, also over another */
        DIRS = 1 << 2,        /* create, delete */
        DIR_MOVES = 1 << 3,
        IN_AND_OUT = 1 << 4,  /* moves into and out of the tree */
};

static struct item *random_item(struct random *r, bool is_dir) {
        for (unsigned i = 0; i < 200; i++) {
                struct item *item = &truth.items[random_below(r, ITEMS)];

                if (item->used && item->is_dir == is_dir)
                        return item;
        }
        return NULL;
}

/* A name in some directory. */
static void random_place(struct random *r, char *path) {
        struct item *dir = random_once_in(r, 4) ? NULL : random_item(r, true);

        if (dir && depth_of_path(dir->path) >= DEPTH_MAX)
                dir = NULL;
        (void)snprintf(path, PATH_BYTES, "%.30s%s%c", dir ? dir->path : "", dir ? "/" : "", (char)('a' + random_below(r, 4)));
}

static void tell(struct watch *watch, uint64_t notes, bool is_dir, const char *path, const char *from) {
        trace_line("%s%s%s%s%s%s%s%s %s%s%s", notes & KEV_NOTE_CREATE ? "create" : "", notes & KEV_NOTE_WRITE ? "write" : "",
                   notes & KEV_NOTE_DELETE ? "delete" : "", notes & KEV_NOTE_RENAME ? "rename" : "",
                   notes & KEV_NOTE_MOVEDIN ? "movedin" : "", notes & KEV_NOTE_MOVEDOUT ? "movedout" : "",
                   notes & KEV_NOTE_REPLACE ? "+replace" : "", is_dir ? " dir" : "", from ? from : "", from ? " -> " : "", path);
        report_path(watch, notes, is_dir ? KEV_KIND_DIRECTORY : KEV_KIND_FILE, path, from);
}

static void do_create(struct random *r, struct watch *watch, bool is_dir) {
        char path[PATH_BYTES];

        random_place(r, path);
        if (find_item(&truth, path) || count_items(&truth) > ITEMS / 2)
                return;
        put_item(&truth, path, is_dir, is_dir ? 0 : ++next_version);
        tell(watch, KEV_NOTE_CREATE, is_dir, path, NULL);
}

static void do_delete(struct random *r, struct watch *watch, bool is_dir) {
        struct item *item = random_item(r, is_dir);
        char path[PATH_BYTES];

        if (!item)
                return;
        memcpy(path, item->path, sizeof(path));
        if (is_dir) {
                /* As rm -r: what is below it goes first, the deepest first. */
                for (size_t depth = DEPTH_MAX + 2; depth > depth_of_path(path); depth--)
                        for (size_t i = 0; i < ITEMS; i++) {
                                struct item *child = &truth.items[i];

                                if (!child->used || depth_of_path(child->path) != depth || !within(path, child->path))
                                        continue;
                                child->used = false;
                                tell(watch, KEV_NOTE_DELETE, child->is_dir, child->path, NULL);
                        }
        }
        drop_item(&truth, path);
        tell(watch, KEV_NOTE_DELETE, is_dir, path, NULL);
}

static void do_write(struct random *r, struct watch *watch) {
        struct item *item = random_item(r, false);

        if (!item)
                return;
        item->version = ++next_version;
        tell(watch, KEV_NOTE_WRITE, false, item->path, NULL);
}

static void do_rename(struct random *r, struct watch *watch, bool is_dir) {
        struct item *item = random_item(r, is_dir), *target;
        char from[PATH_BYTES], to[PATH_BYTES];

        random_place(r, to);
        target = find_item(&truth, to);
        if (!item || item == target || within(item->path, to) ||
            (target && (target->is_dir != is_dir || has_children(&truth, to))) ||
            depth_of_path(to) + height_of(&truth, item->path) > DEPTH_MAX + 1)
                return;
        memcpy(from, item->path, sizeof(from));
        if (target)
                target->used = false;
        move_item(&truth, from, to);
        tell(watch, KEV_NOTE_RENAME | (target ? KEV_NOTE_REPLACE : 0), is_dir, to, from);
}

static void do_in_or_out(struct random *r, struct watch *watch) {
        bool is_dir = random_once_in(r, 2);
        struct item *item = random_item(r, is_dir);
        char path[PATH_BYTES];

        if (random_once_in(r, 2)) {
                if (!item)
                        return;
                memcpy(path, item->path, sizeof(path));
                drop_item(&truth, path);
                tell(watch, KEV_NOTE_MOVEDOUT, is_dir, path, NULL);
                return;
        }
        random_place(r, path);
        if (find_item(&truth, path) || count_items(&truth) > ITEMS / 2)
                return;
        put_item(&truth, path, is_dir, is_dir ? 0 : ++next_version);
        tell(watch, KEV_NOTE_MOVEDIN, is_dir, path, NULL);
        for (size_t n = is_dir && depth_of_path(path) < DEPTH_MAX ? random_below(r, 4) : 0; n > 0; n--) {
                char child[2 * PATH_BYTES];
                bool child_is_dir = random_once_in(r, 3);

                (void)snprintf(child, sizeof(child), "%s/%c", path, (char)('a' + n));
                put_item(&truth, child, child_is_dir, child_is_dir ? 0 : ++next_version);
                tell(watch, KEV_NOTE_CREATE, child_is_dir, child, NULL);
        }
}

static void do_something(struct random *r, struct watch *watch, unsigned operations) {
        switch (random_below(r, 12)) {
        case 0:
        case 1:
        case 2:
                if (operations & FILES)
                        do_create(r, watch, false);
                break;
        case 3:
        case 4:
                if (operations & FILES)
                        do_delete(r, watch, false);
                break;
        case 5:
                if (operations & FILES)
                        do_write(r, watch);
                break;
        case 6:
        case 7:
                if (operations & FILE_MOVES)
                        do_rename(r, watch, false);
                break;
        case 8:
                if (operations & DIRS)
                        do_create(r, watch, true);
                break;
        case 9:
                if (operations & DIRS && random_once_in(r, 2))
                        do_delete(r, watch, true);
                break;
        case 10:
                if (operations & DIR_MOVES)
                        do_rename(r, watch, true);
                break;
        default:
                if (operations & IN_AND_OUT)
                        do_in_or_out(r, watch);
                break;
        }
}

/* ---- what a client does with an event */

static void apply_rescan(const char *path) {
        char above[PATH_BYTES];
        struct item *item = find_item(&truth, path);

        drop_item(&replica, path);
        if (*path && !item)
                return;
        for (size_t i = 0; path[i]; i++) {
                if (path[i] != '/')
                        continue;
                memcpy(above, path, i);
                above[i] = 0;
                if (!find_item(&replica, above) || !find_item(&replica, above)->is_dir)
                        put_item(&replica, above, true, 0);
        }
        for (size_t i = 0; i < ITEMS; i++)
                if (truth.items[i].used && within(path, truth.items[i].path))
                        put_item(&replica, truth.items[i].path, truth.items[i].is_dir, truth.items[i].version);
}

/* What was gone from its path when its event came, since a directory above it had moved, is read at its new one. */
static void read_unread(const char *dir) {
        for (size_t i = 0; i < ITEMS; i++) {
                struct item *item = &replica.items[i], *now;

                if (!item->used || item->is_dir || item->version != 0 || !within(dir, item->path))
                        continue;
                now = find_item(&truth, item->path);
                if (now && !now->is_dir)
                        item->version = now->version;
        }
}

static void apply_dir(uint64_t notes, const char *path, const char *from) {
        struct item *item = find_item(&replica, path);

        if (notes & (KEV_NOTE_DELETE | KEV_NOTE_MOVEDOUT | KEV_NOTE_REPLACE))
                drop_item(&replica, path);
        if (from) {
                if (find_item(&replica, from)) {
                        drop_item(&replica, path);
                        move_item(&replica, from, path);
                        read_unread(path);
                        return;
                }
        } else if (!(notes & (KEV_NOTE_CREATE | KEV_NOTE_MOVEDIN)))
                return;
        item = find_item(&replica, path);
        if (!item || !item->is_dir)
                put_item(&replica, path, true, 0);
}

static void apply_file(uint64_t notes, const char *path, const char *from) {
        struct item *now = find_item(&truth, path), *item;
        unsigned version = 0;

        if (notes & (KEV_NOTE_DELETE | KEV_NOTE_MOVEDOUT | KEV_NOTE_REPLACE))
                drop_item(&replica, path);
        if (from) {
                item = find_item(&replica, from);
                version = item ? item->version : 0;
                drop_item(&replica, from);
                drop_item(&replica, path);
                put_item(&replica, path, false, version);
        } else if (notes & (KEV_NOTE_CREATE | KEV_NOTE_MOVEDIN)) {
                drop_item(&replica, path);
                put_item(&replica, path, false, 0);
        }
        /* It is read, as it is now. */
        item = find_item(&replica, path);
        if (now && !now->is_dir && ((item && !item->is_dir) || notes & KEV_NOTE_WRITE))
                put_item(&replica, path, false, now->version);
        else if (item && !item->is_dir)
                item->version = 0;
}

/* False: there is no event. */
static bool apply_next(void) {
        struct event *event = take();
        size_t size = strlen(harness_tempdir());
        const char *path, *from = NULL;
        bool is_dir;

        if (!event)
                return false;
        path = path_in_watch(event);
        is_dir = event->kind == KEV_KIND_DIRECTORY;
        if (event->from_path.bytes)
                from = event->from_path.bytes + size + 1;
        trace_line("    take: 0x%llx%s %s%s%s (%llu)", (unsigned long long)event->notes,
                   event->notes & KEV_NOTE_RESCAN ? " rescan" : is_dir ? " dir" : "", from ? from : "", from ? " -> " : "", path,
                   (unsigned long long)event->count);
        if (event->notes & KEV_NOTE_RESCAN)
                apply_rescan(path);
        else if (is_dir)
                apply_dir(event->notes, path, from);
        else
                apply_file(event->notes, path, from);
        event_unref(event);
        return true;
}

static const char *difference(void) {
        static char text[128];

        for (size_t i = 0; i < ITEMS; i++) {
                struct item *a = &truth.items[i], *b = a->used ? find_item(&replica, a->path) : NULL;

                if (!a->used)
                        continue;
                if (!b || a->is_dir != b->is_dir || a->version != b->version) {
                        (void)snprintf(text, sizeof(text), "%s %s", a->path,
                                       !b ? "is missed" : a->is_dir != b->is_dir ? "is of another kind" : "has other content");
                        return text;
                }
        }
        for (size_t i = 0; i < ITEMS; i++)
                if (replica.items[i].used && !find_item(&truth, replica.items[i].path)) {
                        (void)snprintf(text, sizeof(text), "%s is not there", replica.items[i].path);
                        return text;
                }
        return NULL;
}

static void show_trace(void) {
        char path[4096];
        FILE *file;

        (void)snprintf(path, sizeof(path), "%s/round.log", harness_tempdir());
        file = fopen(path, "we");
        ck_assert_ptr_nonnull(file);
        (void)fwrite(trace.data, 1, trace.size, file);
        (void)fclose(file);
}

static void start_truth(struct random *r) {
        memset(&truth, 0, sizeof(truth));
        for (unsigned i = 0; i < 16; i++) {
                char path[PATH_BYTES];
                bool is_dir = random_once_in(r, 2);

                random_place(r, path);
                if (!find_item(&truth, path))
                        put_item(&truth, path, is_dir, is_dir ? 0 : ++next_version);
        }
        replica = truth;
}

static void model_round(struct watch *watch, uint64_t seed, unsigned operations, bool take_meanwhile, size_t n_operations) {
        struct random r = { seed };
        const char *wrong;

        buffer_reset(&trace);
        start_truth(&r);
        for (size_t i = 0; i < ITEMS; i++)
                if (truth.items[i].used)
                        trace_line("there: %s%s", truth.items[i].path, truth.items[i].is_dir ? "/" : "");
        queue.bytes_max = 1500 + random_below(&r, 12000);
        for (size_t i = 0; i < n_operations; i++) {
                do_something(&r, watch, operations);
                if (take_meanwhile && random_once_in(&r, 6))
                        (void)apply_next();
        }
        while (apply_next())
                ;
        wrong = difference();
        if (wrong)
                show_trace();
        ck_assert_msg(!wrong, "seed %llu, %zu operations: %s", (unsigned long long)seed, n_operations, wrong);
        ck_assert_uint_eq(queue.bytes, 0);
        ck_assert_uint_eq(queue.n_entries, 0);
}

static const struct {
        const char *name;
        unsigned operations;
        bool take_meanwhile;
} variants[] = {
        { "files", FILES, false },
        { "files, taken meanwhile", FILES, true },
        { "files and their moves", FILES | FILE_MOVES, false },
        { "files and their moves, taken meanwhile", FILES | FILE_MOVES, true },
        { "files and directories", FILES | DIRS, false },
        { "files and directories, taken meanwhile", FILES | DIRS, true },
        { "files and moves of directories", FILES | DIR_MOVES, false },
        { "files and moves of directories, taken meanwhile", FILES | DIR_MOVES, true },
        { "files and moves in and out", FILES | IN_AND_OUT, false },
        { "everything", FILES | FILE_MOVES | DIRS | DIR_MOVES | IN_AND_OUT, false },
        { "everything, taken meanwhile", FILES | FILE_MOVES | DIRS | DIR_MOVES | IN_AND_OUT, true },
};

START_TEST(replica_is_equal) {
        const uint64_t all = 3000, n = (uint64_t)harness_rounds((int)all);
        struct watch *watch;

        harness_label(variants[_i].name);
        watch = add_tree(1);
        for (uint64_t round = 0; round < all; round += all / n) /* of all sizes, however few */
                model_round(watch, (uint64_t)_i * 1000000 + round, variants[_i].operations, variants[_i].take_meanwhile,
                            8 + round / 20);
        ck_assert_uint_gt(context.figures[FIGURE_RESCANS], n / 3);
        ck_assert_uint_gt(queue.merged, n * 10 / 3);
        buffer_free(&trace);
}
END_TEST

/* The model itself: with room for all nothing is merged, and the replica is equal too. */
START_TEST(replica_is_equal_without_merging) {
        struct watch *watch = add_tree(1);
        struct random r = { 91 };

        for (unsigned round = 0; round < 200; round++) {
                buffer_reset(&trace);
                start_truth(&r);
                for (unsigned i = 0; i < 200; i++)
                        do_something(&r, watch, FILES | FILE_MOVES | DIRS | DIR_MOVES | IN_AND_OUT);
                while (apply_next())
                        ;
                ck_assert_msg(!difference(), "round %u: %s", round, difference());
        }
        ck_assert_uint_eq(queue.merged, 0);
        buffer_free(&trace);
}
END_TEST

/* ---- ------------------------------------------------------------------------------------------------------------------ */

static TCase *make_case(Suite *suite, const char *name) {
        TCase *c = harness_case(suite, name);

        tcase_add_checked_fixture(c, setup, teardown);
        tcase_set_timeout(c, 120);
        return c;
}

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("queue");
        TCase *c = make_case(suite, "watches");

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

        c = make_case(suite, "bound");
        tcase_add_test(c, under_the_bound_nothing_is_merged);
        tcase_add_test(c, single_objects_are_merged);
        tcase_add_test(c, single_objects_or_their_notes);
        tcase_add_test(c, many_single_objects);
        tcase_add_test(c, processes_are_not_merged);
        tcase_add_test(c, the_user_has_a_bound_too);
        tcase_add_test(c, trees_are_merged_by_path);
        tcase_add_test(c, merged_paths_add_up);
        tcase_add_test(c, rescans_are_small);
        tcase_add_test(c, rescans_have_the_first_time);
        tcase_add_test(c, random_tree);
        tcase_add_test(c, random_tree_small_bound);
        tcase_add_test(c, random_trees_of_one_queue);
        tcase_add_test(c, a_tree_does_not_cost_others);
        tcase_add_test(c, a_disabled_tree_at_the_bound);
        tcase_add_test(c, gone_and_listed_are_kept);

        c = make_case(suite, "speed");
        tcase_add_test(c, million_in_a_tree);
        tcase_add_test(c, million_of_directories);
        tcase_add_test(c, million_deep);
        tcase_add_test(c, million_of_one_name);
        tcase_add_test(c, million_beside_a_full_queue);

        c = make_case(suite, "model");
        tcase_add_test(c, replica_is_equal_without_merging);
        tcase_add_loop_test(c, replica_is_equal, 0, ARRAY_SIZE(variants));
        return harness_main(argc, argv);
}
