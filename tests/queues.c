/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "queues.h"

#include <json-c/json.h>
#include <stdio.h>

#include "macro.h"
#include "message.h"
#include "workers.h"

static const struct limits limits = {
        .values = { [RESOURCE_CONNECTIONS] = 10,
                    [RESOURCE_WATCHES] = 2000,
                    [RESOURCE_WATCH_BYTES] = 16 * MIB,
                    [RESOURCE_QUEUE_BYTES] = 64 * MIB,
                    [RESOURCE_OUTPUT_BYTES] = 1 * MIB },
};

struct mux *mux;
static struct workers *workers;
struct sources sources;
struct queue_context context;
struct accounts accounts;
struct account *account;
struct asker asker;
struct queue queue;

unsigned n_ready, n_added;
static int64_t added_id;
static struct refusal added_refusal; /* error 0: it was added */
uint64_t last_seq;
uint64_t now_usec;

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

const struct queue_listener listener = { .ready = on_ready, .added = on_added, .lost = on_lost };

static void setup(void) {
        static const struct source_settings settings = { .file_mechanism = FILE_MECHANISM_INOTIFY };

        ck_assert_int_eq(mux_open(NULL, &mux), 0);
        ck_assert_int_eq(workers_new(mux, &workers), 0);
        sources_open(&sources, mux, workers, &queue_sink, &settings, -EOPNOTSUPP);
        queue_context_init(&context, &sources);
        accounts_init(&accounts, &limits);
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
        ck_assert_uint_eq(queue.watch_bytes, 0);
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

struct watch *add_user(int64_t id, const char *name, uint32_t flags) {
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

int try_tree(struct watch_spec *spec, const char *path, int64_t id, struct refusal *refusal) {
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

struct watch *add_tree_with(struct watch_spec *spec, const char *path, int64_t id) {
        struct refusal refusal;

        ck_assert_msg(try_tree(spec, path, id, &refusal) == 0, "refused: %s", refusal.message);
        ck_assert_ptr_nonnull(queue_find(&queue, id));
        return queue_find(&queue, id);
}

struct watch *add_tree(int64_t id) {
        struct watch_spec spec;

        watch_spec_init(&spec, KEV_FILTER_TREE);
        return add_tree_with(&spec, harness_tempdir(), id);
}

void remove_watch(int64_t id) {
        struct refusal refusal;

        ck_assert_int_eq(queue_remove(&queue, id, &refusal), 0);
}

void enable(int64_t id, bool yes) {
        struct refusal refusal;

        ck_assert_int_eq(queue_enable(&queue, id, yes, &refusal), 0);
}

/* ---- events in, events out -------------------------------------------------------------------------- */

void report(struct watch *watch, uint64_t notes, int64_t data) {
        struct report r = REPORT_INIT;

        r.notes = notes;
        r.data = data;
        r.realtime_usec = ++now_usec;
        queue_sink.report(&watch->subscription, &r);
        report_done(&r);
}

struct event_path below(const char *path) {
        return path ? (struct event_path){ path, strlen(path) } : (struct event_path){ 0 };
}

void report_path(struct watch *watch, uint64_t notes, enum kev_kind kind, const char *path, const char *from) {
        struct report r = REPORT_INIT;

        r.notes = notes;
        r.kind = kind;
        r.below = below(path);
        r.from_below = below(from);
        r.realtime_usec = ++now_usec;
        queue_sink.report(&watch->subscription, &r);
        report_done(&r);
}

void report_file(struct watch *watch, uint64_t notes, const char *path) {
        report_path(watch, notes, KEV_KIND_FILE, path, NULL);
}

static void random_tree_path(struct random *r, size_t width, size_t depth, char *path) {
        size_t n = 0;

        for (size_t i = random_below(r, depth) + 1; i > 0; i--)
                n += (size_t)sprintf(path + n, "%sname%zu", n ? "/" : "", random_below(r, width));
}

void random_report(struct random *r, struct watch *watch, size_t width, size_t depth) {
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

struct event *take(void) {
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

void expect_user(int64_t id, int64_t data, uint64_t count) {
        struct event *event = take();

        ck_assert_ptr_nonnull(event);
        ck_assert_int_eq(event->id, id);
        ck_assert_int_eq(event->data, data);
        ck_assert_uint_eq(event->count, count);
        ck_assert_uint_eq(event->notes, KEV_NOTE_TRIGGER);
        event_unref(event);
}

void expect_none(void) {
        ck_assert(!queue_has_events(&queue));
}

const char *path_in_watch(const struct event *event) {
        size_t size = strlen(harness_tempdir());

        ck_assert_ptr_nonnull(event->path.bytes);
        ck_assert_msg(strncmp(event->path.bytes, harness_tempdir(), size) == 0, "%s", event->path.bytes);
        return event->path.bytes[size] == '/' ? event->path.bytes + size + 1 : event->path.bytes + size;
}

uint64_t take_all_counts(void) {
        struct event *event;
        uint64_t sum = 0;

        while ((event = take())) {
                sum += event->count;
                event_unref(event);
        }
        return sum;
}

TCase *make_queue_case(Suite *suite, const char *name) {
        TCase *c = harness_case(suite, name);

        tcase_add_checked_fixture(c, setup, teardown);
        tcase_set_timeout(c, 120);
        return c;
}
