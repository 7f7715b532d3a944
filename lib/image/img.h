/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * struct img: an opened disk image, and struct format: what a driver provides.
 *
 * An image is an io (its first member): reading, writing, zeroing, flushing and mapping an image is
 * io_pread(&img->io, …) and so on, and the extents that io_map(&img->io) reports are resolved
 * through the backing chain. A format only says where things are; this layer moves the bytes, walks
 * the chain, fills zeros, and runs the allocation protocol.
 *
 * Locks, in order: gate, then meta; the top image before its backing.
 *   gate   shared: every read and write, while it uses offsets that the format gave it.
 *          exclusive, briefly: turn (metadata write-back), snapshot, resize, check, close.
 *   meta   the format's tables, the allocator, busy. Never held over guest data I/O; metadata I/O
 *          under it is fine.
 * A cluster that is freed stays untouched on disk until a turn ran, and a turn is exclusive: so a
 * host offset obtained under the shared gate stays valid until the gate is released.
 */
#ifndef IMGKIT_IMAGE_IMG_H
#define IMGKIT_IMAGE_IMG_H

#include <jansson.h>
#include <pthread.h>
#include <sys/types.h>

#include "base/creds.h"
#include "base/hash.h"
#include "base/job.h"
#include "base/opt.h"
#include "base/ranges.h"
#include "image/codec.h"
#include "io/io.h"

struct img;
struct build;
struct create_args;

/* What a probe function may look at: the first bytes of the file, and its size. Never the io. */
struct probe {
	const unsigned char *head; /* zero padded to PROBE_HEAD bytes */
	size_t head_len;           /* bytes that the file really has there */
	uint64_t size;             /* bytes */
	const char *name;          /* path, for messages only */
};
#define PROBE_HEAD 4096

/* How open treats the image. */
enum {
	IMG_RDWR = 1 << 0,          /* read and write; without it read-only */
	IMG_NO_BACKING = 1 << 1,    /* open only the named file: info, check, … */
	IMG_SHARE = 1 << 2,         /* -U: no locks; read-only */
	IMG_UNTRUSTED = 1 << 3,     /* no file but the named one; no raw fallback; tight limits */
	IMG_UNSAFE = 1 << 4,        /* cache=unsafe: flush and all write barriers do nothing */
	IMG_DIRECT = 1 << 5,        /* cache=none, directsync: O_DIRECT */
	IMG_SYNC = 1 << 6,          /* cache=writethrough, directsync: flush after every write */
	IMG_FOR_CHECK = 1 << 7,     /* open what can be opened: dirty, corrupt, broken snapshots */
	IMG_NAMED_DEVICES = 1 << 8, /* a backing file that an image names may be a block device */
	/* What path is. Without one of these two, the path of a file whatever it looks like. */
	IMG_USER_NAME = 1 << 9,   /* as people write it: "json:{…}" and "file:PATH" are known */
	IMG_IMAGE_OPTS = 1 << 10, /* a block-driver description, key=value,… (describe.h) */
	IMG_NO_DISCARD = 1 << 11, /* discards do nothing, zeros keep their space */
	IMG_DETECT_ZEROES = 1 << 12, /* what is written as zeros is stored as zeros */
	IMG_NO_NAMED = 1 << 14,      /* no backing file that only an image names: map */
	IMG_DETECT_UNMAP = 1 << 13,  /* and their space is freed */
	IMG_NO_DATA = 1 << 15,       /* open no external data file: info, check, map */
	IMG_PEER_NAMES = 1 << 16,    /* a data file's name as the peer takes it: see external.c */
	IMG_BORROWED = 1 << 17,      /* img_open_io: file and backing stay the caller's */
	IMG_SEALED = 1 << 18,        /* the process can make no connections later: NBD exports */
};

struct img_open_args {
	const char *path;
	const char *format;   /* driver name, or NULL: probe */
	unsigned flags;       /* IMG_… */
	const char *snapshot; /* read-only view of this internal snapshot (id or name), or NULL */
	unsigned max_depth;   /* length of the backing chain, 0: the default of 64 */
	unsigned write_depth; /* this layer of the chain is opened for writing, too; 0: none */
	/* External data files that the user allowed, wherever they are and whatever flags say. */
	const char *const *allowed;
	unsigned n_allowed;
	/* Of NBD servers: waiting ends when it is cancelled, borrowed while the image is open; … */
	struct job *job;
	const struct creds *creds; /* for TLS to them, by name; NULL: none; … */
	/* … and meta contexts to ask for, see io/nbd.h. */
	const char *const *contexts;
	unsigned n_contexts;
};

/* The answer of place: where [off, off+len) of the guest is to be written. */
struct placement {
	uint64_t off, len;    /* guest bytes covered: a non-empty prefix of what was asked */
	uint64_t host;        /* byte in img->data for `off`, or, if fresh, for `start` */
	bool fresh;           /* new space, not visible until link */
	bool zeroed;          /* fresh space that is known to read as zeros now */
	bool reuse;           /* fresh, but the space was the range's own already */
	size_t coded;         /* bytes of the one unit in coded form; 0: it is stored plainly */
	uint64_t start, span; /* fresh: the whole grains (multiples of img->grain) to be written;
			       * start <= off, off+len <= start+span (clipped to the disk's end) */
};

/* An internal snapshot as the user sees it. Strings are owned. */
struct snapshot {
	char *id, *name;
	uint64_t vm_state_size; /* bytes */
	uint64_t disk_size;     /* bytes */
	uint64_t vm_clock_ns;
	uint64_t icount; /* UINT64_MAX: not recorded */
	uint32_t date_sec, date_nsec;
};

struct snapshot_ops {
	/* The image's list, in table order; borrowed until the next change. */
	const struct snapshot *(*list)(struct img *, unsigned *n);
	/*
	 * create, apply, remove, view and reach run with the gate held exclusively; the first three
	 * leave everything durable. meta with an id: of another image, with its id, disk size and size
	 * of state, which lies where it has to; otherwise these three are not looked at.
	 */
	int (*create)(struct img *, const char *name, const struct snapshot *meta, struct err *);
	int (*apply)(struct img *, unsigned index, struct err *);
	int (*remove)(struct img *, unsigned index, struct err *);
	/* Turns a read-only image, or a view, into a view of the snapshot. */
	int (*view)(struct img *, unsigned index, struct err *);
	/*
	 * Whether a new image, or this one, could take these snapshots of another image, one by one
	 * with reach and create. args->data and the bitmaps are not looked at.
	 */
	int (*creatable)(const struct create_args *args, const struct snapshot *, unsigned n,
			 struct err *);
	int (*acceptable)(struct img *, const struct snapshot *, unsigned n, struct err *);
	/* Where behind a disk of that size a snapshot has the state of a machine, in bytes. */
	uint64_t (*state_at)(const struct img *, uint64_t disk_size);
	/*
	 * For making, and reading, snapshots of other sizes than the disk's, and states: offsets below
	 * end can be used, and no others. What was behind it is dropped; of a view nothing is. On disk
	 * the size stays, and it must be what it was when the image is used otherwise.
	 */
	int (*reach)(struct img *, uint64_t end, struct err *);
};

/* A persistent dirty bitmap: what was written to the disk since it was cleared. */
struct bitmap {
	const char *name;     /* borrowed until the next change */
	uint64_t granularity; /* bytes for a bit */
	uint64_t size;        /* bytes of the disk that it covers */
	bool enabled;         /* follows what is written */
	bool inconsistent;    /* in use when the image was closed: void */
	bool in_use;          /* the image says so */
};

/*
 * All run with the gate held exclusively. Indices are below what load said. -ESTALE: the bitmap is
 * inconsistent; it can be removed only.
 */
struct bitmap_ops {
	/* Whether this image can have bitmaps. */
	bool (*supported)(const struct img *);
	/* Whether a new one with these options could. */
	bool (*creatable)(const struct opts *opts);
	int (*load)(struct img *, unsigned *n, struct err *);
	void (*get)(struct img *, unsigned index, struct bitmap *);
	/* Durable on return; -EFBIG: too many, or too large. */
	int (*add)(struct img *, const char *name, uint64_t granularity, bool enabled,
		   struct err *);
	int (*remove)(struct img *, unsigned index, struct err *);
	int (*enable)(struct img *, unsigned index, bool enable, struct err *);
	/* Stored by settle; before, the bitmap is in use on disk. */
	int (*clear)(struct img *, unsigned index, struct err *);
	int (*set)(struct img *, unsigned index, uint64_t off, uint64_t len, struct err *);
	/* Bytes [at, at+len) of the bits, the lowest bit first; zeros behind the last one. */
	int (*read)(struct img *, unsigned index, uint64_t at, void *buf, size_t len, struct err *);
};

/* A bitmap that a new image is to have; borrowed until the build is closed. */
struct create_bitmap {
	const char *name;
	uint64_t granularity; /* bytes */
	bool enabled;
	/* Bytes [at, at+len) of its bits, as bitmap_ops.read has them; the same whenever asked. */
	int (*read)(void *ctx, uint64_t at, void *buf, size_t len, struct err *);
	void *ctx;
};

struct create_args {
	uint64_t size;              /* bytes, virtual */
	const char *backing;        /* name to store, or NULL */
	const char *backing_format; /* format to store, or NULL */
	const struct opts *opts;    /* values for the format's create_opts; NULL: all defaults */
	struct io *data;            /* borrowed: new external data file; NULL: none */
	const struct create_bitmap *bitmaps; /* for formats that can have them */
	unsigned n_bitmaps;
};

/* What check found; counters as `qemu-img check` counts them. */
struct check_result {
	uint64_t corruptions, leaks, check_errors;
	uint64_t corruptions_fixed, leaks_fixed;
	uint64_t image_end_offset;                   /* bytes */
	uint64_t total_clusters, allocated_clusters; /* guest clusters */
	uint64_t compressed_clusters, fragmented_clusters;
};
enum { CHECK_FIX_LEAKS = 1 << 0, CHECK_FIX_ERRORS = 1 << 1 };

/* What compact did, in bytes. */
struct compact_result {
	uint64_t size_before, size_after; /* of the file */
	uint64_t moved;                   /* clusters, compressed streams, tables */
	uint64_t left;                    /* free space below the end that could not be closed */
};

struct dedup_args {
	const struct checksum_hash *hash; /* of at least 16 bytes */
	bool within;                      /* also share inside the disk itself, see below */
};

/* What dedup did, in bytes. */
struct dedup_result {
	uint64_t scanned; /* clusters of data that were looked at */
	uint64_t freed;   /* clusters that were equal to another one, and are no more */
	uint64_t size_before, size_after; /* of the file */
};

/* Sink for findings: one line of text each, without newline. May be called from one thread only. */
struct check_sink {
	void (*line)(void *ctx, const char *text);
	void *ctx;
	uint64_t max_lines; /* of each kind of finding, then one that says so; 0: no limit */
};

/* What measure answers: bytes that a file of the format needs. */
struct measure_result {
	uint64_t required, fully_allocated, bitmaps;
	bool has_bitmaps;
};

/* What the format adds to `img info`. */
struct img_info {
	uint64_t cluster_size; /* 0: the format has none */
	bool dirty, encrypted;
	json_t *specific; /* owned: {"type": …, "data": {…}}, keys in the peer's order; or NULL */
};

enum {
	FMT_WRITE = 1 << 0,
	FMT_BACKING = 1 << 1, /* can name a backing file */
	FMT_CODED = 1 << 2,   /* can hold compressed clusters */
	FMT_CREATE = 1 << 3,
	FMT_CHECK = 1 << 4,
};

struct format {
	const char *name, *summary;
	unsigned caps;
	size_t img_size;               /* bytes to allocate; struct img is its first member */
	const struct opt *create_opts; /* ends with a NULL name; NULL: no options */
	const struct opt *open_opts;   /* the same for opening: block-driver descriptions */

	int (*probe)(const struct probe *); /* pure; 0 no, 100 certain */
	/* img->file, io.name and open_flags are set. Fills io.size, unit, backing_*, state. opts:
	 * values for open_opts among others that are not the format's; NULL: none. */
	int (*open)(struct img *, const struct opts *opts, struct err *);
	void (*close)(struct img *); /* frees memory only */

	/* Under gate (shared) and meta. This layer only: EXT_ABSENT where it holds nothing; its
	 * host, if any, is the space that waits for it. */
	int (*map)(struct img *, uint64_t off, uint64_t len, struct extent *, struct err *);
	/* Under gate only. [off, off+len) lies inside the extent. */
	int (*decode)(struct img *, const struct extent *, void *buf, size_t len, uint64_t off,
		      struct err *);

	/* Before every change of a guest range by writing, zeroing or discarding. NULL: nothing to
	 * do. Under gate (shared) and meta. */
	int (*changing)(struct img *, uint64_t off, uint64_t len, struct err *);
	/* Allocation protocol (image/write.c), under gate (shared) and meta. A format without
	 * place passes writes straight to img->file (raw). */
	int (*place)(struct img *, uint64_t off, uint64_t len, struct placement *, struct err *);
	int (*link)(struct img *, const struct placement *, struct err *);
	void (*unplace)(struct img *, const struct placement *);
	/* place, for one unit in coded form, len bytes. NULL: the format has no such thing. */
	int (*place_coded)(struct img *, uint64_t off, size_t len, struct placement *,
			   struct err *);
	/* Whole grains (zero, drop), units (discard). Does a prefix of the range and says in *did how
	 * many bytes (> 0 on success). -ENOTSUP: the caller writes zeros, up to the end of the
	 * unit. Under gate (shared) and meta. */
	int (*zero)(struct img *, uint64_t off, uint64_t len, unsigned flags, uint64_t *did,
		    struct err *);
	int (*discard)(struct img *, uint64_t off, uint64_t len, uint64_t *did, struct err *);
	/* As zero: forgets what this layer holds, so that the backing file is seen there. -ENOTSUP:
	 * the first unit is coded, and only a part of it is meant. */
	int (*drop)(struct img *, uint64_t off, uint64_t len, uint64_t *did, struct err *);
	/* True when so much metadata is dirty that a turn should run before more is dirtied. */
	bool (*pressure)(struct img *);
	/* Under gate (exclusive): writes back all metadata in crash order; durable on return. */
	int (*turn)(struct img *, struct err *);
	/* Under gate (exclusive): turn, then marks the image cleanly closed. */
	int (*settle)(struct img *, struct err *);
	/* Under gate (exclusive). prealloc: one of PREALLOC_…, for the grown part. */
	int (*resize)(struct img *, uint64_t size, int prealloc, struct err *);
	/* Under gate (exclusive). Changes the options that were given (all are in amend_opts);
	 * flags: AMEND_…. What cannot be is refused before anything changes. */
	const struct opt *amend_opts; /* NULL: none can be changed */
	int (*amend)(struct img *, const struct opts *, unsigned flags, struct job *, struct err *);
	/* Under gate (exclusive): drops the whole disk and gives the space back. */
	int (*empty)(struct img *, struct err *);
	/* Under gate (exclusive): stores another backing file (NULL: none), after all that was
	 * changed before is durable, so that the image is whole with either of them. -ENOSPC: no
	 * room for the name; -EINVAL: a name without a format. */
	int (*set_backing)(struct img *, const char *name, const char *format, struct err *);
	int (*info)(struct img *, struct img_info *, struct err *);
	int (*check)(struct img *, unsigned fix, struct check_result *, const struct check_sink *,
		     struct job *, struct err *);
	/*
	 * Moves what is in use towards the beginning of the file and cuts the file, under gate
	 * (exclusive). The image must be free of leaks and errors. res is filled also after a
	 * failure; -ECANCELED leaves a valid image, too.
	 */
	int (*compact)(struct img *, struct compact_result *, struct job *, struct err *);
	/*
	 * Makes units of data that are equal share one place, under gate (exclusive). As compact,
	 * but a failure in the middle leaves an image that the next opening repairs.
	 */
	int (*dedup)(struct img *, const struct dedup_args *, struct dedup_result *, struct job *,
		     struct err *);
	/* Units of the file (up to its end) that the image has in use; may stop counting at limit.
	 * NULL: the format does not know. Under gate (shared) and meta. */
	int (*count_used)(struct img *, uint64_t limit, uint64_t *n, struct err *);
	/* Space for an image of this format that would hold the data of src (NULL: an empty one
	 * of args->size). */
	int (*measure)(const struct create_args *, struct io *src, struct measure_result *,
		       struct job *, struct err *);
	/* New images are made by a builder: create is "begin, finish". See image/build.h. */
	int (*build)(struct io *file, const struct create_args *, unsigned flags, struct build **,
		     struct err *);
	const struct snapshot_ops *snapshots; /* NULL: none */
	const struct bitmap_ops *bitmaps;     /* NULL: none */
};

enum { AMEND_SHRINK = 1 << 0 }; /* permission to make the disk smaller */
enum { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL };

struct img {
	struct io io; /* first: an image is an io */
	const struct format *fmt;
	struct io *file;     /* owned: the file that holds the image */
	struct io *data;     /* where guest data is: file, or the external data file (owned) */
	struct img *backing; /* owned; NULL: none, or not opened */
	unsigned open_flags; /* IMG_… */
	uint64_t unit;       /* allocation unit (cluster, grain) in bytes; 1 for raw */
	uint64_t grain; /* what can be there, absent or zero by itself: subcluster; else the unit */
	bool probed;    /* the format was found by probing, not given */
	enum codec_type codec; /* of coded units */

	char *backing_name;   /* owned: as stored in the image; NULL: none */
	char *backing_format; /* owned: as stored; NULL: not stored */
	char *backing_path;   /* owned: resolved path, also when it was not opened */
	bool backing_left;    /* it was not opened, by IMG_NO_NAMED */
	char *data_name;      /* owned: of the external data file, as stored; NULL: there is none */

	pthread_rwlock_t gate;
	pthread_mutex_t meta;
	pthread_cond_t idle;   /* with meta: busy shrank */
	struct ranges busy;    /* guest ranges between place and link */
	unsigned n_busy;       /* how many placements they come from */
	_Atomic int broken;    /* positive errno: a flush failed, no more writes (sticky) */
	atomic_bool unsettled; /* written to since the last settle */
};

static inline struct img *io_img(struct io *io)
{
	return (struct img *)(void *)io; /* io is the first member */
}

/* Whether an io is an opened image (then io_img may be used). */
bool io_is_img(const struct io *io);

/* All formats in probe order, ends with NULL; raw is last. */
extern const struct format *const formats[];
const struct format *format_find(const char *name);

/*
 * Opens an image and, unless IMG_NO_BACKING, its backing chain. Close with io_close(&img->io).
 * Errors: -ENOENT, -EACCES, -EBUSY (locked), -EUCLEAN (recognised but broken: never falls through
 * to raw), -EMEDIUMTYPE (not of the format that was given, or probe found none), -ENOTSUP (feature), -ELOOP.
 */
int img_open(const struct img_open_args *args, struct img **out, struct err *err);

/* The same on an io that is already open (owned on success): nested images, tests. No backing is
 * opened, unless `backing` is given (owned on success). With IMG_BORROWED neither is owned. */
int img_open_io(struct io *file, const char *format, unsigned flags, struct img *backing,
		struct img **out, struct err *err);

/* Gives an image of img_open_io its external data file; owned on success. -EINVAL: it has none. */
int img_set_data_file(struct img *img, struct io *data, struct err *err);

/* The format that fits best; raw fits everything, so never NULL. */
const struct format *format_probe(const struct probe *probe);

/* The name of a format that we do not have, but know by its first bytes; NULL: none. */
const char *format_foreign(const struct probe *probe);

/*
 * The same for a file, from its first bytes. -ENOTSUP: it is of such a format. Raw is what has no
 * header that is known.
 */
int img_probe(struct io *file, const struct format **fmt, struct err *err);

/*
 * Resolves a name that stands in an image to a path: relative to the directory of `base` (unless
 * absolute). The caller frees *path. Names that are not plain paths ("json:…", "nbd://…", "a:b")
 * are refused: -EINVAL.
 */
int img_resolve_name(const char *base, const char *name, char **path, struct err *err);

/*
 * The file that an image is in, also when it is a part of it, or an image in an image: for its
 * path, identity and space. NULL: it is in no file.
 */
struct io *img_bottom(const struct img *img);

/*
 * Forgets what this layer holds in the whole grains of a range, of coded units in whole ones: what the
 * backing file holds shows there. -ENOTSUP: the format has no such thing.
 */
int img_drop(struct img *img, uint64_t off, uint64_t len, struct err *err);

/*
 * Writes one unit, at a multiple of img->unit, in coded form (len bytes of img->codec, which decode to
 * a whole unit). Only for formats with place_coded.
 */
int img_write_coded(struct img *img, const void *coded, size_t len, uint64_t off, struct err *err);

/* Bytes that another file holds, and that nobody changes for the time being. */
struct img_source {
	struct io *io;
	uint64_t at; /* byte in io */
	void *mem;   /* room for them */
	bool loaded; /* they are there already */
};

/*
 * Writes len bytes of src as io_pwrite does. Where the image takes new space for them, and the file
 * systems can, that shares its blocks with src, and nothing is read or written.
 */
int img_write_from(struct img *img, const struct img_source *src, size_t len, uint64_t off,
		   struct err *err);

/* This layer's extent only, as the format's map; takes the locks. */
int img_map_layer(struct img *img, uint64_t off, uint64_t len, struct extent *ext, struct err *err);

/*
 * Whether a layer of the chain under img (NULL: none) is kept in this file, its external data file
 * included, also when that was not opened.
 */
bool img_uses_file(struct img *img, dev_t dev, ino_t ino);

/*
 * Whether this layer has more units in use than its file stores (space set aside in advance, holes
 * dug into it): then data extents may be holes, and it pays to ask io_map(ext.io) about them.
 */
int img_has_file_holes(struct img *img, bool *holes, struct err *err);

/* Changes that exclude everything else; each takes the gate. Durable on return. */
int img_resize(struct img *img, uint64_t size, int prealloc, struct err *err);
int img_amend(struct img *img, const struct opts *opts, unsigned flags, struct job *job,
	      struct err *err);
/* The layer holds nothing any more, its file becomes small: everything is the backing file's. */
int img_empty(struct img *img, struct err *err);
/*
 * Stores the name and format of another backing file (NULL: none). `backing` is what is read from
 * now on instead of the old one, which is closed; owned on success; NULL: nothing is. -ENOTSUP: the
 * format has no backing files; -EINVAL: no format is given; -ENOSPC: the header has no room.
 */
int img_set_backing(struct img *img, const char *name, const char *format, struct img *backing,
		    struct err *err);
int img_snapshot_create(struct img *img, const char *name, const struct snapshot *meta,
			struct err *err);
int img_snapshot_apply(struct img *img, unsigned index, struct err *err);
int img_snapshot_remove(struct img *img, unsigned index, struct err *err);
int img_snapshot_view(struct img *img, unsigned index, struct err *err);
/* See snapshot_ops. */
int img_snapshot_reach(struct img *img, uint64_t end, struct err *err);

/* The list (borrowed until the next change); *n = 0 for formats without snapshots. */
const struct snapshot *img_snapshots(struct img *img, unsigned *n);

/* Index of the snapshot called `text`: by id first, then by name. -ENOENT. */
int img_snapshot_find(struct img *img, const char *text, unsigned *index, struct err *err);

/* Closes holes inside the file and cuts it. -ENOTSUP: the format has nothing of the kind. */
int img_compact(struct img *img, struct compact_result *res, struct job *job, struct err *err);

/* Persistent bitmaps; each call takes the gate. See struct bitmap_ops. */
bool img_has_bitmaps(const struct img *img);
int img_bitmaps(struct img *img, unsigned *n, struct err *err);
void img_bitmap_get(struct img *img, unsigned index, struct bitmap *bitmap);
int img_bitmap_add(struct img *img, const char *name, uint64_t granularity, bool enabled,
		   struct err *err);
int img_bitmap_remove(struct img *img, unsigned index, struct err *err);
int img_bitmap_enable(struct img *img, unsigned index, bool enable, struct err *err);
int img_bitmap_clear(struct img *img, unsigned index, struct err *err);
int img_bitmap_set(struct img *img, unsigned index, uint64_t off, uint64_t len, struct err *err);
int img_bitmap_read(struct img *img, unsigned index, uint64_t at, void *buf, size_t len,
		    struct err *err);

/*
 * Shares equal units between the disk and its snapshots, and between snapshots; args->within: also
 * inside the disk. The latter is correct at first, but when one of two sharers is written to later
 * (by whatever program), the other one's COPIED flag is missing, which costs one copy, and checks
 * call it an error. -ENOTSUP: the format cannot.
 */
int img_dedup(struct img *img, const struct dedup_args *args, struct dedup_result *res,
	      struct job *job, struct err *err);

/* Flushes everything and marks the image cleanly closed. io_close does it too, without telling. */
int img_settle(struct img *img, struct err *err);

/* Runs check under the gate; -ENOTSUP when the format has none. */
int img_check(struct img *img, unsigned fix, struct check_result *res,
	      const struct check_sink *sink, struct job *job, struct err *err);

#endif
