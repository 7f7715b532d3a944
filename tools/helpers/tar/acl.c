// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Access control lists: as the kernel's extended attributes have them (struct posix_acl_xattr_header
 * and _entry of linux/posix_acl_xattr.h) and as archives do.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "parts.h"

struct acl_xattr_entry {
	le16 tag;  /* 0x00 */
	le16 perm; /* 0x02: r 4, w 2, x 1 */
	le32 id;   /* 0x04: of a named user or group */
};
#define ACL_VERSION 2u /* le32, before the entries */
#define ACL_MAX     (AGENT_XATTR_MAX / sizeof(struct acl_xattr_entry))

static const struct {
	unsigned xattr;
	int archive;
	bool named;
} tags[] = {
	{0x01, ARCHIVE_ENTRY_ACL_USER_OBJ, false},  {0x02, ARCHIVE_ENTRY_ACL_USER, true},
	{0x04, ARCHIVE_ENTRY_ACL_GROUP_OBJ, false}, {0x08, ARCHIVE_ENTRY_ACL_GROUP, true},
	{0x10, ARCHIVE_ENTRY_ACL_MASK, false},      {0x20, ARCHIVE_ENTRY_ACL_OTHER, false},
};

bool acl_to_entry(struct archive_entry *e, const char *name, const void *value, size_t n)
{
	const unsigned char *at = value;
	int type;
	le32 version;

	if (!strcmp(name, "system.posix_acl_access"))
		type = ARCHIVE_ENTRY_ACL_TYPE_ACCESS;
	else if (!strcmp(name, "system.posix_acl_default"))
		type = ARCHIVE_ENTRY_ACL_TYPE_DEFAULT;
	else
		return false;
	if (n < sizeof(version) || (n - sizeof(version)) % sizeof(struct acl_xattr_entry))
		return false;
	memcpy(&version, at, sizeof(version));
	if (le32_get(version) != ACL_VERSION)
		return false;
	for (at += sizeof(version); at < (const unsigned char *)value + n;
	     at += sizeof(struct acl_xattr_entry)) {
		struct acl_xattr_entry x;

		memcpy(&x, at, sizeof(x));
		for (size_t i = 0; i < ARRAY_LEN(tags); i++)
			if (tags[i].xattr == le16_get(x.tag))
				archive_entry_acl_add_entry(
					e, type, le16_get(x.perm) & 7, tags[i].archive,
					tags[i].named ? (int)le32_get(x.id) : -1, NULL);
	}
	return true;
}

/* A number, also where it stands as a name: that is what programs write who know none. */
static bool id_of(int qual, const char *name, uint32_t *id)
{
	char *end;
	unsigned long n;

	if (qual >= 0) {
		*id = (uint32_t)qual;
		return true;
	}
	if (!name || *name < '0' || *name > '9')
		return false;
	n = strtoul(name, &end, 10);
	*id = (uint32_t)n;
	return !*end && n < UINT32_MAX;
}

/* By tag, and by id: the order in which the kernel wants them. */
static int compare(const void *a, const void *b)
{
	const struct acl_xattr_entry *x = a, *y = b;

	if (le16_get(x->tag) != le16_get(y->tag))
		return le16_get(x->tag) < le16_get(y->tag) ? -1 : 1;
	return le32_get(x->id) < le32_get(y->id) ? -1 : le32_get(x->id) > le32_get(y->id);
}

static int convert(int perms, int tag, int qual, const char *name, struct acl_xattr_entry *x)
{
	for (size_t i = 0; i < ARRAY_LEN(tags); i++) {
		uint32_t id = UINT32_MAX;

		if (tags[i].archive != tag)
			continue;
		if (tags[i].named && !id_of(qual, name, &id))
			return -EINVAL;
		*x = (struct acl_xattr_entry){le16_make((uint16_t)tags[i].xattr),
					      le16_make((uint16_t)(perms & 7)), le32_make(id)};
		return 0;
	}
	return -EINVAL;
}

int acl_from_entry(struct archive_entry *e, int type, void *value, size_t *n)
{
	struct acl_xattr_entry *x =
		(struct acl_xattr_entry *)(void *)((unsigned char *)value + sizeof(le32));
	const le32 version = le32_make(ACL_VERSION);
	int have, perms, tag, qual;
	const char *name;
	size_t count = 0;

	*n = 0;
	for (have = archive_entry_acl_reset(e, type);
	     have > 0 &&
	     archive_entry_acl_next(e, type, &have, &perms, &tag, &qual, &name) == ARCHIVE_OK;
	     count++)
		if (count + 1 >= ACL_MAX || convert(perms, tag, qual, name, &x[count]) < 0)
			return -EINVAL;
	/* Less than four of an access list say what the mode says. */
	if (!count || (type == ARCHIVE_ENTRY_ACL_TYPE_ACCESS && count < 4))
		return 0;
	qsort(x, count, sizeof(*x), compare);
	memcpy(value, &version, sizeof(version));
	*n = sizeof(version) + count * sizeof(*x);
	return 0;
}
