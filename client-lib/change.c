/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Making, changing and ending watches: the method Change.
 *
 * Many watches go in as many calls as the bounds of one demand, written without
 * waiting for the replies before. Only a call with descriptors waits: those on
 * their way count against the user's RLIMIT_NOFILE, so one call's at a time.
 */

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <string.h>

#include "internal.h"
#include "message.h"
#include "vocabulary.h"

#define CHANGE_HEAD "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\""
#define CHANGE_TAIL "]}}\0"

void change_begin(struct buffer *b, const char *list) {
        buffer_put_literal(b, CHANGE_HEAD);
        buffer_put_string(b, list);
        buffer_put_literal(b, "\":[");
}

void change_end(struct buffer *b) {
        buffer_put_literal(b, CHANGE_TAIL);
}

static void put_watch(struct buffer *b, const struct watch_spec *spec, int64_t id, int64_t descriptor) {
        struct watch_spec numbered = *spec;

        numbered.id = id;
        numbered.descriptor = descriptor;
        watch_spec_put(b, &numbered);
}

/* ---- what was refused ------------------------------------------------------------ */

struct refusal {
        int64_t id;
        const char *name, *message;
        int error;
};

static const struct field refusal_fields[] = {
        { "id", FIELD_INT, offsetof(struct refusal, id), true },
        { "errno", FIELD_STRING, offsetof(struct refusal, name), true },
        { "message", FIELD_STRING, offsetof(struct refusal, message), true },
};

static int fail_nonsense(struct kev *kev) {
        return connection_fail(kev, -EPROTO, "kevd answered Change with what can't be understood");
}

static int read_refused(struct kev *kev, const struct call *call, struct json_object **ret_refused) {
        static const struct field fields[] = { { "refused", FIELD_ARRAY, 0, true } };

        if (!call->parameters || fields_read(call->parameters, fields, ARRAY_SIZE(fields), ret_refused, NULL) < 0)
                return fail_nonsense(kev);
        return 0;
}

static int read_refusal(struct kev *kev, struct json_object *refused, size_t i, struct refusal *ret) {
        struct json_object *json = json_object_array_get_idx(refused, i);
        int error;

        if (!json_object_is_type(json, json_type_object) ||
            fields_read(json, refusal_fields, ARRAY_SIZE(refusal_fields), ret, NULL) < 0)
                return fail_nonsense(kev);
        error = errno_from_name(ret->name);
        ret->error = error > 0 ? -error : -EREMOTEIO;
        if (!ret->message[0])
                ret->message = error_text(ret->error);
        return 0;
}

int change_refusal(struct kev *kev, const struct call *call, bool *ret_refused) {
        struct json_object *refused = NULL;
        struct refusal refusal = { 0 };
        int r = read_refused(kev, call, &refused);

        *ret_refused = r == 0 && json_object_array_length(refused) > 0;
        if (!*ret_refused)
                return r;
        r = read_refusal(kev, refused, 0, &refusal);
        return r < 0 ? r : error_set(kev, refusal.error, "%s", refusal.message);
}

/* ---- adding ------------------------------------------------------------------------ */

/* Some of the watches, in one call. */
struct chunk {
        struct chunk *next;
        struct call call;
        uint64_t n_remakings; /* the connection's, as it was sent */
        size_t first, n;
};

/* A kev_add_many(). */
struct addition {
        struct kev *kev;
        const struct kev_watch *const *watches;
        size_t n;
        kev_handler *handler;
        void *userdata;
        int64_t *ids;
        int *errors; /* 0, or why the watch was refused */
        size_t n_refused, first_refused;
        char message[ERROR_MESSAGE_MAX]; /* of the first one refused */
        struct chunk *chunks, **chunks_end; /* in flight */
};

static void refuse(struct addition *a, size_t i, int error, const char *message) {
        if (a->n_refused++ == 0 || i < a->first_refused) {
                a->first_refused = i;
                sentence_put(a->message, "%s", message);
        }
        a->errors[i] = error;
}

static bool is_own_signal(const struct watch_spec *spec) {
        return spec->filter == KEV_FILTER_SIGNAL && (spec->pid == ABSENT || spec->pid == getpid());
}

/* What kevd can't tell of the process's own signals the library can. */
static void take_refusal(struct addition *a, size_t i, int error, const char *message) {
        const struct watch_spec *spec = &a->watches[i]->spec;
        int r;

        if (error != -EOPNOTSUPP || !is_own_signal(spec)) {
                refuse(a, i, error, message);
                return;
        }
        r = own_signals_add(a->kev, spec, a->ids[i], a->handler, a->userdata);
        if (r == -EOPNOTSUPP)
                refuse(a, i, r, "kevd does not tell of signals here, and the library only of those that are blocked, "
                                "see pthread_sigmask(3)");
        else if (r < 0)
                refuse(a, i, r, error_text(r));
}

/* For the reason that the connection's message gives. */
static void refuse_all(struct addition *a, size_t first, size_t n, int error) {
        for (size_t i = first; i < first + n; i++)
                refuse(a, i, error, a->kev->message);
}

/* Those without an id get one above all that were used, and above those that
 * the same call brings. */
static int choose_ids(struct addition *a) {
        int64_t highest = a->kev->highest_id;

        for (size_t i = 0; i < a->n; i++) {
                a->ids[i] = a->watches[i]->spec.id;
                if (own_signals_has(&a->kev->own_signals, a->ids[i]))
                        return error_set(a->kev, -EEXIST, "id: %lld is in use on this connection", (long long)a->ids[i]);
                highest = MAX(highest, a->ids[i]);
        }
        for (size_t i = 0; i < a->n; i++) {
                if (a->ids[i] != ABSENT)
                        continue;
                if (highest == INT64_MAX)
                        return error_set(a->kev, -EOVERFLOW, "There is no id above 2^63-1 for a watch without one");
                a->ids[i] = ++highest;
        }
        a->kev->highest_id = highest;
        return 0;
}

/* Refusals name an id: within a call it must be one watch's only. */
static bool has_id(const struct addition *a, size_t first, size_t n, int64_t id) {
        for (size_t i = first; i < first + n; i++)
                if (a->ids[i] == id)
                        return true;
        return false;
}

/* Writes the watches from `first` on, as many as go into one call. */
static size_t put_chunk(const struct addition *a, size_t first, struct buffer *b, int *fds, size_t *n_fds) {
        size_t n = 0;

        change_begin(b, "add");
        for (size_t i = first; i < a->n && !has_id(a, first, n, a->ids[i]); i++, n++) {
                const struct kev_watch *watch = a->watches[i];
                bool has_fd = watch->fd >= 0;
                size_t before = b->size;

                if (n > 0)
                        buffer_put_literal(b, ",");
                put_watch(b, &watch->spec, a->ids[i], has_fd ? (int64_t)*n_fds : ABSENT);
                if (b->size + sizeof(CHANGE_TAIL) - 1 > MESSAGE_BYTES_MAX || (has_fd && *n_fds == CALL_FDS_MAX)) {
                        b->size = before;
                        break;
                }
                if (has_fd)
                        fds[(*n_fds)++] = watch->fd;
        }
        buffer_put_literal(b, CHANGE_TAIL);
        return n;
}

static int take_refusals(struct addition *a, const struct chunk *chunk) {
        struct json_object *refused = NULL;
        struct refusal refusal = { 0 };
        int r = read_refused(a->kev, &chunk->call, &refused);

        for (size_t i = 0; r == 0 && i < json_object_array_length(refused); i++) {
                size_t w = chunk->first, end = chunk->first + chunk->n;

                r = read_refusal(a->kev, refused, i, &refusal);
                if (r < 0)
                        break;
                while (w < end && (a->ids[w] != refusal.id || a->errors[w] < 0))
                        w++;
                if (w == end)
                        return fail_nonsense(a->kev);
                take_refusal(a, w, refusal.error, refusal.message);
        }
        return r;
}

static void remember(struct addition *a, size_t i) {
        const struct kev_watch *watch = a->watches[i];
        const struct watch_spec *spec = &watch->spec;
        bool is_pidfd = watch->fd >= 0 && spec->filter == KEV_FILTER_PROC;

        if (own_signals_has(&a->kev->own_signals, a->ids[i]))
                return;
        a->kev->has_levels |= (spec->flags & KEV_FLAG_LEVEL) != 0;
        if (spec->filter == KEV_FILTER_TIMER) /* one that is added again has counted nothing */
                (void)inbox_drop(&a->kev->inbox, a->ids[i]);
        known_set(&a->kev->known, &(struct known_watch){
                .id = a->ids[i], .handler = a->handler, .userdata = a->userdata,
                .description = known_describe(spec, a->ids[i]),
                .pidfd = is_pidfd ? fcntl(watch->fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1) : -1,
                .start_time = spec->pid == ABSENT ? 0 : process_start_time(spec->pid),
                .has_fd = watch->fd >= 0 && !is_pidfd,
                .is_oneshot = spec->flags & KEV_FLAG_ONESHOT,
                .is_disabled = spec->flags & KEV_FLAG_DISABLED,
        });
}

/* Waits for the reply to one chunk. */
static int finish_chunk(struct addition *a, struct chunk *chunk) {
        struct kev *kev = a->kev;
        int r = call_wait(kev, &chunk->call);

        if (r < 0 && kev->error)
                return r;
        /* The kevd that has answered is gone, and the next was not asked for what was not known yet. */
        if (r == 0 && chunk->n_remakings != kev->reconnecting.n_remakings)
                r = fail_unanswered(kev);
        if (r == 0)
                r = call_error(kev, &chunk->call);
        if (r < 0)
                refuse_all(a, chunk->first, chunk->n, r);
        else if (take_refusals(a, chunk) < 0)
                return a->kev->error;
        for (size_t i = chunk->first; i < chunk->first + chunk->n; i++)
                if (a->errors[i] == 0)
                        remember(a, i);
        return 0;
}

/* Once the connection is over the chunks are only freed. */
static int finish_chunks(struct addition *a) {
        int r = a->kev->error;

        while (a->chunks) {
                struct chunk *chunk = a->chunks;

                if (r == 0)
                        r = finish_chunk(a, chunk);
                a->chunks = chunk->next;
                call_free(&chunk->call);
                free(chunk);
        }
        a->chunks_end = &a->chunks;
        return r;
}

static int send_chunk(struct addition *a, size_t first, size_t n, const struct buffer *message, const int *fds,
                      size_t n_fds) {
        struct chunk *chunk;
        int r = n_fds > 0 ? finish_chunks(a) : 0;

        if (r < 0)
                return r;
        chunk = calloc(1, sizeof(*chunk));
        if (!chunk)
                return error_set(a->kev, -ENOMEM, "There is no memory for a call to kevd");
        chunk->first = first;
        chunk->n = n;
        r = call_send(a->kev, &chunk->call, message, fds, n_fds);
        if (r < 0) {
                free(chunk);
                return r;
        }
        chunk->n_remakings = a->kev->reconnecting.n_remakings;
        *a->chunks_end = chunk;
        a->chunks_end = &chunk->next;
        return 0;
}

/* Sends the watches from `first` on, as many as go into one call; returns how
 * many that were, or were refused on the way. */
static size_t add_some(struct addition *a, size_t first) {
        struct buffer message _cleanup_(buffer_free) = BUFFER_INIT;
        int fds[CALL_FDS_MAX];
        size_t n_fds = 0, n = put_chunk(a, first, &message, fds, &n_fds);
        int r;

        if (n == 0) {
                refuse(a, first, -EMSGSIZE, "The watch doesn't fit in a message, which has 64 KiB");
                return 1;
        }
        r = send_chunk(a, first, n, &message, fds, n_fds);
        if (r < 0)
                refuse_all(a, first, n, r);
        return n;
}

static int add_all(struct addition *a) {
        struct kev *kev = a->kev;
        int r = choose_ids(a);

        if (r < 0)
                return r;
        if (known_reserve(&kev->known, a->n) < 0)
                return error_set(kev, -ENOMEM, "There is no memory for the watches");
        for (size_t i = 0; i < a->n && !kev->error;)
                i += add_some(a, i);
        r = finish_chunks(a);
        if (r < 0)
                return r;
        if (a->n_refused < a->n)
                kev->watching = true;
        if (a->n_refused > 0)
                (void)error_set(kev, 0, "%s", a->message);
        return a->n_refused == a->n && a->n > 0 ? a->errors[a->first_refused] : (int)a->n_refused;
}

_public_ int kev_add_many(struct kev *kev, const struct kev_watch *const *watches, size_t n_watches,
                          kev_handler *handler, void *userdata, int64_t *ret_ids, int *ret_errors) {
        int64_t *ids _cleanup_(freep) = NULL;
        int *errors _cleanup_(freep) = NULL;
        struct addition a = {
                .kev = kev, .watches = watches, .n = n_watches, .handler = handler, .userdata = userdata,
                .chunks_end = &a.chunks,
        };
        int r = call_enter(kev);

        if (r < 0)
                return r;
        if (n_watches > INT32_MAX)
                return error_set(kev, -EINVAL, "There can't be so many watches");
        a.ids = ids = calloc(MAX(n_watches, (size_t)1), sizeof(*ids));
        a.errors = errors = calloc(MAX(n_watches, (size_t)1), sizeof(*errors));
        if (!ids || !errors)
                return error_set(kev, -ENOMEM, "There is no memory for %zu watches", n_watches);
        r = add_all(&a);
        if (ret_ids && r >= 0)
                memcpy(ret_ids, ids, n_watches * sizeof(*ids));
        for (size_t i = 0; ret_errors && i < n_watches; i++)
                ret_errors[i] = errors[i] == 0 ? MIN(r, 0) : errors[i];
        return call_leave(kev, r);
}

_public_ int kev_add(struct kev *kev, const struct kev_watch *watch, kev_handler *handler, void *userdata,
                     int64_t *ret_id) {
        return kev_add_many(kev, &watch, 1, handler, userdata, ret_id, NULL);
}

/* ---- one watch that there is ----------------------------------------------------------- */

/* Sends a Change with one item in one of its lists, which `b` holds already. `fd`: goes with it; or -1. */
static int change(struct kev *kev, struct buffer *b, int fd) {
        struct call call _cleanup_(call_free) = { 0 };
        bool refused;
        int r;

        change_end(b);
        r = call_run(kev, &call, b, &fd, fd >= 0);
        return r < 0 ? r : change_refusal(kev, &call, &refused);
}

static int change_id(struct kev *kev, const char *list, int64_t id) {
        struct buffer b _cleanup_(buffer_free) = BUFFER_INIT;

        change_begin(&b, list);
        buffer_put_i64(&b, id);
        return change(kev, &b, -1);
}

/* What the watch is made from again once it was changed; NULL: it is not made again. */
static int describe_changed(struct kev *kev, int64_t id, const struct watch_spec *change, char **ret_text) {
        const struct known_watch *entry = known_find(&kev->known, id);

        *ret_text = NULL;
        if (!entry || !entry->description)
                return 0;
        *ret_text = known_describe_changed(entry, change);
        if (!*ret_text)
                return error_set(kev, -ENOMEM, "There is no memory for the watch");
        if (strlen(*ret_text) + sizeof(CHANGE_HEAD "add\":[" CHANGE_TAIL) - 1 > MESSAGE_BYTES_MAX)
                return error_set(kev, -EMSGSIZE, "The watch would not fit in a message any more, which has 64 KiB");
        return 0;
}

/* A timer whose moment was told. A kevd that came later doesn't have it: it is added again, which is the same to one
 * that has. */
static bool begins_anew(const struct known_watch *entry, const struct watch_spec *change) {
        return entry && entry->is_over && change->filter == KEV_FILTER_TIMER && change->data != ABSENT;
}

/* `fd`: goes with it; or -1. */
static int modify(struct kev *kev, int64_t id, const struct watch_spec *spec, int fd) {
        struct buffer b _cleanup_(buffer_free) = BUFFER_INIT;
        char *description _cleanup_(freep) = NULL;
        struct known_watch *entry;
        int r = describe_changed(kev, id, spec, &description);

        if (r < 0)
                return r;
        if (description && begins_anew(known_find(&kev->known, id), spec)) {
                change_begin(&b, "add");
                buffer_put_string(&b, description);
        } else {
                change_begin(&b, "modify");
                put_watch(&b, spec, id, fd >= 0 ? 0 : ABSENT);
        }
        r = change(kev, &b, fd);
        if (r < 0)
                return r;
        kev->has_levels |= (spec->flags & KEV_FLAG_LEVEL) != 0;
        entry = known_find(&kev->known, id);
        if (!entry)
                return 0;
        if (begins_anew(entry, spec)) /* also where that was told meanwhile */
                entry->is_over = false;
        free(entry->description);
        entry->description = take_pointer(&description);
        entry->is_oneshot = spec->flags & KEV_FLAG_ONESHOT;
        entry->is_disabled = spec->flags & KEV_FLAG_DISABLED;
        return 0;
}

_public_ int kev_modify(struct kev *kev, int64_t id, const struct kev_watch *watch) {
        struct watch_spec spec = watch->spec;
        int fd = spec.filter == KEV_FILTER_POLL ? watch->fd : -1, r = call_enter(kev);

        if (r < 0)
                return r;
        if (own_signals_has(&kev->own_signals, id)) {
                r = own_signals_modify(kev, id, &spec);
                return call_leave(kev, r < 0 ? error_set(kev, r, "The signal can't be told of: %s", error_text(r)) : 0);
        }
        /* What it is about stays: a watch may be made and changed from one description. For other notes poll may take
         * the descriptor again. */
        spec.path = spec.name = NULL;
        spec.pid = ABSENT;
        spec.match = (struct process_match){ .uid = ABSENT };
        return call_leave(kev, modify(kev, id, &spec, fd));
}

_public_ int kev_remove(struct kev *kev, int64_t id) {
        int r = call_enter(kev);

        if (own_signals_remove(kev, id)) {
                (void)inbox_drop(&kev->inbox, id);
                return call_leave(kev, 0);
        }
        if (r == 0)
                r = change_id(kev, "remove", id);
        if (r == 0 || r == -ENOENT || r == -ECONNRESET || kev->error) {
                /* For kevd a oneshot watch is over once its event was sent, for the
                 * program once it was handed out; one that could not be made again
                 * never was; and a kevd that has gone has none any more. */
                if (known_remove(&kev->known, id))
                        r = 0;
                if (inbox_drop(&kev->inbox, id) > 0)
                        r = 0;
        }
        return call_leave(kev, r);
}

static int enable(struct kev *kev, int64_t id, bool enable) {
        struct known_watch *entry;
        int r = call_enter(kev);

        if (r < 0)
                return r;
        if (!own_signals_enable(kev, id, enable))
                r = change_id(kev, enable ? "enable" : "disable", id);
        entry = r == 0 ? known_find(&kev->known, id) : NULL;
        if (entry)
                entry->is_disabled = !enable;
        return call_leave(kev, r);
}

_public_ int kev_enable(struct kev *kev, int64_t id) {
        return enable(kev, id, true);
}

_public_ int kev_disable(struct kev *kev, int64_t id) {
        return enable(kev, id, false);
}
