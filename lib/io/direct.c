// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * O_DIRECT: whole blocks at block offsets from aligned memory, as the kernel wants them.
 *
 * Requests are cut into runs of whole blocks, which go straight through when the memory is aligned
 * and by way of a bounce buffer when not, and partial blocks, which are read, changed and written
 * back under the `edge` mutex: two requests for different bytes of one block must not undo each
 * other. The last block of a file may be cut: it is written whole, which moves the end of the file,
 * and the file is cut back, with `extend` held exclusively (see file_impl.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "io/file_impl.h"

#define BOUNCE_MAX    ((size_t)MiB)
#define DEFAULT_BLOCK 4096u

/* A bounce buffer that is allocated when it is first needed. */
struct bounce {
	void *buf;
	size_t size;
};

static void bounce_free(struct bounce *b)
{
	free(b->buf);
}

#define CLEANUP_BOUNCE __attribute__((cleanup(bounce_free)))

/* The buffer, with room for a request of len bytes and its partial blocks, or for BOUNCE_MAX. NULL:
 * no memory. */
static char *bounce_get(struct file_io *f, struct bounce *b, size_t len, struct err *err)
{
	size_t align = max_u64(f->mem_align, sizeof(void *));
	void *buf;

	if (b->buf)
		return b->buf;
	b->size = (size_t)max_u64(min_u64(len + 2 * (size_t)f->block, BOUNCE_MAX), f->block);
	b->size = (size_t)round_down(b->size, f->block);
	if (posix_memalign(&buf, align, b->size) != 0) {
		err_nomem(err, b->size, "an aligned buffer");
		return NULL;
	}
	b->buf = buf;
	return b->buf;
}

/* The smallest block that a read of the file's start accepts. */
static uint32_t probe_block(int fd)
{
	CLEANUP_FREE void *buf = NULL;

	if (posix_memalign(&buf, DEFAULT_BLOCK, DEFAULT_BLOCK) != 0) {
		buf = NULL;
		return DEFAULT_BLOCK;
	}
	for (uint32_t block = 512; block < DEFAULT_BLOCK; block *= 2) {
		/* A read of an empty file says nothing: it is not checked. */
		if (pread(fd, buf, block, 0) > 0)
			return block;
	}
	return DEFAULT_BLOCK;
}

void direct_setup(struct file_io *f)
{
	struct statx stx = {0};
	bool known = false;

	f->mem_align = DEFAULT_BLOCK;
#ifdef STATX_DIOALIGN
	if (statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    (stx.stx_mask & STATX_DIOALIGN) && is_pow2(stx.stx_dio_offset_align)) {
		known = true;
		f->block = stx.stx_dio_offset_align;
		if (is_pow2(stx.stx_dio_mem_align))
			f->mem_align = stx.stx_dio_mem_align;
	}
#endif
	(void)stx;
	if (!known && !f->device)
		f->block = probe_block(f->fd);
	f->io.align = f->block;
}

static bool mem_aligned(const struct file_io *f, const void *p)
{
	return is_aligned((uintptr_t)p, f->mem_align);
}

/*
 * Reads `len` bytes, whole blocks, of which the first `need` must be there: the file may end within
 * the last block. 0, -errno or -FD_EOF.
 */
static int read_blocks(struct file_io *f, void *buf, size_t len, size_t need, uint64_t off)
{
	size_t got = 0;

	while (got < need) {
		ssize_t n = pread(f->fd, (char *)buf + got, len - got, (off_t)(off + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		got += (size_t)n;
		/* Nothing or part of a block: that was the end of the file. */
		if (got < need && (n == 0 || !is_aligned(got, f->block)))
			return -FD_EOF;
	}
	return 0;
}

/* Bytes to take in one go through the bounce buffer: up to where memory becomes usable. */
static size_t bounce_span(const struct file_io *f, const struct bounce *b, const char *p,
			  size_t len, uint64_t off)
{
	uint64_t start = round_down(off, f->block), next = start + f->block;
	uint64_t end = round_up(off + len, f->block);

	if (off != start && mem_aligned(f, p + (next - off)))
		end = next;
	return (size_t)min_u64(end - start, b->size);
}

int direct_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	struct file_io *f = file_of(io);
	CLEANUP_BOUNCE struct bounce b = {0};
	char *p = buf;

	while (len) {
		uint64_t start = round_down(off, f->block);
		size_t skip = (size_t)(off - start), n;
		int r;

		if (!skip && len >= f->block && mem_aligned(f, p)) {
			n = (size_t)round_down(len, f->block);
			r = read_blocks(f, p, n, n, off);
		} else {
			char *block = bounce_get(f, &b, len, err);
			size_t span;

			if (!block)
				return -ENOMEM;
			span = bounce_span(f, &b, p, len, off);
			n = (size_t)min_u64(span - skip, len);
			r = read_blocks(f, block, span, skip + n, start);
			if (r == 0)
				memcpy(p, block + skip, n);
		}
		if (r < 0)
			return file_error(f, -r, "read", n, off, err);
		p += n;
		off += n;
		len -= n;
	}
	return 0;
}

/* Whole blocks from aligned memory. 0 or -errno. */
static int write_blocks(struct file_io *f, const void *buf, size_t len, uint64_t off)
{
	bool extends = off + len > io_size(&f->io);
	int r;

	if (extends)
		pthread_rwlock_rdlock(&f->extend);
	r = fd_pwrite(f->fd, buf, len, off);
	if (extends)
		pthread_rwlock_unlock(&f->extend);
	return r;
}

/*
 * Changes bytes of the one block at `start`, with room for the block in `block`. The caller holds
 * edge, and extend exclusively when `tail`: then the block may reach past the end of the file.
 */
static int change_block(struct file_io *f, char *block, const char *p, size_t len, uint64_t off,
			bool tail)
{
	uint64_t start = round_down(off, f->block), size = start + f->block, want;
	size_t have;
	struct stat st;
	int r;

	if (tail) {
		if (fstat(f->fd, &st) < 0)
			return -errno;
		size = (uint64_t)st.st_size;
	}
	have = size > start ? (size_t)min_u64(size - start, f->block) : 0;
	r = read_blocks(f, block, f->block, have, start);
	if (r < 0)
		return r;
	memset(block + have, 0, f->block - have);
	memcpy(block + (off - start), p, len);
	r = fd_pwrite(f->fd, block, f->block, start);
	want = max_u64(size, off + len);
	if (r == 0 && tail && start + f->block > want && ftruncate(f->fd, (off_t)want) < 0)
		r = -errno;
	return r;
}

static int write_partial_block(struct file_io *f, char *block, const char *p, size_t len,
			       uint64_t off)
{
	bool tail = !f->device && round_down(off, f->block) + f->block > io_size(&f->io);
	LOCK_SCOPE(&f->edge);
	int r;

	if (tail)
		pthread_rwlock_wrlock(&f->extend);
	r = change_block(f, block, p, len, off, tail);
	if (tail)
		pthread_rwlock_unlock(&f->extend);
	return r;
}

int direct_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	struct file_io *f = file_of(io);
	CLEANUP_BOUNCE struct bounce b = {0};
	const char *p = buf;

	while (len) {
		size_t skip = (size_t)(off - round_down(off, f->block)), n;
		bool whole = !skip && len >= f->block;
		int r;

		if (whole && mem_aligned(f, p)) {
			n = (size_t)round_down(len, f->block);
			r = write_blocks(f, p, n, off);
		} else {
			char *block = bounce_get(f, &b, len, err);

			if (!block)
				return -ENOMEM;
			if (whole) {
				n = (size_t)min_u64(round_down(len, f->block), b.size);
				memcpy(block, p, n);
				r = write_blocks(f, block, n, off);
			} else {
				n = (size_t)min_u64(f->block - skip, len);
				r = write_partial_block(f, block, p, n, off);
			}
		}
		if (r < 0)
			return file_error(f, -r, "write", n, off, err);
		p += n;
		off += n;
		len -= n;
	}
	return 0;
}
