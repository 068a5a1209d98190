/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Events as they are written by the daemon and read by the library: two are made of the input, and one of both. Each
 * has to come back as it was, but for what is no UTF-8 in a text, which is put as question marks.
 */

#include <json-c/json.h>

#include "buffer.h"
#include "event.h"
#include "fuzz.h"
#include "macro.h"
#include "message.h"

enum { TEXTS_MAX = 64, LIST_MAX = 4 };

/* An event with all that it points to. */
struct made {
        struct event event;
        struct event_process process;
        struct event_link link;
        const char *addresses[LIST_MAX + 1], *gateways[LIST_MAX + 1];
        char *texts[TEXTS_MAX];
        size_t n_texts;
};

/* ---- making ------------------------------------------------------------------------------------------------ */

static char *make_text(struct made *m, struct input *in) {
        size_t size;
        const uint8_t *data;

        data = input_bytes(in, input_byte(in), &size);
        fuzz_assert(m->n_texts < TEXTS_MAX);
        return m->texts[m->n_texts++] = fuzz_text(data, size);
}

/* Addresses as inet_ntop(3) writes them are ASCII. */
static void make_list(struct made *m, struct input *in, const char **list) {
        size_t n = input_byte(in) % (LIST_MAX + 1);

        for (size_t i = 0; i < n; i++) {
                char *text = make_text(m, in);

                for (char *p = text; *p; p++)
                        *p = (char)(0x20 + (unsigned char)*p % 0x5f);
                list[i] = text;
        }
        list[n] = NULL;
}

static struct event_path make_path(struct made *m, struct input *in) {
        const char *text = make_text(m, in);

        return (struct event_path){ text, strlen(text) };
}

static int64_t make_int(struct input *in) {
        return (int64_t)input_number(in, 8);
}

/* Of what there can't be 2^62. */
static uint64_t make_count(struct input *in) {
        return input_number(in, 8) >> 2;
}

static int64_t present_int(unsigned given, unsigned bit, struct input *in) {
        return given & 1u << bit ? make_int(in) : ABSENT;
}

static const char *present_text(struct made *m, unsigned given, unsigned bit, struct input *in) {
        return given & 1u << bit ? make_text(m, in) : NULL;
}

static void make_process(struct made *m, struct input *in) {
        unsigned given = (unsigned)input_number(in, 2);
        struct event_process *p = &m->process;

        p->pid = make_int(in);
        if (p->pid == ABSENT)
                p->pid = 1;
        p->parent = present_int(given, 0, in);
        p->uid = present_int(given, 1, in);
        p->exit_code = present_int(given, 2, in);
        p->signal = present_int(given, 3, in);
        p->cpu_usec = present_int(given, 4, in);
        p->peak_bytes = present_int(given, 5, in);
        p->comm = present_text(m, given, 6, in);
        p->exe = present_text(m, given, 7, in);
        p->cgroup = present_text(m, given, 8, in);
        p->core_dumped = p->signal != ABSENT && (given & 1u << 9);
}

static void make_link(struct made *m, struct input *in) {
        unsigned given = (unsigned)input_number(in, 2);
        struct event_link *l = &m->link;

        l->index = (int)(input_number(in, 4) >> 1);
        l->name = make_text(m, in);
        l->oper_state = make_text(m, in);
        l->old_name = present_text(m, given, 0, in);
        l->address = present_text(m, given, 1, in);
        l->new_namespace = present_int(given, 2, in);
        l->new_index = present_int(given, 3, in);
        l->mtu = present_int(given, 4, in);
        l->flaps = given & 1u << 5 ? (int64_t)make_count(in) : ABSENT;
        l->up = given & 1u << 6;
        l->carrier = given & 1u << 7;
        if (given & 1u << 8) {
                make_list(m, in, m->addresses);
                l->addresses = m->addresses;
        }
        if (given & 1u << 9) {
                make_list(m, in, m->gateways);
                l->gateways = m->gateways;
        }
}

static void make(struct made *m, struct input *in) {
        unsigned given = input_byte(in);
        struct event *e = &m->event;

        *m = (struct made){ 0 };
        e->filter = (enum kev_filter)(input_byte(in) % FILTER_COUNT);
        e->kind = (enum kev_kind)(input_byte(in) % KIND_COUNT);
        e->flags = (uint32_t)input_byte(in) & ((1u << FLAG_COUNT) - 1);
        e->notes = input_number(in, 8) & ((UINT64_C(1) << NOTE_COUNT) - 1);
        e->count = make_count(in);
        e->realtime_usec = make_count(in);
        e->data = present_int(given, 0, in);
        if (given & 1u << 1)
                e->path = make_path(m, in);
        if (given & 1u << 2)
                e->from_path = make_path(m, in);
        if (given & 1u << 3) {
                make_process(m, in);
                e->process = &m->process;
        }
        if (given & 1u << 4) {
                make_link(m, in);
                e->link = &m->link;
        }
}

static void drop(struct made *m) {
        for (size_t i = 0; i < m->n_texts; i++)
                free(m->texts[i]);
}

/* ---- comparing --------------------------------------------------------------------------------------------- */

static void expect_text(const char *found, const char *expected) {
        bool whole = !expected || utf8_is_valid(expected, strlen(expected));

        if (whole) {
                fuzz_assert(fuzz_texts_equal(found, expected));
                return;
        }
        fuzz_assert(found && strlen(found) == strlen(expected));
        for (size_t i = 0; expected[i]; i++) {
                unsigned char c = (unsigned char)expected[i];

                fuzz_assert(found[i] == (c < 0x20 || c > 0x7e || c == '"' || c == '\\' ? '?' : (char)c));
        }
}

static void expect_texts(const char *const *found, const char *const *expected) {
        size_t n = 0;

        fuzz_assert(!found == !expected);
        for (; expected && expected[n]; n++)
                fuzz_assert(fuzz_texts_equal(found[n], expected[n]));
        fuzz_assert(!found || !found[n]);
}

static void expect_path(struct event_path found, struct event_path expected) {
        fuzz_assert(!found.bytes == !expected.bytes);
        fuzz_assert(found.size == expected.size);
        fuzz_assert(!found.bytes || memcmp(found.bytes, expected.bytes, found.size + 1) == 0);
}

static void expect_process(const struct event_process *found, const struct event_process *expected) {
        fuzz_assert(!found == !expected);
        if (!expected)
                return;
        fuzz_assert(found->pid == expected->pid);
        fuzz_assert(found->parent == expected->parent);
        fuzz_assert(found->uid == expected->uid);
        fuzz_assert(found->exit_code == expected->exit_code);
        fuzz_assert(found->signal == expected->signal);
        fuzz_assert(found->cpu_usec == expected->cpu_usec);
        fuzz_assert(found->peak_bytes == expected->peak_bytes);
        fuzz_assert(found->core_dumped == expected->core_dumped);
        expect_text(found->comm, expected->comm);
        expect_text(found->exe, expected->exe);
        expect_text(found->cgroup, expected->cgroup);
}

static void expect_link(const struct event_link *found, const struct event_link *expected) {
        fuzz_assert(!found == !expected);
        if (!expected)
                return;
        fuzz_assert(found->index == expected->index);
        fuzz_assert(found->up == expected->up);
        fuzz_assert(found->carrier == expected->carrier);
        fuzz_assert(found->mtu == expected->mtu);
        fuzz_assert(found->flaps == expected->flaps);
        fuzz_assert(found->new_namespace == expected->new_namespace);
        fuzz_assert(found->new_index == expected->new_index);
        expect_text(found->name, expected->name);
        expect_text(found->old_name, expected->old_name);
        expect_text(found->oper_state, expected->oper_state);
        expect_text(found->address, expected->address);
        expect_texts(found->addresses, expected->addresses);
        expect_texts(found->gateways, expected->gateways);
}

static void expect_event(const struct event *found, const struct event *expected) {
        fuzz_assert(found->filter == expected->filter);
        fuzz_assert(found->kind == expected->kind);
        fuzz_assert(found->flags == expected->flags);
        fuzz_assert(found->notes == expected->notes);
        fuzz_assert(found->count == expected->count);
        fuzz_assert(found->realtime_usec == expected->realtime_usec);
        fuzz_assert(found->data == expected->data);
        expect_path(found->path, expected->path);
        expect_path(found->from_path, expected->from_path);
        expect_process(found->process, expected->process);
        expect_link(found->link, expected->link);
}

/* ---- the way there and back -------------------------------------------------------------------------------- */

static void send_event(const struct event *event, const struct event *expected, int64_t id, uint64_t seq) {
        struct buffer b _cleanup_(buffer_free) = BUFFER_INIT;
        struct event *found = NULL;
        struct json_object *json;

        event_put(&b, event, id, seq);
        fuzz_assert(!b.error);
        fuzz_assert(b.size <= event->json_size + EVENT_HEAD_MAX);
        json = fuzz_parse(b.data, b.size);
        fuzz_assert(event_from_json(json, &found) == 0);
        fuzz_assert(found->id == id);
        fuzz_assert(found->seq == seq);
        expect_event(found, expected);
        event_unref(found);
        json_object_put(json);
}

static void input(const uint8_t *data, size_t size) {
        struct input in = { data, size };
        int64_t id = (int64_t)(input_number(&in, 8) >> 1);
        uint64_t seq = input_number(&in, 8) >> 1;
        struct event *first = NULL, *second = NULL, *both = NULL;
        struct made a, b;

        make(&a, &in);
        make(&b, &in);
        fuzz_assert(event_new(&a.event, &first) == 0);
        fuzz_assert(event_new(&b.event, &second) == 0);
        fuzz_assert(event_merge(first, second, &both) == 0);
        fuzz_assert(both->count == first->count + second->count);
        fuzz_assert(both->notes == (first->notes | second->notes));
        send_event(first, &a.event, id, seq);
        send_event(both, both, id, seq);
        drop(&a);
        drop(&b);
        send_event(second, second, id, seq);
        event_unref(first);
        event_unref(second);
        event_unref(both);
}

const struct fuzz_target fuzz_target = { .input = input };
