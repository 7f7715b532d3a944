// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A token bucket, kept as the time at which it will be full again up to a burst: one number, changed
 * by compare and swap.
 */
#include "nbd-server/limit.h"

#include "base/bytes.h"

/* What was not used in this time may be used at once. */
#define BURST_NS UINT64_C(100000000)

uint64_t limit_take(struct limit *l, uint64_t bytes, uint64_t now)
{
	uint64_t old = atomic_load(&l->free_at), at;

	if (!l->rate)
		return 0;
	do
		at = max_u64(old, now > BURST_NS ? now - BURST_NS : 0) +
		     bytes * UINT64_C(1000000000) / l->rate;
	while (!atomic_compare_exchange_weak(&l->free_at, &old, at));
	return at > now ? at - now : 0;
}
