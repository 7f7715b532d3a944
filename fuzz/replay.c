// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Runs a fuzz target over files, without libFuzzer: `make test` replays the kept corpora with it,
 * under any compiler. Arguments are files or directories; all the files in a directory are run.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static unsigned inputs;

static int replay_file(const char *path, size_t size)
{
	uint8_t *data = malloc(size ? size : 1);
	FILE *f = fopen(path, "rb");
	int r = 1;

	if (data && f && fread(data, 1, size, f) == size) {
		/* Seen in the output when the target crashes. */
		printf("%s\n", path);
		fflush(stdout);
		LLVMFuzzerTestOneInput(data, size);
		inputs++;
		r = 0;
	} else {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
	}
	if (f)
		fclose(f);
	free(data);
	return r;
}

static int replay(const char *path)
{
	struct dirent *entry;
	struct stat st;
	DIR *dir;
	int r = 0;

	if (stat(path, &st)) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return 1;
	}
	if (!S_ISDIR(st.st_mode))
		return replay_file(path, (size_t)st.st_size);
	dir = opendir(path);
	if (!dir) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return 1;
	}
	while ((entry = readdir(dir))) {
		char name[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		r |= replay(name);
	}
	closedir(dir);
	return r;
}

int main(int argc, char **argv)
{
	int r = 0;

	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 1; i < argc; i++)
		r |= replay(argv[i]);
	printf("%u inputs\n", inputs);
	if (!inputs)
		fprintf(stderr, "nothing to replay\n");
	return r || !inputs;
}
