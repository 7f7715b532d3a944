/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the parts of img-serve share: the user's wishes, and the two processes. See serve.c.
 */
#ifndef IMGKIT_TOOLS_HELPERS_SERVE_PARTS_H
#define IMGKIT_TOOLS_HELPERS_SERVE_PARTS_H

#include <sys/types.h>

#include "io/nbd.h"
#include "nbd-server/listen.h"
#include "nbd-server/server.h"
#include "serve.h"

#define SERVE_MAX 64u /* of whatever can be given several times */

/* An image that is to be exported. */
struct serve_image {
	const char *path; /* as it was written */
	char *file;       /* owned: path without @SNAPSHOT */
	const char *format, *snapshot;
	bool positional; /* an argument, no --export */
	bool read_only;
	struct export_args args;
	const char *bitmaps[SERVE_MAX];
	struct opts opts; /* owned: --export's, which the strings above are part of */
};

/* An --object that is not a secret. */
struct serve_object {
	struct opts opts; /* owned */
	char *type;       /* owned */
	const char *id;
};

struct serve {
	struct cli *cli;
	struct serve_image image[SERVE_MAX];
	unsigned n_images, n_files; /* n_files: of them, those that stand as arguments */
	/* Of the one image that stands as an argument. */
	struct export_args args;
	const char *bitmaps[SERVE_MAX], *format, *snapshot;
	/* Of all images. */
	unsigned flags; /* IMG_… */
	bool read_only, temporary;
	bool discard; /* --discard=unmap was given */

	const char *sockets[SERVE_MAX], *binds[SERVE_MAX], *port;
	int fds[SERVE_MAX];
	unsigned n_sockets, n_binds, n_fds;
	unsigned vsock_port;
	bool vsock, stdio;

	struct tls_args tls;
	const char *authz[SERVE_MAX], *tls_creds;
	unsigned n_authz;
	bool tls_given;               /* --tls */
	char *tls_psk_path;           /* owned: of an object */
	char *tls_allowed[SERVE_MAX]; /* owned: patterns */
	struct serve_object object[SERVE_MAX];
	unsigned n_objects;

	struct server_config config;
	bool daemon, print, json;
	bool list;   /* the exports of another server, instead of serving */
	int serving; /* the last option that --list does not take; 0: none */
	const char *tls_hostname;
	unsigned verbose;
	const char *pid_file, *command, *user;
	pid_t supervisor;
	uint64_t started; /* when, in nanoseconds of the monotonic clock */
	char *directory;  /* owned: private, of --run's socket; NULL: none */
	int daemon_ready; /* pipe to the caller that waits for the daemon */
	int pid_fd;       /* the pid file, locked; -1: none was made */
};

/* The command line. False: the program ends, with *code. */
bool serve_parse(struct serve *s, int *code);
void serve_free(struct serve *s);

/* Whether --object has this type beside the ones of all commands. */
bool serve_has_object(const char *type);
/* s->tls, out of --tls-… and the objects. False: it said what is wrong. */
bool serve_choose_tls(struct serve *s);

/* Of a client, for --list. False: it said what is wrong. */
bool serve_client_tls(struct serve *s, struct nbd_where *where);

/* ---- list.c ---- */

/* Whether --list takes this option, too. */
bool serve_list_takes(const struct serve *s, int id);
bool serve_check_list(struct serve *s);
/* Prints the exports of the server; the exit code. */
int serve_list(struct serve *s);

/* ---- images.c ---- */

/* One more image, of an --export. */
bool serve_add_export(struct serve *s, const char *text);
/* Completes the images when the whole command line is known. */
bool serve_complete_images(struct serve *s);

/* Opens all images: config.exports. False: it said why not. */
bool serve_open_images(struct serve *s, struct nbd_export **exports);

/*
 * The server's process: opens images, gives up its rights, writes one byte to `ready`, serves, closes
 * the images.
 */
void serve_server(struct serve *s, const struct listen_set *set, int ready)
	__attribute__((noreturn));

/* Without capabilities; as user, or NULL: as who it is. */
int serve_become(const char *user, struct err *err);
/* No way back: no more files, few system calls. */
int serve_seal(struct err *err);

/* The process that the user started: makes the server's and watches it. Returns the exit code. */
int serve_supervise(struct serve *s, struct listen_set *set);
void serve_remove_sockets(const struct serve *s, const struct listen_set *set);

/* ---- tell.c ---- */

/* The URIs, where the user wants to hear of them. */
int serve_print_ready(const struct serve *s, pid_t server, const struct listen_set *set,
		      struct err *err);
/* Memory for s->config.stats that both processes see, from now on. */
void serve_count(struct serve *s);
/* One line: how many clients there are, and what they did. */
void serve_tell_state(const struct serve *s);
int serve_write_pid(struct serve *s, struct err *err);
void serve_remove_pid(struct serve *s);
/* To systemd, if it wants to know: "READY=1". */
void serve_notify(const struct serve *s, const char *state);
/* True in the daemon; false in its caller, when the daemon is ready or has failed: *code. */
bool serve_daemonize(struct serve *s, int *code);
int serve_daemon_ready(struct serve *s, struct err *err);
/* Standard input and output, and with errors also the third stream, lead to nowhere. */
int serve_leave_streams(bool errors, struct err *err);

#endif
