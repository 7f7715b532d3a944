/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What `img dedup` and the program that does its work share: the ids of its options. */
#ifndef IMGKIT_TOOLS_DEDUP_H
#define IMGKIT_TOOLS_DEDUP_H

#include "inplace.h"

enum { DEDUP_WITHIN = INPLACE_NEXT };

#endif
