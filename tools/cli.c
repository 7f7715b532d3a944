// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The command line: options out of the commands' tables, messages, and the parsers that several
 * commands share. Our own loop instead of getopt_long, because the tables are also the source of
 * the help, the completion and the man page check, and because messages must not depend on libc.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/size.h"
#include "image/describe.h"
#include "ops/snapshot.h"
#include "ops/target.h"

/* ---- the process ---- */

bool cli_begin(const struct cli *cli)
{
	/* A closed pipe is a write error with a message, not a silent death in mid-write. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* so is a limit on the size of files */

	/*
	 * Without a standard stream the first image would take its number, and what is printed would
	 * go into the image. Opened the wrong way round, so that using it is the error that it was;
	 * the peer does not mind.
	 */
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		int flags = cli->peer ? O_RDWR : fd == STDIN_FILENO ? O_WRONLY : O_RDONLY;

		if (fcntl(fd, F_GETFD) >= 0)
			continue;
		if (open("/dev/null", flags) != fd) {
			cli_error(cli, "A standard stream is closed, and /dev/null is not there");
			return false;
		}
	}
	return true;
}

/* ---- text ---- */

/* Length of the valid UTF-8 sequence at s that is safe on a terminal; 0: escape this byte. */
static unsigned printable_len(const unsigned char *s)
{
	unsigned n, i;

	if (s[0] >= 0x20 && s[0] < 0x7f)
		return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	n = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	for (i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	}
	/* overlong forms, surrogates, above U+10FFFF, and the C1 controls U+0080 … U+009F */
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f) ||
	    (s[0] == 0xc2 && s[1] < 0xa0))
		return 0;
	return n;
}

/* Where messages go on in another line. Any other newline came with a name, and is escaped. */
static bool begins_line(const char *text)
{
	static const char *const lines[] = {
		"Is another process using the image [", /* io/lock.c */
		"Optional suffix k, M, G,",             /* base/opt.c */
		"and exabytes, respectively.",
		"Could not open backing image.", /* ops/create.c */
		"Detected format of ",
		"This option is only supported for", /* ops/amend.c */
		"You can use 'img rebase'",          /* qcow2/amend.c */
	};

	for (unsigned i = 0; i < ARRAY_LEN(lines); i++) {
		if (strncmp(text, lines[i], strlen(lines[i])) == 0)
			return true;
	}
	return false;
}

/* Appends to out, which has room for 4 bytes per byte of text. */
static void escape(const char *text, char *out, bool newlines)
{
	const unsigned char *s = (const unsigned char *)text;

	while (*s) {
		unsigned n = printable_len(s);

		if (n == 0 && newlines && *s == '\n' && begins_line((const char *)s + 1))
			n = 1;
		if (n == 0) {
			out += sprintf(out, "\\x%02x", *s++);
		} else {
			memcpy(out, s, n);
			out += n;
			s += n;
		}
	}
	*out = '\0';
}

/* The advice of the library names our commands; who called qemu-img is told of that. */
static char *as_peer(const char *text)
{
	static const char *const advice[] = {
		"img rebase' instead",   /* qcow2/amend.c */
		"img check -r all",      /* qcow2/check_meta.c */
		"img amend to increase", /* qcow2/check.c */
		"img convert to create",
	};
	/* Each takes 5 bytes more, and is longer than that. */
	char *out = malloc(2 * strlen(text) + 1), *p = out;

	for (const char *s = text; out && *s; *p++ = *s++) {
		for (unsigned i = 0; i < ARRAY_LEN(advice); i++)
			if (strncmp(s, advice[i], strlen(advice[i])) == 0 &&
			    (s == text || s[-1] == ' ' || s[-1] == '\''))
				p = stpcpy(p, "qemu-");
	}
	if (out)
		*p = '\0';
	return out;
}

static char *clean(const struct cli *cli, const char *text, bool newlines)
{
	char *out = cli->peer ? as_peer(text) : malloc(4 * strlen(text) + 1);

	if (out && !cli->peer)
		escape(text, out, newlines);
	return out;
}

char *cli_clean(const struct cli *cli, const char *text)
{
	return clean(cli, text, false);
}

void cli_put_text(const struct cli *cli, const char *text)
{
	CLEANUP_FREE char *out = cli_clean(cli, text);

	fputs(out ? out : "?", stdout);
}

static void message(const struct cli *cli, const char *kind, const char *fmt, va_list ap)
{
	CLEANUP_FREE char *text = NULL, *out = NULL;

	fflush(stdout); /* keep the order when both go to one place */
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	out = clean(cli, text ? text : "out of memory", true);
	fprintf(stderr, "%s: %s%s\n", cli->prog, kind, out ? out : "out of memory");
}

int cli_error(const struct cli *cli, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	message(cli, "", fmt, ap);
	va_end(ap);
	return 1;
}

int cli_note(const struct cli *cli, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	message(cli, "", fmt, ap);
	va_end(ap);
	return 0;
}

int cli_warn(const struct cli *cli, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	message(cli, "warning: ", fmt, ap);
	va_end(ap);
	return 1;
}

int cli_usage(const struct cli *cli, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	message(cli, "", fmt, ap);
	va_end(ap);
	if (cli->cmd && !cli->peer)
		fprintf(stderr, "Try '%s %s --help' for more information\n", cli->prog,
			cli->cmd->name);
	else
		fprintf(stderr, "Try '%s --help' for more information\n", cli->prog);
	return 1;
}

int cli_finish_output(const struct cli *cli, int code)
{
	bool failed = ferror(stdout);
	int e = errno;

	/* close() is where a file system may report what write() could not */
	if (fflush(stdout) != 0) {
		failed = true;
		e = errno;
	}
	if (failed) {
		clearerr(stdout);
		return cli_error(cli, "Could not write to standard output: %s", strerror(e));
	}
	return code;
}

int cli_interrupted(const struct cli *cli, int sig)
{
	cli_error(cli, "Stopped by SIG%s", sigabbrev_np(sig));
	fflush(NULL);
	/* Die of it, so that a shell loop around us stops as well. */
	signal(sig, SIG_DFL);
	raise(sig);
	return 128 + sig;
}

int cli_print_json(const struct cli *cli, json_t *v)
{
	CLEANUP_FREE char *text = v ? json_render(v) : NULL;

	json_decref(v);
	if (!text)
		return cli_error(cli, "out of memory");
	puts(text);
	return 0;
}

/* ---- options ---- */

static int bad_option(struct cli *cli, const char *what, const char *text)
{
	cli->pending_exit = cli_usage(cli, "%s '%s'", what, text);
	return CLI_EXIT;
}

static int give_help(struct cli *cli)
{
	cli_help(cli);
	cli->pending_exit = cli_finish_output(cli, 0);
	return CLI_EXIT;
}

static const struct cmd_opt help_opt = {'h', "help", NULL, "print this help and exit"};

static const struct cmd_opt *find_short(const struct cmd *cmd, char c)
{
	for (const struct cmd_opt *o = cmd->opts; o->id; o++) {
		if (o->id == c)
			return o;
	}
	return c == 'h' ? &help_opt : NULL;
}

/* Exact, or a prefix that only one option has (two names of one id count as one). */
static const struct cmd_opt *find_long(const struct cmd *cmd, const char *name, size_t len)
{
	const struct cmd_opt *found = NULL;
	bool ambiguous = false;

	for (const struct cmd_opt *o = cmd->opts;; o = o->id ? o + 1 : NULL) {
		const struct cmd_opt *cand = o && o->id ? o : &help_opt;

		if (cand->name && len > 0 && strncmp(cand->name, name, len) == 0) {
			if (cand->name[len] == '\0')
				return cand;
			ambiguous |= found && found->id != cand->id;
			found = cand;
		}
		if (cand == &help_opt)
			break;
	}
	return ambiguous ? NULL : found;
}

/* --progress is a flag to qemu-img 10; to us it may be followed by a mode. */
static bool takes_no_mode(const struct cli *cli, const struct cmd_opt *o)
{
	enum progress_mode mode;

	return o->name && strcmp(o->name, "progress") == 0 &&
	       (cli->pos >= cli->argc || !progress_mode_find(cli->argv[cli->pos], &mode));
}

static int next_long(struct cli *cli, char *text)
{
	char *name = text + 2, *eq = strchr(name, '=');
	size_t len = eq ? (size_t)(eq - name) : strlen(name);
	const struct cmd_opt *o = find_long(cli->cmd, name, len);

	static char auto_mode[] = "auto";
	bool untrusted = o && o->name && strcmp(o->name, "untrusted") == 0;

	if (!o || (eq && !o->arg && !untrusted))
		return bad_option(cli, "unrecognized option", text);
	if (o == &help_opt)
		return give_help(cli);
	if (untrusted && !cli_confine(cli, eq ? eq + 1 : NULL)) {
		cli->pending_exit = 1;
		return CLI_EXIT;
	}
	cli->arg = NULL;
	if (!eq && takes_no_mode(cli, o)) {
		cli->arg = auto_mode;
	} else if (o->arg) {
		cli->arg = eq ? eq + 1 : cli->pos < cli->argc ? cli->argv[cli->pos++] : NULL;
		if (!cli->arg)
			return bad_option(cli, "missing argument for option", text);
	}
	return o->id;
}

/* cli->rest points at the letter in argv[pos]; moves to the next argument at the bundle's end. */
static int next_short(struct cli *cli)
{
	char *bundle = cli->argv[cli->pos];
	const struct cmd_opt *o = find_short(cli->cmd, *cli->rest);

	if (!o)
		return bad_option(cli, "unrecognized option", bundle);
	if (o == &help_opt)
		return give_help(cli);
	cli->arg = NULL;
	if (*++cli->rest == '\0' || o->arg) {
		char *attached = cli->rest;

		cli->rest = NULL;
		cli->pos++;
		if (o->arg) {
			cli->arg = *attached              ? attached
				   : cli->pos < cli->argc ? cli->argv[cli->pos++]
							  : NULL;
			if (!cli->arg)
				return bad_option(cli, "missing argument for option", bundle);
		}
	}
	return o->id;
}

static int next(struct cli *cli)
{
	char *text;

	if (cli->rest)
		return next_short(cli);
	if (cli->pos < cli->argc && !cli->only_args && strcmp(cli->argv[cli->pos], "--") == 0) {
		cli->only_args = true;
		cli->pos++;
	}
	if (cli->pos >= cli->argc)
		return CLI_END;
	text = cli->argv[cli->pos];
	if (cli->only_args || text[0] != '-' || text[1] == '\0') {
		cli->arg = text;
		cli->pos++;
		return CLI_ARG;
	}
	if (text[1] == '-') {
		cli->pos++;
		return next_long(cli, text);
	}
	cli->rest = text + 1;
	return next_short(cli);
}

/* The options of all commands are dealt with here: true. */
static bool take_common(struct cli *cli, int *id)
{
	enum object_result result;

	switch (*id) {
	case CLI_IMAGE_OPTS:
		cli->image_opts = true;
		return true;
	case CLI_ALLOW_EXTERNAL:
		if (cli->n_allowed == CLI_ALLOWED_MAX) {
			*id = bad_option(cli, "too many files with --allow-external:", cli->arg);
			return false;
		}
		cli->allowed[cli->n_allowed++] = cli->arg;
		return true;
	case CLI_OBJECT:
		result = cli_object(cli, cli->arg);
		if (result == OBJECT_OK)
			return true;
		cli->pending_exit = result == OBJECT_HELP ? cli_finish_output(cli, 0) : 1;
		*id = CLI_EXIT;
		return false;
	default:
		return false;
	}
}

int cli_next(struct cli *cli)
{
	int id;

	do
		id = next(cli);
	while (take_common(cli, &id));
	return id;
}

int cli_exit_code(const struct cli *cli)
{
	return cli->pending_exit;
}

/* ---- help ---- */

#define HELP_COLUMN 30 /* width of what stands left of the explanations */

static void print_option(const struct cmd_opt *o)
{
	char left[64];
	int n;

	if (o->id < CLI_LONG && o->name)
		n = snprintf(left, sizeof(left), "-%c, --%s", o->id, o->name);
	else if (o->id < CLI_LONG)
		n = snprintf(left, sizeof(left), "-%c", o->id);
	else
		n = snprintf(left, sizeof(left), "    --%s", o->name);
	if (o->arg && n > 0 && (size_t)n < sizeof(left))
		n += snprintf(left + n, sizeof(left) - (size_t)n, " %s", o->arg);
	if (n > HELP_COLUMN)
		printf("  %s\n  %*s %s\n", left, HELP_COLUMN, "", o->help);
	else
		printf("  %-*s %s\n", HELP_COLUMN, left, o->help);
}

/* A command may have -h for something else. */
static void print_help_option(const struct cmd *cmd)
{
	struct cmd_opt o = help_opt;

	if (find_short(cmd, 'h') != &help_opt)
		o.id = CLI_LONG;
	print_option(&o);
}

void cli_help(const struct cli *cli)
{
	const struct cmd *cmd = cli->cmd;
	bool own = strcmp(cli->prog, "img") == 0;

	if (cli->peer) {
		cli_help_all(cli);
		return;
	}
	/* A helper that was called by a peer's name is a program without commands. */
	printf("Usage: %s%s%s [OPTIONS] %s\n%s.\n\nOptions:\n", cli->prog, own ? " " : "",
	       own ? cmd->name : "", cmd->args, cmd->summary);
	for (const struct cmd_opt *o = cmd->opts; o->id; o++) {
		if (o->help)
			print_option(o);
	}
	print_help_option(cmd);
	printf("\nExit status: %s.\n", cmd->exit_codes ? cmd->exit_codes : "0 success, 1 error");
}

/* ---- parsers ---- */

bool cli_size(const struct cli *cli, const char *what, const char *text, uint64_t *out)
{
	int r = size_parse(text, out, NULL);

	if (r == -ERANGE) {
		cli_error(cli, "Invalid %s specified. Must be between 0 and %" PRId64 ".", what,
			  INT64_MAX);
		return false;
	}
	if (r < 0) {
		cli_error(cli, "Invalid %s specified. You may use k, M, G, T, P or E suffixes for",
			  what);
		cli_error(cli, "kilobytes, megabytes, gigabytes, terabytes, petabytes and "
			       "exabytes.");
		return false;
	}
	return true;
}

bool cli_uint(const struct cli *cli, const char *what, const char *text, uint64_t min, uint64_t max,
	      uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	if (errno || end == text || *end || !strchr("0123456789", text[0]) || *out < min ||
	    *out > max) {
		cli_error(cli,
			  "Invalid %s '%s': a number from %" PRIu64 " to %" PRIu64 " is needed",
			  what, text, min, max);
		return false;
	}
	return true;
}

bool cli_output(const struct cli *cli, const char *text, bool *json)
{
	*json = strcmp(text, "json") == 0;
	if (!*json && strcmp(text, "human") != 0) {
		cli_error(cli, "--output must be used with human or json as argument.");
		return false;
	}
	return true;
}

static bool cache_flags(const char *text, unsigned *flags)
{
	static const struct {
		const char *name;
		unsigned flags;
	} modes[] = {
		{"writeback", 0},       {"none", IMG_DIRECT},
		{"off", IMG_DIRECT},    {"directsync", IMG_DIRECT | IMG_SYNC},
		{"unsafe", IMG_UNSAFE}, {"writethrough", IMG_SYNC},
	};

	for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
		if (strcmp(modes[i].name, text) == 0) {
			*flags = (*flags & ~(unsigned)(IMG_UNSAFE | IMG_DIRECT | IMG_SYNC)) |
				 modes[i].flags;
			return true;
		}
	}
	return false;
}

bool cli_cache(const struct cli *cli, const char *text, unsigned *flags)
{
	if (cache_flags(text, flags))
		return true;
	cli_error(cli, "Invalid cache option: %s", text);
	return false;
}

bool cli_source_cache(const struct cli *cli, const char *text, unsigned *flags)
{
	if (cache_flags(text, flags))
		return true;
	cli_error(cli, "Invalid source cache option: %s", text);
	return false;
}

bool cli_format(const struct cli *cli, const char *name)
{
	if (format_find(name))
		return true;
	cli_error(cli, "Unknown format '%s'", name);
	return false;
}

bool cli_driver(const struct cli *cli, const char *path, const char *name)
{
	if (format_find(name))
		return true;
	cli_error(cli, "Could not open '%s': Unknown driver '%s'", path, name);
	return false;
}

/* The text after "PREFIX", or the whole text when it does not begin so. */
static const char *after(const char *text, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(text, prefix, n) == 0 ? text + n : text;
}

void cli_open_error(const struct cli *cli, const char *path, const struct err *err)
{
	CLEANUP_FREE char *prefix = NULL, *name = NULL;
	const char *text = err->msg;

	if (strncmp(text, "--", 2) == 0) { /* not about the image */
		cli_error(cli, "%s", text);
		return;
	}
	/* The peer says it twice, once per layer; one is enough for people. */
	if (!cli->peer && asprintf(&prefix, "Could not open '%s': ", path) > 0)
		text = after(text, prefix);
	if (asprintf(&name, "%s: ", path) > 0)
		text = after(text, name);
	cli_error(cli, "Could not open '%s': %s", path, text);
}

/* The peer does not let a guest write a magic into an image that it took for raw, and says so. */
static void warn_probed_raw(const struct img *img, const struct img_open_args *args)
{
	if (!img->probed || !(args->flags & IMG_RDWR) || strcmp(img->fmt->name, "raw") != 0)
		return;
	fprintf(stderr,
		"WARNING: Image format was not specified for '%s' and probing guessed raw.\n"
		"         Automatically detecting the format is dangerous for raw images, write "
		"operations on block 0 will be restricted.\n"
		"         Specify the 'raw' format explicitly to remove the restrictions.\n",
		args->path);
}

bool cli_open_args(const struct cli *cli, struct img_open_args *args)
{
	if (cli->image_opts && args->format) {
		cli_error(cli, "--image-opts and --format are mutually exclusive");
		return false;
	}
	if (!*args->path && !cli->image_opts) {
		cli_error(cli, "Could not open '': The 'file' block driver requires a file name");
		return false;
	}
	args->flags |= cli->image_opts ? IMG_IMAGE_OPTS : IMG_USER_NAME;
	/* The peer opens what a backing name leads to, overlays over LVM volumes live by it. */
	if (cli->peer)
		args->flags |= IMG_NAMED_DEVICES | IMG_PEER_NAMES;
	args->job = cli->stop;
	args->creds = &cli->creds;
	args->allowed = cli->allowed;
	args->n_allowed = cli->n_allowed;
	return !args->format || cli_driver(cli, args->path, args->format);
}

struct img *cli_open(const struct cli *cli, const struct img_open_args *args)
{
	struct img_open_args how = *args;
	struct err err = {0};
	struct img *img = NULL;

	if (!cli_open_args(cli, &how))
		return NULL;
	if (cli->peer)
		how.flags &= ~(unsigned)IMG_NO_DATA; /* it wants the file to be there */
	if (img_open(&how, &img, &err) < 0) {
		cli_open_error(cli, args->path, &err);
		return NULL;
	}
	if (cli->peer)
		warn_probed_raw(img, args);
	return img;
}

const char *cli_new_path(const struct cli *cli, const char *name, unsigned *flags)
{
	struct err err = {0};
	const char *path;

	switch (describe_name(name, &path)) {
	case NAME_NBD:
		*flags |= TARGET_REMOTE;
		return path;
	case NAME_PATH:
		return path;
	default:
		describe_unknown(name, &err);
		cli_error(cli, "%s: %s", name, err.msg);
		return NULL;
	}
}

static int find_snapshot(const struct cli *cli, struct img *img, const char *text, unsigned *index,
			 struct err *err)
{
	if (!cli->peer)
		return snapshot_find(img, text, index, err);
	if (strncmp(text, "snapshot.", strlen("snapshot.")) == 0)
		return snapshot_find_exactly(img, text, index, err);
	return img_snapshot_find(img, text, index, err);
}

bool cli_view_snapshot(const struct cli *cli, struct img *img, const char *text)
{
	struct err err = {0};
	unsigned index = 0;
	int r = find_snapshot(cli, img, text, &index, &err);

	if (r == -EINVAL) {
		cli_error(cli, "%s", err.msg);
		cli_error(cli, "Failed in parsing snapshot param '%s'", text);
		return false;
	}
	if (r < 0) {
		cli_error(cli, "Failed to load snapshot: %s",
			  cli->peer ? "Can't find snapshot" : err.msg);
		return false;
	}
	if (img_snapshot_view(img, index, &err) == 0)
		return true;
	cli_error(cli, "Failed to load snapshot: %s", err.msg);
	return false;
}
