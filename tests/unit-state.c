/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is written for the next daemon (state.h), and what is read of it, whole or not. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "harness.h"
#include "macro.h"
#include "state.h"
#include "unit.h"

static struct state_writer writer;
static struct state_fds fds;
static char *copy; /* ends where its memory ends, so that the sanitizer sees what is read behind it */

static void setup(void) {
        writer = (struct state_writer){ 0 };
}

static void teardown(void) {
        state_writer_free(&writer);
        free(copy);
}

/* Of the first bytes of what was written. */
static struct state_reader read_first(size_t size) {
        free(copy);
        copy = malloc(MAX(size, (size_t)1));
        ck_assert_ptr_nonnull(copy);
        memcpy(copy, writer.bytes.data, size);
        fds = (struct state_fds){ .fds = writer.fds, .n = writer.n_fds };
        return (struct state_reader){ .next = copy, .end = copy + size, .fds = &fds };
}

static struct state_reader read_all(void) {
        return read_first(writer.bytes.size);
}

/* Nothing comes any more, whatever is asked for. */
static void expect_failed(struct state_reader *r) {
        struct state_reader section;
        const char *next = r->next;
        size_t size = 7;

        ck_assert(r->failed);
        ck_assert(state_is_at_end(r));
        ck_assert_uint_eq(state_get_u64(r), 0);
        ck_assert_int_eq(state_get_i64(r), 0);
        ck_assert(!state_get_bool(r));
        ck_assert_ptr_null(state_get_bytes(r, &size));
        ck_assert_uint_eq(size, 0);
        ck_assert_ptr_null(state_get_string(r));
        ck_assert_int_eq(state_get_fd(r), -1);
        ck_assert_uint_eq(state_get_count(r, 1), 0);
        section = state_get_section(r);
        ck_assert(section.failed);
        ck_assert(r->failed && r->next == next);
}

/* ---- one of each ---------------------------------------------------------------------- */

enum { FD = 12345 }; /* never used as one */

static void put_all(void) {
        size_t begin;

        state_put_u64(&writer, UINT64_MAX - 1);
        state_put_i64(&writer, INT64_MIN);
        state_put_bool(&writer, true);
        state_put_bool(&writer, false);
        state_put_bytes(&writer, "a\0b", 3);
        state_put_bytes(&writer, "", 0);
        state_put_bytes(&writer, NULL, 0);
        state_put_string(&writer, "text");
        state_put_string(&writer, "");
        state_put_string(&writer, NULL);
        state_put_fd(&writer, FD);
        state_put_fd(&writer, -1);
        begin = state_begin(&writer);
        state_put_u64(&writer, 2);
        state_put_u64(&writer, 21);
        state_put_u64(&writer, 22);
        state_end(&writer, begin);
        state_put_u64(&writer, 1);
        state_put_string(&writer, "end");
}

/* How many of them could be read. */
static int get_all(struct state_reader *r) {
        struct state_reader section;
        const char *text;
        const void *bytes;
        int n = 0;
        size_t size;

#define GET(expression)                            \
        do {                                       \
                bool is_right = (expression);      \
                                                   \
                if (r->failed)                     \
                        return n;                  \
                ck_assert_msg(is_right, "%d", n); \
                n++;                               \
        } while (0)
        GET(state_get_u64(r) == UINT64_MAX - 1);
        GET(state_get_i64(r) == INT64_MIN);
        GET(state_get_bool(r));
        GET(!state_get_bool(r));
        GET((bytes = state_get_bytes(r, &size)) && size == 3 && memcmp(bytes, "a\0b", 3) == 0);
        GET((bytes = state_get_bytes(r, &size)) && size == 0);
        GET(!(bytes = state_get_bytes(r, &size)) && size == 0);
        GET((text = state_get_string(r)) && strcmp(text, "text") == 0);
        GET((text = state_get_string(r)) && *text == 0);
        GET(!state_get_string(r));
        GET(state_get_fd(r) == FD);
        GET(state_get_fd(r) == -1);
        section = state_get_section(r);
        GET(state_get_count(&section, 8) == 2 && state_get_u64(&section) == 21 && state_get_u64(&section) == 22 &&
            state_is_at_end(&section) && !section.failed);
        GET(state_get_count(r, 8) == 1);
        GET((text = state_get_string(r)) && strcmp(text, "end") == 0);
#undef GET
        return n;
}

enum { PARTS = 15 };

START_TEST(test_all) {
        struct state_reader r;

        put_all();
        r = read_all();
        ck_assert_int_eq(get_all(&r), PARTS);
        ck_assert(state_is_at_end(&r) && !r.failed);
        ck_assert_uint_eq(state_get_u64(&r), 0); /* behind the end */
        expect_failed(&r);
}
END_TEST

/* What stands before the cut is read as ever, nothing of what it goes through, and nothing behind it. */
START_TEST(test_every_cut) {
        int last = 0;

        put_all();
        for (size_t size = 0; size < writer.bytes.size; size++) {
                struct state_reader r = read_first(size);
                int n = get_all(&r);

                ck_assert_int_lt(n, PARTS);
                ck_assert_int_ge(n, last);
                expect_failed(&r);
                writer.fds[0] = FD;
                last = n;
        }
        ck_assert_int_eq(last, PARTS - 1);
}
END_TEST

/* ---- what lies -------------------------------------------------------------------------- */

static const uint64_t too_large[] = {
        9, 10, 1 << 20, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX / 8 + 2, UINT64_MAX - 8, UINT64_MAX - 1,
};

START_TEST(test_sizes_that_lie) {
        struct state_reader r, section;
        size_t size;

        state_put_u64(&writer, too_large[_i]);
        state_put_bytes(&writer, "", 0); /* eight bytes */
        r = read_all();
        ck_assert_ptr_null(state_get_bytes(&r, &size));
        expect_failed(&r);
        r = read_all();
        ck_assert_ptr_null(state_get_string(&r));
        expect_failed(&r);
        r = read_all();
        section = state_get_section(&r);
        expect_failed(&r);
        expect_failed(&section);
}
END_TEST

START_TEST(test_counts_that_lie) {
        struct state_reader r;

        state_put_u64(&writer, too_large[_i]);
        state_put_u64(&writer, 0);
        r = read_all();
        ck_assert_uint_eq(state_get_count(&r, 1), 0);
        expect_failed(&r);
}
END_TEST

/* As many as there can be, and not one more. */
START_TEST(test_counts) {
        struct state_reader r;
        size_t n = (size_t)_i, left = 5 * 8;

        state_put_u64(&writer, left / n);
        for (int i = 0; i < 5; i++)
                state_put_u64(&writer, 0);
        r = read_all();
        ck_assert_uint_eq(state_get_count(&r, n), left / n);
        ck_assert(!r.failed);
        r = read_all();
        ck_assert_uint_eq(state_get_count(&r, left / (left / n) + 1), 0);
        expect_failed(&r);
}
END_TEST

static const struct {
        const char *bytes;
        size_t size;
} no_strings[] = {
        { "", 0 },
        { "a", 1 },
        { "a\0b", 3 },
        { "a\0b", 4 },
        { "\0", 2 },
        { "a\0", 3 },
};

START_TEST(test_no_string) {
        struct state_reader r;

        state_put_bytes(&writer, no_strings[_i].bytes, no_strings[_i].size);
        state_put_u64(&writer, 1);
        r = read_all();
        ck_assert_ptr_null(state_get_string(&r));
        expect_failed(&r);
}
END_TEST

/* ---- sections ----------------------------------------------------------------------------- */

/* Each has its own end and its own failure. */
START_TEST(test_sections) {
        struct state_reader r, outer, inner;
        size_t begin, within;

        begin = state_begin(&writer);
        within = state_begin(&writer);
        state_put_u64(&writer, 1);
        state_end(&writer, within);
        state_put_u64(&writer, 2);
        state_end(&writer, begin);
        state_end(&writer, state_begin(&writer)); /* an empty one */
        state_put_u64(&writer, 3);

        r = read_all();
        outer = state_get_section(&r);
        inner = state_get_section(&outer);
        ck_assert_uint_eq(state_get_u64(&inner), 1);
        ck_assert_uint_eq(state_get_u64(&inner), 0);
        expect_failed(&inner);
        ck_assert_uint_eq(state_get_u64(&outer), 2);
        ck_assert(state_is_at_end(&outer) && !outer.failed);
        inner = state_get_section(&r);
        ck_assert(state_is_at_end(&inner) && !inner.failed);
        ck_assert_uint_eq(state_get_u64(&inner), 0);
        expect_failed(&inner);
        ck_assert_uint_eq(state_get_u64(&r), 3);
        ck_assert(state_is_at_end(&r) && !r.failed);
}
END_TEST

/* What was begun and can't be made use of leaves nothing behind. */
START_TEST(test_cancelled_section) {
        struct state_reader r;
        size_t begin;

        state_put_fd(&writer, FD);
        begin = state_begin(&writer);
        state_put_string(&writer, "not to be");
        state_put_fd(&writer, FD + 1);
        state_cancel(&writer, begin, 1);
        state_put_fd(&writer, FD + 2);
        r = read_all();
        ck_assert_uint_eq(fds.n, 2);
        ck_assert_int_eq(state_get_fd(&r), FD);
        ck_assert_int_eq(state_get_fd(&r), FD + 2);
        ck_assert(state_is_at_end(&r) && !r.failed);
}
END_TEST

/* Its length says more than the section around it holds, though there is that much behind. */
START_TEST(test_section_beyond_its_own) {
        struct state_reader r, outer, inner;
        size_t begin = state_begin(&writer);

        state_put_u64(&writer, 8);
        state_end(&writer, begin);
        state_put_u64(&writer, 4);
        r = read_all();
        outer = state_get_section(&r);
        inner = state_get_section(&outer);
        expect_failed(&inner);
        expect_failed(&outer);
        ck_assert_uint_eq(state_get_u64(&r), 4);
}
END_TEST

/* One that was never begun. */
START_TEST(test_no_section) {
        struct state_reader r, section;

        state_put_bytes(&writer, NULL, 0);
        state_put_u64(&writer, 4);
        r = read_all();
        section = state_get_section(&r);
        expect_failed(&section);
        ck_assert_uint_eq(state_get_u64(&r), 4);
}
END_TEST

START_TEST(test_nothing) {
        struct state_fds none = { 0 };
        struct state_reader r = { .fds = &none };

        ck_assert(state_is_at_end(&r) && !r.failed);
        ck_assert_int_eq(state_get_fd(&r), -1);
        expect_failed(&r);
}
END_TEST

/* ---- descriptors ---------------------------------------------------------------------------- */

enum { MANY = 1000 };

START_TEST(test_many_descriptors) {
        struct state_reader r;

        for (int i = 0; i < MANY; i++) {
                state_put_fd(&writer, i);
                state_put_fd(&writer, -1);
        }
        ck_assert_uint_eq(writer.n_fds, MANY);
        r = read_all();
        for (int i = 0; i < MANY; i++) {
                ck_assert_int_eq(state_get_fd(&r), i);
                ck_assert_int_eq(state_get_fd(&r), -1);
        }
        ck_assert(state_is_at_end(&r) && !r.failed);
        for (int i = 0; i < MANY; i++)
                ck_assert_int_eq(fds.fds[i], -1);
}
END_TEST

/* Whoever asks first has it; the reader goes on. */
START_TEST(test_descriptor_is_taken_once) {
        struct state_reader r;
        int fd = eventfd(0, EFD_CLOEXEC), taken;

        ck_assert_int_ge(fd, 0);
        state_put_fd(&writer, fd);
        state_put_u64(&writer, 0); /* the same one */
        state_put_u64(&writer, 1);
        r = read_all();
        taken = state_get_fd(&r);
        ck_assert_int_eq(taken, fd);
        ck_assert_int_eq(state_get_fd(&r), -1);
        ck_assert_uint_eq(state_get_u64(&r), 1);
        ck_assert(!r.failed);
        ck_assert_int_eq(close(taken), 0);
}
END_TEST

/* The store had no room for some. */
START_TEST(test_descriptor_that_is_not_there) {
        static const uint64_t numbers[] = { 1, 2, UINT32_MAX, UINT64_MAX - 1, UINT64_MAX };
        struct state_reader r;

        state_put_fd(&writer, FD);
        for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
                state_put_u64(&writer, numbers[i]);
        r = read_all();
        ck_assert_int_eq(state_get_fd(&r), FD);
        for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
                ck_assert_int_eq(state_get_fd(&r), -1);
        ck_assert(state_is_at_end(&r) && !r.failed);
}
END_TEST

/* A section takes of the same descriptors. */
START_TEST(test_descriptor_in_a_section) {
        struct state_reader r, section;
        size_t begin = state_begin(&writer);

        state_put_fd(&writer, FD);
        state_end(&writer, begin);
        state_put_u64(&writer, 0);
        r = read_all();
        section = state_get_section(&r);
        ck_assert_int_eq(state_get_fd(&section), FD);
        ck_assert_int_eq(state_get_fd(&r), -1);
        ck_assert(!r.failed);
}
END_TEST

/* ---- at random -------------------------------------------------------------------------------- */

enum { ROUNDS = 200000, BYTES_MAX = 64 };

/* Any bytes, asked for anything: the reader stays within them, and comes to an end. */
START_TEST(test_random) {
        struct random random = { .state = (uint64_t)_i };

        for (int round = 0; round < harness_rounds(ROUNDS); round++) {
                size_t size = random_below(&random, BYTES_MAX), n;
                struct state_reader r;
                const char *p;

                buffer_reset(&writer.bytes);
                for (size_t i = 0; i < size; i++) {
                        char byte = random_once_in(&random, 4) ? (char)random_below(&random, 16) : 0;

                        buffer_put(&writer.bytes, &byte, 1);
                }
                r = read_first(size);
                while (!state_is_at_end(&r)) {
                        const char *before = r.next;

                        switch (random_below(&random, 4)) {
                        case 0:
                                p = state_get_bytes(&r, &n);
                                assert_often(!p || (p >= copy && p + n <= copy + size), "seed %d, round %d", _i, round);
                                break;
                        case 1:
                                p = state_get_string(&r);
                                assert_often(!p || (p >= copy && p + strlen(p) < copy + size), "seed %d, round %d", _i,
                                             round);
                                break;
                        case 2:
                                n = state_get_count(&r, 3);
                                assert_often(3 * n <= size, "seed %d, round %d", _i, round);
                                break;
                        default: {
                                struct state_reader section = state_get_section(&r);

                                assert_often(section.failed || (section.next >= copy && section.end <= copy + size),
                                             "seed %d, round %d", _i, round);
                        }
                        }
                        assert_often(r.failed || (r.next > before && r.next <= r.end), "seed %d, round %d", _i, round);
                }
        }
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *s = harness_suite("state");
        TCase *c;

        c = harness_case(s, "values");
        tcase_add_checked_fixture(c, setup, teardown);
        tcase_add_test(c, test_all);
        tcase_add_test(c, test_every_cut);
        tcase_add_loop_test(c, test_sizes_that_lie, 0, ARRAY_SIZE(too_large));
        tcase_add_loop_test(c, test_counts_that_lie, 0, ARRAY_SIZE(too_large));
        tcase_add_loop_test(c, test_counts, 1, 41);
        tcase_add_loop_test(c, test_no_string, 0, ARRAY_SIZE(no_strings));
        tcase_add_test(c, test_nothing);

        c = harness_case(s, "sections");
        tcase_add_checked_fixture(c, setup, teardown);
        tcase_add_test(c, test_sections);
        tcase_add_test(c, test_cancelled_section);
        tcase_add_test(c, test_section_beyond_its_own);
        tcase_add_test(c, test_no_section);

        c = harness_case(s, "descriptors");
        tcase_add_checked_fixture(c, setup, teardown);
        tcase_add_test(c, test_many_descriptors);
        tcase_add_test(c, test_descriptor_is_taken_once);
        tcase_add_test(c, test_descriptor_that_is_not_there);
        tcase_add_test(c, test_descriptor_in_a_section);

        c = harness_case(s, "random");
        tcase_add_checked_fixture(c, setup, teardown);
        tcase_add_loop_test(c, test_random, 1, 4);
        return harness_main(argc, argv);
}
