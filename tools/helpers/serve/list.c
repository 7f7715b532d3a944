// SPDX-License-Identifier: GPL-2.0-or-later
/* img-serve --list: what another server exports, as the peer prints it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "helpers/serve/parts.h"

/* ---- the command line ---- */

bool serve_list_takes(const struct serve *s, int id)
{
	static const int own[] = {'L',
				  'k',
				  'b',
				  'p',
				  SERVE_TLS_DIR,
				  SERVE_TLS_PSK,
				  SERVE_OBJECT,
				  SERVE_OUTPUT,
				  SERVE_TLS_CREDS,
				  SERVE_TLS_HOSTNAME};
	/* The peer does not mind them. */
	static const int peers[] = {'e', 'r', 's', 't', 'v', SERVE_PID_FILE};

	for (size_t i = 0; i < ARRAY_LEN(own); i++) {
		if (id == own[i])
			return true;
	}
	for (size_t i = 0; s->cli->peer && i < ARRAY_LEN(peers); i++) {
		if (id == peers[i])
			return true;
	}
	return false;
}

static const char *contradiction(const struct serve *s)
{
	unsigned tcp = s->n_binds ? s->n_binds : s->port != NULL;

	if (s->n_images)
		return "List mode is incompatible with a file name";
	if (s->serving == SERVE_DAEMON)
		return "List mode is incompatible with forking";
	if (s->serving)
		return "List mode is incompatible with per-device settings";
	if (s->n_sockets > 1 || tcp > 1 || (s->n_sockets && tcp && !s->cli->peer))
		return "List mode asks one server: either one --socket, or --bind and --port";
	if (s->tls_creds && (s->tls.directory || s->tls.psk_file))
		return "--tls-creds is instead of --tls-dir, --tls-psk";
	if (s->tls.directory && s->tls.psk_file)
		return "--tls-dir and --tls-psk are two ways of the same, of which one is needed";
	if (s->tls_hostname && !s->tls_creds && !s->tls.directory)
		return "--tls-hostname is not permitted without --tls-creds or --tls-dir";
	return NULL;
}

bool serve_check_list(struct serve *s)
{
	const char *why = contradiction(s);

	if (why)
		cli_usage(s->cli, "%s", why);
	return !why;
}

static bool address(struct serve *s, struct nbd_where *where)
{
	bool local = s->n_sockets > 0;
	const char *host = s->n_binds ? s->binds[0] : "localhost";

	if (local) {
		where->path = strdup(s->sockets[0]);
	} else {
		where->host = strdup(host);
		where->port = strdup(s->port ? s->port : LISTEN_NBD_PORT);
	}
	if (local ? where->path != NULL : where->host && where->port)
		return true;
	cli_error(s->cli, "out of memory");
	return false;
}

/* ---- printing ---- */

static void print_facts(const struct nbd_listed *e)
{
	printf("  size:  %" PRIu64 "\n  flags: 0x%x (", e->size, e->flags);
	for (unsigned i = 0; i < NBD_FLAG_NAMES; i++) {
		if ((e->flags & (1U << i)) && nbd_flag_names[i])
			printf(" %s", nbd_flag_names[i]);
	}
	puts(" )");
	if (e->min)
		printf("  min block: %u\n  opt block: %u\n  max block: %u\n", e->min, e->preferred,
		       e->max);
}

static void print_export(const struct cli *cli, const struct nbd_listed *e)
{
	printf(" export: '");
	cli_put_text(cli, e->name);
	puts("'");
	if (e->description) {
		printf("  description: ");
		cli_put_text(cli, e->description);
		putchar('\n');
	}
	if (e->known)
		print_facts(e);
	if (e->n_contexts)
		printf("  available meta contexts: %u\n", e->n_contexts);
	for (unsigned i = 0; i < e->n_contexts; i++) {
		printf("   ");
		cli_put_text(cli, e->contexts[i]);
		putchar('\n');
	}
}

static int set_facts(json_t *o, const struct nbd_listed *e)
{
	json_t *flags = json_array();
	int k = json_set_u64(o, "size", e->size);

	for (unsigned i = 0; i < NBD_FLAG_NAMES; i++) {
		if ((e->flags & (1U << i)) && nbd_flag_names[i])
			k |= json_array_append_new(flags, json_text(nbd_flag_names[i]));
	}
	k |= json_object_set_new(o, "flags", flags);
	if (!e->min)
		return k;
	k |= json_set_u64(o, "block-minimum", e->min);
	k |= json_set_u64(o, "block-preferred", e->preferred);
	return k | json_set_u64(o, "block-maximum", e->max);
}

static json_t *export_json(const struct nbd_listed *e)
{
	json_t *o = json_object(), *contexts = json_array();
	int k = json_set_text(o, "name", e->name);

	k |= json_set_text(o, "description", e->description);
	if (e->known)
		k |= set_facts(o, e);
	for (unsigned i = 0; i < e->n_contexts; i++)
		k |= json_array_append_new(contexts, json_text(e->contexts[i]));
	k |= json_object_set_new(o, "contexts", contexts);
	if (k == 0)
		return o;
	json_decref(o);
	return NULL;
}

static int print_json(const struct cli *cli, const struct nbd_list *list)
{
	json_t *all = json_object(), *exports = json_array();
	int k = 0;

	for (unsigned i = 0; i < list->n; i++)
		k |= json_array_append_new(exports, export_json(&list->v[i]));
	k |= json_object_set_new(all, "exports", exports);
	if (k < 0) {
		json_decref(all);
		all = NULL; /* which is what it says then */
	}
	return cli_print_json(cli, all);
}

static int print_list(const struct serve *s, const struct nbd_list *list)
{
	if (s->json)
		return print_json(s->cli, list);
	printf("exports available: %u\n", list->n);
	for (unsigned i = 0; i < list->n; i++)
		print_export(s->cli, &list->v[i]);
	return 0;
}

int serve_list(struct serve *s)
{
	struct nbd_where where = {0};
	struct nbd_list list = {0};
	struct err err = {0};
	struct job job = {0};
	struct progress *p;
	int r, sig, code = 1;

	if (address(s, &where) && serve_client_tls(s, &where)) {
		p = progress_start(s->cli, PROGRESS_NONE, "list", &job);
		r = nbd_list(&where, &job, &list, &err);
		sig = progress_stop(p, r == 0);
		if (r == 0)
			code = cli_finish_output(s->cli, print_list(s, &list));
		else
			code = sig ? cli_interrupted(s->cli, sig)
				   : cli_error(s->cli, "%s", err.msg);
	}
	nbd_list_free(&list);
	nbd_where_free(&where);
	return code;
}
