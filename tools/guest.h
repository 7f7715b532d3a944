/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the commands share that look into a disk: their common options, how people write a place in
 * a guest, and an appliance with the right file systems mounted.
 *
 * A place is IMAGE:/PATH, or IMAGE@SNAPSHOT:/PATH. The image's name ends at the first ":/" after
 * which what stands before it is a file (with or without @SNAPSHOT).
 */
#ifndef IMGKIT_TOOLS_GUEST_H
#define IMGKIT_TOOLS_GUEST_H

#include "appliance/appliance.h"
#include "cli.h"

/* Ids of the common options; those of a command start at GUEST_NEXT. */
enum {
	GUEST_ISOLATION = CLI_LONG,
	GUEST_UNTRUSTED,
	GUEST_MEMORY,
	GUEST_OUTPUT,
	GUEST_PROGRESS,
	GUEST_ADD,
	GUEST_FORMAT,
	GUEST_MOUNT,
	GUEST_NEXT
};

/* clang-format off */
/* Each with its letter, or where a command has that for something else with the id of its long name. */
#define GUEST_OPT_FORMAT(id)                                                                       \
	{id, "format", "FMT", "format of the image (default: found out from its content)"}
#define GUEST_OPT_MOUNT(id)                                                                        \
	{id, "mount", "DEV[:DIR]", "mount DEV (sda1, LABEL=…, UUID=…) at DIR; may be repeated"}
#define GUEST_OPT_ADD(id) {id, "add", "FILE", "one more disk: sdb, sdc, …; may be repeated"}
#define GUEST_OPT_SHARE                                                                            \
	{'U', "force-share", NULL, "read an image that another process may be writing"}
#define GUEST_OPTIONS_CAGE                                                                         \
	{GUEST_ISOLATION, "isolation", "auto|vm|process", "how strangers' data is caged"},         \
	{GUEST_MEMORY, "memory", "SIZE", "memory of the cage (default: 64M)"},                     \
	CLI_OPT_OBJECT,                                                                            \
	CLI_OPT_EXTERNAL,                                                                          \
	{GUEST_UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"}
/* All of them; of commands whose -a is something else; of commands that write. */
#define GUEST_OPTIONS                                                                              \
	GUEST_OPT_ADD('a'), GUEST_OPT_FORMAT('f'), GUEST_OPT_MOUNT('m'), GUEST_OPT_SHARE,          \
	GUEST_OPTIONS_CAGE
#define GUEST_OPTIONS_NO_A                                                                         \
	GUEST_OPT_ADD(GUEST_ADD), GUEST_OPT_FORMAT('f'), GUEST_OPT_MOUNT('m'), GUEST_OPT_SHARE,    \
	GUEST_OPTIONS_CAGE
#define GUEST_OPTIONS_WRITE                                                                        \
	GUEST_OPT_ADD('a'), GUEST_OPT_FORMAT('f'), GUEST_OPT_MOUNT('m'), GUEST_OPTIONS_CAGE
/* clang-format on */

struct guest_mount {
	const char *device, *path;
};

struct guest_opts {
	const char *format;
	struct guest_mount mounts[AGENT_DISKS_MAX];
	unsigned n_mounts;
	const char *more[AGENT_DISKS_MAX]; /* --add */
	unsigned n_more;
	enum cell_isolation isolation;
	uint64_t memory;
	unsigned flags; /* IMG_SHARE, IMG_UNTRUSTED */
};

/* An option of GUEST_OPTIONS. False: it was wrong, and said so; *known: whether it is one. */
bool guest_option(struct cli *cli, struct guest_opts *opts, int id, bool *known);

/* A place in a guest. All owned; guest_place_free. */
struct guest_place {
	char *image, *snapshot, *path; /* snapshot, path: NULL where there is none */
};

/* False: no memory, which it said. Without ":/" in text it is an image, and path is NULL. */
bool guest_place_parse(const struct cli *cli, const char *text, struct guest_place *place);
void guest_place_free(struct guest_place *place);

/*
 * Starts an appliance with the place's image as sda. writable: its disks can be written. False: it
 * said what is wrong. How it is caged is said on stderr when that is not a VM and was not asked for.
 */
bool guest_launch(const struct cli *cli, const struct guest_opts *opts,
		  const struct guest_place *place, bool writable, struct appliance **a);
/*
 * The same, and mounts what --mount says; else the only file system there is, or the operating
 * system with what its /etc/fstab names.
 */
bool guest_open(const struct cli *cli, const struct guest_opts *opts,
		const struct guest_place *place, bool writable, struct appliance **a);

/* Everything is on the disks, or it says what is not. The exit code: code, or 1. Closes a. */
int guest_close(const struct cli *cli, struct appliance *a, int code);

/* The appliance for places that are looked at one after the other: those on one disk share it. */
struct guest_session {
	struct guest_place place; /* the one that was asked for last */
	struct appliance *a;      /* NULL: none is open */
	int code;                 /* what closing those before gave */
};
/*
 * Opens the place for reading, unless the session is there already. needs_path: IMAGE alone is an
 * error. False: it said what is wrong.
 */
bool guest_session_at(const struct cli *cli, const struct guest_opts *opts, struct guest_session *s,
		      const char *text, bool needs_path);
/* Closes the session. The exit code: code, or 1. */
int guest_session_end(const struct cli *cli, struct guest_session *s, int code);

/* "IMAGE:/PATH: what", whether or not what names the path already. path: one below the place's, or
 * NULL. Returns 1. */
int guest_failed(const struct cli *cli, const struct guest_place *place, const char *path,
		 const char *what);

/* The volume that people call sda1, /dev/sda1, LABEL=…, UUID=…, PARTUUID=…, or by bare label or
 * UUID. NULL: none or several, which it said. */
const struct agent_volume *guest_find_volume(const struct cli *cli, const struct agent_volume *v,
					     unsigned n, const char *name);
/* The file that is this disk: the place's, or one of --add. */
const char *guest_disk_file(const struct guest_opts *opts, const struct guest_place *place,
			    uint32_t disk);
/* "sda1" */
void guest_volume_name(const struct agent_volume *v, char *buf, size_t size);

#endif
