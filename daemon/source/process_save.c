/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * All processes for the next daemon: the feed, in which the kernel goes on queuing what they do, the table as its
 * records up to now have made it, and who follows whom. Those that have ended are left behind, unless somebody still
 * waits for them: who asks late is told how only of those that ended since.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "log.h"
#include "processes.h"
#include "state.h"

static struct processes *processes_of(const struct source *source) {
        return container_of(source, struct processes, source);
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

static void put_profile(struct state_writer *w, const struct profile *profile) {
        state_put_bytes(w, profile->knows_ids ? &profile->ids : NULL, sizeof(profile->ids));
        state_put_string(w, profile->knows_comm ? profile->comm : NULL);
        state_put_string(w, profile->exe);
        state_put_string(w, profile->cgroup);
}

static void put_process(struct state_writer *w, const struct process *p) {
        state_put_i64(w, p->pid);
        state_put_i64(w, p->parent_pid);
        state_put_u64(w, p->parent ? p->parent->number : 0);
        state_put_u64(w, p->state);
        put_profile(w, p->profile);
        state_put_bool(w, p->is_certain);
        state_put_bool(w, p->was_displaced);
        state_put_bool(w, p->is_displaced);
        state_put_bool(w, p->first_ended);
        state_put_bool(w, p->had_record);
        state_put_bool(w, p->knows_status);
        state_put_i64(w, p->status);
        state_put_bool(w, p->knows_usage);
        state_put_u64(w, p->cpu_usec);
        state_put_u64(w, p->peak_bytes);
        state_put_u64(w, p->forked_nsec);
        state_put_u64(w, p->start_time);
        state_put_u64(w, p->exit_usec);
        state_put_u64(w, p->reap_usec);
        state_put_u64(w, p->ended_nsec);
        state_put_fd(w, p->pidfd);
}

static void put_table(struct state_writer *w, struct processes *s) {
        uint32_t n = 0;

        hash_for_each(node, &s->table)
                container_of(node, struct process, node)->number = ++n;
        state_put_u64(w, n);
        hash_for_each(node, &s->table)
                put_process(w, container_of(node, const struct process, node));
}

bool processes_are_settled(const struct source *source) {
        const struct processes *s = processes_of(source);

        return s->state != FEED_OPENING && s->state != FEED_STARTING && !s->rescan && !s->lost_nsec &&
               list_empty(&s->zombies) && list_empty(&s->pending);
}

void processes_save_source(struct source *source, struct state_writer *w) {
        struct processes *s = processes_of(source);
        size_t fds = w->n_fds, size = w->bytes.size;

        if (s->state != FEED_READY || !s->feed_class->save)
                return;
        state_put_string(w, s->feed_class->name);
        s->is_saved = s->feed_class->save(s->feed, w);
        processes_take_all(s); /* what it had taken */
        s->is_saved &= processes_are_settled(source);
        if (!s->is_saved) {
                w->n_fds = fds;
                w->bytes.size = size;
                return;
        }
        state_put_bool(w, s->has_profiles);
        put_table(w, s);
        state_put_u64(w, s->last_nsec);
        state_put_u64(w, s->last_tag);
        state_put_bool(w, s->rescan_timer.heap_index != 0);
}

static void put_interests(struct state_writer *w, const struct proc_watch *watch) {
        state_put_u64(w, watch->n_interests);
        list_for_each(entry, &watch->interests) {
                const struct interest *i = list_entry(entry, const struct interest, of_watch);

                state_put_u64(w, i->process->number);
                state_put_bool(w, i->is_child);
                state_put_bool(w, i->was_told);
                state_put_bool(w, i->was_hidden);
        }
}

bool processes_save(struct source *source, struct subscription *subscription, struct state_writer *w) {
        const struct processes *s = processes_of(source);
        const struct proc_watch *watch = subscription->object;

        if (!watch || watch->pending)
                return false;
        state_put_bool(w, watch->has_ended);
        if (watch->has_ended)
                return true;
        if (!s->is_saved)
                return false;
        state_put_bool(w, watch->by_pidfd);
        state_put_u64(w, watch->n_undecided);
        put_interests(w, watch);
        state_put_u64(w, watch->tag);
        return true;
}

/* Its own process, which is the first that it has followed. */
void processes_describe(const struct subscription *subscription, struct subject *subject) {
        const struct proc_watch *watch = subscription->object;

        if (!watch || watch->by_match)
                return;
        list_for_each(entry, &watch->interests) {
                const struct interest *i = list_entry(entry, const struct interest, of_watch);

                if (i->is_child)
                        continue;
                subject->pid = i->process->pid;
                subject->identity = i->process->pidfd >= 0 ? pidfd_identity(i->process->pidfd, i->process->pid) : 0;
        }
}

/* ---- reading -------------------------------------------------------------------------------------------------------- */

static struct profile *get_profile(struct state_reader *r) {
        struct profile *profile = profile_new();
        const char *comm, *exe, *cgroup;
        const void *ids;
        size_t size;

        ids = state_get_bytes(r, &size);
        comm = state_get_string(r);
        exe = state_get_string(r);
        cgroup = state_get_string(r);
        if (!profile || r->failed || (ids && size != sizeof(profile->ids)) || (comm && strlen(comm) >= sizeof(profile->comm)))
                return profile_unref(profile);
        profile->knows_ids = ids != NULL;
        if (ids)
                memcpy(&profile->ids, ids, size);
        profile->knows_comm = comm != NULL;
        if (comm)
                memcpy(profile->comm, comm, strlen(comm) + 1);
        profile->exe = exe ? strdup(exe) : NULL;
        profile->cgroup = cgroup ? strdup(cgroup) : NULL;
        return profile;
}

/* It has its parent once all are there. NULL: no memory, or it makes no sense. */
static struct process *get_process(struct processes *s, struct state_reader *r, size_t *ret_parent) {
        pid_t pid = (pid_t)state_get_i64(r), parent_pid = (pid_t)state_get_i64(r);
        uint64_t parent = state_get_u64(r), state = state_get_u64(r);
        struct process *p = process_make(s, pid, NULL, get_profile(r));
        int pidfd;

        if (!p)
                return NULL;
        *ret_parent = parent;
        p->parent_pid = parent_pid;
        p->is_certain = state_get_bool(r);
        p->was_displaced = state_get_bool(r);
        p->is_displaced = state_get_bool(r);
        s->n_displaced += p->is_displaced;
        p->first_ended = state_get_bool(r);
        p->had_record = state_get_bool(r);
        p->knows_status = state_get_bool(r);
        p->status = (int)state_get_i64(r);
        p->knows_usage = state_get_bool(r);
        p->cpu_usec = state_get_u64(r);
        p->peak_bytes = state_get_u64(r);
        p->forked_nsec = state_get_u64(r);
        p->start_time = state_get_u64(r);
        p->exit_usec = state_get_u64(r);
        p->reap_usec = state_get_u64(r);
        p->ended_nsec = state_get_u64(r);
        p->seen = s->n_rescans;
        if (state != PROCESS_RUNS) {
                process_retire(s, p);
                p->state = state == PROCESS_ENDED ? PROCESS_ENDED : PROCESS_REAPED;
        }
        pidfd = state_get_fd(r);
        if (pidfd >= 0 && process_adopt_pidfd(s, p, pidfd) < 0)
                return NULL;
        return r->failed ? NULL : p;
}

static bool get_table(struct processes *s, struct state_reader *r) {
        size_t n = state_get_count(r, 20 * sizeof(uint64_t)), *parents;
        bool whole = true;

        parents = calloc(MAX(n, (size_t)1), sizeof(*parents));
        s->restored = calloc(MAX(n, (size_t)1), sizeof(*s->restored));
        s->n_restored = n;
        for (size_t i = 0; whole && parents && s->restored && i < n; i++) {
                s->restored[i] = get_process(s, r, &parents[i]);
                whole = s->restored[i] != NULL;
        }
        for (size_t i = 0; whole && parents && s->restored && i < n; i++)
                if (parents[i] > 0 && parents[i] <= n && parents[i] != i + 1 && s->restored[i]->state == PROCESS_RUNS)
                        process_join(s->restored[i], s->restored[parents[i] - 1]);
        whole = whole && parents && s->restored && !r->failed;
        free(parents);
        return whole;
}

static const struct feed_class *feed_of(const struct source_context *context, const char *name) {
        enum process_feed wanted = context->settings.process_feed;

        if (strcmp(name, feed_connector.name) == 0 && (wanted == PROCESS_FEED_AUTO || wanted == PROCESS_FEED_CONNECTOR))
                return &feed_connector;
#ifdef HAVE_BPF
        if (strcmp(name, feed_bpf.name) == 0 && (wanted == PROCESS_FEED_AUTO || wanted == PROCESS_FEED_BPF))
                return &feed_bpf;
#endif
        return NULL;
}

static int load(struct processes *s, const struct feed_class *class, struct state_reader *r) {
        int result = processes_resume_feed(s, class, r);

        if (result < 0)
                return result;
        s->n_rescans = s->last_rescan = 1;
        s->has_profiles = state_get_bool(r);
        if (!get_table(s, r))
                return -EBADMSG;
        if (state_is_at_end(r)) /* of a daemon that left no more */
                return 0;
        s->last_nsec = state_get_u64(r);
        s->last_tag = state_get_u64(r);
        if (!state_is_at_end(r)) /* the same */
                s->rescan_again = state_get_bool(r);
        return r->failed ? -EBADMSG : 0;
}

static void forget_restored(struct processes *s) {
        free(take_pointer(&s->restored));
        s->n_restored = 0;
}

/* Without it a feed begins anew, with what /proc has. */
void processes_load_source(struct source *source, struct state_reader *r) {
        struct processes *s = processes_of(source);
        const struct feed_class *class;
        const char *name;
        int result;

        if (state_is_at_end(r))
                return;
        name = state_get_string(r);
        class = name ? feed_of(source->context, name) : NULL;
        if (!class || s->state != FEED_CLOSED)
                return;
        result = load(s, class, r);
        s->is_restored = result == 0;
        if (result == 0)
                return;
        log_warning("processes: what the last daemon has left can't be gone on with: %s", strerror(-result));
        processes_stop_feed(s);
        forget_restored(s);
}

static int get_interests(struct processes *s, struct proc_watch *w, struct state_reader *r) {
        size_t n = state_get_count(r, 4 * sizeof(uint64_t));

        for (size_t k = 0; k < n; k++) {
                uint64_t number = state_get_u64(r);
                bool is_child = state_get_bool(r);
                struct interest *i;

                if (number < 1 || number > s->n_restored)
                        return -EBADMSG;
                i = interest_make(s, w, s->restored[number - 1], is_child);
                if (!i)
                        return -ENOMEM;
                i->was_told = state_get_bool(r);
                i->was_hidden = state_get_bool(r);
        }
        return r->failed ? -EBADMSG : 0;
}

int processes_restore(struct source *source, struct subscription *subscription, const struct subject *subject,
                      struct state_reader *r, struct refusal *refusal) {
        struct processes *s = processes_of(source);
        bool has_ended = state_get_bool(r);
        struct proc_watch *w;
        int result = 0;

        if (!has_ended && !s->is_restored)
                return -EBADMSG;
        w = proc_watch_new(subscription, subject, refusal);
        if (!w)
                return -refusal->error;
        w->has_ended = has_ended;
        if (!has_ended) {
                w->by_pidfd = state_get_bool(r);
                w->n_undecided = state_get_u64(r);
                if (w->n_undecided > 0)
                        tell_undecided_soon(s);
                result = get_interests(s, w, r);
                if (result == 0 && !state_is_at_end(r)) /* the same */
                        w->tag = state_get_u64(r);
        }
        if (result < 0) {
                proc_watch_free(s, w);
                return -EBADMSG;
        }
        subscription->object = w;
        if (has_ended)
                return 0;
        if (w->by_match)
                list_append(&s->by_match, &w->link);
        else
                list_append(&s->trackers, &w->tracker);
        if (w->by_match || subject->notes & KEV_NOTE_TRACK || w->tag) /* by which it may track again */
                list_append(&s->all, &w->all);
        atomic_store(&s->shared.wants_details, true);
        return 0;
}

void processes_restored(struct source *source) {
        struct processes *s = processes_of(source);

        forget_restored(s);
        if (s->is_restored && s->rescan_again) { /* after a loss it was to look again */
                s->has_lost = true;
                rescan_start(s);
        }
        if (s->state == FEED_CLOSED && source->context->settings.keeps_feed)
                processes_start_feed(s);
        else if (s->is_restored && !processes_are_watched(s)) {
                s->has_profiles = false;
                processes_set_idle_timer(s);
        }
}
