// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Copying out of a guest whose agent lies: an agent that a guest took over may tell any tree that
 * keeps to the protocol. Nothing outside of the target changes, whatever the order of entries is.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "copy.h"

/* Of a program's help, which needs the table of commands. */
void cli_help_all(const struct cli *cli);
void cli_help_all(const struct cli *cli)
{
	(void)cli;
}

static struct err e;

/* ---- an agent that is a recording: what it says to the first call ---- */

static unsigned char stream[65536];
static struct wire_out out;

static void put_frame(uint16_t type, uint32_t call, const struct wire_out *payload, int fd)
{
	struct frame_header h = {.length = le32_make((uint32_t)payload->len),
				 .type = le16_make(type),
				 .call = le32_make(call)};

	assert_int_equal(write(fd, &h, sizeof(h)), sizeof(h));
	if (payload->len)
		assert_int_equal(write(fd, payload->buf, payload->len), payload->len);
}

static void entry(const char *path, uint32_t mode, const char *first, const char *target)
{
	const struct agent_stat st = {.mode = mode, .nlink = 1, .size = S_ISREG(mode) ? 5 : 0};

	put_u8(&out, STREAM_ENTRY);
	put_text(&out, path);
	put_u8(&out, first != NULL);
	put_stat(&out, &st);
	put_text(&out, first ? first : target);
}

static void bytes(const char *text)
{
	put_u8(&out, STREAM_BYTES);
	put_u64(&out, 0);
	put_bytes(&out, text, strlen(text));
}

static void evil_file(const char *path)
{
	entry(path, S_IFREG | 0666, NULL, "");
	bytes("evil\n");
}

static int finish(void *arg, struct err *err)
{
	(void)arg;
	(void)err;
	return 0;
}

static void end(void *arg)
{
	(void)arg;
}

/* Copies what was recorded to the directory "target". */
static int copy(bool all)
{
	static const struct cli cli = {.prog = "img"};
	const struct appliance_end ends = {.finish = finish, .kill = end};
	struct copy c = {.cli = &cli, .recursive = true, .keep = all, .all = all, .umask = 022};
	struct copy_place from = {.shown = "disk:/", .path = "/"};
	int dir = open("target", O_PATH | O_DIRECTORY), fds[2], r;
	unsigned char hello[64];
	struct wire_out w = wire_out(hello, sizeof(hello)), none = {0};

	put_u32(&w, AGENT_PROTOCOL);
	put_u32(&w, 1);
	assert_false(out.full);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	put_frame(FRAME_HELLO, 0, &w, fds[1]);
	put_frame(FRAME_DATA, 1, &out, fds[1]);
	put_frame(FRAME_DONE, 1, &none, fds[1]);
	assert_int_equal(appliance_attach(fds[0], fds[0], &ends, &from.a, &e), 0);
	r = copy_out(&c, &from, dir, "", &e);
	appliance_close(from.a);
	for (unsigned i = 0; i < LOST_KINDS; i++)
		free(c.lost[i].first);
	close(fds[0]);
	close(fds[1]);
	close(dir);
	return r == 0 && c.failed ? 1 : r;
}

/* ---- the host ---- */

static int setup(void **state)
{
	(void)state;
	assert_int_equal(system("rm -rf target outside && mkdir -p target outside/dir && "
				"echo precious > outside/file"),
			 0);
	out = wire_out(stream, sizeof(stream));
	entry("", S_IFDIR | 0755, NULL, "");
	return 0;
}

/* Nothing outside changed. */
static int check(void **state)
{
	(void)state;
	return system("[ \"$(cat outside/file)\" = precious ] && [ \"$(stat -c %a outside/dir)\" = "
		      "755 ] && "
		      "[ \"$(ls -A outside . | grep -c evil)\" = 0 ] && [ -z \"$(ls -A "
		      "outside/dir)\" ] && "
		      "[ -z \"$(find target -name '.img-cp*')\" ]")
		       ? -1
		       : 0;
}

static void links_are_not_passed(void **state)
{
	(void)state;
	entry("link", S_IFLNK | 0777, NULL, "../outside/dir");
	evil_file("link/evil");
	entry("link/evil-dir", S_IFDIR | 0777, NULL, "");
	entry("link/evil-link", S_IFLNK | 0777, NULL, "x");
	entry("link/evil-pipe", S_IFIFO | 0666, NULL, "");
	evil_file("good");
	assert_int_equal(copy(false), 1);
	assert_int_equal(access("target/good", F_OK), 0);
}

static void links_are_not_written_through(void **state)
{
	(void)state;
	entry("link", S_IFLNK | 0777, NULL, "../outside/file");
	evil_file("link");
	assert_int_equal(copy(false), 0);
}

static void links_get_no_directory(void **state)
{
	(void)state;
	entry("link", S_IFLNK | 0777, NULL, "../outside/dir");
	entry("link", S_IFDIR | 0700, NULL, "");
	evil_file("link/evil");
	assert_int_equal(copy(true), 1);
}

/* The rights of a directory come at the end: it must still be one then. */
static void directories_stay(void **state)
{
	(void)state;
	entry("dir", S_IFDIR | 0700, NULL, "");
	entry("dir", S_IFLNK | 0777, NULL, "../outside/dir");
	entry("dir", S_IFREG | 0666, NULL, "");
	assert_int_equal(copy(true), 1);
	assert_int_equal(system("[ -d target/dir ] && [ ! -L target/dir ]"), 0);
}

static void hard_links_stay_inside(void **state)
{
	(void)state;
	entry("link", S_IFLNK | 0777, NULL, "../outside");
	entry("again", S_IFREG | 0644, "link/file", "");
	evil_file("again");
	/* A link to the link is one, and is replaced, not written through. */
	entry("twin", S_IFLNK | 0777, NULL, "../outside/file");
	entry("other", S_IFLNK | 0777, "twin", "");
	evil_file("other");
	assert_int_equal(copy(true), 1);
}

static void files_hold_nothing(void **state)
{
	(void)state;
	evil_file("file");
	evil_file("file/below");
	evil_file("no/parent");
	evil_file("file");
	assert_int_equal(copy(false), 1);
	assert_int_equal(system("[ \"$(cat target/file)\" = evil ]"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(links_are_not_passed, setup, check),
		cmocka_unit_test_setup_teardown(links_are_not_written_through, setup, check),
		cmocka_unit_test_setup_teardown(links_get_no_directory, setup, check),
		cmocka_unit_test_setup_teardown(directories_stay, setup, check),
		cmocka_unit_test_setup_teardown(hard_links_stay_inside, setup, check),
		cmocka_unit_test_setup_teardown(files_hold_nothing, setup, check),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
