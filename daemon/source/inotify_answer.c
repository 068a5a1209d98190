/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Lookups that are under way, and their answers: inotify.h says when one is handled. */

#include "inotify.h"

#include <errno.h>
#include <string.h>
#include <sys/inotify.h>

enum {
        ANSWERS_A_TURN = 256,
        ENTRIES_AN_ANSWER = 16, /* that cost as much as an answer */
        ASKED_MAX = 512, /* then events wait, since they lead to questions faster than these are answered, */
        ASKED_MAX_MSEC = 100, /* unless nothing is, where a file system hangs, */
        ASKED_LIMIT = 64 * 1024, /* and then there are no more */
        AWAITED_RETRY_USEC = 200,
        AWAITED_MAX_MSEC = 200, /* on a busy machine a thread may wait as long for a processor */
};

static size_t bytes_of(const struct lookup *lookup) {
        return sizeof(*lookup) + (lookup->path ? strlen(lookup->path) : 0);
}

int submit(struct inotify *s, struct lookup *lookup, uid_t user, struct dir *root, struct dir *stop) {
        int r;

        if (s->n_asked >= ASKED_LIMIT)
                return -EAGAIN;
        lookup->context = &s->lookup_context;
        lookup->user = user;
        lookup->n_placed = s->tree.n_placed;
        /* What an answer leads to ask is a part of its question: who waits for that waits for this. */
        if (lookup->serial == 0)
                lookup->serial = s->answering ? s->answering : ++s->serial;
        lookup->order = ++s->order;
        r = lookup_submit(s->source.context->workers, lookup);
        if (r < 0)
                return r;
        if (s->n_asked++ == 0)
                s->answered_nsec = monotonic_nsec();
        lookup->root = tree_ref(root);
        lookup->stop = tree_ref(stop);
        list_append(&s->lookups, &lookup->link);
        s->answer_bytes += bytes_of(lookup);
        if (lookup->kind == LOOKUP_CRAWL)
                tree_add_crawl(s, lookup);
        return 0;
}

static void end_lookup(struct inotify *s, struct lookup *lookup) {
        list_remove(&lookup->link);
        s->answer_bytes -= bytes_of(lookup);
        if (lookup->kind == LOOKUP_NAME)
                exchange_settle(s, lookup);
        list_remove(&lookup->among);
        list_splice(&s->unblocked, &lookup->blocked);
        tree_unref(&s->tree, lookup->root);
        tree_unref(&s->tree, lookup->stop);
        tree_unref(&s->tree, lookup->moved);
        lookup_free(lookup);
}

static void on_end(struct inotify *s, struct lookup *lookup) {
        end_lookup(s, lookup);
        marks_lay_ghosts(s);
        if (list_empty(&s->lookups)) {
                marks_remove_orphans(s);
                marks_forget_late(s);
                names_forget_touched(s);
        }
        tree_check_starting(s);
}

/* Returns what it cost, in directories without entries. */
static unsigned handle_answer(struct inotify *s, struct lookup_message *message) {
        struct lookup *lookup = message->lookup;

        if (!message->end) {
                struct found *found = container_of(message, struct found, message);
                unsigned cost = 1 + (unsigned)(found->n_entries / ENTRIES_AN_ANSWER);

                tree_on_found(s, found);
                s->answer_bytes -= sizeof(*found) + found->size;
                free(found);
                return cost;
        }
        switch (lookup->kind) {
        case LOOKUP_RESOLVE:
                tree_on_resolved(s, lookup);
                break;
        case LOOKUP_CRAWL:
                tree_on_crawled(s, lookup);
                break;
        case LOOKUP_VNODE:
                vnode_on_watched(s, lookup);
                break;
        case LOOKUP_STAT:
                vnode_on_stat(s, lookup);
                break;
        case LOOKUP_PLACE:
                tree_on_place(s, lookup);
                break;
        case LOOKUP_NAME:
                exchange_on_name(s, lookup);
                break;
        case LOOKUP_LIST:
                list_on_listed(lookup);
                break;
        case LOOKUP_ACCESS:
                tree_on_access(s, lookup);
                break;
        }
        on_end(s, lookup);
        return 1;
}

static unsigned answer(struct inotify *s, struct lookup_message *message) {
        unsigned cost;

        list_remove(&message->link);
        list_remove(&message->due);
        if (message->first_wd >= 0)
                hash_remove(&s->answered, &message->node);
        s->answering = message->lookup->serial;
        cost = handle_answer(s, message);
        s->answering = 0;
        return cost;
}

/* The answer that this wd is the first event of, and what the same lookup has told before. False: there is none. */
static bool answer_for(struct inotify *s, int wd) {
        struct hash_node *n = s->answered.n_nodes > 0 ? hash_first(&s->answered, hash_u64((uint64_t)wd)) : NULL;
        struct lookup_message *last, *message;
        struct lookup *lookup;

        while (n && container_of(n, struct lookup_message, node)->first_wd != wd)
                n = hash_next(n);
        if (!n)
                return false;
        last = container_of(n, struct lookup_message, node);
        lookup = last->lookup;
        do {
                message = list_entry(lookup->answers.next, struct lookup_message, link);
                (void)answer(s, message);
        } while (message != last);
        return true;
}

/* There may be many where directories come and go at once: they wait for nothing. */
static bool is_of_no_interest(const struct lookup_message *message) {
        const struct lookup *lookup = message->lookup;

        return message->end && lookup->error == ECANCELED && lookup->answers.next == &message->link;
}

void answers_take(struct inotify *s) {
        uint64_t now = monotonic_nsec();
        struct list *entry;

        while ((entry = mailbox_take(&s->mailbox))) {
                struct lookup_message *message = list_entry(entry, struct lookup_message, link);

                message->position = UINT64_MAX;
                list_append(&message->lookup->answers, &message->link);
                list_append(&s->due, &message->due);
                if (message->end) {
                        lookup_end_section(message->lookup);
                        s->n_asked--;
                        s->answered_nsec = now;
                } else
                        s->answer_bytes += sizeof(struct found) + container_of(message, struct found, message)->size;
                if (message->first_wd >= 0 &&
                    hash_add(&s->answered, &message->node, hash_u64((uint64_t)message->first_wd)) < 0)
                        inotify_doubt(s);
                if (is_of_no_interest(message))
                        (void)answer(s, message);
        }
}

void answers_place(struct inotify *s, uint64_t position) {
        for (struct list *entry = s->due.previous; entry != &s->due; entry = entry->previous) {
                struct lookup_message *message = list_entry(entry, struct lookup_message, due);

                if (message->position != UINT64_MAX)
                        break;
                message->position = position;
        }
}

void answers_handle(struct inotify *s) {
        unsigned cost = 0;

        while (!list_empty(&s->due)) {
                struct lookup_message *first = list_entry(s->due.next, struct lookup_message, due);

                if (!inotify_has_handled(s, first->position))
                        break;
                if (cost >= ANSWERS_A_TURN) {
                        mux_defer(s->mux, &s->go_on);
                        break;
                }
                cost += answer(s, first);
        }
}

static void on_awaited_timer(struct mux_timer *timer) {
        struct inotify *s = container_of(timer, struct inotify, awaited_timer);

        mux_defer(s->mux, &s->go_on);
}

bool answers_are_behind(struct inotify *s) {
        uint64_t now;

        if (s->n_asked < ASKED_MAX)
                return false;
        now = monotonic_nsec();
        if (now - s->answered_nsec > ASKED_MAX_MSEC * NSEC_PER_MSEC)
                return false;
        (void)mux_timer_set(s->mux, &s->awaited_timer, s->answered_nsec + ASKED_MAX_MSEC * NSEC_PER_MSEC + 1,
                            on_awaited_timer);
        return true;
}

/* Whether a lookup may be about to tell whose `wd` is: it was making a watch as the event came up, and still is. */
static bool is_awaited(struct inotify *s, int wd) {
        if (s->awaited_wd != wd) {
                s->awaited_wd = wd;
                s->awaited_sections = lookup_count_sections(&s->lookup_context);
                s->awaited_since = monotonic_nsec();
        }
        return !lookup_has_ended_sections(&s->lookup_context, s->awaited_sections);
}

/* False: its file system doesn't answer, and nobody else waits for it; it will be looked at again once it is known. */
static bool wait_on(struct inotify *s, int wd) {
        uint64_t now = monotonic_nsec();

        if (now - s->awaited_since > AWAITED_MAX_MSEC * NSEC_PER_MSEC) {
                mark_pass_over(s, wd);
                return false;
        }
        (void)mux_timer_set(s->mux, &s->awaited_timer, now + AWAITED_RETRY_USEC * NSEC_PER_USEC, on_awaited_timer);
        return true;
}

/* Of all that it may be about. */
static bool is_known(const struct mark *mark) {
        return mark && !mark->awaits_first;
}

bool answers_find_mark(struct inotify *s, const struct inotify_event *event, struct mark **ret_mark) {
        struct mark *mark = mark_find(s, event->wd);
        bool awaited;

        *ret_mark = mark;
        if (is_known(mark) || mark_is_late(s, event->wd))
                return true;
        awaited = is_awaited(s, event->wd); /* before the mailbox is looked into: what was told meanwhile is in it */
        answers_take(s);
        while (!is_known(mark) && answer_for(s, event->wd)) {
                mark = mark_find(s, event->wd);
                awaited &= mark && mark->awaits_first;
        }
        if (awaited && wait_on(s, event->wd))
                return false;
        s->awaited_wd = -1;
        if (mark)
                mark->awaits_first = false;
        *ret_mark = mark;
        return true;
}

void answers_free(struct inotify *s) {
        struct list *entry;

        answers_take(s);
        hash_free(&s->answered);
        while ((entry = list_pop(&s->due))) {
                struct lookup_message *message = list_entry(entry, struct lookup_message, due);

                list_remove(&message->link);
                if (!message->end)
                        free(container_of(message, struct found, message));
        }
        while (!list_empty(&s->lookups)) {
                struct lookup *lookup = list_entry(s->lookups.next, struct lookup, link);

                for (size_t i = 0; i < lookup->n_dirs; i++)
                        if (lookup->dirs[i])
                                lookup->dirs[i]->lookup = NULL;
                if (lookup->listing)
                        lookup->listing->asked = NULL;
                end_lookup(s, lookup);
        }
}
