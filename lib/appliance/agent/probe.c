/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Partitions and signatures, by libblkid's low-level interface on the agent's file descriptors;
 * see probe.h. libblkid opens nothing here: it gets a descriptor, an offset and a size.
 */
#include "probe.h"

#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SECTOR 512u /* what libblkid counts in, whatever the disk has */

static void free_probe(blkid_probe *pr)
{
	if (*pr)
		blkid_free_probe(*pr);
}
#define CLEANUP_PROBE __attribute__((cleanup(free_probe)))

const char *disks_name(uint32_t disk, uint32_t part, char *buf)
{
	snprintf(buf, 16, part ? "sd%c%u" : "sd%c", (char)('a' + disk % AGENT_DISKS_MAX), part);
	return buf;
}

int disks_init(struct disks *d, struct err *err)
{
	struct stat st;

	*d = (struct disks){0};
	for (; d->n < AGENT_DISKS_MAX && !fstat(AGENT_FD_DISK + (int)d->n, &st); d->n++) {
		d->disk[d->n].size = st.st_size > 0 ? (uint64_t)st.st_size : 0;
		d->disk[d->n].rdonly =
			(fcntl(AGENT_FD_DISK + (int)d->n, F_GETFL) & O_ACCMODE) == O_RDONLY;
	}
	d->known = calloc(VOLUMES_MAX, sizeof(*d->known));
	return d->known ? 0 : err_nomem(err, VOLUMES_MAX * sizeof(*d->known), "volumes");
}

void disks_free(struct disks *d)
{
	probe_io_free();
	free(d->known);
	d->known = NULL;
}

void disks_forget(struct disks *d)
{
	d->n_known = 0;
	for (unsigned i = 0; i < d->n; i++)
		d->disk[i].scanned = false;
}

static int new_probe(uint32_t disk, uint64_t offset, uint64_t size, blkid_probe *pr,
		     struct err *err)
{
	int fd = AGENT_FD_DISK + (int)disk;
	int r = probe_io_window(fd, offset, size, err);

	if (r < 0)
		return r;
	*pr = blkid_new_probe();
	if (!*pr)
		return err_nomem(err, 0, "a probe");
	if (blkid_probe_set_device(*pr, fd, (blkid_loff_t)offset, (blkid_loff_t)size))
		return err_set(err, EIO, "disk %u cannot be probed", disk);
	return 0;
}

static void copy(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from ? from : "");
}

static struct known *add_known(struct disks *d)
{
	if (d->n_known == VOLUMES_MAX)
		return NULL;
	d->known[d->n_known] = (struct known){0};
	return &d->known[d->n_known++];
}

static bool has_part(const struct disks *d, uint32_t disk, uint32_t part)
{
	for (unsigned i = 0; i < d->n_known; i++)
		if (d->known[i].v.disk == disk && d->known[i].v.part == part)
			return true;
	return false;
}

/* ---- partition tables ---- */

static int add_partition(struct disks *d, uint32_t disk, blkid_partition p, struct err *err)
{
	blkid_loff_t start = blkid_partition_get_start(p), size = blkid_partition_get_size(p);
	bool gpt = blkid_partition_get_type_string(p) != NULL;
	unsigned long long flags = blkid_partition_get_flags(p);
	int part = blkid_partition_get_partno(p);
	struct known *k;

	/* Numbers and places are the disk's words: one that cannot be is left out. */
	if (part <= 0 || start < 0 || size < 0 || start > INT64_MAX / SECTOR ||
	    size > INT64_MAX / SECTOR || has_part(d, disk, (uint32_t)part))
		return 0;
	k = add_known(d);
	if (!k)
		return err_set(err, E2BIG, "more than %u partitions", VOLUMES_MAX);
	k->v.disk = disk;
	k->v.part = (uint32_t)part;
	k->v.offset = (uint64_t)start * SECTOR;
	k->v.size = (uint64_t)size * SECTOR;
	k->extended = blkid_partition_is_extended(p);
	if (gpt)
		copy(k->v.part_type, sizeof(k->v.part_type), blkid_partition_get_type_string(p));
	else
		snprintf(k->v.part_type, sizeof(k->v.part_type), "0x%x",
			 (unsigned)blkid_partition_get_type(p));
	copy(k->v.part_uuid, sizeof(k->v.part_uuid), blkid_partition_get_uuid(p));
	copy(k->v.part_name, sizeof(k->v.part_name), blkid_partition_get_name(p));
	k->v.part_flags = gpt ? flags >> 2 & 1 : (flags & 0x80) != 0;
	return 0;
}

/* The table of the whole disk, with sectors of this size. 1: there is one. */
static int scan_table(struct disks *d, struct known *whole, uint32_t sector, struct err *err)
{
	CLEANUP_PROBE blkid_probe pr = NULL;
	uint32_t disk = whole->v.disk;
	blkid_partlist list;
	blkid_parttable table;
	int r = new_probe(disk, 0, whole->v.size, &pr, err);

	if (r < 0)
		return r;
	blkid_probe_set_sectorsize(pr, sector);
	blkid_probe_enable_superblocks(pr, 0);
	blkid_probe_enable_partitions(pr, 1);
	blkid_probe_set_partitions_flags(pr, BLKID_PARTS_ENTRY_DETAILS);
	list = blkid_probe_get_partitions(pr);
	table = list ? blkid_partlist_get_table(list) : NULL;
	/* PMBR is what is left of a GPT when that cannot be read: with this size of sectors. */
	if (!table || !strcmp(blkid_parttable_get_type(table), "PMBR"))
		return 0;
	copy(whole->v.table, sizeof(whole->v.table), blkid_parttable_get_type(table));
	copy(whole->v.part_uuid, sizeof(whole->v.part_uuid), blkid_parttable_get_id(table));
	whole->v.sector = sector;
	for (int i = 0; i < blkid_partlist_numof_partitions(list) && r == 0; i++)
		r = add_partition(d, disk, blkid_partlist_get_partition(list, i), err);
	return r < 0 ? r : 1;
}

int disks_scan(struct disks *d, uint32_t disk, struct err *err)
{
	static const uint32_t sectors[] = {512, 4096};
	struct known *whole;
	int r = 0;

	if (d->disk[disk].scanned)
		return 0;
	whole = add_known(d);
	if (!whole)
		return err_set(err, E2BIG, "more than %u partitions", VOLUMES_MAX);
	whole->v.disk = disk;
	whole->v.size = d->disk[disk].size;
	for (size_t i = 0; i < ARRAY_LEN(sectors) && !r && whole->v.size; i++)
		r = scan_table(d, whole, sectors[i], err);
	if (r < 0)
		return r;
	d->disk[disk].scanned = true;
	return 0;
}

/* ---- signatures ---- */

static void value(blkid_probe pr, const char *name, char *to, size_t size)
{
	const char *data;

	if (!blkid_probe_lookup_value(pr, name, &data, NULL))
		copy(to, size, data);
}

static void take_values(blkid_probe pr, struct agent_volume *v)
{
	char number[24] = "";

	value(pr, "USAGE", v->usage, sizeof(v->usage));
	value(pr, "TYPE", v->type, sizeof(v->type));
	value(pr, "LABEL", v->label, sizeof(v->label));
	value(pr, "UUID", v->uuid, sizeof(v->uuid));
	value(pr, "VERSION", v->version, sizeof(v->version));
	value(pr, "BLOCK_SIZE", number, sizeof(number));
	v->fs_block = (uint32_t)strtoul(number, NULL, 10);
}

static void forget_values(struct agent_volume *v)
{
	v->usage[0] = v->type[0] = v->label[0] = v->uuid[0] = v->version[0] = 0;
	v->fs_block = 0;
}

static int look(struct disks *d, struct known *k, bool raids, struct err *err)
{
	CLEANUP_PROBE blkid_probe pr = NULL;
	struct volume vol;
	int r;

	forget_values(&k->v);
	if (k->extended || disks_volume(d, k, &vol, NULL) < 0)
		return 0;
	r = new_probe(k->v.disk, vol.offset, vol.size, &pr, err);
	if (r < 0)
		return r;
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_DEFAULT | BLKID_SUBLKS_USAGE |
						      BLKID_SUBLKS_VERSION);
	if (!raids)
		blkid_probe_filter_superblocks_usage(pr, BLKID_FLTR_NOTIN, BLKID_USAGE_RAID);
	r = blkid_do_safeprobe(pr);
	if (r == 0)
		take_values(pr, &k->v);
	else if (r == -2)
		copy(k->v.usage, sizeof(k->v.usage), "ambivalent");
	/* What cannot be read holds nothing that could be recognised. */
	return 0;
}

int disks_look(struct disks *d, struct known *k, struct err *err)
{
	int r = k->looked ? 0 : look(d, k, true, err);

	k->looked = k->glanced = r == 0;
	return r;
}

int disks_glance(struct disks *d, struct known *k, struct err *err)
{
	int r = k->glanced ? 0 : look(d, k, false, err);

	k->glanced = r == 0;
	return r;
}

int disks_look_all(struct disks *d, struct err *err)
{
	int r = 0;

	for (uint32_t i = 0; i < d->n && r == 0; i++)
		r = disks_scan(d, i, err);
	for (unsigned i = 0; i < d->n_known && r == 0; i++)
		r = disks_look(d, &d->known[i], err);
	return r;
}

int disks_find(struct disks *d, uint32_t disk, uint32_t part, struct known **k, struct err *err)
{
	char name[16];
	int r;

	if (disk >= d->n)
		return err_set(err, ENXIO, "there is no disk %u", disk);
	r = disks_scan(d, disk, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < d->n_known; i++) {
		*k = &d->known[i];
		if ((*k)->v.disk == disk && (*k)->v.part == part)
			return 0;
	}
	return err_set(err, ENXIO, "there is no partition %s", disks_name(disk, part, name));
}

int disks_volume(const struct disks *d, const struct known *k, struct volume *vol, struct err *err)
{
	uint64_t disk = d->disk[k->v.disk].size;
	char name[16];

	if (k->v.offset >= disk || !k->v.size)
		return err_set(err, EINVAL, "%s lies behind the end of the disk",
			       disks_name(k->v.disk, k->v.part, name));
	*vol = (struct volume){.disk = k->v.disk,
			       .part = k->v.part,
			       .offset = k->v.offset,
			       .size = min_u64(k->v.size, disk - k->v.offset),
			       .rdonly = d->disk[k->v.disk].rdonly};
	return 0;
}
