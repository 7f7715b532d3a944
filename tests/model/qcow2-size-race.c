// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Readers and writers while the disk changes its size: by resize, and by going back to a snapshot of
 * another size. A request whose range is gone is refused; nothing else happens to it.
 *
 * threads
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk.h"
#include "rng.h"
#include "tell.h"

#define SMALL   (64 * KiB)
#define LARGE   (4 * MiB)
#define THREADS 3
#define MOST    8192

struct task {
	struct img *img;
	unsigned id;
	atomic_bool *stop;
	uint64_t done, refused;
	pthread_t thread;
};

static int one(struct task *t, struct rng *r, unsigned char *buf, struct err *err)
{
	uint64_t len = rng_range(r, 1, MOST), off = rng_below(r, LARGE - len);
	struct io *io = &t->img->io;
	struct extent x;

	switch (rng_below(r, 5)) {
	case 0:
		return io_pwrite(io, buf, len, off, err);
	case 1:
		return io_zero(io, off, len, IO_ZERO_UNMAP, err);
	case 2:
		return io_discard(io, off, len, err);
	case 3:
		return io_map(io, off, len, &x, err);
	default:
		return io_pread(io, buf, len, off, err);
	}
}

static void *work(void *arg)
{
	struct task *t = arg;
	struct rng r = {t->id};
	unsigned char buf[MOST] = {1};

	while (!atomic_load(t->stop)) {
		struct err e = {0};
		int code = one(t, &r, buf, &e);

		if (code < 0 &&
		    ((code != -EINVAL && code != -ENOSPC) || !strstr(e.msg, "past the end")))
			die("%d: %s", code, e.msg);
		t->done += code == 0;
		t->refused += code < 0;
	}
	return NULL;
}

static void change_sizes(struct img *img)
{
	unsigned rounds = SANITIZED ? 100 : 500, index;
	struct err e = {0};

	for (unsigned i = 0; i < rounds; i++) {
		must(img_resize(img, SMALL, PREALLOC_OFF, &e), &e);
		must(img_resize(img, LARGE, PREALLOC_OFF, &e), &e);
		must(img_snapshot_find(img, "small", &index, &e), &e);
		must(img_snapshot_apply(img, index, &e), &e);
		must(img_resize(img, LARGE, PREALLOC_OFF, &e), &e);
	}
}

int main(void)
{
	struct io *file = disk_new("race.qcow2");
	struct task task[THREADS];
	uint64_t done = 0, refused = 0;
	struct check_result res;
	struct err e = {0};
	atomic_bool stop = false;
	struct img *img;

	/* Small clusters: the L1 table grows and shrinks with the disk. */
	disk_create(file, "qcow2", SMALL, "cluster_size=512", NULL, NULL);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	must(img_snapshot_create(img, "small", NULL, &e), &e);
	for (unsigned i = 0; i < THREADS; i++) {
		task[i] = (struct task){.img = img, .id = i, .stop = &stop};
		expect(!pthread_create(&task[i].thread, NULL, work, &task[i]));
	}
	change_sizes(img);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(task[i].thread, NULL);
		done += task[i].done;
		refused += task[i].refused;
	}
	must(img_check(img, 0, &res, NULL, NULL, &e), &e);
	expect(!res.corruptions && !res.leaks && !res.check_errors);
	io_close(&img->io);
	io_close(file);
	printf("%" PRIu64 " requests done, %" PRIu64 " refused\n", done, refused);
	return !done;
}
