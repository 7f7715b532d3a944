/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The frame of the `img` program: one command = one file = one `struct cmd` in the table of
 * main.c. Usage text, --help, bash completion and the man page check are derived from the tables.
 *
 * Called by the name `qemu-img` (a symlink) the program is a drop-in for the peer: cli->peer is
 * set, messages are prefixed `qemu-img: `, files are overwritten, texts are the peer's.
 */
#ifndef IMGKIT_TOOLS_CLI_H
#define IMGKIT_TOOLS_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/creds.h"
#include "base/err.h"
#include "base/job.h"
#include "base/secrets.h"
#include "image/img.h"

/* One option. id below 128: its short letter; ids of long-only options start at CLI_LONG. */
struct cmd_opt {
	int id;
	const char *name; /* long name without dashes, or NULL */
	const char *arg;  /* metavariable, or NULL: a flag */
	const char *help; /* one line; NULL: another name that qemu-img 10 has, not listed */
};
#define CLI_LONG 256

/*
 * Options that mean the same wherever a table has them: cli_next sees to them, the command does not.
 * --image-opts: cli_open takes paths for block-driver descriptions.
 */
enum { CLI_IMAGE_OPTS = 1000, CLI_OBJECT, CLI_ALLOW_EXTERNAL };
#define CLI_OPT_IMAGE_OPTS                                                                 \
	{                                                                                  \
		CLI_IMAGE_OPTS, "image-opts", NULL, "FILE is driver=…,file.filename=…" \
	}
#define CLI_OPT_OBJECT                                               \
	{                                                            \
		CLI_OBJECT, "object", "OBJECT",                      \
			"secret,id=ID,data=TEXT|file=FILE; "         \
			"tls-creds-x509|tls-creds-psk,id=ID,dir=DIR" \
	}
/* Of commands that read or write the data of images. */
#define CLI_OPT_EXTERNAL                                                             \
	{                                                                            \
		CLI_ALLOW_EXTERNAL, "allow-external", "FILE",                        \
			"FILE may be an image's external data file; may be repeated" \
	}
#define CLI_ALLOWED_MAX 64

struct cli;

struct cmd {
	const char *name, *summary;
	const char *args;            /* positional arguments for the usage line */
	const struct cmd_opt *opts;  /* ends with id 0; -h/--help is implied */
	const char *exit_codes;      /* text for --help; NULL: "0 success, 1 error" */
	int (*run)(struct cli *cli); /* returns the exit code */
};

struct cli {
	const char *prog; /* "img", or "qemu-img": the prefix of messages */
	bool peer;        /* behave as the peer to the letter */
	const struct cmd *cmd;
	bool stdout_taken; /* set by a command whose data goes to stdout: progress uses stderr */
	int argc;          /* after the command's name */
	char **argv;
	bool image_opts; /* --image-opts was given */
	struct secrets secrets;
	struct creds creds;
	struct job *stop;      /* cancelled by the signals that a command deals with; main()'s */
	uint64_t output_limit; /* bytes that may be written; 0: --untrusted was not given */
	/* cli_next leaves here: */
	char *arg; /* the option's argument, or the positional argument */
	/* private to cli.c */
	const char *allowed[CLI_ALLOWED_MAX]; /* by --allow-external */
	unsigned n_allowed;
	int pos;
	bool only_args;
	char *rest;
	int pending_exit;
};

/* What a program does first: signals and standard streams. False: it said why it cannot go on. */
bool cli_begin(const struct cli *cli);

/*
 * The next option's id, CLI_ARG for a positional argument (in cli->arg; options and arguments may
 * be mixed, "--" ends options), CLI_END, or CLI_EXIT: something was printed (an error, or --help)
 * and the command must `return cli_exit_code(cli)`.
 */
enum { CLI_END = -1, CLI_EXIT = -2, CLI_ARG = -3 };
int cli_next(struct cli *cli);
int cli_exit_code(const struct cli *cli);

/* "PROG: text" on stderr. Return 1, so that `return cli_error(…)` reads well. */
int cli_error(const struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int cli_warn(const struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same for what is no fault, and not the result either. */
int cli_note(const struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A wrong command line: the text, then "Try 'PROG CMD --help' for more information". Returns 1. */
int cli_usage(const struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Text that an image or a file name brought along, on stdout: control characters and what is not
 * UTF-8 become \xNN, so that no image can steer a terminal. The peer's personality prints it raw.
 * cli_error and friends treat their text in the same way.
 */
void cli_put_text(const struct cli *cli, const char *text);
/* The same as a string, for columns; the caller frees. NULL: out of memory. */
char *cli_clean(const struct cli *cli, const char *text);

/* The command's help, and the program's, on stdout. */
void cli_help(const struct cli *cli);
void cli_help_all(const struct cli *cli);

/* Parsers that print their own error: true when fine. */
bool cli_size(const struct cli *cli, const char *what, const char *text, uint64_t *out);
bool cli_uint(const struct cli *cli, const char *what, const char *text, uint64_t min, uint64_t max,
	      uint64_t *out);
/* --output=human|json */
bool cli_output(const struct cli *cli, const char *text, bool *json);
/* -t, -T: none|off writeback writethrough directsync unsafe → IMG_UNSAFE, IMG_DIRECT, IMG_SYNC */
bool cli_cache(const struct cli *cli, const char *text, unsigned *flags);
/* The same, with the error for an image that is read beside the main one. */
bool cli_source_cache(const struct cli *cli, const char *text, unsigned *flags);
/* Known format name or an error; cli_driver's is that of opening `path` with it. */
bool cli_format(const struct cli *cli, const char *name);
bool cli_driver(const struct cli *cli, const char *path, const char *name);

/*
 * `-o help` for a new image of this format. with_target: also the options of the file that holds
 * it, for when the user named one.
 */
void cli_options_help(const struct cli *cli, const struct format *fmt, bool with_target);

/* The same for the options that amend can change. */
void cli_amend_help(const struct cli *cli, const struct format *fmt);

/* A JSON value in the peer's layout, on stdout; takes v. NULL: "out of memory". Returns 0 or 1. */
int cli_print_json(const struct cli *cli, json_t *v);

/*
 * Opens an image that the user named, or with --image-opts described, and prints "Could not open
 * 'X': …" when it fails (then NULL). cli_open_args only completes args for it; false: it said why not.
 */
struct img *cli_open(const struct cli *cli, const struct img_open_args *args);
bool cli_open_args(const struct cli *cli, struct img_open_args *args);
void cli_open_error(const struct cli *cli, const char *path, const struct err *err);

/*
 * Makes img, open read-only, a view of an internal snapshot. text: its id or name, or
 * `snapshot.id=ID,snapshot.name=NAME` (one or both). False: it said why not.
 */
bool cli_view_snapshot(const struct cli *cli, struct img *img, const char *text);

/*
 * --untrusted[=memory=SIZE,time=SECONDS,output=SIZE]: sets the limits, which cli_next does when it
 * meets the option. False: it said what is wrong.
 */
bool cli_confine(struct cli *cli, const char *text);
/* Lines that a command prints under --untrusted, at most. */
#define CLI_MAX_LINES (1u << 20)

/* --object. HELP: it printed what there is, BAD: what is wrong. */
enum object_result { OBJECT_OK, OBJECT_HELP, OBJECT_BAD };
enum object_result cli_object(struct cli *cli, const char *text);
/* What an --object says: its type (owned by the caller; NULL: none) and the rest. */
int cli_object_parse(const char *text, char **type, struct opts *rest, struct err *err);

/*
 * The path of a file that is to be made, out of how people write it: "file:PATH" is PATH; or the name
 * of an NBD export: then TARGET_REMOTE is added to *flags. NULL: it names something that is neither,
 * which it said.
 */
const char *cli_new_path(const struct cli *cli, const char *name, unsigned *flags);

/* Becomes the helper program `name`, which sits beside img or in libexec. Returns 1: it could not. */
int cli_run_helper(struct cli *cli, const char *name);

/* Flushes stdout and reports a write error (full disk, closed pipe): use as the last step. */
int cli_finish_output(const struct cli *cli, int code);

/*
 * A command that stopped because progress_stop returned a signal: says so and dies of that signal,
 * after its targets were cleaned up. `return cli_interrupted(cli, sig)` as the last step.
 */
int cli_interrupted(const struct cli *cli, int sig);

/* ---- progress and signals (progress.c) ---- */
enum progress_mode { PROGRESS_NONE, PROGRESS_AUTO, PROGRESS_PLAIN, PROGRESS_JSON };
struct progress;
/*
 * Watches job from a thread of its own: -p on a terminal shows bytes, rate, time left; not on a
 * terminal the peer's "    (12.00/100%)\r" line; JSON one object per line. SIGUSR1 prints one line
 * at any time; SIGINT, SIGTERM and SIGHUP set job->cancelled (a second one kills). what: "convert".
 * Never fails: without memory or thread there is just no display.
 */
struct progress *progress_start(const struct cli *cli, enum progress_mode mode, const char *what,
				struct job *job);
/* Ends the display (ok: at 100 %). Returns the signal that cancelled the job, or 0. */
int progress_stop(struct progress *p, bool ok);
/* Parses the argument of --progress=json|plain|auto|none; find says nothing when it is none. */
bool progress_mode_find(const char *text, enum progress_mode *mode);
bool progress_parse(const struct cli *cli, const char *text, enum progress_mode *mode);

extern const struct cmd cmd_create, cmd_info, cmd_check, cmd_convert, cmd_resize, cmd_snapshot,
	cmd_map, cmd_measure, cmd_compare, cmd_checksum, cmd_compact, cmd_sparsify, cmd_amend,
	cmd_bitmap, cmd_dd, cmd_commit, cmd_rebase, cmd_dedup, cmd_bench, cmd_doctor, cmd_cat,
	cmd_fsck, cmd_ls, cmd_stat, cmd_df, cmd_filesystems, cmd_rm, cmd_mkdir, cmd_ln, cmd_mv,
	cmd_chmod, cmd_chown, cmd_edit, cmd_cp, cmd_mkfs, cmd_tar, cmd_mirror, cmd_serve;

#endif
