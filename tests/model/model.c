// SPDX-License-Identifier: GPL-2.0-or-later
/* See model.h. */
#include "model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "formats/qcow2/check.h"
#include "io/window.h"
#include "peer.h"
#include "tell.h"

/* ---- what to test ---- */

static uint64_t sectors(struct rng *r, uint64_t least, uint64_t most)
{
	return rng_range(r, least / 512, most / 512) * 512;
}

static void choose_backing(struct model_config *c, struct rng *r)
{
	static const char *const kinds[] = {NULL, NULL, NULL, "raw", "raw", "qcow2"};

	c->backing = kinds[rng_below(r, ARRAY_LEN(kinds))];
	if (!c->backing)
		return;
	if (rng_percent(r, 30))
		c->backing_size = c->size;
	else
		c->backing_size = sectors(r, 512, c->size + c->size / 2);
}

void model_config_random(struct model_config *c, uint64_t seed)
{
	static const unsigned bits[] = {9, 9, 12, 12, 16, 10, 14};
	static const char *const containers[] = {"", " in-device", " in-image"};
	struct rng r = {seed * 7919 + 1};

	*c = (struct model_config){.seed = seed};
	c->version = rng_percent(&r, 25) ? 2 : 3;
	c->cluster_bits = bits[rng_below(&r, ARRAY_LEN(bits))];
	c->refcount_bits = c->version == 2 ? 16 : 1u << rng_below(&r, 7);
	c->lazy = c->version == 3 && rng_percent(&r, 30);
	c->coded = rng_percent(&r, 35);
	c->zstd = c->version == 3 && rng_percent(&r, 50);
	c->prealloc = !c->coded && rng_percent(&r, 10);
	/* Enough for a few L2 tables and refcount blocks. */
	c->size = sectors(&r, 1024,
			  c->cluster_bits == 9   ? 1 * MiB
			  : c->cluster_bits < 14 ? 5 * MiB
						 : 12 * MiB);
	choose_backing(c, &r);
	c->extended = c->version == 3 && c->cluster_bits >= 14 && rng_percent(&r, 60);
	if (c->backing)
		c->prealloc = c->prealloc && c->extended;
	c->container = rng_percent(&r, 12) ? IN_DEVICE : rng_percent(&r, 8) ? IN_IMAGE : IN_FILE;
	c->by_peer = rng_percent(&r, 25) && !c->prealloc;
	c->bitmaps = c->version == 3 && rng_percent(&r, 35);
	snprintf(c->opts, sizeof(c->opts), "cluster_size=%u,compat=%s,refcount_bits=%u%s%s%s%s",
		 1u << c->cluster_bits, c->version == 2 ? "0.10" : "1.1", c->refcount_bits,
		 c->lazy ? ",lazy_refcounts=on" : "", c->zstd ? ",compression_type=zstd" : "",
		 c->prealloc ? ",preallocation=metadata" : "",
		 c->extended ? ",extended_l2=on" : "");
	snprintf(c->text, sizeof(c->text),
		 "SEED=%" PRIu64 " %s size=%" PRIu64 "%s%s%s%s backing=%s/%" PRIu64, seed, c->opts,
		 c->size, c->coded ? " compressed" : "", c->by_peer ? " by-peer" : "",
		 c->bitmaps ? " bitmaps" : "", containers[c->container],
		 c->backing ? c->backing : "none", c->backing_size);
}

/* ---- making it ---- */

/* Runs of random bytes, of text that compresses, and of zeros. */
static void fill_disk(struct rng *r, struct model_disk *d, uint64_t size)
{
	d->size = size;
	d->bytes = calloc(1, size ? size : 1);
	expect(d->bytes);
	for (uint64_t at = 0, n; at < size; at += n) {
		n = min_u64(size - at, sectors(r, 512, 300 * KiB));
		switch (rng_below(r, 4)) {
		case 0:
			rng_fill(r, d->bytes + at, n);
			break;
		case 1:
			for (uint64_t i = 0; i < n; i++)
				d->bytes[at + i] = (unsigned char)(i / 7 + at / 512);
			break;
		default:
			break;
		}
	}
}

static enum fill initial_kind(void *ctx, uint64_t cluster)
{
	struct model *m = ctx;
	uint64_t off = cluster << m->c.cluster_bits;
	uint64_t n = min_u64(m->disk.size - off, UINT64_C(1) << m->c.cluster_bits);
	uint64_t below = off >= m->backing.size ? 0 : min_u64(n, m->backing.size - off);

	if (rng_percent(&m->rng, 40)) { /* not here: what the layer below has */
		memset(m->disk.bytes + off, 0, n);
		if (below)
			memcpy(m->disk.bytes + off, m->backing.bytes + off, below);
		return FILL_NONE;
	}
	if (bytes_are_zero(m->disk.bytes + off, n))
		return FILL_ZERO;
	return m->c.coded && rng_percent(&m->rng, 60) ? FILL_CODED : FILL_DATA;
}

static enum fill all_data(void *ctx, uint64_t cluster)
{
	(void)ctx;
	return cluster % 3 ? FILL_DATA : FILL_CODED;
}

static void make_backing(struct model *m)
{
	struct fill_args args = {.opts = "cluster_size=4096", .kind = all_data};

	if (!m->c.backing)
		return;
	fill_disk(&m->rng, &m->backing, m->c.backing_size);
	args.size = m->backing.size;
	args.data = m->backing.bytes;
	if (!strcmp(m->c.backing, "raw")) {
		m->backing_file = disk_from_bytes(m->backing.bytes, m->backing.size, "base.img");
		return;
	}
	m->backing_file = disk_new("base.img");
	disk_fill(m->backing_file, "qcow2", &args);
}

static void open_image(struct model *m)
{
	struct img *backing = NULL;

	if (m->c.backing)
		backing = disk_open(m->backing_file, m->c.backing, 0, NULL);
	m->img = disk_open(m->file, "qcow2", IMG_RDWR, backing);
}

/* As qemu-img convert makes it. The top layer holds everything that differs from the backing. */
static void make_by_peer(struct model *m)
{
	fill_disk(&m->rng, &m->disk, m->c.size);
	bytes_save(m->disk.bytes, m->disk.size, "model.raw");
	if (m->c.backing)
		disk_save(m->backing_file, "base.img");
	if (peer("convert %s -f raw -O qcow2 -o %s %s%s model.raw test.qcow2",
		 m->c.coded ? "-c" : "", m->c.opts, m->c.backing ? "-B base.img -F " : "",
		 m->c.backing ? m->c.backing : ""))
		die("qemu-img convert: %s", peer_log());
	m->file = disk_load("test.qcow2");
}

static void make_by_us(struct model *m)
{
	const struct model_config *c = &m->c;
	struct fill_args args = {.kind = initial_kind, .ctx = m};

	m->file = disk_new("test.qcow2");
	if (c->prealloc && !c->backing) {
		m->disk = (struct model_disk){calloc(1, c->size), c->size};
		disk_create(m->file, "qcow2", c->size, c->opts, NULL, NULL);
		return;
	}
	fill_disk(&m->rng, &m->disk, c->size);
	args.size = c->size;
	args.opts = c->opts;
	args.data = m->disk.bytes;
	args.backing = c->backing ? "base.img" : NULL;
	args.backing_format = c->backing;
	disk_fill(m->file, "qcow2", &args);
}

/* Puts the bytes of the file where something else was before. */
static void move_to_device(struct model *m, struct io *device)
{
	uint64_t len, part = 64 * KiB, room = io_size(device) - 2 * part;
	unsigned char *p = disk_bytes(m->file, &len);
	struct err e = {0};

	expect(len <= room);
	memset(m->buf, 0xee, MODEL_MAX_LEN);
	for (uint64_t at = 0; at < io_size(device); at += MODEL_MAX_LEN)
		must(io_pwrite(device, m->buf, min_u64(MODEL_MAX_LEN, io_size(device) - at), at,
			       &e),
		     &e);
	must(io_pwrite(device, p, len, part, &e), &e);
	free(p);
	io_close(m->file);
	m->outer = device;
	must(window_open(device, part, room, false, &m->file, &e), &e);
}

static void choose_container(struct model *m)
{
	uint64_t size = round_up(m->c.size * 12, 64 * KiB) + 4 * MiB;
	struct io *io;
	struct err e = {0};
	struct img *img;

	if (m->c.container == IN_FILE)
		return;
	io = disk_new("outside");
	if (m->c.container == IN_DEVICE) {
		must(io_resize(io, size, &e), &e);
		move_to_device(m, io);
		return;
	}
	disk_create(io, "qcow2", size, "cluster_size=4096", NULL, NULL);
	must(img_open_io(io, "qcow2", IMG_RDWR, NULL, &img, &e), &e);
	move_to_device(m, &img->io);
}

void model_open(struct model *m, const struct model_config *c)
{
	*m = (struct model){.c = *c, .rng = {c->seed}};
	context("%s", c->text);
	m->buf = malloc(MODEL_MAX_LEN);
	expect(m->buf);
	make_backing(m);
	if (c->by_peer && peer_here())
		make_by_peer(m);
	else
		make_by_us(m);
	choose_container(m);
	open_image(m);
}

void model_close(struct model *m)
{
	struct err e = {0};

	must(img_settle(m->img, &e), &e);
	io_close(&m->img->io);
	io_close(m->file);
	io_close(m->outer);
	io_close(m->backing_file);
	for (unsigned i = 0; i < m->n_snap; i++)
		free(m->snap[i].bytes);
	model_bitmaps_free(m);
	free(m->disk.bytes);
	free(m->backing.bytes);
	free(m->buf);
}

void model_reopen(struct model *m, bool clean)
{
	struct err e = {0};

	if (clean) {
		must(img_settle(m->img, &e), &e);
		io_close(&m->img->io);
		model_judge(m, m->c.refcount_bits == 1);
	} else {
		must(io_flush(&m->img->io, &e), &e);
		atomic_store(&m->img->broken, EIO); /* or close would settle */
		io_close(&m->img->io);
	}
	open_image(m);
}

/* ---- comparing ---- */

static void compare_bytes(struct model *m, const char *how, const unsigned char *got, uint64_t off,
			  uint64_t len)
{
	const unsigned char *want = m->disk.bytes + off;

	if (!memcmp(got, want, len))
		return;
	for (uint64_t i = 0; i < len; i++)
		if (got[i] != want[i])
			die("after %" PRIu64 " operations: %s: byte %" PRIu64 " is %02x, not %02x",
			    m->ops, how, off + i, got[i], want[i]);
}

/* What an extent says is what the disk holds. */
static void compare_extent(struct model *m, const struct extent *x)
{
	struct err e = {0};

	expect(x->len >= 1 && x->len <= MODEL_MAX_LEN);
	switch (x->kind) {
	case EXT_ABSENT:
		expect(x->host == EXT_NO_HOST && !x->io);
		/* fall through */
	case EXT_ZERO:
		if (!bytes_are_zero(m->disk.bytes + x->off, x->len))
			die("map: zeros at %" PRIu64 " are none", x->off);
		break;
	case EXT_DATA:
		expect(x->io);
		must(io_pread_tail(x->io, m->buf, x->len, x->host, &e), &e);
		compare_bytes(m, "through map", m->buf, x->off, x->len);
		break;
	case EXT_CODED:
		break;
	}
}

void model_compare(struct model *m)
{
	struct err e = {0};
	struct extent x;

	expect(io_size(&m->img->io) == m->disk.size);
	for (uint64_t at = 0, n; at < m->disk.size; at += n) {
		n = min_u64(m->disk.size - at, MODEL_MAX_LEN);
		must(io_pread(&m->img->io, m->buf, n, at, &e), &e);
		compare_bytes(m, "read", m->buf, at, n);
	}
	for (uint64_t at = 0; at < m->disk.size; at += x.len) {
		must(io_map(&m->img->io, at, min_u64(m->disk.size - at, MODEL_MAX_LEN), &x, &e),
		     &e);
		expect(x.off == at);
		compare_extent(m, &x);
	}
}

static void show(void *ctx, const char *text)
{
	(void)ctx;
	fprintf(stderr, "  check: %s\n", text);
}

void model_judge(struct model *m, bool leaks_allowed)
{
	static const struct check_sink sink = {.line = show};
	struct check_result res;
	struct header h = {0};
	struct oracle o = {0};
	struct err e = {0};
	uint64_t len;
	unsigned char *p = disk_bytes(m->file, &len);

	if (!oracle_judge(&o, p, len) || o.dirty || o.corrupt_bit || o.errors || o.copied_wrong ||
	    o.copied_missing || (o.leaks && !leaks_allowed))
		die("after %" PRIu64 " operations: %u errors, %u leaks, COPIED: %u wrong, %u "
		    "missing%s%s: %s",
		    m->ops, o.errors, o.leaks, o.copied_wrong, o.copied_missing,
		    o.dirty ? ", dirty" : "", o.corrupt_bit ? ", corrupt" : "", o.text);
	must(header_read(m->file, &h, &e), &e);
	must(qcow2_check_file(m->file, &h, 0, &res, &sink, NULL, &e), &e);
	if (res.corruptions || res.check_errors || res.leaks != o.leaks)
		die("after %" PRIu64 " operations: check: %" PRIu64 " corruptions, %" PRIu64
		    " leaks (%u by the judge)",
		    m->ops, res.corruptions, res.leaks, o.leaks);
	model_bitmaps_judge(m, &o);
	header_free(&h);
	oracle_free(&o);
	free(p);
}

static void ask_compare(struct model *m, const struct model_disk *d, const char *snapshot)
{
	bytes_save(d->bytes, d->size, "model.raw");
	if (snapshot) {
		if (peer("convert -l snapshot.name=%s -O raw test.qcow2 snap.raw", snapshot))
			die("qemu-img convert -l %s: %s", snapshot, peer_log());
		if (peer("compare -f raw -F raw snap.raw model.raw"))
			die("qemu-img compare of snapshot %s: %s", snapshot, peer_log());
	} else if (peer("compare -f qcow2 -F raw test.qcow2 model.raw")) {
		die("after %" PRIu64 " operations: qemu-img compare: %s", m->ops, peer_log());
	}
}

void model_ask_peer(struct model *m)
{
	int code;

	disk_save(m->file, "test.qcow2");
	if (m->c.backing)
		disk_save(m->backing_file, "base.img");
	code = peer("check -f qcow2 test.qcow2");
	if (code)
		die("after %" PRIu64 " operations: qemu-img check: %d: %s", m->ops, code,
		    peer_log());
	ask_compare(m, &m->disk, NULL);
	if (m->n_snap) {
		unsigned i = (unsigned)rng_below(&m->rng, m->n_snap);

		/* The peer takes the size of the active disk for the snapshot's. */
		if (m->snap[i].size == m->disk.size)
			ask_compare(m, &m->snap[i], m->snap_name[i]);
	}
}
