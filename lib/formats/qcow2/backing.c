// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Another backing file's name and format in the header of an image. QEMU docs/interop/qcow2, "Header",
 * "Backing file name".
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/qcow2.h"
#include "image/internal.h"

static void swap(char **a, char **b)
{
	char *t = *a;

	*a = *b;
	*b = t;
}

int qcow2_set_backing(struct img *img, const char *name, const char *format, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	CLEANUP_FREE char *new_name = NULL, *new_format = NULL;
	int r = 0;

	if (name && !format)
		return err_set(err, EINVAL, "backing format must be specified");
	if (name && qcow2_has_data_file(q) && (q->h.autoclear & AUTOCLEAR_RAW_DATA))
		return err_set(err, EINVAL,
			       "the data file of the image is raw, so that nothing "
			       "can lie below it");
	if (name && strlen(name) > QCOW2_MAX_BACKING_NAME)
		return err_set(err, EINVAL, "the name is longer than %d bytes",
			       QCOW2_MAX_BACKING_NAME);
	new_name = name ? strdup(name) : NULL;
	new_format = name ? strdup(format) : NULL;
	if (name && (!new_name || !new_format))
		return err_nomem(err, QCOW2_MAX_BACKING_NAME, "the backing file name");
	if (!q->writing)
		r = qcow2_begin_write(q, err);
	if (r == 0)
		r = qcow2_quiesce(q, err);
	if (r < 0)
		return r;
	swap(&q->h.backing_name, &new_name);
	swap(&q->h.backing_format, &new_format);
	r = qcow2_replace_header(q, err);
	if (r < 0) {
		swap(&q->h.backing_name, &new_name);
		swap(&q->h.backing_format, &new_format);
		img_note_failure(img, r); /* which of them is on disk is unknown */
	}
	return r;
}
