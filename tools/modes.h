/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Modes as people write them, 755 or u+rwX,g-w,o=: what chmod(1) of POSIX and GNU takes.
 *
 * A clause that names nobody (+w) means all, less what a umask of 022 holds back: what happens in a
 * guest does not depend on the host's umask. Octal digits leave the set-user-ID and set-group-ID
 * bits of a directory as they are unless they set them, or there are five of them.
 */
#ifndef IMGKIT_TOOLS_MODES_H
#define IMGKIT_TOOLS_MODES_H

#include <stdbool.h>
#include <stdint.h>

#define MODES_MAX   64u
#define MODES_UMASK 022u

struct modes {
	struct modes_step {
		char op;             /* '+', '-' or '=' */
		uint32_t affected;   /* what "ugoa" names, or 0: nobody was named */
		uint32_t value;      /* bits, of which those affected count */
		uint32_t mentioned;  /* set-ID bits among them change for directories, too */
		bool copy;           /* value is who is copied: the mask of u, g or o */
		bool execute_if_any; /* and x where there is an x, or it is a directory */
	} steps[MODES_MAX];
	unsigned n;
};

/* False: it is not a mode. */
bool modes_parse(const char *text, struct modes *m);
/* mode: the 12 low bits. */
uint32_t modes_apply(const struct modes *m, uint32_t mode, bool is_dir);

#endif
