// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img serve: images over the network block device protocol.
 *
 * The work is done by img-serve, a program of its own: it is linked with the TLS library. Called by
 * the name qemu-nbd (a symlink to img), it takes the command lines of that program.
 */
#include "serve.h"

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "format of the images (default: found out from their content)"},
	CLI_OPT_IMAGE_OPTS,
	{SERVE_OBJECT, "object", "OBJECT",
	 "secret,id=…; tls-creds-x509,id=…,dir=DIR; tls-creds-psk,id=…,dir=DIR"},
	{SERVE_EXPORT, "export", "LIST",
	 "one more export: name=N,file=FILE[,format=FMT,read-only=on,partition=N,snapshot=S,"
	 "bitmap=B,description=TEXT,clients=N,allocation-depth=on,offset=N,size=N]"},
	{'r', "read-only", NULL, "clients cannot write"},
	{'s', "snapshot", NULL, "what clients write goes to a temporary file, and is forgotten"},
	{'l', "load-snapshot", "SNAPSHOT", "an internal snapshot: id, name, snapshot.id=ID, …"},
	{'P', "partition", "N", "only this partition of the disk"},
	{'o', "offset", "OFFSET", "from this byte of the disk (or partition) on"},
	{SERVE_SIZE, "size", "SIZE", "as many bytes of it"},
	{'x', "export-name", "NAME", "name of the export (default: empty)"},
	{'D', "description", "TEXT", "what clients are told of the export"},
	{'B', "bitmap", "NAME", "let clients read this dirty bitmap; may be repeated"},
	{'A', "allocation-depth", NULL, "let clients see which layer of the chain has the data"},
	{'k', "socket", "PATH", "listen on a Unix socket"},
	{'b', "bind", "ADDRESS", "listen on this address; '*': all (default: localhost)"},
	{'p', "port", "PORT", "TCP port (default: 10809); 0: a free one"},
	{SERVE_VSOCK, "vsock", "PORT", "listen for virtual machines of this host"},
	{SERVE_FD, "fd", "N", "listen on a socket that is open as descriptor N"},
	{SERVE_STDIO, "stdio", NULL, "serve one client, on standard input and output"},
	{SERVE_RUN, "run", "COMMAND", "run a command with $uri, and stop after it"},
	{'e', "shared", "N", "clients at a time (default: any number, 0)"},
	{'t', "persistent", NULL, "go on after the last client has left (default)"},
	{SERVE_ONCE, "once", NULL, "end when the last client has left"},
	{SERVE_IDLE_TIMEOUT, "idle-timeout", "SECONDS", "drop clients that ask for nothing"},
	{SERVE_HANDSHAKE_TIMEOUT, "handshake-timeout", "SECONDS",
	 "drop clients that do not get ready (default: 10)"},
	{SERVE_RATE, "rate", "SIZE", "bytes per second, read and written each, of all clients"},
	{SERVE_READ_RATE, "read-rate", "SIZE", "bytes per second that clients read"},
	{SERVE_WRITE_RATE, "write-rate", "SIZE", "bytes per second that clients write"},
	{SERVE_THREADS, "threads", "N", "number of threads (default: one per CPU)"},
	{SERVE_NO_LIST, "no-list", NULL, "do not tell clients which exports there are"},
	{SERVE_TLS, "tls", "off|on|required", "encryption (default: required, with keys)"},
	{SERVE_TLS_DIR, "tls-dir", "DIR", "X.509: server-cert.pem, server-key.pem, ca-cert.pem"},
	{SERVE_TLS_PSK, "tls-psk", "FILE", "pre-shared keys, lines NAME:HEX"},
	{SERVE_TLS_VERIFY, "tls-verify", NULL, "clients need a certificate that the CA signed"},
	{SERVE_TLS_AUTHZ, "tls-authz", "PATTERN",
	 "of this distinguished name (or the ID of an authz object); may be repeated"},
	{SERVE_TLS_CREDS, "tls-creds", "ID", "required encryption with an --object's keys"},
	{SERVE_TLS_HOSTNAME, "tls-hostname", "NAME", "of the server, for --list"},
	{SERVE_CACHE, "cache", "CACHE", "none, writeback, writethrough, directsync or unsafe"},
	{'n', "nocache", NULL, "the same as --cache=none"},
	{SERVE_AIO, "aio", "AIO", "how requests are made: threads; native, io_uring are refused"},
	{SERVE_DISCARD, "discard", "ignore|unmap", "what trimming does (default: unmap)"},
	{SERVE_DETECT_ZEROES, "detect-zeroes", "off|on|unmap", "store zeros that are written so"},
	{'U', "force-share", NULL, "read images that another process may be writing"},
	{SERVE_UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	CLI_OPT_EXTERNAL,
	{SERVE_DAEMON, "fork", NULL, "go to the background when the server is ready"},
	{SERVE_DAEMON, "daemon", NULL, "the same"},
	{SERVE_PID_FILE, "pid-file", "PATH", "store the process ID in a file"},
	{SERVE_USER, "user", "USER", "become this user before the first client"},
	{SERVE_OUTPUT, "output", "human|json", "say on standard output when the server is ready"},
	{SERVE_PRINT_URI, "print-uri", NULL, "the same as --output=human"},
	{'v', "verbose", NULL, "say what happens; twice: in detail"},
	{'L', "list", NULL, "list the exports of a server (of -k, or -b and -p)"},
	{'c', "connect", "DEV", "refused: see nbd-client(8)"},
	{'d', "disconnect", NULL, "refused: see nbd-client(8)"},
	{'V', "version", NULL, NULL},
	{'T', "trace", "PATTERN", NULL},
	{0},
};

static int run(struct cli *cli)
{
	return cli_run_helper(cli, "img-serve");
}

const struct cmd cmd_serve = {
	.name = "serve",
	.summary = "Let clients read and write disks by the NBD protocol",
	.args = "FILE[@SNAPSHOT]...",
	.opts = options,
	.exit_codes = "0 stopped, 1 error; with --run that of the command",
	.run = run,
};
