/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file that a new image is made in.
 *
 * A regular file appears under its name when it is whole: until target_commit it has no name at
 * all (O_TMPFILE), or a temporary one next to it where the file system lacks that, and when nobody
 * commits, or the process dies, nothing is left (at worst the temporary name). A block device, and
 * with TARGET_IN_PLACE any file, is written directly; so is an NBD export. With TARGET_PARTIAL what
 * was not committed is left, to be opened again in the same way. What replaces a file has the owner
 * and the permissions of that one, and is at no moment open to more people.
 */
#ifndef IMGKIT_OPS_TARGET_H
#define IMGKIT_OPS_TARGET_H

#include "base/job.h"
#include "base/opt.h"
#include "io/io.h"

enum {
	TARGET_FORCE = 1 << 0,    /* replace what is there */
	TARGET_IN_PLACE = 1 << 1, /* empty the file that is there and write to it; implies FORCE */
	TARGET_UNSAFE = 1 << 2,  /* the data of a new file need not be on disk before its name is */
	TARGET_DIRECT = 1 << 3,  /* O_DIRECT */
	TARGET_DURABLE = 1 << 4, /* the name of a new file is on disk too when it was committed */
	TARGET_PARTIAL =
		1 << 5, /* the file is PATH.partial until then; implies DURABLE, not UNSAFE */
	TARGET_REMOTE = 1 << 6,  /* the path is the name of an NBD export, which is there already */
	TARGET_PRIVATE = 1 << 7, /* a file that is new is for its owner only */
};

struct target;

/*
 * What any regular file can be given when it is made: nocow, extent_size_hint. Ends with a NULL
 * name. Hints: a file system that has no such thing ignores them.
 */
extern const struct opt target_create_opts[];

/*
 * Prepares path for a new image. Without TARGET_FORCE, -EEXIST for a file that is not empty and for
 * a block device that does not begin with zeros. -EBUSY: in use by another process. opts: values
 * for target_create_opts, others are ignored; NULL: none.
 */
int target_open(const char *path, unsigned flags, const struct opts *opts, struct target **out,
		struct err *err);

/*
 * The same with TARGET_REMOTE, and without PARTIAL: the export is written directly, as a device is. job: as for nbd_open.
 */
int target_open_remote(const char *name, unsigned flags, struct job *job, struct target **out,
		       struct err *err);

/* The name with TARGET_PARTIAL; the caller frees. */
int target_partial_name(const char *path, char **out, struct err *err);

/* The io to write to; borrowed. Its name is the path that was given, or that of the
 * partial file. */
struct io *target_io(struct target *t);

/* What the file system refused and the caller may want to tell; NULL: nothing. */
const char *target_note(const struct target *t);

/*
 * Makes the file appear under its name, durable before that unless TARGET_UNSAFE; what it replaces
 * stays as it was when this fails. -EEXIST: somebody else made a file of that name meanwhile. With
 * TARGET_DURABLE it may also fail with the new file in place: then only a crash can undo it.
 */
int target_commit(struct target *t, struct err *err);

/* Takes back a commit: a file that was not there before is gone again. */
void target_withdraw(struct target *t);

/* Closes the io; a target that was not committed vanishes, but with PARTIAL. NULL is fine. */
void target_close(struct target *t);

#endif
