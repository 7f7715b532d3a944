/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the command and its helper program share. */
#ifndef IMGKIT_TOOLS_CHECKSUM_H
#define IMGKIT_TOOLS_CHECKSUM_H

#include "cli.h"

enum { CHECKSUM_OUTPUT = CLI_LONG, CHECKSUM_PROGRESS, CHECKSUM_UNTRUSTED };

#endif
