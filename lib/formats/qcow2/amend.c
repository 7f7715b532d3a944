// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Changing the options of an image that exists, under the exclusive gate.
 *
 * Everything is checked before anything changes. Then each option changes by itself, whole and
 * durable, in an order in which each finds what it needs: the newer version first, the older last.
 * A failure or a power cut leaves a sound image in which some of the changes have been made.
 * Names, rules and messages are the peer's (qemu-img 7.2).
 */
#include "formats/qcow2/amend.h"

#include <errno.h>
#include <stdlib.h>

#include "image/internal.h"

const struct opt qcow2_amend_opts[] = {
	{.name = "encrypt.state",
	 .type = OPT_STRING,
	 .help = "Select new state of affected keyslots (active/inactive)",
	 .refused = true},
	{.name = "encrypt.keyslot",
	 .type = OPT_UINT,
	 .help = "Select a single keyslot to modify explicitly",
	 .refused = true},
	{.name = "encrypt.old-secret",
	 .type = OPT_STRING,
	 .help = "Select all keyslots that match this password",
	 .refused = true},
	{.name = "encrypt.new-secret",
	 .type = OPT_STRING,
	 .help = "New secret to set in the matching keyslots. Empty string to erase",
	 .refused = true},
	{.name = "encrypt.iter-time",
	 .type = OPT_UINT,
	 .help = "Time to spend in PBKDF in milliseconds",
	 .refused = true},
	{.name = "size", .type = OPT_SIZE, .help = "Virtual disk size"},
	{.name = "compat",
	 .type = OPT_STRING,
	 .help = "Compatibility level (v2 [0.10] or v3 [1.1])"},
	{.name = "backing_file", .type = OPT_STRING, .help = "File name of a base image"},
	{.name = "backing_fmt", .type = OPT_STRING, .help = "Image format of the base image"},
	{.name = "data_file", .type = OPT_STRING, .help = "File name of an external data file"},
	{.name = "data_file_raw",
	 .type = OPT_BOOL,
	 .help = "The external data file must stay valid as a raw image"},
	{.name = "lazy_refcounts", .type = OPT_BOOL, .help = "Postpone refcount updates"},
	{.name = "refcount_bits",
	 .type = OPT_UINT,
	 .help = "Width of a reference count entry in bits"},
	{.name = NULL},
};

/* What the image is to be. */
struct target {
	unsigned version, order;
	uint64_t size;
	bool lazy, data_raw;
	const char *data_file; /* borrowed; NULL: as it is */
};

/* ---- what the options ask for ---- */

static int parse_encryption(const struct opts *opts, struct err *err)
{
	for (const struct opt *o = qcow2_amend_opts; o->name; o++)
		if (o->refused && opts_get(opts, o->name))
			return err_set(err, EINVAL,
				       "Can't amend encryption options - encryption not present");
	return 0;
}

static int parse_version(const struct opts *opts, struct target *t, struct err *err)
{
	static const char *const compats[] = {"0.10", "v2", "1.1", "v3", NULL};
	int compat = t->version < 3 ? 0 : 2;

	if (opts_enum(opts, "compat", compats, &compat, NULL) < 0)
		return err_set(err, EINVAL, "Unknown compatibility level %s",
			       opts_get(opts, "compat"));
	t->version = compat < 2 ? 2 : 3;
	return 0;
}

static int parse_data_file(const struct qcow2 *q, const struct opts *opts, struct target *t,
			   struct err *err)
{
	bool raw = q->h.autoclear & AUTOCLEAR_RAW_DATA, was = raw;
	int r;

	t->data_file = opts_get(opts, "data_file");
	if (t->data_file && !(q->h.incompat & INCOMPAT_DATA_FILE))
		return err_set(err, EINVAL,
			       "data-file can only be set for images that use an external data "
			       "file");
	r = opts_bool(opts, "data_file_raw", &raw, err);
	if (r == 0 && raw && !was)
		return err_set(err, EINVAL, "data-file-raw cannot be set on existing images");
	t->data_raw = raw;
	return r;
}

static int parse_width(const struct opts *opts, struct target *t, struct err *err)
{
	uint64_t bits = UINT64_C(1) << t->order;
	int r = opts_uint(opts, "refcount_bits", &bits, err);

	if (r < 0)
		return r;
	if (!is_pow2(bits) || bits > 64)
		return err_set(err, EINVAL,
			       "Refcount width must be a power of two and may not exceed 64 bits");
	t->order = log2_u64(bits);
	return 0;
}

static int parse(const struct qcow2 *q, const struct opts *opts, struct target *t, struct err *err)
{
	int r = parse_encryption(opts, err);

	*t = (struct target){
		.version = q->h.version,
		.order = q->h.refcount_order,
		.size = q->h.size,
		.lazy = q->h.compat & COMPAT_LAZY_REFCOUNTS,
	};
	if (r == 0)
		r = opts_size(opts, "size", &t->size, err);
	if (r == 0 && !t->size) /* the peer's "not given" */
		t->size = q->h.size;
	if (r == 0)
		r = parse_version(opts, t, err);
	if (r == 0)
		r = parse_data_file(q, opts, t, err);
	if (r == 0)
		r = opts_bool(opts, "lazy_refcounts", &t->lazy, err);
	return r < 0 ? r : parse_width(opts, t, err);
}

/* ---- whether it can be ---- */

static bool same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static int check_rules(struct qcow2 *q, const struct opts *opts, const struct target *t,
		       struct err *err)
{
	const char *backing = opts_get(opts, "backing_file");
	const char *backing_fmt = opts_get(opts, "backing_fmt");

	if (t->version < 3 && t->order != 4 && t->order != q->h.refcount_order)
		return err_set(err, EINVAL,
			       "Refcount widths other than 16 bits require compatibility level 1.1 "
			       "or above (use compat=1.1 or greater)");
	if ((backing || backing_fmt) && (!same_text(backing, q->h.backing_name) ||
					 !same_text(backing_fmt, q->h.backing_format)))
		return err_set(err, EINVAL,
			       "Cannot amend the backing file\n"
			       "You can use 'img rebase' instead.");
	if (t->lazy && t->version < 3 && opts_get(opts, "lazy_refcounts"))
		return err_set(err, EINVAL,
			       "Lazy refcounts only supported with compatibility level 1.1 and "
			       "above (use compat=1.1 or greater)");
	return 0;
}

static int check_size(struct qcow2 *q, const struct target *t, unsigned flags, struct err *err)
{
	unsigned version = t->version > q->h.version ? t->version : q->h.version;

	if (t->size == q->h.size)
		return 0;
	if (t->size < q->h.size && !(flags & AMEND_SHRINK))
		return err_set(err, EINVAL,
			       "Use the --shrink option to perform a shrink operation.");
	return qcow2_may_resize(q, t->size, version, PREALLOC_OFF, err);
}

static int check(struct qcow2 *q, const struct opts *opts, const struct target *t, unsigned flags,
		 struct job *job, struct err *err)
{
	int r = check_rules(q, opts, t, err);

	if (r == 0)
		r = check_size(q, t, flags, err);
	if (r == 0 && t->version < q->h.version)
		r = amend_may_downgrade(q, t->size, t->order, err);
	if (r == 0 && t->order < q->h.refcount_order)
		r = amend_refcounts_fit(q, t->order, job, err);
	return r;
}

/* ---- the changes ---- */

static int set_lazy(struct qcow2 *q, bool lazy, struct err *err)
{
	uint64_t old = q->h.compat;
	int r = qcow2_settle(&q->img, err); /* refcounts are right before nobody mends them */

	if (r < 0)
		return r;
	q->h.compat = lazy ? old | COMPAT_LAZY_REFCOUNTS : old & ~COMPAT_LAZY_REFCOUNTS;
	r = header_update(q->img.file, &q->h, err);
	if (r < 0)
		q->h.compat = old;
	return r;
}

static int set_data_file(struct qcow2 *q, const struct target *t, struct err *err)
{
	bool raw = q->h.autoclear & AUTOCLEAR_RAW_DATA;
	char *old = q->h.data_file, *new = NULL;
	int r;

	if ((!t->data_file || same_text(*t->data_file ? t->data_file : NULL, old)) &&
	    raw == t->data_raw)
		return 0;
	if (t->data_file && *t->data_file) {
		new = strdup(t->data_file);
		if (!new)
			return err_nomem(err, strlen(t->data_file), "the header");
	}
	if (t->data_file)
		q->h.data_file = new;
	if (!t->data_raw)
		q->h.autoclear &= ~AUTOCLEAR_RAW_DATA;
	r = qcow2_replace_header(q, err);
	if (r < 0) {
		q->h.data_file = old;
		q->h.autoclear |= raw ? AUTOCLEAR_RAW_DATA : 0;
		free(new);
		return r;
	}
	if (t->data_file)
		free(old);
	return 0;
}

static void plan_progress(const struct qcow2 *q, const struct target *t, struct job *job)
{
	uint64_t total = 0;

	if (t->order != q->h.refcount_order) /* fits, survey, write */
		total += (t->order < q->h.refcount_order ? 3 : 2) * amend_refcount_work(q);
	if (t->version < q->h.version)
		total += amend_downgrade_work(q);
	job_total(job, total);
}

static int change(struct qcow2 *q, const struct target *t, struct job *job, struct err *err)
{
	bool downgrade = t->version < q->h.version;
	bool lazy = q->h.compat & COMPAT_LAZY_REFCOUNTS;
	int r = 0;

	if (t->version > q->h.version)
		r = amend_upgrade(q, err);
	if (r == 0 && t->order != q->h.refcount_order)
		r = amend_refcount_width(q, t->order, job, err);
	if (r == 0)
		r = set_data_file(q, t, err);
	if (r == 0 && t->lazy != lazy)
		r = set_lazy(q, t->lazy, err);
	if (r == 0 && t->size != q->h.size)
		r = qcow2_resize(&q->img, t->size, PREALLOC_OFF, err);
	if (r == 0 && downgrade)
		r = amend_downgrade(q, job, err);
	return r;
}

int qcow2_amend(struct img *img, const struct opts *opts, unsigned flags, struct job *job,
		struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct target t;
	int r = parse(q, opts, &t, err);

	if (r == 0 && q->unreadable)
		r = err_set(err, ENOTSUP, "%s: %s", img->io.name, q->unreadable_why);
	if (r == 0)
		r = qcow2_load_refcounts(q, err);
	if (r == 0) /* what was written before: refcounts that are parked are too high */
		r = qcow2_quiesce(q, err);
	plan_progress(q, &t, job);
	if (r == 0)
		r = check(q, opts, &t, flags, job, err);
	if (r < 0)
		return r;
	r = q->writing ? 0 : qcow2_begin_write(q, err);
	if (r == 0)
		r = change(q, &t, job, err);
	if (r == 0)
		r = qcow2_settle(img, err);
	if (r < 0 && r != -ECANCELED && r != -EFBIG)
		img_note_failure(img, r);
	return r;
}
