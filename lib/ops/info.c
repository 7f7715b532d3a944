// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What images say about themselves; see info.h.
 *
 * An image is not trusted: asking for its facts opens no other file unless the chain is asked for.
 */
#include "ops/info.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/json.h"
#include "io/file.h"

#define NS_PER_SEC 1000000000u

void info_free(struct info_list *list)
{
	for (unsigned i = 0; i < list->n; i++)
		json_decref(list->v[i].info.specific);
	free(list->v);
	if (list->top)
		io_close(&list->top->io);
	*list = (struct info_list){0};
}

static int query(struct info_entry *e, struct err *err)
{
	struct img *img = e->img;
	struct file_stat st;

	e->size = io_size(&img->io);
	if (img_bottom(img) && file_stat(img_bottom(img), &st, NULL) == 0) {
		e->allocated = st.allocated;
		e->has_allocated = true;
	}
	return img->fmt->info ? img->fmt->info(img, &e->info, err) : 0;
}

int info_collect(const struct img_open_args *args, bool chain, struct info_list *list,
		 struct err *err)
{
	struct img_open_args open = *args;
	unsigned n = 0;
	int r;

	open.flags = IMG_NO_DATA | (chain ? args->flags & ~(unsigned)IMG_NO_BACKING
					  : args->flags | IMG_NO_BACKING);
	r = img_open(&open, &list->top, err);
	if (r < 0)
		return r;
	for (struct img *img = list->top; img; img = img->backing)
		n++;
	list->v = calloc(n, sizeof(*list->v));
	if (!list->v)
		return err_nomem(err, n * sizeof(*list->v), "the facts of images");
	for (struct img *img = list->top; img && r == 0; img = img->backing) {
		struct info_entry *e = &list->v[list->n++];

		e->img = img;
		e->path = img->io.name;
		r = query(e, err);
	}
	return r;
}

void info_limits(struct img *img, struct info_limits *limits)
{
	struct io *file = img_bottom(img);
	long page = sysconf(_SC_PAGESIZE);
	struct file_stat st = {.mem_align = 1};

	if (file && file_stat(file, &st, NULL) < 0)
		st.mem_align = 1;
	*limits = (struct info_limits){
		.request_alignment = img->io.align,
		.write_zeroes_alignment = img->unit > 1 ? img->unit : 0,
		.discard_alignment = img->unit > 1 ? img->unit : 0,
		.min_mem_alignment = st.mem_align,
		.opt_mem_alignment = max_u64(st.mem_align, page > 0 ? (uint64_t)page : 1),
		.max_iov = IOV_MAX,
	};
}

/* ---- JSON ---- */

json_t *info_limits_json(struct img *img)
{
	json_t *o = json_object();
	struct info_limits l;
	int r = o ? 0 : -1;

	info_limits(img, &l);
	if (l.write_zeroes_alignment)
		r |= json_set_u64(o, "write-zeroes-alignment", l.write_zeroes_alignment);
	r |= json_set_u64(o, "request-alignment", l.request_alignment);
	r |= json_set_u64(o, "min-mem-alignment", l.min_mem_alignment);
	if (l.discard_alignment)
		r |= json_set_u64(o, "discard-alignment", l.discard_alignment);
	r |= json_set_u64(o, "opt-mem-alignment", l.opt_mem_alignment);
	r |= json_set_u64(o, "max-iov", l.max_iov);
	if (r != 0) {
		json_decref(o);
		o = NULL;
	}
	return o;
}

static int snapshot_fields(json_t *o, const struct snapshot *s)
{
	int r = 0;

	if (s->icount != UINT64_MAX)
		r |= json_set_u64(o, "icount", s->icount);
	r |= json_set_u64(o, "vm-clock-nsec", s->vm_clock_ns % NS_PER_SEC);
	r |= json_set_text(o, "name", s->name);
	r |= json_set_u64(o, "date-sec", s->date_sec);
	r |= json_set_u64(o, "date-nsec", s->date_nsec);
	r |= json_set_u64(o, "vm-clock-sec", s->vm_clock_ns / NS_PER_SEC);
	r |= json_set_text(o, "id", s->id);
	return r | json_set_u64(o, "vm-state-size", s->vm_state_size);
}

json_t *info_snapshots_json(const struct snapshot *snap, unsigned n)
{
	json_t *list = json_array();

	for (unsigned i = 0; list && i < n; i++) {
		json_t *o = json_object();

		if (!o || snapshot_fields(o, &snap[i]) || json_array_append(list, o)) {
			json_decref(list);
			list = NULL;
		}
		json_decref(o);
	}
	return list;
}

static int image_fields(json_t *o, const struct info_entry *e)
{
	const struct snapshot *snaps;
	unsigned n = 0;
	int r = 0;

	snaps = img_snapshots(e->img, &n);
	if (e->limits)
		r |= json_object_set_new(o, "limits", info_limits_json(e->img));
	r |= json_set_text(o, "backing-filename-format", e->img->backing_format);
	if (n)
		r |= json_object_set_new(o, "snapshots", info_snapshots_json(snaps, n));
	r |= json_set_u64(o, "virtual-size", e->size);
	r |= json_set_text(o, "filename", e->path);
	if (e->info.cluster_size)
		r |= json_set_u64(o, "cluster-size", e->info.cluster_size);
	r |= json_set_text(o, "format", e->img->fmt->name);
	if (e->has_allocated)
		r |= json_set_u64(o, "actual-size", e->allocated);
	if (e->info.specific)
		r |= json_object_set(o, "format-specific", e->info.specific);
	r |= json_set_text(o, "full-backing-filename", e->img->backing_path);
	if (e->info.encrypted)
		r |= json_set_bool(o, "encrypted", true);
	r |= json_set_text(o, "backing-filename", e->img->backing_name);
	/* The peer asks the file for it where the format has nothing to say. */
	if (e->img->fmt->place || img_bottom(e->img))
		r |= json_set_bool(o, "dirty-flag", e->info.dirty);
	return r;
}

json_t *info_json(const struct info_entry *entry)
{
	json_t *o = json_object();

	if (o && image_fields(o, entry)) {
		json_decref(o);
		o = NULL;
	}
	return o;
}

json_t *info_chain_json(const struct info_list *list)
{
	json_t *array = json_array();

	for (unsigned i = 0; array && i < list->n; i++) {
		if (json_array_append_new(array, info_json(&list->v[i]))) {
			json_decref(array);
			array = NULL;
		}
	}
	return array;
}
