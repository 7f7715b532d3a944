// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The journal of a conversion; see journal.h.
 *
 * A checksum tells a torn record from a whole one; it is no proof of who wrote it. So what a whole
 * record says is looked at as well before anybody uses it.
 */
#include "ops/journal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define MAGIC        "imgkit convert\n\x1a"
#define VERSION      1
#define IDENTITY_MAX (1 * MiB)
#define RUNS_MAX     UINT64_C(32768) /* in a record */

enum { RECORD_IDENTITY = 1, RECORD_CHECKPOINT };

struct disk_head {
	unsigned char magic[16];
	le32 version;
	le32 reserved; /* 0 */
};
_Static_assert(sizeof(struct disk_head) == 24, "as on disk");

struct disk_record {
	le32 type;
	le32 len; /* bytes of payload */
	le32 number;
	le32 crc; /* of the three above and the payload */
};
_Static_assert(sizeof(struct disk_record) == 16, "as on disk");

struct disk_checkpoint {
	le64 end;
	/* runs follow */
};

struct disk_run {
	le64 off; /* in its low bits: kind */
	le64 len;
};
#define KIND_MASK UINT64_C(511)

/* Head and identity. */
#define FIRST_MAX (sizeof(struct disk_head) + sizeof(struct disk_record) + IDENTITY_MAX)

#define PAYLOAD_MAX (sizeof(struct disk_checkpoint) + RUNS_MAX * sizeof(struct disk_run))

struct journal {
	struct io *io;  /* owned */
	char *identity; /* owned */
	bool is_new;
	bool read_all;           /* journal_next has seen the end */
	uint64_t pos;            /* bytes: where the next record is, or will be */
	uint32_t number;         /* its number */
	uint64_t end;            /* see journal_end */
	unsigned char *payload;  /* PAYLOAD_MAX, or IDENTITY_MAX if more */
	struct journal_run *run; /* RUNS_MAX */
};

static uint32_t checksum(const struct disk_record *rec, const void *payload, size_t len)
{
	uLong crc = crc32(0, (const void *)rec, offsetof(struct disk_record, crc));

	return (uint32_t)crc32(crc, payload, (uInt)len);
}

/* ---- writing ---- */

static int write_record(struct journal *j, uint32_t type, size_t len, struct err *err)
{
	CLEANUP_FREE unsigned char *buf = malloc(sizeof(struct disk_record) + len);
	struct disk_record rec = {
		.type = le32_make(type),
		.len = le32_make((uint32_t)len),
		.number = le32_make(j->number),
	};
	int r;

	if (!buf)
		return err_nomem(err, len, "a record of the journal");
	rec.crc = le32_make(checksum(&rec, j->payload, len));
	memcpy(buf, &rec, sizeof(rec));
	memcpy(buf + sizeof(rec), j->payload, len);
	r = io_pwrite(j->io, buf, sizeof(rec) + len, j->pos, err);
	if (r < 0)
		return r;
	j->pos += sizeof(rec) + len;
	j->number++;
	return 0;
}

/* Up to RUNS_MAX runs. Everything before `end` is durable. */
static int append_part(struct journal *j, const struct journal_run *run, size_t n, uint64_t end,
		       struct err *err)
{
	struct disk_checkpoint c = {.end = le64_make(end)};
	unsigned char *p = j->payload + sizeof(c);

	memcpy(j->payload, &c, sizeof(c));
	for (size_t i = 0; i < n; i++, p += sizeof(struct disk_run)) {
		struct disk_run d = {
			.off = le64_make(run[i].off | run[i].kind),
			.len = le64_make(run[i].len),
		};

		memcpy(p, &d, sizeof(d));
	}
	return write_record(j, RECORD_CHECKPOINT, (size_t)(p - j->payload), err);
}

int journal_append(struct journal *j, const struct journal_checkpoint *c, struct err *err)
{
	size_t at = 0;
	int r = 0;

	do {
		size_t n = (size_t)min_u64(c->n - at, RUNS_MAX);
		bool last = at + n == c->n;

		/* A part ends where the first run of the next one begins. */
		r = append_part(j, c->run + at, n, last ? c->end : c->run[at + n].off, err);
		at += n;
	} while (r == 0 && at < c->n);
	if (r == 0)
		r = io_flush(j->io, err);
	if (r == 0)
		j->end = c->end;
	return r;
}

/* ---- reading ---- */

/* The record at pos, its payload in j->payload. 1; 0: there is none, or it is torn; -errno. */
static int read_record(struct journal *j, uint32_t *type, size_t *len, size_t max, struct err *err)
{
	uint64_t size = io_size(j->io), left = size - min_u64(size, j->pos);
	struct disk_record rec;
	int r;

	if (left < sizeof(rec))
		return 0;
	r = io_pread(j->io, &rec, sizeof(rec), j->pos, err);
	if (r < 0)
		return r;
	*type = le32_get(rec.type);
	*len = le32_get(rec.len);
	if (*len > max || *len > left - sizeof(rec) || le32_get(rec.number) != j->number)
		return 0;
	r = io_pread(j->io, j->payload, *len, j->pos + sizeof(rec), err);
	if (r < 0)
		return r;
	if (checksum(&rec, j->payload, *len) != le32_get(rec.crc))
		return 0;
	j->pos += sizeof(rec) + *len;
	j->number++;
	return 1;
}

/* False: it cannot be. *from: where it may begin. */
static bool decode_run(struct journal_run *run, const unsigned char *p, uint64_t *from,
		       uint64_t end)
{
	struct disk_run d;
	uint64_t kind;

	memcpy(&d, p, sizeof(d));
	kind = le64_get(d.off) & KIND_MASK;
	run->kind = (enum journal_kind)kind;
	run->off = le64_get(d.off) & ~KIND_MASK;
	run->len = le64_get(d.len);
	if (kind > JOURNAL_ZERO || run->len == 0 || run->off < *from || run->off >= end)
		return false;
	/* How much of the disk a compressed unit covers is for the builder to know. */
	return add_ok(run->off, kind == JOURNAL_CODED ? 1 : run->len, from);
}

static int decode_checkpoint(struct journal *j, size_t len, struct journal_checkpoint *c,
			     struct err *err)
{
	uint64_t at = j->pos - len, from = j->end;
	const unsigned char *p = j->payload + sizeof(struct disk_checkpoint);
	struct disk_checkpoint d;

	if (len < sizeof(d) || (len - sizeof(d)) % sizeof(struct disk_run))
		return io_corrupt(j->io, err, at, "a checkpoint of %zu bytes", len);
	memcpy(&d, j->payload, sizeof(d));
	*c = (struct journal_checkpoint){.end = le64_get(d.end), .run = j->run};
	if (c->end <= j->end || c->end > INT64_MAX)
		return io_corrupt(j->io, err, at,
				  "the checkpoint says %" PRIu64 " bytes are done, after %" PRIu64,
				  c->end, j->end);
	c->n = (len - sizeof(d)) / sizeof(struct disk_run);
	for (size_t i = 0; i < c->n; i++, p += sizeof(struct disk_run)) {
		if (!decode_run(&j->run[i], p, &from, c->end))
			return io_corrupt(j->io, err, (uint64_t)(p - j->payload) + at,
					  "run %zu of the checkpoint is not in order", i);
	}
	j->end = c->end;
	return 1;
}

int journal_next(struct journal *j, struct journal_checkpoint *c, struct err *err)
{
	uint32_t type;
	size_t len;
	int r = j->read_all ? 0 : read_record(j, &type, &len, PAYLOAD_MAX, err);

	j->read_all = r == 0;
	/* Records behind a torn one would count again once that is overwritten. */
	if (r == 0 && io_size(j->io) > j->pos)
		r = io_resize(j->io, j->pos, err);
	if (r <= 0)
		return r;
	if (type != RECORD_CHECKPOINT)
		return io_corrupt(j->io, err, j->pos - len, "an unknown record, type %" PRIu32,
				  type);
	return decode_checkpoint(j, len, c, err);
}

/* ---- identity ---- */

/* The first line that begins with these bytes. */
static const char *find_line(const char *text, const char *start, size_t len)
{
	while (*text) {
		if (strncmp(text, start, len) == 0)
			return text;
		text += strcspn(text, "\n");
		text += *text != 0;
	}
	return NULL;
}

/* The first line of `text` that is not in `other`. */
static const char *first_other(const char *text, const char *other)
{
	while (*text) {
		size_t len = strcspn(text, "\n") + 1;

		if (!find_line(other, text, len))
			return text;
		text += len - (text[len - 1] == 0);
	}
	return NULL;
}

/* For a message. */
static int line_len(const char *line)
{
	return (int)min_u64(strcspn(line, "\n"), 150);
}

/* Says in what. */
static int differs(const char *was, const char *is, struct err *err)
{
	const char *now = first_other(is, was), *gone = first_other(was, is), *before;

	if (now) {
		before = find_line(was, now, strcspn(now, ":"));
		before = before ? before : "nothing of the kind";
		return err_set(err, EINVAL, "it was begun with \"%.*s\", now it is \"%.*s\"",
			       line_len(before), before, line_len(now), now);
	}
	if (gone)
		return err_set(err, EINVAL, "it was begun with \"%.*s\", now it is without",
			       line_len(gone), gone);
	return err_set(err, EINVAL, "it was begun with sources or options in another order");
}

/* 1: there is a journal of *version; 0: there is nothing. */
static int read_head(struct io *io, uint32_t *version, struct err *err)
{
	struct disk_head head = {.version = le32_make(VERSION)};
	size_t have = (size_t)min_u64(io_size(io), sizeof(head));
	int r = io_pread(io, &head, have, 0, err);

	if (r < 0)
		return r;
	/* Made, and then the power failed. */
	if (bytes_are_zero(&head, have) && io_size(io) <= FIRST_MAX)
		return 0;
	if (memcmp(head.magic, MAGIC, min_u64(have, sizeof(head.magic))) != 0)
		return err_set(err, EUCLEAN, "%s: the file is no journal of a conversion",
			       io->name);
	*version = le32_get(head.version);
	return 1;
}

int journal_empty(struct io *file, struct err *err)
{
	uint32_t version;
	int r = read_head(file, &version, err);

	return r < 0 ? r : io_resize(file, 0, err);
}

/* 1: it is ours; 0: there is nothing. */
static int read_identity(struct journal *j, struct err *err)
{
	uint32_t version, type;
	size_t len;
	int r = read_head(j->io, &version, err);

	if (r <= 0)
		return r;
	if (version != VERSION)
		return err_set(err, EINVAL, "%s: the journal is of version %" PRIu32 ", not %d",
			       j->io->name, version, VERSION);
	j->pos = sizeof(struct disk_head);
	r = read_record(j, &type, &len, IDENTITY_MAX, err);
	if (r <= 0)
		return r;
	if (type != RECORD_IDENTITY)
		return io_corrupt(j->io, err, sizeof(struct disk_head),
				  "the journal does not say of what");
	j->payload[len] = '\0';
	return strcmp((char *)j->payload, j->identity) == 0
		       ? 1
		       : differs((char *)j->payload, j->identity, err);
}

static int restart(struct journal *j, struct err *err)
{
	struct disk_head head = {.magic = MAGIC, .version = le32_make(VERSION)};
	size_t len = strlen(j->identity);
	int r = io_resize(j->io, 0, err);

	j->is_new = j->read_all = true;
	j->pos = sizeof(head);
	j->number = 0;
	j->end = 0;
	memcpy(j->payload, j->identity, len);
	if (r == 0)
		r = io_pwrite(j->io, &head, sizeof(head), 0, err);
	if (r == 0)
		r = write_record(j, RECORD_IDENTITY, len, err);
	return r < 0 ? r : io_flush(j->io, err);
}

static int load(struct journal *j, const char *identity, bool begin, struct err *err)
{
	int r;

	if (strlen(identity) > IDENTITY_MAX)
		return err_set(err, E2BIG, "%s: too many sources for a journal", j->io->name);
	j->identity = strdup(identity);
	j->payload = malloc(max_u64(PAYLOAD_MAX, IDENTITY_MAX) + 1);
	j->run = calloc(RUNS_MAX, sizeof(*j->run));
	if (!j->identity || !j->payload || !j->run)
		return err_nomem(err, PAYLOAD_MAX, "a journal");
	r = read_identity(j, err);
	if (r == 0 && !begin)
		return err_set(err, EUCLEAN, "%s: the journal does not say of what it is",
			       j->io->name);
	return r == 0 ? restart(j, err) : r;
}

int journal_open(struct io *file, const char *identity, bool begin, struct journal **out,
		 struct err *err)
{
	struct journal *j = calloc(1, sizeof(*j));
	int r;

	if (!j)
		return err_nomem(err, sizeof(*j), "a journal");
	j->io = file;
	r = load(j, identity, begin, err);
	if (r < 0) {
		j->io = NULL;
		journal_close(j);
		return r;
	}
	*out = j;
	return 0;
}

bool journal_is_new(const struct journal *j)
{
	return j->is_new;
}

uint64_t journal_end(const struct journal *j)
{
	return j->end;
}

void journal_close(struct journal *j)
{
	if (!j)
		return;
	io_close(j->io);
	free(j->identity);
	free(j->payload);
	free(j->run);
	free(j);
}
