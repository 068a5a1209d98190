/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "print.h"
#include "report.h"
#include "signals.h"

/* Beyond this much, what a batch prints is written before the batch is over. */
enum { OUTPUT_BYTES_MAX = 64 * 1024 };

/* ---- standard output --------------------------------------------------------- */

static void lose_output(struct session *s, int error) {
        s->output_lost = true;
        s->ended = s->ended || !s->outlives_output;
        /* A reader that has left (head(1)) wanted no more. */
        if (error == EPIPE || (error == EINTR && signals_caught()))
                return;
        report(NULL, "can't write to standard output", strerror(error));
        s->ended = true;
        s->status = STATUS_FAILED;
}

static void write_output(struct session *s) {
        size_t written = 0;

        if (s->out.failed)
                lose_output(s, ENOMEM);
        while (!s->output_lost && written < s->out.size) {
                ssize_t n = write(STDOUT_FILENO, s->out.data + written, s->out.size - written);

                if (n >= 0)
                        written += (size_t)n;
                else if (errno != EINTR || signals_caught())
                        lose_output(s, errno);
        }
        text_reset(&s->out);
}

void session_print(struct session *s, const struct subject *subject, const struct kev_event *event) {
        if (s->options->given & OPTION_JSON) {
                text_puts(&s->out, kev_event_json(event));
                text_puts(&s->out, "\n");
        } else
                print_event(&s->out, subject, event, s->colour);
        if (s->out.size >= OUTPUT_BYTES_MAX)
                write_output(s);
}

bool session_take_and_print(struct session *s, struct subject *subject, const struct kev_event *event) {
        session_print(s, subject, event);
        return true;
}

/* ---- the connection and its watches ------------------------------------------ */

int session_open(struct session *s, const struct options *options, session_take *take) {
        int r;

        *s = (struct session){ .options = options, .take = take, .colour = print_in_colour(STDOUT_FILENO) };
        r = kev_open(options->address, &s->kev);
        if (r < 0) {
                report(NULL, kev_error_message(NULL), NULL); /* says what, where and why */
                s->refused = true;
        }
        return r;
}

static void handle(struct kev *kev, const struct kev_event *event, void *userdata) {
        struct subject *subject = userdata;
        struct session *s = subject->session;

        (void)kev;
        if (s->ended || subject->ended)
                return;
        if (s->take(s, subject, event) && ++s->n_taken == s->options->count)
                s->ended = true;
        if (kev_event_flags(event) & (KEV_FLAG_EOF | KEV_FLAG_ONESHOT))
                session_end_subject(s, subject);
}

void session_end_subject(struct session *s, struct subject *subject) {
        if (subject->ended)
                return;
        subject->ended = true;
        if (--s->n_watched == 0)
                s->ended = true;
}

int session_try_add(struct session *s, struct kev_watch *watch, const char *name, bool path) {
        struct subject *subject;
        int r;

        s->refusal = NULL;
        subject = subject_new(s, name, path);
        if (!subject)
                return -errno;
        r = path ? kev_watch_set_path(watch, subject->prefix) : 0;
        if (r == 0) {
                r = kev_add(s->kev, watch, handle, subject, &subject->id);
                s->refusal = r < 0 ? kev_error_message(s->kev) : NULL;
        }
        if (r < 0) {
                subject_free(subject);
                return r;
        }
        subject->next = s->subjects;
        s->subjects = subject;
        s->n_watched++;
        return 0;
}

int session_add(struct session *s, struct kev_watch *watch, const char *name, bool path) {
        int r = session_try_add(s, watch, name, path);

        if (r < 0)
                session_refuse(s, name, r, s->refusal);
        return r;
}

void session_refuse(struct session *s, const char *name, int error, const char *why) {
        s->refused = true;
        /* Once is enough, however many watches were still to be made. */
        if (!s->lost)
                report_error(error == -ECONNRESET ? NULL : name, error, why);
        s->lost = s->lost || error == -ECONNRESET;
}

/* ---- the loop ------------------------------------------------------------------ */

static int64_t now_nsec(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* Sleeps until there may be something to do; a negative `timeout_nsec` is for ever. */
static void sleep_until_called(struct session *s, int64_t timeout_nsec) {
        struct pollfd fds[] = {
                { .fd = kev_get_fd(s->kev), .events = POLLIN },
                { .fd = s->exec ? exec_fd(s->exec) : -1, .events = POLLIN },
                /* Nothing is asked for: what comes unasked is that the reader has left. */
                { .fd = s->exec || s->outlives_output ? -1 : STDOUT_FILENO },
        };

        if (signals_poll(fds, sizeof(fds) / sizeof(fds[0]), timeout_nsec) > 0 &&
            (fds[2].revents & (POLLERR | POLLHUP)))
                lose_output(s, EPIPE);
}

static void fail(struct session *s, const char *what, const char *why) {
        report(NULL, what, why);
        s->ended = true;
        s->status = STATUS_FAILED;
}

/* What a batch leads to: its lines are written, the command is started. */
static void end_batch(struct session *s) {
        int r;

        /* After a failure the cursor is no more where it was: a message was written. */
        if (s->tree && s->status != STATUS_FAILED)
                process_tree_draw(s->tree, &s->out, s->ended);
        write_output(s);
        r = s->exec ? exec_turn(s->exec) : 0;
        if (r < 0)
                fail(s, "can't run /bin/sh", strerror(-r));
}

/* How long until the tree is to be drawn again. */
static int64_t left_for_tree(const struct session *s) {
        int64_t due = s->tree ? process_tree_due(s->tree) : -1, now = now_nsec();

        return due < 0 ? -1 : due > now ? due - now : 0;
}

/* Each -1 if there is none. */
static int64_t earlier(int64_t a, int64_t b) {
        return a < 0 || (b >= 0 && b < a) ? b : a;
}

static void loop(struct session *s, int64_t deadline) {
        while (!s->ended && !signals_caught()) {
                int64_t left = deadline < 0 ? -1 : deadline - now_nsec();
                int r = kev_dispatch(s->kev, 0);

                if (r < 0 && r != -EINTR)
                        fail(s, "the connection to kevd is lost", kev_error_message(s->kev));
                end_batch(s);
                if (s->ended)
                        return;
                if (deadline >= 0 && left <= 0) {
                        s->status = STATUS_TIMEOUT;
                        return;
                }
                if (r <= 0)
                        sleep_until_called(s, earlier(left, left_for_tree(s)));
        }
}

/* -1: none, also where it is beyond what the clock will ever say. */
static int64_t deadline_of(const struct options *options) {
        int64_t deadline;

        if (options->timeout_nsec <= 0 || __builtin_add_overflow(now_nsec(), options->timeout_nsec, &deadline))
                return -1;
        return deadline;
}

/* Files may be served in more than one way, and not all can the same. */
static void say_watching(struct session *s) {
        struct text mechanisms = { 0 };

        for (const struct subject *subject = s->subjects; s->says_mechanism && subject; subject = subject->next) {
                char *name = NULL;

                if (kev_get_mechanism(s->kev, subject->id, &name) < 0)
                        continue;
                if (!mechanisms.data || !strstr(mechanisms.data, name))
                        text_printf(&mechanisms, "%s%s", mechanisms.size > 0 ? " and " : " with ", name);
                free(name);
        }
        (void)fprintf(stderr, "kev: watching%s\n", mechanisms.data && !mechanisms.failed ? mechanisms.data : "");
        text_free(&mechanisms);
}

static void run(struct session *s) {
        int r;

        signals_catch();
        if (!(s->options->given & OPTION_QUIET))
                say_watching(s);
        s->ended = s->n_watched == 0;
        loop(s, deadline_of(s->options));
        if (s->tree && !s->ended) { /* by a signal, or the time was up: as it is now */
                s->ended = true;
                end_batch(s);
        }
        r = s->exec ? exec_finish(s->exec) : 0;
        if (r < 0)
                fail(s, "can't run /bin/sh", strerror(-r));
}

int session_finish(struct session *s) {
        if (s->refused)
                s->status = STATUS_FAILED;
        else
                run(s);
        /* Before the subjects, which are the handlers' userdata. */
        s->kev = kev_close(s->kev);
        while (s->subjects) {
                struct subject *next = s->subjects->next;

                subject_free(s->subjects);
                s->subjects = next;
        }
        text_free(&s->out);
        s->exec = exec_free(s->exec);
        s->tree = process_tree_free(s->tree);
        return s->status;
}
