/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * source/tree: the tree of directories, against a model that holds each
 * directory's parent and name in an array.
 */

#include <stdio.h>

#include "harness.h"
#include "macro.h"
#include "tree.h"
#include "unit.h"

static struct tree tree;

static void setup(void) {
        ck_assert_int_eq(tree_init(&tree), 0);
}

static const char *path_of(const struct dir *dir) {
        static char text[4096];
        struct buffer b = BUFFER_INIT;

        tree_path(dir, &b);
        assert_often(b.error == 0, "no memory");
        assert_often(b.size < sizeof(text) && b.data[b.size] == 0, "%zu bytes, or no NUL behind them", b.size);
        memcpy(text, b.data, b.size + 1);
        buffer_free(&b);
        return text;
}

START_TEST(paths) {
        struct dir *a, *abc;

        ck_assert_uint_eq(tree.n_dirs, 1);
        ck_assert_str_eq(path_of(tree.root), "/");
        ck_assert_ptr_eq(tree_make_path(&tree, "/"), tree.root);
        ck_assert_ptr_null(tree_child(&tree, tree.root, "a"));

        abc = tree_make_path(&tree, "/a/bb/ccc");
        ck_assert_ptr_nonnull(abc);
        ck_assert_uint_eq(tree.n_dirs, 4);
        ck_assert_str_eq(path_of(abc), "/a/bb/ccc");
        ck_assert_ptr_eq(tree_make_path(&tree, "/a/bb/ccc"), abc);
        ck_assert_ptr_eq(tree_make_path(&tree, "/a/bb/ccc/"), abc);
        ck_assert_uint_eq(tree.n_dirs, 4);

        a = tree_child(&tree, tree.root, "a");
        ck_assert_ptr_nonnull(a);
        ck_assert_str_eq(path_of(a), "/a");
        ck_assert_ptr_eq(abc->parent->parent, a);
        /* A part of a name is another name. */
        ck_assert_ptr_null(tree_child(&tree, a, "b"));
        ck_assert_ptr_null(tree_child(&tree, a, "bbb"));
        ck_assert_ptr_null(tree_child(&tree, tree.root, "bb"));
        ck_assert_ptr_null(tree_child(&tree, a, ""));
        tree_prune(&tree, abc);
        tree_free(&tree);
}
END_TEST

/* tree_path() appends: what is there stays. */
START_TEST(path_is_appended) {
        struct dir *dir = tree_make_path(&tree, "/x/y");
        struct buffer b = BUFFER_INIT;

        buffer_put_literal(&b, "at ");
        tree_path(dir, &b);
        ck_assert_uint_eq(b.size, 7);
        ck_assert_str_eq(b.data, "at /x/y");
        buffer_reset(&b);
        buffer_put_literal(&b, "at ");
        tree_path(tree.root, &b);
        ck_assert_uint_eq(b.size, 4);
        ck_assert_str_eq(b.data, "at /");
        buffer_free(&b);
        tree_prune(&tree, dir);
        tree_free(&tree);
}
END_TEST

/* A name of the longest length, very deep, with bytes that aren't UTF-8. */
START_TEST(deep) {
        char name[256], *expected = malloc(300 * 256 + 1);
        struct buffer b = BUFFER_INIT;
        struct dir *dir = tree.root;
        size_t size = 0;

        ck_assert_ptr_nonnull(expected);
        for (unsigned i = 0; i < 300; i++) {
                memset(name, 0x80 + (int)(i % 100), 255);
                name[255] = 0;
                dir = tree_make_child(&tree, dir, name);
                ck_assert_ptr_nonnull(dir);
                expected[size++] = '/';
                memcpy(expected + size, name, 255);
                size += 255;
        }
        expected[size] = 0;
        tree_path(dir, &b);
        ck_assert_uint_eq(b.size, size);
        ck_assert_str_eq(b.data, expected);
        ck_assert_ptr_eq(tree_make_path(&tree, expected), dir);
        ck_assert_uint_eq(tree.n_dirs, 301);
        buffer_free(&b);
        free(expected);
        tree_prune(&tree, dir);
        ck_assert_uint_eq(tree.n_dirs, 1);
        tree_free(&tree);
}
END_TEST

START_TEST(ids_are_never_used_again) {
        uint64_t last = tree.root->id;

        for (unsigned i = 0; i < 100; i++) {
                struct dir *dir = tree_make_path(&tree, "/a");

                ck_assert_uint_gt(dir->id, last);
                last = dir->id;
                tree_prune(&tree, dir);
        }
        tree_free(&tree);
}
END_TEST

/* Whatever is attached keeps a directory, and with it those above. */
START_TEST(prune_keeps_what_is_used) {
        struct dir *c = tree_make_path(&tree, "/a/b/c"), *d = tree_make_path(&tree, "/a/d");
        struct list subscription;
        struct mark *mark = (struct mark *)(void *)&subscription;
        struct lookup *lookup = (struct lookup *)(void *)&subscription;

        c->mark = mark;
        tree_prune(&tree, c);
        ck_assert_uint_eq(tree.n_dirs, 5);
        c->mark = NULL;
        c->lookup = lookup;
        tree_prune(&tree, c);
        ck_assert_uint_eq(tree.n_dirs, 5);
        c->lookup = NULL;
        list_append(&c->subscriptions, &subscription);
        tree_prune(&tree, c);
        ck_assert_uint_eq(tree.n_dirs, 5);
        list_remove(&subscription);
        /* Not the leaf: nothing goes. */
        tree_prune(&tree, c->parent);
        ck_assert_uint_eq(tree.n_dirs, 5);
        tree_prune(&tree, c);
        ck_assert_uint_eq(tree.n_dirs, 3);
        ck_assert_ptr_null(tree_child(&tree, d->parent, "b"));
        ck_assert_ptr_eq(tree_child(&tree, d->parent, "d"), d);

        /* One above that is in use stays. */
        c = tree_make_path(&tree, "/a/d/e/f");
        d->mark = mark;
        tree_prune(&tree, c);
        ck_assert_uint_eq(tree.n_dirs, 3);
        d->mark = NULL;
        tree_prune(&tree, d);
        ck_assert_uint_eq(tree.n_dirs, 1);
        tree_prune(&tree, tree.root);
        ck_assert_uint_eq(tree.n_dirs, 1);
        tree_prune(&tree, NULL);
        tree_free(&tree);
}
END_TEST

START_TEST(move_takes_all_below_along) {
        struct dir *c = tree_make_path(&tree, "/a/b/c"), *b = c->parent, *x = tree_make_path(&tree, "/x");
        uint64_t id = b->id;

        ck_assert_int_eq(tree_move(&tree, b, x, "new"), 0);
        ck_assert_str_eq(path_of(c), "/x/new/c");
        ck_assert_uint_eq(b->id, id);
        ck_assert_ptr_null(tree_child(&tree, tree_child(&tree, tree.root, "a"), "b"));
        ck_assert_ptr_eq(tree_make_path(&tree, "/x/new/c"), c);
        ck_assert_int_eq(tree_move(&tree, b, x, "newer"), 0);
        ck_assert_str_eq(path_of(c), "/x/newer/c");
        ck_assert_ptr_null(tree_child(&tree, x, "new"));
        tree_prune(&tree, tree_child(&tree, tree.root, "a"));
        ck_assert_uint_eq(tree.n_dirs, 4);
        tree_prune(&tree, c);
        tree_free(&tree);
}
END_TEST

/* The name may be the directory's own. */
START_TEST(move_within_its_own_memory) {
        struct dir *a = tree_make_path(&tree, "/d/a"), *e = tree_make_path(&tree, "/e");

        ck_assert_int_eq(tree_move(&tree, a, e, a->name), 0);
        ck_assert_str_eq(path_of(a), "/e/a");
        tree_prune(&tree, tree_child(&tree, tree.root, "d"));
        tree_prune(&tree, a);
        ck_assert_uint_eq(tree.n_dirs, 1);
        tree_free(&tree);
}
END_TEST

START_TEST(cut) {
        struct dir *c = tree_make_path(&tree, "/a/b/c"), *b = c->parent, *a = b->parent;

        tree_cut(&tree, b);
        ck_assert_uint_eq(tree.n_dirs, 4);
        ck_assert_ptr_null(b->parent);
        ck_assert_ptr_null(tree_child(&tree, a, "b"));
        ck_assert_ptr_eq(tree_child(&tree, b, "c"), c);
        ck_assert(!tree_is_below(c, tree.root));
        ck_assert(tree_is_below(c, b));
        ck_assert_ptr_null(tree_common(c, a));
        ck_assert_ptr_null(tree_common(a, b));
        /* Another takes its place. */
        ck_assert_ptr_ne(tree_make_child(&tree, a, "b"), b);
        tree_free_dir(&tree, c);
        tree_free_dir(&tree, b);
        tree_prune(&tree, tree_child(&tree, a, "b"));
        ck_assert_uint_eq(tree.n_dirs, 1);
        tree_free(&tree);
}
END_TEST

/* A subtree that was cut is pruned by itself. */
START_TEST(prune_of_what_was_cut) {
        struct dir *c = tree_make_path(&tree, "/a/b/c"), *b = c->parent, *a = b->parent;

        tree_cut(&tree, b);
        tree_prune(&tree, c);
        ck_assert_uint_eq(tree.n_dirs, 2);
        tree_prune(&tree, a);
        tree_free(&tree);
}
END_TEST

START_TEST(common_directory) {
        struct dir *abc = tree_make_path(&tree, "/a/b/c"), *abd = tree_make_path(&tree, "/a/b/d"),
                   *e = tree_make_path(&tree, "/e");

        ck_assert_ptr_eq(tree_common(abc, abd), abc->parent);
        ck_assert_ptr_eq(tree_common(abc, abc), abc);
        ck_assert_ptr_eq(tree_common(abc, abc->parent), abc->parent);
        ck_assert_ptr_eq(tree_common(abc->parent, abc), abc->parent);
        ck_assert_ptr_eq(tree_common(abc, e), tree.root);
        ck_assert_ptr_eq(tree_common(tree.root, e), tree.root);
        ck_assert(tree_is_below(abc, abc));
        ck_assert(tree_is_below(abc, tree.root));
        ck_assert(!tree_is_below(abc, abd));
        ck_assert(!tree_is_below(abc->parent, abc));
        tree_prune(&tree, abc);
        tree_prune(&tree, abd);
        tree_prune(&tree, e);
        tree_free(&tree);
}
END_TEST

/* ---- random operations ------------------------------------------------------------------- */

enum { MODEL_MAX = 600, NAMES = 6 };

struct model_dir {
        struct dir *dir; /* NULL: a free place */
        int parent;      /* -1: the root, or cut */
        bool is_cut;
        bool pinned;
        char name[8];
};

static struct model_dir model[MODEL_MAX];
static size_t n_model;
static struct mark *const pin = (struct mark *)(void *)&model;

static int model_child(int parent, const char *name) {
        for (int i = 0; i < MODEL_MAX; i++)
                if (model[i].dir && model[i].parent == parent && i != 0 && strcmp(model[i].name, name) == 0)
                        return i;
        return -1;
}

static bool model_has_children(int parent) {
        for (int i = 1; i < MODEL_MAX; i++)
                if (model[i].dir && model[i].parent == parent)
                        return true;
        return false;
}

static bool model_is_below(int i, int above) {
        while (i >= 0 && i != above)
                i = model[i].parent;
        return i >= 0;
}

static int model_common(int a, int b) {
        while (a >= 0 && !model_is_below(b, a))
                a = model[a].parent;
        return a;
}

static void model_path(int i, char *path) {
        char below[4096] = "";

        for (; model[i].parent >= 0; i = model[i].parent) {
                char longer[sizeof(below)];

                assert_often(snprintf(longer, sizeof(longer), "/%s%s", model[i].name, below) < (int)sizeof(longer),
                             "the model's path is too long");
                memcpy(below, longer, sizeof(below));
        }
        memcpy(path, below[0] ? below : "/", strlen(below) + 2);
}

static int model_add(struct dir *dir, int parent, const char *name) {
        int i = 0;

        while (i < MODEL_MAX && model[i].dir)
                i++;
        assert_often(i < MODEL_MAX, "the model is full");
        model[i] = (struct model_dir){ .dir = dir, .parent = parent };
        (void)snprintf(model[i].name, sizeof(model[i].name), "%s", name);
        n_model++;
        return i;
}

static int random_dir(struct random *r) {
        int i;

        do
                i = (int)random_below(r, MODEL_MAX);
        while (!model[i].dir);
        return i;
}

static const char *random_name(struct random *r) {
        static const char *const names[NAMES] = { "a", "b", "ab", "abc", "\xff\xfe", "." };

        return names[random_below(r, NAMES)];
}

static void free_below(int i) {
        for (int child = 1; child < MODEL_MAX; child++)
                if (model[child].dir && model[child].parent == i)
                        free_below(child);
        model[i].dir->mark = NULL;
        tree_free_dir(&tree, model[i].dir);
        model[i].dir = NULL;
        n_model--;
}

static void model_prune(int i) {
        while (i > 0 && !model_has_children(i) && !model[i].pinned) {
                int parent = model[i].parent;

                model[i].dir = NULL;
                n_model--;
                i = parent;
        }
}

static void random_step(struct random *r) {
        int i = random_dir(r), other = random_dir(r);
        const char *name = random_name(r);
        struct dir *dir = model[i].dir;

        switch (random_below(r, 8)) {
        case 0:
        case 1:
        case 2:
                if (n_model == MODEL_MAX)
                        break;
                dir = tree_make_child(&tree, dir, name);
                assert_often(dir, "no memory");
                if (model_child(i, name) < 0)
                        (void)model_add(dir, i, name);
                else
                        assert_often(dir == model[model_child(i, name)].dir, "a second \"%s\" was made", name);
                break;
        case 3: /* back into the tree as well */
                if (i == 0 || model_is_below(other, i) || model_child(other, name) >= 0)
                        break;
                assert_often(tree_move(&tree, dir, model[other].dir, name) == 0, "no memory");
                model[i].parent = other;
                model[i].is_cut = false;
                (void)snprintf(model[i].name, sizeof(model[i].name), "%s", name);
                break;
        case 4:
                if (i == 0)
                        break;
                tree_cut(&tree, dir);
                model[i].parent = -1;
                model[i].is_cut = true;
                break;
        case 5:
                if (!model[i].is_cut)
                        break;
                free_below(i);
                break;
        case 6:
                model[i].pinned = i > 0 && !model[i].pinned;
                dir->mark = model[i].pinned ? pin : NULL;
                break;
        default:
                tree_prune(&tree, dir);
                model_prune(i);
                break;
        }
}

static void compare(struct random *r) {
        int a = random_dir(r), b = random_dir(r), common = model_common(a, b);
        struct dir *dir = tree_common(model[a].dir, model[b].dir);
        char path[4096];

        assert_often(tree.n_dirs == n_model, "%zu directories instead of %zu", tree.n_dirs, n_model);
        model_path(a, path);
        assert_often(strcmp(path_of(model[a].dir), path) == 0, "\"%s\" instead of \"%s\"", path_of(model[a].dir), path);
        assert_often(dir == (common < 0 ? NULL : model[common].dir), "another common directory");
        assert_often(tree_is_below(model[a].dir, model[b].dir) == model_is_below(a, b), "above \"%s\"", path);
        for (size_t n = 0; n < NAMES; n++) {
                const char *name = random_name(r);
                int child = model_child(a, name);

                dir = tree_child(&tree, model[a].dir, name);
                assert_often(dir == (child < 0 ? NULL : model[child].dir), "another \"%s\" in \"%s\"", name, path);
        }
}

/* The lists of children hold each child once, in both directions. */
static void check_children(void) {
        for (int i = 0; i < MODEL_MAX; i++) {
                size_t n = 0, expected = 0;

                if (!model[i].dir)
                        continue;
                for (int j = 1; j < MODEL_MAX; j++)
                        expected += model[j].dir && model[j].parent == i;
                for (struct dir *d = model[i].dir->first_child, *previous = NULL; d; previous = d, d = d->next) {
                        assert_often(d->parent == model[i].dir, "a child has another parent");
                        assert_often(d->previous == previous, "a child has another one before it");
                        n++;
                }
                assert_often(n == expected, "%zu children instead of %zu", n, expected);
        }
}

START_TEST(random_operations) {
        struct random r = { (uint64_t)_i };
        const unsigned steps = (unsigned)harness_rounds(20000);

        (void)model_add(tree.root, -1, "");
        for (unsigned step = 0; step < steps; step++) {
                random_step(&r);
                compare(&r);
                if (step % 500 == 0)
                        check_children();
        }
        for (int i = 1; i < MODEL_MAX; i++)
                if (model[i].dir && model[i].parent <= 0)
                        free_below(i);
        ck_assert_uint_eq(tree.n_dirs, 1);
        ck_assert_uint_eq(tree.names.n_nodes, 0);
        tree_free(&tree);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("tree"), "directories");

        tcase_add_checked_fixture(c, setup, NULL);
        tcase_add_test(c, paths);
        tcase_add_test(c, path_is_appended);
        tcase_add_test(c, deep);
        tcase_add_test(c, ids_are_never_used_again);
        tcase_add_test(c, prune_keeps_what_is_used);
        tcase_add_test(c, move_takes_all_below_along);
        tcase_add_test(c, move_within_its_own_memory);
        tcase_add_test(c, cut);
        tcase_add_test(c, prune_of_what_was_cut);
        tcase_add_test(c, common_directory);
        tcase_add_loop_test(c, random_operations, 1, 6);
        return harness_main(argc, argv);
}
