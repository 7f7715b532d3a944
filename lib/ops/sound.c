// SPDX-License-Identifier: LGPL-2.1-or-later
/* What operations that change the insides of an image ask of it first; see sound.h. */
#include "ops/sound.h"

#include <errno.h>
#include <inttypes.h>

int sound_or_refuse(struct img *img, struct job *job, struct err *err)
{
	struct check_result res;
	int r = img_check(img, CHECK_FIX_LEAKS, &res, NULL, job, err);

	if (r == 0 && (res.leaks_fixed || res.corruptions_fixed))
		r = img_check(img, 0, &res, NULL, job, err);
	if (r < 0)
		return r;
	if (res.corruptions || res.leaks || res.check_errors)
		return err_set(err, EUCLEAN,
			       "%s: the check found %" PRIu64 " errors: repair the image first "
			       "(check -r all)",
			       img->io.name, res.corruptions + res.leaks + res.check_errors);
	return 0;
}
