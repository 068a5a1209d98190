/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Constants of the kernel that are newer than the C library's headers here may
 * be. What they stand for is probed, never assumed.
 */

#include <stdint.h>
#include <sys/ioctl.h>

/* <linux/pidfd.h>, Linux 6.13; PIDFD_INFO_EXIT: 6.15. */
#ifndef PIDFD_GET_INFO
struct pidfd_info {
        uint64_t mask;
        uint64_t cgroupid;
        uint32_t pid, tgid, ppid;
        uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
        int32_t exit_code;
};
#define PIDFD_GET_INFO _IOWR(0xFF, 11, struct pidfd_info)
#endif
#ifndef PIDFD_INFO_PID
#define PIDFD_INFO_PID (UINT64_C(1) << 0)
#define PIDFD_INFO_CREDS (UINT64_C(1) << 1)
#endif
#ifndef PIDFD_INFO_EXIT
#define PIDFD_INFO_EXIT (UINT64_C(1) << 3)
#endif

/* <linux/magic.h>: pidfs, Linux 6.9. */
#ifndef PID_FS_MAGIC
#define PID_FS_MAGIC 0x50494446
#endif

/* SO_PEERPIDFD, Linux 6.5. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
