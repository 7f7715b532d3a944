/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How libblkid reads. To recognise what is on a volume it asks for some forty small pieces near
 * the beginning and the end, with two system calls for each, and a system call is dear in the cage.
 * So our copy of the library is linked with these functions in place of the C library's: they
 * read both ends of the volume at once and answer out of memory.
 *
 * What was read stays while nothing is written and no other disk is looked at: the partition table
 * and what is on the whole disk are found in the same bytes.
 *
 * The library has no argument to hang this on: here is the only state of the agent that is global.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "probe.h"

/* The second of the four labels of ZFS ends at 512 KiB; the last two lie in the last 768. */
#define HEAD  (544 * KiB)
#define TAIL  (768 * KiB)
#define STEP  (16 * KiB) /* what is elsewhere: superblocks at 1, 2 and 4 MiB, for example */
#define STEPS 4u

ssize_t probe_read(int fd, void *buf, size_t n);
off_t probe_lseek(int fd, off_t off, int whence);
int probe_fadvise(int fd, off_t off, off_t len, int advice);
int probe_fstat(int fd, struct stat *st);

struct piece {
	size_t room;
	unsigned char *buf; /* in memory */
	uint64_t start;     /* where on the disk */
	size_t len;         /* bytes that are there; 0: nothing was read */
};

enum { HEAD_PIECE, TAIL_PIECE, STEP_PIECE, N_PIECES = STEP_PIECE + STEPS };

static struct piece pieces[N_PIECES] = {{.room = HEAD}, {.room = TAIL}, {.room = STEP},
					{.room = STEP}, {.room = STEP}, {.room = STEP}};
static unsigned next_step;
/* Not an array: the zeros of a program are in small pages, of which each touch costs. */
static unsigned char *memory;
static uint64_t generation;
static struct {
	int fd;
	uint64_t start, end, at;
} window;

static int make_room(struct err *err)
{
	size_t at = 0;

	if (memory)
		return 0;
	memory = malloc(HEAD + TAIL + STEPS * STEP);
	if (!memory)
		return err_nomem(err, HEAD + TAIL + STEPS * STEP, "signatures");
	for (size_t i = 0; i < N_PIECES; i++) {
		pieces[i].buf = memory + at;
		at += pieces[i].room;
	}
	return 0;
}

void probe_io_free(void)
{
	free(memory);
	memory = NULL;
	window.fd = -1;
}

int probe_io_window(int fd, uint64_t start, uint64_t size, struct err *err)
{
	bool same = memory && window.fd == fd && generation == volume_generation();

	window.fd = fd;
	window.start = window.at = start;
	window.end = start + size;
	generation = volume_generation();
	for (size_t i = 0; i < N_PIECES && !same; i++)
		pieces[i].len = 0;
	return make_room(err);
}

static struct piece *fill(struct piece *p, uint64_t start)
{
	ssize_t n = pread(window.fd, p->buf, p->room, (off_t)start);

	p->start = start;
	p->len = n > 0 ? (size_t)n : 0;
	return n >= 0 ? p : NULL;
}

/* The piece that holds [at, at+n), read if need be; NULL: none can. */
static struct piece *piece_of(uint64_t at, size_t n)
{
	uint64_t tail = window.end - min_u64(window.end - window.start, TAIL);

	for (size_t i = 0; i < N_PIECES; i++)
		if (at >= pieces[i].start && at + n <= pieces[i].start + pieces[i].len)
			return &pieces[i];
	if (at >= window.start && at + n <= window.start + HEAD &&
	    (!pieces[HEAD_PIECE].len || pieces[HEAD_PIECE].start != window.start))
		return fill(&pieces[HEAD_PIECE], window.start);
	if (at >= tail && at + n <= window.end &&
	    (!pieces[TAIL_PIECE].len || pieces[TAIL_PIECE].start != tail))
		return fill(&pieces[TAIL_PIECE], tail);
	if (n > STEP / 2)
		return NULL;
	return fill(&pieces[STEP_PIECE + next_step++ % STEPS], at);
}

ssize_t probe_read(int fd, void *buf, size_t n)
{
	struct piece *p = fd == window.fd ? piece_of(window.at, n) : NULL;
	ssize_t got;

	if (p) {
		uint64_t skip = window.at - p->start;

		got = (ssize_t)min_u64(n, p->len - min_u64(skip, p->len));
		memcpy(buf, p->buf + skip, (size_t)got);
	} else {
		got = pread(fd, buf, n, (off_t)window.at);
	}
	if (got > 0)
		window.at += (uint64_t)got;
	return got;
}

off_t probe_lseek(int fd, off_t off, int whence)
{
	if (fd != window.fd || whence != SEEK_SET || off < 0) {
		errno = EINVAL;
		return -1;
	}
	window.at = (uint64_t)off;
	return off;
}

int probe_fadvise(int fd, off_t off, off_t len, int advice)
{
	(void)fd;
	(void)off;
	(void)len;
	(void)advice;
	return 0;
}

/* What the library wants to know: that it is no device, for which it has other ways. */
int probe_fstat(int fd, struct stat *st)
{
	if (fd != window.fd)
		return fstat(fd, st);
	*st = (struct stat){.st_mode = S_IFREG | 0400, .st_size = (off_t)window.end};
	return 0;
}
