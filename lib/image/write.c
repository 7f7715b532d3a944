// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Writing an image: the allocation protocol.
 *
 *	meta locked	place: where do these bytes go?  in place, or new space; mark the units busy
 *	unlocked	new space: fill what the caller does not overwrite; write the data
 *	meta locked	link: make it visible; clear busy
 *
 * Busy units keep a second writer of the same unit away until the first has linked. Nothing is
 * visible before it is written, nothing is linked on disk before a turn made the data durable.
 * Writers of different units run side by side. See img.h for the locks.
 */
#include "image/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "io/file.h"

/* One pass through the protocol covers at most this much, so that turns get their chance. */
#define MAX_PIECE (8 * MiB)

int img_check_broken(struct img *img, struct err *err)
{
	int code = atomic_load_explicit(&img->broken, memory_order_relaxed);

	return code ? err_sys(err, code, "%s: an earlier write-back failed, writes are refused",
			      img->io.name)
		    : 0;
}

void img_note_failure(struct img *img, int r)
{
	/* After these the write-back has stopped in order and can be tried again. */
	if (r < 0 && r != -ENOSPC && r != -EDQUOT && r != -ENOMEM)
		atomic_store(&img->broken, -r);
}

/* ---- the three steps ---- */

/*
 * Waits until the units of [off, off+len) have no other writer; may shorten len to what is free.
 * Under meta.
 */
static uint64_t wait_idle(struct img *img, uint64_t off, uint64_t len)
{
	for (;;) {
		uint64_t start = round_down(off, img->unit);
		uint64_t end = round_up(off + len, img->unit);
		const struct range *b = ranges_overlap(&img->busy, start, end - start);

		if (!b)
			return len;
		if (b->off > off)
			return b->off - off; /* starts behind our first unit: take what is before */
		pthread_cond_wait(&img->idle, &img->meta);
	}
}

/* Adds the units of a placement to the busy list, or removes them. */
static void change_busy(struct img *img, const struct placement *p,
			int (*change)(struct ranges *, uint64_t, uint64_t))
{
	uint64_t start = round_down(p->start, img->unit);

	change(&img->busy, start, round_up(p->start + p->span, img->unit) - start);
}

/* coded: bytes of the unit in coded form, 0: plain. */
static int place(struct img *img, uint64_t off, uint64_t len, size_t coded, struct placement *p,
		 struct err *err)
{
	LOCK_SCOPE(&img->meta);
	int r;

	len = wait_idle(img, off, len);
	/* Room for every writer's range to stand alone, so that finish cannot fail on memory. */
	if (ranges_reserve(&img->busy, img->n_busy + 2) < 0)
		return err_nomem(err, sizeof(struct range), "the list of busy clusters");
	r = coded ? img->fmt->place_coded(img, off, coded, p, err)
		  : img->fmt->place(img, off, len, p, err);
	if (r == 0 && p->fresh) {
		change_busy(img, p, ranges_add);
		img->n_busy++;
	}
	return r;
}

static int finish(struct img *img, const struct placement *p, int written, struct err *err)
{
	LOCK_SCOPE(&img->meta);
	int r = written;

	if (r == 0)
		r = img->fmt->link(img, p, err);
	if (r < 0)
		img->fmt->unplace(img, p);
	change_busy(img, p, ranges_remove);
	img->n_busy--;
	pthread_cond_broadcast(&img->idle);
	return r;
}

/* ---- filling new space ---- */

/* Whether [off, off+len) reads as zeros without looking at data. */
static bool known_zero(struct img *img, uint64_t off, uint64_t len)
{
	struct extent ext;

	return img_map_inner(img, off, len, &ext, NULL) == 0 && ext.len == len &&
	       (ext.kind == EXT_ZERO || ext.kind == EXT_ABSENT);
}

/* Old content of [off, off+len), zeros past the end of the disk. */
static int read_old(struct img *img, void *buf, uint64_t off, uint64_t len, struct err *err)
{
	uint64_t size = io_size(&img->io), have = off >= size ? 0 : min_u64(len, size - off);

	memset((char *)buf + have, 0, len - have);
	return img_read_inner(img, buf, have, off, err);
}

/*
 * Writes [from, to) of new space, which the caller's bytes cover in part: these, and around them
 * what was there before.
 */
static int write_composed(struct img *img, const struct placement *p, uint64_t from, uint64_t to,
			  const unsigned char *data, struct err *err)
{
	uint64_t len = to - from;
	uint64_t first = min_u64(max_u64(p->off, from), to);
	uint64_t end = max_u64(min_u64(p->off + p->len, to), first);
	CLEANUP_FREE unsigned char *buf = malloc(to - from);
	int r;

	if (!buf)
		return err_nomem(err, to - from, "a cluster");
	r = read_old(img, buf, from, first - from, err);
	if (r == 0)
		r = read_old(img, buf + (end - from), end, to - end, err);
	if (r < 0)
		return r;
	if (end > first)
		memcpy(buf + (first - from), data + (first - p->off), end - first);
	/* A data file of its own ends where the disk does. */
	if (img->data != img->file)
		len = min_u64(len, io_size(&img->io) - from);
	return io_pwrite(img->data, buf, len, p->host + (from - p->start), err);
}

/* Data for new space: a composed head, whole grains, a composed tail. */
static int write_fresh(struct img *img, const struct placement *p, const unsigned char *data,
		       struct err *err)
{
	uint64_t end = p->off + p->len, stop = p->start + p->span, size = io_size(&img->io);
	uint64_t body = p->start, tail = stop;
	int r = 0;

	if (p->zeroed && (p->off == p->start || known_zero(img, p->start, p->off - p->start)) &&
	    (end >= size || end == stop || known_zero(img, end, min_u64(stop, size) - end)))
		return io_pwrite(img->data, data, p->len, p->host + (p->off - p->start), err);
	if (p->off > p->start)
		body = min_u64(stop, round_up(p->off, img->grain));
	if (end < stop)
		tail = max_u64(body, round_down(end, img->grain));
	if (body > p->start)
		r = write_composed(img, p, p->start, body, data, err);
	if (r == 0 && body < tail)
		r = io_pwrite(img->data, data + (body - p->off), tail - body,
			      p->host + (body - p->start), err);
	if (r == 0 && tail < stop)
		r = write_composed(img, p, tail, stop, data, err);
	return r;
}

/* ---- what is written ---- */

/* Bytes in memory, or of another file, or both. */
struct source {
	const unsigned char *data; /* NULL: not read yet */
	struct io *from;           /* NULL: no file */
	uint64_t at;               /* byte in from */
	void *room;                /* to read them to */
};

static int load(struct source *s, uint64_t len, struct err *err)
{
	if (s->data)
		return 0;
	s->data = s->room;
	return io_pread(s->from, s->room, len, s->at, err);
}

static struct source skip(struct source s, uint64_t n)
{
	if (s.data)
		s.data += n;
	s.at += n;
	return s;
}

/*
 * New space that is written whole shares the blocks of the other file. What the image has already
 * stays: somebody may count on it that these blocks are its own.
 */
static int share(struct img *img, const struct placement *p, const struct source *s,
		 struct err *err)
{
	if (!s->from || p->reuse || p->off != p->start || p->len != p->span ||
	    img->data != img->file)
		return -ENOTSUP;
	return io_clone(img->data, p->host, s->from, s->at, p->len, err);
}

static int fill_fresh(struct img *img, const struct placement *p, struct source *s, struct err *err)
{
	int r = share(img, p, s, err);

	if (r != -ENOTSUP)
		return r;
	r = load(s, p->len, err);
	/* A data file of its own has its space where the disk has it. */
	if (r == 0 && !p->reuse && img->data == img->file)
		r = file_reserve(img->data, p->host + (p->off - p->start), p->len, err);
	return r < 0 ? r : write_fresh(img, p, s->data, err);
}

/* One pass: writes a prefix of the data, *did bytes. Under the gate. */
static int write_piece(struct img *img, struct source s, uint64_t len, uint64_t off, uint64_t *did,
		       struct err *err)
{
	struct placement p;
	int r = place(img, off, len, 0, &p, err);

	if (r < 0)
		return r;
	*did = p.len;
	if (p.fresh) {
		r = fill_fresh(img, &p, &s, err);
		return finish(img, &p, r, err);
	}
	r = load(&s, p.len, err);
	return r < 0 ? r : io_pwrite(img->data, s.data, p.len, p.host, err);
}

static int write_pieces(struct img *img, struct source s, uint64_t len, uint64_t off,
			struct err *err)
{
	while (len) {
		uint64_t did = 0;
		int r = write_piece(img, s, min_u64(len, MAX_PIECE), off, &did, err);

		if (r < 0)
			return r;
		s = skip(s, did);
		off += did;
		len -= did;
	}
	return 0;
}

int img_write_inner(struct img *img, const void *buf, size_t len, uint64_t off, struct err *err)
{
	return write_pieces(img, (struct source){.data = buf}, len, off, err);
}

/* ---- turns and the gate ---- */

int img_turn(struct img *img, struct err *err)
{
	int r;

	pthread_rwlock_wrlock(&img->gate);
	r = img_check_broken(img, err);
	if (r == 0) {
		r = img->fmt->turn(img, err);
		img_note_failure(img, r);
	}
	pthread_rwlock_unlock(&img->gate);
	return r;
}

static bool wants_turn(struct img *img)
{
	LOCK_SCOPE(&img->meta);

	return img->fmt->pressure && img->fmt->pressure(img);
}

/* Tells the format, which may have to note it, and may refuse. */
static int announce(struct img *img, uint64_t off, uint64_t len, struct err *err)
{
	LOCK_SCOPE(&img->meta);

	return img->fmt->changing(img, off, len, err);
}

/* Takes the gate shared for a change of the range; before that a turn when too much is dirty. */
static int enter_change(struct img *img, uint64_t off, uint64_t len, struct err *err)
{
	int r;

	/* What says how much is dirty is changed by a turn, without meta: look under the gate. */
	pthread_rwlock_rdlock(&img->gate);
	if (wants_turn(img)) {
		pthread_rwlock_unlock(&img->gate);
		r = img_turn(img, err);
		if (r < 0)
			return r;
		pthread_rwlock_rdlock(&img->gate);
	}
	r = img_check_broken(img, err);
	if (r == 0)
		r = img_check_inside(img, off, len, err);
	/* Under the gate, or a settle that is just ending would take this change for done. */
	if (r == 0 && !atomic_load_explicit(&img->unsettled, memory_order_relaxed))
		atomic_store(&img->unsettled, true);
	if (r == 0 && img->fmt->changing)
		r = announce(img, off, len, err);
	if (r < 0)
		pthread_rwlock_unlock(&img->gate);
	return r;
}

static int sync_if_asked(struct img *img, struct err *err)
{
	return img->open_flags & IMG_SYNC ? img_flush(&img->io, err) : 0;
}

/*
 * A raw image that was found by probing must not become another format by what its guest writes:
 * the next open would believe the new header, and the file names in it.
 */
static int vet_head(struct img *img, const void *buf, size_t len, uint64_t off, struct err *err)
{
	CLEANUP_FREE unsigned char *head = NULL;
	struct probe probe = {.head_len = PROBE_HEAD, .name = img->io.name};
	int r;

	head = malloc(PROBE_HEAD);
	if (!head)
		return err_nomem(err, PROBE_HEAD, "the first sectors");
	r = io_pread_tail(img->file, head, PROBE_HEAD, 0, err);
	if (r < 0)
		return r;
	memcpy(head + off, buf, min_u64(len, PROBE_HEAD - off));
	probe.head = head;
	probe.size = max_u64(io_size(&img->io), off + len);
	if (format_probe(&probe) == img->fmt && !format_foreign(&probe))
		return 0;
	return err_set(err, EPERM,
		       "%s: at offset %" PRIu64
		       ": refused to write the header of another image format; the image was "
		       "opened without a format and taken for raw (give the format explicitly)",
		       img->io.name, off);
}

/*
 * Under meta, against its rule, for these few sectors: two writes that make a header only together
 * must not be looked at side by side.
 */
static int write_head(struct img *img, const void *buf, size_t len, uint64_t off, struct err *err)
{
	LOCK_SCOPE(&img->meta);
	int r = vet_head(img, buf, len, off, err);

	return r < 0 ? r : io_pwrite(img->file, buf, len, off, err);
}

/* A write to an image whose format does not place its data: raw. */
static int write_through(struct img *img, const void *buf, size_t len, uint64_t off,
			 struct err *err)
{
	if (img->probed && off < PROBE_HEAD)
		return write_head(img, buf, len, off, err);
	return io_pwrite(img->file, buf, len, off, err);
}

/* Zeros may end a header that begins as data. */
static int zero_through(struct img *img, uint64_t off, uint64_t len, unsigned flags,
			struct err *err)
{
	uint64_t head = 0;
	int r = 0;

	if (img->probed && off < PROBE_HEAD) {
		head = min_u64(len, PROBE_HEAD - off);
		r = write_head(img, zero_buf, head, off, err);
	}
	return r < 0 || head == len ? r : io_zero(img->file, off + head, len - head, flags, err);
}

/* The file may end within the disk's last sector. */
static int discard_through(struct img *img, uint64_t off, uint64_t len, struct err *err)
{
	uint64_t size = io_size(img->file);

	return off < size ? io_discard(img->file, off, min_u64(len, size - off), err) : 0;
}

static int write_once(struct img *img, struct source s, size_t len, uint64_t off, struct err *err)
{
	int r = enter_change(img, off, len, err);

	if (r < 0)
		return r;
	if (img->fmt->place) {
		r = write_pieces(img, s, len, off, err);
	} else {
		r = load(&s, len, err);
		if (r == 0)
			r = write_through(img, s.data, len, off, err);
	}
	pthread_rwlock_unlock(&img->gate);
	return r;
}

static int write_source(struct img *img, struct source s, size_t len, uint64_t off, struct err *err)
{
	int r = 0;

	while (r == 0 && len) {
		size_t n = (size_t)min_u64(len, MAX_PIECE);

		r = write_once(img, s, n, off, err);
		/* What was freed since the last turn may be enough: once more after one. */
		if (r == -ENOSPC && img->fmt->turn && img_turn(img, NULL) == 0)
			r = write_once(img, s, n, off, err);
		s = skip(s, n);
		off += n;
		len -= n;
	}
	return r < 0 ? r : sync_if_asked(img, err);
}

/* ---- members of img_ops ---- */

int img_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	struct img *img = io_img(io);

	if ((img->open_flags & IMG_DETECT_ZEROES) && bytes_are_zero(buf, len))
		return img_zero(io, off, len,
				img->open_flags & IMG_DETECT_UNMAP ? IO_ZERO_UNMAP : 0, err);
	return write_source(img, (struct source){.data = buf}, len, off, err);
}

int img_write_from(struct img *img, const struct img_source *src, size_t len, uint64_t off,
		   struct err *err)
{
	if (img->io.caps & IO_RDONLY)
		return err_set(err, EROFS, "%s: opened read-only", img->io.name);
	return write_source(img,
			    (struct source){.data = src->loaded ? src->mem : NULL,
					    .from = src->io,
					    .at = src->at,
					    .room = src->mem},
			    len, off, err);
}

static int write_coded_once(struct img *img, const void *coded, size_t len, uint64_t off,
			    struct err *err)
{
	struct placement p;
	int r = enter_change(img, off, min_u64(img->unit, io_size(&img->io) - off), err);

	if (r < 0)
		return r;
	r = place(img, off, img->unit, len, &p, err);
	if (r == 0) {
		r = io_pwrite(img->file, coded, len, p.host, err);
		r = finish(img, &p, r, err);
	}
	pthread_rwlock_unlock(&img->gate);
	return r;
}

int img_write_coded(struct img *img, const void *coded, size_t len, uint64_t off, struct err *err)
{
	int r;

	if (img->io.caps & IO_RDONLY)
		return err_set(err, EROFS, "%s: opened read-only", img->io.name);
	if (!is_aligned(off, img->unit) || off >= io_size(&img->io))
		return err_set(err, EINVAL, "%s: no unit begins at offset %" PRIu64, img->io.name,
			       off);
	r = write_coded_once(img, coded, len, off, err);
	if (r == -ENOSPC && img_turn(img, NULL) == 0)
		r = write_coded_once(img, coded, len, off, err);
	return r < 0 ? r : sync_if_asked(img, err);
}

typedef int (*clear_fn)(struct img *, uint64_t, uint64_t, uint64_t *, unsigned, struct err *);

static int clear_zero(struct img *img, uint64_t off, uint64_t len, uint64_t *did, unsigned flags,
		      struct err *err)
{
	return img->fmt->zero(img, off, len, flags, did, err);
}

static int clear_drop(struct img *img, uint64_t off, uint64_t len, uint64_t *did, unsigned flags,
		      struct err *err)
{
	(void)flags;
	return img->fmt->drop(img, off, len, did, err);
}

static int clear_discard(struct img *img, uint64_t off, uint64_t len, uint64_t *did, unsigned flags,
			 struct err *err)
{
	(void)flags;
	return img->fmt->discard(img, off, len, did, err);
}

/* Whole units through the format, while no writer is in them. */
static int clear_units(struct img *img, clear_fn fn, uint64_t off, uint64_t len, unsigned flags,
		       uint64_t *did, struct err *err)
{
	LOCK_SCOPE(&img->meta);

	len = wait_idle(img, off, len);
	return fn(img, off, len, did, flags, err);
}

/* Zeros as data, where the format cannot do better; skips what reads as zeros already. */
static int zero_by_write(struct img *img, uint64_t off, uint64_t len, struct err *err)
{
	while (len) {
		uint64_t n = min_u64(len, ZERO_BUF_SIZE);
		int r = known_zero(img, off, n) ? 0 : img_write_inner(img, zero_buf, n, off, err);

		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

/* The end of what whole grains (or units) a range covers; the disk's end closes its unit. */
static uint64_t body_end(struct img *img, uint64_t end, uint64_t grain)
{
	return end >= io_size(&img->io) ? round_up(end, img->unit) : round_down(end, grain);
}

int img_zero_inner(struct img *img, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	uint64_t end = off + len, stop = body_end(img, end, img->grain);

	while (off < end) {
		uint64_t did = min_u64(end, round_up(off + 1, img->grain)) - off;
		int r;

		if (is_aligned(off, img->grain) && off < stop) {
			r = clear_units(img, clear_zero, off, stop - off, flags, &did, err);
			if (r == -ENOTSUP && (flags & IO_ZERO_FAST))
				return r;
			if (r == -ENOTSUP) {
				did = min_u64(end, round_up(off + 1, img->unit)) - off;
				r = zero_by_write(img, off, did, err);
			}
		} else {
			r = zero_by_write(img, off, did, err);
		}
		if (r < 0)
			return r;
		off += did;
	}
	return 0;
}

/* How much one hold of the gate clears: a turn must get its chance. Ends on a unit. */
static uint64_t clear_piece(struct img *img, uint64_t off, uint64_t end)
{
	uint64_t most = img->unit > 1 ? img->unit << 13 : 64 * GiB;

	return min_u64(end, round_down(off, img->unit) + most) - off;
}

/* What can be done for whole steps (units or grains) only, and is left undone for others. */
static int clear_whole(struct img *img, clear_fn fn, uint64_t step, uint64_t off, uint64_t end,
		       struct err *err)
{
	uint64_t stop = body_end(img, end, step);

	for (off = round_up(off, step); off < stop;) {
		uint64_t did = 0;
		int r = clear_units(img, fn, off, stop - off, 0, &did, err);

		if (r == -ENOTSUP && step < img->unit) /* a part of a coded unit */
			did = min_u64(stop, round_up(off + 1, img->unit)) - off;
		else if (r < 0)
			return r;
		off += did;
	}
	return 0;
}

enum clearing { CLEAR_ZERO, CLEAR_DISCARD, CLEAR_DROP };

static int clear_once(struct img *img, enum clearing what, uint64_t off, uint64_t len,
		      unsigned flags, struct err *err)
{
	int r = enter_change(img, off, len, err);

	if (r < 0)
		return r;
	if (what == CLEAR_ZERO)
		r = img->fmt->zero ? img_zero_inner(img, off, len, flags, err)
				   : zero_through(img, off, len, flags, err);
	else if (what == CLEAR_DROP)
		r = clear_whole(img, clear_drop, img->grain, off, off + len, err);
	else
		r = img->fmt->discard
			    ? clear_whole(img, clear_discard, img->unit, off, off + len, err)
			    : discard_through(img, off, len, err);
	pthread_rwlock_unlock(&img->gate);
	return r;
}

static int clear_range(struct img *img, enum clearing what, uint64_t off, uint64_t len,
		       unsigned flags, struct err *err)
{
	uint64_t end = off + len;
	int r = 0;

	while (r == 0 && off < end) {
		uint64_t n = clear_piece(img, off, end);

		r = clear_once(img, what, off, n, flags, err);
		/* As a write: zeros in a part of a cluster may need space. */
		if (r == -ENOSPC && img->fmt->turn && img_turn(img, NULL) == 0)
			r = clear_once(img, what, off, n, flags, err);
		off += n;
	}
	return r;
}

int img_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	struct img *img = io_img(io);
	int r;

	if (img->open_flags & IMG_NO_DISCARD)
		flags &= ~(unsigned)IO_ZERO_UNMAP;
	r = clear_range(img, CLEAR_ZERO, off, len, flags, err);
	return r < 0 ? r : sync_if_asked(img, err);
}

int img_discard(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	if (io_img(io)->open_flags & IMG_NO_DISCARD)
		return 0;
	return clear_range(io_img(io), CLEAR_DISCARD, off, len, 0, err);
}

int img_drop(struct img *img, uint64_t off, uint64_t len, struct err *err)
{
	if (!img->fmt->drop)
		return err_set(err, ENOTSUP, "%s: the format '%s' has no backing files",
			       img->io.name, img->fmt->name);
	if (img->io.caps & IO_RDONLY)
		return err_set(err, EROFS, "%s: opened read-only", img->io.name);
	return clear_range(img, CLEAR_DROP, off, len, 0, err);
}

int img_flush(struct io *io, struct err *err)
{
	struct img *img = io_img(io);
	int r;

	if (img->fmt->turn)
		return img_turn(img, err);
	r = img_check_broken(img, err);
	if (r < 0)
		return r;
	r = io_flush(img->file, err);
	/* For lack of space, too: a second try would not write what the first one lost. */
	if (r < 0)
		atomic_store(&img->broken, -r);
	return r;
}
