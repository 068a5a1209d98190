/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * proto/vocabulary: the words of filters, notes, flags, kinds and errors, both ways.
 */

#include <stdio.h>

#include "harness.h"
#include "macro.h"
#include "vocabulary.h"

/* The design's table of filters. */
static const struct {
        const char *filter, *notes;
} filter_words[] = {
        { "vnode", "delete write extend attrib link rename revoke open close closewrite read" },
        { "tree", "create delete write closewrite attrib rename replace movedin movedout listed rescan gone back degraded "
                  "who" },
        { "proc", "exit reap fork exec track child trackerr uid comm core lost" },
        { "netdev", "linkup linkdown linkinv add rename address mtu route flags" },
        { "read", "lowat eof" },
        { "write", "lowat eof" },
        { "poll", "in out pri err hup rdhup nval rdnorm rdband wrnorm wrband" },
        { "aio", "complete" },
        { "signal", "" },
        { "timer", "sec msec usec nsec abstime" },
        { "user", "trigger" },
};

START_TEST(words_of_filters) {
        ck_assert_uint_eq(ARRAY_SIZE(filter_words), FILTER_COUNT);
        for (size_t i = 0; i < ARRAY_SIZE(filter_words); i++) {
                char words[256], *rest = words, *word;
                enum kev_filter filter;
                uint64_t notes = 0, note;

                ck_assert_int_eq(kev_filter_from_name(filter_words[i].filter, &filter), 0);
                ck_assert_str_eq(kev_filter_name(filter), filter_words[i].filter);
                (void)snprintf(words, sizeof(words), "%s", filter_words[i].notes);
                while ((word = strsep(&rest, " ")))
                        if (*word) {
                                ck_assert_msg(kev_note_from_name(word, &note) == 0, "%s", word);
                                ck_assert_str_eq(kev_note_name(note), word);
                                notes |= note;
                        }
                ck_assert_msg(kev_filter_notes(filter) == notes, "the notes of %s", filter_words[i].filter);
                ck_assert_uint_eq(kev_filter_default_notes(filter) & ~notes, 0);
        }
}
END_TEST

START_TEST(words_both_ways) {
        enum kev_filter filter = KEV_FILTER_USER;
        enum kev_kind kind;
        uint64_t note;
        uint32_t flag;

        for (unsigned i = 0; i < 64; i++) {
                const char *name = kev_note_name(UINT64_C(1) << i);

                ck_assert_int_eq(name != NULL, i < NOTE_COUNT);
                if (!name)
                        continue;
                ck_assert_int_eq(kev_note_from_name(name, &note), 0);
                ck_assert_msg(note == UINT64_C(1) << i, "%s is there twice", name);
        }
        for (unsigned i = 0; i < 32; i++) {
                const char *name = kev_flag_name(UINT32_C(1) << i);

                ck_assert_int_eq(name != NULL, i < FLAG_COUNT);
                if (!name)
                        continue;
                ck_assert_int_eq(flag_from_name(name, &flag), 0);
                ck_assert_uint_eq(flag, UINT32_C(1) << i);
        }
        for (int i = 1; i < KIND_COUNT; i++) {
                ck_assert_int_eq(kind_from_name(kev_kind_name((enum kev_kind)i), &kind), 0);
                ck_assert_int_eq((int)kind, i);
        }
        ck_assert_ptr_null(kev_kind_name(KEV_KIND_UNKNOWN));
        ck_assert_ptr_null(kev_kind_name((enum kev_kind)KIND_COUNT));
        ck_assert_ptr_null(kev_filter_name((enum kev_filter)FILTER_COUNT));
        ck_assert_ptr_null(kev_filter_name((enum kev_filter)-1));
        ck_assert_ptr_null(kev_note_name(0));
        ck_assert_ptr_null(kev_note_name(3));
        ck_assert_ptr_null(kev_flag_name(0));
        ck_assert_ptr_null(kev_flag_name(6));
        ck_assert_int_eq(kev_note_from_name("", &note), -EINVAL);
        ck_assert_int_eq(kev_note_from_name("Write", &note), -EINVAL);
        ck_assert_int_eq(kev_filter_from_name("", &filter), -EINVAL);
        ck_assert_int_eq(kind_from_name("", &kind), -EINVAL);
        ck_assert_int_eq((int)filter, KEV_FILTER_USER);
}
END_TEST

START_TEST(words_of_errors) {
        static const int errors[] = { ENOENT, ENOTDIR, ELOOP, ESRCH, ENODEV, EACCES, EPERM, EINVAL, EEXIST, EOPNOTSUPP,
                                      ENOSPC, EMFILE, EDQUOT, EXDEV, EBADF, ENOMEM, EIO };

        for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
                ck_assert_int_eq(errno_from_name(errno_name(errors[i])), errors[i]);
        ck_assert_str_eq(errno_name(EDQUOT), "EDQUOT");
        ck_assert_str_eq(errno_name(EOPNOTSUPP), "EOPNOTSUPP");
        ck_assert_str_eq(errno_name(100000), "EIO");
        ck_assert_int_eq(errno_from_name("ENOTHING"), 0);
        ck_assert_int_eq(errno_from_name(""), 0);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("vocabulary"), "words");

        tcase_add_test(c, words_of_filters);
        tcase_add_test(c, words_both_ways);
        tcase_add_test(c, words_of_errors);
        return harness_main(argc, argv);
}
