/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The loop of the agent and the table of its calls. */
#include <errno.h>

#include "agent.h"

static const struct call {
	uint16_t op;
	bool input; /* DATA comes with it */
	call_fn *fn;
} calls[] = {
	{OP_VOLUMES, false, call_volumes},
	{OP_MOUNT, false, call_mount},
	{OP_MOUNT_ROOT, false, call_mount_root},
	{OP_UNMOUNT, false, call_unmount},
	{OP_SYNC, false, call_sync},
	{OP_STAT, false, call_stat},
	{OP_READLINK, false, call_readlink},
	{OP_READDIR, false, call_readdir},
	{OP_STATFS, false, call_statfs},
	{OP_READ, false, call_read},
	{OP_EXPORT, false, call_export},
	{OP_XATTR_GET, false, call_xattr_get},
	{OP_XATTR_LIST, false, call_xattr_list},
	{OP_WRITE, true, call_write},
	{OP_MKDIR, false, call_mkdir},
	{OP_REMOVE, false, call_remove},
	{OP_RENAME, false, call_rename},
	{OP_SYMLINK, false, call_symlink},
	{OP_LINK, false, call_link},
	{OP_MKNOD, false, call_mknod},
	{OP_SETATTR, false, call_setattr},
	{OP_CHMOD, false, call_chmod},
	{OP_XATTR_SET, false, call_xattr_set},
	{OP_XATTR_REMOVE, false, call_xattr_remove},
	{OP_IMPORT, true, call_import},
	{OP_MKFS, false, call_mkfs},
};

static const struct call *call_find(uint16_t op)
{
	for (size_t i = 0; i < ARRAY_LEN(calls); i++)
		if (calls[i].op == op)
			return &calls[i];
	return NULL;
}

int call_args(const struct wire_in *args, struct err *err)
{
	return wire_done(args) ? 0 : err_set(err, EINVAL, "the arguments of a call are malformed");
}

int call_flags(uint32_t flags, uint32_t known, struct err *err)
{
	if (!(flags & ~known))
		return 0;
	return err_set(err, EINVAL, "the call does not know the flags 0x%x", flags & ~known);
}

/* ---- the loop ---- */

static int fail(struct agent *a, int r, const struct err *e, struct err *err)
{
	unsigned char buf[8 + sizeof(e->msg)];
	struct wire_out w = wire_out(buf, sizeof(buf));
	struct err said = *e;

	if (!said.msg[0])
		err_sys(&said, -r, "the call failed");
	put_u32(&w, (uint32_t)-r);
	put_text(&w, said.msg);
	return channel_send(&a->ch, FRAME_FAIL, w.buf, w.len, err);
}

static int serve(struct agent *a, const struct frame *f, struct err *err)
{
	const struct call *call = call_find(f->op);
	struct wire_in args = wire_in(f->payload, f->len);
	struct wire_out result = wire_out(a->result, sizeof(a->result));
	struct err e = {0};
	int r;

	a->ch.call = f->call;
	a->ch.cancelled = false;
	a->ch.ended = !call || !call->input;
	if (call)
		r = call->fn(a, &args, &result, &e);
	else
		r = err_set(&e, ENOSYS, "there is no call %u", f->op);
	if (r >= 0 && result.full)
		r = err_set(&e, E2BIG, "the result is too large");
	if (a->ch.broken) {
		*err = e;
		return r < 0 ? r : -EPIPE;
	}
	/* Of a call that failed, what was not sent yet is not worth sending. */
	if (r < 0)
		a->ch.data.len = 0;
	r = r < 0 ? fail(a, r, &e, err)
		  : channel_send(&a->ch, FRAME_DONE, result.buf, result.len, err);
	if (r == 0)
		r = channel_flush(&a->ch, err);
	return r == 0 ? channel_drop(&a->ch, err) : r;
}

static int hello(struct agent *a, struct err *err)
{
	unsigned char buf[8];
	struct wire_out w = wire_out(buf, sizeof(buf));
	int r;

	put_u32(&w, AGENT_PROTOCOL);
	put_u32(&w, a->disks.n);
	r = channel_send(&a->ch, FRAME_HELLO, buf, sizeof(buf), err);
	return r == 0 ? channel_flush(&a->ch, err) : r;
}

static int loop(struct agent *a, struct err *err)
{
	struct frame f;
	int r = hello(a, err);

	while (r == 0) {
		r = channel_next(&a->ch, &f, err);
		if (r <= 0)
			return r;
		/* A CANCEL may come when the call is done already. */
		if (f.type == FRAME_CANCEL)
			r = 0;
		else if (f.type == FRAME_CALL)
			r = serve(a, &f, err);
		else
			r = err_set(err, EPROTO, "DATA or END without a call");
	}
	return r;
}

int agent_serve(struct agent *a, int in, int out, struct err *err)
{
	struct err e = {0};
	int r = channel_init(&a->ch, in, out, err), u;

	if (r == 0)
		r = loop(a, err);
	u = tree_unmount(&a->tree, &e);
	channel_free(&a->ch);
	if (r == 0 && u < 0)
		*err = e;
	return r < 0 ? r : u;
}
