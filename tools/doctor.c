// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img doctor: what this host offers, what imgkit will use of it, and what to do about the rest.
 *
 * Each line is one check: a function that fills a struct finding. Nothing is changed, and nothing
 * but the device nodes and /proc is opened. The cells are really started.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libdeflate.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "appliance/blob.h"
#include "appliance/cage.h"
#include "base/bytes.h"
#include "base/json.h"
#include "base/sandbox.h"
#include "cli.h"

enum { OUTPUT = CLI_LONG };

static const struct cmd_opt options[] = {
	{OUTPUT, "output", "FORMAT", "human (default) or json"},
	{0},
};

enum health { GOOD, FAIR, BAD };
static const char *const health_names[] = {"ok", "limited", "missing"};

struct finding {
	enum health health;
	char what[256];   /* one line */
	char advice[256]; /* one line, or "" */
};

#define SAY(f, ...)    ((void)snprintf((f)->what, sizeof((f)->what), __VA_ARGS__))
#define ADVISE(f, ...) ((void)snprintf((f)->advice, sizeof((f)->advice), __VA_ARGS__))

/* Starts and ends a cell that has no disk. Milliseconds, or a negative errno. */
static double try_cell(enum cell_isolation isolation, struct err *err)
{
	static const char *const argv[] = {"agent", NULL};
	struct cage_config config = {.argv = argv, .isolation = isolation};
	struct timespec a, b;
	struct cage cage;
	int status, r;

	config.program = agent_blob(&config.program_size);
	clock_gettime(CLOCK_MONOTONIC, &a);
	r = cage_start(&cage, &config, err);
	if (!r)
		r = cage_wait(&cage, &status, err);
	clock_gettime(CLOCK_MONOTONIC, &b);
	if (r < 0)
		return r;
	return (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
}

/* Whether /proc/cpuinfo has one of the flags of hardware virtualisation. */
static bool cpu_virtualises(void)
{
	char line[8192];
	bool found = false;
	FILE *f = fopen("/proc/cpuinfo", "re");

	while (f && !found && fgets(line, sizeof(line), f))
		found = !strncmp(line, "flags", 5) &&
			(strstr(line, " vmx") || strstr(line, " svm"));
	if (f)
		fclose(f);
	return found;
}

static void check_kvm(struct finding *f)
{
	struct err err = {0};
	double ms;

	if (access("/dev/kvm", F_OK) < 0) {
		f->health = BAD;
		SAY(f, "there is no /dev/kvm");
		ADVISE(f, "load the module kvm_intel or kvm_amd, and enable virtualisation in the "
			  "firmware; until then cells are processes");
		return;
	}
	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		f->health = BAD;
		SAY(f, "/dev/kvm may not be opened by this user");
		ADVISE(f, "join the group of /dev/kvm: adduser USER kvm; until then cells are "
			  "processes");
		return;
	}
	ms = try_cell(CELL_VM, &err);
	if (ms < 0) {
		f->health = BAD;
		SAY(f, "a cell cannot be a VM: %.200s", err.msg);
		ADVISE(f, "cells are processes: --isolation=process");
		return;
	}
	SAY(f, "cells are VMs; one starts and ends in %.1f ms", ms);
	if (!cpu_virtualises()) {
		f->health = FAIR;
		SAY(f, "cells are VMs of a software KVM; one starts and ends in %.1f ms", ms);
		ADVISE(f, "the CPU shows no hardware virtualisation: guests with a kernel of their "
			  "own would be slow");
	}
}

static void check_process(struct finding *f)
{
	struct err err = {0};
	double ms = try_cell(CELL_PROCESS, &err);

	if (ms >= 0) {
		SAY(f, "cells can be processes; one starts and ends in %.1f ms", ms);
		return;
	}
	f->health = BAD;
	SAY(f, "a cell cannot be a process: %.200s", err.msg);
	ADVISE(f, "kernel.yama.ptrace_scope must not be 3, and containers must allow ptrace");
}

static void check_seccomp(struct finding *f)
{
	SAY(f, "filters of system calls are there");
	if (sandbox_seccomp())
		return;
	f->health = BAD;
	SAY(f, "the kernel cannot filter system calls");
	ADVISE(f, "a kernel with CONFIG_SECCOMP_FILTER is needed: no cell runs without");
}

static void check_landlock(struct finding *f)
{
	int version = sandbox_landlock();

	SAY(f, "version %d of its interface", version);
	if (version > 0)
		return;
	f->health = FAIR;
	SAY(f, "the kernel has no Landlock");
	ADVISE(f, "Linux 5.13 with lsm=landlock,…: cells are closed off by seccomp alone");
}

static void check_fuse(struct finding *f)
{
	if (access("/dev/fuse", R_OK | W_OK) == 0) {
		SAY(f, "/dev/fuse can be opened");
		return;
	}
	f->health = BAD;
	SAY(f, "/dev/fuse: %s", strerror(errno));
	ADVISE(f, "load the module fuse, and install fuse3");
}

static void check_namespaces(struct finding *f)
{
	FILE *file = fopen("/proc/sys/user/max_user_namespaces", "re");
	unsigned long long max = 0;

	if (file) {
		if (fscanf(file, "%llu", &max) != 1)
			max = 0;
		fclose(file);
	}
	SAY(f, "up to %llu for this user", max);
	if (max)
		return;
	f->health = FAIR;
	SAY(f, "users may not make any");
	ADVISE(f, "sysctl user.max_user_namespaces=…; imgkit does not need them");
}

static void check_fsck(struct finding *f)
{
	if (access("/sbin/e2fsck.static", R_OK) == 0) {
		SAY(f, "/sbin/e2fsck.static is there");
		return;
	}
	f->health = FAIR;
	SAY(f, "there is no /sbin/e2fsck.static");
	ADVISE(f, "apt-get install e2fsck-static: img fsck runs it in a cell");
}

static void check_kernel(struct finding *f)
{
	struct utsname u;

	uname(&u);
	SAY(f, "%s %s on %s", u.sysname, u.release, u.machine);
	if (strcmp(u.machine, "x86_64") == 0)
		return;
	f->health = BAD;
	ADVISE(f, "cells are there for x86_64 only");
}

/* What this program was built with; the agent has its own, of the same machine. */
static void check_libraries(struct finding *f)
{
	const struct scmp_version *seccomp = seccomp_version();

	SAY(f, "jansson %s, libdeflate %s, libseccomp %u.%u.%u, zlib %s, zstd %s",
	    jansson_version_str(), LIBDEFLATE_VERSION_STRING, seccomp->major, seccomp->minor,
	    seccomp->micro, zlibVersion(), ZSTD_versionString());
}

static const struct {
	const char *name;
	void (*run)(struct finding *f);
} checks[] = {
	{"kernel", check_kernel},       {"kvm", check_kvm},
	{"process", check_process},     {"seccomp", check_seccomp},
	{"landlock", check_landlock},   {"user-namespaces", check_namespaces},
	{"fuse", check_fuse},           {"e2fsck", check_fsck},
	{"libraries", check_libraries},
};

static int add_json(json_t *list, const char *name, const struct finding *f)
{
	json_t *o = json_object();
	int r = json_set_text(o, "name", name);

	r |= json_set_text(o, "health", health_names[f->health]);
	r |= json_set_text(o, "text", f->what);
	if (*f->advice)
		r |= json_set_text(o, "advice", f->advice);
	return r | json_array_append_new(list, o);
}

static void print_human(const char *name, const struct finding *f)
{
	printf("%-16s %-8s %s\n", name, health_names[f->health], f->what);
	if (*f->advice)
		printf("%25s→ %s\n", "", f->advice);
}

static int run(struct cli *cli)
{
	json_t *list = NULL;
	bool json = false;
	int id, bad = 0;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (id == CLI_ARG)
			return cli_usage(cli, "Unexpected argument '%s'", cli->arg);
		if (!cli_output(cli, cli->arg, &json))
			return 1;
	}
	if (json)
		list = json_array();
	for (size_t i = 0; i < ARRAY_LEN(checks); i++) {
		struct finding f = {0};

		checks[i].run(&f);
		if (json)
			bad |= add_json(list, checks[i].name, &f);
		else
			print_human(checks[i].name, &f);
	}
	if (json && bad) {
		json_decref(list);
		list = NULL;
	}
	return cli_finish_output(cli, json ? cli_print_json(cli, list) : 0);
}

const struct cmd cmd_doctor = {
	.name = "doctor",
	.summary = "Tell what this host offers to imgkit",
	.args = "",
	.opts = options,
	.exit_codes = "0 told, whatever it is; 1 error",
	.run = run,
};
