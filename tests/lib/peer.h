/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-img as a second opinion. Files are made in the current directory. */
#ifndef IMGKIT_TESTS_PEER_H
#define IMGKIT_TESTS_PEER_H

#include <stdbool.h>

/* Whether qemu-img is installed. */
bool peer_here(void);

/* Runs `qemu-img WORDS`; its exit code. What it prints goes to `peer.log` and is shown by peer_log. */
int peer(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* What the last call printed (borrowed until the next). */
const char *peer_log(void);

#endif
