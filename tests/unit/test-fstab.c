// SPDX-License-Identifier: GPL-2.0-or-later
/* /etc/fstab: lines, escapes, and what the first field of a line means. */
#include "unit.h"

#include "appliance/agent/fstab.h"
#include "base/bytes.h"

static void lines_are_taken_apart(void **state)
{
	const char *text = "# a comment\n"
			   "\n"
			   "  \t# another\n"
			   "/dev/sda1 / ext4 rw,noauto,x 0 1\r\n"
			   "LABEL=a\\040b\t/mnt/with\\040space\\011tab\n"
			   "alone\n"
			   "tmpfs /tmp tmpfs\n"
			   "back\\slash /x\\9 none bind";
	struct fstab_line l;

	(void)state;
	assert_true(fstab_next(&text, &l));
	assert_string_equal(l.spec, "/dev/sda1");
	assert_string_equal(l.dir, "/");
	assert_string_equal(l.type, "ext4");
	assert_true(fstab_option(&l, "noauto"));
	assert_true(fstab_option(&l, "rw"));
	assert_true(fstab_option(&l, "x"));
	assert_false(fstab_option(&l, "auto"));
	assert_false(fstab_option(&l, "noaut"));
	assert_true(fstab_next(&text, &l));
	assert_string_equal(l.spec, "LABEL=a b");
	assert_string_equal(l.dir, "/mnt/with space\ttab");
	assert_string_equal(l.type, "");
	assert_false(fstab_option(&l, ""));
	assert_true(fstab_next(&text, &l));
	assert_string_equal(l.dir, "/tmp");
	assert_true(fstab_next(&text, &l));
	assert_string_equal(l.spec, "back\\slash");
	assert_string_equal(l.dir, "/x\\9");
	assert_true(fstab_option(&l, "bind"));
	assert_false(fstab_next(&text, &l));
}

/* Lines that say what cannot be are passed over. */
static void odd_lines_are_left_out(void **state)
{
	static char long_line[8000];
	const char *text = long_line;
	struct fstab_line l;

	(void)state;
	memset(long_line, 'x', 600);
	strcpy(long_line + 600, " /a ext4\nok /b ext4\nnul\\000 /c\nok ");
	memset(long_line + strlen(long_line), 'y', 5000);
	strcat(long_line, "\nlast /d");
	assert_true(fstab_next(&text, &l));
	assert_string_equal(l.dir, "/b");
	assert_true(fstab_next(&text, &l));
	assert_string_equal(l.dir, "/d");
	assert_false(fstab_next(&text, &l));
}

static void specs_are_understood(void **state)
{
	static const struct {
		const char *text;
		enum fstab_key key;
		const char *value;
		uint32_t disk, part;
	} cases[] = {
		{"UUID=0a-b", FSTAB_UUID, "0a-b", 0, 0},
		{"UUID=\"0a-b\"", FSTAB_UUID, "0a-b", 0, 0},
		{"LABEL='my root'", FSTAB_LABEL, "my root", 0, 0},
		{"LABEL=", FSTAB_LABEL, "", 0, 0},
		{"LABEL=\"", FSTAB_LABEL, "\"", 0, 0},
		{"PARTUUID=1-02", FSTAB_PARTUUID, "1-02", 0, 0},
		{"PARTLABEL=x", FSTAB_PARTLABEL, "x", 0, 0},
		{"/dev/disk/by-uuid/77", FSTAB_UUID, "77", 0, 0},
		{"/dev/disk/by-partlabel/p", FSTAB_PARTLABEL, "p", 0, 0},
		{"/dev/sda", FSTAB_DISK, "", 0, 0},
		{"/dev/sda1", FSTAB_DISK, "", 0, 1},
		{"/dev/vdc12", FSTAB_DISK, "", 2, 12},
		{"/dev/xvdb3", FSTAB_DISK, "", 1, 3},
		{"/dev/hdz9", FSTAB_DISK, "", 25, 9},
		{"/dev/nvme0n1p2", FSTAB_DISK, "", 0, 2},
		{"/dev/nvme1n1", FSTAB_DISK, "", 1, 0},
		{"/dev/mmcblk0p5", FSTAB_DISK, "", 0, 5},
		{"/dev/sdaa1", FSTAB_OTHER, "", 0, 0},
		{"/dev/sda1x", FSTAB_OTHER, "", 0, 0},
		{"/dev/sda99999999999999999999", FSTAB_OTHER, "", 0, 0},
		{"/dev/nvme0p2", FSTAB_OTHER, "", 0, 0},
		{"/dev/nvme0n1p", FSTAB_OTHER, "", 0, 0},
		{"/dev/mapper/root", FSTAB_OTHER, "", 0, 0},
		{"sda1", FSTAB_OTHER, "", 0, 0},
		{"tmpfs", FSTAB_OTHER, "", 0, 0},
		{"", FSTAB_OTHER, "", 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct fstab_spec s;

		fstab_spec(cases[i].text, &s);
		if (s.key != cases[i].key || strcmp(s.value, cases[i].value))
			fail_msg("%s: key %d, value \"%s\"", cases[i].text, (int)s.key, s.value);
		if (s.key == FSTAB_DISK && (s.disk != cases[i].disk || s.part != cases[i].part))
			fail_msg("%s: disk %u, part %u", cases[i].text, s.disk, s.part);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_are_taken_apart),
		cmocka_unit_test(odd_lines_are_left_out),
		cmocka_unit_test(specs_are_understood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
