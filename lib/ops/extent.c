// SPDX-License-Identifier: LGPL-2.1-or-later
/* See extent.h. */
#include "ops/extent.h"

#include "base/bytes.h"

int extent_look_below(const struct io *top, struct extent *ext, struct err *err)
{
	struct extent below;
	uint64_t end;
	int r;

	/* An extent that reaches past the end of the file is a matter for whoever reads it. */
	if (ext->kind != EXT_DATA || !ext->io || ext->io == top ||
	    !add_ok(ext->host, ext->len, &end) || end > io_size(ext->io))
		return 0;
	r = io_map(ext->io, ext->host, ext->len, &below, err);
	if (r < 0)
		return r;
	ext->len = below.len;
	if (below.kind == EXT_ZERO)
		ext->kind = EXT_ZERO;
	return 0;
}
