/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Which watches a user is refused (access.h): the answer tells no more than the user could find out, and a descriptor
 * is no way around.
 */

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "access.h"
#include "files.h"
#include "harness.h"
#include "macro.h"
#include "persons.h"

static void expect_watch(struct party *party, const char *members, const char *expected) {
        const char *error;

        party->fd = person_connect(party->person, all.daemon->socket);
        error = try_watch(party->fd, members);
        ck_assert_msg(strcmp(error, expected) == 0, "%s: {%s}: %s instead of %s", party->person->name, members,
                      *error ? error : "no error", *expected ? expected : "no error");
        party->fd = safe_close(party->fd);
}

START_TEST(test_refused) {
        static const struct {
                const char *path, *user, *root;
        } asked[] = {
                { "open", "", "" },
                { "open/sub", "", "" },
                { "open/none", "ENOENT", "ENOENT" },
                { "open/none/none", "ENOENT", "ENOENT" },
                { "open/file/none", "ENOTDIR", "ENOTDIR" },
                { "closed", "EACCES", "" },
                { "closed/sub", "EACCES", "" },
                { "closed/none", "EACCES", "ENOENT" },
                { "closed/sub/none", "EACCES", "ENOENT" },
                { "closed/file/none", "EACCES", "ENOTDIR" },
                { "search", "EACCES", "" },
                { "search/sub", "", "" },
                { "search/none", "ENOENT", "ENOENT" },
                { "list", "", "" },
                { "list/sub", "EACCES", "" },
                { "list/none", "EACCES", "ENOENT" },
                { "link/sub", "EACCES", "" },
                { "link/none", "EACCES", "ENOENT" },
        };
        const char *root = make_root("w");

        run(root, "mkdir -p open/sub closed/sub search/sub list/sub && touch open/file closed/file");
        run(root, "ln -s ../w/closed link && chmod 0700 closed && chmod 0711 search && chmod 0744 list");
        for (size_t i = 0; i < ARRAY_SIZE(asked); i++) {
                const char *members = at("\"path\":\"%s/%s\"", root, asked[i].path);

                expect_watch(user_party, members, asked[i].user);
                expect_watch(root_party, members, asked[i].root);
                /* One that may wait says nothing more. */
                if (strcmp(asked[i].user, "EACCES") == 0)
                        expect_watch(user_party, at("%s,\"notes\":[\"create\",\"back\"]", members), "EACCES");
        }
}
END_TEST

/* A descriptor is no way around: neither one that shows a path alone, nor one that somebody else has opened. */
START_TEST(test_refused_descriptor) {
        static const char call[] = "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":"
                                   "[{\"id\":1,\"filter\":\"tree\",\"descriptor\":0}]}}";
        const char *root = make_root("w"), *search = at("%s/search", root), *closed = at("%s/closed", root);

        make_dir(search);
        make_dir(closed);
        assert_system(chmod(search, 0711) == 0 && chmod(closed, 0700) == 0, root);
        for (int i = 0; i < 3; i++) {
                int passed = i == 0 ? person_open_path(user_party->person, search) :
                             i == 1 ? open(closed, O_RDONLY | O_DIRECTORY | O_CLOEXEC) :
                                      person_open_path(user_party->person, root);
                struct json_object *reply, *found = NULL;

                assert_system(passed >= 0, root);
                user_party->fd = person_connect(user_party->person, all.daemon->socket);
                client_send_with_fds(user_party->fd, call, sizeof(call), &passed, 1);
                reply = client_receive(user_party->fd, HARNESS_REPLY_MSEC);
                ck_assert_ptr_nonnull(reply);
                (void)json_pointer_get(reply, "/parameters/refused/0/errno", &found);
                ck_assert_msg(i == 2 ? !found : found && strcmp(json_object_get_string(found), "EACCES") == 0,
                              "%d: %s", i, json_object_to_json_string(reply));
                json_object_put(reply);
                (void)close(passed);
                user_party->fd = safe_close(user_party->fd);
        }
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_access_case(harness_suite("access-refusals"), "refusals", start_parties);

        tcase_add_test(c, test_refused);
        tcase_add_test(c, test_refused_descriptor);
        return harness_main(argc, argv);
}
