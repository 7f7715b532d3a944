/* SPDX-License-Identifier: GPL-2.0-or-later */
/* img-tar: both ways between a guest's tree and an archive of libarchive. */
#ifndef IMGKIT_TOOLS_HELPERS_TAR_PARTS_H
#define IMGKIT_TOOLS_HELPERS_TAR_PARTS_H

#include <archive.h>
#include <archive_entry.h>

#include "tar.h"

struct tar {
	const struct cli *cli;
	struct appliance *a;
	const struct guest_place *place;
	const char *path;          /* of the directory */
	int fd;                    /* of the archive */
	const char *format;        /* out */
	bool gzip, zstd;           /* out */
	uint32_t flags;            /* TREE_FOLLOW, TREE_ONE_FS */
	struct archive *abandoned; /* one that failed: libarchive 3.6 cannot free all of it */
	struct job job;
	bool failed; /* something was left out, which was said */
};

/* 0, or negative with err. */
int tar_out(struct tar *t, struct err *err);
int tar_in(struct tar *t, struct err *err);

/* ACLs: of an extended attribute into an entry, false where it is none; and of an entry. */
bool acl_to_entry(struct archive_entry *e, const char *name, const void *value, size_t n);
/* Into value of AGENT_XATTR_MAX. 0: the entry has none of the type. -EINVAL: it cannot be said. */
int acl_from_entry(struct archive_entry *e, int type, void *value, size_t *n);

#endif
