// SPDX-License-Identifier: LGPL-2.1-or-later
/* The public API: operations that make an image smaller, in place. */
#include "api/api.h"
#include "ops/compact.h"
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
