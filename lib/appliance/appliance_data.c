/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bytes of one file, both ways; see appliance.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "appliance/appliance.h"
#include "appliance/talk.h"
#include "base/bytes.h"
#include "base/cleanup.h"

/* ---- out of the file ---- */

int appliance_read(struct appliance *a, const char *path, uint64_t off, uint64_t len,
		   appliance_bytes_fn *fn, void *arg, struct err *err)
{
	struct wire_out *w = talk_args(a);
	struct talk_frame f;
	struct wire_in in;
	int r;

	put_text(w, path);
	put_u64(w, off);
	put_u64(w, len);
	r = talk_call(a, OP_READ, err);
	while (r == 0 && (r = talk_reply(a, &f, err)) > 0) {
		if (!f.len || f.len > len)
			return talk_broken(a, "more bytes than were asked for", err);
		len -= f.len;
		r = fn(arg, f.payload, f.len, err);
		if (r < 0)
			return talk_stop(a, r);
		job_advance(a->job, f.len);
	}
	if (r < 0)
		return r;
	in = wire_in(f.payload, f.len);
	get_u64(&in);
	return talk_done(a, &in, err);
}

static int bytes_to_fd(void *arg, const void *bytes, size_t n, struct err *err)
{
	const char *at = bytes;

	while (n) {
		ssize_t did = write(*(int *)arg, at, n);

		if (did < 0 && errno == EINTR)
			continue;
		if (did < 0)
			return err_sys(err, errno, "writing what was read");
		at += did;
		n -= (size_t)did;
	}
	return 0;
}

int appliance_read_fd(struct appliance *a, const char *path, uint64_t off, uint64_t len, int fd,
		      struct err *err)
{
	return appliance_read(a, path, off, len, bytes_to_fd, &fd, err);
}

struct whole {
	char *buf;
	size_t n, cap, max;
};

static int bytes_to_whole(void *arg, const void *bytes, size_t n, struct err *err)
{
	struct whole *w = arg;

	if (n > w->max - w->n)
		return err_set(err, EFBIG, "the file is longer than %zu bytes", w->max);
	if (w->n + n >= w->cap) {
		size_t cap = max_u64(2 * w->cap, w->n + n + 1);
		char *buf = realloc(w->buf, cap);

		if (!buf)
			return err_nomem(err, cap, "a file");
		w->buf = buf;
		w->cap = cap;
	}
	memcpy(w->buf + w->n, bytes, n);
	w->n += n;
	return 0;
}

int appliance_read_file(struct appliance *a, const char *path, size_t max, char **buf, size_t *n,
			struct err *err)
{
	struct whole w = {.max = max};
	int r = bytes_to_whole(&w, "", 0, err); /* so that there is room for the NUL */

	if (r == 0)
		r = appliance_read(a, path, 0, UINT64_MAX, bytes_to_whole, &w, err);
	if (r < 0) {
		free(w.buf);
		return r;
	}
	w.buf[w.n] = 0;
	*buf = w.buf;
	*n = w.n;
	return 0;
}

/* ---- into the file ---- */

int appliance_write(struct appliance *a, const char *path, const struct appliance_write *how,
		    appliance_source_fn *fn, void *arg, struct err *err)
{
	struct wire_out *w = talk_args(a);
	int r;

	put_text(w, path);
	put_u64(w, how->off);
	put_u32(w, how->flags);
	put_u32(w, how->mode);
	put_u32(w, how->uid);
	put_u32(w, how->gid);
	r = talk_call(a, OP_WRITE, err);
	talk_args(a);
	while (r == 0) {
		size_t n = 0;

		r = talk_data(a, 1, &w, err);
		if (r < 0)
			return r;
		r = fn(arg, w->buf + w->len, w->cap - w->len, &n, err);
		if (r < 0)
			return talk_stop(a, r);
		if (!n)
			return talk_end(a, err);
		w->len += n;
		job_advance(a->job, n);
	}
	return r;
}

static int bytes_from_fd(void *arg, void *buf, size_t size, size_t *n, struct err *err)
{
	ssize_t did;

	do
		did = read(*(int *)arg, buf, size);
	while (did < 0 && errno == EINTR);
	if (did < 0)
		return err_sys(err, errno, "reading what is to be written");
	*n = (size_t)did;
	return 0;
}

int appliance_write_fd(struct appliance *a, const char *path, const struct appliance_write *how,
		       int fd, struct err *err)
{
	return appliance_write(a, path, how, bytes_from_fd, &fd, err);
}

struct piece {
	const char *p;
	size_t left;
};

static int bytes_from_piece(void *arg, void *buf, size_t size, size_t *n, struct err *err)
{
	struct piece *p = arg;

	(void)err;
	*n = min_u64(size, p->left);
	if (*n)
		memcpy(buf, p->p, *n);
	p->p += *n;
	p->left -= *n;
	return 0;
}

int appliance_write_buf(struct appliance *a, const char *path, const struct appliance_write *how,
			const void *buf, size_t n, struct err *err)
{
	struct piece p = {buf, n};

	return appliance_write(a, path, how, bytes_from_piece, &p, err);
}
