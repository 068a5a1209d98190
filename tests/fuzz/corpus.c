/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A target over the inputs that are kept: each file below CORPUS is a test. */

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"
#include "harness.h"

static struct dirent **entries;

static uint8_t *read_file(const char *name, size_t *ret_size) {
        char path[PATH_MAX];
        uint8_t *data;
        FILE *file;
        long size;

        (void)snprintf(path, sizeof(path), "%s/%s", CORPUS, name);
        file = fopen(path, "re");
        assert_system(file, path);
        ck_assert_int_eq(fseek(file, 0, SEEK_END), 0);
        size = ftell(file);
        rewind(file);
        data = malloc((size_t)size + 1);
        ck_assert_ptr_nonnull(data);
        ck_assert_uint_eq(fread(data, 1, (size_t)size, file), (size_t)size);
        (void)fclose(file);
        *ret_size = (size_t)size;
        return data;
}

START_TEST(test_input) {
        size_t size;
        uint8_t *data, *input;

        harness_label(entries[_i]->d_name);
        data = read_file(entries[_i]->d_name, &size);
        input = fuzz_copy(data, size);
        free(data);
        if (fuzz_target.begin)
                fuzz_target.begin();
        /* What one leaves behind the next one may find. */
        for (int i = 0; i < 2; i++)
                fuzz_target.input(input, size);
        if (fuzz_target.end)
                fuzz_target.end();
        free(input);
}
END_TEST

static int is_input(const struct dirent *entry) {
        return entry->d_name[0] != '.';
}

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("fuzz-" TARGET), "corpus");
        int n = scandir(CORPUS, &entries, is_input, alphasort), r;

        if (n <= 0) {
                printf("Bail out! there are no files in %s\n", CORPUS);
                return EXIT_FAILURE;
        }
        tcase_add_loop_test(c, test_input, 0, n);
        r = harness_main(argc, argv);
        for (int i = 0; i < n; i++)
                free(entries[i]);
        free(entries);
        return r;
}
