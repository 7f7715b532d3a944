/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What `img cp` does: trees out of a guest to the host, into a guest, and from guest to guest.
 *
 * An entry that cannot be copied is told (copy.failed) and the others go on; what ends the work is
 * what would end it for all: a full disk, an appliance that is gone, a signal. What of an entry
 * cannot be kept (owners, devices, …) is counted, and told once per kind at the end.
 */
#ifndef IMGKIT_TOOLS_COPY_H
#define IMGKIT_TOOLS_COPY_H

#include <sys/stat.h>

#include "appliance/appliance.h"
#include "cli.h"

enum copy_loss { LOST_OWNER, LOST_SETID, LOST_XATTR, LOST_DEVICE, LOST_KINDS };

struct copy {
	const struct cli *cli;
	bool recursive;
	bool keep; /* mode, owner, times */
	bool all;  /* attributes, hard links and devices as well */
	uint32_t
		follow; /* TREE_FOLLOW: links to directories in the target's guest may stand for them */
	mode_t umask;
	struct agent_time now;
	struct job job;
	bool failed; /* something was not copied, and that was said */
	struct {
		unsigned long n;
		char *first; /* owned */
		int why;     /* errno, 0: our rule */
	} lost[LOST_KINDS];
};

void copy_lose(struct copy *c, enum copy_loss kind, const char *path, int why);
/* Says what was lost. */
void copy_tell_losses(struct copy *c);

/* The attributes that a copy gets in a guest. */
void copy_attributes(const struct copy *c, struct agent_stat *st);
/* Flags of appliance_export and appliance_import. */
uint32_t copy_export_flags(const struct copy *c);
uint32_t copy_import_flags(const struct copy *c);

/* A path of a copy: `name`, or below it; either may be "". False: too long. */
bool copy_join(char *buf, size_t size, const char *name, const char *path);

/* Something in a guest. */
struct copy_place {
	struct appliance *a;
	const char *shown; /* for messages: IMAGE:/PATH */
	const char *path;
};
/* Says that what is at or below it was not copied. */
void copy_tell(struct copy *c, const struct copy_place *from, const char *path, const char *text);

/*
 * All three: what is called `name` afterwards in the target directory (name "": the contents go into
 * that directory itself). 0, or negative with err.
 */

/* dir: a host's directory, outside of which nothing is made, whatever the guest says. */
int copy_out(struct copy *c, const struct copy_place *from, int dir, const char *name,
	     struct err *err);
/* path: of the host. to: a directory. */
int copy_in(struct copy *c, const char *path, const struct copy_place *to, const char *name,
	    struct err *err);
/* Between two appliances, or within one. */
int copy_across(struct copy *c, const struct copy_place *from, const struct copy_place *to,
		const char *name, struct err *err);

/* Adds what copy_out, copy_across will move to the job's total. */
int copy_out_total(struct copy *c, const struct copy_place *from, struct err *err);
/* The same for copy_in. */
void copy_in_total(struct copy *c, const char *path);

#endif
