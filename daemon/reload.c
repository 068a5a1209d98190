/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reload.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "notify.h"
#include "workers.h"

/* What journalctl can be asked for: systemd/kevd.catalog. */
static const struct log_subject reloaded = { .message_id = "d4e802eef41a4083a9ef0ba272c6f060" };
static const struct log_subject refused = { .message_id = "06e0549539ea4da9852746bfcecf33cc" };

struct reading {
        struct work work;
        struct list done; /* in the mailbox */
        struct reload *reload;
        struct options options;
        int result;
};

static struct reading *free_reading(struct reading *reading) {
        options_free(&reading->options);
        free(reading);
        return NULL;
}

/* ---- for the service manager: sd_notify(3) ----------------------------------------------------------- */

static void on_notify_timer(struct mux_timer *timer);

static int tell_begin(uint64_t usec) {
        char text[128];

        (void)snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%llu\nSTATUS=Reading the configuration again",
                       (unsigned long long)usec);
        return notify_at_once(text, -1);
}

/* -EAGAIN: not all of it. */
static int tell_untold(struct reload *reload) {
        int r = reload->untold_begin_usec > 0 ? tell_begin(reload->untold_begin_usec) : 0;

        if (r == -EAGAIN)
                return r;
        reload->untold_begin_usec = 0;
        r = reload->untold_end ? notify_at_once("READY=1\nSTATUS=Serving", -1) : 0;
        if (r == -EAGAIN)
                return r;
        reload->untold_end = false;
        return 0;
}

/* Who has asked for it waits for both, however long there is no room for them. A private daemon's environment is its
 * client's. */
static void notify(struct reload *reload) {
        int r;

        if (reload->server->mode == MODE_PRIVATE || tell_untold(reload) == 0)
                return;
        r = mux_timer_set(reload->server->mux, &reload->notify_timer,
                          monotonic_nsec() + NOTIFY_PAUSE_MSEC * NSEC_PER_MSEC, on_notify_timer);
        if (r < 0)
                log_error("the service manager can't be told of the configuration: %s", strerror(-r));
}

static void on_notify_timer(struct mux_timer *timer) {
        notify(container_of(timer, struct reload, notify_timer));
}

/* An end that was not told yet comes with this one's. */
static void notify_begin(struct reload *reload) {
        reload->untold_begin_usec = monotonic_nsec() / NSEC_PER_USEC;
        reload->untold_end = false;
        notify(reload);
}

static void notify_end(struct reload *reload) {
        reload->untold_end = true;
        notify(reload);
}

/* ---- what was read ----------------------------------------------------------------------------------- */

static bool is_same_text(const char *a, const char *b) {
        return a == b || (a && b && strcmp(a, b) == 0);
}

static bool is_same_listen(const struct options *a, const struct options *b) {
        if (a->n_listen != b->n_listen)
                return false;
        for (size_t i = 0; i < a->n_listen; i++)
                if (strcmp(a->listen[i], b->listen[i]) != 0)
                        return false;
        return true;
}

static void tell_what_waits(const struct options *now, const struct options *next) {
        const struct {
                const char *key;
                bool is_same;
        } keys[] = {
                { "listen", is_same_listen(now, next) },
                { "mode", now->mode == next->mode },
                { "mux", is_same_text(now->mux, next->mux) },
                { "file-mechanism", now->settings.file_mechanism == next->settings.file_mechanism },
                { "file-queue", now->settings.limited_queue == next->settings.limited_queue },
                { "netdev-buffer", now->settings.netdev_buffer == next->settings.netdev_buffer },
                { "process-buffer", now->settings.process_buffer == next->settings.process_buffer },
                { "process-feed", now->settings.process_feed == next->settings.process_feed },
        };

        for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
                if (!keys[i].is_same)
                        log_notice("%s: what the configuration has now takes a restart of the daemon", keys[i].key);
}

static void put_in_force(struct reload *reload, const struct options *next) {
        server_configure(reload->server, &next->limits, &next->settings);
        log_set_level(next->log_level);
        log_about(LOG_NOTICE, &reloaded, "the configuration was read again");
        tell_what_waits(reload->options, next);
}

static void put_line_in_log(const char *line, size_t size) {
        log_about(LOG_ERR, &refused, "the configuration is wrong, and the old one stays: %.*s", (int)size, line);
}

/* The first line of them is what callers are told. */
static void refuse_configuration(struct options *next, int error) {
        const char *begin = next->complaints.data, *end;
        size_t left = next->complaints.size;

        if (left == 0 || next->complaints.error) {
                put_line_in_log(strerror(-error), strlen(strerror(-error)));
                return;
        }
        for (; left > 0 && (end = memchr(begin, '\n', left)); left -= (size_t)(end + 1 - begin), begin = end + 1)
                put_line_in_log(begin, (size_t)(end - begin));
        *(char *)memchr(next->complaints.data, '\n', next->complaints.size) = 0;
}

static void tell(struct list *waiters, int error, const char *complaint) {
        struct list *entry;

        while ((entry = list_pop(waiters))) {
                struct reload_waiter *waiter = list_entry(entry, struct reload_waiter, link);

                waiter->done(waiter, error, complaint);
        }
}

/* ---- reading ------------------------------------------------------------------------------------------- */

/* On a thread. */
static void run(struct work *work) {
        struct reading *reading = container_of(work, struct reading, work);
        struct reload *reload = reading->reload;

        options_init(&reading->options);
        reading->result = options_read(&reading->options, reload->argc, reload->argv);
        mailbox_post(&reload->mailbox, &reading->done);
}

static void end(struct reload *reload, int error, const char *complaint) {
        notify_end(reload);
        tell(&reload->waiters, error, complaint);
        list_splice(&reload->waiters, &reload->next_waiters);
}

static void begin(struct reload *reload) {
        struct reading *reading = calloc(1, sizeof(*reading));
        int r = reading ? 0 : -ENOMEM;

        reload->again = false;
        notify_begin(reload);
        if (r == 0) {
                reading->work.run = run;
                reading->reload = reload;
                r = workers_submit(reload->server->workers, WORKERS_NO_USER, &reading->work);
        }
        if (r == 0) {
                reload->reading = reading;
                return;
        }
        free(reading);
        put_line_in_log(strerror(-r), strlen(strerror(-r)));
        end(reload, r, strerror(-r));
}

static void on_read(struct mailbox *mailbox) {
        struct reload *reload = container_of(mailbox, struct reload, mailbox);
        struct list *entry = mailbox_take(mailbox);
        struct reading *reading;
        const struct buffer *complaints;
        int r;

        if (!entry)
                return;
        reading = list_entry(entry, struct reading, done);
        complaints = &reading->options.complaints;
        reload->reading = NULL;
        r = reading->result;
        if (r == 0)
                put_in_force(reload, &reading->options);
        else
                refuse_configuration(&reading->options, r);
        end(reload, r, complaints->size > 0 && !complaints->error ? complaints->data : strerror(-r));
        free_reading(reading);
        if (reload->again)
                begin(reload);
}

/* Who asks while a thread reads may have changed what that has read already. */
static void on_request(struct reload_hook *hook, struct reload_waiter *waiter) {
        struct reload *reload = container_of(hook, struct reload, hook);

        if (waiter)
                list_append(reload->reading ? &reload->next_waiters : &reload->waiters, &waiter->link);
        if (reload->reading)
                reload->again = true;
        else
                begin(reload);
}

int reload_open(struct reload *reload, struct server *server, const struct options *options, int argc, char **argv) {
        int r;

        *reload = (struct reload){
                .hook.request = on_request, .server = server, .options = options, .argc = argc, .argv = argv,
        };
        list_init(&reload->waiters);
        list_init(&reload->next_waiters);
        r = mailbox_open(&reload->mailbox, server->mux, on_read);
        if (r == 0)
                server->reload = &reload->hook;
        return r;
}

void reload_close(struct reload *reload) {
        struct list *entry;

        if (!reload->server)
                return;
        reload->server->reload = NULL;
        while ((entry = mailbox_take(&reload->mailbox)))
                free_reading(list_entry(entry, struct reading, done));
        mailbox_close(&reload->mailbox);
        mux_timer_clear(reload->server->mux, &reload->notify_timer);
        reload->server = NULL;
}
