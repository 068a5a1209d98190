/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Faults on demand: kevd-faults is the daemon, linked so that a call of its own choosing by a test fails as the kernel
 * or the C library may fail it. The test and the daemon, with all processes that this forks, share `struct faults`,
 * which lies in a file that the test makes and names in $KEVD_FAULTS.
 *
 * Calls are counted, each kind by itself, while it is armed; of the kind in `call` those from `first` on, `times` of
 * them, fail with `error`. A line with the calls that led there goes to the standard error each time.
 */

#include <stdatomic.h>
#include <stdint.h>

/*
 * What can be made to fail, and with what. SHORT is no error: one byte is read or written, though there was more. What
 * the kernel never says is not in here, since the daemon need not bear it: so an eventfd's read and write
 * always do well, and files of /proc and records are read whole.
 */
enum { SHORT = 0 };

#define FAULT_CALLS(_)                                                                        \
        _(allocate, ENOMEM)                                                                   \
        _(accept4, EINTR, ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM)                      \
        _(recvmsg, SHORT, EINTR, EAGAIN, ENOBUFS, ENOMEM)                                     \
        _(recvmmsg, EINTR, ENOBUFS)                                                           \
        _(recvfrom, EINTR, EAGAIN, ENOBUFS, ENOMEM)                                           \
        _(send, SHORT, EINTR, EAGAIN, ENOBUFS, ENOMEM)                                        \
        _(sendmsg, EINTR, EAGAIN, ENOBUFS, ENOMEM)                                            \
        _(writev, EINTR, ENOSPC)                                                              \
        _(read, EINTR, EAGAIN, ENOMEM)                                                        \
        _(write, EINTR, ENOSPC, ENOMEM)                                                       \
        _(pread64, SHORT, EINTR, ENOMEM)                                                      \
        _(open64, EINTR, EMFILE, ENFILE, ENOMEM)                                              \
        _(openat64, EINTR, EMFILE, ENFILE, ENOMEM)                                            \
        _(opendir, EMFILE, ENFILE, ENOMEM)                                                    \
        _(fdopendir, ENOMEM)                                                                  \
        _(readdir64, ENOMEM)                                                                  \
        _(fopen64, EINTR, EMFILE, ENFILE, ENOMEM)                                             \
        _(syscall, EINTR, EMFILE, ENFILE, ENOMEM)                                             \
        _(fcntl64, EMFILE)                                                                    \
        _(ioctl, EINTR, EMFILE, ENOMEM)                                                       \
        _(socket, EMFILE, ENFILE, ENOBUFS, ENOMEM)                                            \
        _(socketpair, EMFILE, ENFILE, ENOBUFS, ENOMEM)                                        \
        _(connect, EINTR, EAGAIN, ENOMEM)                                                     \
        _(getsockopt, EMFILE, ENOBUFS, ENOMEM)                                                \
        _(setsockopt, ENOBUFS, ENOMEM)                                                        \
        _(eventfd, EMFILE, ENFILE, ENOMEM)                                                    \
        _(timerfd_create, EMFILE, ENFILE, ENOMEM)                                             \
        _(memfd_create, EMFILE, ENFILE, ENOMEM)                                               \
        _(epoll_create1, EMFILE, ENFILE, ENOMEM)                                              \
        _(epoll_ctl, ENOMEM, ENOSPC)                                                          \
        _(epoll_wait, EINTR)                                                                  \
        _(epoll_pwait2, EINTR)                                                                \
        _(poll, EINTR, ENOMEM)                                                                \
        _(ppoll, EINTR, ENOMEM)                                                               \
        _(inotify_init1, EMFILE, ENFILE, ENOMEM)                                              \
        _(inotify_add_watch, ENOSPC, ENOMEM)                                                  \
        _(fanotify_init, EMFILE, ENFILE, ENOMEM)                                              \
        _(fanotify_mark, ENOSPC, ENOMEM)                                                      \
        _(name_to_handle_at, ENOMEM)                                                          \
        _(open_by_handle_at, EMFILE, ENFILE, ENOMEM)                                          \
        _(pidfd_open, EMFILE, ENFILE, ENOMEM)                                                 \
        _(pidfd_getfd, EMFILE, ENFILE, ENOMEM)                                                \
        _(fstat64, ENOMEM)                                                                    \
        _(fstatat64, EINTR, ENOMEM)                                                           \
        _(stat64, EINTR, ENOMEM)                                                              \
        _(lstat64, EINTR, ENOMEM)                                                             \
        _(statx, EINTR, ENOMEM)                                                               \
        _(fstatfs64, EINTR, ENOMEM)                                                           \
        _(readlink, ENOMEM)                                                                   \
        _(readlinkat, ENOMEM)                                                                 \
        _(realpath, ENOMEM)                                                                   \
        _(waitid, EINTR)                                                                      \
        _(waitpid, EINTR)                                                                     \
        _(fork, EAGAIN, ENOMEM)                                                               \
        _(pthread_create, EAGAIN)                                                             \
        _(unshare, EMFILE, ENOMEM)                                                            \
        _(setns, ENOMEM)                                                                      \
        _(seccomp_load, ENOMEM)                                                               \
        _(bpf_object__open_skeleton, ENOMEM)                                                  \
        _(bpf_object__load_skeleton, ENOMEM)                                                  \
        _(bpf_map_update_elem, ENOMEM)                                                        \
        _(bpf_map_lookup_elem, ENOMEM)                                                        \
        _(bpf_iter_create, EMFILE, ENFILE, ENOMEM)                                            \
        _(mnl_socket_open2, EMFILE, ENFILE, ENOBUFS, ENOMEM)                                  \
        _(mnl_socket_bind, ENOMEM)                                                            \
        _(mnl_socket_recvfrom, EINTR, EAGAIN, ENOBUFS, ENOMEM)                                \
        _(mnl_socket_sendto, EINTR, EAGAIN, ENOBUFS, ENOMEM)

enum fault_call {
        FAULT_NONE,
#define FAULT_CALL(name, ...) FAULT_##name,
        FAULT_CALLS(FAULT_CALL)
#undef FAULT_CALL
        FAULT_COUNT,
};

struct faults {
        _Atomic int armed;
        _Atomic int call; /* enum fault_call; FAULT_NONE: all are counted, and none fails */
        _Atomic int error;
        _Atomic uint32_t first, times;
        _Atomic uint32_t hits;
        _Atomic uint32_t n[FAULT_COUNT];
};
