/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Regular files that were passed, of which epoll tells nothing: one inotify instance tells when they were written to
 * (IN_MODIFY). It holds the inode, and neither the file open nor its file system mounted.
 *
 * There may be very many watches of files that are written to all the time. So what has been read makes each of a file's
 * due, once, however often it was written to, and a turn tells as many as it has time for.
 *
 * A mark that nobody needs stays while others are being made, as any of these may be the same. But what makes one may
 * hang in the file for ever: of more than 1,024 such marks the oldest goes all the same, and who comes with the number
 * of one that may have gone is refused.
 */

#include "hash.h"
#include "mux.h"

struct mark;

struct descriptor_file {
        struct list link; /* among those of the same mark, or those that are due */
        struct mark *mark; /* NULL: in none */
        uint64_t serial;   /* of when it became due */
};

struct descriptor_files {
        struct mux *mux;
        struct mux_io io;
        int inotify_fd; /* -1: not open */
        struct hash marks;
        struct list unused; /* marks that nobody needs any more */
        size_t n_unused;
        unsigned n_marking; /* marks that are being made */
        int removed; /* the highest number that has gone while there were such; 0: none has */
        struct list due; /* struct descriptor_file: to be told */
        uint64_t serial;
        struct mux_deferred go_on;
        void (*written)(struct descriptor_file *file); /* the owner's: it may have changed */
        void (*told)(struct descriptor_files *files);  /* the same: some of those that were due */
};

void descriptor_files_init(struct descriptor_files *files, struct mux *mux,
                           void (*written)(struct descriptor_file *file), void (*told)(struct descriptor_files *files));
/* Opens it if it is not. Negative errno. */
int descriptor_files_open(struct descriptor_files *files);
/* Nothing is in it any more. */
void descriptor_files_close(struct descriptor_files *files);

/* All that has been written to by now is due, and what it returns is to be asked about until it is told. */
uint64_t descriptor_files_read(struct descriptor_files *files);
bool descriptor_files_have_told(const struct descriptor_files *files, uint64_t serial);

/* On a thread, between begin and end: the mark's number, or a negative errno. */
int descriptor_files_mark(const struct descriptor_files *files, int fd);
void descriptor_files_begin(struct descriptor_files *files);
/* -ENOMEM. -EAGAIN: the mark may have gone since it was made, another may be had. */
int descriptor_files_add(struct descriptor_files *files, int number, struct descriptor_file *file);
void descriptor_files_end(struct descriptor_files *files);
void descriptor_files_remove(struct descriptor_files *files, struct descriptor_file *file);
