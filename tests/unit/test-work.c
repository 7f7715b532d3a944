// SPDX-License-Identifier: GPL-2.0-or-later
// threads
/* base/work: every index runs once, the first error wins, fewer threads than asked still do. */
#include "unit.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/work.h"

struct sum {
	_Atomic uint64_t mask;
	atomic_uint calls, waiting;
	unsigned n;
	pthread_t caller;
	atomic_bool in_caller, unblocked;
};

static int note(void *ctx, unsigned worker, struct err *err)
{
	struct sum *s = ctx;
	sigset_t set;

	(void)err;
	atomic_fetch_or(&s->mask, UINT64_C(1) << worker);
	atomic_fetch_add(&s->calls, 1);
	if (pthread_equal(pthread_self(), s->caller)) {
		atomic_store(&s->in_caller, true);
	} else {
		pthread_sigmask(SIG_SETMASK, NULL, &set);
		if (!sigismember(&set, SIGINT) || !sigismember(&set, SIGUSR1))
			atomic_store(&s->unblocked, true);
	}
	return 0;
}

static void each_worker_runs_once(void **state)
{
	struct err e = {0};

	(void)state;
	for (unsigned n = 1; n <= 16; n++) {
		struct sum s = {.caller = pthread_self()};
		sigset_t before, after;

		pthread_sigmask(SIG_SETMASK, NULL, &before);
		ok(work_run(n, note, &s, &e), &e);
		assert_int_equal(s.calls, n);
		assert_int_equal(s.mask, (1u << n) - 1);
		assert_true(n > 1 || s.in_caller);
		assert_false(s.unblocked);
		pthread_sigmask(SIG_SETMASK, NULL, &after);
		assert_int_equal(sigismember(&before, SIGINT), sigismember(&after, SIGINT));
	}
}

/* All n wait for each other: it ends only if they run at the same time. */
static int meet(void *ctx, unsigned worker, struct err *err)
{
	struct sum *s = ctx;

	(void)worker;
	(void)err;
	atomic_fetch_add(&s->waiting, 1);
	while (atomic_load(&s->waiting) < s->n)
		sched_yield();
	return 0;
}

static void workers_run_at_the_same_time(void **state)
{
	struct sum s = {.n = 5};

	(void)state;
	alarm(60);
	assert_int_equal(work_run(5, meet, &s, NULL), 0);
	alarm(0);
}

static int fail_in_turn(void *ctx, unsigned worker, struct err *err)
{
	struct sum *s = ctx;

	/* Worker 2 fails first, all others later. */
	if (worker != 2) {
		while (!atomic_load(&s->calls))
			sched_yield();
		usleep(20000);
	}
	err_set(err, worker == 2 ? ENOSPC : EIO, "worker %u failed", worker);
	atomic_fetch_add(&s->calls, 1);
	return worker == 2 ? -ENOSPC : -EIO;
}

static void first_error_in_time_wins(void **state)
{
	struct sum s = {0};
	struct err e = {0};

	(void)state;
	assert_int_equal(work_run(4, fail_in_turn, &s, &e), -ENOSPC);
	assert_int_equal(s.calls, 4);
	assert_string_equal(e.msg, "worker 2 failed");
	s.calls = 0;
	assert_int_equal(work_run(4, fail_in_turn, &s, NULL), -ENOSPC);
}

static void cpus_are_counted(void **state)
{
	cpu_set_t old, one;
	int first = 0;

	(void)state;
	assert_true(work_cpus() >= 1);
	assert_int_equal(sched_getaffinity(0, sizeof(old), &old), 0);
	assert_int_equal(work_cpus(), CPU_COUNT(&old));
	while (!CPU_ISSET(first, &old))
		first++;
	CPU_ZERO(&one);
	CPU_SET(first, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	assert_int_equal(work_cpus(), 1);
	sched_setaffinity(0, sizeof(old), &old);
}

/* ---- threads that cannot be started: this pthread_create stands before libc's ---- */

static int threads_allowed = -1; /* -1: all */

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
	if (threads_allowed == 0)
		return EAGAIN;
	if (threads_allowed > 0)
		threads_allowed--;
	return real(thread, attr, fn, arg);
}

static void fewer_threads_still_work(void **state)
{
	struct err e = {0};

	(void)state;
	for (int allowed = 0; allowed < 4; allowed++) {
		struct sum s = {.caller = pthread_self()};

		threads_allowed = allowed;
		ok(work_run(8, note, &s, &e), &e);
		/* The caller is one of them; indices are the lowest ones. */
		assert_int_equal(s.calls, allowed + 1);
		assert_int_equal(s.mask, (1u << (allowed + 1)) - 1);
		assert_true(s.in_caller);
	}
	threads_allowed = -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_worker_runs_once),
		cmocka_unit_test(workers_run_at_the_same_time),
		cmocka_unit_test(first_error_in_time_wins),
		cmocka_unit_test(cpus_are_counted),
		cmocka_unit_test(fewer_threads_still_work),
	};

	return cmocka_run_group_tests_name("work", tests, NULL, NULL);
}
