// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Stops a program at the n-th read or write of a file, so that a test can do something to it there.
 * Preloaded; GATE_CALL is read or write, GATE_AT the number of the call, GATE_REACHED and GATE_GO are
 * two pipes: a byte goes out, and the program goes on when one came in. Other threads that come to the
 * same kind of call wait as well.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_ulong calls;

static int number(const char *name)
{
	const char *text = getenv(name);

	return text ? atoi(text) : 0;
}

static void stop(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static bool passed;
	char c = 1;

	pthread_mutex_lock(&lock);
	if (!passed &&
	    (write(number("GATE_REACHED"), &c, 1) != 1 || read(number("GATE_GO"), &c, 1) != 1))
		abort();
	passed = true;
	pthread_mutex_unlock(&lock);
}

static void gate(const char *call)
{
	const char *wanted = getenv("GATE_CALL");

	if (wanted && !strcmp(wanted, call) &&
	    atomic_fetch_add(&calls, 1) + 1 >= (unsigned long)number("GATE_AT"))
		stop();
}

#define WRAP(call, name, type)                                     \
	ssize_t name(int fd, type buf, size_t len, off_t off)      \
	{                                                          \
		static ssize_t (*real)(int, type, size_t, off_t);  \
		if (!real)                                         \
			*(void **)&real = dlsym(RTLD_NEXT, #name); \
		gate(call);                                        \
		return real(fd, buf, len, off);                    \
	}

WRAP("write", pwrite, const void *)
WRAP("write", pwrite64, const void *)
WRAP("read", pread, void *)
WRAP("read", pread64, void *)
