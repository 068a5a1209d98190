/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Messages of the process connector: any bytes of one. What is taken is of the message, and zeros behind that. */

#include <linux/connector.h>
#include <linux/netlink.h>
#include <stdlib.h>

#include "connector.h"
#include "fuzz.h"
#include "macro.h"

static void input(const uint8_t *data, size_t size) {
        char *message = fuzz_copy(data, size);
        struct proc_event event = { 0 }, expected = { 0 };
        uint32_t number = 0;
        struct cn_msg cn;

        if (connector_parse(message, size, &number, &event)) {
                fuzz_assert(size >= NLMSG_LENGTH(sizeof(cn)));
                memcpy(&cn, data + NLMSG_HDRLEN, sizeof(cn));
                memcpy(&expected, data + NLMSG_LENGTH(sizeof(cn)),
                       MIN(MIN(size - NLMSG_LENGTH(sizeof(cn)), (size_t)cn.len), sizeof(expected)));
                fuzz_assert(number == cn.seq);
                fuzz_assert(memcmp(&event, &expected, sizeof(event)) == 0);
        }
        free(message);
}

const struct fuzz_target fuzz_target = { .input = input };
