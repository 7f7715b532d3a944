// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Guest data in an external file (img.data). QEMU docs/interop/qcow2, "External data file name".
 *
 * Each byte has one place there, so nothing is allocated and nothing counted. What is left of the
 * crash order: data is durable before an entry says that it is there (BARRIER_DATA, turn.c), and a
 * range is punched only when the disk has forgotten that it held data. With the raw flag the file
 * by itself has to read as the disk does, at any instant: so zeros are made there, and the entries,
 * which say that all is data, stay as they are.
 */
#include "formats/qcow2/qcow2.h"

#include <errno.h>
#include <inttypes.h>

#include "io/file.h"

/* How much is zeroed with the tables locked, where the file system has no fast way. */
#define ZERO_PIECE (32 * MiB)

int qcow2_data_check(struct qcow2 *q, uint64_t host, uint64_t guest, uint64_t at, struct err *err)
{
	if (host == guest)
		return 0;
	return io_corrupt(q->img.file, err, at,
			  "L2 entry puts guest offset %" PRIu64 " at offset %" PRIu64
			  " of the external data file",
			  guest, host);
}

bool qcow2_data_fresh(const struct qcow2 *q, uint64_t off)
{
	return (q->img.data->caps & IO_GROWS) && !q->stale_tail && off >= io_size(q->img.data);
}

void qcow2_data_freed(struct qcow2 *q, uint64_t off, uint64_t len)
{
	/* Where the raw flag is set it is zeros already. */
	if (!qcow2_keeps_raw(q))
		qcow2_punch_later(q, off, len);
}

int qcow2_data_zero(struct qcow2 *q, uint64_t off, uint64_t *len, unsigned flags, struct err *err)
{
	struct io *data = q->img.data;
	uint64_t size = io_size(data);
	int r = 0;

	if (!qcow2_keeps_raw(q))
		return 0;
	*len = min_u64(*len, max_u64(ZERO_PIECE, q->cluster));
	/* Behind its end it reads as zeros already. */
	if (off < size)
		r = io_zero(data, off, min_u64(*len, size - off), flags, err);
	/* A backing file, which there should not be, must be hidden all the same. */
	return r < 0 || q->img.backing_name ? r : 1;
}

int qcow2_data_resize(struct qcow2 *q, uint64_t size, struct err *err)
{
	struct io *data = q->img.data;

	if (data->caps & IO_GROWS)
		return io_resize(data, size, err);
	if (size <= io_size(data))
		return 0;
	return err_set(err, ENOSPC,
		       "%s: the disk needs %" PRIu64 " bytes, the data file has %" PRIu64,
		       data->name, size, io_size(data));
}
