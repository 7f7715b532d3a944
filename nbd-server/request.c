// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Decoding and judging of requests (doc/proto.md, "Transmission phase"). What each command may come
 * with is in one table; each rule is one small function. A request that cannot be done is still
 * followed by its payload, so it is not dropped but answered.
 */
#include "nbd-server/request.h"

#include <errno.h>

#include "base/bytes.h"

/* Payload of a request that cannot be done anyway: more than this is not waited for. */
#define SWALLOW_MAX (2 * (uint64_t)NBD_MAX_PAYLOAD)

struct command {
	const char *name;
	uint16_t flags;  /* NBD_CMD_FLAG_… that may come with it, beside FUA */
	uint16_t needs;  /* NBD_FLAG_… without which the export does not have it */
	bool changes;    /* the export */
	bool ranged;     /* offset and length tell of bytes of the export */
	uint16_t beyond; /* the error when they do not lie in it */
};

static const struct command commands[] = {
	[NBD_CMD_READ] = {"read", NBD_CMD_FLAG_DF, 0, false, true, NBD_EINVAL},
	[NBD_CMD_WRITE] = {"write", 0, 0, true, true, NBD_ENOSPC},
	[NBD_CMD_DISC] = {"disconnect", 0, 0, false, false, 0},
	[NBD_CMD_FLUSH] = {"flush", 0, NBD_FLAG_SEND_FLUSH, false, false, 0},
	[NBD_CMD_TRIM] = {"trim", 0, NBD_FLAG_SEND_TRIM, true, true, NBD_EINVAL},
	[NBD_CMD_CACHE] = {"cache", 0, NBD_FLAG_SEND_CACHE, false, true, NBD_EINVAL},
	[NBD_CMD_WRITE_ZEROES] = {"write zeroes", NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
				  NBD_FLAG_SEND_WRITE_ZEROES, true, true, NBD_ENOSPC},
	[NBD_CMD_BLOCK_STATUS] = {"block status", NBD_CMD_FLAG_REQ_ONE, 0, false, true, NBD_EINVAL},
};

const char *request_name(uint16_t type)
{
	return type < ARRAY_LEN(commands) ? commands[type].name : "unknown request";
}

bool request_changes(uint16_t type)
{
	return type < ARRAY_LEN(commands) && commands[type].changes;
}

size_t request_head_size(enum reply_mode mode)
{
	return mode == MODE_EXTENDED ? sizeof(struct nbd_extended_request)
				     : sizeof(struct nbd_request);
}

void request_fail(struct request *r, uint16_t error, const char *why)
{
	if (r->error)
		return;
	r->error = error;
	r->why = why;
}

uint64_t request_weight(const struct request *r)
{
	return r->error || r->type == NBD_CMD_WRITE ? 0 : r->length;
}

uint16_t request_error(int code)
{
	switch (code) {
	case EPERM:
	case EACCES:
	case EROFS:
		return NBD_EPERM;
	case ENOMEM:
		return NBD_ENOMEM;
	case EINVAL:
		return NBD_EINVAL;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return NBD_ENOSPC;
	case EOVERFLOW:
		return NBD_EOVERFLOW;
	case EOPNOTSUPP:
		return NBD_ENOTSUP;
	case ESHUTDOWN:
		return NBD_ESHUTDOWN;
	default:
		return NBD_EIO;
	}
}

/* ---- the rules, in the order of the errors' weight ---- */

typedef void rule_fn(const struct request_rules *rules, const struct command *cmd,
		     struct request *r);

static void check_flags(const struct request_rules *rules, const struct command *cmd,
			struct request *r)
{
	uint16_t allowed = cmd->flags;

	/* "Valid for all commands", although it means something with few of them. */
	if (rules->flags & NBD_FLAG_SEND_FUA)
		allowed |= NBD_CMD_FLAG_FUA;
	if (rules->mode == MODE_SIMPLE)
		allowed &= (uint16_t)~NBD_CMD_FLAG_DF;
	if (!(rules->flags & NBD_FLAG_SEND_FAST_ZERO))
		allowed &= (uint16_t)~NBD_CMD_FLAG_FAST_ZERO;
	if (rules->mode == MODE_EXTENDED &&
	    (r->type == NBD_CMD_WRITE || (r->type == NBD_CMD_BLOCK_STATUS && rules->contexts)))
		allowed |= NBD_CMD_FLAG_PAYLOAD_LEN;
	if (rules->mode == MODE_EXTENDED && r->type == NBD_CMD_WRITE &&
	    !(r->flags & NBD_CMD_FLAG_PAYLOAD_LEN))
		request_fail(r, NBD_EINVAL, "a write without payload");
	if (r->flags & ~allowed)
		request_fail(r, NBD_EINVAL, "flags that do not go with this command");
}

static void check_rights(const struct request_rules *rules, const struct command *cmd,
			 struct request *r)
{
	if (cmd->changes && (rules->flags & NBD_FLAG_READ_ONLY))
		request_fail(r, NBD_EPERM, "the export is read-only");
	else if (cmd->needs && !(rules->flags & cmd->needs))
		request_fail(r, NBD_EINVAL, "the export does not have this command");
}

static void check_payload(const struct request_rules *rules, const struct command *cmd,
			  struct request *r)
{
	(void)cmd;
	if ((r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE) && r->length > rules->max_block)
		request_fail(r, NBD_EINVAL, "longer than the maximum block size");
}

static void check_range(const struct request_rules *rules, const struct command *cmd,
			struct request *r)
{
	uint64_t end;

	if (!cmd->ranged || (r->flags & NBD_CMD_FLAG_PAYLOAD_LEN && r->type != NBD_CMD_WRITE))
		return; /* of these the range is in the payload */
	if (!add_ok(r->offset, r->length, &end) || end > rules->size)
		request_fail(r, cmd->beyond, "beyond the end of the export");
}

static void check_flush(const struct request_rules *rules, const struct command *cmd,
			struct request *r)
{
	(void)rules;
	(void)cmd;
	if (r->type == NBD_CMD_FLUSH && (r->offset || r->length))
		request_fail(r, NBD_EINVAL, "offset and length of a flush must be zero");
}

/* be64 length, be32 context… */
static bool filter_size_ok(uint64_t n)
{
	return n > sizeof(be64) && n % sizeof(be32) == 0 &&
	       n <= sizeof(be64) + NBD_MAX_CONTEXTS * sizeof(be32);
}

static void check_status(const struct request_rules *rules, const struct command *cmd,
			 struct request *r)
{
	(void)cmd;
	if (r->type != NBD_CMD_BLOCK_STATUS)
		return;
	if (!rules->contexts)
		request_fail(r, NBD_EINVAL, "no meta context was selected");
	else if (!r->length)
		request_fail(r, NBD_EINVAL, "a block status of no bytes");
	else if ((r->flags & NBD_CMD_FLAG_PAYLOAD_LEN) && !filter_size_ok(r->length))
		request_fail(r, NBD_EINVAL, "a payload of a wrong size");
}

static rule_fn *const rule[] = {
	check_flags, check_rights, check_payload, check_range, check_flush, check_status,
};

static void judge(const struct request_rules *rules, struct request *r)
{
	if (r->type >= ARRAY_LEN(commands)) {
		request_fail(r, NBD_EINVAL, "unknown command");
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(rule); i++)
		rule[i](rules, &commands[r->type], r);
}

/* The payload that follows: with extended headers a flag tells, without WRITE has one. */
static int find_payload(const struct request_rules *rules, struct request *r, struct err *err)
{
	bool has = rules->mode == MODE_EXTENDED ? r->flags & NBD_CMD_FLAG_PAYLOAD_LEN
						: r->type == NBD_CMD_WRITE;

	if (!has)
		return 0;
	if (r->length > SWALLOW_MAX)
		return err_set(err, EPROTO, "%s with %llu bytes of payload", request_name(r->type),
			       (unsigned long long)r->length);
	r->payload = (uint32_t)r->length;
	return 0;
}

int request_decode(const struct request_rules *rules, const unsigned char *head, struct request *r,
		   struct err *err)
{
	struct nbd_extended_request ext;
	struct nbd_request req;
	uint32_t magic, expected;
	int code;

	if (rules->mode == MODE_EXTENDED) {
		memcpy(&ext, head, sizeof(ext));
		r->length = be64_get(ext.length);
		expected = NBD_EXTENDED_REQUEST_MAGIC;
	} else {
		memcpy(&req, head, sizeof(req));
		r->length = be32_get(req.length);
		expected = NBD_REQUEST_MAGIC;
	}
	memcpy(&req, head, sizeof(req)); /* but for the length they are the same */
	magic = be32_get(req.magic);
	if (magic != expected)
		return err_set(err, EPROTO, "request with a wrong magic number (0x%08x)", magic);
	r->flags = be16_get(req.flags);
	r->type = be16_get(req.type);
	r->cookie = be64_get(req.cookie);
	r->offset = be64_get(req.offset);
	code = find_payload(rules, r, err);
	if (code < 0)
		return code;
	judge(rules, r);
	r->contexts = rules->contexts;
	return 0;
}
