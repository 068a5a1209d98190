/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * proto/watch_spec: what a client may say of a watch, and what is refused and why; what is written can be read again.
 */

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>

#include "buffer.h"
#include "harness.h"
#include "macro.h"
#include "message.h"
#include "messages.h"
#include "unit.h"
#include "vocabulary.h"
#include "watch_spec.h"

/* ---- watches ------------------------------------------------------------------------------------------ */

/* Reads a Watch object without its braces. */
static int read_watch(const char *members, struct watch_spec *spec, struct buffer *where) {
        char *text = NULL;
        struct json_object *json;
        int r;

        ck_assert_int_gt(asprintf(&text, "{%s}", members), 0);
        json = parse(text);
        buffer_reset(where);
        where_put_name(where, "add");
        where_put_index(where, 3);
        r = watch_spec_read(json, true, where, spec);
        json_object_put(json);
        free(text);
        return r;
}

/* What the refusal says; "": it is good. */
static const char *check_watch(const char *members, bool modify) {
        static char refusal[sizeof(((struct watch_spec *)0)->refusal)];
        struct buffer where = BUFFER_INIT;
        struct watch_spec spec;

        ck_assert_msg(read_watch(members, &spec, &where) == 0, "%s is wrong in %s", where.data, members);
        buffer_free(&where);
        watch_spec_check(&spec, modify);
        (void)snprintf(refusal, sizeof(refusal), "%s", spec.refusal);
        watch_spec_free(&spec);
        return refusal;
}

#define assert_good(members) ck_assert_msg(*check_watch((members), false) == 0, "%s: %s", (members), check_watch((members), false))

/* The refusal begins with the member's name and a colon. */
static void assert_refusal(const char *members, bool modify, const char *member) {
        const char *refusal = check_watch(members, modify);
        size_t size = strlen(member);

        ck_assert_msg(strncmp(refusal, member, size) == 0 && refusal[size] == ':', "\"%s\" instead of one about %s: %s", refusal,
                      member, members);
}

/* A good watch of each filter, without what it needs, and with that. */
static const struct {
        const char *filter, *needs; /* NULL: nothing */
        const char *missing;        /* the member that is named then */
        const char *may;            /* members that it may have */
} watches[] = {
        { "vnode", "\"path\":\"/a\"", "path", " path descriptor " },
        { "tree", "\"path\":\"/a\"", "path", " path descriptor tree " },
        { "proc", "\"pid\":1", "pid", " pid descriptor match " },
        { "netdev", NULL, NULL, " name " },
        { "read", "\"descriptor\":0", "descriptor", " descriptor data " },
        { "write", "\"descriptor\":0", "descriptor", " descriptor data " },
        { "poll", "\"descriptor\":0", "descriptor", " descriptor " },
        { "aio", "\"descriptor\":0", "descriptor", " descriptor " },
        { "signal", NULL, NULL, " pid data " },
        { "timer", "\"data\":100", "data", " data " },
        { "user", "\"name\":\"n\"", "name", " name " },
};

static const struct {
        const char *name, *json;
} members[] = {
        { "path", "\"path\":\"/b\"" },   { "pid", "\"pid\":2" },   { "descriptor", "\"descriptor\":1" }, { "name", "\"name\":\"m\"" },
        { "data", "\"data\":5" },        { "tree", "\"tree\":{}" }, { "match", "\"match\":{\"comm\":\"x\"}" },
        { "path", "\"pathBytes\":\"L/8=\"" },
};

START_TEST(watches_each_member) {
        ck_assert_uint_eq(ARRAY_SIZE(watches), FILTER_COUNT);
        for (size_t i = 0; i < ARRAY_SIZE(watches); i++) {
                char text[256], word[32];

                (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"%s\"", watches[i].filter);
                if (watches[i].needs)
                        assert_refusal(text, false, watches[i].missing);
                else
                        assert_good(text);
                for (size_t j = 0; j < ARRAY_SIZE(members); j++) {
                        bool is_needed = watches[i].needs && strncmp(members[j].json, watches[i].needs, 6) == 0, may;

                        (void)snprintf(word, sizeof(word), " %s ", members[j].name);
                        may = strstr(watches[i].may, word) != NULL;
                        /* Beside what is needed, where it is something else. */
                        (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"%s\",%s%s%s", watches[i].filter,
                                       is_needed || may || !watches[i].needs ? "" : watches[i].needs,
                                       is_needed || may || !watches[i].needs ? "" : ",", members[j].json);
                        if (!may)
                                assert_refusal(text, false, members[j].name);
                        else if (strstr("tree data", members[j].name) && strcmp(watches[i].filter, "timer") != 0 &&
                                 watches[i].needs)
                                assert_refusal(text, false, watches[i].missing);
                        else
                                assert_good(text);
                }
        }
}
END_TEST

START_TEST(watches_each_note) {
        for (size_t i = 0; i < ARRAY_SIZE(watches); i++) {
                enum kev_filter filter;
                char text[256];

                ck_assert_int_eq(kev_filter_from_name(watches[i].filter, &filter), 0);
                for (unsigned bit = 0; bit < NOTE_COUNT; bit++) {
                        const char *note = kev_note_name(UINT64_C(1) << bit);

                        (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"%s\",\"notes\":[\"%s\"]%s%s", watches[i].filter, note,
                                       watches[i].needs ? "," : "", watches[i].needs ? watches[i].needs : "");
                        if (kev_filter_notes(filter) & UINT64_C(1) << bit)
                                assert_good(text);
                        else {
                                assert_refusal(text, false, "notes");
                                ck_assert_ptr_nonnull(strstr(check_watch(text, false), note));
                        }
                }
                (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"%s\",\"notes\":[\"strange\"]%s%s", watches[i].filter,
                               watches[i].needs ? "," : "", watches[i].needs ? watches[i].needs : "");
                assert_refusal(text, false, "notes");
                ck_assert_ptr_nonnull(strstr(check_watch(text, false), "strange"));
        }
}
END_TEST

START_TEST(watches_each_flag) {
        static const struct {
                const char *flag, *filters; /* NULL: all */
        } flags[] = {
                { "oneshot", NULL }, { "dispatch", NULL }, { "disabled", NULL }, { "level", " read write poll aio " }, { "edge", " poll " },
                { "exclusive", " poll " }, { "eof", " " }, { "strange", " " },
        };

        for (size_t i = 0; i < ARRAY_SIZE(watches); i++)
                for (size_t j = 0; j < ARRAY_SIZE(flags); j++) {
                        char text[256], word[32];

                        (void)snprintf(word, sizeof(word), " %s ", watches[i].filter);
                        (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"%s\",\"flags\":[\"%s\"]%s%s", watches[i].filter,
                                       flags[j].flag, watches[i].needs ? "," : "", watches[i].needs ? watches[i].needs : "");
                        if (!flags[j].filters || strstr(flags[j].filters, word))
                                assert_good(text);
                        else {
                                assert_refusal(text, false, "flags");
                                ck_assert_ptr_nonnull(strstr(check_watch(text, false), flags[j].flag));
                        }
                }
}
END_TEST

START_TEST(watches_flags_together) {
        static const char *const refused[][2] = {
                { "\"flags\":[\"edge\",\"level\"]", "flags" },
                { "\"flags\":[\"exclusive\",\"oneshot\"]", "flags" },
                { "\"flags\":[\"dispatch\",\"exclusive\"]", "flags" },
                { "\"flags\":[\"exclusive\"],\"notes\":[\"in\",\"rdhup\"]", "notes" },
                { "\"flags\":[\"exclusive\"],\"notes\":[\"pri\"]", "notes" },
        };
        static const char *const good[] = {
                "\"flags\":[\"exclusive\"]", "\"flags\":[\"exclusive\",\"level\"],\"notes\":[\"in\",\"out\",\"err\",\"hup\"]",
                "\"flags\":[\"exclusive\",\"edge\",\"disabled\"]", "\"flags\":[\"level\",\"oneshot\"],\"notes\":[\"nval\"]",
        };
        char text[256];

        for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
                (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"poll\",\"descriptor\":0,%s", refused[i][0]);
                assert_refusal(text, false, refused[i][1]);
        }
        for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
                (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"poll\",\"descriptor\":0,%s", good[i]);
                assert_good(text);
        }
}
END_TEST

#define VNODE "\"id\":1,\"filter\":\"vnode\","
#define TREE "\"id\":1,\"filter\":\"tree\",\"path\":\"/a\","
#define PROC "\"id\":1,\"filter\":\"proc\","
#define USER "\"id\":1,\"filter\":\"user\","
#define TIMER "\"id\":1,\"filter\":\"timer\","

START_TEST(watches_out_of_range) {
        static const struct {
                const char *members, *member; /* NULL: good */
        } cases[] = {
                { "\"id\":0,\"filter\":\"netdev\"", NULL },
                { "\"id\":9223372036854775807,\"filter\":\"netdev\"", NULL },
                { "\"id\":-1,\"filter\":\"netdev\"", "id" },
                { VNODE "\"path\":\"\"", "path" },
                { VNODE "\"path\":\"a\"", "path" },
                { VNODE "\"path\":\"./a\"", "path" },
                { VNODE "\"path\":\"/\"", NULL },
                { VNODE "\"path\":\"/a\",\"pathBytes\":\"L/8=\"", "pathBytes" },
                { VNODE "\"pathBytes\":\"YQ==\"", "path" },
                { VNODE "\"pathBytes\":\"\"", "path" },
                { PROC "\"pid\":0", "pid" },
                { PROC "\"pid\":-1", "pid" },
                { PROC "\"pid\":2147483647", NULL },
                { PROC "\"pid\":2147483648", "pid" },
                { PROC "\"match\":{\"uid\":-1}", "match.uid" },
                { PROC "\"match\":{\"uid\":4294967296}", "match.uid" },
                { PROC "\"match\":{\"uid\":0}", NULL },
                { USER "\"name\":\"\"", "name" },
                { TIMER "\"data\":-1", "data" },
                { TIMER "\"data\":0", NULL },
                { TIMER "\"data\":9223372036854775807", NULL },
                { TIMER "\"data\":1,\"notes\":[\"sec\",\"msec\"]", "notes" },
                { TIMER "\"data\":1,\"notes\":[\"sec\",\"abstime\"]", NULL },
                { TREE "\"tree\":{\"depth\":0}", "tree.depth" },
                { TREE "\"tree\":{\"depth\":-1}", "tree.depth" },
                { TREE "\"tree\":{\"depth\":1}", NULL },
                { TREE "\"tree\":{\"settleMsec\":-1}", "tree.settleMsec" },
                { TREE "\"tree\":{\"settleMsec\":2147483648}", "tree.settleMsec" },
                { TREE "\"tree\":{\"settleMsec\":0}", NULL },
                { TREE "\"tree\":{\"maxLatencyMsec\":-1}", "tree.maxLatencyMsec" },
                { TREE "\"tree\":{\"maxLatencyMsec\":1}", "tree.maxLatencyMsec" },
                { TREE "\"tree\":{\"settleMsec\":0,\"maxLatencyMsec\":1}", "tree.maxLatencyMsec" },
                { TREE "\"tree\":{\"settleMsec\":1,\"maxLatencyMsec\":0}", NULL },
                { TREE "\"tree\":{\"include\":[\"\"]}", "tree.include" },
                { TREE "\"tree\":{\"exclude\":[\"a\",\"\"]}", "tree.exclude" },
                { TREE "\"tree\":{\"include\":[]}", NULL },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
                if (cases[i].member)
                        assert_refusal(cases[i].members, false, cases[i].member);
                else
                        assert_good(cases[i].members);
        /* Two ways of saying which process. */
        ck_assert_ptr_nonnull(strstr(check_watch(PROC "\"pid\":1,\"descriptor\":0", false), "pid"));
        ck_assert_ptr_nonnull(strstr(check_watch(PROC "\"pid\":1,\"match\":{}", false), "match"));
        ck_assert_ptr_nonnull(strstr(check_watch(PROC "\"descriptor\":1,\"match\":{}", false), "descriptor"));
}
END_TEST

/* The last that is short enough, and the first that isn't. */
START_TEST(watches_too_long) {
        char *text = malloc(200000), *bytes = malloc(WATCH_PATH_MAX + 2);

        ck_assert_ptr_nonnull(text);
        ck_assert_ptr_nonnull(bytes);
        for (int more = 0; more < 2; more++) {
                size_t n;

                memset(bytes, 'x', WATCH_PATH_MAX + 1);
                bytes[0] = '/';
                bytes[WATCH_PATH_MAX + more] = 0;
                (void)snprintf(text, 200000, VNODE "\"path\":\"%s\"", bytes);
                if (more)
                        assert_refusal(text, false, "path");
                else
                        assert_good(text);
                bytes[WATCH_NAME_MAX + more] = 0;
                (void)snprintf(text, 200000, USER "\"name\":\"%s\"", bytes);
                if (more)
                        assert_refusal(text, false, "name");
                else
                        assert_good(text);
                memset(bytes, 'x', WATCH_GLOB_BYTES_MAX + 1);
                bytes[WATCH_GLOB_BYTES_MAX + more] = 0;
                (void)snprintf(text, 200000, TREE "\"tree\":{\"exclude\":[\"%s\"]}", bytes);
                if (more)
                        assert_refusal(text, false, "tree.exclude");
                else
                        assert_good(text);
                n = (size_t)snprintf(text, 200000, TREE "\"tree\":{\"include\":[\"x\"");
                for (int i = 1; i < WATCH_GLOBS_MAX + more; i++)
                        n += (size_t)snprintf(text + n, 200000 - n, ",\"x\"");
                (void)snprintf(text + n, 200000 - n, "]}");
                if (more)
                        assert_refusal(text, false, "tree.include");
                else
                        assert_good(text);
        }
        free(text);
        free(bytes);
}
END_TEST

static void fill_words(char *text, size_t size, const char *begin, const char *word, int n) {
        size_t used = (size_t)snprintf(text, size, "%s", begin);

        for (int i = 0; i < n; i++)
                used += (size_t)snprintf(text + used, size - used, "%s\"%s\"", i ? "," : "[", word);
        (void)snprintf(text + used, size - used, "]");
}

/* As many as there are of such; no more, though they say the same. */
START_TEST(watches_too_many_words) {
        char text[2048];

        fill_words(text, sizeof(text), USER "\"name\":\"n\",\"notes\":", "trigger", NOTE_COUNT);
        assert_good(text);
        fill_words(text, sizeof(text), USER "\"name\":\"n\",\"notes\":", "trigger", NOTE_COUNT + 1);
        assert_refusal(text, false, "notes");
        fill_words(text, sizeof(text), USER "\"name\":\"n\",\"flags\":", "oneshot", FLAG_COUNT);
        assert_good(text);
        fill_words(text, sizeof(text), USER "\"name\":\"n\",\"flags\":", "oneshot", FLAG_COUNT + 1);
        assert_refusal(text, false, "flags");
}
END_TEST

/* What a watch is about can't be changed, and need not be said again. */
START_TEST(watches_modify) {
        for (size_t i = 0; i < ARRAY_SIZE(watches); i++) {
                char text[256];

                (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"%s\"", watches[i].filter);
                ck_assert_str_eq(check_watch(text, true), "");
                for (size_t j = 0; j < ARRAY_SIZE(members); j++) {
                        char word[32];

                        (void)snprintf(word, sizeof(word), " %s ", members[j].name);
                        (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"%s\",%s", watches[i].filter, members[j].json);
                        if (strstr(watches[i].may, word) &&
                            strstr(strcmp(watches[i].filter, "poll") == 0 ? "descriptor" : "tree data", members[j].name))
                                ck_assert_str_eq(check_watch(text, true), "");
                        else
                                assert_refusal(text, true, members[j].name);
                }
        }
}
END_TEST

START_TEST(watches_wrong) {
        static const struct {
                const char *members, *where;
        } cases[] = {
                { "\"filter\":\"netdev\"", "add[3].id" },
                { "\"id\":1", "add[3].filter" },
                { "\"id\":1,\"filter\":\"door\"", "add[3].filter" },
                { "\"id\":1,\"filter\":\"\"", "add[3].filter" },
                { "\"id\":1,\"filter\":5", "add[3].filter" },
                { "\"id\":1,\"filter\":null", "add[3].filter" },
                { "\"id\":\"1\",\"filter\":\"netdev\"", "add[3].id" },
                { "\"id\":1.5,\"filter\":\"netdev\"", "add[3].id" },
                { "\"id\":9223372036854775808,\"filter\":\"netdev\"", "add[3].id" },
                { "\"id\":1,\"filter\":\"netdev\",\"strange\":1", "add[3].strange" },
                { "\"id\":1,\"filter\":\"netdev\",\"notes\":\"add\"", "add[3].notes" },
                { "\"id\":1,\"filter\":\"netdev\",\"notes\":[1]", "add[3].notes" },
                { "\"id\":1,\"filter\":\"netdev\",\"flags\":[null]", "add[3].flags" },
                { "\"id\":1,\"filter\":\"netdev\",\"name\":1", "add[3].name" },
                { VNODE "\"path\":1", "add[3].path" },
                { VNODE "\"path\":[]", "add[3].path" },
                { VNODE "\"pathBytes\":\"x\"", "add[3].pathBytes" },
                { VNODE "\"pathBytes\":\"LwAA\"", "add[3].pathBytes" },
                { VNODE "\"pathBytes\":5", "add[3].pathBytes" },
                { VNODE "\"descriptor\":\"0\"", "add[3].descriptor" },
                { PROC "\"pid\":\"1\"", "add[3].pid" },
                { TIMER "\"data\":1.0", "add[3].data" },
                { TREE "\"tree\":[]", "add[3].tree" },
                { TREE "\"tree\":{\"depth\":\"1\"}", "add[3].tree.depth" },
                { TREE "\"tree\":{\"strange\":1}", "add[3].tree.strange" },
                { TREE "\"tree\":{\"include\":\"a\"}", "add[3].tree.include" },
                { TREE "\"tree\":{\"include\":[\"a\"],\"exclude\":[1]}", "add[3].tree.exclude" },
                { TREE "\"tree\":{\"list\":1}", "add[3].tree.list" },
                { TREE "\"tree\":{\"crossMounts\":1}", "add[3].tree.crossMounts" },
                { TREE "\"tree\":{\"excludeSelf\":\"x\"}", "add[3].tree.excludeSelf" },
                { TREE "\"tree\":{},\"match\":{\"uid\":\"1\"}", "add[3].match.uid" },
                { PROC "\"match\":1", "add[3].match" },
                { PROC "\"match\":{\"exe\":1}", "add[3].match.exe" },
                { PROC "\"match\":{\"comm\":[]}", "add[3].match.comm" },
                { PROC "\"match\":{\"cgroup\":true}", "add[3].match.cgroup" },
                { PROC "\"match\":{\"strange\":true}", "add[3].match.strange" },
        };
        struct buffer where = BUFFER_INIT;

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct watch_spec spec;

                ck_assert_msg(read_watch(cases[i].members, &spec, &where) == -EINVAL, "taken: %s", cases[i].members);
                ck_assert_str_eq(where.data, cases[i].where);
        }
        buffer_free(&where);
}
END_TEST

START_TEST(watches_that_are_no_objects) {
        static const char *const bad[] = { "[]", "\"a\"", "1", "null" };
        struct buffer where = BUFFER_INIT;

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                struct json_object *json = json_tokener_parse(bad[i]);
                struct watch_spec spec;

                buffer_reset(&where);
                where_put_name(&where, "add");
                ck_assert_int_eq(watch_spec_read(json, true, &where, &spec), -EINVAL);
                ck_assert_str_eq(where.data, "add");
                json_object_put(json);
        }
        buffer_free(&where);
}
END_TEST

START_TEST(watches_id_may_be_missing) {
        struct json_object *json = parse("{\"filter\":\"netdev\"}");
        struct buffer where = BUFFER_INIT;
        struct watch_spec spec;

        ck_assert_int_eq(watch_spec_read(json, false, &where, &spec), 0);
        ck_assert_int_eq(spec.id, ABSENT);
        ck_assert_int_eq(spec.data, ABSENT);
        ck_assert_int_eq(spec.pid, ABSENT);
        ck_assert_int_eq(spec.descriptor, ABSENT);
        watch_spec_free(&spec);
        json_object_put(json);
        buffer_free(&where);
}
END_TEST

/* ---- watches, written and read ---------------------------------------------------------------------------- */

static char *random_string(struct random *r, size_t most) {
        static const char *const words[] = { "a", "/", "\"", "\\", "*", "\n", "\xc3\xa9", "b", "[!x]" };
        char text[128] = "x";

        for (size_t n = random_below(r, most); n > 0; n--)
                strcat(text, words[random_below(r, ARRAY_SIZE(words))]);
        return strdup(text);
}

static char **random_strings(struct random *r) {
        size_t n = random_below(r, 4);
        char **strings = calloc(n + 1, sizeof(char *));

        ck_assert_ptr_nonnull(strings);
        for (size_t i = 0; i < n; i++)
                strings[i] = random_string(r, 6);
        return strings;
}

static void random_subject(struct random *r, struct watch_spec *s) {
        switch (s->filter) {
        case KEV_FILTER_VNODE:
        case KEV_FILTER_TREE: {
                char *text = random_string(r, 10);

                text[0] = '/';
                if (random_once_in(r, 2) && text[1])
                        text[1] = (char)(0x80 + random_below(r, 0x80));
                s->path = text;
                s->path_size = strlen(text);
                break;
        }
        case KEV_FILTER_PROC:
                if (random_once_in(r, 2)) {
                        s->pid = 1 + (int64_t)random_below(r, INT32_MAX);
                        break;
                }
                s->match.given = true;
                s->match.exe = random_once_in(r, 2) ? random_string(r, 5) : NULL;
                s->match.comm = random_once_in(r, 2) ? random_string(r, 5) : NULL;
                s->match.cgroup = random_once_in(r, 2) ? random_string(r, 5) : NULL;
                s->match.uid = random_once_in(r, 2) ? (int64_t)random_below(r, UINT32_MAX) : ABSENT;
                break;
        case KEV_FILTER_READ:
        case KEV_FILTER_WRITE:
        case KEV_FILTER_POLL:
        case KEV_FILTER_AIO:
                s->descriptor = (int64_t)random_below(r, 250);
                break;
        case KEV_FILTER_TIMER:
                s->data = (int64_t)(random_next(r) >> 1);
                break;
        case KEV_FILTER_USER:
                s->name = random_string(r, 10);
                break;
        case KEV_FILTER_NETDEV:
        case KEV_FILTER_SIGNAL:
                break;
        }
}

static void random_spec(struct random *r, struct watch_spec *s) {
        watch_spec_init(s, (enum kev_filter)random_below(r, FILTER_COUNT));
        s->id = (int64_t)(random_next(r) >> (1 + random_below(r, 63)));
        s->notes = kev_filter_notes(s->filter) & random_next(r);
        if (s->filter == KEV_FILTER_TIMER)
                s->notes &= KEV_NOTE_ABSTIME | KEV_NOTE_USEC;
        s->flags = (uint32_t)random_below(r, 8);
        random_subject(r, s);
        if (s->filter != KEV_FILTER_TREE || random_once_in(r, 3))
                return;
        s->tree.given = true;
        s->tree.include = random_once_in(r, 2) ? random_strings(r) : NULL;
        s->tree.exclude = random_once_in(r, 2) ? random_strings(r) : NULL;
        s->tree.depth = random_once_in(r, 2) ? 1 + (int64_t)random_below(r, 1000) : ABSENT;
        s->tree.settle_msec = random_once_in(r, 2) ? (int64_t)random_below(r, 1000) : ABSENT;
        s->tree.max_latency_msec = s->tree.settle_msec > 0 && random_once_in(r, 2) ? (int64_t)random_below(r, 1000) : ABSENT;
        s->tree.list = random_once_in(r, 2);
        s->tree.cross_mounts = random_once_in(r, 2);
        s->tree.exclude_self = random_once_in(r, 2);
}

static void assert_same_string(const char *a, const char *b) {
        ck_assert_int_eq(!a, !b);
        if (a)
                ck_assert_str_eq(a, b);
}

static void assert_same_strings(char *const *a, char *const *b) {
        ck_assert_int_eq(!a, !b);
        for (; a && *a; a++, b++)
                assert_same_string(*a, *b);
        ck_assert(!a || !*b);
}

static void assert_same_spec(const struct watch_spec *a, const struct watch_spec *b) {
        ck_assert_int_eq((int)a->filter, (int)b->filter);
        ck_assert_int_eq(a->id, b->id);
        ck_assert_uint_eq(a->notes, b->notes);
        ck_assert_uint_eq(a->flags, b->flags);
        assert_same_string(a->path, b->path);
        ck_assert_uint_eq(a->path_size, b->path_size);
        ck_assert_int_eq(a->pid, b->pid);
        ck_assert_int_eq(a->descriptor, b->descriptor);
        ck_assert_int_eq(a->data, b->data);
        assert_same_string(a->name, b->name);
        ck_assert_int_eq(a->tree.given, b->tree.given);
        assert_same_strings(a->tree.include, b->tree.include);
        assert_same_strings(a->tree.exclude, b->tree.exclude);
        ck_assert_int_eq(a->tree.depth, b->tree.depth);
        ck_assert_int_eq(a->tree.settle_msec, b->tree.settle_msec);
        ck_assert_int_eq(a->tree.max_latency_msec, b->tree.max_latency_msec);
        ck_assert_int_eq(a->tree.list, b->tree.list);
        ck_assert_int_eq(a->tree.cross_mounts, b->tree.cross_mounts);
        ck_assert_int_eq(a->tree.exclude_self, b->tree.exclude_self);
        ck_assert_int_eq(a->match.given, b->match.given);
        assert_same_string(a->match.exe, b->match.exe);
        assert_same_string(a->match.comm, b->match.comm);
        assert_same_string(a->match.cgroup, b->match.cgroup);
        ck_assert_int_eq(a->match.uid, b->match.uid);
}

START_TEST(watches_round_trip) {
        struct buffer b = BUFFER_INIT, where = BUFFER_INIT;

        for (uint64_t round = 0; round < 20000; round++) {
                struct random r = { round };
                struct watch_spec spec, read;
                struct json_object *json = NULL;

                random_spec(&r, &spec);
                buffer_reset(&b);
                watch_spec_put(&b, &spec);
                ck_assert_int_eq(message_parse(b.data, b.size, &json), 0);
                buffer_reset(&where);
                ck_assert_msg(watch_spec_read(json, true, &where, &read) == 0, "seed %llu: %s", (unsigned long long)round,
                              where.data);
                json_object_put(json);
                watch_spec_check(&read, false);
                ck_assert_str_eq(read.refusal, "");
                assert_same_spec(&spec, &read);
                watch_spec_free(&spec);
                watch_spec_free(&read);
        }
        buffer_free(&b);
        buffer_free(&where);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("watch-spec"), "watches");

        tcase_add_test(c, watches_each_member);
        tcase_add_test(c, watches_each_note);
        tcase_add_test(c, watches_each_flag);
        tcase_add_test(c, watches_flags_together);
        tcase_add_test(c, watches_out_of_range);
        tcase_add_test(c, watches_too_long);
        tcase_add_test(c, watches_too_many_words);
        tcase_add_test(c, watches_modify);
        tcase_add_test(c, watches_wrong);
        tcase_add_test(c, watches_that_are_no_objects);
        tcase_add_test(c, watches_id_may_be_missing);
        tcase_add_test(c, watches_round_trip);
        return harness_main(argc, argv);
}
