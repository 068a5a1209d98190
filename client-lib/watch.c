/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The builder of a watch. Each setter refuses what no watch could have; whether
 * the members go together, with the filter and with what there is, kevd says
 * when the watch is made, and with a sentence.
 */

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"
#include "message.h"
#include "vocabulary.h"

_public_ int kev_watch_new(enum kev_filter filter, struct kev_watch **ret_watch) {
        struct kev_watch *watch;

        if (!kev_filter_name(filter))
                return -EINVAL;
        watch = malloc(sizeof(*watch));
        if (!watch)
                return -ENOMEM;
        watch_spec_init(&watch->spec, filter);
        watch->fd = -1;
        *ret_watch = watch;
        return 0;
}

_public_ struct kev_watch *kev_watch_free(struct kev_watch *watch) {
        if (!watch)
                return NULL;
        (void)safe_close(watch->fd);
        watch_spec_free(&watch->spec);
        free(watch);
        return NULL;
}

/* ---- from JSON -------------------------------------------------------------- */

/* Says in `sentence` why it is no watch. */
static int read_spec(struct json_object *json, struct watch_spec *spec, char **sentence) {
        struct buffer where _cleanup_(buffer_free) = BUFFER_INIT;
        int r = watch_spec_read(json, false, &where, spec);

        if (r == -EINVAL && asprintf(sentence, "%s: missing, unknown, or of another type",
                                     where.data ? where.data : "the watch") < 0)
                *sentence = NULL;
        if (r < 0)
                return r;
        if (spec->descriptor != ABSENT)
                (void)snprintf(spec->refusal, sizeof(spec->refusal),
                               "descriptor: it goes with the call, and can't be given in JSON here");
        watch_spec_check(spec, false);
        if (!spec->refusal[0])
                return 0;
        *sentence = strdup(spec->refusal);
        watch_spec_free(spec);
        return -EINVAL;
}

_public_ int kev_watch_new_from_json(const char *text, struct kev_watch **ret_watch, char **ret_error) {
        char *sentence _cleanup_(freep) = NULL;
        struct kev_watch *watch = NULL;
        struct json_object *json = NULL;
        int r = kev_watch_new(KEV_FILTER_VNODE, &watch);

        if (r < 0)
                return r;
        r = message_parse(text, strlen(text), &json);
        if (r == 0)
                r = read_spec(json, &watch->spec, &sentence);
        else if (r == -EBADMSG) {
                r = -EINVAL;
                sentence = strdup("It is not a JSON object");
        }
        json_object_put(json);
        if (r == -EINVAL && ret_error && !sentence)
                r = -ENOMEM;
        if (r < 0)
                kev_watch_free(watch);
        else
                *ret_watch = watch;
        if (r == -EINVAL && ret_error)
                *ret_error = take_pointer(&sentence);
        return r;
}

/* ---- setters ------------------------------------------------------------------ */

_public_ int kev_watch_set_id(struct kev_watch *watch, int64_t id) {
        if (id < 0)
                return -EINVAL;
        watch->spec.id = id;
        return 0;
}

/* The path as an absolute one: "./" in front and slashes behind say nothing. */
static int make_absolute(const char *path, char **ret_path) {
        char *directory _cleanup_(freep) = NULL;
        const char *separator = "/";
        size_t size;

        if (path[0] != '/') {
                directory = getcwd(NULL, 0);
                if (!directory)
                        return -errno;
                while (path[0] == '.' && (path[1] == '/' || path[1] == 0)) {
                        path++;
                        path += strspn(path, "/");
                }
                if (!path[0] || strcmp(directory, "/") == 0)
                        separator = "";
        }
        size = strlen(path);
        while (size > 1 && path[size - 1] == '/')
                size--;
        if (size > WATCH_PATH_MAX)
                return -EINVAL;
        if (!directory)
                *ret_path = strndup(path, size);
        else if (asprintf(ret_path, "%s%s%.*s", directory, separator, (int)size, path) < 0)
                *ret_path = NULL;
        return *ret_path ? 0 : -ENOMEM;
}

_public_ int kev_watch_set_path(struct kev_watch *watch, const char *path) {
        char *absolute = NULL;
        int r;

        if (!path || !path[0])
                return -EINVAL;
        r = make_absolute(path, &absolute);
        if (!absolute)
                return r;
        free(watch->spec.path);
        watch->spec.path = absolute;
        watch->spec.path_size = strlen(absolute);
        return 0;
}

_public_ int kev_watch_set_pid(struct kev_watch *watch, pid_t pid) {
        if (pid <= 0)
                return -EINVAL;
        watch->spec.pid = pid;
        return 0;
}

_public_ int kev_watch_set_fd(struct kev_watch *watch, int fd) {
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);

        if (copy < 0)
                return -errno;
        (void)safe_close(watch->fd);
        watch->fd = copy;
        return 0;
}

/* Text that has to be UTF-8, for it goes out as a string. */
static bool is_text(const char *text, size_t size_max) {
        size_t size = text ? strlen(text) : 0;

        return size >= 1 && size <= size_max && utf8_is_valid(text, size);
}

_public_ int kev_watch_set_name(struct kev_watch *watch, const char *name) {
        char *copy;

        if (!is_text(name, WATCH_NAME_MAX))
                return -EINVAL;
        copy = strdup(name);
        if (!copy)
                return -ENOMEM;
        free(watch->spec.name);
        watch->spec.name = copy;
        return 0;
}

_public_ int kev_watch_set_data(struct kev_watch *watch, int64_t data) {
        if (data == ABSENT || (data < 0 && watch->spec.filter != KEV_FILTER_SIGNAL))
                return -EINVAL;
        watch->spec.data = data;
        return 0;
}

_public_ int kev_watch_set_notes(struct kev_watch *watch, uint64_t notes) {
        if (notes & ~kev_filter_notes(watch->spec.filter))
                return -EINVAL;
        watch->spec.notes = notes;
        return 0;
}

_public_ int kev_watch_set_flags(struct kev_watch *watch, uint32_t flags) {
        if (flags & ~FLAGS_OF_WATCH)
                return -EINVAL;
        watch->spec.flags = flags;
        return 0;
}

/* A glob, or NULL for none. */
static int copy_glob(const char *glob, char **ret) {
        if (!glob)
                return 0;
        if (!is_text(glob, WATCH_GLOB_BYTES_MAX))
                return -EINVAL;
        *ret = strdup(glob);
        return *ret ? 0 : -ENOMEM;
}

_public_ int kev_watch_set_match(struct kev_watch *watch, const char *exe, const char *comm, const char *cgroup,
                                 int64_t uid) {
        char *new_exe _cleanup_(freep) = NULL, *new_comm _cleanup_(freep) = NULL, *new_cgroup _cleanup_(freep) = NULL;
        struct process_match *match = &watch->spec.match;
        int r = uid < -1 || uid > UINT32_MAX ? -EINVAL : copy_glob(exe, &new_exe);

        if (r == 0)
                r = copy_glob(comm, &new_comm);
        if (r == 0)
                r = copy_glob(cgroup, &new_cgroup);
        if (r < 0)
                return r;
        free(match->exe);
        free(match->comm);
        free(match->cgroup);
        match->exe = take_pointer(&new_exe);
        match->comm = take_pointer(&new_comm);
        match->cgroup = take_pointer(&new_cgroup);
        match->uid = uid < 0 ? ABSENT : uid;
        match->given = true;
        return 0;
}

/* ---- of trees ------------------------------------------------------------------- */

static int add_glob(struct kev_watch *watch, char ***globs, const char *glob) {
        size_t n = 0;
        char **larger, *copy;

        while (*globs && (*globs)[n])
                n++;
        if (n == WATCH_GLOBS_MAX || !is_text(glob, WATCH_GLOB_BYTES_MAX))
                return -EINVAL;
        copy = strdup(glob);
        larger = copy ? reallocarray(*globs, n + 2, sizeof(*larger)) : NULL;
        if (!larger) {
                free(copy);
                return -ENOMEM;
        }
        larger[n] = copy;
        larger[n + 1] = NULL;
        *globs = larger;
        watch->spec.tree.given = true;
        return 0;
}

_public_ int kev_watch_add_include(struct kev_watch *watch, const char *glob) {
        return add_glob(watch, &watch->spec.tree.include, glob);
}

_public_ int kev_watch_add_exclude(struct kev_watch *watch, const char *glob) {
        return add_glob(watch, &watch->spec.tree.exclude, glob);
}

_public_ int kev_watch_set_depth(struct kev_watch *watch, int depth) {
        if (depth < 1)
                return -EINVAL;
        watch->spec.tree.depth = depth;
        watch->spec.tree.given = true;
        return 0;
}

_public_ int kev_watch_set_settle(struct kev_watch *watch, int settle_msec, int max_latency_msec) {
        if (settle_msec < 1 || max_latency_msec < 0)
                return -EINVAL;
        watch->spec.tree.settle_msec = settle_msec;
        watch->spec.tree.max_latency_msec = max_latency_msec > 0 ? max_latency_msec : ABSENT;
        watch->spec.tree.given = true;
        return 0;
}

_public_ int kev_watch_set_list(struct kev_watch *watch, bool list) {
        watch->spec.tree.list = list;
        watch->spec.tree.given = true;
        return 0;
}

_public_ int kev_watch_set_cross_mounts(struct kev_watch *watch, bool cross) {
        watch->spec.tree.cross_mounts = cross;
        watch->spec.tree.given = true;
        return 0;
}

_public_ int kev_watch_set_exclude_self(struct kev_watch *watch, bool exclude) {
        watch->spec.tree.exclude_self = exclude;
        watch->spec.tree.given = true;
        return 0;
}
