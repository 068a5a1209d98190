/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The sentence beside each negative answer. Every connection has its own, and
 * each thread one for kev_open(), which has no connection yet. Knows nothing of
 * the protocol.
 */

#include <stdio.h>
#include <string.h>

#include "internal.h"

static _Thread_local char open_message[ERROR_MESSAGE_MAX];

void sentence_put_list(char *sentence, const char *format, va_list arguments) {
        size_t end = ERROR_MESSAGE_MAX - sizeof("...");

        if (vsnprintf(sentence, ERROR_MESSAGE_MAX, format, arguments) < ERROR_MESSAGE_MAX)
                return;
        while (end > 0 && ((unsigned char)sentence[end] & 0xc0) == 0x80)
                end--; /* not inside a character */
        memcpy(sentence + end, "...", sizeof("..."));
}

void sentence_put(char *sentence, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        sentence_put_list(sentence, format, arguments);
        va_end(arguments);
}

int error_set(struct kev *kev, int error, const char *format, ...) {
        va_list arguments;

        if (kev && kev->error)
                return error;
        va_start(arguments, format);
        sentence_put_list(kev ? kev->message : open_message, format, arguments);
        va_end(arguments);
        return error;
}

const char *error_text(int error) {
        const char *text = strerrordesc_np(error < 0 ? -error : error);

        return text ? text : "unknown error";
}

_public_ const char *kev_error_message(const struct kev *kev) {
        return kev ? kev->message : open_message;
}
