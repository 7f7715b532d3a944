// SPDX-License-Identifier: GPL-2.0-or-later
/* Images of ext2/3/4 for tests: see extdisk.h. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "appliance/protocol.h"
#include "extdisk.h"
#include "tell.h"

/* Far from what a program opens by itself. */
enum { FIRST_DISK = 20 };

static char *command(const char *fmt, va_list ap)
{
	char *text;

	if (vasprintf(&text, fmt, ap) < 0)
		die("out of memory");
	return text;
}

int shell(const char *fmt, ...)
{
	va_list ap;
	char *text;
	int status;

	va_start(ap, fmt);
	text = command(fmt, ap);
	va_end(ap);
	status = system(text);
	free(text);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

void sh(const char *fmt, ...)
{
	va_list ap;
	char *text;
	int status;

	va_start(ap, fmt);
	text = command(fmt, ap);
	va_end(ap);
	status = system(text);
	if (status != 0)
		die("status %d of: %s", status, text);
	free(text);
}

char *shell_text(const char *fmt, ...)
{
	va_list ap;
	char *text, *out = NULL;
	size_t size = 0, n;
	char buf[4096];
	FILE *f, *to = open_memstream(&out, &size);

	va_start(ap, fmt);
	text = command(fmt, ap);
	va_end(ap);
	f = popen(text, "r");
	if (!f || !to)
		die("cannot run: %s", text);
	while ((n = fread(buf, 1, sizeof(buf), f)) > 0)
		fwrite(buf, 1, n, to);
	pclose(f);
	fclose(to);
	free(text);
	return out;
}

struct volume extdisk_volume(const char *path, unsigned disk, bool rdonly)
{
	struct volume vol = {.disk = FIRST_DISK + disk, .rdonly = rdonly};
	int fd = open(path, (rdonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		die("cannot open %s", path);
	if (dup3(fd, AGENT_FD_DISK + (int)vol.disk, O_CLOEXEC) < 0)
		die("dup3");
	close(fd);
	vol.size = (uint64_t)st.st_size;
	return vol;
}

int extdisk_try(const char *path, bool rdonly, struct fs **fs, struct err *err)
{
	struct volume vol = extdisk_volume(path, 0, rdonly);
	int r = ext_driver.mount(&vol, "ext4", rdonly, fs, err);

	if (r < 0)
		close(AGENT_FD_DISK + (int)vol.disk);
	return r;
}

struct fs *extdisk_mount(const char *path, bool rdonly)
{
	struct err err = {0};
	struct fs *fs;

	if (extdisk_try(path, rdonly, &fs, &err) < 0)
		die("%s: %s", path, err.msg);
	return fs;
}

void extdisk_unmount(struct fs *fs)
{
	int fd = AGENT_FD_DISK + (int)fs->vol.disk;
	struct err err = {0};

	if (ext_driver.unmount(fs, &err) < 0)
		die("unmount: %s", err.msg);
	close(fd);
}

uint64_t extdisk_path(struct fs *fs, const char *path)
{
	uint64_t ino = fs->root;

	while (*path) {
		size_t len = strcspn(path, "/");
		struct err err = {0};

		if (len && ext_driver.lookup(fs, ino, path, len, &ino, &err) < 0)
			return 0;
		path += len;
		path += strspn(path, "/");
	}
	return ino;
}

uint64_t extdisk_parent(struct fs *fs, const char *path, const char **name)
{
	const char *slash = strrchr(path, '/');
	char *dir = strndup(path, slash ? (size_t)(slash - path) : 0);
	uint64_t ino = extdisk_path(fs, dir);

	if (!ino)
		die("%s: no such directory", path);
	free(dir);
	*name = slash ? slash + 1 : path;
	return ino;
}

uint64_t extdisk_make(struct fs *fs, const char *path, uint32_t mode, const char *target)
{
	const struct fs_new what = {.mode = mode, .target = target};
	struct err err = {0};
	const char *name;
	uint64_t dir = extdisk_parent(fs, path, &name), ino;

	if (ext_driver.create(fs, dir, name, strlen(name), &what, &ino, &err) < 0)
		die("%s: %s", path, err.msg);
	return ino;
}

uint64_t extdisk_put(struct fs *fs, const char *path, const void *data, size_t len, uint64_t off)
{
	struct err err = {0};
	uint64_t ino = extdisk_path(fs, path);

	if (!ino)
		ino = extdisk_make(fs, path, S_IFREG | 0644, NULL);
	if (ext_driver.write(fs, ino, data, len, off, &err) < 0)
		die("%s: %s", path, err.msg);
	return ino;
}

void extdisk_clean(const char *path)
{
	/* That a tree of extents could be packed better is no fault. */
	char *text =
		shell_text("(e2fsck -fn %s 2>&1; echo status $?) | grep -v 'Optimize? no'", path);

	if (!strstr(text, "status 0\n") || strstr(text, "? no"))
		die("e2fsck of %s:\n%s", path, text);
	free(text);
}
