// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * nbd-server: what bytes are which request and what it is told; limits on bytes per second.
 *
 * link: -lssl -lcrypto
 */
#include "unit.h"

#include <errno.h>

#include "base/bytes.h"
#include "nbd-server/limit.h"
#include "nbd-server/request.h"
#include "nbd-server/status.h"

#define SIZE (UINT64_C(1) << 40)

static struct request_rules rules_of(enum reply_mode mode)
{
	return (struct request_rules){
		.mode = mode,
		.size = SIZE,
		.flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
			 NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_CACHE |
			 NBD_FLAG_SEND_FAST_ZERO,
		.contexts = 5,
		.max_block = NBD_MAX_PAYLOAD,
	};
}

static int decode(const struct request_rules *rules, uint16_t type, uint16_t flags, uint64_t offset,
		  uint64_t length, struct request *r)
{
	struct nbd_extended_request ext = {
		.magic = be32_make(NBD_EXTENDED_REQUEST_MAGIC),
		.flags = be16_make(flags),
		.type = be16_make(type),
		.cookie = be64_make(UINT64_C(0x123456789abcdef0)),
		.offset = be64_make(offset),
		.length = be64_make(length),
	};
	struct nbd_request req;
	struct err e;

	memcpy(&req, &ext, sizeof(req));
	req.magic = be32_make(NBD_REQUEST_MAGIC);
	req.length = be32_make((uint32_t)length);
	*r = (struct request){0};
	if (rules->mode == MODE_EXTENDED)
		return request_decode(rules, (unsigned char *)&ext, r, &e);
	return request_decode(rules, (unsigned char *)&req, r, &e);
}

struct judged {
	uint16_t type, flags;
	uint64_t offset, length;
	uint16_t error;
	uint32_t payload;
};

static void judge(const struct request_rules *rules, const struct judged *j, size_t n)
{
	struct request r;

	for (size_t i = 0; i < n; i++) {
		assert_int_equal(decode(rules, j[i].type, j[i].flags, j[i].offset, j[i].length, &r),
				 0);
		if (r.error != j[i].error || r.payload != j[i].payload)
			fail_msg("%zu: error %u, payload %u", i, r.error, r.payload);
		assert_int_equal(!r.error, !r.why);
		assert_int_equal(r.cookie, UINT64_C(0x123456789abcdef0));
		assert_int_equal(r.offset, j[i].offset);
	}
}

static void requests_are_judged(void **state)
{
	const struct judged cases[] = {
		{NBD_CMD_READ, 0, 0, 0, 0, 0},
		{NBD_CMD_READ, 0, SIZE - 1, 1, 0, 0},
		{NBD_CMD_READ, 0, SIZE, 0, 0, 0},
		{NBD_CMD_READ, 0, SIZE - 1, 2, NBD_EINVAL, 0},
		{NBD_CMD_READ, 0, UINT64_MAX, 2, NBD_EINVAL, 0},
		{NBD_CMD_READ, 0, 0, NBD_MAX_PAYLOAD, 0, 0},
		{NBD_CMD_READ, 0, 0, NBD_MAX_PAYLOAD + 1, NBD_EINVAL, 0},
		{NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 1, 0, 0},
		{NBD_CMD_READ, NBD_CMD_FLAG_FUA, 0, 1, 0, 0},
		{NBD_CMD_READ, NBD_CMD_FLAG_NO_HOLE, 0, 1, NBD_EINVAL, 0},
		{NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 5, 10, 0, 10},
		{NBD_CMD_WRITE, NBD_CMD_FLAG_PAYLOAD_LEN, 5, 10, NBD_EINVAL, 10},
		{NBD_CMD_WRITE, 0, SIZE - 1, 10, NBD_ENOSPC, 10},
		{NBD_CMD_WRITE, 0, 0, NBD_MAX_PAYLOAD + 1, NBD_EINVAL, NBD_MAX_PAYLOAD + 1},
		{NBD_CMD_DISC, 0, 0, 0, 0, 0},
		{NBD_CMD_FLUSH, 0, 0, 0, 0, 0},
		{NBD_CMD_FLUSH, 0, 1, 0, NBD_EINVAL, 0},
		{NBD_CMD_FLUSH, 0, 0, 1, NBD_EINVAL, 0},
		{NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 0, UINT32_MAX, 0, 0},
		{NBD_CMD_TRIM, 0, SIZE, 1, NBD_EINVAL, 0},
		{NBD_CMD_CACHE, 0, 0, UINT32_MAX, 0, 0},
		{NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO, 0, 9, 0, 0},
		{NBD_CMD_WRITE_ZEROES, 0, SIZE, 9, NBD_ENOSPC, 0},
		{NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_DF, 0, 9, NBD_EINVAL, 0},
		{NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 0, 9, 0, 0},
		{NBD_CMD_BLOCK_STATUS, 0, 0, 0, NBD_EINVAL, 0},
		{8, 0, 0, 0, NBD_EINVAL, 0},
		{65535, 65535, UINT64_MAX, UINT32_MAX, NBD_EINVAL, 0},
	};
	struct request_rules rules = rules_of(MODE_STRUCTURED);

	(void)state;
	judge(&rules, cases, ARRAY_LEN(cases));
}

static void exports_can_do_what_their_flags_say(void **state)
{
	const struct judged simple[] = {
		{NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 1, NBD_EINVAL, 0},
	};
	const struct judged poor[] = {
		{NBD_CMD_READ, 0, 0, 1, 0, 0},
		{NBD_CMD_WRITE, 0, 0, 1, NBD_EPERM, 1},
		{NBD_CMD_TRIM, 0, 0, 1, NBD_EPERM, 0},
		{NBD_CMD_WRITE_ZEROES, 0, 0, 1, NBD_EPERM, 0},
		{NBD_CMD_FLUSH, 0, 0, 0, NBD_EINVAL, 0},
		{NBD_CMD_CACHE, 0, 0, 1, NBD_EINVAL, 0},
		{NBD_CMD_READ, NBD_CMD_FLAG_FUA, 0, 1, NBD_EINVAL, 0},
		{NBD_CMD_BLOCK_STATUS, 0, 0, 1, NBD_EINVAL, 0},
	};
	struct request_rules rules = rules_of(MODE_SIMPLE);

	(void)state;
	judge(&rules, simple, ARRAY_LEN(simple));
	rules.flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY;
	rules.contexts = 0;
	judge(&rules, poor, ARRAY_LEN(poor));
}

static void extended_requests_are_judged(void **state)
{
	const struct judged cases[] = {
		{NBD_CMD_WRITE, NBD_CMD_FLAG_PAYLOAD_LEN, 0, 10, 0, 10},
		{NBD_CMD_WRITE, 0, 0, 10, NBD_EINVAL, 0},
		{NBD_CMD_WRITE_ZEROES, 0, 1, SIZE - 1, 0, 0},
		{NBD_CMD_WRITE_ZEROES, 0, 1, UINT64_MAX, NBD_ENOSPC, 0},
		{NBD_CMD_READ, NBD_CMD_FLAG_PAYLOAD_LEN, 0, 10, NBD_EINVAL, 10},
		{NBD_CMD_TRIM, 0, 0, SIZE, 0, 0},
		{NBD_CMD_BLOCK_STATUS, 0, 0, SIZE, 0, 0},
		{NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_PAYLOAD_LEN, SIZE, 12, 0, 12},
		{NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_PAYLOAD_LEN, 0, 8, NBD_EINVAL, 8},
		{NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_PAYLOAD_LEN, 0, 13, NBD_EINVAL, 13},
		{NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_PAYLOAD_LEN, 0, 4096, NBD_EINVAL, 4096},
	};
	struct request_rules rules = rules_of(MODE_EXTENDED);
	struct request r;

	(void)state;
	judge(&rules, cases, ARRAY_LEN(cases));
	/* Nobody waits for that much. */
	assert_int_equal(decode(&rules, NBD_CMD_READ, NBD_CMD_FLAG_PAYLOAD_LEN, 0, SIZE, &r),
			 -EPROTO);
	assert_int_equal(decode(&rules, NBD_CMD_WRITE, NBD_CMD_FLAG_PAYLOAD_LEN, 0, SIZE, &r),
			 -EPROTO);
}

static void wrong_magics_end_it(void **state)
{
	struct request_rules rules = rules_of(MODE_SIMPLE);
	unsigned char head[CONNECTION_HEAD] = {0x25, 0x60, 0x95, 0x13};
	struct request r = {0};
	struct err e;

	(void)state;
	assert_int_equal(request_decode(&rules, head, &r, &e), 0);
	rules.mode = MODE_EXTENDED;
	fails(request_decode(&rules, head, &r, &e), -EPROTO, &e, "magic");
	rules.mode = MODE_STRUCTURED;
	head[3]++;
	fails(request_decode(&rules, head, &r, &e), -EPROTO, &e, "0x25609514");
}

static void errors_have_codes(void **state)
{
	(void)state;
	assert_int_equal(request_error(EROFS), NBD_EPERM);
	assert_int_equal(request_error(EDQUOT), NBD_ENOSPC);
	assert_int_equal(request_error(EFBIG), NBD_ENOSPC);
	assert_int_equal(request_error(EUCLEAN), NBD_EIO);
	assert_int_equal(request_error(ENOMEM), NBD_ENOMEM);
	assert_int_equal(request_error(EOPNOTSUPP), NBD_ENOTSUP);
}

static void filter(struct request *r, uint64_t length, uint32_t context, unsigned n)
{
	unsigned char data[8 + 2 * 4];
	be64 len = be64_make(length);
	be32 id = be32_make(context);

	memcpy(data, &len, sizeof(len));
	memcpy(data + 8, &id, sizeof(id));
	id = be32_make(0);
	memcpy(data + 12, &id, sizeof(id));
	*r = (struct request){.contexts = 5, .offset = 10, .payload = 8 + 4 * n};
	status_filter(r, data, 100);
}

static void filters_choose_contexts(void **state)
{
	struct request r;

	(void)state;
	filter(&r, 90, 2, 1);
	assert_int_equal(r.error, 0);
	assert_int_equal(r.length, 90);
	assert_int_equal(r.contexts, 4);
	filter(&r, 90, 2, 2);
	assert_int_equal(r.contexts, 5);
	filter(&r, 91, 2, 1);
	assert_int_equal(r.error, NBD_EINVAL);
	filter(&r, UINT64_MAX, 2, 1);
	assert_int_equal(r.error, NBD_EINVAL);
	filter(&r, 0, 2, 1);
	assert_int_equal(r.error, NBD_EINVAL);
	filter(&r, 90, 1, 1);
	assert_int_equal(r.error, NBD_EINVAL);
	filter(&r, 90, UINT32_MAX, 1);
	assert_int_equal(r.error, NBD_EINVAL);
}

static void rates_are_kept(void **state)
{
	const uint64_t s = 1000000000;
	struct limit l = {.rate = 1000}, none = {0};
	uint64_t now = 50 * s;

	(void)state;
	assert_int_equal(limit_take(&none, UINT32_MAX, now), 0);
	/* A tenth of a second's bytes at once, then as they are earned. */
	assert_int_equal(limit_take(&l, 100, now), 0);
	assert_int_equal(limit_take(&l, 500, now), s / 2);
	assert_int_equal(limit_take(&l, 500, now), s);
	assert_int_equal(limit_take(&l, 1000, now + s), s);
	/* What was not used long ago is gone. */
	assert_int_equal(limit_take(&l, 200, now + 20 * s), s / 10);
	/* The largest request at the lowest rate. */
	l = (struct limit){.rate = 1};
	assert_int_equal(limit_take(&l, NBD_MAX_PAYLOAD, now), NBD_MAX_PAYLOAD * s - s / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_are_judged),
		cmocka_unit_test(exports_can_do_what_their_flags_say),
		cmocka_unit_test(extended_requests_are_judged),
		cmocka_unit_test(wrong_magics_end_it),
		cmocka_unit_test(errors_have_codes),
		cmocka_unit_test(filters_choose_contexts),
		cmocka_unit_test(rates_are_kept),
	};

	return cmocka_run_group_tests_name("nbd-request", tests, NULL, NULL);
}
