/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asking for extents as readers of whole disks do. */
#ifndef IMGKIT_OPS_EXTENT_H
#define IMGKIT_OPS_EXTENT_H

#include "image/img.h"

/*
 * Where an image says "data" the file below may have a hole (preallocated images, raw files in
 * a window): turns ext, which io_map gave for `top`, into the part of it that is one thing.
 */
int extent_look_below(const struct io *top, struct extent *ext, struct err *err);

static inline bool extent_is_data(const struct extent *ext)
{
	return ext->kind == EXT_DATA || ext->kind == EXT_CODED;
}

#endif
