/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "report.h"

#include <stdio.h>
#include <string.h>

#include "text.h"

void report(const char *name, const char *what, const char *why) {
        struct text t = { 0 };

        text_puts(&t, "kev: ");
        if (name) {
                text_puts_escaped(&t, name);
                text_puts(&t, ": ");
        }
        if (why && strcasestr(why, what))
                what = NULL; /* the sentence holds it already */
        if (what)
                text_puts_escaped(&t, what);
        if (what && why && *why)
                text_puts(&t, ": ");
        if (why)
                text_puts_escaped(&t, why);
        text_puts(&t, "\n");
        if (t.data)
                (void)fputs(t.data, stderr);
        text_free(&t);
}

void report_error(const char *name, int error, const char *why) {
        report(name, strerror(-error), why);
}
