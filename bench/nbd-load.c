// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * nbd-load [options] URI: loads an NBD server with small random requests, or with connections that
 * do nothing, and prints what that cost as one JSON object.
 *
 *   -p PID      a process of the server, whose CPU time and memory are reported; may be repeated
 *   -c N        connections (1)          -d N    requests in flight on each (1)
 *   -b BYTES    size of a request (4096) -t SEC  how long (1)
 *   -w          writes, instead of reads -S N    seed of the offsets (1)
 *   -i          only connect: no requests at all
 *   -u          send the requests of all connections once, and read no reply
 *
 * All connections are driven by one thread, whatever the server, so that the load takes one core at
 * most and leaves the rest to the server. Offsets are multiples of the size of a request.
 */
#include <errno.h>
#include <inttypes.h>
#include <libnbd.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PROCESSES 8

struct plan {
	const char *uri;
	long pid[PROCESSES]; /* the first n_pids */
	unsigned n_pids;
	long connections, depth, bytes, seconds, seed;
	bool write, idle, unread;
};

struct connection;

struct slot {
	struct connection *owner;
	struct slot *next; // on the list of those that are free
	char *data;
};

struct connection {
	struct nbd_handle *nbd;
	struct slot *slots, *free;
	uint64_t blocks, random, done;
};

static void die(const char *what)
{
	const char *why = nbd_get_error();

	fprintf(stderr, "nbd-load: %s: %s\n", what, why ? why : strerror(errno));
	exit(1);
}

static double now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* CPU seconds of all threads of the server, finer than /proc tells them. */
static double server_cpu(const struct plan *p)
{
	clockid_t clock;
	double sum = 0;

	for (unsigned n = 0; n < p->n_pids; n++)
		if (clock_getcpuclockid((pid_t)p->pid[n], &clock) == 0)
			sum += now(clock);
	return sum;
}

/* The number behind a word like "VmHWM:" in /proc/PID/status, or 0. */
static long status_of_process(long pid, const char *word)
{
	char name[64], line[256];
	long value = 0;

	snprintf(name, sizeof(name), "/proc/%ld/status", pid);
	FILE *f = fopen(name, "r");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, word, strlen(word)) == 0)
			value = strtol(line + strlen(word), NULL, 10);
	fclose(f);
	return value;
}

static long status_of(const struct plan *p, const char *word)
{
	long sum = 0;

	for (unsigned n = 0; n < p->n_pids; n++)
		sum += status_of_process(p->pid[n], word);
	return sum;
}

/* xorshift64*: the same sequence everywhere, and cheap. */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(0x2545F4914F6CDD1D);
}

static int on_done(void *user, int *error)
{
	struct slot *s = user;

	if (*error) {
		fprintf(stderr, "nbd-load: a request failed: %s\n", strerror(*error));
		exit(1);
	}
	s->next = s->owner->free;
	s->owner->free = s;
	s->owner->done++;
	return 1; // retire it
}

/* Sends a request for each slot that is free. */
static void issue(struct connection *c, const struct plan *p)
{
	while (c->free) {
		struct slot *s = c->free;
		uint64_t offset = next_random(&c->random) % c->blocks * (uint64_t)p->bytes;
		nbd_completion_callback cb = {.callback = on_done, .user_data = s};
		int64_t cookie;

		c->free = s->next;
		if (p->write)
			cookie = nbd_aio_pwrite(c->nbd, s->data, (size_t)p->bytes, offset, cb, 0);
		else
			cookie = nbd_aio_pread(c->nbd, s->data, (size_t)p->bytes, offset, cb, 0);
		if (cookie == -1)
			die("request");
	}
}

static void connect_one(struct connection *c, const struct plan *p, uint64_t seed, char *shared)
{
	c->nbd = nbd_create();
	if (!c->nbd || nbd_set_pread_initialize(c->nbd, false) || nbd_connect_uri(c->nbd, p->uri))
		die("connect");
	int64_t size = nbd_get_size(c->nbd);
	if (size < p->bytes)
		die("the export is too small");
	c->blocks = (uint64_t)(size / p->bytes);
	c->random = seed;
	next_random(&c->random);
	c->slots = calloc((size_t)p->depth, sizeof(*c->slots));
	for (long n = 0; n < p->depth; n++) {
		struct slot *s = &c->slots[n];

		s->owner = c;
		s->data = shared + n * p->bytes;
		s->next = c->free;
		c->free = s;
	}
}

static void turn(struct connection *cs, struct pollfd *fds, const struct plan *p)
{
	for (long n = 0; n < p->connections; n++) {
		unsigned direction = nbd_aio_get_direction(cs[n].nbd);

		fds[n].fd = nbd_aio_get_fd(cs[n].nbd);
		fds[n].events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
					(direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
	}
	if (poll(fds, (nfds_t)p->connections, 10000) <= 0)
		die("no answer in 10 seconds");
	for (long n = 0; n < p->connections; n++) {
		unsigned direction = nbd_aio_get_direction(cs[n].nbd);
		int r = 0;

		if (fds[n].revents & (POLLIN | POLLHUP | POLLERR) &&
		    direction & LIBNBD_AIO_DIRECTION_READ)
			r = nbd_aio_notify_read(cs[n].nbd);
		else if (fds[n].revents & POLLOUT)
			r = nbd_aio_notify_write(cs[n].nbd);
		if (r)
			die("connection");
		issue(&cs[n], p);
	}
}

static uint64_t total(const struct connection *cs, const struct plan *p)
{
	uint64_t sum = 0;

	for (long n = 0; n < p->connections; n++)
		sum += cs[n].done;
	return sum;
}

static void load(struct connection *cs, const struct plan *p)
{
	struct pollfd *fds = calloc((size_t)p->connections, sizeof(*fds));
	double start = now(CLOCK_MONOTONIC), own = now(CLOCK_PROCESS_CPUTIME_ID),
	       server = server_cpu(p);
	double end = start;

	for (long n = 0; n < p->connections; n++)
		issue(&cs[n], p);
	for (unsigned turns = 0;
	     turns % 64 || (end = now(CLOCK_MONOTONIC)) < start + (double)p->seconds; turns++)
		turn(cs, fds, p);
	own = now(CLOCK_PROCESS_CPUTIME_ID) - own;
	server = server_cpu(p) - server;
	double done = (double)total(cs, p);
	printf("{\"iops\": %.0f, \"client_us\": %.2f, \"server_us\": %.2f}\n", done / (end - start),
	       own / done * 1e6, server / done * 1e6);
	free(fds);
}

/* Waits until the server has done what it will do: it has used no CPU time for half a second. */
static void settle(const struct plan *p)
{
	double before = -1, after = server_cpu(p);

	while (after > before) {
		before = after;
		nanosleep(&(struct timespec){.tv_nsec = 500 * 1000 * 1000}, NULL);
		after = server_cpu(p);
		if (after - before < 0.002)
			break;
	}
}

static void stand_still(struct connection *cs, const struct plan *p)
{
	for (long n = 0; p->unread && n < p->connections; n++)
		issue(&cs[n], p);
	settle(p);
	printf("{\"MiB\": %.1f, \"threads\": %ld}\n", (double)status_of(p, "VmHWM:") / 1024,
	       status_of(p, "Threads:"));
}

static void usage(void)
{
	fprintf(stderr, "usage: nbd-load [-p PID] [-c N] [-d N] [-b BYTES] [-t SEC] [-S N] "
			"[-w|-i|-u] URI\n");
	exit(2);
}

/* The option that takes a number, or NULL. */
static long *number_of(struct plan *p, int option)
{
	switch (option) {
	case 'c':
		return &p->connections;
	case 'd':
		return &p->depth;
	case 'b':
		return &p->bytes;
	case 't':
		return &p->seconds;
	case 'S':
		return &p->seed;
	default:
		return NULL;
	}
}

static void parse(int argc, char **argv, struct plan *p)
{
	for (int c; (c = getopt(argc, argv, "p:c:d:b:t:S:wiu")) != -1;) {
		long *number = number_of(p, c);

		if (c == 'p' && p->n_pids < PROCESSES)
			p->pid[p->n_pids++] = strtol(optarg, NULL, 10);
		if (number)
			*number = strtol(optarg, NULL, 10);
		p->write |= c == 'w';
		p->idle |= c == 'i';
		p->unread |= c == 'u';
		if (c == '?')
			usage();
	}
	if (optind + 1 != argc || p->connections < 1 || p->depth < 1 || p->bytes < 1 ||
	    p->seconds < 1)
		usage();
	p->uri = argv[optind];
}

int main(int argc, char **argv)
{
	struct plan p = {.connections = 1, .depth = 1, .bytes = 4096, .seconds = 1, .seed = 1};

	parse(argc, argv, &p);
	struct connection *cs = calloc((size_t)p.connections, sizeof(*cs));
	char *shared = malloc((size_t)(p.depth * p.bytes)); // what is in it does not matter
	if (!cs || !shared)
		die("memory");
	memset(shared, 0x5a, (size_t)(p.depth * p.bytes));
	for (long n = 0; n < p.connections; n++)
		connect_one(&cs[n], &p, (uint64_t)(p.seed + n), shared);
	if (p.idle || p.unread)
		stand_still(cs, &p);
	else
		load(cs, &p);
	return 0; // the end of the process closes the connections
}
