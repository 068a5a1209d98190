/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * proto/message: what is UTF-8. A slow decoder below follows RFC 3629, and the two are compared.
 */

#include <stdio.h>
#include <stdlib.h>

#include "harness.h"
#include "macro.h"
#include "message.h"
#include "messages.h"
#include "unit.h"

/* The bytes end where their memory ends. */
static bool is_utf8(const void *data, size_t size) {
        char *copy = malloc(size ? size : 1);
        bool valid;

        ck_assert_ptr_nonnull(copy);
        memcpy(copy, data, size);
        valid = utf8_is_valid(copy, size);
        free(copy);
        return valid;
}

/* RFC 3629, by decoding; 0: none begins here. */
static size_t slow_character(const unsigned char *p, size_t size) {
        static const uint32_t smallest[] = { 0, 1, 0x80, 0x800, 0x10000 };
        size_t n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
        uint32_t value;

        if (n == 0 || n > size)
                return 0;
        value = n == 1 ? p[0] : p[0] & (0x7fu >> n);
        for (size_t i = 1; i < n; i++) {
                if (p[i] >> 6 != 2)
                        return 0;
                value = value << 6 | (p[i] & 0x3f);
        }
        return value < smallest[n] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff) ? 0 : n;
}

static bool slow_utf8(const unsigned char *p, size_t size) {
        while (size > 0) {
                size_t n = slow_character(p, size);

                if (n == 0)
                        return false;
                p += n;
                size -= n;
        }
        return true;
}

START_TEST(utf8_each_character) {
        char text[16];

        for (uint32_t c = 0; c < 0x120000; c++) {
                size_t n = encode(c, text);
                bool good = c != 0 && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);

                assert_often(utf8_is_valid(text, n) == good, "U+%04X", c);
                for (size_t cut = 1; cut < n; cut++)
                        assert_often(!utf8_is_valid(text, cut), "U+%04X cut to %zu", c, cut);
        }
        ck_assert(utf8_is_valid("", 0));
}
END_TEST

/* All sequences of bytes at which the rules change, alone and amid other text. */
START_TEST(utf8_each_edge) {
        static const unsigned char edges[] = { 0x00, 0x01, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf,
                                               0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xff };
        const size_t n = ARRAY_SIZE(edges);
        unsigned char text[32];

        for (size_t i = 0; i < n * n * n * n; i++) {
                size_t before = i % 11, behind = i % 7;

                memset(text, 'x', sizeof(text));
                text[before] = edges[i % n];
                text[before + 1] = edges[i / n % n];
                text[before + 2] = edges[i / n / n % n];
                text[before + 3] = edges[i / n / n / n];
                for (size_t size = 1; size <= 4 + behind; size += size < 4 ? 1 : behind ? behind : 1) {
                        bool good = slow_utf8(text, before + size);

                        assert_often(utf8_is_valid((char *)text, before + size) == good,
                                     "%02x %02x %02x %02x, %zu bytes of it", text[before], text[before + 1],
                                     text[before + 2], text[before + 3], size);
                }
        }
}
END_TEST

START_TEST(utf8_classes) {
        static const char *const bad[] = {
                "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", /* overlong */
                "\xed\xa0\x80", "\xed\xbf\xbf", "\xed\xa0\xbd\xed\xb8\x80",                                     /* surrogates */
                "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf8\x88\x80\x80\x80", "\xfe", "\xff",                 /* too large */
                "\x80", "\xbf", "a\x80", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xc3(", "\xe2\x82(", "\xe2(\xa1",
        };

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                char text[64];

                ck_assert_msg(!is_utf8(bad[i], strlen(bad[i])), "number %zu", i);
                for (size_t before = 0; before < 20; before++) {
                        int size = snprintf(text, sizeof(text), "%.*s%s%s", (int)before, "abcdefghijklmnopqrst", bad[i], "0123456789");

                        ck_assert_msg(!is_utf8(text, (size_t)size), "number %zu behind %zu bytes", i, before);
                }
        }
}
END_TEST

START_TEST(utf8_nul_anywhere) {
        char memory[128];

        for (size_t align = 0; align < 8; align++)
                for (size_t size = 1; size < 100; size++) {
                        memset(memory, 'a', sizeof(memory));
                        ck_assert(utf8_is_valid(memory + align, size));
                        for (size_t at = 0; at < size; at++) {
                                memory[align + at] = 0;
                                ck_assert_msg(!utf8_is_valid(memory + align, size), "at %zu of %zu, from %zu on", at, size, align);
                                memory[align + at] = 'a';
                        }
                        /* What is behind doesn't count. */
                        memory[align + size] = 0;
                        ck_assert(utf8_is_valid(memory + align, size));
                        memory[align + size] = (char)0x80;
                        ck_assert(utf8_is_valid(memory + align, size));
                }
}
END_TEST

START_TEST(utf8_random) {
        static const char *const parts[] = { "a", "abcdefgh", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\x7f", "\x01",
                                             "\xef\xbf\xbf" };
        struct random r = { 41 };
        size_t n_good = 0;

        for (unsigned round = 0; round < 100000; round++) {
                char text[128];
                size_t size = 0;
                bool good;

                for (size_t n = random_below(&r, 12); n > 0; n--) {
                        const char *part = parts[random_below(&r, ARRAY_SIZE(parts))];

                        memcpy(text + size, part, strlen(part));
                        size += strlen(part);
                }
                if (size > 0 && random_once_in(&r, 2))
                        text[random_below(&r, size)] = (char)random_next(&r);
                if (size > 0 && random_once_in(&r, 4))
                        size -= random_below(&r, size);
                good = slow_utf8((unsigned char *)text, size);
                n_good += good;
                ck_assert_msg(is_utf8(text, size) == good, "round %u", round);
        }
        ck_assert_uint_gt(n_good, 30000);
        ck_assert_uint_lt(n_good, 90000);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("utf8"), "utf8");

        tcase_add_test(c, utf8_each_character);
        tcase_add_test(c, utf8_each_edge);
        tcase_add_test(c, utf8_classes);
        tcase_add_test(c, utf8_nul_anywhere);
        tcase_add_test(c, utf8_random);
        return harness_main(argc, argv);
}
