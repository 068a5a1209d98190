/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * user: events that programs of one user set off for each other, by name. No
 * kernel interface is behind it.
 */

#include <errno.h>
#include <string.h>

#include "hash.h"
#include "source.h"

struct user_source {
        struct source source;
        struct hash names; /* struct user_name */
};

/* All watches of one user on one name: so many that one Trigger can reach them all in one go. */
struct user_name {
        struct hash_node node;
        struct list subscriptions;
        size_t n_subscriptions;
        uid_t uid;
        char name[];
};

static int user_open(struct source_context *context _unused_, struct source **ret_source) {
        struct user_source *s = calloc(1, sizeof(*s));

        if (!s)
                return -ENOMEM;
        *ret_source = &s->source;
        return 0;
}

static void user_close(struct source *source) {
        struct user_source *s = container_of(source, struct user_source, source);

        hash_free(&s->names);
        free(s);
}

static struct user_name *find(struct user_source *s, uid_t uid, const char *name, uint64_t *ret_hash) {
        *ret_hash = hash_bytes(name, strlen(name), uid);
        for (struct hash_node *n = hash_first(&s->names, *ret_hash); n; n = hash_next(n)) {
                struct user_name *u = container_of(n, struct user_name, node);

                if (u->uid == uid && strcmp(u->name, name) == 0)
                        return u;
        }
        return NULL;
}

static int user_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                       struct refusal *refusal) {
        struct user_source *s = container_of(source, struct user_source, source);
        size_t size = strlen(subject->name) + 1;
        uint64_t hash;
        struct user_name *u = find(s, subject->asker->uid, subject->name, &hash);

        if (!u) {
                u = malloc(sizeof(*u) + size);
                if (!u)
                        return refuse(refusal, ENOMEM, "no memory");
                u->uid = subject->asker->uid;
                u->n_subscriptions = 0;
                memcpy(u->name, subject->name, size);
                list_init(&u->subscriptions);
                if (hash_add(&s->names, &u->node, hash) < 0) {
                        free(u);
                        return refuse(refusal, ENOMEM, "no memory");
                }
        }
        if (u->n_subscriptions == USER_WATCHES_MAX)
                return refuse(refusal, EDQUOT, "name: the limit of %d watches of one name is reached",
                              USER_WATCHES_MAX);
        list_append(&u->subscriptions, &subscription->link);
        u->n_subscriptions++;
        subscription->object = u;
        return 0;
}

static void user_detach(struct source *source, struct subscription *subscription) {
        struct user_source *s = container_of(source, struct user_source, source);
        struct user_name *u = take_pointer(&subscription->object);

        list_remove(&subscription->link);
        if (--u->n_subscriptions > 0)
                return;
        hash_remove(&s->names, &u->node);
        free(u);
}

uint64_t user_trigger(struct sources *sources, uid_t uid, const char *name, int64_t data) {
        struct report report = REPORT_INIT;
        struct user_source *s = NULL;
        struct user_name *u;
        uint64_t hash, n = 0;

        for (size_t i = 0; i < sources->n; i++)
                if (sources->list[i] && sources->list[i]->class == &source_user)
                        s = container_of(sources->list[i], struct user_source, source);
        u = s ? find(s, uid, name, &hash) : NULL;
        if (!u)
                return 0;
        report.notes = KEV_NOTE_TRIGGER;
        report.data = data;
        report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        list_for_each(entry, &u->subscriptions) {
                source_report(&s->source, list_entry(entry, struct subscription, link), &report);
                n++;
        }
        report_done(&report);
        return n;
}

/* Nobody sets anything off while there is no daemon. */
static bool user_save(struct source *source _unused_, struct subscription *subscription _unused_,
                      struct state_writer *w _unused_) {
        return true;
}

static int user_restore(struct source *source, struct subscription *subscription, const struct subject *subject,
                        struct state_reader *r _unused_, struct refusal *refusal) {
        return subject->name ? user_attach(source, subscription, subject, refusal) : -EBADMSG;
}

static void user_describe(const struct subscription *subscription, struct subject *subject) {
        subject->name = ((const struct user_name *)subscription->object)->name;
}

static uint64_t user_registrations(const struct source *source _unused_) {
        return 0;
}

static const char *user_mechanism(const struct source *source _unused_) {
        return "none";
}

const struct source_class source_user = {
        .name = "user",
        .filters = 1u << KEV_FILTER_USER,
        .open = user_open,
        .close = user_close,
        .attach = user_attach,
        .detach = user_detach,
        .registrations = user_registrations,
        .mechanism = user_mechanism,
        .describe = user_describe,
        .save = user_save,
        .restore = user_restore,
};
