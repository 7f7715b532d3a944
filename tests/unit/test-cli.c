// SPDX-License-Identifier: GPL-2.0-or-later
/* tools/cli: options in every spelling, and text that cannot steer a terminal. */
#include "unit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "cli.h"

enum { OUTPUT = CLI_LONG, OUTER, SHRINK };

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "a format"},
	{'q', "quiet", NULL, "a flag"},
	{'B', "backing-format", "FMT", "two spellings of one option …"},
	{'F', NULL, "FMT", "… and a letter without a name"},
	{OUTPUT, "output", "HOW", "a name without a letter"},
	{OUTER, "outer", NULL, "a name with the same beginning"},
	{SHRINK, "shrink", NULL, "another one"},
	{0},
};

static const struct cmd command = {"test", "Test", "FILE", options, NULL, NULL};

/* main.c's, which is not linked here */
void cli_help_all(const struct cli *cli)
{
	(void)cli;
	puts("help of all");
}

/* What a command line was read as: "f=raw q FILE" and at the end the message, if there is one. */
static char seen[4096];

static const char *option_name(int id)
{
	static char letter[2];

	if (id == CLI_ARG)
		return "";
	if (id == OUTPUT)
		return "output";
	if (id == OUTER)
		return "outer";
	if (id == SHRINK)
		return "shrink";
	letter[0] = (char)id;
	return letter;
}

static void note(const char *name, const char *arg)
{
	size_t n = strlen(seen);

	if (arg && !arg[0])
		arg = "''";
	snprintf(seen + n, sizeof(seen) - n, "%s%s%s%s", n ? " " : "", name,
		 arg && name[0] ? "=" : "", arg ? arg : "");
}

/* stdout and stderr go into a file, whose content is appended to `seen`. */
static int capture(int *saved_out, int *saved_err)
{
	int fd = open("captured", O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	fflush(NULL);
	*saved_out = dup(1);
	*saved_err = dup(2);
	dup2(fd, 1);
	dup2(fd, 2);
	return fd;
}

static void release(int fd, int saved_out, int saved_err)
{
	char text[2048];
	ssize_t n;

	fflush(NULL);
	dup2(saved_out, 1);
	dup2(saved_err, 2);
	n = pread(fd, text, sizeof(text) - 1, 0);
	assert_true(n >= 0);
	text[n] = '\0';
	if (n)
		note(text, NULL);
	close(fd);
	close(saved_out);
	close(saved_err);
}

static int read_line(bool peer, int argc, const char *const *argv)
{
	struct cli cli = {.prog = peer ? "qemu-img" : "img",
			  .peer = peer,
			  .cmd = &command,
			  .argc = argc,
			  .argv = (char **)(uintptr_t)argv}; /* it is not written to */
	int id, out, err, fd = capture(&out, &err), code = 0;

	seen[0] = '\0';
	while ((id = cli_next(&cli)) != CLI_END) {
		if (id == CLI_EXIT) {
			code = cli_exit_code(&cli);
			break;
		}
		note(option_name(id), cli.arg);
	}
	release(fd, out, err);
	return code;
}

/* The command line as words, what it is read as, and the exit code. */
#define reads(expected, code, ...)                                                      \
	do {                                                                            \
		const char *const argv_[] = {__VA_ARGS__};                              \
		assert_int_equal(read_line(false, (int)ARRAY_LEN(argv_), argv_), code); \
		assert_string_equal(seen, expected);                                    \
	} while (0)

static void short_options(void **state)
{
	(void)state;
	reads("f=raw q FILE", 0, "-f", "raw", "-q", "FILE");
	reads("f=raw q FILE", 0, "-fraw", "-q", "FILE");
	reads("q f=raw FILE", 0, "-qf", "raw", "FILE");
	reads("q f=raw", 0, "-qfraw");
	reads("q q F=x", 0, "-qqFx");
	reads("f=-q", 0, "-f", "-q");
	reads("f=''", 0, "-f", "");
}

static void long_options(void **state)
{
	(void)state;
	reads("f=raw q", 0, "--format", "raw", "--quiet");
	reads("f=raw output=json", 0, "--format=raw", "--output=json");
	reads("output=''", 0, "--output=");
	reads("output=a=b", 0, "--output", "a=b");
	reads("f=raw shrink B=x", 0, "--f=raw", "--sh", "--back", "x");
	reads("output=x outer", 0, "--outp", "x", "--oute");
}

static void arguments(void **state)
{
	(void)state;
	reads("A q B", 0, "A", "-q", "B");
	reads("q -q -- B", 0, "-q", "--", "-q", "--", "B");
	reads("- f=-", 0, "-", "-f", "-");
	reads("'' A", 0, "", "A");
	assert_int_equal(read_line(false, 0, NULL), 0);
	assert_string_equal(seen, "");
}

static void wrong_options(void **state)
{
#define TRY "Try 'img test --help' for more information\n"
	(void)state;
	reads("img: unrecognized option '-x'\n" TRY, 1, "-x");
	reads("q img: unrecognized option '-qx'\n" TRY, 1, "-qx");
	reads("img: unrecognized option '--nothing'\n" TRY, 1, "--nothing");
	reads("img: unrecognized option '--out'\n" TRY, 1, "--out", "x");
	reads("img: unrecognized option '--quiet=yes'\n" TRY, 1, "--quiet=yes");
	reads("img: unrecognized option '--=x'\n" TRY, 1, "--=x");
	reads("img: missing argument for option '-f'\n" TRY, 1, "-f");
	reads("q img: missing argument for option '-qf'\n" TRY, 1, "-qf");
	reads("A img: missing argument for option '--output'\n" TRY, 1, "A", "--output");
}

static void help(void **state)
{
	const char *word[] = {"A", "--help", "-x"}, *letter[] = {"-qh"};

	(void)state;
	assert_int_equal(read_line(false, 3, word), 0);
	assert_non_null(strstr(seen, "A Usage: img test [OPTIONS] FILE\nTest.\n"));
	assert_non_null(strstr(seen, "  -f, --format FMT  "));
	assert_non_null(strstr(seen, "      --output HOW  "));
	assert_non_null(strstr(seen, "  -F FMT  "));
	assert_non_null(strstr(seen, "Exit status: 0 success, 1 error."));
	assert_int_equal(read_line(true, 1, letter), 0);
	assert_string_equal(seen, "q help of all\n");
}

static void text_is_harmless(void **state)
{
	static const struct {
		const char *text, *clean;
	} cases[] = {
		{"plain text 1.2-3_~", "plain text 1.2-3_~"},
		{"\033[31mred", "\\x1b[31mred"},
		{"a\nb\tc\r\x7f", "a\\x0ab\\x09c\\x0d\\x7f"},
		{"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x92\xbe",
		 "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x92\xbe"},
		{"\xc2\x9b"
		 "31m",
		 "\\xc2\\x9b"
		 "31m"}, /* CSI as one character */
		{"\xff\xfe", "\\xff\\xfe"},
		{"\xc3", "\\xc3"},                                     /* cut short */
		{"\xc0\x9b\xe0\x82\x9b", "\\xc0\\x9b\\xe0\\x82\\x9b"}, /* overlong */
		{"\xed\xa0\x80", "\\xed\\xa0\\x80"},                   /* surrogate */
		{"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},          /* too large */
		{"", ""},
	};
	struct cli cli = {.prog = "img"}, peer = {.prog = "qemu-img", .peer = true};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *clean = cli_clean(&cli, cases[i].text),
		     *raw = cli_clean(&peer, cases[i].text);

		assert_string_equal(clean, cases[i].clean);
		assert_string_equal(raw, cases[i].text);
		free(clean);
		free(raw);
	}
}

static void messages(void **state)
{
	struct cli cli = {.prog = "img"};
	int out, err, fd;

	(void)state;
	seen[0] = '\0';
	fd = capture(&out, &err);
	printf("before ");
	assert_int_equal(cli_error(&cli, "%s", "a\033b\nIs another process using the image [x]?"),
			 1);
	assert_int_equal(cli_error(&cli, "%s", "name\nimg: all is well"), 1);
	cli_warn(&cli, "%d", 7);
	release(fd, out, err);
	assert_string_equal(seen, "before img: a\\x1bb\nIs another process using the image [x]?\n"
				  "img: name\\x0aimg: all is well\nimg: warning: 7\n");
}

static void parsers(void **state)
{
	struct cli cli = {.prog = "img"};
	unsigned flags = IMG_RDWR | IMG_SYNC;
	uint64_t n = 0;
	bool json = false;
	int out, err, fd = capture(&out, &err);

	(void)state;
	assert_true(cli_size(&cli, "size", "1.5k", &n) && n == 1536);
	assert_false(cli_size(&cli, "size", "1.5", &n) || cli_size(&cli, "size", "8E", &n));
	assert_true(cli_uint(&cli, "number", "16", 1, 16, &n) && n == 16);
	assert_false(cli_uint(&cli, "number", "17", 1, 16, &n));
	assert_false(cli_uint(&cli, "number", "-1", 0, UINT64_MAX, &n));
	assert_false(cli_uint(&cli, "number", "1x", 1, 16, &n));
	assert_false(cli_uint(&cli, "number", " 1", 1, 16, &n));
	assert_true(cli_output(&cli, "json", &json) && json);
	assert_true(cli_output(&cli, "human", &json) && !json);
	assert_false(cli_output(&cli, "xml", &json));
	assert_true(cli_cache(&cli, "directsync", &flags));
	assert_int_equal(flags, IMG_RDWR | IMG_DIRECT | IMG_SYNC);
	assert_true(cli_cache(&cli, "unsafe", &flags));
	assert_int_equal(flags, IMG_RDWR | IMG_UNSAFE);
	assert_true(cli_cache(&cli, "writeback", &flags));
	assert_int_equal(flags, IMG_RDWR);
	assert_false(cli_cache(&cli, "fast", &flags));
	release(fd, out, err);
}

/* A write error of stdout makes the command fail, with a message. */
static void full_output(void **state)
{
	struct cli cli = {.prog = "img"};
	int out, err, fd = capture(&out, &err), full = open("/dev/full", O_WRONLY), code;

	(void)state;
	assert_true(full >= 0);
	dup2(full, 1);
	printf("text that does not fit");
	code = cli_finish_output(&cli, 0);
	dup2(fd, 1);
	seen[0] = '\0';
	release(fd, out, err);
	close(full);
	assert_int_equal(code, 1);
	assert_string_equal(seen,
			    "img: Could not write to standard output: No space left on device\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(short_options), cmocka_unit_test(long_options),
		cmocka_unit_test(arguments),     cmocka_unit_test(wrong_options),
		cmocka_unit_test(help),          cmocka_unit_test(text_is_harmless),
		cmocka_unit_test(messages),      cmocka_unit_test(parsers),
		cmocka_unit_test(full_output),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
