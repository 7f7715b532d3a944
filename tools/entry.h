/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What ls and stat show of an inode of a guest, as text and as JSON. */
#ifndef IMGKIT_TOOLS_ENTRY_H
#define IMGKIT_TOOLS_ENTRY_H

#include <jansson.h>

#include "appliance/wire.h"

#define ENTRY_TEXT 64 /* room for each of these */

/* "-rwsr-xr-x" */
const char *entry_mode(uint32_t mode, char buf[ENTRY_TEXT]);
/* "regular file", as stat(1) says; and the one word of JSON: "file". */
const char *entry_type(uint32_t mode);
const char *entry_word(uint32_t mode);
/* "4.0K": rounded up, as ls -h does. */
const char *entry_human(uint64_t bytes, char buf[ENTRY_TEXT]);
/* "2026-11-21 16:41", of this host's time zone; full: with seconds, nanoseconds and zone. */
const char *entry_time(struct agent_time t, bool full, char buf[ENTRY_TEXT]);

/* An object: path, type, mode, …; target NULL or "": none. NULL: out of memory. */
json_t *entry_json(const char *path, const struct agent_stat *st, const char *target);
/* Adds an extended attribute: "text", or "hex" when it is none. 0 or -1. */
int entry_json_xattr(json_t *entry, const char *name, const void *value, size_t n);

/* Whether the bytes are text that can be shown; a NUL at the end may be. */
bool entry_is_text(const void *value, size_t n);

#endif
