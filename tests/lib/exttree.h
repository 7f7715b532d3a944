/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compares what the agent's driver shows of an image with a directory of the host. */
#ifndef IMGKIT_TESTS_EXTTREE_H
#define IMGKIT_TESTS_EXTTREE_H

#include "appliance/agent/fs.h"

/*
 * Names, types, modes, owners, links, targets, bytes, and user attributes are the same. lost+found
 * is not looked at. A difference ends the program (die).
 */
void exttree_compare(struct fs *fs, const char *path, bool xattrs);

#endif
