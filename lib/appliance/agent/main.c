/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent: reads requests on fd 0, answers on fd 1, and knows nothing of where it runs. This file
 * starts it; the calls are in the table of calls.c.
 */
int main(void)
{
	return 0;
}
