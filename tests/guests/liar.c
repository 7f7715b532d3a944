/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An agent that does not keep to the protocol. Which rule it breaks the byte behind LIE: says, which
 * tests/bad/agents.c sets in the program.
 */
#include <stdint.h>
#include <string.h>
#include <unistd.h>

static volatile char lie[] = "LIE:?";

enum { DATA = 2, HELLO = 16, PROGRESS = 17, DONE = 18, FAIL = 19 };

struct header {
	uint32_t length;
	uint16_t type, op;
	uint32_t call, zero;
};

static unsigned char garbage[1 << 20];

static void put(const void *bytes, size_t n)
{
	const char *p = bytes;

	while (n) {
		ssize_t w = write(1, p, n);

		if (w <= 0)
			_exit(0);
		p += w;
		n -= (size_t)w;
	}
}

static void frame(uint16_t type, uint32_t call, const void *bytes, uint32_t n)
{
	const struct header h = {n, type, 0, call, 0};

	put(&h, sizeof(h));
	put(bytes, n);
}

static void hello(uint32_t version, uint32_t disks)
{
	const uint32_t words[] = {version, disks};

	frame(HELLO, 0, words, sizeof(words));
}

/* The next call's number; ends with the requests. */
static uint32_t next_call(void)
{
	struct header h;
	size_t have = 0;

	while (have < sizeof(h)) {
		ssize_t n = read(0, (char *)&h + have, sizeof(h) - have);

		if (n <= 0)
			_exit(0);
		have += (size_t)n;
	}
	for (have = 0; have < h.length;) {
		ssize_t n = read(0, garbage, h.length - have);

		if (n <= 0)
			_exit(0);
		have += (size_t)n;
	}
	return h.call;
}

static void fail(uint32_t call, uint32_t code, const char *text)
{
	unsigned char buf[256];
	uint32_t n = (uint32_t)strlen(text);

	memcpy(buf, &code, 4);
	memcpy(buf + 4, &n, 4);
	for (uint32_t i = 0; i < n; i++)
		buf[8 + i] = (unsigned char)text[i];
	frame(FAIL, call, buf, 8 + n);
}

static void answer(uint32_t call)
{
	static const struct header endless = {UINT32_MAX, DONE, 0, 1, 0};

	memset(garbage, 0xff, sizeof(garbage));
	switch (lie[4]) {
	case '3':
		frame(99, call, garbage, 16);
		break;
	case '4':
		put(&endless, sizeof(endless));
		break;
	case '5':
		frame(DONE, call + 1, garbage, 0);
		break;
	case '6':
		frame(DONE, call, garbage, 0);
		break;
	case '7':
		frame(DONE, call, garbage, sizeof(garbage));
		break;
	case '8':
		for (;;)
			frame(DATA, call, garbage, 4096);
	case '9':
		fail(call, 5, "\033[2J\033]0;owned\007 a\nb \302\233 \377");
		break;
	case 'a':
		fail(call, 0, "");
		break;
	case 'b':
		fail(call, 0xfffffff0, "no such number");
		break;
	case 'c':
		*(volatile int *)8 = 1;
		break;
	case 'd':
		for (int i = 0; i < 1000; i++)
			frame(PROGRESS, call, garbage, 16);
		_exit(0);
	case 'e':
		put(garbage, 7);
		_exit(0);
	default:
		_exit(3);
	}
}

int main(void)
{
	switch (lie[4]) {
	case '0':
		return 0;
	case '1':
		hello(77, 1);
		break;
	case '2':
		hello(1, 4000);
		break;
	default:
		hello(1, 1);
	}
	for (;;)
		answer(next_call());
}
