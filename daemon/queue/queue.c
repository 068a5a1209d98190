/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "queue.h"

#include <errno.h>
#include <string.h>

#include "fold.h"
#include "log.h"

enum { MALLOC_OVERHEAD = 32 }; /* of an entry and its event together, about */

void queue_init(struct queue *queue, struct queue_context *context, const struct queue_listener *listener,
                struct account *account, const struct asker *asker, size_t bytes_max) {
        *queue = (struct queue){
                .context = context,
                .listener = listener,
                .account = account,
                .asker = asker,
                .bytes_max = bytes_max,
        };
        list_init(&queue->pending);
        list_init(&queue->levels);
        list_init(&queue->to_look);
}

bool queue_close_some(struct queue *queue, size_t n) {
        struct hash *watches = &queue->watches;

        for (; n > 0 && watches->n_nodes > 0; n--) {
                while (!watches->buckets[queue->closed % watches->n_buckets])
                        queue->closed++;
                watch_free(container_of(watches->buckets[queue->closed % watches->n_buckets], struct watch, node));
        }
        return watches->n_nodes == 0;
}

void queue_close(struct queue *queue) {
        (void)queue_close_some(queue, SIZE_MAX);
        hash_free(&queue->watches);
}

/* ---- entries ------------------------------------------------------------------------------ */

size_t event_charge(const struct event *event) {
        return sizeof(struct entry) + event->allocated + MALLOC_OVERHEAD;
}

static bool is_held(const struct watch *watch) {
        return watch->disabled || settle_is_holding(watch->settle);
}

struct entry *queue_append(struct queue *queue, struct watch *watch, struct event *event) {
        bool was_empty = !queue_has_events(queue);
        struct entry *entry = calloc(1, sizeof(*entry));

        if (!entry) {
                event_unref(event);
                return NULL;
        }
        entry->watch = watch;
        entry->event = event;
        entry->charge = event_charge(event);
        list_init(&entry->in_queue);
        list_append(&watch->entries, &entry->in_watch);
        account_charge_anyway(queue->account, RESOURCE_QUEUE_BYTES, entry->charge);
        queue->bytes += entry->charge;
        queue->n_entries++;
        queue->account->n_entries++;
        queue->compaction.n_appended++;
        if (is_held(watch))
                return entry;
        list_append(&queue->pending, &entry->in_queue);
        if (was_empty)
                queue->listener->ready(queue);
        return entry;
}

void entry_free(struct entry *entry) {
        struct queue *queue = entry->watch->queue;

        if (entry->is_folded)
                hash_remove(entry->watch->folded, &entry->node);
        if (entry->watch->lost == entry)
                entry->watch->lost = NULL;
        list_remove(&entry->in_queue);
        list_remove(&entry->in_watch);
        account_return(queue->account, RESOURCE_QUEUE_BYTES, entry->charge);
        queue->bytes -= entry->charge;
        queue->n_entries--;
        queue->account->n_entries--;
        event_unref(entry->event);
        free(entry);
}

void entry_put_last(struct entry *entry) {
        bool pending = !list_empty(&entry->in_queue);

        list_remove(&entry->in_queue);
        list_remove(&entry->in_watch);
        list_append(&entry->watch->entries, &entry->in_watch);
        if (pending)
                list_append(&entry->watch->queue->pending, &entry->in_queue);
}

void entry_replace(struct entry *entry, struct event *event) {
        struct queue *queue = entry->watch->queue;
        size_t charge = event_charge(event);

        account_return(queue->account, RESOURCE_QUEUE_BYTES, entry->charge);
        account_charge_anyway(queue->account, RESOURCE_QUEUE_BYTES, charge);
        queue->bytes += charge - entry->charge;
        entry->charge = charge;
        event_unref(entry->event);
        entry->event = event;
}

/* ---- in ------------------------------------------------------------------------------------- */

bool queue_has_room(const struct queue *queue, const struct event *event) {
        size_t charge = event_charge(event), limit = account_limit(queue->account, RESOURCE_QUEUE_BYTES);

        return queue->bytes + charge <= queue->bytes_max && queue->account->used[RESOURCE_QUEUE_BYTES] + charge <= limit;
}

static void discard(struct queue *queue, struct event *event) {
        queue_count(queue, FIGURE_DISCARDED);
        event_unref(event);
}

void queue_push(struct queue *queue, struct watch *watch, struct event *event) {
        settle_touch(watch->settle);
        /* A state is told as it is when it may be told. */
        if (watch->disabled && filter_is_of_descriptor(watch->filter)) {
                discard(queue, event);
                return;
        }
        /* A watch that is delivered once has one event, which takes up what follows
         * as far as one event can say it. */
        bool once = watch->flags & KEV_FLAG_ONESHOT && !list_empty(&watch->entries), full;

        if (once && !merge_is_single(watch->filter)) {
                discard(queue, event);
                return;
        }
        if (watch->folded && watch->folded->n_nodes > 0 && fold_in(watch, event)) {
                event_unref(event);
                return;
        }
        full = !queue_has_room(queue, event);
        queue->account->met[RESOURCE_QUEUE_BYTES] += full;
        if (!full) /* the next time it begins with what loses least */
                queue->compaction.is_under_way = false;
        if ((once || full) && merge_event(queue, watch, event))
                return;
        if (queue_append(queue, watch, event))
                fold_put_last(watch, event);
        else
                queue_lose(queue, watch);
}

/* No memory for an event. What can be said without is said: the connection's
 * end, from which everybody knows what to do. */
void queue_lose(struct queue *queue, struct watch *watch) {
        log_warning("no memory for an event of the watch %lld", (long long)watch->id);
        queue_count(queue, FIGURE_DISCARDED);
        queue->listener->lost(queue);
}

/* ---- out -------------------------------------------------------------------------------------- */

void queue_let_go(struct watch *watch) {
        struct queue *queue = watch->queue;
        bool was_empty = !queue_has_events(queue);

        if (is_held(watch))
                return;
        list_for_each(link, &watch->entries) {
                struct entry *entry = list_entry(link, struct entry, in_watch);

                if (list_empty(&entry->in_queue))
                        list_append(&queue->pending, &entry->in_queue);
        }
        if (was_empty && queue_has_events(queue))
                queue->listener->ready(queue);
}

/* Keeps a watch's events back, or lets them go. */
void queue_hold(struct watch *watch, bool hold) {
        if (watch->disabled == hold)
                return;
        watch->queue->version++;
        watch->disabled = watch->subscription.held = hold;
        if (!hold && filter_is_of_descriptor(watch->filter)) {
                watch_look(watch);
                return;
        }
        if (!hold) {
                queue_let_go(watch);
                return;
        }
        list_for_each(link, &watch->entries)
                list_remove(&list_entry(link, struct entry, in_watch)->in_queue);
}

void queue_look_again(struct queue *queue) {
        list_splice(&queue->to_look, &queue->levels);
}

size_t queue_look_some(struct queue *queue, size_t n_max) {
        struct list *entry;
        size_t n = 0;

        for (; n < n_max && (entry = list_pop(&queue->to_look)); n++)
                watch_look(list_entry(entry, struct watch, in_levels));
        return n;
}

static int put_with_more(struct buffer *b, const struct entry *entry, uint64_t seq) {
        struct event with_more = *entry->event, *event;
        int r;

        with_more.count += entry->more;
        r = event_new(&with_more, &event);
        if (r < 0)
                return r;
        event_put(b, event, entry->watch->id, seq);
        event_unref(event);
        return 0;
}

int queue_take(struct queue *queue, struct buffer *b) {
        struct entry *entry = list_entry(queue->pending.next, struct entry, in_queue);
        struct watch *watch = entry->watch;
        size_t start = b->size;
        bool is_last = entry->event->flags & KEV_FLAG_EOF;
        int r = 0;

        if (entry->more > 0)
                r = put_with_more(b, entry, queue->seq + 1);
        else
                event_put(b, entry->event, watch->id, queue->seq + 1);
        if (r < 0 || b->error) {
                b->size = start;
                return r < 0 ? r : b->error;
        }
        queue->seq++;
        queue->delivered++;
        queue_count(queue, FIGURE_DELIVERED);
        if (is_last && !filter_is_of_descriptor(watch->filter)) { /* of those one may begin anew */
                watch->is_over = true;
                queue->version++;
        }
        entry_free(entry);
        if (!list_empty(&watch->in_levels)) { /* those that had no room in the reply come first, the next time */
                list_remove(&watch->in_levels);
                list_append(&queue->levels, &watch->in_levels);
        }
        if (watch->flags & KEV_FLAG_ONESHOT)
                watch_free(watch);
        else if (watch->flags & KEV_FLAG_DISPATCH)
                queue_hold(watch, true);
        return 0;
}
