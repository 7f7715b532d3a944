// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * libnbd, loaded when the first NBD export is opened: with what it needs itself (TLS, XML, Unicode
 * tables) it would take ten times as long to start as everything else.
 */
#include <dlfcn.h>
#include <errno.h>

#include "io/nbd_impl.h"

#define LIBRARY "libnbd.so.0"

static int find_calls(struct nbd_lib *lib, struct err *err)
{
#define FIND(name)                                                       \
	lib->name = (__typeof__(lib->name))dlsym(lib->so, "nbd_" #name); \
	if (!lib->name)                                                  \
		return err_set(err, ENOTSUP, "NBD needs a newer " LIBRARY ": it has no nbd_" #name);
	NBD_CALLS(FIND)
#undef FIND
	return 0;
}

int nbd_load(struct nbd_lib *lib, struct err *err)
{
	int r;

	/* Threads may still have its error texts when the last user is gone. */
	lib->so = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!lib->so)
		return err_set(err, ENOTSUP, "NBD needs libnbd (Debian package libnbd0): %s",
			       dlerror());
	r = find_calls(lib, err);
	if (r < 0)
		nbd_unload(lib);
	return r;
}

void nbd_unload(struct nbd_lib *lib)
{
	if (lib->so)
		dlclose(lib->so);
	lib->so = NULL;
}
