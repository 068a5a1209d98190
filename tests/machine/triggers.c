/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "triggers.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "macro.h"

struct trigger {
        struct client *client;
        size_t number;
};

static void push(struct triggers *triggers, struct trigger trigger) {
        if (triggers->n_pending == triggers->capacity) {
                triggers->capacity = MAX(triggers->capacity * 2, 64U);
                triggers->pending = reallocarray(triggers->pending, triggers->capacity, sizeof(*triggers->pending));
                if (!triggers->pending)
                        err(EXIT_FAILURE, "no memory");
        }
        triggers->pending[triggers->n_pending++] = trigger;
}

static struct trigger pop(struct triggers *triggers) {
        struct trigger first = triggers->pending[0];

        memmove(triggers->pending, triggers->pending + 1, --triggers->n_pending * sizeof(first));
        return first;
}

static bool is_that(void *userdata, size_t number) {
        return number == *(size_t *)userdata;
}

/* Whether it reached its client is not known, or it did not: the caller of Trigger was told so. */
static void give_up(struct triggers *triggers, struct trigger trigger) {
        tally_cover(&trigger.client->triggers, trigger.number + 1, is_that, &trigger.number, &triggers->round->sums);
}

void triggers_make(struct triggers *triggers, struct client *client) {
        char call[160];

        if (triggers->connection.fd < 0 &&
            !connection_open(&triggers->connection, triggers->socket_path, triggers->uid))
                return;
        push(triggers, (struct trigger){ client, tally_make(&client->triggers, &triggers->round->sums) });
        (void)snprintf(call, sizeof(call),
                       "{\"method\":\"org.kevd.events.Trigger\",\"parameters\":{\"name\":\"client-%zu\",\"data\":%zu}}",
                       client->number, client->triggers.n - 1);
        /* Where the connection has ended, triggers_read() finds out. */
        (void)connection_send(&triggers->connection, call);
}

static void on_reply(struct triggers *triggers, struct json_object *reply) {
        struct trigger trigger;

        if (triggers->n_pending == 0)
                errx(EXIT_FAILURE, "a reply to no Trigger: %s", json_object_to_json_string(reply));
        trigger = pop(triggers);
        if (number_at(reply, "/parameters/reached") == 1)
                return;
        if (triggers->is_lenient) {
                give_up(triggers, trigger);
                return;
        }
        triggers->round->wrong++;
        printf("# client %zu: not reached by Trigger: %s\n", trigger.client->number,
               json_object_to_json_string(reply));
}

void triggers_read(struct triggers *triggers) {
        struct json_object *reply = NULL;
        int r;

        if (triggers->connection.fd < 0)
                return;
        while ((r = connection_receive(&triggers->connection, &reply)) > 0) {
                on_reply(triggers, reply);
                (void)json_object_put(reply);
        }
        if (r == 0)
                return;
        triggers->round->disconnected++;
        connection_close(&triggers->connection);
        while (triggers->n_pending > 0)
                give_up(triggers, pop(triggers));
}

void triggers_free(struct triggers *triggers) {
        connection_close(&triggers->connection);
        free(triggers->pending);
}
