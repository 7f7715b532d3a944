// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The `img` program: the table of commands, and what is said without one.
 *
 * Start-up does nothing but look up the command: no locale, no threads, no libraries to initialise;
 * `img info` is done in about a millisecond, most of it exec and the dynamic linker.
 */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "cli.h"
#include "imgkit.h"

/* The peer's version whose texts and behaviour the `qemu-img` personality has. */
#define PEER_VERSION "7.2.22"

/* In the order in which --help lists them: along the life of an image. */
static const struct cmd *const commands[] = {
	&cmd_create,   &cmd_info,    &cmd_check,       &cmd_convert, &cmd_resize,  &cmd_amend,
	&cmd_snapshot, &cmd_commit,  &cmd_rebase,      &cmd_map,     &cmd_measure, &cmd_compare,
	&cmd_checksum, &cmd_compact, &cmd_sparsify,    &cmd_dedup,   &cmd_bitmap,  &cmd_dd,
	&cmd_mirror,   &cmd_bench,   &cmd_filesystems, &cmd_df,      &cmd_ls,      &cmd_stat,
	&cmd_cat,      &cmd_cp,      &cmd_tar,         &cmd_edit,    &cmd_rm,      &cmd_mkdir,
	&cmd_ln,       &cmd_mv,      &cmd_chmod,       &cmd_chown,   &cmd_fsck,    &cmd_mkfs,
	&cmd_serve,    &cmd_doctor,
};

static const struct cmd *command_find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_LEN(commands); i++) {
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	}
	return NULL;
}

/* Levenshtein distance; names longer than the table are just far away. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[32], la = (unsigned)strlen(a), lb = (unsigned)strlen(b);

	if (la >= ARRAY_LEN(row) || lb >= ARRAY_LEN(row))
		return 99;
	for (unsigned j = 0; j <= lb; j++)
		row[j] = j;
	for (unsigned i = 1; i <= la; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= lb; j++) {
			unsigned best = diagonal + (a[i - 1] != b[j - 1]);

			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[lb];
}

static const char *command_near(const char *name)
{
	const char *near = NULL;
	unsigned best = 3; /* two typing errors at most */

	for (unsigned i = 0; i < ARRAY_LEN(commands); i++) {
		unsigned d = distance(name, commands[i]->name);

		if (d < best && d < strlen(name)) {
			best = d;
			near = commands[i]->name;
		}
	}
	return near;
}

static void print_formats(void)
{
	for (unsigned i = 0; formats[i]; i++)
		printf(" %s", formats[i]->name);
	putchar('\n');
}

static void print_version(const struct cli *cli)
{
	if (cli->peer)
		printf("qemu-img version %s (imgkit %s)\n", PEER_VERSION, IMGKIT_VERSION);
	else
		printf("img (imgkit) %s\n", IMGKIT_VERSION);
}

/* One line per command with all its options, as the peer's help has it. */
static void print_syntax(const struct cmd *cmd)
{
	printf("  %s", cmd->name);
	for (const struct cmd_opt *o = cmd->opts; o->id; o++) {
		if (!o->help)
			continue;
		if (o->id < CLI_LONG)
			printf(" [-%c%s%s]", o->id, o->arg ? " " : "", o->arg ? o->arg : "");
		else
			printf(" [--%s%s%s]", o->name, o->arg ? "=" : "", o->arg ? o->arg : "");
	}
	printf(" %s\n", cmd->args);
}

static void help_peer(const struct cli *cli)
{
	print_version(cli);
	printf("usage: qemu-img [standard options] command [command options]\n"
	       "Disk image utility\n\n"
	       "    '-h', '--help'       display this help and exit\n"
	       "    '-V', '--version'    output version information and exit\n\n"
	       "Command syntax:\n");
	for (unsigned i = 0; i < ARRAY_LEN(commands); i++)
		print_syntax(commands[i]);
	printf("\nSupported formats:");
	print_formats();
}

void cli_help_all(const struct cli *cli)
{
	if (cli->peer) {
		help_peer(cli);
		return;
	}
	printf("Usage: img COMMAND [OPTIONS] ARGUMENTS\n"
	       "Create, inspect, convert and check disk images.\n\n"
	       "Commands:\n");
	for (unsigned i = 0; i < ARRAY_LEN(commands); i++)
		printf("  %-12s %s\n", commands[i]->name, commands[i]->summary);
	printf("\nFormats:");
	print_formats();
	printf("\n'img COMMAND --help' lists the options of a command; 'img --version' prints the "
	       "version.\n"
	       "Called by the name qemu-img, the program behaves as qemu-img %s does.\n",
	       PEER_VERSION);
}

static void print_option_data(const struct cmd *cmd, const struct cmd_opt *o)
{
	char letter[3] = {'-', o->id < CLI_LONG ? (char)o->id : '\0'};

	printf("option\t%s\t%s\t%s%s\t%s\t%s\n", cmd->name, letter, o->name ? "--" : "-",
	       o->name ? o->name : "", o->arg ? o->arg : "-", o->help);
}

static void print_format_options(const char *kind, const struct format *fmt, const struct opt *o)
{
	for (; o && o->name; o++) {
		if (!o->refused)
			printf("%s\t%s\t%s\t%s\n", kind, fmt->name, o->name, o->help);
	}
}

/*
 * Everything that the bash completion and the test of the man pages need to know, one fact per
 * line, fields separated by tabs; a field that is not there is "-".
 */
static void print_completion_data(void)
{
	for (unsigned i = 0; i < ARRAY_LEN(commands); i++) {
		const struct cmd *cmd = commands[i];

		printf("command\t%s\t%s\t%s\n", cmd->name, cmd->args, cmd->summary);
		for (const struct cmd_opt *o = cmd->opts; o->id; o++) {
			if (o->help)
				print_option_data(cmd, o);
		}
	}
	for (unsigned i = 0; formats[i]; i++) {
		printf("format\t%s\t%s\n", formats[i]->name, formats[i]->summary);
		print_format_options("create-option", formats[i], formats[i]->create_opts);
		print_format_options("amend-option", formats[i], formats[i]->amend_opts);
	}
}

static int unknown_command(const struct cli *cli, const char *name)
{
	const char *near = cli->peer ? NULL : command_near(name);

	if (near)
		return cli_usage(cli, "Command not found: %s (did you mean '%s'?)", name, near);
	return cli_usage(cli, "Command not found: %s", name);
}

/* `img help [COMMAND]`; the peer has no such command. */
static int help_command(struct cli *cli, int argc, char **argv)
{
	if (argc == 0) {
		cli_help_all(cli);
	} else {
		cli->cmd = command_find(argv[0]);
		if (!cli->cmd)
			return unknown_command(cli, argv[0]);
		cli_help(cli);
	}
	return cli_finish_output(cli, 0);
}

/* Options before the command. Returns the exit code. */
static int global_option(const struct cli *cli, const char *option)
{
	if (strcmp(option, "-h") == 0 || strcmp(option, "--help") == 0)
		cli_help_all(cli);
	else if (strcmp(option, "-V") == 0 || strcmp(option, "--version") == 0)
		print_version(cli);
	else if (strcmp(option, "--completion-data") == 0)
		print_completion_data();
	else
		return cli_usage(cli, "unrecognized option '%s'", option);
	return cli_finish_output(cli, 0);
}

int main(int argc, char **argv)
{
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	const char *base = slash ? slash + 1 : argc > 0 ? argv[0] : "img";
	struct job stop = {0};
	struct cli cli = {.prog = "img", .stop = &stop};
	int code;

	if (strcmp(base, "qemu-img") == 0 || strcmp(base, "qemu-nbd") == 0) {
		cli.prog = base;
		cli.peer = true;
	}
	if (!cli_begin(&cli))
		return 1;
	if (strcmp(base, "qemu-nbd") == 0) {
		cli.argc = argc - 1;
		cli.argv = argv + 1;
		return cmd_serve.run(&cli);
	}
	if (argc < 2)
		return cli_usage(&cli, "Not enough arguments");
	if (argv[1][0] == '-')
		return global_option(&cli, argv[1]);
	if (!cli.peer && strcmp(argv[1], "help") == 0)
		return help_command(&cli, argc - 2, argv + 2);
	cli.cmd = command_find(argv[1]);
	if (!cli.cmd)
		return unknown_command(&cli, argv[1]);
	cli.argc = argc - 2;
	cli.argv = argv + 2;
	code = cli.cmd->run(&cli);
	secrets_free(&cli.secrets);
	creds_free(&cli.creds);
	return code;
}
