// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Filesystems and partition tables that somebody made to do harm, through the whole agent: most in
 * this process, under the sanitizers, some in real cells of both kinds. Whatever the disk says, each
 * call succeeds or ends with an error that has a text; the agent is there afterwards; and it takes
 * no more than CPU_SECONDS. In a cell a fault or a forbidden system call is a failure, too.
 *
 * SEED=n runs one damaged disk of each kind; SOAK_SECONDS=n new ones for so long.
 *
 * timeout: 300
 * link: -l:libext2fs.a -l:libcom_err.a build/agent/libblkid.a -l:libuuid.a -Wl,--wrap=malloc -Wl,--wrap=calloc -Wl,--wrap=realloc -Wl,--wrap=free -Wl,--wrap=fdatasync
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "appliance/protocol.h"
#include "base/bytes.h"
#include "explore.h"
#include "extdisk.h"
#include "inside.h"
#include "tables.h"
#include "tell.h"
#include "victim.h"

#define CPU_SECONDS 20

/* ---- limits ---- */

/* What a cell has; the sanitizers' own malloc would give terabytes. */
#define MEMORY (UINT64_C(64) << 20)

/*
 * Buffers of frames and caches, thousands of times: fresh memory and the sanitizer's notes about it
 * would be most of this test. Other tests look at their edges.
 */
#define POOLED_MIN (32u << 10)
#define SMALL      (80u << 10)
#define LARGE      (33u << 20)

static struct pool {
	unsigned char *slots;
	size_t size;
	unsigned n;
	atomic_bool taken[512];
} pools[] = {{.size = SMALL, .n = 512}, {.size = LARGE, .n = 12}};

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
int __wrap_fdatasync(int fd);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void __wrap_free(void *p);

static struct pool *pool_of(const void *p)
{
	for (size_t i = 0; i < ARRAY_LEN(pools); i++)
		if (pools[i].slots &&
		    (uintptr_t)p - (uintptr_t)pools[i].slots < pools[i].n * pools[i].size)
			return &pools[i];
	return NULL;
}

static void *from_pool(size_t n)
{
	struct pool *pool = n <= SMALL ? &pools[0] : &pools[1];

	for (unsigned i = 0; n >= POOLED_MIN && n <= pool->size && pool->slots && i < pool->n; i++)
		if (!atomic_exchange(&pool->taken[i], true))
			return pool->slots + i * pool->size;
	return NULL;
}

static void make_pools(void)
{
	for (size_t i = 0; i < ARRAY_LEN(pools); i++)
		pools[i].slots = mmap(NULL, pools[i].n * pools[i].size, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

void *__wrap_malloc(size_t n)
{
	void *p = from_pool(n);

	if (p)
		return p;
	return n > MEMORY ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	void *p;

	if (size && n > MEMORY / size)
		return NULL;
	p = from_pool(n * size);
	return p ? memset(p, 0, n * size) : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	struct pool *pool = pool_of(p);
	void *new;

	if (!pool)
		return n > MEMORY ? NULL : __real_realloc(p, n);
	new = n > MEMORY ? NULL : __real_malloc(n);
	if (new) {
		memcpy(new, p, min_u64(n, pool->size));
		__wrap_free(p);
	}
	return new;
}

void __wrap_free(void *p)
{
	struct pool *pool = pool_of(p);

	if (pool)
		atomic_store(&pool->taken[((uintptr_t)p - (uintptr_t)pool->slots) / pool->size],
			     false);
	else
		__real_free(p);
}

/* The disks of this test need not survive it. */
int __wrap_fdatasync(int fd)
{
	(void)fd;
	return 0;
}

static void too_long(int sig)
{
	(void)sig;
	die("more than %d seconds of CPU time", CPU_SECONDS);
}

static timer_t watch;

static void watch_start(void)
{
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGXCPU};

	signal(SIGXCPU, too_long);
	if (timer_create(CLOCK_PROCESS_CPUTIME_ID, &ev, &watch) < 0)
		die("timer_create");
}

static void watch_again(void)
{
	const struct itimerspec in = {.it_value.tv_sec = CPU_SECONDS};

	timer_settime(watch, 0, &in, NULL);
}

/* ---- a disk ---- */

static void explore_inside(void)
{
	struct appliance *a;

	watch_again();
	a = attach_inside(false);
	explore_read(a);
	explore_end(a);
	a = attach_inside(true);
	explore_write(a);
	explore_end(a);
}

static void explore_caged(const char *path, enum cell_isolation isolation)
{
	struct img_open_args disk = {.path = path, .format = "raw"};
	struct appliance_config config = {
		.disks = &disk,
		.n_disks = 1,
		.isolation = isolation,
		.cpu_limit = CPU_SECONDS * UINT64_C(1000000000),
	};
	struct appliance *a;
	struct err err = {0};

	must(appliance_launch(&config, &a, &err), &err);
	explore_read(a);
	explore_end(a);
	disk.flags = IMG_RDWR;
	must(appliance_launch(&config, &a, &err), &err);
	explore_write(a);
	explore_end(a);
}

static bool have_vm(const char *path)
{
	struct img_open_args disk = {.path = path, .format = "raw"};
	const struct appliance_config config = {.disks = &disk, .n_disks = 1, .isolation = CELL_VM};
	struct appliance *a;
	struct err err = {0};

	if (appliance_launch(&config, &a, &err) < 0)
		return false;
	explore_end(a);
	return true;
}

/* ---- filesystems ---- */

static const struct {
	const char *name, *options;
	bool dirty;
} kinds[] = {
	{"plain", "-t ext4 -J size=1 -O ^metadata_csum,^64bit", false},
	{"dirty", "-t ext4 -J size=1 -O ^metadata_csum,^64bit", true},
	{"inline", "-t ext4 -I 256 -O inline_data,^metadata_csum,64bit,^has_journal", false},
	{"summed", "-t ext4 -J size=1", false},
	{"ext2", "-t ext2", false},
	{"bigalloc", "-t ext4 -C 4096 -O bigalloc,^metadata_csum,^has_journal,^resize_inode",
	 false},
};

static void damaged(struct victim *v, uint64_t seed, char *what, size_t size)
{
	struct rng r = {seed};

	victim_heal(v);
	victim_damage(v, &r, what, size);
}

static void sound_ones_work(struct victim *v)
{
	struct appliance *a;

	context("%s, sound", v->name);
	inside_disk(dup(v->fd));
	a = attach_inside(false);
	expect(explore_read(a) > 25);
	explore_end(a);
	a = attach_inside(true);
	expect(explore_write(a) > 20);
	explore_end(a);
}

static void run_kind(struct victim *v, uint64_t n)
{
	struct seeds s;
	char what[600];

	sound_ones_work(v);
	for (seeds_init(&s, 1, n); seeds_next(&s);) {
		damaged(v, s.seed, what, sizeof(what));
		context("%s, SEED=%llu:%s", v->name, (unsigned long long)s.seed, what);
		explore_inside();
	}
}

/* Each field of the superblock with each of some values. */
static void sweep_superblock(struct victim *v)
{
	static const uint32_t values[] = {0, 0x7fffffff};

	for (unsigned off = 0; off < 0x180; off += 4)
		for (size_t i = 0; i < ARRAY_LEN(values); i++) {
			context("%s: superblock + 0x%x = 0x%x", v->name, off, values[i]);
			victim_heal(v);
			victim_put(v, 1024 + off, values[i], 4);
			explore_inside();
		}
}

static void run_cages(struct victim *v, uint64_t first, uint64_t n)
{
	bool vm = have_vm(v->name);
	char what[600];

	for (uint64_t seed = first; seed < first + n; seed++)
		for (int process = !vm; process < 2; process++) {
			damaged(v, seed, what, sizeof(what));
			context("%s in a %s, SEED=%llu:%s", v->name, process ? "process" : "VM",
				(unsigned long long)seed, what);
			explore_caged(v->name, process ? CELL_PROCESS : CELL_VM);
		}
}

/* ---- partition tables ---- */

static void run_tables(uint64_t n)
{
	struct seeds s;
	int fd = open("tables", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	expect(fd >= 0);
	inside_disk(dup(fd));
	for (seeds_init(&s, 1, n); seeds_next(&s);) {
		struct rng r = {s.seed};
		struct appliance *a;

		context("partition table, SEED=%llu: %s", (unsigned long long)s.seed,
			table_make(fd, &r));
		watch_again();
		a = attach_inside(false);
		explore_volumes(a);
		explore_end(a);
	}
	close(fd);
}

int main(void)
{
	/* In each build: the tests with many seeds are run by `make soak` and `make fuzz`. */
	const uint64_t each = env_u64("CASES", 100);
	struct victim v;

	make_pools();
	watch_start();
	inside_disk(open("/dev/null", O_RDONLY));
	run_tables(each * 2);
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		victim_make(&v, kinds[i].name, kinds[i].options, kinds[i].dirty);
		run_kind(&v, each);
		if (i == 0 && !env_u64("SOAK_SECONDS", 0) && !env_u64("SEED", 0))
			sweep_superblock(&v);
		if (!env_u64("SOAK_SECONDS", 0))
			run_cages(&v, env_u64("SEED", 1), env_u64("SEED", 0) ? 1 : each / 8);
		victim_free(&v);
	}
	return 0;
}
