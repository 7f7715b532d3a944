// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Commands whose agent is somebody else's: tests/guests/liar.c runs in the cage in its place. Each
 * command ends with its code for a failure and a message that no terminal obeys.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "appliance/blob.h"
#include "base/bytes.h"
#include "cli.h"
#include "tell.h"

static char *liar; /* the program, in place of the agent that the library carries */
static size_t liar_size;

const void *agent_blob(size_t *size)
{
	*size = liar_size;
	return liar;
}

/* Of main.c, which is not here. */
void cli_help_all(const struct cli *cli)
{
	(void)cli;
}

static void load_liar(void)
{
	const char *top = getenv("TOP");
	char path[4096];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/build/agent/guest-liar", top ? top : ".");
	fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st) < 0)
		die("%s: %s", path, strerror(errno));
	liar_size = (size_t)st.st_size;
	liar = malloc(liar_size);
	if (!liar || read(fd, liar, liar_size) != st.st_size)
		die("%s cannot be read", path);
	close(fd);
}

static void set_lie(char which)
{
	char *at = memmem(liar, liar_size, "LIE:", 4);

	if (!at)
		die("the liar has no mark");
	at[4] = which;
}

static const struct {
	const struct cmd *cmd;
	const char *args[4];
	int code;
} commands[] = {
	{&cmd_filesystems, {"disk"}, 1}, {&cmd_ls, {"disk:/"}, 1},
	{&cmd_cat, {"disk:/f"}, 1},      {&cmd_stat, {"disk:/f"}, 1},
	{&cmd_df, {"disk"}, 1},          {&cmd_cp, {"disk:/f", "out"}, 1},
	{&cmd_mkdir, {"disk:/d"}, 1},    {&cmd_rm, {"disk:/f"}, 1},
	{&cmd_mkfs, {"disk"}, 1},        {&cmd_fsck, {"disk"}, 8},
};

static _Noreturn void run_command(size_t i, const char *isolation)
{
	char *argv[8];
	struct cli cli = {.prog = "img", .cmd = commands[i].cmd, .argv = argv};
	int out = open("out.txt", O_WRONLY | O_CREAT | O_TRUNC, 0644);
	int err = open("err.txt", O_WRONLY | O_CREAT | O_TRUNC, 0644);

	dup2(out, STDOUT_FILENO);
	dup2(err, STDERR_FILENO);
	argv[cli.argc++] = strdup(isolation);
	for (size_t k = 0; k < ARRAY_LEN(commands[i].args) && commands[i].args[k]; k++)
		argv[cli.argc++] = strdup(commands[i].args[k]);
	exit(commands[i].cmd->run(&cli));
}

/* A message, and nothing in it or in the output that a terminal would obey. */
static void judge_output(void)
{
	char text[16384];

	for (int k = 0; k < 2; k++) {
		int fd = open(k ? "err.txt" : "out.txt", O_RDONLY);
		ssize_t n = read(fd, text, sizeof(text) - 1);

		close(fd);
		expect(n >= 0);
		text[n] = 0;
		for (ssize_t i = 0; i < n; i++)
			if ((unsigned char)text[i] < ' ' && text[i] != '\n' && text[i] != '\t')
				die("byte 0x%02x is printed: %s", (unsigned char)text[i], text);
		if (k && (strncmp(text, "img: ", 5) != 0 || n < 10 || text[n - 1] != '\n'))
			die("that is no message: '%s'", text);
	}
}

static void one(size_t i, char which, const char *isolation)
{
	int status;
	pid_t pid;

	context("img %s %s, lie %c", commands[i].cmd->name, isolation, which);
	set_lie(which);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		alarm(100);
		run_command(i, isolation);
	}
	if (waitpid(pid, &status, 0) != pid)
		die("waitpid");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != commands[i].code)
		die("status 0x%x", (unsigned)status);
	judge_output();
	unlink("out");
}

int main(void)
{
	bool vm = access("/dev/kvm", R_OK | W_OK) == 0;

	load_liar();
	close(open("disk", O_WRONLY | O_CREAT | O_TRUNC, 0644));
	if (truncate("disk", 1 << 20) < 0)
		die("no disk");
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		for (const char *which = "0123456789abcde"; *which; which++) {
			one(i, *which, "--isolation=process");
			if (vm && i < 2)
				one(i, *which, "--isolation=vm");
		}
	return 0;
}
