// SPDX-License-Identifier: GPL-2.0-or-later
/* An image with internal snapshots; see layers.h. */
#include "layers.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"
#include "tell.h"

static struct err e;

static void fill(struct img *img, uint64_t off, uint64_t len, uint64_t seed)
{
	struct rng rng = {.state = seed};
	unsigned char *p = malloc(len);

	expect(p);
	rng_fill(&rng, p, len);
	/* Something to compress, and zeros that are stored. */
	memset(p + len / 3, (int)seed, len / 4);
	memset(p + len / 2, 0, len / 5);
	must(io_pwrite(&img->io, p, len, off, &e), &e);
	free(p);
}

/* state: bytes of a machine's state, 0: none. */
static void take(struct img *img, const char *id, const char *name, uint64_t state)
{
	uint64_t size = io_size(&img->io), at = img->fmt->snapshots->state_at(img, size);
	struct snapshot s = {
		.id = (char *)(uintptr_t)id,
		.vm_state_size = state,
		.disk_size = size,
		.vm_clock_ns = state * 1000003,
		.icount = state ? state + 5 : UINT64_MAX,
		.date_sec = 1700000000,
		.date_nsec = 123456789,
	};

	if (state) {
		must(img_snapshot_reach(img, at + state, &e), &e);
		fill(img, at, state, state);
	}
	must(img_snapshot_create(img, name, &s, &e), &e);
	must(img_snapshot_reach(img, size, &e), &e);
}

void layers_make(struct io *file, const char *opts)
{
	struct img *img;

	disk_create(file, "qcow2", LAYERS_SIZE, opts, NULL, NULL);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	fill(img, 0, 120000, 1);
	take(img, "7", "plain", 0);
	fill(img, 40000, 9000, 2);
	take(img, "3", "running", 70001);
	must(io_zero(&img->io, 8192, 20000, IO_ZERO_UNMAP, &e), &e);
	must(img_resize(img, LAYERS_SIZE + 100352, PREALLOC_OFF, &e), &e);
	fill(img, LAYERS_SIZE - 5000, 60000, 3);
	take(img, "12", "larger, running", 8192);
	must(img_resize(img, 65536 + 512, PREALLOC_OFF, &e), &e);
	take(img, "13", "", 1);
	must(img_resize(img, LAYERS_SIZE, PREALLOC_OFF, &e), &e);
	take(img, "7", "smaller before", 0);
	fill(img, 200000, 30000, 4);
	must(img_settle(img, &e), &e);
	io_close(&img->io);
}

/* ---- comparing ---- */

static void same_bytes(struct img *a, uint64_t from_a, struct img *b, uint64_t from_b, uint64_t len)
{
	unsigned char *x = malloc(len + 1), *y = malloc(len + 1);

	expect(x && y);
	must(io_pread(&a->io, x, len, from_a, &e), &e);
	must(io_pread(&b->io, y, len, from_b, &e), &e);
	for (uint64_t i = 0; i < len; i++)
		if (x[i] != y[i])
			die("byte %" PRIu64 " of %" PRIu64 " is %02x, not %02x", i, len, y[i],
			    x[i]);
	free(x);
	free(y);
}

static void same_meta(const struct snapshot *a, const struct snapshot *b)
{
	expect(!strcmp(a->id, b->id) && !strcmp(a->name, b->name));
	expect(a->vm_state_size == b->vm_state_size && a->disk_size == b->disk_size);
	expect(a->vm_clock_ns == b->vm_clock_ns && a->icount == b->icount);
	expect(a->date_sec == b->date_sec && a->date_nsec == b->date_nsec);
}

static struct img *view(struct img *img, unsigned index)
{
	struct img *v;

	must(img_open_io(img->file, img->fmt->name, IMG_BORROWED, img->backing, &v, &e), &e);
	must(img_snapshot_view(v, index, &e), &e);
	return v;
}

static void same_snapshot(struct img *a, struct img *b, unsigned index)
{
	unsigned n;
	const struct snapshot *s = &img_snapshots(a, &n)[index];
	struct img *x = view(a, index), *y = view(b, index);
	uint64_t from_x = x->fmt->snapshots->state_at(x, s->disk_size);
	uint64_t from_y = y->fmt->snapshots->state_at(y, s->disk_size);

	same_meta(s, &img_snapshots(b, &n)[index]);
	expect(io_size(&x->io) == s->disk_size && io_size(&y->io) == s->disk_size);
	same_bytes(x, 0, y, 0, s->disk_size);
	must(img_snapshot_reach(x, from_x + s->vm_state_size, &e), &e);
	must(img_snapshot_reach(y, from_y + s->vm_state_size, &e), &e);
	same_bytes(x, from_x, y, from_y, s->vm_state_size);
	io_close(&x->io);
	io_close(&y->io);
}

void layers_same(struct img *a, struct img *b)
{
	unsigned n, m;

	img_snapshots(a, &n);
	img_snapshots(b, &m);
	if (n != m)
		die("%u snapshots of %u", m, n);
	for (unsigned i = 0; i < n; i++)
		same_snapshot(a, b, i);
	expect(io_size(&a->io) == io_size(&b->io));
	same_bytes(a, 0, b, 0, io_size(&a->io));
}
