/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * queue/: whatever is merged, a client that does what it is told ends with what there is.
 *
 * The model is files and directories, as a list of paths. Random operations are done to it and reported; the queue,
 * with a small bound, merges; what is taken from it is done to a replica that was equal at first. `rescan` copies what
 * is below a path from the model as it is at that time. In the end they are equal.
 */

#include <stdarg.h>
#include <stdio.h>

#include "buffer.h"
#include "harness.h"
#include "macro.h"
#include "queue.h"
#include "queues.h"
#include "unit.h"

enum { ITEMS = 160, PATH_BYTES = 40, DEPTH_MAX = 5 };

struct item {
        bool used, is_dir;
        unsigned version; /* of a file's content */
        char path[PATH_BYTES];
};

struct tree_model {
        struct item items[ITEMS];
};

static struct tree_model truth, replica;
static unsigned next_version;
static struct buffer trace; /* of the round */

static _printf_(1, 2) void trace_line(const char *format, ...) {
        char line[256];
        va_list arguments;

        va_start(arguments, format);
        (void)vsnprintf(line, sizeof(line), format, arguments);
        va_end(arguments);
        buffer_put_string(&trace, line);
        buffer_put_literal(&trace, "\n");
}

static struct item *find_item(struct tree_model *m, const char *path) {
        for (size_t i = 0; i < ITEMS; i++)
                if (m->items[i].used && strcmp(m->items[i].path, path) == 0)
                        return &m->items[i];
        return NULL;
}

static struct item *put_item(struct tree_model *m, const char *path, bool is_dir, unsigned version) {
        struct item *item = find_item(m, path);

        for (size_t i = 0; i < ITEMS && !item; i++)
                if (!m->items[i].used)
                        item = &m->items[i];
        ck_assert_ptr_nonnull(item);
        *item = (struct item){ .used = true, .is_dir = is_dir, .version = version };
        (void)snprintf(item->path, sizeof(item->path), "%s", path);
        return item;
}

/* What is left behind the directory's path: NULL, if it isn't below or the same. */
static const char *within(const char *dir, const char *path) {
        size_t size = strlen(dir);

        if (size == 0)
                return path;
        if (strncmp(dir, path, size) != 0 || (path[size] != '/' && path[size] != 0))
                return NULL;
        return path + size;
}

static void drop_item(struct tree_model *m, const char *path) {
        for (size_t i = 0; i < ITEMS; i++)
                if (m->items[i].used && within(path, m->items[i].path))
                        m->items[i].used = false;
}

static bool has_children(struct tree_model *m, const char *path) {
        for (size_t i = 0; i < ITEMS; i++) {
                const char *rest = m->items[i].used ? within(path, m->items[i].path) : NULL;

                if (rest && *rest && (*path || m->items[i].path[0]))
                        return true;
        }
        return false;
}

static void move_item(struct tree_model *m, const char *from, const char *to) {
        for (size_t i = 0; i < ITEMS; i++) {
                const char *rest = m->items[i].used ? within(from, m->items[i].path) : NULL;
                char path[2 * PATH_BYTES];

                if (!rest)
                        continue;
                (void)snprintf(path, sizeof(path), "%s%s", to, rest);
                ck_assert_uint_lt(strlen(path), PATH_BYTES);
                memcpy(m->items[i].path, path, strlen(path) + 1);
        }
}

static size_t depth_of_path(const char *path) {
        size_t depth = 1;

        for (; *path; path++)
                depth += *path == '/';
        return depth;
}

static size_t height_of(struct tree_model *m, const char *path) {
        size_t most = 0;

        for (size_t i = 0; i < ITEMS; i++)
                if (m->items[i].used && within(path, m->items[i].path))
                        most = MAX(most, depth_of_path(m->items[i].path));
        return most - depth_of_path(path);
}

static size_t count_items(struct tree_model *m) {
        size_t n = 0;

        for (size_t i = 0; i < ITEMS; i++)
                n += m->items[i].used;
        return n;
}

/* ---- operations, done and reported */

enum operations {
        FILES = 1 << 0,       /* create, write, delete */
        FILE_MOVES = 1 << 1,  /* rename, also over another */
        DIRS = 1 << 2,        /* create, delete */
        DIR_MOVES = 1 << 3,
        IN_AND_OUT = 1 << 4,  /* moves into and out of the tree */
};

static struct item *random_item(struct random *r, bool is_dir) {
        for (unsigned i = 0; i < 200; i++) {
                struct item *item = &truth.items[random_below(r, ITEMS)];

                if (item->used && item->is_dir == is_dir)
                        return item;
        }
        return NULL;
}

/* A name in some directory. */
static void random_place(struct random *r, char *path) {
        struct item *dir = random_once_in(r, 4) ? NULL : random_item(r, true);

        if (dir && depth_of_path(dir->path) >= DEPTH_MAX)
                dir = NULL;
        (void)snprintf(path, PATH_BYTES, "%.30s%s%c", dir ? dir->path : "", dir ? "/" : "", (char)('a' + random_below(r, 4)));
}

static void tell(struct watch *watch, uint64_t notes, bool is_dir, const char *path, const char *from) {
        trace_line("%s%s%s%s%s%s%s%s %s%s%s", notes & KEV_NOTE_CREATE ? "create" : "", notes & KEV_NOTE_WRITE ? "write" : "",
                   notes & KEV_NOTE_DELETE ? "delete" : "", notes & KEV_NOTE_RENAME ? "rename" : "",
                   notes & KEV_NOTE_MOVEDIN ? "movedin" : "", notes & KEV_NOTE_MOVEDOUT ? "movedout" : "",
                   notes & KEV_NOTE_REPLACE ? "+replace" : "", is_dir ? " dir" : "", from ? from : "", from ? " -> " : "", path);
        report_path(watch, notes, is_dir ? KEV_KIND_DIRECTORY : KEV_KIND_FILE, path, from);
}

static void do_create(struct random *r, struct watch *watch, bool is_dir) {
        char path[PATH_BYTES];

        random_place(r, path);
        if (find_item(&truth, path) || count_items(&truth) > ITEMS / 2)
                return;
        put_item(&truth, path, is_dir, is_dir ? 0 : ++next_version);
        tell(watch, KEV_NOTE_CREATE, is_dir, path, NULL);
}

static void do_delete(struct random *r, struct watch *watch, bool is_dir) {
        struct item *item = random_item(r, is_dir);
        char path[PATH_BYTES];

        if (!item)
                return;
        memcpy(path, item->path, sizeof(path));
        if (is_dir) {
                /* As rm -r: what is below it goes first, the deepest first. */
                for (size_t depth = DEPTH_MAX + 2; depth > depth_of_path(path); depth--)
                        for (size_t i = 0; i < ITEMS; i++) {
                                struct item *child = &truth.items[i];

                                if (!child->used || depth_of_path(child->path) != depth || !within(path, child->path))
                                        continue;
                                child->used = false;
                                tell(watch, KEV_NOTE_DELETE, child->is_dir, child->path, NULL);
                        }
        }
        drop_item(&truth, path);
        tell(watch, KEV_NOTE_DELETE, is_dir, path, NULL);
}

static void do_write(struct random *r, struct watch *watch) {
        struct item *item = random_item(r, false);

        if (!item)
                return;
        item->version = ++next_version;
        tell(watch, KEV_NOTE_WRITE, false, item->path, NULL);
}

static void do_rename(struct random *r, struct watch *watch, bool is_dir) {
        struct item *item = random_item(r, is_dir), *target;
        char from[PATH_BYTES], to[PATH_BYTES];

        random_place(r, to);
        target = find_item(&truth, to);
        if (!item || item == target || within(item->path, to) ||
            (target && (target->is_dir != is_dir || has_children(&truth, to))) ||
            depth_of_path(to) + height_of(&truth, item->path) > DEPTH_MAX + 1)
                return;
        memcpy(from, item->path, sizeof(from));
        if (target)
                target->used = false;
        move_item(&truth, from, to);
        tell(watch, KEV_NOTE_RENAME | (target ? KEV_NOTE_REPLACE : 0), is_dir, to, from);
}

static void do_in_or_out(struct random *r, struct watch *watch) {
        bool is_dir = random_once_in(r, 2);
        struct item *item = random_item(r, is_dir);
        char path[PATH_BYTES];

        if (random_once_in(r, 2)) {
                if (!item)
                        return;
                memcpy(path, item->path, sizeof(path));
                drop_item(&truth, path);
                tell(watch, KEV_NOTE_MOVEDOUT, is_dir, path, NULL);
                return;
        }
        random_place(r, path);
        if (find_item(&truth, path) || count_items(&truth) > ITEMS / 2)
                return;
        put_item(&truth, path, is_dir, is_dir ? 0 : ++next_version);
        tell(watch, KEV_NOTE_MOVEDIN, is_dir, path, NULL);
        for (size_t n = is_dir && depth_of_path(path) < DEPTH_MAX ? random_below(r, 4) : 0; n > 0; n--) {
                char child[2 * PATH_BYTES];
                bool child_is_dir = random_once_in(r, 3);

                (void)snprintf(child, sizeof(child), "%s/%c", path, (char)('a' + n));
                put_item(&truth, child, child_is_dir, child_is_dir ? 0 : ++next_version);
                tell(watch, KEV_NOTE_CREATE, child_is_dir, child, NULL);
        }
}

static void do_something(struct random *r, struct watch *watch, unsigned operations) {
        switch (random_below(r, 12)) {
        case 0:
        case 1:
        case 2:
                if (operations & FILES)
                        do_create(r, watch, false);
                break;
        case 3:
        case 4:
                if (operations & FILES)
                        do_delete(r, watch, false);
                break;
        case 5:
                if (operations & FILES)
                        do_write(r, watch);
                break;
        case 6:
        case 7:
                if (operations & FILE_MOVES)
                        do_rename(r, watch, false);
                break;
        case 8:
                if (operations & DIRS)
                        do_create(r, watch, true);
                break;
        case 9:
                if (operations & DIRS && random_once_in(r, 2))
                        do_delete(r, watch, true);
                break;
        case 10:
                if (operations & DIR_MOVES)
                        do_rename(r, watch, true);
                break;
        default:
                if (operations & IN_AND_OUT)
                        do_in_or_out(r, watch);
                break;
        }
}

/* ---- what a client does with an event */

static void apply_rescan(const char *path) {
        char above[PATH_BYTES];
        struct item *item = find_item(&truth, path);

        drop_item(&replica, path);
        if (*path && !item)
                return;
        for (size_t i = 0; path[i]; i++) {
                if (path[i] != '/')
                        continue;
                memcpy(above, path, i);
                above[i] = 0;
                if (!find_item(&replica, above) || !find_item(&replica, above)->is_dir)
                        put_item(&replica, above, true, 0);
        }
        for (size_t i = 0; i < ITEMS; i++)
                if (truth.items[i].used && within(path, truth.items[i].path))
                        put_item(&replica, truth.items[i].path, truth.items[i].is_dir, truth.items[i].version);
}

/* What was gone from its path when its event came, since a directory above it had moved, is read at its new one. */
static void read_unread(const char *dir) {
        for (size_t i = 0; i < ITEMS; i++) {
                struct item *item = &replica.items[i], *now;

                if (!item->used || item->is_dir || item->version != 0 || !within(dir, item->path))
                        continue;
                now = find_item(&truth, item->path);
                if (now && !now->is_dir)
                        item->version = now->version;
        }
}

static void apply_dir(uint64_t notes, const char *path, const char *from) {
        struct item *item = find_item(&replica, path);

        if (notes & (KEV_NOTE_DELETE | KEV_NOTE_MOVEDOUT | KEV_NOTE_REPLACE))
                drop_item(&replica, path);
        if (from) {
                if (find_item(&replica, from)) {
                        drop_item(&replica, path);
                        move_item(&replica, from, path);
                        read_unread(path);
                        return;
                }
        } else if (!(notes & (KEV_NOTE_CREATE | KEV_NOTE_MOVEDIN)))
                return;
        item = find_item(&replica, path);
        if (!item || !item->is_dir)
                put_item(&replica, path, true, 0);
}

static void apply_file(uint64_t notes, const char *path, const char *from) {
        struct item *now = find_item(&truth, path), *item;
        unsigned version = 0;

        if (notes & (KEV_NOTE_DELETE | KEV_NOTE_MOVEDOUT | KEV_NOTE_REPLACE))
                drop_item(&replica, path);
        if (from) {
                item = find_item(&replica, from);
                version = item ? item->version : 0;
                drop_item(&replica, from);
                drop_item(&replica, path);
                put_item(&replica, path, false, version);
        } else if (notes & (KEV_NOTE_CREATE | KEV_NOTE_MOVEDIN)) {
                drop_item(&replica, path);
                put_item(&replica, path, false, 0);
        }
        /* It is read, as it is now. */
        item = find_item(&replica, path);
        if (now && !now->is_dir && ((item && !item->is_dir) || notes & KEV_NOTE_WRITE))
                put_item(&replica, path, false, now->version);
        else if (item && !item->is_dir)
                item->version = 0;
}

/* False: there is no event. */
static bool apply_next(void) {
        struct event *event = take();
        size_t size = strlen(harness_tempdir());
        const char *path, *from = NULL;
        bool is_dir;

        if (!event)
                return false;
        path = path_in_watch(event);
        is_dir = event->kind == KEV_KIND_DIRECTORY;
        if (event->from_path.bytes)
                from = event->from_path.bytes + size + 1;
        trace_line("    take: 0x%llx%s %s%s%s (%llu)", (unsigned long long)event->notes,
                   event->notes & KEV_NOTE_RESCAN ? " rescan" : is_dir ? " dir" : "", from ? from : "", from ? " -> " : "", path,
                   (unsigned long long)event->count);
        if (event->notes & KEV_NOTE_RESCAN)
                apply_rescan(path);
        else if (is_dir)
                apply_dir(event->notes, path, from);
        else
                apply_file(event->notes, path, from);
        event_unref(event);
        return true;
}

static const char *difference(void) {
        static char text[128];

        for (size_t i = 0; i < ITEMS; i++) {
                struct item *a = &truth.items[i], *b = a->used ? find_item(&replica, a->path) : NULL;

                if (!a->used)
                        continue;
                if (!b || a->is_dir != b->is_dir || a->version != b->version) {
                        (void)snprintf(text, sizeof(text), "%s %s", a->path,
                                       !b ? "is missed" : a->is_dir != b->is_dir ? "is of another kind" : "has other content");
                        return text;
                }
        }
        for (size_t i = 0; i < ITEMS; i++)
                if (replica.items[i].used && !find_item(&truth, replica.items[i].path)) {
                        (void)snprintf(text, sizeof(text), "%s is not there", replica.items[i].path);
                        return text;
                }
        return NULL;
}

static void show_trace(void) {
        char path[4096];
        FILE *file;

        (void)snprintf(path, sizeof(path), "%s/round.log", harness_tempdir());
        file = fopen(path, "we");
        ck_assert_ptr_nonnull(file);
        (void)fwrite(trace.data, 1, trace.size, file);
        (void)fclose(file);
}

static void start_truth(struct random *r) {
        memset(&truth, 0, sizeof(truth));
        for (unsigned i = 0; i < 16; i++) {
                char path[PATH_BYTES];
                bool is_dir = random_once_in(r, 2);

                random_place(r, path);
                if (!find_item(&truth, path))
                        put_item(&truth, path, is_dir, is_dir ? 0 : ++next_version);
        }
        replica = truth;
}

static void model_round(struct watch *watch, uint64_t seed, unsigned operations, bool take_meanwhile, size_t n_operations) {
        struct random r = { seed };
        const char *wrong;

        buffer_reset(&trace);
        start_truth(&r);
        for (size_t i = 0; i < ITEMS; i++)
                if (truth.items[i].used)
                        trace_line("there: %s%s", truth.items[i].path, truth.items[i].is_dir ? "/" : "");
        queue.bytes_max = 1500 + random_below(&r, 12000);
        for (size_t i = 0; i < n_operations; i++) {
                do_something(&r, watch, operations);
                if (take_meanwhile && random_once_in(&r, 6))
                        (void)apply_next();
        }
        while (apply_next())
                ;
        wrong = difference();
        if (wrong)
                show_trace();
        ck_assert_msg(!wrong, "seed %llu, %zu operations: %s", (unsigned long long)seed, n_operations, wrong);
        ck_assert_uint_eq(queue.bytes, 0);
        ck_assert_uint_eq(queue.n_entries, 0);
}

static const struct {
        const char *name;
        unsigned operations;
        bool take_meanwhile;
} variants[] = {
        { "files", FILES, false },
        { "files, taken meanwhile", FILES, true },
        { "files and their moves", FILES | FILE_MOVES, false },
        { "files and their moves, taken meanwhile", FILES | FILE_MOVES, true },
        { "files and directories", FILES | DIRS, false },
        { "files and directories, taken meanwhile", FILES | DIRS, true },
        { "files and moves of directories", FILES | DIR_MOVES, false },
        { "files and moves of directories, taken meanwhile", FILES | DIR_MOVES, true },
        { "files and moves in and out", FILES | IN_AND_OUT, false },
        { "everything", FILES | FILE_MOVES | DIRS | DIR_MOVES | IN_AND_OUT, false },
        { "everything, taken meanwhile", FILES | FILE_MOVES | DIRS | DIR_MOVES | IN_AND_OUT, true },
};

START_TEST(replica_is_equal) {
        const uint64_t all = 3000, n = (uint64_t)harness_rounds((int)all);
        struct watch *watch;

        harness_label(variants[_i].name);
        watch = add_tree(1);
        for (uint64_t round = 0; round < all; round += all / n) /* of all sizes, however few */
                model_round(watch, (uint64_t)_i * 1000000 + round, variants[_i].operations, variants[_i].take_meanwhile,
                            8 + round / 20);
        ck_assert_uint_gt(context.figures[FIGURE_RESCANS], n / 3);
        ck_assert_uint_gt(queue.merged, n * 10 / 3);
        buffer_free(&trace);
}
END_TEST

/* The model itself: with room for all nothing is merged, and the replica is equal too. */
START_TEST(replica_is_equal_without_merging) {
        struct watch *watch = add_tree(1);
        struct random r = { 91 };

        for (unsigned round = 0; round < 200; round++) {
                buffer_reset(&trace);
                start_truth(&r);
                for (unsigned i = 0; i < 200; i++)
                        do_something(&r, watch, FILES | FILE_MOVES | DIRS | DIR_MOVES | IN_AND_OUT);
                while (apply_next())
                        ;
                ck_assert_msg(!difference(), "round %u: %s", round, difference());
        }
        ck_assert_uint_eq(queue.merged, 0);
        buffer_free(&trace);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_queue_case(harness_suite("queue-model"), "model");

        tcase_add_test(c, replica_is_equal_without_merging);
        tcase_add_loop_test(c, replica_is_equal, 0, ARRAY_SIZE(variants));
        return harness_main(argc, argv);
}
