/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * source/descriptor_files: many watches of files that are written to in turn, so that the kernel merges nothing; and
 * what becomes of the kernel's own that nobody needs.
 */

#include <fcntl.h>
#include <unistd.h>

#include "descriptor_files.h"
#include "harness.h"
#include "macro.h"
#include "unit.h"

enum { FILES = 2, WATCHES = 500, ROUNDS = 1000, A_SLICE = 32 };

struct watch {
        struct descriptor_file file;
        unsigned n_told;
};

static struct mux *mux;
static struct descriptor_files files;
static struct watch watches[FILES][WATCHES];
static int fds[FILES];
static unsigned n_told, n_slices;
static bool takes_long;

static void on_written(struct descriptor_file *file) {
        uint64_t begin = monotonic_nsec();

        container_of(file, struct watch, file)->n_told++;
        n_told++;
        while (takes_long && monotonic_nsec() - begin < 10 * NSEC_PER_USEC)
                ;
}

static void on_told(struct descriptor_files *f) {
        ck_assert_ptr_eq(f, &files);
        n_slices++;
}

static void start(void) {
        ck_assert_int_eq(mux_open(NULL, &mux), 0);
        descriptor_files_init(&files, mux, on_written, on_told);
        ck_assert_int_eq(descriptor_files_open(&files), 0);
        for (int i = 0; i < FILES; i++) {
                fds[i] = open(harness_tempdir(), O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600);
                assert_system(fds[i] >= 0, harness_tempdir());
                for (int k = 0; k < WATCHES; k++) {
                        int number = descriptor_files_mark(&files, fds[i]);

                        list_init(&watches[i][k].file.link);
                        ck_assert_int_eq(descriptor_files_add(&files, number, &watches[i][k].file), 0);
                }
        }
}

static void stop(void) {
        for (int i = 0; i < FILES; i++) {
                for (int k = 0; k < WATCHES; k++)
                        descriptor_files_remove(&files, &watches[i][k].file);
                (void)close(fds[i]);
        }
        descriptor_files_close(&files);
        mux_close(mux);
}

static void write_alternately(int rounds) {
        for (int round = 0; round < rounds; round++)
                for (int i = 0; i < FILES; i++)
                        ck_assert_int_eq(write(fds[i], "x", 1), 1);
}

static void expect_each(unsigned n) {
        for (int i = 0; i < FILES; i++)
                for (int k = 0; k < WATCHES; k++)
                        ck_assert_uint_eq(watches[i][k].n_told, n);
}

/* However often it was written to. */
START_TEST(once) {
        uint64_t serial;

        write_alternately(ROUNDS);
        serial = descriptor_files_read(&files);
        while (!descriptor_files_have_told(&files, serial))
                ck_assert_int_eq(mux_wait(mux, -1), 0);
        expect_each(1);
}
END_TEST

/* Others have their turn in between, and in the end each was told. */
START_TEST(in_slices) {
        takes_long = true;
        write_alternately(1);
        while (n_told < FILES * WATCHES) {
                unsigned before = n_told, slices_before = n_slices;

                ck_assert_int_eq(mux_wait(mux, -1), 0);
                ck_assert_uint_le(n_slices - slices_before, 1);
                ck_assert_uint_le(n_told - before, A_SLICE);
        }
        expect_each(1);
}
END_TEST

/* What was written before is waited for, and nothing that came later. */
START_TEST(position) {
        uint64_t first, second;

        ck_assert(descriptor_files_have_told(&files, descriptor_files_read(&files)));
        takes_long = true;
        ck_assert_int_eq(write(fds[0], "x", 1), 1);
        first = descriptor_files_read(&files);
        ck_assert_int_eq(write(fds[1], "x", 1), 1);
        second = descriptor_files_read(&files);
        ck_assert(!descriptor_files_have_told(&files, first));
        while (!descriptor_files_have_told(&files, first))
                ck_assert_int_eq(mux_wait(mux, -1), 0);
        for (int k = 0; k < WATCHES; k++)
                ck_assert_uint_eq(watches[0][k].n_told, 1);
        ck_assert(!descriptor_files_have_told(&files, second));
        for (int k = 0; k < WATCHES; k++) /* nobody is left that it could be told to */
                descriptor_files_remove(&files, &watches[1][k].file);
        ck_assert(descriptor_files_have_told(&files, second));
}
END_TEST

/* ---- marks that nobody needs ---------------------------------------------------------------------------------- */

enum { UNUSED_MAX = 1024 };

static int open_file(int number) {
        char path[128];
        int fd;

        format(path, sizeof(path), "%s/%d", harness_tempdir(), number);
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_often(fd >= 0, "%s: %s", path, strerror(errno));
        return fd;
}

/* Of that file, as a look makes it; the answer is still to come. */
static int mark_file(int number) {
        int fd = open_file(number), mark = descriptor_files_mark(&files, fd);

        assert_often(mark >= 0, "%s", strerror(-mark));
        (void)close(fd);
        return mark;
}

static int add(int mark, struct watch *watch) {
        list_init(&watch->file.link);
        return descriptor_files_add(&files, mark, &watch->file);
}

/* The marks of that many other files go out of use, one after the other. */
static void use_others(int n) {
        static int number = 1000;
        struct watch watch = { 0 };

        for (int i = 0; i < n; i++) {
                assert_often(add(mark_file(number++), &watch) == 0, "%d", number);
                descriptor_files_remove(&files, &watch.file);
        }
}

static size_t n_watches(void) {
        return daemon_fdinfo_inotify_watches(getpid());
}

static void expect_told(int number, struct watch *watch) {
        int fd = open_file(number);

        ck_assert_int_eq(write(fd, "x", 1), 1);
        (void)close(fd);
        while (!descriptor_files_have_told(&files, descriptor_files_read(&files)))
                ck_assert_int_eq(mux_wait(mux, -1), 0);
        ck_assert_uint_eq(watch->n_told, 1);
}

/* However long another is being made: what hangs in a file of one user's takes no watches from the others. */
START_TEST(unused) {
        size_t before = n_watches();

        descriptor_files_begin(&files);
        use_others(UNUSED_MAX + 100);
        ck_assert_uint_eq(n_watches(), before + UNUSED_MAX);
        descriptor_files_end(&files);
        ck_assert_uint_eq(n_watches(), before);
}
END_TEST

/* One goes whose number is on the way to somebody else: who has that is not told that it is in force. The next is. */
START_TEST(removed_meanwhile) {
        struct watch first = { 0 }, second = { 0 };
        size_t before = n_watches();
        int mark;

        descriptor_files_begin(&files);
        ck_assert_int_eq(add(mark_file(0), &first), 0);
        descriptor_files_remove(&files, &first.file);
        mark = mark_file(0);
        use_others(UNUSED_MAX);
        ck_assert_int_eq(add(mark, &second), -EAGAIN);
        ck_assert_ptr_null(second.file.mark);
        ck_assert_int_eq(add(mark_file(0), &second), 0);
        expect_told(0, &second);
        descriptor_files_remove(&files, &second.file);
        descriptor_files_end(&files);
        ck_assert_uint_eq(n_watches(), before);
}
END_TEST

/* An answer that is late is about what is there still. As that can't be told, it is not there any more. */
START_TEST(late) {
        struct watch watch = { 0 };
        size_t before = n_watches();
        int mark;

        descriptor_files_begin(&files);
        mark = mark_file(0);
        use_others(UNUSED_MAX);
        ck_assert_int_eq(add(mark, &watch), 0); /* none has gone that it could be */
        descriptor_files_remove(&files, &watch.file);
        mark = mark_file(1);
        use_others(2 * UNUSED_MAX);
        ck_assert_int_eq(add(mark, &watch), -EAGAIN);
        descriptor_files_end(&files);
        ck_assert_uint_eq(n_watches(), before);
        descriptor_files_begin(&files);
        ck_assert_int_eq(add(mark_file(1), &watch), 0);
        expect_told(1, &watch);
        descriptor_files_end(&files);
        descriptor_files_remove(&files, &watch.file);
        ck_assert_uint_eq(n_watches(), before);
}
END_TEST

static bool has_no_memory;

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size) {
        return has_no_memory ? NULL : __real_calloc(n, size);
}

/* Two look at the same file. What the first can't have is gone for the second as well. */
START_TEST(no_memory) {
        struct watch first = { 0 }, second = { 0 };
        size_t before = n_watches();
        int mark, r;

        descriptor_files_begin(&files);
        descriptor_files_begin(&files);
        mark = mark_file(0);
        ck_assert_int_eq(mark_file(0), mark);
        has_no_memory = true;
        r = add(mark, &first);
        has_no_memory = false;
        ck_assert_int_eq(r, -ENOMEM);
        descriptor_files_end(&files);
        ck_assert_int_eq(add(mark, &second), -EAGAIN);
        ck_assert_int_eq(add(mark_file(0), &second), 0);
        expect_told(0, &second);
        descriptor_files_end(&files);
        descriptor_files_remove(&files, &second.file);
        ck_assert_uint_eq(n_watches(), before);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("descriptor-files");
        TCase *c;

        c = harness_case(suite, "files");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_test(c, once);
        tcase_add_test(c, in_slices);
        tcase_add_test(c, position);

        c = harness_case(suite, "marks");
        tcase_set_timeout(c, 60);
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_test(c, unused);
        tcase_add_test(c, removed_meanwhile);
        tcase_add_test(c, late);
        tcase_add_test(c, no_memory);
        return harness_main(argc, argv);
}
