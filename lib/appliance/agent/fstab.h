/* SPDX-License-Identifier: GPL-2.0-or-later */
/* /etc/fstab as text: see fstab(5). No file is read here and nothing is mounted. */
#ifndef IMGKIT_AGENT_FSTAB_H
#define IMGKIT_AGENT_FSTAB_H

#include <stdbool.h>
#include <stdint.h>

#include "appliance/protocol.h"

struct fstab_line {
	char spec[512], dir[AGENT_PATH_MAX], type[64], options[1024];
};

/*
 * The next line that says something; *text goes behind it. False: there is none. Fields that are
 * too long, and lines with less than two fields, are as if they were not there.
 */
bool fstab_next(const char **text, struct fstab_line *line);
bool fstab_option(const struct fstab_line *line, const char *option);

/* What a spec asks for. */
enum fstab_key {
	FSTAB_OTHER,
	FSTAB_UUID,
	FSTAB_LABEL,
	FSTAB_PARTUUID,
	FSTAB_PARTLABEL,
	FSTAB_DISK
};
struct fstab_spec {
	enum fstab_key key;
	char value[512];     /* of the first four */
	uint32_t disk, part; /* of FSTAB_DISK: by their order; part 0: the disk itself */
};
/* "UUID=…", "/dev/disk/by-label/…", "/dev/vda1", "/dev/nvme0n1p2" … */
void fstab_spec(const char *text, struct fstab_spec *spec);

#endif
