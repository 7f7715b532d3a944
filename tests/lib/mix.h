/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A hash function without a crypto library, for tests of what takes one from its caller. */
#ifndef IMGKIT_TESTS_MIX_H
#define IMGKIT_TESTS_MIX_H

#include "base/hash.h"

/* 16 bytes; good for data of tests only. */
extern const struct checksum_hash mix_hash;
/* The same for all data: all of it collides. */
extern const struct checksum_hash stuck_hash;

#endif
