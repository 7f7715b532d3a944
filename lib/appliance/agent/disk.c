/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disks as the agent sees them: file descriptors from AGENT_FD_DISK on, on which pread, pwrite,
 * fallocate and fdatasync work. A request leaves the cage, so callers make few and large ones.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "appliance/agent/fs.h"
#include "appliance/protocol.h"
#include "base/bytes.h"

static int volume_fd(const struct volume *vol)
{
	return AGENT_FD_DISK + (int)vol->disk;
}

/* "sda" or "sda2": in messages. */
static const char *volume_name(const struct volume *vol, char name[24])
{
	unsigned n = 0;

	name[n++] = 's';
	name[n++] = 'd';
	name[n++] = (char)('a' + vol->disk % AGENT_DISKS_MAX);
	if (vol->part) {
		char digits[12];
		unsigned d = 0;

		for (uint32_t part = vol->part; part; part /= 10)
			digits[d++] = (char)('0' + part % 10);
		while (d)
			name[n++] = digits[--d];
	}
	name[n] = '\0';
	return name;
}

static int volume_check(const struct volume *vol, uint64_t len, uint64_t off, struct err *err)
{
	char name[24];

	if (off <= vol->size && len <= vol->size - off)
		return 0;
	return err_set(err, EIO, "%s: %llu bytes at %llu are beyond its end (%llu bytes)",
		       volume_name(vol, name), (unsigned long long)len, (unsigned long long)off,
		       (unsigned long long)vol->size);
}

static int volume_failed(const struct volume *vol, const char *what, uint64_t len, uint64_t off,
			 struct err *err)
{
	char name[24];

	return err_sys(err, errno, "%s: cannot %s %llu bytes at %llu", volume_name(vol, name), what,
		       (unsigned long long)len, (unsigned long long)off);
}

int volume_read(const struct volume *vol, void *buf, size_t len, uint64_t off, struct err *err)
{
	char name[24];
	int r = volume_check(vol, len, off, err);

	if (r < 0)
		return r;
	while (len) {
		ssize_t n = pread(volume_fd(vol), buf, len, (off_t)(vol->offset + off));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return volume_failed(vol, "read", len, off, err);
		if (n == 0)
			return err_set(err, EIO, "%s: the disk ends before byte %llu",
				       volume_name(vol, name),
				       (unsigned long long)(vol->offset + off));
		buf = (char *)buf + n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

static uint64_t generation;

uint64_t volume_generation(void)
{
	return generation;
}

/* Before each write. */
static int volume_writable(const struct volume *vol, struct err *err)
{
	char name[24];

	generation++;
	if (!vol->rdonly)
		return 0;
	return err_set(err, EROFS, "%s: the disk is read-only", volume_name(vol, name));
}

int volume_write(const struct volume *vol, const void *buf, size_t len, uint64_t off,
		 struct err *err)
{
	int r = volume_writable(vol, err);

	if (r == 0)
		r = volume_check(vol, len, off, err);
	if (r < 0)
		return r;
	while (len) {
		ssize_t n = pwrite(volume_fd(vol), buf, len, (off_t)(vol->offset + off));

		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			errno = EIO;
		if (n <= 0)
			return volume_failed(vol, "write", len, off, err);
		buf = (const char *)buf + n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

int volume_zero(const struct volume *vol, uint64_t off, uint64_t len, struct err *err)
{
	int r = volume_writable(vol, err);

	if (r == 0)
		r = volume_check(vol, len, off, err);
	if (r < 0 || len == 0)
		return r;
	do {
		r = fallocate(volume_fd(vol), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      (off_t)(vol->offset + off), (off_t)len);
	} while (r < 0 && errno == EINTR);
	if (r == 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS && errno != ENODEV && errno != EINVAL)
		return volume_failed(vol, "zero", len, off, err);
	r = 0;
	while (len && r == 0) {
		size_t n = (size_t)min_u64(len, ZERO_BUF_SIZE);

		r = volume_write(vol, zero_buf, n, off, err);
		off += n;
		len -= n;
	}
	return r;
}

int volume_flush(const struct volume *vol, struct err *err)
{
	int r;

	if (vol->rdonly)
		return 0;
	do {
		r = fdatasync(volume_fd(vol));
	} while (r < 0 && errno == EINTR);
	/* What cannot be synchronised (a pipe-like special file) has nothing to lose. */
	if (r < 0 && errno != EINVAL && errno != EROFS)
		return volume_failed(vol, "flush", vol->size, 0, err);
	return 0;
}

struct agent_time agent_now(void)
{
	static struct agent_time start;

	if (start.sec == 0) {
		struct timespec ts;

		if (clock_gettime(CLOCK_REALTIME, &ts) == 0) {
			start.sec = ts.tv_sec;
			start.nsec = (uint32_t)ts.tv_nsec;
		}
		if (start.sec <= 0)
			start.sec = 1;
	}
	return start;
}
