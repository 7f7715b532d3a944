/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A text changed by a program of the host: an editor, or sed. It works on a private copy, a file of
 * mode 0600 in a new directory of mode 0700 below $TMPDIR, which is gone afterwards, also when a
 * signal ends the command.
 */
#ifndef IMGKIT_TOOLS_EDITOR_H
#define IMGKIT_TOOLS_EDITOR_H

#include <stddef.h>

#include "base/err.h"

#define EDITOR_BYTES_MAX (64u << 20)

struct editor {
	const char *const *sed; /* arguments of sed, NULL at the end; or NULL: the user's editor */
	const char *name;       /* of the copy: editors guess the syntax by it */
	int signal;             /* out: SIGTERM or SIGHUP came meanwhile, or 0 */
};

/*
 * Gives *text (malloc, n bytes) away for the new one, which may be the same. Negative: the program
 * failed, or could not be started, and *text is as it was.
 */
int editor_run(struct editor *ed, char **text, size_t *n, struct err *err);

#endif
