/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Payloads of the appliance's protocol; see wire.h. */
#include "wire.h"

#include <string.h>

#include "base/bytes.h"

static void *room(struct wire_out *w, size_t n)
{
	if (w->full || n > w->cap - w->len) {
		w->full = true;
		return NULL;
	}
	w->len += n;
	return w->buf + w->len - n;
}

void put_u8(struct wire_out *w, uint8_t v)
{
	unsigned char *p = room(w, 1);

	if (p)
		*p = v;
}

void put_u32(struct wire_out *w, uint32_t v)
{
	le32 *p = room(w, sizeof(*p));

	if (p)
		*p = le32_make(v);
}

void put_u64(struct wire_out *w, uint64_t v)
{
	le64 *p = room(w, sizeof(*p));

	if (p)
		*p = le64_make(v);
}

void put_bytes(struct wire_out *w, const void *bytes, size_t n)
{
	unsigned char *p = n > UINT32_MAX - 4 ? NULL : room(w, 4 + n);

	if (!p) {
		w->full = true;
		return;
	}
	le32 length = le32_make((uint32_t)n);

	memcpy(p, &length, 4);
	if (n)
		memcpy(p + 4, bytes, n);
}

void put_text(struct wire_out *w, const char *s)
{
	put_bytes(w, s, strlen(s));
}

static const void *some(struct wire_in *r, size_t n)
{
	if (r->bad || n > r->left) {
		r->bad = true;
		return NULL;
	}
	r->p += n;
	r->left -= n;
	return r->p - n;
}

uint8_t get_u8(struct wire_in *r)
{
	const unsigned char *p = some(r, 1);

	return p ? *p : 0;
}

uint32_t get_u32(struct wire_in *r)
{
	const le32 *p = some(r, sizeof(*p));

	return p ? le32_get(*p) : 0;
}

uint64_t get_u64(struct wire_in *r)
{
	const le64 *p = some(r, sizeof(*p));

	return p ? le64_get(*p) : 0;
}

const void *get_bytes(struct wire_in *r, size_t max, size_t *n)
{
	uint32_t length = get_u32(r);
	const void *p = NULL;

	if (length > max)
		r->bad = true;
	else
		p = some(r, length);
	*n = p ? length : 0;
	return p ? p : "";
}

void get_text(struct wire_in *r, char *buf, size_t size)
{
	size_t n;
	const void *p = get_bytes(r, size - 1, &n);

	if (memchr(p, 0, n)) {
		r->bad = true;
		n = 0;
	}
	memcpy(buf, p, n);
	buf[n] = 0;
}

static void put_time(struct wire_out *w, struct agent_time t)
{
	put_u64(w, (uint64_t)t.sec);
	put_u32(w, t.nsec);
}

static struct agent_time get_time(struct wire_in *r)
{
	struct agent_time t = {.sec = (int64_t)get_u64(r)};

	t.nsec = get_u32(r);
	if (t.nsec >= 1000000000)
		r->bad = true;
	return t;
}

void put_stat(struct wire_out *w, const struct agent_stat *st)
{
	const uint32_t words[] = {st->mode, st->nlink,      st->uid,
				  st->gid,  st->rdev_major, st->rdev_minor};

	put_u64(w, st->dev);
	put_u64(w, st->ino);
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		put_u32(w, words[i]);
	put_u64(w, st->size);
	put_u64(w, st->allocated);
	put_time(w, st->atime);
	put_time(w, st->mtime);
	put_time(w, st->ctime);
	put_time(w, st->btime);
	put_u32(w, st->flags);
}

void get_stat(struct wire_in *r, struct agent_stat *st)
{
	uint32_t *const words[] = {&st->mode, &st->nlink,      &st->uid,
				   &st->gid,  &st->rdev_major, &st->rdev_minor};

	st->dev = get_u64(r);
	st->ino = get_u64(r);
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		*words[i] = get_u32(r);
	st->size = get_u64(r);
	st->allocated = get_u64(r);
	st->atime = get_time(r);
	st->mtime = get_time(r);
	st->ctime = get_time(r);
	st->btime = get_time(r);
	st->flags = get_u32(r);
}

void put_volume(struct wire_out *w, const struct agent_volume *v)
{
	put_u32(w, v->disk);
	put_u32(w, v->part);
	put_u64(w, v->offset);
	put_u64(w, v->size);
	put_u32(w, v->sector);
	put_text(w, v->table);
	put_text(w, v->part_type);
	put_text(w, v->part_uuid);
	put_text(w, v->part_name);
	put_u32(w, v->part_flags);
	put_text(w, v->usage);
	put_text(w, v->type);
	put_text(w, v->label);
	put_text(w, v->uuid);
	put_text(w, v->version);
	put_u64(w, v->fs_size);
	put_u32(w, v->fs_block);
}

void get_volume(struct wire_in *r, struct agent_volume *v)
{
	v->disk = get_u32(r);
	v->part = get_u32(r);
	v->offset = get_u64(r);
	v->size = get_u64(r);
	v->sector = get_u32(r);
	get_text(r, v->table, sizeof(v->table));
	get_text(r, v->part_type, sizeof(v->part_type));
	get_text(r, v->part_uuid, sizeof(v->part_uuid));
	get_text(r, v->part_name, sizeof(v->part_name));
	v->part_flags = get_u32(r);
	get_text(r, v->usage, sizeof(v->usage));
	get_text(r, v->type, sizeof(v->type));
	get_text(r, v->label, sizeof(v->label));
	get_text(r, v->uuid, sizeof(v->uuid));
	get_text(r, v->version, sizeof(v->version));
	v->fs_size = get_u64(r);
	v->fs_block = get_u32(r);
}
