/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#include <err.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "macro.h"

enum call { CALL_CHANGE, CALL_WAIT };

enum { ID_TREE = 1, ID_LINK, ID_TRIGGER, ID_TIMER, ID_EXIT };

static char *format(const char *text, ...) _printf_(1, 2);
static char *format(const char *text, ...) {
        char *result;
        va_list args;

        va_start(args, text);
        if (vasprintf(&result, text, args) < 0)
                err(EXIT_FAILURE, "no memory");
        va_end(args);
        return result;
}

static int exit_code(size_t number) {
        return (int)(number % 200) + 1;
}

char *client_file(const struct client *client, size_t number) {
        size_t first = number - number % FILES_TOGETHER;

        if (first / FILES_TOGETHER % 2 == 0)
                return format("%s/n%zu", client->directory, number);
        return format("%s/d%zu/n%zu", client->directory, first, number);
}

/* ---- calls ------------------------------------------------------------------------ */

static void call(struct client *client, enum call kind, const char *text) {
        if (client->n_calls == ARRAY_SIZE(client->calls))
                errx(EXIT_FAILURE, "client %zu: too many calls", client->number);
        client->calls[client->n_calls++] = kind;
        /* Where the connection has ended, client_read() finds out. */
        (void)connection_send(&client->connection, text);
}

static void call_wait(struct client *client) {
        call(client, CALL_WAIT, client->is_stream ? "{\"method\":\"org.kevd.events.Wait\",\"more\":true}"
                                                  : "{\"method\":\"org.kevd.events.Wait\"}");
}

/* The call answers the Wait before it; another follows. `watches`: JSON, joined by commas. */
static void call_change(struct client *client, const char *watches) {
        _cleanup_(freep) char *text =
                format("{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[%s]}}", watches);

        call(client, CALL_CHANGE, text);
        call_wait(client);
}

static char *exit_watch(const struct client *client, size_t number) {
        return format("{\"id\":%zu,\"filter\":\"proc\",\"notes\":[\"exit\"],\"pid\":%d}", ID_EXIT + number,
                      (int)client->children[number].pid);
}

static char *all_watches(const struct client *client) {
        char *watches = format("{\"id\":%d,\"filter\":\"tree\",\"notes\":[\"create\"],\"path\":\"%s\"},"
                               "{\"id\":%d,\"filter\":\"netdev\",\"notes\":[\"mtu\"],\"name\":\"%s\"},"
                               "{\"id\":%d,\"filter\":\"user\",\"name\":\"client-%zu\"},"
                               "{\"id\":%d,\"filter\":\"timer\",\"data\":%d}",
                               ID_TREE, client->directory, ID_LINK, client->link, ID_TRIGGER, client->number, ID_TIMER,
                               TIMER_MSEC);

        for (size_t i = client->exits.first_open; i < client->exits.n; i++) {
                _cleanup_(freep) char *before = watches;
                _cleanup_(freep) char *watch = exit_watch(client, i);

                if (client->children[i].pid > 0)
                        watches = format("%s,%s", before, watch);
                else
                        before = NULL;
        }
        return watches;
}

void client_start(struct client *client) {
        _cleanup_(freep) char *watches = NULL;

        client->n_calls = 0;
        client->is_in_force = false;
        client->last_seq = 0;
        if (!connection_open(&client->connection, client->socket_path, client->uid))
                return; /* client_read() tries again */
        watches = all_watches(client);
        call_change(client, watches);
}

bool client_is_in_force(const struct client *client) {
        if (!client->is_in_force)
                return false;
        for (size_t i = 0; i < client->n_calls; i++)
                if (client->calls[i] == CALL_CHANGE)
                        return false;
        return true;
}

/* ---- events ----------------------------------------------------------------------- */

static void wrong(struct client *client, const char *what, struct json_object *object) {
        client->round->wrong++;
        printf("# client %zu: %s: %s\n", client->number, what, json_object_to_json_string(object));
}

static bool has_note(struct json_object *event, const char *note) {
        struct json_object *notes = NULL;

        (void)json_object_object_get_ex(event, "notes", &notes);
        for (size_t i = 0; i < json_object_array_length(notes); i++)
                if (strcmp(json_object_get_string(json_object_array_get_idx(notes, i)), note) == 0)
                        return true;
        return false;
}

struct below {
        const struct client *client;
        const char *path;
};

static bool is_below(void *userdata, size_t number) {
        const struct below *below = userdata;
        _cleanup_(freep) char *file = client_file(below->client, number);
        size_t length = strlen(below->path);

        return strncmp(file, below->path, length) == 0 && file[length] == '/';
}

static void on_tree(struct client *client, struct json_object *event) {
        struct below below = { client, text_at(event, "/path") };
        const char *name = strrchr(below.path, '/');
        struct sums *sums = &client->round->sums;

        if (has_note(event, "rescan")) {
                client->round->rescans++;
                if (!client->is_lenient)
                        printf("# client %zu, user %u: rescan of %s\n", client->number, (unsigned)client->uid, below.path);
                tally_cover(&client->files, client->files.n, is_below, &below, sums);
        }
        /* Directories are d and a number. */
        if (has_note(event, "create") && name && name[1] == 'n')
                tally_tell(&client->files, strtoul(name + 2, NULL, 10), sums);
}

static void on_link(struct client *client, struct json_object *event) {
        int64_t number = number_at(event, "/link/mtu") - MTU_FIRST;

        if (has_note(event, "rescan")) {
                client->round->rescans++;
                tally_cover(&client->links, client->links.n, NULL, NULL, &client->round->sums);
                return;
        }
        if (number < 0) {
                wrong(client, "an MTU that was not set", event);
                return;
        }
        if (client->is_lenient)
                tally_cover(&client->links, (size_t)number, NULL, NULL, &client->round->sums);
        tally_tell(&client->links, (size_t)number, &client->round->sums);
}

static void on_trigger(struct client *client, struct json_object *event) {
        if (has_note(event, "lost"))
                tally_cover(&client->triggers, client->triggers.n, NULL, NULL, &client->round->sums);
        else
                tally_tell(&client->triggers, (size_t)number_at(event, "/data"), &client->round->sums);
}

static void on_timer(struct client *client, struct json_object *event) {
        client->timer_told += number_at(event, "/data");
        client->timer_told_at = now_nsec();
}

static void on_exit_of_child(struct client *client, struct json_object *event, size_t number) {
        struct json_object *code = NULL;
        bool has_code = json_pointer_get(event, "/process/exitCode", &code) == 0;

        if (number >= client->exits.n || (has_code && json_object_get_int(code) != exit_code(number)) ||
            (!has_code && !client->may_lack_status))
                wrong(client, "another exit", event);
        else
                tally_tell(&client->exits, number, &client->round->sums);
}

static void on_event(struct client *client, struct json_object *event) {
        int64_t id = number_at(event, "/id"), seq = number_at(event, "/seq");

        client->round->seq_gaps += seq != client->last_seq + 1;
        client->last_seq = seq;
        client->round->lost += has_note(event, "lost");
        if (id == ID_TREE)
                on_tree(client, event);
        else if (id == ID_LINK)
                on_link(client, event);
        else if (id == ID_TRIGGER)
                on_trigger(client, event);
        else if (id == ID_TIMER)
                on_timer(client, event);
        else
                on_exit_of_child(client, event, (size_t)(id - ID_EXIT));
}

/* ---- replies ---------------------------------------------------------------------- */

void client_count_timer(struct client *client) {
        client->timer_since = now_nsec();
        client->timer_told = 0;
}

static void on_change(struct client *client, struct json_object *reply) {
        struct json_object *refused = NULL;

        if (json_pointer_get(reply, "/parameters/refused", &refused) < 0 || json_object_array_length(refused) > 0)
                wrong(client, "refused", reply);
        if (client->is_in_force)
                return;
        /* The first reply of this connection: what there is to be seen the client looks for by itself. */
        client->is_in_force = true;
        tally_cover(&client->files, client->files.n, NULL, NULL, &client->round->sums);
        tally_cover(&client->links, client->links.n, NULL, NULL, &client->round->sums);
        tally_cover(&client->triggers, client->triggers.n, NULL, NULL, &client->round->sums);
        client_count_timer(client);
}

static void on_wait(struct client *client, struct json_object *reply) {
        struct json_object *events = NULL;

        if (json_pointer_get(reply, "/parameters/events", &events) < 0) {
                wrong(client, "not a reply to Wait", reply);
                return;
        }
        for (size_t i = 0; i < json_object_array_length(events); i++)
                on_event(client, json_object_array_get_idx(events, i));
}

static void on_reply(struct client *client, struct json_object *reply) {
        struct json_object *continues = NULL;
        int kind;

        if (client->n_calls == 0) {
                wrong(client, "a reply to nothing", reply);
                return;
        }
        kind = client->calls[0];
        (void)json_object_object_get_ex(reply, "continues", &continues);
        if (!json_object_get_boolean(continues))
                memmove(client->calls, client->calls + 1, --client->n_calls * sizeof(client->calls[0]));
        if (kind == CALL_CHANGE)
                on_change(client, reply);
        else
                on_wait(client, reply);
        if (client->n_calls == 0)
                call_wait(client);
}

void client_read(struct client *client) {
        struct json_object *reply = NULL;
        int r;

        if (client->connection.fd < 0) {
                client_start(client);
                return;
        }
        while ((r = connection_receive(&client->connection, &reply)) > 0) {
                on_reply(client, reply);
                (void)json_object_put(reply);
        }
        if (r == 0)
                return;
        client->round->disconnected++;
        connection_close(&client->connection);
        client_start(client);
}

/* ---- children --------------------------------------------------------------------- */

/* In the child: nothing of the parent's stays open, so that connections end when the parent closes them. */
static void run_child(int end, uid_t uid, int code) __attribute__((noreturn));
static void run_child(int end, uid_t uid, int code) {
        char byte;

        if (dup2(end, STDIN_FILENO) < 0 || close_range(STDERR_FILENO + 1, ~0U, 0) < 0 || setgroups(0, NULL) < 0 ||
            setgid(uid) < 0 || setuid(uid) < 0 || write(STDIN_FILENO, "", 1) != 1)
                _exit(EXIT_FAILURE);
        (void)!read(STDIN_FILENO, &byte, sizeof(byte));
        _exit(code);
}

void client_add_child(struct client *client) {
        size_t number = client->exits.n;
        _cleanup_(freep) char *watch = NULL;
        int ends[2];
        char byte;
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
                err(EXIT_FAILURE, "socketpair");
        (void)fflush(stdout);
        pid = fork();
        if (pid < 0)
                err(EXIT_FAILURE, "fork");
        if (pid == 0)
                run_child(ends[0], client->uid, exit_code(number));
        (void)close(ends[0]);
        if (read(ends[1], &byte, sizeof(byte)) != 1) /* once it is the user's */
                errx(EXIT_FAILURE, "a child can't become user %u", (unsigned)client->uid);
        client->children = reallocarray(client->children, number + 1, sizeof(*client->children));
        if (!client->children)
                err(EXIT_FAILURE, "no memory");
        client->children[number] = (struct child){ .pid = pid, .end = ends[1] };
        (void)tally_make(&client->exits, &client->round->sums);
        if (client->connection.fd < 0)
                return; /* with the next connection */
        watch = exit_watch(client, number);
        call_change(client, watch);
}

bool client_end_child(struct client *client) {
        struct child *child;

        if (client->n_ended == client->exits.n)
                return false;
        child = &client->children[client->n_ended];
        tally_begin(&client->exits, client->n_ended++);
        child->end = safe_close(child->end);
        return true;
}

void client_reap(struct client *client, bool all) {
        size_t n = all ? client->exits.n : client->exits.first_open;

        for (; client->n_reaped < n; client->n_reaped++) {
                struct child *child = &client->children[client->n_reaped];

                if (waitpid(child->pid, NULL, 0) < 0)
                        err(EXIT_FAILURE, "waitpid");
                child->pid = 0;
        }
}

void client_free(struct client *client) {
        while (client_end_child(client))
                ;
        client_reap(client, true);
        connection_close(&client->connection);
        tally_free(&client->files);
        tally_free(&client->links);
        tally_free(&client->triggers);
        tally_free(&client->exits);
        free(client->children);
        free(client->directory);
}
