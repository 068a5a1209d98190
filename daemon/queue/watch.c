/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Watches: made from what a client says, told by a source what happened, and
 * turning that into events of their queue.
 */

#include <errno.h>
#include <string.h>

#include "queue.h"
#include "watch_options.h"

void queue_context_init(struct queue_context *context, struct sources *sources) {
        *context = (struct queue_context){ .sources = sources };
}

void queue_context_free(struct queue_context *context) {
        hash_free(&context->prefixes);
        hash_free(&context->options);
        buffer_free(&context->path);
        buffer_free(&context->from_path);
}

static void count_watch(struct queue_context *context, bool more) {
        context->n_watches += more ? 1 : (size_t)-1;
        if (context->changed)
                context->changed(context);
}

/* ---- prefixes ------------------------------------------------------------------------- */

static struct prefix *prefix_get(struct queue_context *context, const char *text, size_t size) {
        uint64_t hash;
        struct prefix *p;

        while (size > 1 && text[size - 1] == '/')
                size--;
        hash = hash_bytes(text, size, 0);
        for (struct hash_node *n = hash_first(&context->prefixes, hash); n; n = hash_next(n)) {
                p = container_of(n, struct prefix, node);
                if (p->size == size && memcmp(p->text, text, size) == 0) {
                        p->refs++;
                        return p;
                }
        }
        p = malloc(sizeof(*p) + size + 1);
        if (!p)
                return NULL;
        p->refs = 1;
        p->size = size;
        memcpy(p->text, text, size);
        p->text[size] = 0;
        if (hash_add(&context->prefixes, &p->node, hash) < 0) {
                free(p);
                return NULL;
        }
        return p;
}

static void prefix_put(struct queue_context *context, struct prefix *p) {
        if (!p || --p->refs > 0)
                return;
        hash_remove(&context->prefixes, &p->node);
        free(p);
}

/* ---- reports become events --------------------------------------------------------------- */

static const struct match *match_of(const struct watch *watch) {
        return watch_options_match(watch->options);
}

/* The watched path, and what is below it. */
static struct event_path join(struct buffer *b, const struct prefix *prefix, struct event_path below) {
        buffer_reset(b); /* no event has another's error */
        if (!below.bytes)
                return (struct event_path){ 0 };
        if (prefix)
                buffer_put(b, prefix->text, prefix->size);
        if (below.size > 0) {
                if (prefix && prefix->text[prefix->size - 1] != '/')
                        buffer_put_literal(b, "/");
                buffer_put(b, below.bytes, below.size);
        }
        if (b->size == 0)
                return (struct event_path){ 0 }; /* a passed descriptor, itself */
        buffer_put(b, "", 1);
        return (struct event_path){ b->data, b->size - 1 };
}

/* With oneshot the watch ends with the event, with dispatch it is disabled. */
static uint32_t flags_of(const struct watch *watch, const struct report *report) {
        return report->flags | (watch->flags & (KEV_FLAG_ONESHOT | KEV_FLAG_DISPATCH));
}

/* Who did it, as far as the watch wants to know and its owner may. */
static bool wants_process(const struct watch *watch, const struct report *report) {
        return report->process && (watch->filter != KEV_FILTER_TREE || watch->subscription.notes & KEV_NOTE_WHO);
}

/* /proc would tell it to the process's own user, and to root. */
static bool may_know_exe(const struct watch *watch, const struct event_process *process) {
        uid_t uid = watch->queue->asker->uid;

        return uid == 0 || ((int64_t)uid == process->uid && !process->has_other_ids);
}

/* Whether what was made of the report for the last watch will do for this one. */
static bool has_process_for(const struct event *event, const struct watch *watch, const struct report *report) {
        if (!wants_process(watch, report))
                return !event->process;
        return event->process && (!event->process->exe) ==
                                         (!report->process->exe || !may_know_exe(watch, report->process));
}

static struct event *make_event(struct watch *watch, const struct report *report, uint64_t notes) {
        struct event_process process;
        struct queue_context *context = watch->queue->context;
        struct event template = {
                .filter = watch->filter,
                .kind = report->kind,
                .flags = flags_of(watch, report),
                .notes = notes,
                .count = report->count,
                .realtime_usec = report->realtime_usec,
                .data = report->data,
                .link = report->link,
        }, *event;

        if (wants_process(watch, report)) {
                process = *report->process;
                if (!may_know_exe(watch, &process))
                        process.exe = NULL;
                template.process = &process;
        }

        template.path = join(&context->path, watch->prefix, report->below);
        template.from_path = join(&context->from_path, watch->prefix, report->from_below);
        if (context->path.error || context->from_path.error)
                return NULL;
        return event_new(&template, &event) < 0 ? NULL : event;
}

/* A directory that moves takes with it what is below: the event is for whoever may know of that, too. */
static bool is_wanted_at(const struct match *match, const struct report *report, struct event_path path) {
        bool moves = report->kind == KEV_KIND_DIRECTORY && report->notes & (KEV_NOTE_RENAME | KEV_NOTE_MOVEDOUT);

        return path.bytes && (match_path(match, path) || (moves && match_below(match, path)));
}

/* Of one report all watches with the same options want the same. */
static bool is_wanted(const struct watch *watch, struct report *report) {
        const struct match *match = match_of(watch);

        if (!match || report->notes & NOTES_UNASKED)
                return true;
        if (report->judged_by != match) {
                source_n_judged++;
                report->judged_by = match;
                report->is_wanted = is_wanted_at(match, report, report->below) ||
                                    is_wanted_at(match, report, report->from_below);
        }
        return report->is_wanted;
}

/* Whether a directory's rename brings into sight what is below it. */
static bool brings_into_sight(const struct watch *watch, const struct report *report) {
        const struct match *match = match_of(watch);

        return match && report->kind == KEV_KIND_DIRECTORY && report->notes & KEV_NOTE_RENAME &&
               report->from_below.bytes && match_below(match, report->below) &&
               !match_same_below(match, report->from_below, report->below);
}

static void tell(struct watch *watch, struct report *report, uint64_t notes) {
        queue_count(watch->queue, FIGURE_EVENTS_IN);
        if (notes & KEV_NOTE_RESCAN)
                queue_count(watch->queue, FIGURE_RESCANS);
        watch->subscription.source->n_events++;
        if (!report->event || report->event_key != watch->prefix || report->event->notes != notes ||
            report->event->flags != flags_of(watch, report) || report->event->filter != watch->filter ||
            !has_process_for(report->event, watch, report)) {
                report->event = event_unref(report->event);
                report->event = make_event(watch, report, notes);
                report->event_key = watch->prefix;
        }
        if (report->event)
                queue_push(watch->queue, watch, event_ref(report->event));
        else
                queue_lose(watch->queue, watch);
}

/* A state is told once, until somebody waits again: queue_look_again(). */
static bool is_told(struct watch *watch) {
        if (!(watch->flags & KEV_FLAG_LEVEL) || watch->disabled)
                return false;
        if (!list_empty(&watch->in_levels))
                return true;
        list_append(&watch->queue->levels, &watch->in_levels);
        return false;
}

static void on_report(struct subscription *subscription, struct report *report) {
        struct watch *watch = container_of(subscription, struct watch, subscription);
        uint64_t notes = report->notes & (subscription->notes | NOTES_UNASKED);
        struct report rescan;

        /* The end is for those, too, who asked for none of the notes. */
        if ((!notes && report->notes && !(report->flags & KEV_FLAG_EOF)) || !is_wanted(watch, report) || is_told(watch))
                return;
        tell(watch, report, notes);
        if (!brings_into_sight(watch, report))
                return;
        rescan = (struct report){
                .notes = KEV_NOTE_RESCAN, .kind = KEV_KIND_DIRECTORY, .data = ABSENT, .count = 1,
                .realtime_usec = report->realtime_usec, .below = report->below,
        };
        tell(watch, &rescan, rescan.notes);
        report_done(&rescan);
}

static void on_attached(struct subscription *subscription, const struct refusal *refusal) {
        struct watch *watch = container_of(subscription, struct watch, subscription);
        struct queue *queue = watch->queue;
        int64_t id = watch->id;

        if (watch->is_restored) {
                watch_restored(watch, refusal);
                refusal = NULL;
        }
        if (refusal) {
                queue_count(queue, FIGURE_REFUSED);
                watch_free(watch);
        }
        queue->listener->added(queue, id, refusal);
}

static uint8_t with_disabled(uint8_t flags, bool disabled) {
        return (uint8_t)(disabled ? flags | KEV_FLAG_DISABLED : flags & ~KEV_FLAG_DISABLED);
}

/* What it had told was forgotten: let go, it tells what holds. */
static void take_back_flags(struct watch *watch) {
        watch->queue->version++;
        watch->flags = watch->flags_before;
        queue_hold(watch, true);
        queue_hold(watch, watch->flags_before & KEV_FLAG_DISABLED);
}

static void on_modified(struct subscription *subscription, const struct refusal *refusal) {
        struct watch *watch = container_of(subscription, struct watch, subscription);

        if (refusal)
                take_back_flags(watch);
        watch->queue->listener->added(watch->queue, watch->id, refusal);
}

static bool descends(const struct subscription *subscription, struct event_path directory) {
        source_n_judged++;
        return match_below(match_of(container_of(subscription, struct watch, subscription)), directory);
}

static bool sees_alike(const struct subscription *subscription, struct event_path a, struct event_path b) {
        return match_same_below(match_of(container_of(subscription, struct watch, subscription)), a, b);
}

/* A list is told no faster than it is taken. */
static bool has_room(const struct subscription *subscription) {
        const struct queue *queue = container_of(subscription, struct watch, subscription)->queue;

        return queue->bytes < queue->bytes_max / 2;
}

const struct sink queue_sink = {
        .report = on_report,
        .attached = on_attached,
        .modified = on_modified,
        .descends = descends,
        .sees_alike = sees_alike,
        .has_room = has_room,
};

/* ---- making and changing -------------------------------------------------------------------- */

struct watch *queue_find(struct queue *queue, int64_t id) {
        for (struct hash_node *n = hash_first(&queue->watches, hash_u64((uint64_t)id)); n; n = hash_next(n)) {
                struct watch *watch = container_of(n, struct watch, node);

                if (watch->id == id)
                        return watch;
        }
        return NULL;
}

/* What a watch of some filters takes beside a place among the watches. */
static bool takes_more(enum kev_filter filter, enum resource *ret) {
        *ret = filter == KEV_FILTER_TIMER ? RESOURCE_TIMERS : RESOURCE_DESCRIPTORS;
        return filter == KEV_FILTER_TIMER || filter_is_of_descriptor(filter);
}

static int charge_watch(struct queue *queue, enum kev_filter filter, struct refusal *refusal) {
        enum resource more;

        if (account_charge(queue->account, RESOURCE_WATCHES, 1) < 0)
                return refuse(refusal, EDQUOT, "the limit of %zu watches a user is reached",
                              account_limit(queue->account, RESOURCE_WATCHES));
        if (!takes_more(filter, &more) || account_charge(queue->account, more, 1) == 0)
                return 0;
        account_return(queue->account, RESOURCE_WATCHES, 1);
        return refuse(refusal, EDQUOT, "the limit of %zu %s a user is reached", account_limit(queue->account, more),
                      resource_name(more));
}

static void return_watch(struct queue *queue, enum kev_filter filter) {
        enum resource more;

        account_return(queue->account, RESOURCE_WATCHES, 1);
        if (takes_more(filter, &more))
                account_return(queue->account, more, 1);
}

static void forget_entries(struct watch *watch) {
        list_for_each(entry, &watch->entries) {
                queue_count(watch->queue, FIGURE_DISCARDED);
                entry_free(list_entry(entry, struct entry, in_watch));
        }
}

void watch_look(struct watch *watch) {
        list_remove(&watch->in_levels);
        forget_entries(watch);
        source_look(&watch->subscription);
}

static void uncharge(struct queue *queue, size_t bytes) {
        account_return(queue->account, RESOURCE_WATCH_BYTES, bytes);
        queue->watch_bytes -= bytes;
}

void watch_free(struct watch *watch) {
        struct queue *queue = watch->queue;

        queue->version++;
        source_detach(&watch->subscription);
        forget_entries(watch);
        list_remove(&watch->in_levels);
        if (watch->folded)
                hash_free(watch->folded);
        free(watch->folded);
        settle_free(watch->settle);
        watch_options_put(queue->context, watch->options);
        prefix_put(queue->context, watch->prefix);
        hash_remove(&queue->watches, &watch->node);
        queue->n_of_filter[watch->filter]--;
        count_watch(queue->context, false);
        uncharge(queue, watch->charged);
        return_watch(queue, watch->filter);
        free(watch);
}

static int charge(struct queue *queue, size_t bytes, struct refusal *refusal) {
        if (account_charge(queue->account, RESOURCE_WATCH_BYTES, bytes) == 0) {
                queue->watch_bytes += bytes;
                return 0;
        }
        return refuse(refusal, EDQUOT, "the limit of %zu bytes for the paths and globs of a user's watches is reached",
                      account_limit(queue->account, RESOURCE_WATCH_BYTES));
}

/* With their bytes charged. */
static int get_options(struct queue *queue, const struct watch_spec *spec, struct watch_options **ret_options,
                       struct refusal *refusal) {
        const char *glob = "";
        int r = watch_options_get(queue->context, spec, ret_options, &glob);

        if (r == -EINVAL)
                return refuse(refusal, EINVAL, "tree: \"%.80s\" is not a glob", glob);
        if (r < 0)
                return refuse(refusal, -r, "no memory");
        r = charge(queue, watch_options_bytes(*ret_options), refusal);
        if (r < 0) {
                watch_options_put(queue->context, *ret_options);
                *ret_options = NULL;
        }
        return r;
}

static void drop_options(struct queue *queue, struct watch_options *options) {
        uncharge(queue, watch_options_bytes(options));
        watch_options_put(queue->context, options);
}

void watch_fill_subject(const struct watch *watch, const struct watch_spec *spec, int fd, struct subject *ret) {
        *ret = (struct subject){
                .filter = spec->filter,
                .notes = spec->notes & ~KEV_NOTE_WHO ? spec->notes :
                                                       spec->notes | kev_filter_default_notes(spec->filter),
                .path = spec->path,
                .name = spec->name,
                .fd = fd,
                .pid = spec->pid,
                .data = spec->data,
                .flags = spec->flags,
                .match = spec->match.given ? &spec->match : NULL,
                .waits = spec->notes & KEV_NOTE_BACK,
                .list = spec->tree.list,
                .exclude_self = spec->tree.exclude_self,
                .cross_mounts = spec->tree.cross_mounts,
                .asker = watch->queue->asker,
        };
        if (ret->notes & KEV_NOTE_TRACK) /* it is what that tells */
                ret->notes |= KEV_NOTE_CHILD;
        if (ret->filter == KEV_FILTER_POLL) /* they come unasked */
                ret->notes |= KEV_NOTE_ERR | KEV_NOTE_HUP;
}

static int make_watch(struct queue *queue, const struct watch_spec *spec, struct watch **ret_watch,
                      struct refusal *refusal) {
        struct watch *watch;
        int r = charge_watch(queue, spec->filter, refusal);

        if (r < 0)
                return r;
        watch = calloc(1, sizeof(*watch));
        r = watch ? hash_add(&queue->watches, &watch->node, hash_u64((uint64_t)spec->id)) : -ENOMEM;
        if (r < 0) {
                free(watch);
                return_watch(queue, spec->filter);
                return refuse(refusal, ENOMEM, "no memory");
        }
        watch->queue = queue;
        watch->id = spec->id;
        watch->filter = (uint8_t)spec->filter;
        watch->flags = (uint8_t)spec->flags;
        watch->disabled = watch->subscription.held = spec->flags & KEV_FLAG_DISABLED;
        list_init(&watch->entries);
        list_init(&watch->in_levels);
        list_init(&watch->subscription.link);
        queue->version++;
        queue->n_of_filter[watch->filter]++;
        count_watch(queue->context, true);
        *ret_watch = watch;
        return 0;
}

/* About what the source makes of the globs. */
static size_t predicate_bytes(const struct process_match *match) {
        size_t bytes = 0;

        bytes += match->exe ? strlen(match->exe) : 0;
        bytes += match->comm ? strlen(match->comm) : 0;
        bytes += match->cgroup ? strlen(match->cgroup) : 0;
        return bytes * 8;
}

static int fill_watch(struct watch *watch, const struct watch_spec *spec, struct refusal *refusal) {
        size_t bytes = spec->path_size + predicate_bytes(&spec->match);
        int r = charge(watch->queue, bytes, refusal); /* the path may be shared */

        if (r < 0)
                return r;
        watch->charged = bytes;
        if (spec->path) {
                watch->prefix = prefix_get(watch->queue->context, spec->path, spec->path_size);
                if (!watch->prefix)
                        return refuse(refusal, ENOMEM, "no memory");
        }
        r = get_options(watch->queue, spec, &watch->options, refusal);
        if (r < 0)
                return r;
        watch->charged += watch_options_bytes(watch->options);
        watch->subscription.selective = match_of(watch) != NULL;
        r = settle_new(watch, &spec->tree, &watch->settle);
        return r < 0 ? refuse(refusal, -r, "no memory") : 0;
}

int watch_make(struct queue *queue, const struct watch_spec *spec, struct watch **ret_watch, struct refusal *refusal) {
        struct watch *watch = NULL;
        int r = make_watch(queue, spec, &watch, refusal);

        *ret_watch = NULL;
        if (r < 0)
                return r;
        r = fill_watch(watch, spec, refusal);
        watch->is_of_many = spec->match.given || spec->notes & KEV_NOTE_TRACK;
        if (r < 0)
                watch_free(watch);
        else
                *ret_watch = watch;
        return r;
}

/* A timer begins anew with other data, and of what it had told nothing is left, least of all its end. If its moment was
 * taken the last daemon has left no source for it. */
static int change_subject(struct watch *watch, const struct subject *subject, struct refusal *refusal) {
        bool begins = watch->filter == KEV_FILTER_TIMER && subject->data != ABSENT;
        int r;

        if (begins && !watch->subscription.source)
                r = sources_attach(watch->queue->context->sources, &watch->subscription, subject, refusal);
        else
                r = source_modify(&watch->subscription, subject, refusal);
        if (r >= 0 && begins) {
                watch->is_over = false;
                forget_entries(watch);
        }
        return r;
}

/* kqueue(2): a timer that is added again starts again, and what it had counted is forgotten. */
static int restart(struct watch *watch, const struct watch_spec *spec, struct refusal *refusal) {
        struct subject subject;
        int r;

        watch_fill_subject(watch, spec, -1, &subject);
        r = change_subject(watch, &subject, refusal);
        if (r < 0)
                return r;
        watch->queue->version++;
        watch->flags = (uint8_t)spec->flags;
        queue_hold(watch, spec->flags & KEV_FLAG_DISABLED);
        return 0;
}

static int add(struct queue *queue, const struct watch_spec *spec, int fd, struct refusal *refusal) {
        struct subject subject;
        struct watch *watch = NULL;
        int r;

        if (spec->refusal[0])
                return refuse(refusal, EINVAL, "%s", spec->refusal);
        watch = queue_find(queue, spec->id);
        if (watch && watch->filter == KEV_FILTER_TIMER && spec->filter == KEV_FILTER_TIMER)
                return restart(watch, spec, refusal);
        if (watch)
                return refuse(refusal, EEXIST, "id: %lld is in use on this connection", (long long)spec->id);
        r = watch_make(queue, spec, &watch, refusal);
        if (r < 0)
                return r;
        watch_fill_subject(watch, spec, fd, &subject);
        r = sources_attach(queue->context->sources, &watch->subscription, &subject, refusal);
        if (r < 0)
                watch_free(watch);
        return r;
}

int queue_add(struct queue *queue, const struct watch_spec *spec, int fd, struct refusal *refusal) {
        int r = add(queue, spec, fd, refusal);

        if (r < 0)
                queue_count(queue, FIGURE_REFUSED);
        return r;
}

static struct watch *find_or_refuse(struct queue *queue, int64_t id, struct refusal *refusal) {
        struct watch *watch = queue_find(queue, id);

        if (!watch)
                (void)refuse(refusal, ENOENT, "id: no watch has the number %lld", (long long)id);
        return watch;
}

/* What it is told of its options, with those that it has for as long as it is there. */
static struct watch_spec complete(const struct watch *watch, const struct watch_spec *spec) {
        struct watch_spec whole = *spec;

        if (spec->tree.given && watch->options) {
                whole.tree.list |= watch->options->list;
                whole.tree.cross_mounts |= watch->options->cross_mounts;
        }
        return whole;
}

/* What is not said stays as it is. */
static void fill_change(const struct watch *watch, const struct watch_spec *spec, int fd, struct subject *ret) {
        watch_fill_subject(watch, spec, fd, ret);
        if (spec->notes == 0)
                ret->notes = watch->subscription.notes;
        if (!spec->tree.given && watch->options)
                ret->exclude_self = watch->options->exclude_self;
}

int queue_modify(struct queue *queue, const struct watch_spec *spec, int fd, struct refusal *refusal) {
        struct watch *watch = find_or_refuse(queue, spec->id, refusal);
        struct watch_options *options = NULL;
        struct settle *settle = NULL;
        struct watch_spec whole;
        struct subject subject;
        int r;

        if (!watch)
                return -refusal->error;
        if (spec->refusal[0])
                return refuse(refusal, EINVAL, "%s", spec->refusal);
        if (spec->filter != watch->filter)
                return refuse(refusal, EINVAL, "filter: can't be changed; remove the watch and add another");
        whole = complete(watch, spec);
        r = get_options(queue, &whole, &options, refusal);
        if (r < 0)
                return r;
        if (settle_new(watch, &spec->tree, &settle) < 0) {
                drop_options(queue, options);
                return refuse(refusal, ENOMEM, "no memory");
        }
        fill_change(watch, spec, fd, &subject);
        r = change_subject(watch, &subject, refusal);
        if (r < 0) {
                settle_free(settle);
                drop_options(queue, options);
                return r;
        }
        watch->is_of_many |= (subject.notes & KEV_NOTE_TRACK) != 0;
        if (spec->tree.given) {
                bool alike = match_equal(watch_options_match(options), match_of(watch));

                watch->charged += watch_options_bytes(options) - watch_options_bytes(watch->options);
                drop_options(queue, watch->options);
                watch->options = options;
                watch->subscription.selective = match_of(watch) != NULL;
                if (!alike)
                        source_select(&watch->subscription);
                settle_free(watch->settle);
                watch->settle = settle;
                queue_let_go(watch);
        } else
                drop_options(queue, options);
        queue->version++;
        watch->flags_before = with_disabled(watch->flags, watch->disabled);
        watch->flags = (uint8_t)spec->flags;
        queue_hold(watch, spec->flags & KEV_FLAG_DISABLED);
        if (r == 1)
                forget_entries(watch);
        else if (filter_is_of_descriptor(watch->filter) && !watch->disabled)
                watch_look(watch); /* as after epoll_ctl(2), EPOLL_CTL_MOD */
        return r;
}

int queue_remove(struct queue *queue, int64_t id, struct refusal *refusal) {
        struct watch *watch = find_or_refuse(queue, id, refusal);

        if (!watch)
                return -refusal->error;
        watch_free(watch);
        return 0;
}

int queue_enable(struct queue *queue, int64_t id, bool enable, struct refusal *refusal) {
        struct watch *watch = find_or_refuse(queue, id, refusal);

        if (!watch)
                return -refusal->error;
        queue_hold(watch, !enable);
        watch->flags_before = with_disabled(watch->flags_before, !enable); /* a change under way may yet be refused */
        return 0;
}
