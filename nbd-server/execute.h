/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What commands do to an export, but for READ and BLOCK_STATUS: these are done by replying. */
#ifndef IMGKIT_NBD_EXECUTE_H
#define IMGKIT_NBD_EXECUTE_H

#include "nbd-server/connection.h"

/* Does it (a WRITE's data were written already) and hands it to reply_put. */
void execute(struct worker *w, struct request *r);

/* r failed with this errno (negative) while it did something. */
void execute_failed(struct worker *w, struct request *r, int code, const struct err *err);

#endif
