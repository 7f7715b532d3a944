/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What operations that change the insides of an image ask of it first. */
#ifndef IMGKIT_OPS_SOUND_H
#define IMGKIT_OPS_SOUND_H

#include "image/img.h"

/* Checks the image and repairs leaks. -EUCLEAN: there are errors. What img_check fails with. */
int sound_or_refuse(struct img *img, struct job *job, struct err *err);

#endif
