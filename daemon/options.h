/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * kevd's options: on the command line as --KEY=VALUE, in configuration files as
 * KEY = VALUE. The command line goes before the files, a later file before an
 * earlier one.
 */

#include "buffer.h"
#include "server.h"

struct options {
        char *listen[LISTENERS_MAX];
        size_t n_listen;
        enum mode mode;
        bool mode_given;
        char *mux; /* NULL: the best */
        struct source_settings settings;
        struct limits limits;
        int log_level;
        char *config; /* NULL: the default ones */
        char *broker; /* the socket of one that runs already; NULL: this daemon starts its own */
        bool serve_broker, check_config, help, version;
        struct buffer complaints; /* what is wrong, a line each, with file, line and key */
};

void options_init(struct options *options);
void options_free(struct options *options);

/* Reads the command line and the configuration. -EINVAL, or the error of a file: what is wrong is in `complaints`.
 * May wait for the files, and for whoever knows the groups; one thread at a time, of any. */
int options_read(struct options *options, int argc, char **argv);
void options_print_complaints(const struct options *options);
void options_print_help(void);
