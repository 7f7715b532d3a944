// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * More dirty metadata than the driver keeps: it must write back by itself in the middle of writes,
 * with other threads running. One sector into each L2 table of a wide disk.
 *
 * threads
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "disk.h"
#include "formats/qcow2/check.h"
#include "formats/qcow2/qcow2.h"
#include "rng.h"
#include "tell.h"

#define THREADS  4
#define TABLES   20000
#define COVERS   (64 * 512) /* bytes of one L2 table with clusters of 512 */
#define PER_TASK (TABLES / THREADS)

struct task {
	struct img *img;
	unsigned id;
	pthread_t thread;
};

static uint64_t place_of(unsigned table)
{
	return (uint64_t)table * COVERS + rng_mix(table) % 64 * 512;
}

static void pattern(unsigned table, unsigned char *sector)
{
	struct rng r = {table};

	rng_fill(&r, sector, 512);
}

static void *write_sectors(void *arg)
{
	struct task *t = arg;
	unsigned char sector[512];
	struct err e = {0};

	for (unsigned i = 0; i < PER_TASK; i++) {
		unsigned table = i * THREADS + t->id;

		pattern(table, sector);
		must(io_pwrite(&t->img->io, sector, 512, place_of(table), &e), &e);
	}
	return NULL;
}

static void read_back(struct img *img)
{
	unsigned char want[512], got[512];
	struct err e = {0};

	for (unsigned table = 0; table < TABLES; table++) {
		pattern(table, want);
		must(io_pread(&img->io, got, 512, place_of(table), &e), &e);
		if (memcmp(want, got, 512))
			die("table %u reads wrong", table);
	}
}

static void check(struct io *file)
{
	struct check_result res;
	struct header h = {0};
	struct err e = {0};

	must(header_read(file, &h, &e), &e);
	must(qcow2_check_file(file, &h, 0, &res, NULL, NULL, &e), &e);
	if (res.corruptions || res.leaks || res.check_errors)
		die("check: %" PRIu64 " corruptions, %" PRIu64 " leaks", res.corruptions,
		    res.leaks);
	header_free(&h);
}

/* All tables together are more than twice what may be dirty. */
static size_t dirty_bytes(struct img *img)
{
	const struct mcache *c = &qcow2_of(img)->cache;

	return (c->n_dirty[CLASS_L2] + c->n_dirty[CLASS_REFCOUNT]) * c->slice;
}

static void run(const char *opts)
{
	struct io *mem = disk_new("wide.qcow2");
	struct task task[THREADS];
	struct err e = {0};
	struct img *img;

	context("%s", opts);
	disk_create(mem, "qcow2", (uint64_t)TABLES * COVERS, opts, NULL, NULL);
	img = disk_open(mem, "qcow2", IMG_RDWR, NULL);
	for (unsigned i = 0; i < THREADS; i++) {
		task[i] = (struct task){.img = img, .id = i};
		expect(!pthread_create(&task[i].thread, NULL, write_sectors, &task[i]));
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(task[i].thread, NULL);
	expect(dirty_bytes(img) <= 4 * MiB + THREADS * 4 * KiB);
	read_back(img);
	must(img_settle(img, &e), &e);
	io_close(&img->io);
	check(mem);
	img = disk_open(mem, "qcow2", 0, NULL);
	read_back(img);
	io_close(&img->io);
	io_close(mem);
}

int main(void)
{
	run("cluster_size=512");
	run("cluster_size=512,lazy_refcounts=on");
	run("cluster_size=512,compat=0.10");
	puts("written back in time");
	return 0;
}
