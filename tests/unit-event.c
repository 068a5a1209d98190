/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * proto/event: what is written can be read again, what becomes of two that are merged, and what is refused.
 */

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>

#include "buffer.h"
#include "event.h"
#include "harness.h"
#include "macro.h"
#include "message.h"
#include "messages.h"
#include "unit.h"
#include "vocabulary.h"

/* What a text that comes from the kernel looks like in JSON. */
static const char *shown(const char *text) {
        static char out[256];

        if (utf8_is_valid(text, strlen(text)))
                return text;
        (void)snprintf(out, sizeof(out), "%s", text);
        for (char *p = out; *p; p++)
                if (*p < 0x20 || *p > 0x7e || *p == '"' || *p == '\\')
                        *p = '?';
        return out;
}

static void assert_same_text(const char *a, const char *b, const char *what) {
        ck_assert_msg(!a == !b && (!a || strcmp(shown(a), b) == 0), "%s: %s instead of %s", what, b, a);
}

static void assert_same_path(struct event_path a, struct event_path b) {
        ck_assert_int_eq(!a.bytes, !b.bytes);
        ck_assert_uint_eq(a.size, b.size);
        if (!a.bytes)
                return;
        ck_assert_mem_eq(a.bytes, b.bytes, a.size);
        ck_assert_int_eq(b.bytes[b.size], 0);
}

static void assert_same_process(const struct event_process *a, const struct event_process *b) {
        ck_assert_int_eq(!a, !b);
        if (!a)
                return;
        ck_assert_int_eq(a->pid, b->pid);
        ck_assert_int_eq(a->parent, b->parent);
        ck_assert_int_eq(a->uid, b->uid);
        ck_assert_int_eq(a->exit_code, b->exit_code);
        ck_assert_int_eq(a->signal, b->signal);
        ck_assert_int_eq(a->cpu_usec, b->cpu_usec);
        ck_assert_int_eq(a->peak_bytes, b->peak_bytes);
        if (a->signal != ABSENT)
                ck_assert_int_eq(a->core_dumped, b->core_dumped);
        assert_same_text(a->comm, b->comm, "comm");
        assert_same_text(a->exe, b->exe, "exe");
        assert_same_text(a->cgroup, b->cgroup, "cgroup");
}

static void assert_same_list(const char *const *a, const char *const *b) {
        ck_assert_int_eq(!a, !b);
        for (size_t i = 0; a; i++) {
                ck_assert_int_eq(!a[i], !b[i]);
                if (!a[i])
                        break;
                ck_assert_str_eq(a[i], b[i]);
        }
}

static void assert_same_link(const struct event_link *a, const struct event_link *b) {
        ck_assert_int_eq(!a, !b);
        if (!a)
                return;
        ck_assert_int_eq(a->index, b->index);
        assert_same_text(a->name, b->name, "name");
        assert_same_text(a->old_name, b->old_name, "oldName");
        assert_same_text(a->oper_state, b->oper_state, "operState");
        assert_same_text(a->address, b->address, "address");
        ck_assert_int_eq(a->up, b->up);
        ck_assert_int_eq(a->carrier, b->carrier);
        ck_assert_int_eq(a->mtu, b->mtu);
        ck_assert_int_eq(a->flaps, b->flaps);
        ck_assert_int_eq(a->new_namespace, b->new_namespace);
        ck_assert_int_eq(a->new_index, b->new_index);
        assert_same_list(a->addresses, b->addresses);
        assert_same_list(a->gateways, b->gateways);
}

static void assert_same_event(const struct event *a, const struct event *b) {
        ck_assert_int_eq((int)a->filter, (int)b->filter);
        ck_assert_int_eq((int)a->kind, (int)b->kind);
        ck_assert_uint_eq(a->flags, b->flags);
        ck_assert_uint_eq(a->notes, b->notes);
        ck_assert_uint_eq(a->count, b->count);
        ck_assert_uint_eq(a->realtime_usec, b->realtime_usec);
        ck_assert_int_eq(a->data, b->data);
        assert_same_path(a->path, b->path);
        assert_same_path(a->from_path, b->from_path);
        assert_same_process(a->process, b->process);
        assert_same_link(a->link, b->link);
}

/* Texts end at the end of a block of their own, and are freed before what was made of
 * them is looked at. */
static char *texts[32];
static size_t n_texts;

static char *random_text(struct random *r, bool bytes) {
        static const char *const words[] = { "", "a", "/", "\"", "\\", "\n", "\x01", "\x7f", "\xc3\xa9", "\xf0\x9f\x98\x80", "abcdefgh",
                                             "\xe2\x80\xa8", "</script>" };
        char text[256] = "";

        for (size_t n = random_below(r, 8); n > 0; n--)
                strcat(text, words[random_below(r, ARRAY_SIZE(words))]);
        if (bytes)
                for (size_t n = random_below(r, 6), at = strlen(text); n > 0; n--) {
                        text[at++] = (char)(1 + random_below(r, 255));
                        text[at] = 0;
                }
        ck_assert_uint_lt(n_texts, ARRAY_SIZE(texts));
        texts[n_texts] = strdup(text);
        ck_assert_ptr_nonnull(texts[n_texts]);
        return texts[n_texts++];
}

static void free_texts(void) {
        while (n_texts > 0)
                free(texts[--n_texts]);
}

static char *maybe_text(struct random *r) {
        return random_once_in(r, 3) ? NULL : random_text(r, random_once_in(r, 2));
}

static int64_t random_number(struct random *r) {
        int64_t n = (int64_t)random_next(r) >> random_below(r, 64);

        return n == ABSENT ? 0 : n;
}

static int64_t maybe_number(struct random *r) {
        return random_once_in(r, 3) ? ABSENT : random_number(r);
}

static struct event_path random_path(struct random *r) {
        char *text = random_text(r, random_once_in(r, 2));

        return random_once_in(r, 4) ? (struct event_path){ 0 } : (struct event_path){ text, strlen(text) };
}

struct parts {
        struct event event;
        struct event_process process;
        struct event_link link;
        const char *addresses[4], *gateways[4];
};

static void random_event(struct random *r, struct parts *p) {
        *p = (struct parts){
                .event = {
                        .filter = (enum kev_filter)random_below(r, FILTER_COUNT),
                        .kind = (enum kev_kind)random_below(r, KIND_COUNT),
                        .flags = (uint32_t)random_below(r, 1u << FLAG_COUNT),
                        .notes = random_next(r) & random_next(r) & ((UINT64_C(1) << NOTE_COUNT) - 1),
                        .count = random_next(r) >> (1 + random_below(r, 63)),
                        .realtime_usec = random_next(r) >> (1 + random_below(r, 63)),
                        .data = maybe_number(r),
                        .path = random_path(r),
                        .from_path = random_path(r),
                },
                .process = {
                        .pid = random_number(r), .parent = maybe_number(r), .uid = maybe_number(r),
                        .exit_code = maybe_number(r), .signal = maybe_number(r), .core_dumped = random_once_in(r, 2),
                        .cpu_usec = maybe_number(r), .peak_bytes = maybe_number(r),
                        .comm = maybe_text(r), .exe = maybe_text(r), .cgroup = maybe_text(r),
                },
                .link = {
                        .index = (int)random_below(r, INT32_MAX), .name = random_text(r, true), .old_name = maybe_text(r),
                        .oper_state = random_text(r, false), .address = maybe_text(r), .up = random_once_in(r, 2),
                        .carrier = random_once_in(r, 2), .mtu = maybe_number(r), .flaps = maybe_number(r),
                        .new_namespace = maybe_number(r), .new_index = maybe_number(r),
                },
        };
        for (size_t n = random_below(r, 4), i = 0; i < n; i++)
                p->addresses[i] = random_text(r, false);
        for (size_t n = random_below(r, 4), i = 0; i < n; i++)
                p->gateways[i] = random_text(r, false);
        if (!random_once_in(r, 3))
                p->link.addresses = p->addresses;
        if (!random_once_in(r, 3))
                p->link.gateways = p->gateways;
        if (random_once_in(r, 2))
                p->event.process = &p->process;
        if (random_once_in(r, 2))
                p->event.link = &p->link;
}

/* Through JSON and back. */
static struct event *round_trip(const struct event *event, int64_t id, uint64_t seq) {
        struct buffer b = BUFFER_INIT;
        struct json_object *json = NULL;
        struct event *read = NULL;

        event_put(&b, event, id, seq);
        ck_assert_int_eq(b.error, 0);
        ck_assert_uint_le(b.size, event->json_size + EVENT_HEAD_MAX);
        ck_assert_int_eq(message_parse(b.data, b.size, &json), 0);
        ck_assert_int_eq(event_from_json(json, &read), 0);
        json_object_put(json);
        ck_assert_int_eq(read->id, id);
        ck_assert_uint_eq(read->seq, seq);
        ck_assert_uint_eq(strlen(read->json), read->json_size);
        buffer_free(&b);
        return read;
}

START_TEST(events_round_trip) {
        for (uint64_t round = 0; round < (uint64_t)harness_rounds(20000); round++) {
                struct random r = { round };
                struct event *event, *read;
                struct parts p;
                int64_t id = (int64_t)(random_next(&r) >> (1 + random_below(&r, 63)));

                random_event(&r, &p);
                ck_assert_int_eq(event_new(&p.event, &event), 0);
                ck_assert_uint_eq(event->refs, 1);
                ck_assert_uint_gt(event->allocated, sizeof(*event) + event->json_size);
                read = round_trip(event, id, 1 + (random_next(&r) >> 1) % INT64_MAX);
                assert_same_event(&p.event, read);
                /* The copy holds nothing of its template. */
                free_texts();
                memset(&p, 0xa5, sizeof(p));
                assert_same_event(event, read);
                ck_assert_ptr_eq(event_ref(event), event);
                ck_assert_ptr_null(event_unref(event));
                ck_assert_ptr_null(event_unref(event));
                ck_assert_ptr_null(event_unref(read));
        }
        ck_assert_ptr_null(event_unref(NULL));
}
END_TEST

START_TEST(events_text) {
        struct event_link link = { .index = 2, .name = "eth0", .oper_state = "up", .up = true, .mtu = ABSENT, .flaps = ABSENT, .new_namespace = ABSENT, .new_index = ABSENT };
        struct event_process process = { .pid = 5, .parent = ABSENT, .uid = 0, .exit_code = 3, .signal = ABSENT,
                                         .cpu_usec = ABSENT, .peak_bytes = ABSENT };
        struct event event = { .filter = KEV_FILTER_TREE, .kind = KEV_KIND_FILE, .notes = KEV_NOTE_CREATE | KEV_NOTE_WRITE,
                               .flags = KEV_FLAG_EOF, .count = 2, .realtime_usec = 17, .data = ABSENT,
                               .path = { "/a\n\"", 4 }, .from_path = { "/\xff", 2 }, .process = &process, .link = &link },
                     *made;
        struct buffer b = BUFFER_INIT;

        ck_assert_int_eq(event_new(&event, &made), 0);
        event_put(&b, made, 7, 9);
        buffer_put(&b, "", 1);
        ck_assert_str_eq(b.data,
                         "{\"id\":7,\"seq\":9,\"filter\":\"tree\",\"notes\":[\"write\",\"create\"],\"flags\":[\"eof\"],\"count\":2,"
                         "\"realtimeUsec\":17,\"path\":\"/a\\n\\\"\",\"fromPathBytes\":\"L/8=\",\"kind\":\"file\","
                         "\"process\":{\"pid\":5,\"uid\":0,\"exitCode\":3},"
                         "\"link\":{\"index\":2,\"name\":\"eth0\",\"up\":true,\"carrier\":false,\"operState\":\"up\"}}");
        buffer_free(&b);
        event_unref(made);
}
END_TEST

START_TEST(events_are_merged) {
        struct random r = { 47 };

        for (unsigned round = 0; round < 2000; round++) {
                struct event *first, *second, *merged;
                struct parts p, q;

                random_event(&r, &p);
                p.event.count >>= 1;
                ck_assert_int_eq(event_new(&p.event, &first), 0);
                free_texts();
                random_event(&r, &q);
                q.event.count >>= 1;
                ck_assert_int_eq(event_new(&q.event, &second), 0);
                free_texts();
                ck_assert_int_eq(event_merge(first, second, &merged), 0);
                ck_assert_uint_eq(merged->count, first->count + second->count);
                ck_assert_uint_eq(merged->notes, first->notes | second->notes);
                ck_assert_uint_eq(merged->realtime_usec, first->realtime_usec);
                if (second->filter == KEV_FILTER_TIMER && first->data != ABSENT && second->data != ABSENT)
                        ck_assert(merged->data == INT64_MAX || merged->data - first->data == second->data);
                else
                        ck_assert_int_eq(merged->data, second->data);
                ck_assert_int_eq((int)merged->kind, (int)second->kind);
                assert_same_path(merged->path, second->path);
                assert_same_path(merged->from_path, second->from_path);
                ck_assert_int_eq(!merged->link, !second->link);
                ck_assert_int_eq(!merged->process, !second->process);
                /* Neither is changed, and the third lives without them. */
                ck_assert_uint_eq(first->refs, 1);
                ck_assert_uint_eq(second->refs, 1);
                event_unref(first);
                event_unref(second);
                second = round_trip(merged, 1, 1);
                assert_same_event(merged, second);
                event_unref(second);
                event_unref(merged);
        }
}
END_TEST

/* However events are merged: those that show one change of the carrier, and the flaps, are all changes. */
START_TEST(events_keep_flaps) {
        static const uint64_t notes[] = { KEV_NOTE_MTU, KEV_NOTE_LINKUP, KEV_NOTE_LINKDOWN,
                                          KEV_NOTE_LINKUP | KEV_NOTE_LINKDOWN };
        struct random r = { 48 };

        for (unsigned round = 0; round < 2000; round++) {
                struct event *merged = NULL;
                int64_t changes = 0, told;
                bool one;

                for (size_t i = 0, n = 1 + random_below(&r, 6); i < n; i++) {
                        size_t kind = random_below(&r, 4);
                        int64_t flaps = random_once_in(&r, 2) ? ABSENT : (int64_t)random_below(&r, 3);
                        struct event_link link = { .index = 2, .name = "eth0", .oper_state = "up", .mtu = ABSENT, .flaps = flaps, .new_namespace = ABSENT, .new_index = ABSENT };
                        struct event template = { .filter = KEV_FILTER_NETDEV, .notes = notes[kind], .count = 1,
                                                  .data = ABSENT, .link = &link },
                                     *first = merged, *second;

                        ck_assert_int_eq(event_new(&template, &second), 0);
                        changes += (kind == 1 || kind == 2) + (flaps != ABSENT ? flaps : 0);
                        if (!first) {
                                merged = second;
                                continue;
                        }
                        ck_assert_int_eq(event_merge(first, second, &merged), 0);
                        ck_assert_int_ne(merged->link->flaps, 0);
                        event_unref(first);
                        event_unref(second);
                }
                one = !(merged->notes & KEV_NOTE_LINKUP) != !(merged->notes & KEV_NOTE_LINKDOWN);
                told = one + (merged->link->flaps != ABSENT ? merged->link->flaps : 0);
                ck_assert_int_eq(told, changes);
                event_unref(merged);
        }
}
END_TEST

#define EVENT_START "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[\"write\"],\"count\":1,\"realtimeUsec\":5"

static int read_event(const char *text) {
        struct json_object *json = parse(text);
        struct event *event = NULL;
        int r = event_from_json(json, &event);

        ck_assert(r == 0 || !event);
        json_object_put(json);
        event_unref(event);
        return r;
}

START_TEST(events_taken) {
        ck_assert_int_eq(read_event(EVENT_START "}"), 0);
        /* A newer daemon's words. */
        ck_assert_int_eq(read_event(EVENT_START ",\"new\":{\"x\":[1]},\"flags\":[\"strange\"],\"kind\":\"door\"}"), 0);
        ck_assert_int_eq(read_event("{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[\"strange\"],\"count\":1,\"realtimeUsec\":5}"), 0);
        ck_assert_int_eq(read_event(EVENT_START ",\"path\":null,\"process\":null,\"link\":null,\"data\":null,\"flags\":null}"), 0);
        ck_assert_int_eq(read_event(EVENT_START ",\"process\":{\"pid\":1,\"new\":1}}"), 0);
}
END_TEST

START_TEST(events_refused) {
        static const char *const bad[] = {
                "{}",
                "{\"seq\":1,\"filter\":\"vnode\",\"notes\":[],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"filter\":\"vnode\",\"notes\":[],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"notes\":[],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[],\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[],\"count\":1}",
                "{\"id\":1,\"seq\":1,\"filter\":\"door\",\"notes\":[],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":-1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":-1,\"filter\":\"vnode\",\"notes\":[],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[],\"count\":-1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[],\"count\":1,\"realtimeUsec\":-5}",
                "{\"id\":\"1\",\"seq\":1,\"filter\":\"vnode\",\"notes\":[],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[1],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[null],\"count\":1,\"realtimeUsec\":5}",
                EVENT_START ",\"data\":1.5}",
                EVENT_START ",\"data\":9223372036854775808}",
                EVENT_START ",\"path\":1}",
                EVENT_START ",\"pathBytes\":\"x\"}",
                EVENT_START ",\"pathBytes\":\"AAAA\"}",
                EVENT_START ",\"fromPathBytes\":\"=\"}",
                EVENT_START ",\"path\":\"/a\",\"fromPathBytes\":\"=\"}",
                EVENT_START ",\"pathBytes\":\"L/8=\",\"fromPathBytes\":\"=\"}",
                EVENT_START ",\"flags\":\"eof\"}",
                EVENT_START ",\"process\":{}}",
                EVENT_START ",\"process\":[]}",
                EVENT_START ",\"process\":{\"pid\":\"1\"}}",
                EVENT_START ",\"link\":{\"name\":\"a\",\"up\":true,\"carrier\":true,\"operState\":\"up\"}}",
                EVENT_START ",\"link\":{\"index\":1,\"up\":true,\"carrier\":true,\"operState\":\"up\"}}",
                EVENT_START ",\"link\":{\"index\":4294967297,\"name\":\"a\",\"up\":true,\"carrier\":true,\"operState\":\"up\"}}",
                EVENT_START ",\"link\":{\"index\":1,\"name\":\"a\",\"up\":true,\"carrier\":true,\"operState\":\"up\",\"addresses\":[1]}}",
        };

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
                ck_assert_msg(read_event(bad[i]) == -EBADMSG, "taken: %s", bad[i]);
}
END_TEST

/* "-EBADMSG if it isn't one." */
START_TEST(events_that_are_no_objects) {
        static const char *const bad[] = { "[]", "[1]", "\"a\"", "1", "1.5", "true", "null" };
        struct json_object *json = json_tokener_parse(bad[_i]);
        struct event *event = NULL;

        harness_label(bad[_i]);
        ck_assert_int_eq(event_from_json(json, &event), -EBADMSG);
        json_object_put(json);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("event"), "events");

        tcase_add_test(c, events_round_trip);
        tcase_add_test(c, events_text);
        tcase_add_test(c, events_are_merged);
        tcase_add_test(c, events_keep_flaps);
        tcase_add_test(c, events_taken);
        tcase_add_test(c, events_refused);
        tcase_add_loop_test(c, events_that_are_no_objects, 0, 7);
        return harness_main(argc, argv);
}
