/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How many watches each user has of one thing. All of them are told in one go of what happens to it, so it has to be few
 * enough of them that others are not kept waiting: USER_WATCHES_MAX.
 */

#include <stddef.h>
#include <sys/types.h>

#include "hash.h"

/* `thing`: never looked at. */
size_t share_count(const struct hash *shares, const void *thing, uid_t uid);
/* One more. -ENOMEM: it is not counted. */
int share_take(struct hash *shares, const void *thing, uid_t uid);
/* One fewer, of those that were counted. */
void share_return(struct hash *shares, const void *thing, uid_t uid);
