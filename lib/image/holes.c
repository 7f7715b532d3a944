// SPDX-License-Identifier: LGPL-2.1-or-later
/* Does an image have space set aside in its file that the file system has not? */
#include <errno.h>

#include "base/bytes.h"
#include "image/internal.h"
#include "io/absent.h"
#include "io/file.h"

/*
 * The rule is the peer's (qcow2_detect_metadata_preallocation), so that `map` describes every image
 * as the peer does: some more units in use than the file's storage could hold.
 */
int img_has_file_holes(struct img *img, bool *holes, struct err *err)
{
	uint64_t stored, limit, used;
	struct file_stat st;
	int r;

	*holes = false;
	/* A data file that was not opened cannot be asked. */
	if (!img->fmt->count_used || !io_is_file(img->file) || absent_is(img->data))
		return 0;
	r = file_stat(img->file, &st, err);
	if (r < 0 || st.block_device)
		return r;
	stored = st.allocated / img->unit;
	limit = max_u64(stored * 10 / 9, stored + 2);
	pthread_rwlock_rdlock(&img->gate);
	pthread_mutex_lock(&img->meta);
	r = img->fmt->count_used(img, limit, &used, err);
	pthread_mutex_unlock(&img->meta);
	pthread_rwlock_unlock(&img->gate);
	*holes = r == 0 && used >= limit;
	return r;
}
