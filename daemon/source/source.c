/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "source.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>

#include "broker.h"
#include "client.h"
#include "config.h"
#include "connector.h"
#include "deputy.h"
#include "feed.h"
#include "log.h"
#include "observer.h"
#include "process_info.h"
#include "signal_feed.h"
#include "state.h"

uint64_t source_n_judged;

static const struct source_class *const classes[] = {
        &source_crossings, &source_fanotify,  &source_inotify, &source_deputies, &source_processes,
        &source_pidfd,     &source_rtnetlink, &source_descriptors, &source_signals, &source_timer, &source_user,
};

_Static_assert(ARRAY_SIZE(classes) <= SOURCES_MAX, "struct sources has room for all");

const struct helper_programs source_helpers = {
        .deputy = deputy_run,
        .observer = observer_run,
#ifdef HAVE_BPF
        .processes = { .open = feed_bpf_load },
        .signals = { .open = signal_feed_bpf_load },
#endif
        .connector = { .open = connector_listen, .close = connector_ignore },
};

void refusal_set(struct refusal *refusal, int error, const char *format, ...) {
        int before = errno;
        va_list arguments;

        refusal->error = error;
        va_start(arguments, format);
        (void)vsnprintf(refusal->message, sizeof(refusal->message), format, arguments);
        va_end(arguments);
        errno = before;
}

int refuse_later(struct refusal *refusal, const char *option) {
        return refuse(refusal, EOPNOTSUPP, "%s: can't be added later; remove the watch and add another", option);
}

bool asker_sees_all_processes(const struct source_context *context, const struct asker *asker) {
        if (asker->uid == 0 || asker->observes)
                return true;
        if (!context->settings.has_observers)
                return false;
        for (size_t i = 0; i < asker->n_groups; i++)
                if (asker->groups[i] == context->settings.observers)
                        return true;
        return asker->gid == context->settings.observers;
}

int asker_open_process(const struct asker *asker) {
        int pidfd = asker->pid > 0 ? pidfd_open(asker->pid, 0) : -1;

        if (pidfd >= 0 && asker->process != 0 && pidfd_inode(pidfd) != asker->process) /* the number is another's by now */
                pidfd = safe_close(pidfd);
        return pidfd;
}

void report_done(struct report *report) {
        report->event = event_unref(report->event);
        report->event_key = report->judged_by = NULL;
}

struct report report_copy(const struct report *report) {
        struct report copy = *report;

        copy.event = NULL;
        copy.event_key = copy.judged_by = NULL;
        return copy;
}

void source_on_loss(struct source *source, struct losses *losses) {
        losses->open++;
        source->kernel_overflows++;
        source->context->kernel_overflows++;
}

void source_on_repaired(struct source *source, struct losses *losses) {
        source->losses_repaired += losses->under_repair;
        losses->open -= losses->under_repair;
        losses->under_repair = 0;
}

void source_forget_losses(struct source *source, struct losses *losses) {
        losses_begin_repair(losses);
        source_on_repaired(source, losses);
}

static bool needs_broker(const struct source_class *class) {
        return class == &source_fanotify || class == &source_deputies;
}

void sources_open(struct sources *sources, struct mux *mux, struct workers *workers, const struct sink *sink,
                  const struct source_settings *settings, int broker_fd) {
        *sources = (struct sources){
                .context = {
                        .mux = mux, .workers = workers, .sink = &crossing_sink, .upper = sink, .uid = geteuid(),
                        .settings = *settings, .broker_error = MIN(broker_fd, 0),
                },
                .n = ARRAY_SIZE(classes),
        };
        if (broker_fd >= 0)
                sources->context.broker_error = broker_open(mux, broker_fd, &sources->context.opener);
        observer_open(sources->context.opener);
        if (settings->acts_for_others && settings->files_error == 0)
                sources->context.broker = sources->context.opener;
        else if (sources->context.broker_error == 0)
                sources->context.broker_error = settings->files_error ? settings->files_error : -EOPNOTSUPP;
        for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
                int r = classes[i]->open(&sources->context, &sources->list[i]);

                if (r == 0) {
                        sources->list[i]->class = classes[i];
                        sources->list[i]->context = &sources->context;
                        continue;
                }
                log_at(needs_broker(classes[i]) ? LOG_DEBUG : LOG_WARNING, "%s is not to be had: %s", classes[i]->name,
                       strerror(-r));
                sources->list[i] = NULL;
                sources->failed[i] = classes[i];
                sources->errors[i] = -r;
        }
}

void sources_close(struct sources *sources) {
        for (size_t i = 0; i < sources->n; i++)
                if (sources->list[i])
                        sources->list[i]->class->close(sources->list[i]);
        sources->n = 0;
        sources->context.broker = NULL;
        observer_close();
        sources->context.opener = broker_close(sources->context.opener);
}

static int attach_to(struct source *source, struct subscription *subscription, const struct subject *subject,
                     struct refusal *refusal) {
        int r;

        subscription->source = source;
        subscription->notes = subject->notes;
        r = source->class->attach(source, subscription, subject, refusal);
        if (r < 0)
                subscription->source = NULL;
        else
                source->n_subscriptions++;
        return r;
}

static bool is_allowed(const struct sources *sources, const struct source_class *class,
                       const struct subject *subject) {
        enum file_mechanism m = sources->context.settings.file_mechanism;
        enum process_feed feed = sources->context.settings.process_feed;
        enum kev_filter filter = subject->filter;

        if (class == &source_pidfd && (feed == PROCESS_FEED_BPF || feed == PROCESS_FEED_CONNECTOR) && subject->fd < 0)
                return false;
        return (class->filters & 1u << filter) && (class == &source_crossings) == subject->cross_mounts &&
               !((class == &source_inotify || class == &source_deputies) && filter == KEV_FILTER_TREE && m == FILE_MECHANISM_FANOTIFY);
}

static int attach_from(struct sources *sources, size_t first, struct subscription *subscription,
                       const struct subject *subject, struct refusal *refusal) {
        struct refusal next;
        int refused = 0;

        for (size_t i = first; i < sources->n && (refused == 0 || refused == -EOPNOTSUPP); i++) {
                struct source *source = sources->list[i];
                const struct source_class *class = source ? source->class : sources->failed[i];
                int r;

                if (!is_allowed(sources, class, subject))
                        continue;
                if (source)
                        r = attach_to(source, subscription, subject, &next);
                else if (refused < 0) /* one that is there has said more */
                        continue;
                else
                        r = refuse(&next, EOPNOTSUPP, "filter: %s is not to be had here: %s", class->name,
                                   strerror(sources->errors[i]));
                if (r >= 0)
                        return r;
                refused = r;
                *refusal = next;
        }
        return refused < 0 ? refused : refuse(refusal, EOPNOTSUPP, "filter: %s is not served by this version",
                                              kev_filter_name(subject->filter));
}

int sources_attach(struct sources *sources, struct subscription *subscription, const struct subject *subject,
                   struct refusal *refusal) {
        return attach_from(sources, 0, subscription, subject, refusal);
}

int sources_pass_on(struct subscription *subscription, const struct subject *subject, struct refusal *refusal) {
        struct source *from = subscription->source;
        struct sources *sources = container_of(from->context, struct sources, context);
        size_t i = 0;

        while (sources->list[i] != from)
                i++;
        source_detach(subscription);
        return attach_from(sources, i + 1, subscription, subject, refusal);
}

int sources_attach_part(struct source *crossings, struct subscription *part, const struct subject *subject,
                        struct refusal *refusal) {
        return attach_from(container_of(crossings->context, struct sources, context), 0, part, subject, refusal);
}

const struct source *source_serving(const struct subscription *subscription) {
        const struct source *source = subscription->source;

        return source && source->class == &source_crossings ? crossing_served_by(subscription) : source;
}

int source_modify(struct subscription *subscription, const struct subject *subject, struct refusal *refusal) {
        struct source *source = subscription->source;
        int r = 0;

        if (source && source->class->modify)
                r = source->class->modify(source, subscription, subject, refusal);
        if (r >= 0)
                subscription->notes = subject->notes;
        return r;
}

void source_look(struct subscription *subscription) {
        struct source *source = subscription->source;

        if (source && source->class->look)
                source->class->look(source, subscription);
}

void source_select(struct subscription *subscription) {
        struct source *source = subscription->source;

        if (source && source->class->select)
                source->class->select(source, subscription);
}

void source_detach(struct subscription *subscription) {
        struct source *source = subscription->source;

        if (!source)
                return;
        source->class->detach(source, subscription);
        source->n_subscriptions--;
        subscription->source = NULL;
}

/* ---- for the next daemon --------------------------------------------------- */

static bool filter_is_of_files(enum kev_filter filter) {
        return filter == KEV_FILTER_TREE || filter == KEV_FILTER_VNODE;
}

/* Of a single one. */
static bool is_of_process(const struct subject *subject) {
        return subject->filter == KEV_FILTER_SIGNAL || (subject->filter == KEV_FILTER_PROC && !subject->match);
}

static struct source *find_source(struct sources *sources, const char *name) {
        for (size_t i = 0; name && i < sources->n; i++)
                if (sources->list[i] && strcmp(sources->list[i]->class->name, name) == 0)
                        return sources->list[i];
        return NULL;
}

bool sources_are_settled(const struct sources *sources) {
        for (size_t i = 0; i < sources->n; i++) {
                const struct source *source = sources->list[i];

                if (source && source->class->is_settled && !source->class->is_settled(source))
                        return false;
        }
        return true;
}

void sources_save(struct sources *sources, struct state_writer *w) {
        state_put_u64(w, sources->n);
        for (size_t i = 0; i < sources->n; i++) {
                struct source *source = sources->list[i];
                bool saves = source && source->class->save_source;
                size_t begin;

                state_put_string(w, saves ? source->class->name : NULL);
                begin = state_begin(w);
                if (saves)
                        source->class->save_source(source, w);
                state_end(w, begin);
        }
}

void sources_load(struct sources *sources, struct state_reader *r) {
        size_t n = state_get_count(r, 2 * sizeof(uint64_t));

        for (size_t i = 0; i < n; i++) {
                struct source *source = find_source(sources, state_get_string(r));
                struct state_reader section = state_get_section(r);

                if (source && source->class->load_source)
                        source->class->load_source(source, &section);
        }
}

/* So that a number which is another process's by then is not taken for it. */
static uint64_t identity_of(int64_t pid) {
        int pidfd _cleanup_(closep) = pid > 0 && pid <= INT32_MAX ? pidfd_open((pid_t)pid, 0) : -1;

        return pidfd >= 0 ? pidfd_identity(pidfd, (pid_t)pid) : 0;
}

static void save(struct subscription *subscription, bool goes_on, struct state_writer *w) {
        struct source *source = subscription ? subscription->source : NULL;
        struct subject about = { .pid = ABSENT, .data = ABSENT };
        bool saved = false;
        size_t begin;

        if (source && source->class->describe)
                source->class->describe(subscription, &about);
        state_put_string(w, about.name);
        state_put_i64(w, about.pid);
        state_put_i64(w, about.data);
        state_put_string(w, source ? source->class->name : NULL);
        begin = state_begin(w);
        if (source && source->class->save && !goes_on)
                saved = source->class->save(source, subscription, w);
        state_end(w, begin);
        state_put_bool(w, saved);
        state_put_u64(w, about.identity ? about.identity : identity_of(about.pid));
}

void source_save(struct subscription *subscription, struct state_writer *w) {
        save(subscription, false, w);
}

void source_sketch(struct subscription *subscription, struct state_writer *w) {
        save(subscription, true, w);
}

int sources_restore(struct sources *sources, struct subscription *subscription, struct subject *subject,
                    struct state_reader *r, bool *ret_anew, struct refusal *refusal) {
        struct state_reader section;
        struct source *source;
        const char *class;
        uint64_t identity;
        bool saved;
        int result = -EBADMSG;

        subject->name = state_get_string(r);
        subject->pid = state_get_i64(r);
        subject->data = state_get_i64(r);
        class = state_get_string(r);
        section = state_get_section(r);
        saved = state_get_bool(r);
        identity = state_get_u64(r);
        subject->listed = subject->list;
        subscription->notes = subject->notes; /* of one that is attached to nothing, too */
        *ret_anew = false;
        if (r->failed)
                return refuse(refusal, EBADMSG, "what the last daemon has left is not whole");
        if (!class)
                return 0;
        source = saved ? find_source(sources, class) : NULL;
        if (source && source->class->restore && is_allowed(sources, source->class, subject)) {
                subscription->source = source;
                result = source->class->restore(source, subscription, subject, &section, refusal);
                if (result < 0)
                        subscription->source = NULL;
                else
                        source->n_subscriptions++;
        }
        if (result != -EBADMSG)
                return result;
        *ret_anew = true;
        if (filter_is_of_descriptor(subject->filter) || (!subject->path && filter_is_of_files(subject->filter)))
                return refuse(refusal, EBADF, "descriptor: it was not kept");
        if (is_of_process(subject) && identity != identity_of(subject->pid))
                return refuse(refusal, ESRCH, "pid: process %lld has ended", (long long)subject->pid);
        return sources_attach(sources, subscription, subject, refusal);
}

void sources_restored(struct sources *sources) {
        for (size_t i = 0; i < sources->n; i++)
                if (sources->list[i] && sources->list[i]->class->restored)
                        sources->list[i]->class->restored(sources->list[i]);
}
