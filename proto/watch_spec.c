/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "watch_spec.h"

#include <errno.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "buffer.h"
#include "macro.h"
#include "message.h"

void watch_spec_init(struct watch_spec *spec, enum kev_filter filter) {
        *spec = (struct watch_spec){
                .filter = filter,
                .id = ABSENT,
                .pid = ABSENT,
                .descriptor = ABSENT,
                .data = ABSENT,
                .tree = { .depth = ABSENT, .settle_msec = ABSENT, .max_latency_msec = ABSENT },
                .match = { .uid = ABSENT },
        };
}

static void strings_free(char **strings) {
        for (char **s = strings; s && *s; s++)
                free(*s);
        free(strings);
}

void watch_spec_free(struct watch_spec *spec) {
        free(spec->path);
        free(spec->name);
        strings_free(spec->tree.include);
        strings_free(spec->tree.exclude);
        free(spec->match.exe);
        free(spec->match.comm);
        free(spec->match.cgroup);
        watch_spec_init(spec, spec->filter);
}

/* ---- checking ---------------------------------------------------------------- */

static _printf_(2, 3) void refuse(struct watch_spec *spec, const char *format, ...) {
        va_list arguments;

        if (spec->refusal[0])
                return;
        va_start(arguments, format);
        (void)vsnprintf(spec->refusal, sizeof(spec->refusal), format, arguments);
        va_end(arguments);
}

enum member {
        MEMBER_PATH = 1 << 0,
        MEMBER_PID = 1 << 1,
        MEMBER_DESCRIPTOR = 1 << 2,
        MEMBER_NAME = 1 << 3,
        MEMBER_DATA = 1 << 4,
        MEMBER_TREE = 1 << 5,
        MEMBER_MATCH = 1 << 6,
};

static const struct {
        enum member member;
        const char *name;
} members[] = {
        { MEMBER_PATH, "path" }, { MEMBER_PID, "pid" },   { MEMBER_DESCRIPTOR, "descriptor" },
        { MEMBER_NAME, "name" }, { MEMBER_DATA, "data" }, { MEMBER_TREE, "tree" },
        { MEMBER_MATCH, "match" },
};

/* What a watch may say, and what it must (one of). */
static const struct {
        unsigned may, one_of;
        const char *missing;
} rules[FILTER_COUNT] = {
        [KEV_FILTER_VNODE] = { MEMBER_PATH | MEMBER_DESCRIPTOR, MEMBER_PATH | MEMBER_DESCRIPTOR, "path" },
        [KEV_FILTER_TREE] = { MEMBER_PATH | MEMBER_DESCRIPTOR | MEMBER_TREE, MEMBER_PATH | MEMBER_DESCRIPTOR, "path" },
        [KEV_FILTER_PROC] = { MEMBER_PID | MEMBER_DESCRIPTOR | MEMBER_MATCH,
                              MEMBER_PID | MEMBER_DESCRIPTOR | MEMBER_MATCH, "pid" },
        [KEV_FILTER_NETDEV] = { MEMBER_NAME, 0, NULL },
        [KEV_FILTER_READ] = { MEMBER_DESCRIPTOR | MEMBER_DATA, MEMBER_DESCRIPTOR, "descriptor" },
        [KEV_FILTER_WRITE] = { MEMBER_DESCRIPTOR | MEMBER_DATA, MEMBER_DESCRIPTOR, "descriptor" },
        [KEV_FILTER_POLL] = { MEMBER_DESCRIPTOR, MEMBER_DESCRIPTOR, "descriptor" },
        [KEV_FILTER_AIO] = { MEMBER_DESCRIPTOR, MEMBER_DESCRIPTOR, "descriptor" },
        [KEV_FILTER_SIGNAL] = { MEMBER_PID | MEMBER_DATA, 0, NULL },
        [KEV_FILTER_TIMER] = { MEMBER_DATA, MEMBER_DATA, "data" },
        [KEV_FILTER_USER] = { MEMBER_NAME, MEMBER_NAME, "name" },
};

static unsigned members_given(const struct watch_spec *s) {
        return (s->path ? MEMBER_PATH : 0u) | (s->pid != ABSENT ? MEMBER_PID : 0u) |
               (s->descriptor != ABSENT ? MEMBER_DESCRIPTOR : 0u) | (s->name ? MEMBER_NAME : 0u) |
               (s->data != ABSENT ? MEMBER_DATA : 0u) | (s->tree.given ? MEMBER_TREE : 0u) |
               (s->match.given ? MEMBER_MATCH : 0u);
}

static void check_glob(struct watch_spec *spec, const char *name, const char *glob) {
        if (glob && (glob[0] == 0 || strlen(glob) > WATCH_GLOB_BYTES_MAX))
                refuse(spec, "match.%s: a glob has 1 to %d bytes", name, WATCH_GLOB_BYTES_MAX);
}

/* `bytes`: those of all globs so far. */
static void check_globs(struct watch_spec *spec, const char *name, char **globs, size_t *bytes) {
        size_t n = 0;

        for (; globs && globs[n]; n++) {
                if (globs[n][0] == 0 || strlen(globs[n]) > WATCH_GLOB_BYTES_MAX)
                        refuse(spec, "tree.%s: a glob has 1 to %d bytes", name, WATCH_GLOB_BYTES_MAX);
                *bytes += strlen(globs[n]);
        }
        if (*bytes > WATCH_GLOBS_BYTES_MAX)
                refuse(spec, "tree.%s: all globs together have more than %d bytes", name, WATCH_GLOBS_BYTES_MAX);
        if (n > WATCH_GLOBS_MAX)
                refuse(spec, "tree.%s: more than %d globs", name, WATCH_GLOBS_MAX);
}

static void check_numbers(struct watch_spec *spec) {
        const struct tree_options *t = &spec->tree;

        if (spec->id != ABSENT && spec->id < 0)
                refuse(spec, "id: must not be negative");
        if (spec->pid != ABSENT && (spec->pid <= 0 || spec->pid > INT32_MAX))
                refuse(spec, "pid: must be from 1 to %d", INT32_MAX);
        if (spec->filter != KEV_FILTER_SIGNAL && spec->data != ABSENT && spec->data < 0)
                refuse(spec, "data: must not be negative");
        if (spec->filter == KEV_FILTER_SIGNAL && spec->data != ABSENT && (spec->data < 1 || spec->data >= NSIG))
                refuse(spec, "data: not a signal's number");
        if (t->depth != ABSENT && (t->depth < 1 || t->depth > INT32_MAX))
                refuse(spec, "tree.depth: must be 1 or more");
        if (t->settle_msec != ABSENT && (t->settle_msec < 0 || t->settle_msec > INT32_MAX))
                refuse(spec, "tree.settleMsec: must be from 0 to %d", INT32_MAX);
        if (t->max_latency_msec != ABSENT && (t->max_latency_msec < 0 || t->max_latency_msec > INT32_MAX))
                refuse(spec, "tree.maxLatencyMsec: must be from 0 to %d", INT32_MAX);
        if (t->max_latency_msec != ABSENT && (t->settle_msec == ABSENT || t->settle_msec == 0))
                refuse(spec, "tree.maxLatencyMsec: is of no use without settleMsec");
        if (spec->match.uid != ABSENT && (spec->match.uid < 0 || spec->match.uid > UINT32_MAX))
                refuse(spec, "match.uid: not a user's number");
}

static void check_strings(struct watch_spec *spec) {
        size_t glob_bytes = 0;

        if (spec->path && (spec->path[0] != '/' || spec->path_size > WATCH_PATH_MAX))
                refuse(spec, spec->path[0] != '/' ? "path: must be absolute" : "path: too long");
        if (spec->name && (spec->name[0] == 0 || strlen(spec->name) > WATCH_NAME_MAX))
                refuse(spec, "name: must have 1 to %d bytes", WATCH_NAME_MAX);
        check_glob(spec, "exe", spec->match.exe);
        check_glob(spec, "comm", spec->match.comm);
        check_glob(spec, "cgroup", spec->match.cgroup);
        check_globs(spec, "include", spec->tree.include, &glob_bytes);
        check_globs(spec, "exclude", spec->tree.exclude, &glob_bytes);
}

/* epoll_ctl(2): what EPOLLEXCLUSIVE goes with. */
#define NOTES_OF_EXCLUSIVE (KEV_NOTE_IN | KEV_NOTE_OUT | KEV_NOTE_ERR | KEV_NOTE_HUP)
#define FLAGS_NOT_EXCLUSIVE (KEV_FLAG_ONESHOT | KEV_FLAG_DISPATCH)

static void check_flags(struct watch_spec *spec) {
        if ((spec->flags & KEV_FLAG_LEVEL) && !filter_is_of_descriptor(spec->filter))
                refuse(spec, "flags: \"level\" is for read, write, poll and aio");
        if ((spec->flags & (KEV_FLAG_EDGE | KEV_FLAG_EXCLUSIVE)) && spec->filter != KEV_FILTER_POLL)
                refuse(spec, "flags: \"edge\" and \"exclusive\" are for poll");
        if ((spec->flags & KEV_FLAG_EDGE) && (spec->flags & KEV_FLAG_LEVEL))
                refuse(spec, "flags: \"edge\" and \"level\" exclude each other");
        if ((spec->flags & KEV_FLAG_EXCLUSIVE) && (spec->notes & ~NOTES_OF_EXCLUSIVE))
                refuse(spec, "notes: an exclusive watch has only in, out, err and hup");
        if ((spec->flags & KEV_FLAG_EXCLUSIVE) && (spec->flags & FLAGS_NOT_EXCLUSIVE))
                refuse(spec, "flags: \"exclusive\" does not go with \"oneshot\" or \"dispatch\"");
}

static void check_words(struct watch_spec *spec) {
        uint64_t strange = spec->notes & ~kev_filter_notes(spec->filter);
        uint64_t units = spec->notes & (KEV_NOTE_SEC | KEV_NOTE_MSEC | KEV_NOTE_USEC | KEV_NOTE_NSEC);

        if (strange)
                refuse(spec, "notes: \"%s\" is not a note of %s", kev_note_name(strange & -strange),
                       kev_filter_name(spec->filter));
        if (spec->filter == KEV_FILTER_TIMER && (units & (units - 1)))
                refuse(spec, "notes: more than one unit of time");
        if (spec->flags & ~FLAGS_OF_WATCH)
                refuse(spec, "flags: \"%s\" is a flag of events", kev_flag_name(spec->flags & ~FLAGS_OF_WATCH));
        check_flags(spec);
}

void watch_spec_check_values(struct watch_spec *spec) {
        check_numbers(spec);
        check_strings(spec);
        check_words(spec);
}

void watch_spec_check(struct watch_spec *spec, bool modify) {
        unsigned given = members_given(spec);
        /* poll: more notes may take the descriptor once more. */
        unsigned fixed = MEMBER_PATH | MEMBER_PID | MEMBER_NAME | MEMBER_MATCH |
                         (spec->filter == KEV_FILTER_POLL ? 0u : MEMBER_DESCRIPTOR);

        for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
                if (given & members[i].member & ~rules[spec->filter].may)
                        refuse(spec, "%s: not for a %s watch", members[i].name, kev_filter_name(spec->filter));
                if (modify && (given & members[i].member & fixed))
                        refuse(spec, "%s: can't be changed; remove the watch and add another", members[i].name);
        }
        if (!modify && rules[spec->filter].one_of && !(given & rules[spec->filter].one_of))
                refuse(spec, "%s: missing", rules[spec->filter].missing);
        if (spec->filter == KEV_FILTER_PROC && (given & (given - 1)))
                refuse(spec, "pid, descriptor, match: only one of them can be given");
        watch_spec_check_values(spec);
}

/* ---- reading --------------------------------------------------------------- */

struct watch_fields {
        int64_t id, pid, descriptor, data;
        const char *filter, *path, *path_bytes, *name;
        struct json_object *notes, *flags, *tree, *match;
};

static const struct field watch_fields[] = {
        { "id", FIELD_INT, offsetof(struct watch_fields, id), false },
        { "filter", FIELD_STRING, offsetof(struct watch_fields, filter), true },
        { "notes", FIELD_STRINGS, offsetof(struct watch_fields, notes), false },
        { "flags", FIELD_STRINGS, offsetof(struct watch_fields, flags), false },
        { "path", FIELD_STRING, offsetof(struct watch_fields, path), false },
        { "pathBytes", FIELD_STRING, offsetof(struct watch_fields, path_bytes), false },
        { "pid", FIELD_INT, offsetof(struct watch_fields, pid), false },
        { "descriptor", FIELD_INT, offsetof(struct watch_fields, descriptor), false },
        { "name", FIELD_STRING, offsetof(struct watch_fields, name), false },
        { "data", FIELD_INT, offsetof(struct watch_fields, data), false },
        { "tree", FIELD_OBJECT, offsetof(struct watch_fields, tree), false },
        { "match", FIELD_OBJECT, offsetof(struct watch_fields, match), false },
};

struct tree_fields {
        struct tree_options options;
        struct json_object *include, *exclude;
};

static const struct field tree_fields[] = {
        { "include", FIELD_STRINGS, offsetof(struct tree_fields, include), false },
        { "exclude", FIELD_STRINGS, offsetof(struct tree_fields, exclude), false },
        { "depth", FIELD_INT, offsetof(struct tree_fields, options.depth), false },
        { "settleMsec", FIELD_INT, offsetof(struct tree_fields, options.settle_msec), false },
        { "maxLatencyMsec", FIELD_INT, offsetof(struct tree_fields, options.max_latency_msec), false },
        { "list", FIELD_BOOL, offsetof(struct tree_fields, options.list), false },
        { "crossMounts", FIELD_BOOL, offsetof(struct tree_fields, options.cross_mounts), false },
        { "excludeSelf", FIELD_BOOL, offsetof(struct tree_fields, options.exclude_self), false },
};

struct match_fields {
        const char *exe, *comm, *cgroup;
        int64_t uid;
};

static const struct field match_fields[] = {
        { "exe", FIELD_STRING, offsetof(struct match_fields, exe), false },
        { "comm", FIELD_STRING, offsetof(struct match_fields, comm), false },
        { "cgroup", FIELD_STRING, offsetof(struct match_fields, cgroup), false },
        { "uid", FIELD_INT, offsetof(struct match_fields, uid), false },
};

static int copy_string(const char *from, char **ret) {
        if (!from)
                return 0;
        *ret = strdup(from);
        return *ret ? 0 : -ENOMEM;
}

static int copy_strings(struct json_object *from, char ***ret) {
        size_t n;

        if (!from)
                return 0;
        n = json_object_array_length(from);
        *ret = calloc(n + 1, sizeof(char *));
        if (!*ret)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                (*ret)[i] = strdup(json_object_get_string(json_object_array_get_idx(from, i)));
                if (!(*ret)[i])
                        return -ENOMEM;
        }
        return 0;
}

/* What is given twice may be given once: a list that is longer than that is not looked at. */
static bool is_too_long(struct watch_spec *spec, struct json_object *list, const char *name, int n_max, const char *what) {
        if (!list || json_object_array_length(list) <= (size_t)n_max)
                return false;
        refuse(spec, "%s: more than %d %s", name, n_max, what);
        return true;
}

/* Words that are none make the watch impossible, not the call. */
static void read_notes(struct watch_spec *spec, struct json_object *notes) {
        if (is_too_long(spec, notes, "notes", NOTE_COUNT, "words"))
                return;
        for (size_t i = 0; notes && i < json_object_array_length(notes); i++) {
                const char *word = json_object_get_string(json_object_array_get_idx(notes, i));
                uint64_t note;

                if (kev_note_from_name(word, &note) < 0)
                        refuse(spec, "notes: \"%.40s\" is not a note of %s", word, kev_filter_name(spec->filter));
                else
                        spec->notes |= note;
        }
}

static void read_flags(struct watch_spec *spec, struct json_object *flags) {
        if (is_too_long(spec, flags, "flags", FLAG_COUNT, "words"))
                return;
        for (size_t i = 0; flags && i < json_object_array_length(flags); i++) {
                const char *word = json_object_get_string(json_object_array_get_idx(flags, i));
                uint32_t flag;

                if (flag_from_name(word, &flag) < 0)
                        refuse(spec, "flags: \"%.40s\" is not a flag", word);
                else
                        spec->flags |= flag;
        }
}

static int read_path(struct watch_spec *spec, const struct watch_fields *f, struct buffer *where) {
        char *scratch _cleanup_(freep) = NULL;
        struct event_path path = { 0 };
        int r;

        if (f->path && f->path_bytes)
                refuse(spec, "pathBytes: given beside path");
        r = event_path_from_json(f->path, f->path_bytes, &scratch, &path);
        if (r == -EBADMSG) {
                where_put_name(where, "pathBytes");
                return -EINVAL;
        }
        if (r < 0 || !path.bytes)
                return r;
        spec->path_size = path.size;
        return copy_string(path.bytes, &spec->path);
}

static int read_tree(struct watch_spec *spec, struct json_object *json, struct buffer *where) {
        struct tree_fields f = { .options = spec->tree };
        int r;

        if (!json)
                return 0;
        where_put_name(where, "tree");
        r = fields_read(json, tree_fields, ARRAY_SIZE(tree_fields), &f, where);
        if (r < 0)
                return r;
        spec->tree = f.options;
        spec->tree.given = true;
        if (is_too_long(spec, f.include, "tree.include", WATCH_GLOBS_MAX, "globs") ||
            is_too_long(spec, f.exclude, "tree.exclude", WATCH_GLOBS_MAX, "globs"))
                return 0;
        r = copy_strings(f.include, &spec->tree.include);
        return r < 0 ? r : copy_strings(f.exclude, &spec->tree.exclude);
}

static int read_match(struct watch_spec *spec, struct json_object *json, struct buffer *where) {
        struct match_fields f = { .uid = ABSENT };
        int r;

        if (!json)
                return 0;
        where_put_name(where, "match");
        r = fields_read(json, match_fields, ARRAY_SIZE(match_fields), &f, where);
        if (r < 0)
                return r;
        spec->match.given = true;
        spec->match.uid = f.uid;
        r = copy_string(f.exe, &spec->match.exe);
        if (r == 0)
                r = copy_string(f.comm, &spec->match.comm);
        return r < 0 ? r : copy_string(f.cgroup, &spec->match.cgroup);
}

static int read_members(struct watch_spec *spec, const struct watch_fields *f, struct buffer *where) {
        size_t start = where->size;
        int r;

        spec->id = f->id;
        spec->pid = f->pid;
        spec->descriptor = f->descriptor;
        spec->data = f->data;
        read_notes(spec, f->notes);
        read_flags(spec, f->flags);
        r = read_path(spec, f, where);
        if (r == 0)
                r = copy_string(f->name, &spec->name);
        if (r == 0)
                r = read_tree(spec, f->tree, where);
        if (r < 0)
                return r;
        where->size = start;
        r = read_match(spec, f->match, where);
        if (r == 0)
                where->size = start;
        return r;
}

int watch_spec_read(struct json_object *json, bool id_required, struct buffer *where, struct watch_spec *ret_spec) {
        struct watch_fields f = { .id = ABSENT, .pid = ABSENT, .descriptor = ABSENT, .data = ABSENT };
        enum kev_filter filter;
        int r;

        if (!json_object_is_type(json, json_type_object))
                return -EINVAL;
        r = fields_read(json, watch_fields, ARRAY_SIZE(watch_fields), &f, where);
        if (r < 0)
                return r;
        if (id_required && f.id == ABSENT) {
                where_put_name(where, "id");
                return -EINVAL;
        }
        if (kev_filter_from_name(f.filter, &filter) < 0) {
                where_put_name(where, "filter");
                return -EINVAL;
        }
        watch_spec_init(ret_spec, filter);
        r = read_members(ret_spec, &f, where);
        if (r < 0)
                watch_spec_free(ret_spec);
        return r;
}

/* ---- writing --------------------------------------------------------------- */

static void put_key(struct buffer *b, const char *key) {
        if (b->size > 0 && b->data[b->size - 1] != '{')
                buffer_put_literal(b, ",");
        buffer_put_literal(b, "\"");
        buffer_put_string(b, key);
        buffer_put_literal(b, "\":");
}

static void put_int(struct buffer *b, const char *key, int64_t value) {
        if (value == ABSENT)
                return;
        put_key(b, key);
        buffer_put_i64(b, value);
}

static void put_string(struct buffer *b, const char *key, const char *value) {
        if (!value)
                return;
        put_key(b, key);
        json_put_string(b, value, strlen(value));
}

static void put_strings(struct buffer *b, const char *key, char **values) {
        if (!values)
                return;
        put_key(b, key);
        buffer_put_literal(b, "[");
        for (size_t i = 0; values[i]; i++) {
                if (i > 0)
                        buffer_put_literal(b, ",");
                json_put_string(b, values[i], strlen(values[i]));
        }
        buffer_put_literal(b, "]");
}

static void put_true(struct buffer *b, const char *key, bool value) {
        if (!value)
                return;
        put_key(b, key);
        buffer_put_literal(b, "true");
}

static void put_words(struct buffer *b, const char *key, uint64_t bits, bool notes) {
        const char *separator = "";

        if (bits == 0)
                return;
        put_key(b, key);
        buffer_put_literal(b, "[");
        for (; bits != 0; bits &= bits - 1) {
                buffer_put_string(b, separator);
                buffer_put_literal(b, "\"");
                buffer_put_string(b, notes ? kev_note_name(bits & -bits) : kev_flag_name((uint32_t)(bits & -bits)));
                buffer_put_literal(b, "\"");
                separator = ",";
        }
        buffer_put_literal(b, "]");
}

void watch_spec_put(struct buffer *b, const struct watch_spec *s) {
        buffer_put_literal(b, "{");
        put_int(b, "id", s->id);
        put_string(b, "filter", kev_filter_name(s->filter));
        put_words(b, "notes", s->notes, true);
        put_words(b, "flags", s->flags, false);
        if (s->path && utf8_is_valid(s->path, s->path_size))
                put_string(b, "path", s->path);
        else if (s->path) {
                put_key(b, "pathBytes");
                json_put_base64(b, s->path, s->path_size);
        }
        put_int(b, "pid", s->pid);
        put_int(b, "descriptor", s->descriptor);
        put_string(b, "name", s->name);
        put_int(b, "data", s->data);
        if (s->tree.given) {
                put_key(b, "tree");
                buffer_put_literal(b, "{");
                put_strings(b, "include", s->tree.include);
                put_strings(b, "exclude", s->tree.exclude);
                put_int(b, "depth", s->tree.depth);
                put_int(b, "settleMsec", s->tree.settle_msec);
                put_int(b, "maxLatencyMsec", s->tree.max_latency_msec);
                put_true(b, "list", s->tree.list);
                put_true(b, "crossMounts", s->tree.cross_mounts);
                put_true(b, "excludeSelf", s->tree.exclude_self);
                buffer_put_literal(b, "}");
        }
        if (s->match.given) {
                put_key(b, "match");
                buffer_put_literal(b, "{");
                put_string(b, "exe", s->match.exe);
                put_string(b, "comm", s->match.comm);
                put_string(b, "cgroup", s->match.cgroup);
                put_int(b, "uid", s->match.uid);
                buffer_put_literal(b, "}");
        }
        buffer_put_literal(b, "}");
}
