/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One file system's queue: reading it, and dispatching events. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>

#include "fanotify.h"
#include "file_system.h"
#include "log.h"

#ifndef FAN_RENAME
#define FAN_RENAME 0x10000000 /* Linux 5.17 */
#define FAN_EVENT_INFO_TYPE_OLD_DFID_NAME 10
#define FAN_EVENT_INFO_TYPE_NEW_DFID_NAME 12
#endif

enum {
        CHUNK_BYTES = 64 * 1024,
        BACKLOG_MAX = 64 * 1024 * 1024, /* then the kernel keeps the rest */
        EVENTS_A_TURN = 1024,
        ROOM_MIN = 16 * 1024, /* that is worth a read of its own */
        EVENT_BYTES_MAX = 2048, /* three handles and two names */
        NOISY_MIN = 16,  /* times in a row that it was read without anything of interest, each just behind the last */
        GATHER_MSEC = 2,
        AHEAD_MAX = 256, /* events that are looked at while one waits */
};

struct chunk {
        struct list link;
        uint64_t number; /* of all chunks */
        size_t size, position;
        char data[CHUNK_BYTES] __attribute__((aligned(8)));
};

/* ---- one record: fanotify(7) ------------------------------------------------------------------------ */

/* A handle, and the name behind it if there is one. */
static bool take_handle(const char *info, size_t size, struct handle_ref *ret, const char **ret_name) {
        const size_t start = sizeof(struct fanotify_event_info_fid);
        struct file_handle h;

        if (size < start + sizeof(h))
                return false;
        memcpy(&h, info + start, sizeof(h));
        if (h.handle_bytes > HANDLE_BYTES_MAX || size < start + sizeof(h) + h.handle_bytes)
                return false;
        *ret = (struct handle_ref){
                .type = h.handle_type,
                .size = h.handle_bytes,
                .bytes = (const unsigned char *)info + start + sizeof(h),
        };
        if (!ret_name)
                return true;
        *ret_name = info + start + sizeof(h) + h.handle_bytes;
        return memchr(*ret_name, 0, size - start - sizeof(h) - h.handle_bytes) != NULL;
}

const event_record *fanotify_first_record(const char *data, size_t size) {
        const event_record *m = (const void *)data;

        if (size < sizeof(*m) || m->event_len > size || m->metadata_len < sizeof(*m) || m->metadata_len > m->event_len)
                return NULL;
        return m;
}

bool fanotify_parse(const event_record *m, struct event_info *ret) {
        const char *p = (const char *)m + m->metadata_len, *end = (const char *)m + m->event_len;

        *ret = (struct event_info){ .mask = m->mask, .pid = m->pid };
        while (end - p >= (ptrdiff_t)sizeof(struct fanotify_event_info_header)) {
                struct fanotify_event_info_header h;
                bool whole = true;

                memcpy(&h, p, sizeof(h));
                if (h.len < sizeof(h) || h.len > end - p)
                        return false;
                if (h.info_type == FAN_EVENT_INFO_TYPE_FID)
                        whole = take_handle(p, h.len, &ret->object, NULL);
                else if (h.info_type == FAN_EVENT_INFO_TYPE_DFID_NAME ||
                         h.info_type == FAN_EVENT_INFO_TYPE_OLD_DFID_NAME)
                        whole = take_handle(p, h.len, &ret->dir, &ret->name);
                else if (h.info_type == FAN_EVENT_INFO_TYPE_NEW_DFID_NAME)
                        whole = take_handle(p, h.len, &ret->to_dir, &ret->to_name);
                if (!whole)
                        return false;
                p += h.len;
        }
        return true;
}

static bool is_directory_move(uint64_t mask) {
        return (mask & FAN_ONDIR) && (mask & (FAN_RENAME | FAN_DELETE));
}

void group_doubt(struct group *g, const char *why) {
        log_debug("fanotify: %s: %s", g->name, why);
        if (g->in_doubt)
                return;
        g->in_doubt = true;
        g->doubt_number = g->n_read;
        mux_defer(g->s->mux, &g->go_on); /* no event may come */
}

static bool is_directory_made(uint64_t mask) {
        return (mask & FAN_ONDIR) && (mask & FAN_CREATE);
}

/* ---- directories that move ------------------------------------------------------------------------------ */

/* An object that is still to be moved, or to end. */
struct moving {
        struct hash_node node;
        struct handle object;
        struct list moves; /* struct pending_move, in order: one may be moved any number of times */
};

static struct moving *find_moving(const struct group *g, struct handle_ref object) {
        if (g->moving.n_nodes == 0)
                return NULL;
        for (struct hash_node *n = hash_first(&g->moving, handle_hash(object)); n; n = hash_next(n)) {
                struct moving *moving = container_of(n, struct moving, node);

                if (handle_ref_equal(handle_refer(&moving->object), object))
                        return moving;
        }
        return NULL;
}

static struct moving *get_moving(struct group *g, struct handle_ref object) {
        struct moving *moving = find_moving(g, object);

        if (moving)
                return moving;
        moving = malloc(sizeof(*moving));
        if (!moving || hash_add(&g->moving, &moving->node, handle_hash(object)) < 0) {
                free(moving);
                return NULL;
        }
        handle_copy(&moving->object, object);
        list_init(&moving->moves);
        return moving;
}

/* `e` refers to what was read, which stays where it is until it is handled. */
static void index_move(struct group *g, const struct event_info *e) {
        struct pending_move *m = malloc(sizeof(*m));
        struct moving *moving = m ? get_moving(g, e->object) : NULL;
        uint64_t hash = handle_hash(e->object);

        recent_note(&g->moved, hash, e->number);
        recent_note(&g->changed, hash, RECENT_UNKNOWN);
        if (!moving) {
                free(m);
                group_doubt(g, "no memory for a move");
                return;
        }
        *m = (struct pending_move){ .moving = moving, .number = e->number, .from = e->dir, .name = e->name };
        list_append(&moving->moves, &m->of_object);
        list_append(&g->moves, &m->link);
}

static void pop_moves(struct group *g, uint64_t number) {
        while (!list_empty(&g->moves)) {
                struct pending_move *m = list_entry(g->moves.next, struct pending_move, link);

                if (m->number > number)
                        return;
                list_remove(&m->link);
                list_remove(&m->of_object);
                if (list_empty(&m->moving->moves)) {
                        hash_remove(&g->moving, &m->moving->node);
                        free(m->moving);
                }
                free(m);
        }
}

const struct pending_move *group_next_move(const struct group *g, struct handle_ref object) {
        const struct moving *moving = find_moving(g, object);

        return moving ? list_entry(moving->moves.next, const struct pending_move, of_object) : NULL;
}

bool group_has_moved(const struct group *g, uint64_t number, uint64_t hash) {
        return recent_has_since(&g->moved, hash, number);
}

bool group_has_changed(const struct group *g, uint64_t number, uint64_t hash) {
        return recent_has_since(&g->changed, hash, number);
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

/* Returns how many bytes there are of whole events: all, by the kernel's word. */
static size_t index_events(struct group *g, const char *data, size_t size) {
        size_t position = 0;

        while (position < size) {
                const event_record *m = fanotify_first_record(data + position, size - position);
                struct event_info e;

                if (!m) {
                        group_doubt(g, "an event is not whole");
                        break;
                }
                g->n_read++;
                if (m->mask & FAN_Q_OVERFLOW) {
                        recent_lose(&g->moved, g->n_read);
                        recent_lose(&g->changed, RECENT_UNKNOWN);
                }
                if (is_directory_move(m->mask) && fanotify_parse(m, &e) && e.dir.size > 0 && e.object.size > 0) {
                        e.number = g->n_read;
                        index_move(g, &e);
                } else if ((m->mask & FAN_ONDIR) && (m->mask & FAN_ATTRIB) && fanotify_parse(m, &e) && e.dir.size > 0 &&
                           strcmp(e.name, ".") == 0)
                        recent_note(&g->changed, handle_hash(e.dir), RECENT_UNKNOWN);
                position += m->event_len;
        }
        return position;
}

static void give_chunk(struct group *g, struct chunk *chunk) {
        if (g->spare)
                free(chunk);
        else
                g->spare = chunk;
}

/* Changes of one directory are merged as long as they are queued: the last may have been at the very end. */
static void on_drained(struct group *g) {
        recent_settle(&g->changed, g->n_read + 1);
        g->drained = true;
}

void group_read(struct group *g) {
        g->drained = false;
        if (g->inherited)
                return;
        while (g->backlog < BACKLOG_MAX) {
                struct chunk *last = list_empty(&g->chunks) ? NULL : list_entry(g->chunks.previous, struct chunk, link);
                bool fits = last && last->size + ROOM_MIN <= sizeof(last->data);
                struct chunk *chunk = fits ? last : g->spare ? take_pointer(&g->spare) : malloc(sizeof(*chunk));
                size_t room, whole;
                ssize_t n;

                if (!chunk)
                        return; /* later */
                if (!fits)
                        chunk->size = chunk->position = 0;
                room = sizeof(chunk->data) - chunk->size;
                n = read(g->fd, chunk->data + chunk->size, room);
                if (n <= 0) {
                        if (!fits)
                                give_chunk(g, chunk);
                        if (n < 0 && errno == EAGAIN)
                                on_drained(g);
                        return;
                }
                g->read_nsec = monotonic_nsec();
                whole = index_events(g, chunk->data + chunk->size, (size_t)n);
                chunk->size += whole;
                if (!fits) {
                        chunk->number = ++g->s->n_chunks;
                        list_append(&g->chunks, &chunk->link);
                }
                g->backlog += whole;
                if ((size_t)n + EVENT_BYTES_MAX <= room) { /* one more would have fit */
                        on_drained(g);
                        return;
                }
        }
}

/* ---- handling ------------------------------------------------------------------------------------------------- */

/* Whether that directory may be what had the name: nothing else is known to have it, nor the directory another. */
static bool had_name(const struct group *g, const struct event_info *e, struct handle_ref handle) {
        list_for_each(entry, &g->views) {
                struct view *v = list_entry(entry, struct view, link);
                const struct place *p = place_find(v, handle), *above = place_find(v, e->to_dir);

                if (p && p->dir && above && above->dir)
                        return tree_child(&v->tree, above->dir, e->to_name) == p->dir;
        }
        return true;
}

/* Whether an object that had the name is told to have lost a link just behind the rename: that it was replaced. */
static bool is_replacing(struct group *g, const struct chunk *chunk, size_t next, const struct event_info *e) {
        const event_record *m;
        struct event_info after;

        if (next >= chunk->size)
                group_read(g); /* into the same, if there is room */
        if (next >= chunk->size) {
                if (chunk->link.next == &g->chunks)
                        return false;
                chunk = list_entry(chunk->link.next, const struct chunk, link);
                next = 0;
        }
        m = (const void *)(chunk->data + next);
        if ((m->mask & ~(uint64_t)FAN_ONDIR) != FAN_ATTRIB || m->pid != e->pid || !fanotify_parse(m, &after))
                return false;
        if (after.mask & FAN_ONDIR)
                return (e->mask & FAN_ONDIR) && after.name && strcmp(after.name, ".") == 0 && had_name(g, e, after.dir);
        return after.dir.size == 0 && !handle_ref_equal(after.object, e->object);
}

/* What the waiting event will be followed by is asked for along with it. */
static void ask_ahead(struct group *g, const struct chunk *chunk, size_t position) {
        for (unsigned n = 0; n < AHEAD_MAX && position < chunk->size; n++) {
                const event_record *m = (const void *)(chunk->data + position);
                struct event_info e;

                position += m->event_len;
                if (!fanotify_parse(m, &e) || e.dir.size == 0)
                        continue;
                list_for_each(entry, &g->views) {
                        struct view *v = list_entry(entry, struct view, link);

                        place_expect(v, e.dir);
                        if (e.to_dir.size > 0)
                                place_expect(v, e.to_dir);
                }
        }
}

static bool resolve(struct view *v, struct handle_ref handle, struct dir **ret) {
        *ret = NULL;
        return handle.size == 0 || place_resolve(v, handle, ret);
}

/* What that has found for this event, without a question. False: what was found behind it has taken the place away. */
static bool recall(struct view *v, struct handle_ref handle, struct dir **ret) {
        const struct place *p = handle.size > 0 ? place_find(v, handle) : NULL;

        *ret = p ? p->dir : NULL;
        return p || handle.size == 0;
}

/* False: it has to wait. */
static bool handle(struct group *g, struct chunk *chunk, const struct event_info *e, size_t next, uint64_t now) {
        struct event_info event = *e;
        struct dir *dir, *to_dir;
        bool whole = true, inside = false;

        list_for_each(entry, &g->views) {
                struct view *v = list_entry(entry, struct view, link);

                whole &= resolve(v, e->dir, &dir);
                whole &= resolve(v, e->to_dir, &to_dir);
                inside |= dir || to_dir;
        }
        if (!whole) {
                ask_ahead(g, chunk, next);
                return false;
        }
        if (e->mask & (FAN_CREATE | FAN_RENAME))
                fanotify_on_appeared(g->s, e->mask & FAN_RENAME ? e->to_name : e->name);
        if (is_directory_made(e->mask) && e->object.size > 0)
                list_for_each(entry, &g->views) {
                        struct view *v = list_entry(entry, struct view, link);

                        (void)recall(v, e->dir, &dir);
                        if (!dir)
                                place_is_outside(v, e->object);
                }
        if (!inside)
                return true;
        g->n_inside++;
        if (e->mask & FAN_RENAME)
                event.replaces = is_replacing(g, chunk, next, e);
        list_for_each(entry, &g->views) {
                struct view *v = list_entry(entry, struct view, link);

                whole = recall(v, e->dir, &dir);
                whole &= recall(v, e->to_dir, &to_dir);
                if (!whole)
                        group_doubt(g, "a directory was known, and is not");
                fan_tree_on_event(v, &event, dir, to_dir, now);
        }
        names_on_event(g, &event);
        return true;
}

static void handle_some(struct group *g) {
        uint64_t now = realtime_nsec() / NSEC_PER_USEC;
        struct source_turn turn = source_begin_turn(&g->s->source);
        unsigned budget = EVENTS_A_TURN;

        while (!list_empty(&g->chunks)) {
                struct chunk *chunk = list_entry(g->chunks.next, struct chunk, link);

                while (chunk->position < chunk->size) {
                        const event_record *m = (const void *)(chunk->data + chunk->position);
                        size_t next = chunk->position + m->event_len;
                        struct event_info e;

                        if (budget-- == 0 || source_has_told_enough(&g->s->source, &turn)) {
                                mux_defer(g->s->mux, &g->go_on);
                                return;
                        }
                        e.number = 0;
                        if (m->mask & FAN_Q_OVERFLOW) {
                                source_on_loss(&g->s->source, &g->losses);
                                group_doubt(g, "the kernel has dropped events");
                                list_for_each(entry, &g->views)
                                        verdicts_expire(list_entry(entry, struct view, link));
                        } else if (!fanotify_parse(m, &e))
                                group_doubt(g, "an event is not understood");
                        else if (e.dir.size > 0 && e.pid != g->s->pid) {
                                e.number = g->n_handled + 1;
                                if (!handle(g, chunk, &e, next, now))
                                        return;
                        }
                        g->n_handled++;
                        pop_moves(g, g->n_handled);
                        chunk->position = next;
                        /* An answer that came before these were read. */
                        if (!list_empty(&g->due))
                                group_take_due(g);
                }
                g->backlog -= chunk->size;
                list_remove(&chunk->link);
                give_chunk(g, chunk);
        }
}

void group_take_due(struct group *g) {
        while (!list_empty(&g->due)) {
                struct due *due = list_entry(g->due.next, struct due, link);

                if (due->number > g->n_handled)
                        return;
                list_remove(&due->link);
                due->fn(due);
        }
}

void group_await(struct group *g, struct due *due) {
        group_read(g);
        due->number = g->n_read;
        list_append(&g->due, &due->link);
        mux_defer(g->s->mux, &g->go_on);
}

/* Inquiries are in the list in their order. */
void group_check_repair(struct group *g) {
        if (g->losses.under_repair > 0 &&
            (list_empty(&g->s->inquiries) ||
             list_entry(g->s->inquiries.next, struct inquiry, link)->serial > g->repair_serial))
                source_on_repaired(&g->s->source, &g->losses);
}

void group_run(struct group *g) {
        group_read(g);
        handle_some(g);
        group_take_due(g);
        if (g->in_doubt && g->n_handled >= g->doubt_number) {
                g->in_doubt = false;
                names_forget_all(g);
                list_for_each(entry, &g->views)
                        fan_tree_rescan_all(list_entry(entry, struct view, link));
                losses_begin_repair(&g->losses);
                g->repair_serial = g->s->serial;
        }
        if (list_empty(&g->chunks) && g->drained)
                names_settle(g);
        group_check_repair(g);
        who_forget(g);
        list_for_each(entry, &g->views)
                places_shrink(list_entry(entry, struct view, link));
        if (g->backlog >= BACKLOG_MAX) /* it waits for an answer: it is read no faster */
                group_gather(g);
        barriers_check(&g->s->barriers);
}

bool group_has_handled(const struct group *g, uint64_t chunk_number) {
        return list_empty(&g->chunks) || list_entry(g->chunks.next, const struct chunk, link)->number > chunk_number;
}

static void on_readable(struct mux_io *io, unsigned events);

/* Whether since this was asked last something has happened, and all of it elsewhere; whoever has read it. */
static bool was_noise(struct group *g) {
        bool noise = g->n_read != g->n_read_then && g->n_inside == g->n_inside_then;

        g->n_read_then = g->n_read;
        g->n_inside_then = g->n_inside;
        return noise;
}

static void on_gathered(struct mux_timer *timer) {
        struct group *g = container_of(timer, struct group, gather_timer);

        group_run(g);
        g->n_noisy = 0;
        if (was_noise(g) || mux_add(g->s->mux, &g->io, g->fd, MUX_IN, on_readable) < 0)
                group_gather(g);
}

void group_gather(struct group *g) {
        uint64_t deadline = monotonic_nsec() + GATHER_MSEC * NSEC_PER_MSEC;

        if (mux_timer_set(g->s->mux, &g->gather_timer, deadline, on_gathered) == 0)
                mux_remove(g->s->mux, &g->io); /* else the kernel would wake us still, to find that nothing is asked for */
}

/* Where for a while nothing has happened but elsewhere, the queue is left to fill: waking up for each event costs far
 * more than to look it up. Whoever waits for something has the queue read at once. */
static void on_readable(struct mux_io *io, unsigned events _unused_) {
        struct group *g = container_of(io, struct group, io);
        uint64_t now = monotonic_nsec();

        group_run(g);
        if (!was_noise(g) || now - g->last_wake_nsec > GATHER_MSEC * NSEC_PER_MSEC)
                g->n_noisy = 0;
        g->last_wake_nsec = now;
        if (++g->n_noisy >= NOISY_MIN)
                group_gather(g);
}

static void on_go_on(struct mux_deferred *deferred) {
        struct group *g = container_of(deferred, struct group, go_on);

        if (g->ready)
                group_run(g);
}

/* ---- views ------------------------------------------------------------------------------------------------- */

struct question view_question(const struct view *v, enum question_kind kind, struct handle_ref handle) {
        struct question question = { .kind = kind, .mount = v->mount };

        if (handle.size > 0)
                handle_copy(&question.handle, handle);
        (void)snprintf(question.mount_point, sizeof(question.mount_point), "%s", v->mount_point);
        return question;
}

struct view *view_find(const struct group *g, uint64_t mount) {
        list_for_each(entry, &g->views) {
                struct view *v = list_entry(entry, struct view, link);

                if (v->mount == mount)
                        return v;
        }
        return NULL;
}

struct view *view_get(struct group *g, uint64_t mount, const char *mount_point) {
        struct view *v = view_find(g, mount);

        if (v)
                return v;
        v = calloc(1, sizeof(*v));
        if (!v)
                return NULL;
        v->mount_point = strdup(mount_point);
        if (!v->mount_point || tree_init(&v->tree) < 0) {
                free(v->mount_point);
                free(v);
                return NULL;
        }
        v->group = g;
        v->mount = mount;
        v->generation = 1;
        v->tree.may_tell = access_may_tell;
        v->tree.may_tell_all = access_may_tell_all;
        list_init(&v->inside);
        list_init(&v->outside);
        lister_init(&v->lister, &fanotify_lister, &v->tree, g->s->mux);
        list_append(&g->views, &v->link);
        return v;
}

bool view_look(struct view *v) {
        static struct mount_info info;
        char *path;

        if (get_mount_info(v->mount, &info) < 0 || strcmp(info.mount_point, v->mount_point) == 0)
                return false;
        path = strdup(info.mount_point);
        if (!path)
                return false;
        free(v->mount_point);
        v->mount_point = path;
        list_for_each(entry, &v->tree.watches) /* their paths may lead elsewhere */
                fanotify_check_watch(v->group->s, list_entry(entry, struct file_watch, link));
        return true;
}

void view_lose(struct view *v) {
        v->is_lost = true;
        fan_tree_rescan_all(v);
}

void view_free(struct view *v) {
        lister_close(&v->lister);
        while (v->tree.root->first_child)
                fan_tree_drop(v, v->tree.root->first_child, 0);
        hash_for_each(node, &v->places)
                place_free(container_of(node, struct place, node));
        hash_free(&v->places);
        list_remove(&v->link);
        tree_free(&v->tree);
        free(v->mount_point);
        free(v);
}

/* ---- groups ------------------------------------------------------------------------------------------------ */

static void on_surveyor(struct helper *helper, int error, int fd) {
        struct group *g = container_of(helper, struct group, surveyor);
        int r;

        if (error == 0 && fd >= 0) {
                if (g->inherited) { /* as good, and it has what has happened since */
                        (void)close(fd);
                        fd = take_fd(&g->inherited->fd);
                }
                g->fd = fd;
                r = group_begin_reading(g);
                if (r == 0) {
                        g->ready = true;
                        fanotify_on_group(g, 0);
                        return;
                }
                g->fd = -1;
                error = -r;
        }
        (void)safe_close(fd);
        if (g->ready)
                log_error("fanotify: what looks up the directories of a file system of the kind %s has ended", g->name);
        fanotify_on_group(g, error != 0 ? error : EIO);
}

bool group_has_mark(int fd) {
        char path[64], text[4096];
        int info _cleanup_(closep) = -1;
        ssize_t n;

        (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
        info = open(path, O_RDONLY | O_CLOEXEC);
        n = info < 0 ? -1 : read(info, text, sizeof(text) - 1);
        text[MAX(n, 0)] = 0;
        return n < 0 || strstr(text, "\nfanotify sdev:"); /* where it can't be told it is as before */
}

int group_begin_reading(struct group *g) {
        if (g->inherited && g->inherited->n_restoring > 0)
                return 0;
        g->inherited = NULL;
        return mux_add(g->s->mux, &g->io, g->fd, MUX_IN, on_readable);
}

int group_get(struct fanotify *s, const struct subject_place *place, const char *mount_point, struct group **ret_group) {
        static struct helper_request request;
        struct group *g;
        int r;

        list_for_each(entry, &s->groups) {
                g = list_entry(entry, struct group, link);
                if (g->device == place->file_system && !g->failed && !g->unmounted) {
                        *ret_group = g;
                        return 0;
                }
        }
        g = calloc(1, sizeof(*g));
        if (!g)
                return -ENOMEM;
        g->s = s;
        g->device = place->file_system;
        memcpy(g->name, place->file_system_name, sizeof(g->name));
        g->fd = -1;
        g->io = MUX_IO_INIT;
        list_init(&g->chunks);
        list_init(&g->moves);
        list_init(&g->names_order);
        list_init(&g->names_doubtful);
        list_init(&g->views);
        list_init(&g->attaching);
        list_init(&g->due);
        mux_deferred_init(&g->go_on, on_go_on);
        g->inherited = inherited_find(s, g->device);
        request = (struct helper_request){ .kind = HELPER_SURVEYOR, .mount = place->mount, .mask = FAN_MASK,
                                           .limited_queue = s->source.context->settings.limited_queue };
        (void)snprintf(request.mount_point, sizeof(request.mount_point), "%s", mount_point);
        r = helper_start(s->broker, &g->surveyor, &request, on_surveyor);
        if (r < 0) {
                free(g);
                return r;
        }
        list_append(&s->groups, &g->link);
        *ret_group = g;
        return 0;
}

void group_free(struct group *g) {
        while (!list_empty(&g->views))
                view_free(list_entry(g->views.next, struct view, link));
        names_forget_all(g);
        who_forget(g);
        source_forget_losses(&g->s->source, &g->losses);
        helper_close(&g->surveyor);
        mux_deferred_cancel(&g->go_on);
        mux_timer_clear(g->s->mux, &g->gather_timer);
        if (g->fd >= 0) {
                mux_remove(g->s->mux, &g->io);
                (void)close(g->fd);
        }
        for (struct list *entry; (entry = list_pop(&g->chunks));)
                free(list_entry(entry, struct chunk, link));
        free(g->spare);
        pop_moves(g, UINT64_MAX);
        hash_free(&g->moving);
        recent_free(&g->moved);
        recent_free(&g->changed);
        list_remove(&g->link);
        free(g);
}

void group_release(struct group *g) {
        list_for_each(entry, &g->views) {
                struct view *v = list_entry(entry, struct view, link);

                if (v->n_watches > 0)
                        continue;
                view_free(v);
                mux_defer(g->s->mux, &g->go_on); /* for its answers alone it may have waited */
        }
        if (g->n_watches == 0)
                group_free(g);
}
