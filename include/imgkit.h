/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * imgkit: read, write, convert and check disk images.
 *
 * Conventions
 *   Results   Functions that can fail return 0, or a negative errno value, and then describe what
 *             happened in *err (which may be NULL). Outputs are set on success only. Nothing is
 *             printed, and the process is never ended.
 *   Units     Offsets, lengths and sizes are bytes. Requests may have any alignment.
 *   Ownership What a function returns through `**out` belongs to the caller, who gives it back with
 *             the function named there. Strings inside an image are borrowed until it is closed or
 *             changed. Arguments are only read during the call.
 *   Threads   One image may be read, written, zeroed, discarded, flushed and mapped by several
 *             threads at once; that is how it is fast. Resize, snapshot and bitmap calls wait for
 *             those and exclude them, but of these make one at a time: they find by name or number
 *             what another one may remove. Close must be the last call.
 *   Options   Structs that end in _opts start with their own size: zero them and set it, or use
 *             IMGKIT_OPTS. Programs built with an older header keep working: what they do not
 *             know of is zero, and zero always means the default.
 */
#ifndef IMGKIT_H
#define IMGKIT_H

#include <stddef.h>
#include <stdint.h>

#define IMGKIT_VERSION_MAJOR 0
#define IMGKIT_VERSION_MINOR 1
#define IMGKIT_VERSION_PATCH 0

#define IMGKIT_STR_(x) #x
#define IMGKIT_STR(x)  IMGKIT_STR_(x)
/* "0.1.0": of this header. imgkit_version() tells that of the library. */
#define IMGKIT_VERSION                   \
	IMGKIT_STR(IMGKIT_VERSION_MAJOR) \
	"." IMGKIT_STR(IMGKIT_VERSION_MINOR) "." IMGKIT_STR(IMGKIT_VERSION_PATCH)

#if defined(__GNUC__)
#define IMGKIT_API __attribute__((visibility("default")))
#else
#define IMGKIT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Declares an option struct with everything at its default: IMGKIT_OPTS(imgkit_open_opts, o); */
#ifdef __cplusplus
#define IMGKIT_OPTS(type, var) \
	struct type var = {};  \
	var.struct_size = sizeof(var)
#else
#define IMGKIT_OPTS(type, var) struct type var = {.struct_size = sizeof(struct type)}
#endif

/* ---- errors ---- */

struct imgkit_err {
	int code;      /* positive errno value; 0: none */
	char msg[480]; /* one line of UTF-8 text without newline, for people */
};

/* "0.1.0" */
IMGKIT_API const char *imgkit_version(void);

/* ---- formats ---- */

enum imgkit_format_caps {
	IMGKIT_CAN_WRITE = 1 << 0,
	IMGKIT_CAN_CREATE = 1 << 1,
	IMGKIT_CAN_BACK = 1 << 2,     /* images can name a backing file */
	IMGKIT_CAN_COMPRESS = 1 << 3, /* convert can compress */
	IMGKIT_CAN_CHECK = 1 << 4,
	IMGKIT_CAN_SNAPSHOT = 1 << 5, /* images can hold internal snapshots */
	IMGKIT_CAN_BITMAP = 1 << 6,   /* images can hold persistent dirty bitmaps */
};

/* Name of the n-th format ("qcow2", "raw", ...), counted from 0; NULL past the last. */
IMGKIT_API const char *imgkit_format_name(unsigned n);
/* One line of text, and IMGKIT_CAN_...; NULL and 0 for a name that is not known. */
IMGKIT_API const char *imgkit_format_summary(const char *format);
IMGKIT_API unsigned imgkit_format_caps(const char *format);

/* ---- images ---- */

struct imgkit_image;

enum imgkit_open_flags {
	IMGKIT_RDWR = 1 << 0,       /* read and write; without it only reading works */
	IMGKIT_NO_BACKING = 1 << 1, /* open the named file only: what it lacks reads as zeros */
	IMGKIT_SHARE = 1 << 2,      /* take no locks and ignore those of others; read-only */
	IMGKIT_UNTRUSTED = 1 << 3,  /* somebody else's image: no file but the named one is opened,
				     * and an unrecognised one is refused instead of taken as raw */
	IMGKIT_UNSAFE = 1 << 4,     /* flush does nothing: fast, and worthless after a crash */
	IMGKIT_DIRECT = 1 << 5,     /* bypass the page cache */
	IMGKIT_SYNC = 1 << 6,       /* every write is on stable storage when it returns */
};

struct imgkit_open_opts {
	size_t struct_size;
	const char *format;   /* NULL: found out from the content */
	unsigned flags;       /* IMGKIT_RDWR ... */
	unsigned max_depth;   /* files in the backing chain; 0: 64 */
	const char *snapshot; /* open this internal snapshot (id or name), read-only */
	/*
	 * External data files that may be opened though they are not in or below the image's own
	 * directory: paths, up to a NULL. NULL: none.
	 */
	const char *const *external;
};

/*
 * Opens a disk image and its backing chain. opts may be NULL: read-only, any format. Give it back
 * with imgkit_close. -ENOENT, -EACCES, -EBUSY (in use by another process), -EUCLEAN (recognised, but
 * damaged), -EMEDIUMTYPE (not of that format), -ENOTSUP (needs a feature that is not there), -ELOOP.
 */
IMGKIT_API int imgkit_open(const char *path, const struct imgkit_open_opts *opts,
			   struct imgkit_image **out, struct imgkit_err *err);

/* Writes back what is cached, without telling of errors: flush first to know. NULL is fine. */
IMGKIT_API void imgkit_close(struct imgkit_image *image);

enum imgkit_create_flags {
	IMGKIT_FORCE = 1 << 0, /* replace a file that exists; without it -EEXIST */
};

struct imgkit_create_opts {
	size_t struct_size;
	unsigned flags;             /* IMGKIT_FORCE */
	const char *options;        /* "key=value,key=value" as `img create -o`; NULL: defaults */
	const char *backing;        /* path to store as the backing file's, or NULL */
	const char *backing_format; /* its format; needed with backing */
};

/*
 * Makes a new image of `size` bytes that reads as zeros, or as its backing file. It appears under its
 * name when it is whole. size UINT64_MAX: that of the backing file. opts may be NULL.
 */
IMGKIT_API int imgkit_create(const char *path, const char *format, uint64_t size,
			     const struct imgkit_create_opts *opts, struct imgkit_err *err);

/* Virtual size in bytes. */
IMGKIT_API uint64_t imgkit_size(const struct imgkit_image *image);
/* Name of the format. */
IMGKIT_API const char *imgkit_format(const struct imgkit_image *image);

/* All or nothing: [off, off+len) must lie inside the image, and all of it is transferred. */
IMGKIT_API int imgkit_pread(struct imgkit_image *image, void *buf, size_t len, uint64_t off,
			    struct imgkit_err *err);
IMGKIT_API int imgkit_pwrite(struct imgkit_image *image, const void *buf, size_t len, uint64_t off,
			     struct imgkit_err *err);

enum imgkit_zero_flags {
	IMGKIT_ZERO_UNMAP = 1 << 0, /* the space may be freed */
	IMGKIT_ZERO_FAST = 1 << 1,  /* -ENOTSUP rather than writing zeros one by one */
};

/* The range reads as zeros afterwards. */
IMGKIT_API int imgkit_zero(struct imgkit_image *image, uint64_t off, uint64_t len, unsigned flags,
			   struct imgkit_err *err);

/* The content is not needed any more: a hint. The range reads as zeros or as before. */
IMGKIT_API int imgkit_discard(struct imgkit_image *image, uint64_t off, uint64_t len,
			      struct imgkit_err *err);

/*
 * What was written before is on stable storage on return. After an error the image takes no more
 * writes: what the disk holds is not known then.
 */
IMGKIT_API int imgkit_flush(struct imgkit_image *image, struct imgkit_err *err);

enum imgkit_prealloc {
	IMGKIT_PREALLOC_OFF = 0,
	IMGKIT_PREALLOC_METADATA = 1,
	IMGKIT_PREALLOC_FALLOC = 2,
	IMGKIT_PREALLOC_FULL = 3,
};

/* Changes the virtual size. Growth reads as zeros; shrinking throws away. prealloc: for growth. */
IMGKIT_API int imgkit_resize(struct imgkit_image *image, uint64_t size,
			     enum imgkit_prealloc prealloc, struct imgkit_err *err);

enum imgkit_amend_flags {
	IMGKIT_AMEND_SHRINK = 1 << 0, /* permit a smaller size: what lies beyond is lost */
};

struct imgkit_job;

/*
 * Changes options that the image was made with: options is "key=value,...", as for `img amend -o`.
 * On stable storage on return. -ENOTSUP, -EINVAL, -ERANGE: it cannot be, and nothing has changed.
 */
IMGKIT_API int imgkit_amend(struct imgkit_image *image, const char *options, unsigned flags,
			    struct imgkit_job *job, struct imgkit_err *err);

enum imgkit_extent_kind {
	IMGKIT_ABSENT = 0,     /* held nowhere in the chain; reads as zeros */
	IMGKIT_ZERO = 1,       /* recorded as zeros */
	IMGKIT_DATA = 2,       /* stored */
	IMGKIT_COMPRESSED = 3, /* stored compressed */
};

#define IMGKIT_NO_HOST UINT64_MAX

/* A run of bytes of the same state. */
struct imgkit_extent {
	uint64_t off, len; /* guest bytes */
	enum imgkit_extent_kind kind;
	unsigned depth;   /* file of the backing chain that holds it; 0: the image */
	uint64_t host;    /* offset in that file, or IMGKIT_NO_HOST */
	const char *file; /* name of that file, borrowed; NULL without host */
};

/* The extent at off, cut to len. len > 0. Walk an image by going on at off + len of the answer. */
IMGKIT_API int imgkit_map(struct imgkit_image *image, uint64_t off, uint64_t len,
			  struct imgkit_extent *extent, struct imgkit_err *err);

struct imgkit_info {
	uint64_t size;         /* virtual */
	uint64_t allocated;    /* bytes of storage that the file takes */
	uint64_t cluster_size; /* 0: the format has none */
	int dirty;             /* was not closed cleanly */
	int encrypted;
	unsigned snapshots;
	const char *format;
	const char *backing;        /* as stored in the image; NULL: none */
	const char *backing_format; /* as stored; NULL: none, or not stored */
	const char *data_file;      /* name of the external data file, as stored; NULL: none */
};

/*
 * What of a stretch of the disk is stored where, in bytes; they add up to its length. For pictures.
 */
struct imgkit_cell {
	uint64_t data, compressed; /* stored in the image */
	uint64_t backing;          /* stored in the files behind it */
	uint64_t zero;             /* recorded, or known, as zeros */
	uint64_t hole;             /* stored nowhere: reads as zeros */
};

/*
 * Divides [off, off+len), cut to the disk's end, into at most *n equal stretches of whole sectors (512;
 * the last one may be shorter), and sums up each. *n becomes their number, *per_cell their length in
 * bytes. cell_size: sizeof(struct imgkit_cell), the distance of two of them in cells.
 */
IMGKIT_API int imgkit_map_cells(struct imgkit_image *image, uint64_t off, uint64_t len,
				struct imgkit_cell *cells, size_t cell_size, unsigned *n,
				uint64_t *per_cell, struct imgkit_err *err);

/* Strings are borrowed from the image. info_size: sizeof(struct imgkit_info). */
IMGKIT_API int imgkit_info(struct imgkit_image *image, struct imgkit_info *info, size_t info_size,
			   struct imgkit_err *err);

/* ---- jobs: progress and cancel of what takes long ---- */

/* A job serves one operation; the next one needs a new one. NULL: out of memory. */
IMGKIT_API struct imgkit_job *imgkit_job_new(void);
IMGKIT_API void imgkit_job_free(struct imgkit_job *job);
/* From any thread or signal handler: the operation ends soon with -ECANCELED. */
IMGKIT_API void imgkit_job_cancel(struct imgkit_job *job);
/* From any thread. total is 0 until it is known. */
IMGKIT_API void imgkit_job_progress(const struct imgkit_job *job, uint64_t *done, uint64_t *total);

/* ---- operations; job may be NULL in all of them ---- */

enum imgkit_convert_flags {
	IMGKIT_CONVERT_FORCE = 1 << 0, /* replace a target that exists */
	IMGKIT_CONVERT_COMPRESS = 1 << 1,
	IMGKIT_CONVERT_IN_PLACE = 1 << 2,    /* target exists already: write into it */
	IMGKIT_CONVERT_TARGET_ZERO = 1 << 3, /* with IN_PLACE: it reads as zeros all over */
	IMGKIT_CONVERT_SALVAGE = 1 << 4,     /* read errors become zeros */
	IMGKIT_CONVERT_BITMAPS = 1 << 5,     /* the dirty bitmaps as well */
	/* With BITMAPS: those that are inconsistent are left out; without it they are -ESTALE. */
	IMGKIT_CONVERT_SKIP_BROKEN_BITMAPS = 1 << 6,
	IMGKIT_CONVERT_SNAPSHOTS = 1 << 7, /* all internal snapshots as well */
};

struct imgkit_convert_opts {
	size_t struct_size;
	unsigned flags;      /* IMGKIT_CONVERT_... */
	unsigned open_flags; /* for the sources: IMGKIT_SHARE, UNTRUSTED, DIRECT, NO_BACKING */
	unsigned workers;    /* threads; 0: the number of CPUs */
	const char *source_format;  /* NULL: found out */
	const char *snapshot;       /* internal snapshot of the source to take */
	const char *options;        /* of the target, "key=value,..." */
	const char *backing;        /* the target's backing file, which holds the same ... */
	const char *backing_format; /* ... data where the source has none of its own */
	uint64_t rate;              /* bytes per second; 0: no limit */
	uint64_t sparse; /* shortest run of zeros that becomes a hole; 0: 4096, UINT64_MAX: none */
	const char *const *external; /* as in imgkit_open_opts, of the source */
};

/*
 * Copies source to a new image at target, which appears under its name when it is whole. The source
 * is not changed. opts may be NULL. -EEXIST, -ENOSPC, -ECANCELED, what opening can fail with.
 */
IMGKIT_API int imgkit_convert(const char *source, const char *target, const char *format,
			      const struct imgkit_convert_opts *opts, struct imgkit_job *job,
			      struct imgkit_err *err);

enum imgkit_commit_flags {
	IMGKIT_COMMIT_KEEP = 1 << 0, /* do not empty the image afterwards */
	/* Empty it even if it has internal snapshots, which then see what was committed. */
	IMGKIT_COMMIT_CHANGE_SNAPSHOTS = 1 << 1,
};

struct imgkit_commit_opts {
	size_t struct_size;
	unsigned flags;      /* IMGKIT_COMMIT_... */
	unsigned open_flags; /* for the chain: IMGKIT_UNSAFE, DIRECT, SYNC */
	unsigned workers;    /* threads; 0: the number of CPUs */
	const char *format;  /* of the image; NULL: found out */
	/*
	 * Image of the chain to commit to, by its name in it; NULL: the backing file. What lies between
	 * that and the image is stale afterwards, so a name implies IMGKIT_COMMIT_KEEP.
	 */
	const char *base;
	uint64_t rate;               /* bytes per second; 0: no limit */
	const char *const *external; /* as in imgkit_open_opts */
};

/*
 * Writes what the image at path holds into its backing file, which grows if it is smaller, and empties
 * the image. What is read through the image never changes, whatever happens. Both are on stable
 * storage on return. opts may be NULL. -EINVAL: no backing file. -ENOENT: base is not in the chain.
 * -EPERM: the image has snapshots. -ECANCELED, what opening can fail with.
 */
IMGKIT_API int imgkit_commit(const char *path, const struct imgkit_commit_opts *opts,
			     struct imgkit_job *job, struct imgkit_err *err);

enum imgkit_rebase_flags {
	IMGKIT_REBASE_UNSAFE = 1 << 0,   /* change the name only: the content has to be the same */
	IMGKIT_REBASE_COMPRESS = 1 << 1, /* compress what is copied into the image */
	/* Then drop what the image holds just as the new backing file does. */
	IMGKIT_REBASE_DROP_EQUAL = 1 << 2,
	/* Go on though internal snapshots see another backing file afterwards. */
	IMGKIT_REBASE_CHANGE_SNAPSHOTS = 1 << 3,
};

struct imgkit_rebase_opts {
	size_t struct_size;
	unsigned flags;              /* IMGKIT_REBASE_... */
	unsigned open_flags;         /* for the image: IMGKIT_UNSAFE, DIRECT, SYNC */
	unsigned backing_flags;      /* for the new backing file: IMGKIT_SHARE, UNTRUSTED, DIRECT */
	unsigned workers;            /* threads; 0: the number of CPUs */
	const char *format;          /* of the image; NULL: found out */
	const char *backing;         /* path of the new backing file, to store; NULL: none */
	const char *backing_format;  /* its format; needed with backing */
	const char *const *external; /* as in imgkit_open_opts, of the image */
};

/*
 * Gives the image at path another backing file. What it reads as stays: where the two backing files
 * differ, the old one's data is copied into the image first. It is on stable storage on return, and
 * whenever it stops before, the image is whole with the old backing file. opts may not be NULL.
 * -ELOOP: the image would be in its own chain. -EPERM: it has snapshots. -ENOSPC: no room for the name.
 * -ENOTSUP: the format has no backing files. -ECANCELED, what opening can fail with.
 */
IMGKIT_API int imgkit_rebase(const char *path, const struct imgkit_rebase_opts *opts,
			     struct imgkit_job *job, struct imgkit_err *err);

struct imgkit_compare_result {
	int equal;
	uint64_t
		first_difference; /* when not equal: offset of the first sector (512) that differs */
};

/* Compares what a guest would see. Where one is longer, the rest must read as zeros. */
IMGKIT_API int imgkit_compare(struct imgkit_image *a, struct imgkit_image *b,
			      struct imgkit_compare_result *result, struct imgkit_job *job,
			      struct imgkit_err *err);

enum imgkit_check_flags {
	IMGKIT_FIX_LEAKS = 1 << 0,  /* give back space that is marked used and is not */
	IMGKIT_FIX_ERRORS = 1 << 1, /* repair all that can be; implies IMGKIT_FIX_LEAKS */
};

struct imgkit_check_opts {
	size_t struct_size;
	unsigned flags; /* IMGKIT_FIX_... */
	/* Called for every finding, by one thread at a time. text: one line, no newline. */
	void (*finding)(void *ctx, const char *text);
	void *ctx;
	const char *format; /* NULL: found out */
};

struct imgkit_check_result {
	uint64_t corruptions, leaks, check_errors; /* left; counted in clusters */
	uint64_t corruptions_fixed, leaks_fixed;
	uint64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
	uint64_t image_end_offset; /* bytes of the file that are in use */
};

/*
 * Checks the metadata of an image file. 0 means that the check ran, whatever it found. opts may be
 * NULL. -ENOTSUP: nothing to check in this format. result_size: sizeof(struct imgkit_check_result).
 */
IMGKIT_API int imgkit_check(const char *path, const struct imgkit_check_opts *opts,
			    struct imgkit_check_result *result, size_t result_size,
			    struct imgkit_job *job, struct imgkit_err *err);

struct imgkit_compact_result {
	uint64_t size_before, size_after; /* bytes of the file */
	uint64_t moved;                   /* bytes */
	uint64_t left;                    /* bytes of free space that could not be closed */
};

/*
 * Moves what lies at the end of the file into the holes inside it, and cuts the file. The image must
 * be open for writing, and nothing else may use it meanwhile. -EUCLEAN: a check found errors.
 * -ECANCELED: the image is valid, and another call goes on. Snapshots are kept. result is filled
 * also after a failure. result_size: sizeof(struct imgkit_compact_result).
 */
IMGKIT_API int imgkit_compact(struct imgkit_image *image, struct imgkit_compact_result *result,
			      size_t result_size, struct imgkit_job *job, struct imgkit_err *err);

struct imgkit_sparsify_result {
	uint64_t scanned; /* bytes of the disk that were stored in this image */
	uint64_t freed;   /* of those, zeros that now take no space */
	uint64_t kept;    /* zeros that the format has no way to record */
};

/*
 * Frees the space of what the image (not its backing file) stores and reads as zeros. The image must
 * be open for writing, and nothing else may write to it meanwhile. workers: threads, 0: the number of
 * CPUs. result is filled also after a failure. result_size: sizeof(struct imgkit_sparsify_result).
 */
IMGKIT_API int imgkit_sparsify(struct imgkit_image *image, unsigned workers,
			       struct imgkit_sparsify_result *result, size_t result_size,
			       struct imgkit_job *job, struct imgkit_err *err);

enum imgkit_dedup_flags {
	/*
	 * Also inside the disk itself, not only between it and snapshots. When one of two sharers is
	 * written to later, a check finds a missing flag for the other one: harmless, and mended by
	 * IMGKIT_FIX_LEAKS.
	 */
	IMGKIT_DEDUP_WITHIN_DISK = 1 << 0,
};

struct imgkit_dedup_opts {
	size_t struct_size;
	unsigned flags; /* IMGKIT_DEDUP_... */
	/*
	 * A hash function, as this library has none: writes the first 16 bytes of the hash of data to
	 * out; several threads call it. 0, or not: it failed. What has equal hashes is compared.
	 */
	int (*hash)(void *ctx, const void *data, size_t len, unsigned char *out);
	void *ctx;
};

struct imgkit_dedup_result {
	uint64_t scanned;                 /* bytes of data that were looked at */
	uint64_t freed;                   /* bytes that were stored more than once */
	uint64_t size_before, size_after; /* of the file */
};

/*
 * Stores equal clusters inside the image once. The image must be open for writing, and nothing else
 * may use it meanwhile. opts may not be NULL. -EUCLEAN: a check found errors. -ECANCELED: what is
 * shared stays so. result is filled also after a failure. result_size: sizeof(struct
 * imgkit_dedup_result).
 */
IMGKIT_API int imgkit_dedup(struct imgkit_image *image, const struct imgkit_dedup_opts *opts,
			    struct imgkit_dedup_result *result, size_t result_size,
			    struct imgkit_job *job, struct imgkit_err *err);

struct imgkit_measure_result {
	uint64_t required;        /* bytes of file for the data of the source */
	uint64_t fully_allocated; /* bytes of file when all of the disk has been written to */
	uint64_t bitmaps;         /* bytes on top of both for the dirty bitmaps of the source */
};

/*
 * How large a file of `format` would be, with `options` as for create, for what source holds; source
 * NULL: for an empty disk of `size` bytes. result_size: sizeof(struct imgkit_measure_result).
 */
IMGKIT_API int imgkit_measure(struct imgkit_image *source, uint64_t size, const char *format,
			      const char *options, struct imgkit_measure_result *result,
			      size_t result_size, struct imgkit_job *job, struct imgkit_err *err);

/* ---- internal snapshots ---- */

struct imgkit_snapshot {
	const char *id, *name;  /* borrowed until the list changes */
	uint64_t disk_size;     /* bytes */
	uint64_t vm_state_size; /* bytes */
	uint64_t vm_clock_ns;
	int64_t date_sec; /* since 1970, UTC */
	uint32_t date_nsec;
};

/* -ENOENT past the last one; n counts from 0. snapshot_size: sizeof(struct imgkit_snapshot). */
IMGKIT_API int imgkit_snapshot_get(struct imgkit_image *image, unsigned n,
				   struct imgkit_snapshot *snapshot, size_t snapshot_size,
				   struct imgkit_err *err);
/* The image must be open for writing. What they did is on stable storage on return. */
IMGKIT_API int imgkit_snapshot_create(struct imgkit_image *image, const char *name,
				      struct imgkit_err *err);
/*
 * The image returns to that state (and size). id_or_name must mean one snapshot only (else -ENOTUNIQ);
 * snapshot.id=ID and snapshot.name=NAME, alone or joined by a comma, tell them apart.
 */
IMGKIT_API int imgkit_snapshot_apply(struct imgkit_image *image, const char *id_or_name,
				     struct imgkit_err *err);
IMGKIT_API int imgkit_snapshot_remove(struct imgkit_image *image, const char *id_or_name,
				      struct imgkit_err *err);

/* ---- persistent dirty bitmaps: what was written since they were cleared ---- */

struct imgkit_bitmap {
	const char *name;     /* borrowed until the bitmaps change */
	uint64_t granularity; /* bytes of the disk for a bit */
	uint64_t size;        /* bytes of the disk that it covers */
	int enabled;          /* follows what is written */
	int inconsistent;     /* its writer died: it can only be removed */
};

/* -ENOENT past the last one; n counts from 0. bitmap_size: sizeof(struct imgkit_bitmap). */
IMGKIT_API int imgkit_bitmap_get(struct imgkit_image *image, unsigned n,
				 struct imgkit_bitmap *bitmap, size_t bitmap_size,
				 struct imgkit_err *err);

enum imgkit_bitmap_flags {
	IMGKIT_BITMAP_DISABLED = 1 << 0, /* it does not follow what is written */
};

/*
 * The image must be open for writing. What these did is on stable storage on return. -ENOENT: no such
 * bitmap. -EEXIST. -ENOTSUP: the image cannot have bitmaps. -ESTALE: this one is inconsistent. -EINVAL.
 * granularity: a power of two from 512 to 2 GiB; 0: the cluster size, between 4 KiB and 64 KiB.
 */
IMGKIT_API int imgkit_bitmap_add(struct imgkit_image *image, const char *name, uint64_t granularity,
				 unsigned flags, struct imgkit_err *err);
IMGKIT_API int imgkit_bitmap_remove(struct imgkit_image *image, const char *name,
				    struct imgkit_err *err);
/* Nothing counts as written. */
IMGKIT_API int imgkit_bitmap_clear(struct imgkit_image *image, const char *name,
				   struct imgkit_err *err);
/* enable 0: it stays as it is from now on. */
IMGKIT_API int imgkit_bitmap_enable(struct imgkit_image *image, const char *name, int enable,
				    struct imgkit_err *err);
/* Adds what the bitmap source_name of source (which may be image) has. Both cover the same size. */
IMGKIT_API int imgkit_bitmap_merge(struct imgkit_image *image, const char *name,
				   struct imgkit_image *source, const char *source_name,
				   struct imgkit_err *err);

/*
 * Calls run for each stretch of the disk that the bitmap has as written, in order; [off, off+len) is
 * in bytes. run may read the image, but not change it or its bitmaps. When it returns something else
 * than 0, that ends the walk and is the result, and *err stays as it is. -ESTALE: the bitmap is
 * inconsistent.
 */
IMGKIT_API int imgkit_bitmap_each(struct imgkit_image *image, const char *name,
				  int (*run)(void *ctx, uint64_t off, uint64_t len), void *ctx,
				  struct imgkit_err *err);

#ifdef __cplusplus
}
#endif

#endif
