// SPDX-License-Identifier: LGPL-2.1-or-later
/* The public API: operations that make an image smaller, in place. */
#include "api/api.h"
#include "ops/compact.h"
#include "ops/dedup.h"
#include "ops/sparsify.h"

int imgkit_compact(struct imgkit_image *image, struct imgkit_compact_result *result,
		   size_t result_size, struct imgkit_job *job, struct imgkit_err *err)
{
	struct imgkit_compact_result answer;
	struct compact_result res;
	struct err e = {0};
	int r = compact_run(image->img, &res, api_job(job), &e), room;

	answer = (struct imgkit_compact_result){
		.size_before = res.size_before,
		.size_after = res.size_after,
		.moved = res.moved,
		.left = res.left,
	};
	room = api_result(result, result_size, &answer, sizeof(answer), err);
	return r ? api_fail(err, r, &e) : room;
}

int imgkit_sparsify(struct imgkit_image *image, unsigned workers,
		    struct imgkit_sparsify_result *result, size_t result_size,
		    struct imgkit_job *job, struct imgkit_err *err)
{
	struct imgkit_sparsify_result answer;
	struct sparsify_result res;
	struct err e = {0};
	int r = sparsify_run(image->img, workers, &res, api_job(job), &e), room;

	answer = (struct imgkit_sparsify_result){
		.scanned = res.scanned,
		.freed = res.freed,
		.kept = res.kept,
	};
	room = api_result(result, result_size, &answer, sizeof(answer), err);
	return r ? api_fail(err, r, &e) : room;
}

/* ---- dedup: the caller's hash function as the library wants it ---- */

struct foreign_hash {
	struct checksum_hash hash; /* first */
	const struct imgkit_dedup_opts *opts;
};

static void *foreign_open(const struct checksum_hash *hash)
{
	const struct foreign_hash *f = (const struct foreign_hash *)(const void *)hash;

	return (void *)(uintptr_t)f->opts;
}

static void foreign_close(void *ctx)
{
	(void)ctx;
}

static bool foreign_digest(void *ctx, unsigned char tag, const void *data, size_t len,
			   unsigned char *out)
{
	const struct imgkit_dedup_opts *o = ctx;

	(void)tag; /* always the same */
	return o->hash(o->ctx, data, len, out) == 0;
}

int imgkit_dedup(struct imgkit_image *image, const struct imgkit_dedup_opts *opts,
		 struct imgkit_dedup_result *result, size_t result_size, struct imgkit_job *job,
		 struct imgkit_err *err)
{
	struct foreign_hash hash = {.hash = {16, foreign_open, foreign_close, foreign_digest}};
	struct imgkit_dedup_result answer;
	struct dedup_result res;
	struct imgkit_dedup_opts o;
	struct dedup_args args = {.hash = &hash.hash};
	struct err e = {0};
	int r, room;

	r = api_opts(&o, sizeof(o), opts, err);
	if (r)
		return r;
	if (!o.hash || (o.flags & ~(unsigned)IMGKIT_DEDUP_WITHIN_DISK))
		return api_invalid(err, "no hash function, or an unknown flag");
	hash.opts = &o;
	args.within = o.flags & IMGKIT_DEDUP_WITHIN_DISK;
	r = dedup_run(image->img, &args, &res, api_job(job), &e);
	answer = (struct imgkit_dedup_result){
		.scanned = res.scanned,
		.freed = res.freed,
		.size_before = res.size_before,
		.size_after = res.size_after,
	};
	room = api_result(result, result_size, &answer, sizeof(answer), err);
	return r ? api_fail(err, r, &e) : room;
}
