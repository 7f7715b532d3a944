// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img fsck: Debian's static e2fsck, run in a cage on one file system of a disk.
 *
 * The agent says where the file system is; e2fsck then sees that part of the disk, and nothing else.
 * What it prints is text that the file system has had a hand in: it is cleaned, line by line.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "appliance/cage.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "guest.h"
#include "vmm/memory.h"

#define E2FSCK      "/sbin/e2fsck.static"
#define PROGRAM_MAX (64 << 20) /* bytes */
#define LINES_MAX   10000u     /* of the JSON output */
#define MiB         (UINT64_C(1) << 20)

/* Exit codes: those of e2fsck. */
enum { FSCK_FIXED = 1, FSCK_REBOOT = 2, FSCK_LEFT = 4, FSCK_FAILED = 8, FSCK_USAGE = 16 };

enum { FSCK_PROGRAM = GUEST_NEXT };

/* clang-format off */
static const struct cmd_opt options[] = {
	{'n', "check", NULL, "only check, and change nothing (default)"},
	{'p', "preen", NULL, "repair what can be repaired without a question"},
	{'y', "yes", NULL, "repair everything"},
	{'f', "force", NULL, "check it even if it is marked clean"},
	{'m', "device", "DEV", "the file system: sda1, LABEL=…, UUID=… (default: the only one)"},
	{'b', "superblock", "N", "use the backup superblock in block N"},
	{'B', "blocksize", "BYTES", "the size of a block, for -b"},
	{FSCK_PROGRAM, "program", "FILE", "the static e2fsck to run (default: " E2FSCK ")"},
	{GUEST_OUTPUT, "output", "human|json", "how to print the result"},
	{GUEST_PROGRESS, "progress", "MODE", "show progress: auto, plain, json or none"},
	GUEST_OPT_FORMAT(GUEST_FORMAT),
	GUEST_OPT_SHARE,
	GUEST_OPTIONS_CAGE,
	{0},
};
/* clang-format on */

struct fsck {
	struct cli *cli;
	struct guest_opts opts;
	struct guest_place place;
	const char *image, *device, *superblock, *block_size, *program;
	char mode; /* n, p or y */
	bool force, json;
	enum progress_mode progress;

	struct agent_volume v;
	char name[32]; /* "sda1" */
	void *elf;     /* the mapped program */
	size_t elf_size;

	struct job job;
	json_t *lines;
	char line[4096]; /* the last one, which has not come to its end */
	size_t len;
};

/* ---- the command line ---- */

static bool take_mode(struct fsck *f, char mode)
{
	if (f->mode && f->mode != mode) {
		cli_usage(f->cli, "Only one of -n, -p and -y can be used");
		return false;
	}
	f->mode = mode;
	return true;
}

static bool take_number(struct fsck *f, const char *what, const char **out)
{
	uint64_t n;

	*out = f->cli->arg;
	return cli_uint(f->cli, what, f->cli->arg, 0, UINT64_C(1) << 48, &n);
}

static bool take_image(struct fsck *f)
{
	if (f->image) {
		cli_usage(f->cli, "Expecting one image file name");
		return false;
	}
	f->image = f->cli->arg;
	return true;
}

static bool take_option(struct fsck *f, int id)
{
	struct cli *cli = f->cli;
	bool known;

	switch (id) {
	case 'n':
	case 'p':
	case 'y':
		return take_mode(f, (char)id);
	case 'f':
		f->force = true;
		return true;
	case 'm':
		f->device = cli->arg;
		return true;
	case 'b':
		return take_number(f, "superblock", &f->superblock);
	case 'B':
		return take_number(f, "block size", &f->block_size);
	case FSCK_PROGRAM:
		f->program = cli->arg;
		return true;
	case GUEST_OUTPUT:
		return cli_output(cli, cli->arg, &f->json);
	case GUEST_PROGRESS:
		return progress_parse(cli, cli->arg, &f->progress);
	case CLI_ARG:
		return take_image(f);
	default:
		return guest_option(cli, &f->opts, id, &known);
	}
}

/* ---- what is checked, and by what ---- */

static bool is_ext(const struct agent_volume *v)
{
	return !strcmp(v->type, "ext2") || !strcmp(v->type, "ext3") || !strcmp(v->type, "ext4") ||
	       !strcmp(v->type, "ext4dev");
}

/* The one that was named, or the only one that e2fsck knows. */
static bool choose(struct fsck *f, const struct agent_volume *v, unsigned n)
{
	const struct agent_volume *found = NULL;

	if (f->device) {
		found = guest_find_volume(f->cli, v, n, f->device);
		/* Of one that is too broken to be recognised e2fsck knows backups. */
		if (found && !is_ext(found) && *found->type) {
			cli_error(f->cli, "%s holds %s: e2fsck checks ext2, ext3 and ext4",
				  f->device, found->type);
			found = NULL;
		}
	}
	for (unsigned i = 0; i < n && !f->device; i++) {
		if (!is_ext(&v[i]) || !v[i].size)
			continue;
		if (found) {
			cli_error(f->cli, "%s: there are several file systems; name one with -m",
				  f->image);
			return false;
		}
		found = &v[i];
	}
	/* A part of no bytes would stand for all of the disk. */
	if (found && !found->size) {
		cli_error(f->cli, "%s is empty", f->device);
		return false;
	}
	if (found)
		f->v = *found;
	else if (!f->device)
		cli_error(f->cli, "%s: there is no ext2, ext3 or ext4 file system", f->image);
	return found;
}

static bool find_volume(struct fsck *f)
{
	CLEANUP_FREE struct agent_volume *v = NULL;
	struct appliance *a = NULL;
	struct err err = {0};
	unsigned n = 0;
	bool fine;

	if (!guest_launch(f->cli, &f->opts, &f->place, false, &a))
		return false;
	fine = appliance_volumes(a, &v, &n, &err) == 0;
	if (!fine)
		cli_error(f->cli, "%s: %s", f->image, err.msg);
	else
		fine = choose(f, v, n);
	guest_volume_name(&f->v, f->name, sizeof(f->name));
	return guest_close(f->cli, a, 0) == 0 && fine;
}

static bool load_program(struct fsck *f)
{
	const char *path = f->program ? f->program : E2FSCK;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	bool fine;

	if (fd < 0 && errno == ENOENT && !f->program) {
		cli_error(f->cli, "There is no %s: install it with 'apt-get install e2fsck-static'",
			  path);
		return false;
	}
	fine = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 &&
	       st.st_size <= PROGRAM_MAX;
	if (fine) {
		f->elf_size = (size_t)st.st_size;
		f->elf = mmap(NULL, f->elf_size, PROT_READ, MAP_PRIVATE, fd, 0);
		fine = f->elf != MAP_FAILED;
	}
	if (!fine)
		cli_error(f->cli, "%s: %s", path, fd < 0 ? strerror(errno) : "it is no program");
	if (fd >= 0)
		close(fd);
	return fine;
}

/*
 * e2fsck keeps some bitmaps of blocks and of inodes, and some words for each directory: a
 * thousandth of the file system is plenty. What it does not touch, the host does not give.
 */
static uint64_t memory_for(const struct agent_volume *v)
{
	uint64_t need = 128 * MiB + v->size / 1024;

	return min_u64(round_up(need, 2 * MiB), CELL_RAM_MAX);
}

/* ---- what e2fsck says ---- */

/* What ends with a carriage return is its bar, "NAME: |====   / 12.3%". */
static void take_bar(struct fsck *f)
{
	const char *percent;
	double part;

	f->line[f->len] = 0;
	f->len = 0;
	percent = strrchr(f->line, '%');
	while (percent && percent > f->line && strchr("0123456789.", percent[-1]))
		percent--;
	part = percent ? strtod(percent, NULL) : -1;
	if (part >= 0 && part <= 100)
		atomic_store(&f->job.done, (uint64_t)(part / 100 * (double)f->v.size));
}

static void end_line(struct fsck *f)
{
	char *text;

	f->line[f->len] = 0;
	f->len = 0;
	if (!f->json) {
		cli_put_text(f->cli, f->line);
		putchar('\n');
	} else if (json_array_size(f->lines) < LINES_MAX) {
		text = cli_clean(f->cli, f->line);
		json_array_append_new(f->lines, json_string(text ? text : "?"));
		free(text);
	}
}

static void take_text(struct fsck *f, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		/* The marks around its bar. */
		if (p[i] == '\001' || p[i] == '\002' || p[i] == '\0')
			continue;
		if (p[i] == '\r' && f->progress != PROGRESS_NONE) {
			take_bar(f);
			continue;
		}
		if (p[i] == '\n' || f->len + 1 == sizeof(f->line))
			end_line(f);
		if (p[i] != '\n')
			f->line[f->len++] = p[i];
	}
}

/* Until it says no more. False: the user wants an end. */
static bool listen_to(struct fsck *f, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char buf[16384];
	ssize_t n;

	for (;;) {
		if (job_cancelled(&f->job))
			return false;
		if (poll(&p, 1, 100) == 0) {
			if (!f->json)
				fflush(stdout);
			continue;
		}
		n = read(fd, buf, sizeof(buf));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		take_text(f, buf, (size_t)n);
	}
	if (f->len)
		end_line(f);
	return true;
}

/* ---- running it ---- */

#define ARGS_MAX 12

static void make_args(const struct fsck *f, const char *device, char mode[3],
		      const char *args[ARGS_MAX])
{
	unsigned n = 0;

	mode[0] = '-';
	mode[1] = f->mode;
	mode[2] = 0;
	args[n++] = "e2fsck";
	args[n++] = mode;
	if (f->force)
		args[n++] = "-f";
	if (f->progress != PROGRESS_NONE) {
		args[n++] = "-C";
		args[n++] = "0";
	}
	if (f->superblock) {
		args[n++] = "-b";
		args[n++] = f->superblock;
	}
	if (f->block_size) {
		args[n++] = "-B";
		args[n++] = f->block_size;
	}
	args[n++] = device;
	args[n] = NULL;
}

static int start(struct fsck *f, struct cage *cage, struct err *err)
{
	char device[40], mode[3];
	const char *args[ARGS_MAX];
	struct cage_disk disk = {
		.args = {.path = f->place.image,
			 .format = f->opts.format,
			 .flags = f->opts.flags | (f->mode == 'n' ? 0 : IMG_RDWR),
			 .snapshot = f->place.snapshot},
		.offset = f->v.offset,
		.size = f->v.size,
		.name = device,
	};
	const struct cage_config config = {
		.disks = &disk,
		.n_disks = 1,
		.program = f->elf,
		.program_size = f->elf_size,
		.argv = args,
		.small_world = true,
		.one_stream = true,
		.memory = f->opts.memory ? f->opts.memory : memory_for(&f->v),
		.isolation = f->opts.isolation,
	};

	if (!cli_open_args(f->cli, &disk.args))
		return -EINVAL;
	snprintf(device, sizeof(device), "/dev/%s", f->name);
	make_args(f, device, mode, args);
	return cage_start(cage, &config, err);
}

static const char *verdict(int status)
{
	if (status & ~(FSCK_FIXED | FSCK_REBOOT | FSCK_LEFT))
		return "failed";
	if (status & FSCK_LEFT)
		return "errors";
	return status ? "repaired" : "clean";
}

static int print_json(struct fsck *f, const char *isolation, int status)
{
	json_t *o = json_object();

	json_object_set_new(o, "device", json_string(f->name));
	json_object_set_new(o, "type", json_string(f->v.type));
	json_object_set_new(o, "isolation", json_string(isolation));
	json_object_set_new(o, "result", json_string(verdict(status)));
	json_object_set_new(o, "exit-code", json_integer(status));
	json_object_set(o, "messages", f->lines);
	return cli_print_json(f->cli, o) ? FSCK_FAILED : status;
}

static int check(struct fsck *f)
{
	struct cage cage;
	struct err err = {0};
	struct progress *progress;
	int status = 0, sig, r = 0;
	bool heard;

	if (start(f, &cage, &err) < 0) {
		if (err.msg[0])
			cli_error(f->cli, "%s: %s", f->image, err.msg);
		return FSCK_FAILED;
	}
	job_total(&f->job, f->v.size);
	progress = progress_start(f->cli, f->progress, "fsck", &f->job);
	heard = listen_to(f, cage.out);
	if (heard)
		r = cage_wait(&cage, &status, &err);
	else
		cage_kill(&cage);
	sig = progress_stop(progress, heard && r == 0);
	if (!heard)
		return cli_interrupted(f->cli, sig);
	if (r < 0) {
		cli_error(f->cli, "%s: %s", f->image, err.msg);
		return FSCK_FAILED;
	}
	return f->json ? print_json(f, cage.isolation, status) : status;
}

static int prepared(struct fsck *f)
{
	if (!f->mode)
		f->mode = 'n';
	if (!guest_place_parse(f->cli, f->image, &f->place))
		return FSCK_FAILED;
	if (f->place.path) {
		cli_usage(f->cli, "'%s': an image is checked, not a file in it", f->image);
		return FSCK_USAGE;
	}
	if (f->place.snapshot && f->mode != 'n') {
		cli_error(f->cli, "%s: a snapshot cannot be changed", f->image);
		return FSCK_FAILED;
	}
	if (!load_program(f) || !find_volume(f))
		return FSCK_FAILED;
	return check(f);
}

static int run(struct cli *cli)
{
	struct fsck f = {.cli = cli, .progress = PROGRESS_NONE};
	int id, code;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli) ? FSCK_USAGE : 0;
		if (!take_option(&f, id))
			return FSCK_USAGE;
	}
	if (!f.image) {
		cli_usage(cli, "Expecting one image file name");
		return FSCK_USAGE;
	}
	cli->stdout_taken = true; /* by what e2fsck says */
	f.lines = json_array();
	code = prepared(&f);
	json_decref(f.lines);
	if (f.elf)
		munmap(f.elf, f.elf_size);
	guest_place_free(&f.place);
	return cli_finish_output(cli, 0) ? FSCK_FAILED : code;
}

const struct cmd cmd_fsck = {
	.name = "fsck",
	.summary = "Check and repair a guest's ext2, ext3 or ext4 file system",
	.args = "IMAGE",
	.opts = options,
	.exit_codes = "0 no errors; 1 errors repaired; 4 errors left; 8 it failed; 16 wrong usage",
	.run = run,
};
