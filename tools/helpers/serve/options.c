// SPDX-License-Identifier: GPL-2.0-or-later
/* img-serve: the command line. What contradicts itself is refused before anything is opened. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "helpers/serve/parts.h"
#include "imgkit.h"

#define DEFAULT_HANDSHAKE 10u /* seconds */

/* Says what is wrong with the command line. */
#define bad(s, ...) (cli_usage((s)->cli, __VA_ARGS__), false)

/* ---- single options ---- */

static bool append(struct serve *s, const char **list, unsigned *n)
{
	if (*n == SERVE_MAX)
		return bad(s, "Too many of them: %s", s->cli->arg);
	list[(*n)++] = s->cli->arg;
	return true;
}

static bool number(struct serve *s, const char *what, uint64_t min, uint64_t max, unsigned *out)
{
	uint64_t n;

	if (!cli_uint(s->cli, what, s->cli->arg, min, max, &n))
		return false;
	*out = (unsigned)n;
	return true;
}

static bool rate(struct serve *s, const char *what, uint64_t *out)
{
	if (!cli_size(s->cli, what, s->cli->arg, out))
		return false;
	return *out ? true : bad(s, "A %s of 0 would be none at all", what);
}

/* 0 means as much as there is, and is not for users to say. */
static bool length(struct serve *s)
{
	if (!cli_size(s->cli, "size", s->cli->arg, &s->args.size))
		return false;
	return s->args.size ? true : bad(s, "A size of 0 would be no disk");
}

static bool seconds(struct serve *s, const char *what, unsigned *ms)
{
	if (!number(s, what, 1, INT_MAX / 1000, ms))
		return false;
	*ms *= 1000;
	return true;
}

static bool parse_fd(struct serve *s)
{
	unsigned fd;

	if (!number(s, "descriptor", 3, INT_MAX, &fd))
		return false;
	if (s->n_fds == SERVE_MAX)
		return bad(s, "Too many of them: %s", s->cli->arg);
	s->fds[s->n_fds++] = (int)fd;
	return true;
}

static bool parse_discard(struct serve *s)
{
	const char *text = s->cli->arg;
	bool unmap = strcmp(text, "unmap") == 0 || strcmp(text, "on") == 0;

	if (!unmap && strcmp(text, "ignore") != 0 && strcmp(text, "off") != 0)
		return bad(s, "Invalid discard mode: %s", text);
	s->discard = unmap;
	s->flags = (s->flags & ~(unsigned)IMG_NO_DISCARD) | (unmap ? 0 : IMG_NO_DISCARD);
	return true;
}

static bool parse_detect(struct serve *s)
{
	const char *text = s->cli->arg;

	s->flags &= ~(unsigned)(IMG_DETECT_ZEROES | IMG_DETECT_UNMAP);
	if (strcmp(text, "on") == 0)
		s->flags |= IMG_DETECT_ZEROES;
	else if (strcmp(text, "unmap") == 0)
		s->flags |= IMG_DETECT_ZEROES | IMG_DETECT_UNMAP;
	else if (strcmp(text, "off") != 0)
		return bad(s, "Invalid detect-zeroes mode: %s", text);
	return true;
}

/* How requests are made is our own business; who calls us qemu-nbd may say what he is used to. */
static bool parse_aio(struct serve *s)
{
	const char *text = s->cli->arg;
	bool other = strcmp(text, "native") == 0 || strcmp(text, "io_uring") == 0;

	if (strcmp(text, "threads") == 0 || (other && s->cli->peer))
		return true;
	if (other)
		return bad(s, "--aio=%s: requests are made by threads here", text);
	return bad(s, "Invalid aio mode: %s", text);
}

static bool parse_tls(struct serve *s)
{
	static const char *const words[] = {"off", "on", "required"};

	s->tls_given = true;
	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		if (strcmp(s->cli->arg, words[i]) == 0) {
			s->config.tls_mode = (enum server_tls)(SERVER_TLS_OFF + i);
			return true;
		}
	}
	return bad(s, "--tls must be off, on or required");
}

static bool parse_object(struct serve *s)
{
	struct serve_object *o = &s->object[s->n_objects];
	struct err err = {0};

	if (s->n_objects == SERVE_MAX)
		return bad(s, "Too many objects: %s", s->cli->arg);
	if (cli_object_parse(s->cli->arg, &o->type, &o->opts, &err) < 0 || !o->type ||
	    !serve_has_object(o->type)) {
		opts_free(&o->opts);
		free(take(o->type));
		return cli_object(s->cli, s->cli->arg) == OBJECT_OK;
	}
	s->n_objects++; /* from now on it is freed */
	o->id = opts_get(&o->opts, "id");
	return o->id ? true : bad(s, "%s: Parameter 'id' is missing", s->cli->arg);
}

static bool parse_file(struct serve *s)
{
	if (s->n_images == SERVE_MAX)
		return bad(s, "Too many images: %s", s->cli->arg);
	s->image[s->n_images++] = (struct serve_image){.path = s->cli->arg, .positional = true};
	s->n_files++;
	return true;
}

/* ---- groups of options; *done: it was one of them ---- */

static bool parse_image_option(struct serve *s, int id, bool *done)
{
	struct cli *cli = s->cli;

	switch (id) {
	case CLI_ARG:
		return parse_file(s);
	case SERVE_EXPORT:
		return serve_add_export(s, cli->arg);
	case 'f':
		s->format = cli->arg;
		return true;
	case 'r':
		s->read_only = true;
		return true;
	case 's':
		s->temporary = true;
		return true;
	case 'l':
		s->snapshot = cli->arg;
		return true;
	case 'P':
		return number(s, "partition", 1, UINT_MAX, &s->args.partition);
	case 'o':
		return cli_size(cli, "offset", cli->arg, &s->args.offset);
	case SERVE_SIZE:
		return length(s);
	case 'x':
		s->args.name = cli->arg;
		return true;
	case 'D':
		s->args.description = cli->arg;
		return true;
	case 'B':
		return append(s, s->bitmaps, &s->args.n_bitmaps);
	case 'A':
		s->args.allocation_depth = true;
		return true;
	default:
		*done = false;
		return true;
	}
}

static bool parse_mode_option(struct serve *s, int id, bool *done)
{
	struct cli *cli = s->cli;

	switch (id) {
	case SERVE_CACHE:
		return cli_cache(cli, cli->arg, &s->flags);
	case 'n':
		s->flags = (s->flags & ~(unsigned)(IMG_UNSAFE | IMG_SYNC)) | IMG_DIRECT;
		return true;
	case SERVE_AIO:
		return parse_aio(s);
	case SERVE_DISCARD:
		return parse_discard(s);
	case SERVE_DETECT_ZEROES:
		return parse_detect(s);
	case 'U':
		s->flags |= IMG_SHARE;
		return true;
	case SERVE_UNTRUSTED:
		s->flags |= IMG_UNTRUSTED;
		return true;
	case SERVE_THREADS:
		return number(s, "number of threads", 1, 256, &s->config.threads);
	case SERVE_RATE:
		if (!rate(s, "rate", &s->config.read_rate))
			return false;
		s->config.write_rate = s->config.read_rate;
		return true;
	case SERVE_READ_RATE:
		return rate(s, "read rate", &s->config.read_rate);
	case SERVE_WRITE_RATE:
		return rate(s, "write rate", &s->config.write_rate);
	default:
		*done = false;
		return true;
	}
}

static bool parse_client_option(struct serve *s, int id, bool *done)
{
	struct cli *cli = s->cli;

	switch (id) {
	case 'k':
		return append(s, s->sockets, &s->n_sockets);
	case 'b':
		return append(s, s->binds, &s->n_binds);
	case 'p':
		s->port = cli->arg;
		return true;
	case SERVE_VSOCK:
		s->vsock = true;
		return number(s, "port", 0, UINT_MAX - 1, &s->vsock_port);
	case SERVE_FD:
		return parse_fd(s);
	case SERVE_STDIO:
		s->stdio = true;
		return true;
	case 'e':
		return number(s, "number of clients", 0, INT_MAX, &s->config.max_clients);
	case 't':
	case SERVE_ONCE:
		s->config.persistent = id == 't';
		return true;
	case SERVE_IDLE_TIMEOUT:
		return seconds(s, "idle timeout", &s->config.idle_ms);
	case SERVE_HANDSHAKE_TIMEOUT:
		return seconds(s, "handshake timeout", &s->config.handshake_ms);
	case SERVE_NO_LIST:
		s->config.list_exports = false;
		return true;
	default:
		*done = false;
		return true;
	}
}

static bool parse_tls_option(struct serve *s, int id, bool *done)
{
	struct cli *cli = s->cli;

	switch (id) {
	case SERVE_TLS:
		return parse_tls(s);
	case SERVE_TLS_DIR:
		s->tls.directory = cli->arg;
		return true;
	case SERVE_TLS_PSK:
		s->tls.psk_file = cli->arg;
		return true;
	case SERVE_TLS_VERIFY:
		s->tls.verify = true;
		return true;
	case SERVE_TLS_AUTHZ:
		return append(s, s->authz, &s->n_authz);
	case SERVE_TLS_CREDS:
		s->tls_creds = cli->arg;
		return true;
	case SERVE_TLS_HOSTNAME:
		s->tls_hostname = cli->arg;
		return true;
	case SERVE_OBJECT:
		return parse_object(s);
	default:
		*done = false;
		return true;
	}
}

static bool refuse(struct serve *s, int id)
{
	switch (id) {
	case 'c':
		return bad(s,
			   "Connecting /dev/nbd devices is the job of nbd-client(8): "
			   "serve with --socket PATH, then 'nbd-client -unix PATH %s'",
			   s->cli->arg);
	case 'd':
		return bad(s, "Disconnecting /dev/nbd devices is the job of nbd-client(8): "
			      "'nbd-client -d DEV'");
	default:
		return bad(s, "There are no trace points; -v -v tells what happens");
	}
}

static bool parse_program_option(struct serve *s, int id, bool *done)
{
	struct cli *cli = s->cli;

	switch (id) {
	case SERVE_RUN:
		s->command = cli->arg;
		return true;
	case SERVE_DAEMON:
		s->daemon = true;
		return true;
	case SERVE_PID_FILE:
		s->pid_file = cli->arg;
		return true;
	case SERVE_USER:
		s->user = cli->arg;
		return true;
	case SERVE_OUTPUT:
	case SERVE_PRINT_URI:
		s->print = true;
		return id == SERVE_PRINT_URI || cli_output(cli, cli->arg, &s->json);
	case 'v':
		s->verbose++;
		return true;
	case 'L':
		s->list = true;
		return true;
	default:
		*done = false;
		return true;
	}
}

static bool parse_option(struct serve *s, int id)
{
	static bool (*const groups[])(struct serve *, int, bool *) = {
		parse_image_option, parse_mode_option,    parse_client_option,
		parse_tls_option,   parse_program_option,
	};

	for (unsigned i = 0; i < ARRAY_LEN(groups); i++) {
		bool done = true;

		if (!groups[i](s, id, &done))
			return false;
		if (done)
			return true;
	}
	return refuse(s, id);
}

/* ---- what belongs together ---- */

static bool check_places(struct serve *s)
{
	unsigned listening = s->n_sockets + s->n_binds + s->n_fds + s->vsock + (s->port != NULL);

	if (s->stdio && listening)
		return bad(s, "--stdio serves standard input and output, and nothing else");
	if (s->stdio && (s->command || s->daemon || s->print))
		return bad(s, "--stdio cannot be combined with --run, --daemon or --print-uri: "
			      "standard output is the client's");
	if (s->command && s->daemon)
		return bad(s, "--run ends when its command does, which --daemon does not wait for");
	if (s->port && s->n_sockets && !s->n_binds && s->cli->peer)
		s->port = NULL; /* it looks at the socket only */
	return true;
}

static bool check_modes(struct serve *s)
{
	if ((s->flags & IMG_DETECT_UNMAP) && !s->discard)
		return bad(s, "setting detect-zeroes to unmap is not allowed without setting "
			      "discard operation to unmap");
	if ((s->flags & IMG_SHARE) && !s->read_only && !s->temporary)
		return bad(s, "--force-share is for reading: it needs --read-only");
	if (s->temporary && s->read_only)
		return bad(s, "--snapshot is for clients that write, --read-only forbids it");
	if (s->cli->image_opts && s->format)
		return bad(s, "--image-opts and --format are mutually exclusive");
	return true;
}

static bool check_images(struct serve *s)
{
	bool one = s->args.name || s->args.description || s->args.partition || s->args.offset ||
		   s->args.size || s->args.n_bitmaps || s->snapshot;

	if (!s->n_images)
		return bad(s, "Expecting image file name");
	if (one && s->n_files != 1)
		return bad(s, "-x, -D, -P, -o, --size, -B and -l are for one FILE; with several "
			      "exports use --export");
	if (s->snapshot && s->args.n_bitmaps)
		return bad(s, "A dirty bitmap tells of the disk as it is now, not of a snapshot");
	return serve_complete_images(s);
}

static bool wants_version(struct serve *s, int *code)
{
	printf("%s (imgkit) %s\n", s->cli->peer ? "qemu-nbd" : "img serve", IMGKIT_VERSION);
	*code = cli_finish_output(s->cli, 0);
	return false;
}

bool serve_parse(struct serve *s, int *code)
{
	bool peer = s->cli->peer;
	int id;

	s->config = (struct server_config){.persistent = !peer,
					   .max_clients = peer,
					   .list_exports = true,
					   .handshake_ms = DEFAULT_HANDSHAKE * 1000};
	s->flags = peer ? IMG_NO_DISCARD : 0;
	s->pid_fd = -1;
	*code = 1;
	while ((id = cli_next(s->cli)) != CLI_END) {
		if (id == CLI_EXIT) {
			*code = cli_exit_code(s->cli);
			return false;
		}
		if (id == 'V')
			return wants_version(s, code);
		if (!serve_list_takes(s, id))
			s->serving = id;
		if (!parse_option(s, id))
			return false;
	}
	if (s->list)
		return serve_check_list(s);
	if (s->tls_hostname)
		return bad(s,
			   "--tls-hostname is for --list: a server is what its certificate says");
	return check_places(s) && check_modes(s) && check_images(s) && serve_choose_tls(s);
}

void serve_free(struct serve *s)
{
	free(s->directory);
	free(s->tls_psk_path);
	for (unsigned i = 0; i < s->tls.n_allowed; i++)
		free(s->tls_allowed[i]);
	for (unsigned i = 0; i < s->n_images; i++) {
		free(s->image[i].file);
		opts_free(&s->image[i].opts);
	}
	for (unsigned i = 0; i < s->n_objects; i++) {
		free(s->object[i].type);
		opts_free(&s->object[i].opts);
	}
}
