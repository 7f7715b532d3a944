/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of lib/image share, and drivers may use under the exclusive gate. */
#ifndef IMGKIT_IMAGE_INTERNAL_H
#define IMGKIT_IMAGE_INTERNAL_H

#include "image/img.h"

extern const struct io_ops img_ops;

/* The data path without gate and range checks; the caller holds the gate in either mode. */
int img_read_inner(struct img *img, void *buf, size_t len, uint64_t off, struct err *err);
int img_write_inner(struct img *img, const void *buf, size_t len, uint64_t off, struct err *err);
int img_zero_inner(struct img *img, uint64_t off, uint64_t len, unsigned flags, struct err *err);
/* Resolved through the backing chain. */
int img_map_inner(struct img *img, uint64_t off, uint64_t len, struct extent *ext, struct err *err);

/* read.c, write.c: members of img_ops */
int img_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err);
int img_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext, struct err *err);
int img_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err);
int img_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err);
int img_discard(struct io *io, uint64_t off, uint64_t len, struct err *err);
int img_flush(struct io *io, struct err *err);

/* Resolves backing_name to backing_path, where that is still to be done. */
int img_note_backing_path(struct img *img, struct err *err);

/*
 * The disk may have become smaller between the caller's check of the range and the gate, by a resize
 * or a snapshot. -EINVAL. Under the gate.
 */
int img_check_inside(struct img *img, uint64_t off, uint64_t len, struct err *err);

/* Takes the gate exclusively for a change (`what`) of a writable, unbroken image. */
int img_enter(struct img *img, const char *what, struct err *err);

/*
 * external.c: an image that names an external data file gets one that cannot be read or written, and
 * then the one it names, as args and its flags say.
 */
int img_absent_data(struct img *img, struct err *err);
int img_open_data(struct img *img, const struct img_open_args *args, struct err *err);

/* A colon before any slash: "nbd://…", "json:…". */
bool img_has_protocol(const char *name);
/* What relative names in the image are relative to. */
const char *img_base_name(const struct img *img);

/* Runs a turn under the exclusive gate, if the format has turns. */
int img_turn(struct img *img, struct err *err);
/* Refuses when an earlier flush failed; -errno with text. */
int img_check_broken(struct img *img, struct err *err);
/* Remembers a failure of write-back after which the disk's state is unknown. */
void img_note_failure(struct img *img, int r);

/* ---- open.c and nodes.c ---- */

struct node;

/* How one image is made of its file. */
struct layer {
	const struct format *fmt;
	bool probed;             /* fmt was found by probing */
	const char *name;        /* what messages call the image; NULL: as its file */
	unsigned flags;          /* IMG_… */
	const struct opts *opts; /* values for the format's open_opts; NULL: none */
};

/* Fills in fmt and probed. driver NULL: probes. */
int img_choose_format(struct io *file, const char *driver, unsigned flags, struct layer *layer,
		      struct err *err);
/* file is owned on success only. */
int img_open_layer(struct io *file, const struct layer *layer, struct img **out, struct err *err);
/* FILE_… of IMG_… */
unsigned img_file_flags(unsigned flags);

/* remote.c: an NBD export that the user named or described. flags: IMG_… */
int img_open_remote(const char *name, unsigned flags, const struct img_open_args *args,
		    struct io **out, struct err *err);
int img_open_remote_node(const struct opts *own, unsigned flags, const struct img_open_args *args,
			 struct io **out, struct err *err);
extern const struct opt img_remote_opts[];

/* How a described image is opened. */
struct node_how {
	const char *driver;               /* wins over the description; or NULL */
	const char *default_driver;       /* where it says nothing; NULL: probe */
	const char *path;                 /* where it describes no file; or NULL */
	unsigned file_flags;              /* FILE_…, for path */
	unsigned flags;                   /* IMG_… */
	const struct img_open_args *args; /* what is true of all nodes: job, contexts */
};
/* The image of node, without its backing file. */
int node_open(const struct node *node, const struct node_how *how, struct img **out,
	      struct err *err);

#endif
