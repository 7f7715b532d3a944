/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Making a new image: prepare finds out and checks everything that can be known before the file is
 * touched, open makes sure of the file, finish makes the image. They are apart so that a program can
 * say in between what it will do.
 */
#ifndef IMGKIT_OPS_CREATE_H
#define IMGKIT_OPS_CREATE_H

#include <stdbool.h>

#include "image/img.h"
#include "ops/target.h"

#define CREATE_NO_SIZE UINT64_MAX

struct create_request {
	const char *path;
	const char *format;  /* driver name */
	uint64_t size;       /* bytes; CREATE_NO_SIZE: from the options or the backing file */
	const char *backing; /* as it will be stored, or NULL; wins over the options */
	const char *backing_format;
	const struct opts *opts; /* format's, target's, size, backing_file, backing_fmt; or NULL */
	bool unchecked_backing;  /* do not open the backing file; size is needed then */
	/* IMG_…, for opening it and what is behind it. IMG_PEER_NAMES: a data file's name, too. */
	unsigned backing_flags;
};

/* Zero-initialise; free with create_plan_free. */
struct create_plan {
	const char *path; /* borrowed from the request */
	const struct format *fmt;
	uint64_t size;                        /* bytes */
	const char *backing, *backing_format; /* borrowed from all, or NULL */
	struct opts all;                      /* every option that is set, with size and backing */
	struct opts format_opts;              /* what the format's build gets */
	char *data_path;     /* owned: where a new external data file will be; NULL: none */
	struct target *data; /* owned: it, while the image is made; NULL: none */
	struct job *job;     /* borrowed: of who makes the image, for TARGET_REMOTE; NULL: none */
	const char *hint;    /* after an error: a second sentence for people, or NULL */
	char detail[64];     /* room for it */
};

/*
 * -EINVAL: what the request says does not fit together; or what opening the backing file gives.
 * The backing file, unless unchecked, is opened with its chain.
 */
int create_prepare(const struct create_request *req, struct create_plan *plan, struct err *err);

/* flags: TARGET_…. The target is to be closed in any case, and is kept only after create_finish. */
int create_open(struct create_plan *plan, unsigned flags, struct target **target, struct err *err);
int create_finish(struct create_plan *plan, struct target *target, struct err *err);

/* Both. */
int create_run(struct create_plan *plan, unsigned flags, struct err *err);

/* For who makes the image by himself: the image's file alone. */
int create_open_target(struct create_plan *plan, unsigned flags, struct target **target,
		       struct err *err);

/*
 * Also for him: opens the external data file, if the plan has one, as the
 * image's target was opened; and at the end makes both appear, the data first.
 */
int create_open_data(struct create_plan *plan, unsigned flags, struct err *err);
int create_commit(struct create_plan *plan, struct target *target, struct err *err);

void create_plan_free(struct create_plan *plan);

#endif
