/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One daemon after another (restarts.h): tree watches go on, with either mechanism. What was done in between is told;
 * where that can't be known it is said.
 */

#include <errno.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "harness.h"
#include "manager.h"
#include "persons.h"
#include "restarts.h"

static void setup_fanotify(void) {
        need_fanotify();
        begin((const char *const[]){ "--file-mechanism=fanotify", NULL });
}

/* The client is another user from here on. */
static struct person *begin_person(void) {
        enum { USER = 64100 };
        struct person *person;

        if (geteuid() != 0)
                harness_skip("takes root, who can become another user");
        change_mode(harness_tempdir(), 0711);
        change_mode(manager_socket(manager), 0666);
        person = person_new("user", USER, USER, NULL, 0);
        (void)close(client);
        client = person_connect(person, manager_socket(manager));
        return person;
}

static struct person *somebody;

static void setup_deputies(void) {
        begin((const char *const[]){ "--mode=system", "--file-mechanism=inotify", NULL });
        somebody = begin_person();
}

static void teardown_deputies(void) {
        person_free(somebody);
        teardown();
}

static void watch_root(const char *root, const char *more) {
        watch_it(at("{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"%s}", root, more));
}

/* All that happens without a daemon, as it happened. */
START_TEST(test_tree) {
        const char *root = make_root("t");

        make_dir(at("%s/old", root));
        make_file(at("%s/old/g", root));
        watch_root(root, ",\"notes\":[\"create\",\"delete\",\"rename\"]");
        make_file(at("%s/before", root));
        manager_stop(manager);
        make_file(at("%s/a", root));
        make_dir(at("%s/d", root));
        make_file(at("%s/d/b", root));
        move(at("%s/d", root), at("%s/e", root));
        make_file(at("%s/e/c", root));
        make_file(at("%s/old/f", root));
        remove_file(at("%s/old/g", root));
        manager_start(manager);
        expect_path("create", at("%s/before", root));
        expect_path("create", at("%s/a", root));
        expect_path("create", at("%s/d", root));
        expect_path("create", at("%s/d/b", root));
        expect_path("rename", at("%s/e", root));
        expect_path("create", at("%s/e/c", root));
        expect_path("create", at("%s/old/f", root));
        expect_path("delete", at("%s/old/g", root));
        make_file(at("%s/e/g", root));
        expect_path("create", at("%s/e/g", root));
        expect_silence();
}
END_TEST

/* What is made in a directory of which nobody knows yet is told where it is found. */
START_TEST(test_tree_of_new_ones) {
        const char *root = make_root("t");

        watch_root(root, ",\"notes\":[\"create\",\"delete\",\"rename\"]");
        manager_stop(manager);
        make_dir(at("%s/d", root));
        make_dir(at("%s/d/e", root));
        make_file(at("%s/d/e/f", root));
        manager_start(manager);
        expect_path("create", at("%s/d", root));
        expect_path("create", at("%s/d/e", root));
        expect_path("create", at("%s/d/e/f", root));
        manager_stop(manager);
        remove_file(at("%s/d/e/f", root));
        move(at("%s/d/e", root), at("%s/e", root));
        make_file(at("%s/e/g", root));
        manager_start(manager);
        expect_path("delete", at("%s/d/e/f", root));
        expect_path("rename", at("%s/e", root));
        expect_path("create", at("%s/e/g", root));
        expect_silence();
}
END_TEST

START_TEST(test_tree_with_globs) {
        const char *root = make_root("t");

        make_dir(at("%s/d", root));
        watch_root(root, ",\"notes\":[\"create\"],\"tree\":{\"include\":[\"**/*.c\"],\"exclude\":[\"x*\"]}");
        manager_stop(manager);
        make_file(at("%s/d/a.c", root));
        make_file(at("%s/d/a.o", root));
        make_file(at("%s/x.c", root));
        manager_start(manager);
        expect_path("create", at("%s/d/a.c", root));
        expect_silence();
        restart();
        make_file(at("%s/d/b.o", root));
        make_file(at("%s/d/b.c", root));
        expect_path("create", at("%s/d/b.c", root));
        expect_silence();
}
END_TEST

START_TEST(test_tree_gone_and_back) {
        const char *root = make_root("t");

        watch_root(root, "");
        manager_stop(manager);
        remove_dir(root);
        manager_start(manager);
        expect_path("gone", root);
        restart();
        make_dir(root);
        expect_path("back", root);
        make_file(at("%s/a", root));
        expect_path("create", at("%s/a", root));
}
END_TEST

#define LISTS(more) ",\"notes\":[\"create\",\"gone\",\"back\",\"listed\"],\"tree\":{\"list\":true" more "}"

static void expect_list(const char *root) {
        expect_path("create", at("%s/a", root));
        expect_path("listed", root);
        expect_silence();
}

/* It is the same watch: what says so is not refused, and what comes to be there is listed. */
static void expect_to_list_later(const char *root, const char *spec) {
        client_change(client, "{\"modify\":[{\"id\":1,\"filter\":\"tree\"%s}]}", spec);
        expect_silence();
        move(root, at("%s.new", root));
        expect_path("gone", root);
        move(at("%s.new", root), root);
        expect_path("back", root);
        expect_list(root);
}

START_TEST(test_tree_listed) {
        const char *root = make_root("t");

        make_file(at("%s/a", root));
        watch_root(root, LISTS(""));
        expect_list(root);
        restart();
        expect_to_list_later(root, LISTS(""));
}
END_TEST

/* What waits for the end of a list goes on. */
START_TEST(test_tree_listed_in_doubt) {
        const char *root = make_root("t");
        struct json_object *event;

        make_file(at("%s/a", root));
        watch_root(root, LISTS(",\"crossMounts\":true"));
        expect_list(root);
        restart();
        event = expect("listed");
        ck_assert(has_note(event, "rescan"));
        json_object_put(event);
        expect_to_list_later(root, LISTS(",\"crossMounts\":true"));
}
END_TEST

START_TEST(test_tree_to_be_listed) {
        const char *root = make_root("t");

        make_file(at("%s/a", root));
        move(root, at("%s.new", root));
        watch_root(root, LISTS(""));
        restart();
        move(at("%s.new", root), root);
        expect_path("back", root);
        expect_list(root);
}
END_TEST

/* Another directory under the name. */
START_TEST(test_tree_replaced) {
        const char *root = make_root("t");

        watch_root(root, ",\"notes\":[\"create\",\"gone\",\"back\"]");
        manager_stop(manager);
        move(root, at("%s.old", root));
        make_dir(root);
        make_file(at("%s/a", root));
        manager_start(manager);
        expect_path("gone", root);
        expect_path("back", root);
        make_file(at("%s/b", root));
        expect_path("create", at("%s/b", root));
        make_file(at("%s.old/c", root));
        expect_silence();
        run(root, at("rm -r %s.old", root));
}
END_TEST

/* Another file system of the same kind, which may have the numbers of the old one. */
START_TEST(test_tree_mounted_anew) {
        const char *mount_point = make_root("m"), *root = at("%s/t", mount_point);
        struct json_object *event;
        bool told = false;

        if (mount("tmpfs", mount_point, "tmpfs", 0, NULL) < 0 && errno == EPERM)
                harness_skip("nothing can be mounted here");
        make_dir(root);
        watch_root(root, ",\"notes\":[\"create\",\"gone\",\"back\"]");
        manager_stop(manager);
        assert_system(umount2(mount_point, 0) == 0, "umount");
        assert_system(mount("tmpfs", mount_point, "tmpfs", 0, NULL) == 0, "mount");
        make_dir(root);
        manager_start(manager);
        while (!told) {
                event = next_event(client);
                told = has_note(event, "rescan");
                ck_assert_msg(told || has_note(event, "gone"), "%s", json_object_to_json_string(event));
                json_object_put(event);
        }
        make_file(at("%s/a", root));
        expect_path("create", at("%s/a", root));
        assert_system(umount2(mount_point, MNT_DETACH) == 0, "umount");
}
END_TEST

/* Many directories, most of them never looked at. */
START_TEST(test_tree_of_many) {
        const char *root = make_root("t");
        struct json_object *event;
        size_t n = make_tree(root, 6, 3), n_told = 0;

        watch_root(root, ",\"notes\":[\"create\"]");
        restart();
        manager_stop(manager);
        touch_tree(root, 6, 3, "new");
        manager_start(manager);
        while ((event = due_event(client))) {
                ck_assert_msg(has_note(event, "create"), "%s", json_object_to_json_string(event));
                json_object_put(event);
                n_told++;
        }
        ck_assert_int_eq(n_told, n);
}
END_TEST

/* Of very many watches of one directory (crowd.h) each is told, before the restart or after it. */
START_TEST(test_tree_of_crowd) {
        enum { WATCHES = 8500, A_CALL = 100 };
        const char *root = make_root("t");
        static unsigned told[WATCHES];
        struct json_object *event;

        for (int i = 0; i < WATCHES; i += A_CALL) {
                char text[A_CALL * 120];
                size_t size = 0;

                for (int k = i; k < i + A_CALL; k++)
                        size += (size_t)snprintf(text + size, sizeof(text) - size,
                                                 "%s{\"id\":%d,\"filter\":\"tree\",\"path\":\"%s\"}", k > i ? "," : "", k, root);
                ck_assert_uint_lt(size, sizeof(text));
                client_change(client, "{\"add\":[%s]}", text);
        }
        make_file(at("%s/new", root));
        restart();
        while ((event = due_event(client))) {
                told[number_at(event, "/id")]++;
                json_object_put(event);
        }
        for (int i = 0; i < WATCHES; i++)
                ck_assert_msg(told[i] > 0, "watch %d was told nothing", i);
}
END_TEST

/* What can't be gone on with is said to be in doubt, and goes on. */
START_TEST(test_tree_in_doubt) {
        const char *root = make_root("t");

        make_dir(at("%s/d", root));
        watch_root(root, ",\"notes\":[\"create\"],\"tree\":{\"crossMounts\":true}");
        make_file(at("%s/before", root));
        restart();
        expect_path("create", at("%s/before", root));
        expect_path("rescan", root);
        make_file(at("%s/d/after", root));
        expect_path("create", at("%s/d/after", root));
        expect_silence();
}
END_TEST

/* What can't be changed need not be said again with what is. */
START_TEST(test_tree_across_mounts) {
        struct json_object *event;
        const char *root;

        need_private_mounts();
        setup();
        root = make_root("t");
        make_dir(at("%s/m", root));
        assert_system(mount("tmpfs", at("%s/m", root), "tmpfs", 0, NULL) == 0, "mount");
        watch_root(root, ",\"notes\":[\"create\"],\"tree\":{\"crossMounts\":true}");
        client_change(client, "{\"modify\":[{\"id\":1,\"filter\":\"tree\",\"tree\":{\"include\":[\"**/*.c\"]}}]}");
        for (int i = 0; i < 2; i++) {
                restart();
                json_object_put(expect("rescan"));
                while ((event = due_event(client))) /* of the other mount */
                        json_object_put(event);
                make_file(at("%s/m/%d.o", root, i));
                make_file(at("%s/m/%d.c", root, i));
                expect_path("create", at("%s/m/%d.c", root, i));
        }
        assert_system(umount2(at("%s/m", root), MNT_DETACH) == 0, "umount");
        teardown();
}
END_TEST

/* Another watch's directories are not forgotten with a client that goes meanwhile. */
START_TEST(test_tree_of_two) {
        const char *root = make_root("t");
        int first = client;

        make_dir(at("%s/d", root));
        make_dir(at("%s/d/e", root));
        watch_root(root, "");
        client = client_connect(manager_socket(manager));
        watch_root(at("%s/d", root), ",\"notes\":[\"create\"]");
        manager_stop(manager);
        (void)close(first);
        manager_start(manager);
        make_file(at("%s/d/e/f", root));
        expect_path("create", at("%s/d/e/f", root));
        make_file(at("%s/f", root));
        expect_silence();
}
END_TEST

/* What a user was not told, since it happened where he could not look, is made good once he can. */
START_TEST(test_tree_with_hidden) {
        const char *root = make_root("t"), *d = at("%s/d", root);
        struct person *person = begin_person();

        make_dir(d);
        change_mode(d, 0700);
        watch_root(root, ",\"notes\":[\"create\",\"attrib\",\"rescan\"]");
        make_file(at("%s/hidden", d));
        expect_silence();
        restart();
        make_file(at("%s/f", root));
        expect_path("create", at("%s/f", root));
        restart();
        change_mode(d, 0755);
        expect_path("attrib", d);
        make_file(at("%s/new", d));
        expect_path("rescan", d);
        expect_path("create", at("%s/new", d));
        make_file(at("%s/newer", d));
        expect_path("create", at("%s/newer", d));
        expect_silence();
        person_free(person);
}
END_TEST

static void add_trees(TCase *c) {
        tcase_add_test(c, test_tree_of_new_ones);
        tcase_add_test(c, test_tree_with_globs);
        tcase_add_test(c, test_tree_of_many);
        tcase_add_test(c, test_tree_of_crowd);
        tcase_add_test(c, test_tree_of_two);
        tcase_add_test(c, test_tree_in_doubt);
        tcase_add_test(c, test_tree_gone_and_back);
        tcase_add_test(c, test_tree_listed);
        tcase_add_test(c, test_tree_listed_in_doubt);
        tcase_add_test(c, test_tree_to_be_listed);
        tcase_add_test(c, test_tree_replaced);
        tcase_add_test(c, test_tree_mounted_anew);
}

int main(int argc, char *argv[]) {
        Suite *s = harness_suite("restart-trees");
        TCase *c;

        c = harness_case(s, "inotify");
        tcase_add_checked_fixture(c, setup, teardown);
        add_trees(c);

        c = harness_case(s, "fanotify");
        tcase_add_checked_fixture(c, setup_fanotify, teardown);
        add_trees(c);
        tcase_add_test(c, test_tree);
        tcase_add_test(c, test_tree_with_hidden);

        c = harness_case(s, "mounts");
        tcase_add_test(c, test_tree_across_mounts);

        c = harness_case(s, "deputies");
        tcase_add_checked_fixture(c, setup_deputies, teardown_deputies);
        tcase_add_test(c, test_tree_listed_in_doubt);
        return harness_main(argc, argv);
}
