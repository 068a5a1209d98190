/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "subject.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The first name of `path`, and its length. */
static const char *next_name(const char *path, size_t *ret_size) {
        path += strspn(path, "/");
        *ret_size = strcspn(path, "/");
        return path;
}

static bool is_name(const char *name, size_t size, const char *other) {
        return size == strlen(other) && memcmp(name, other, size) == 0;
}

static void drop_last_name(struct text *t) {
        const char *slash = t->data ? strrchr(t->data, '/') : NULL;

        if (!slash)
                return;
        t->size = (size_t)(slash - t->data);
        t->data[t->size] = 0;
}

/*
 * Absolute, without "." and doubled slashes. A ".." is resolved only where it
 * follows the current directory, in which no name is a symbolic link: behind any
 * other name it may lead elsewhere than the text says, and is the kernel's.
 */
static char *absolute_path(const char *path) {
        struct text t = { 0 };
        bool resolved = path[0] != '/';
        const char *name;
        size_t size;

        if (resolved) {
                char *cwd = getcwd(NULL, 0);

                if (!cwd)
                        return NULL;
                if (strcmp(cwd, "/") != 0)
                        text_puts(&t, cwd);
                free(cwd);
        }
        for (name = next_name(path, &size); size > 0; name = next_name(name + size, &size)) {
                if (is_name(name, size, "."))
                        continue;
                if (resolved && is_name(name, size, "..")) {
                        drop_last_name(&t);
                        continue;
                }
                resolved = false;
                text_puts(&t, "/");
                text_put(&t, name, size);
        }
        if (t.size == 0)
                text_puts(&t, "/");
        if (t.failed)
                text_free(&t);
        return t.data;
}

struct subject *subject_new(struct session *session, const char *name, bool path) {
        struct subject *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        s->session = session;
        s->name = name ? strdup(name) : NULL;
        s->prefix = path && name ? absolute_path(name) : NULL;
        return (s->name || !name) && (s->prefix || !path) ? s : subject_free(s);
}

struct subject *subject_free(struct subject *subject) {
        if (!subject)
                return NULL;
        free(subject->name);
        free(subject->prefix);
        free(subject);
        return NULL;
}

/* What stands behind the prefix, without a slash; NULL where `path` lies elsewhere. */
static const char *below(const char *prefix, const char *path) {
        size_t size = strlen(prefix);

        if (strncmp(path, prefix, size) != 0)
                return NULL;
        if (path[size] != 0 && path[size] != '/' && prefix[size - 1] != '/')
                return NULL;
        return path + size + strspn(path + size, "/");
}

void subject_put_path(const struct subject *subject, const char *path, text_append *append, struct text *out) {
        const char *name = subject->name, *rest = subject->prefix ? below(subject->prefix, path) : NULL;

        if (!rest) {
                append(out, path);
                return;
        }
        if (*rest == 0) {
                append(out, name);
                return;
        }
        if (strcmp(name, ".") != 0) {
                append(out, name);
                if (name[strlen(name) - 1] != '/')
                        text_puts(out, "/");
        }
        append(out, rest);
}
