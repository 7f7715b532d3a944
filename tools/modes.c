// SPDX-License-Identifier: GPL-2.0-or-later
/* Modes as chmod(1) takes them, see modes.h. */
#include "modes.h"

#include <string.h>
#include <sys/stat.h>

#define ALL_BITS 07777u
#define SET_IDS  ((uint32_t)(S_ISUID | S_ISGID))

static bool parse_octal(const char *text, struct modes *m)
{
	struct modes_step *s = &m->steps[0];
	size_t len = strspn(text, "01234567");

	if (!len || text[len])
		return false;
	*s = (struct modes_step){.op = '=', .affected = ALL_BITS};
	for (size_t i = 0; i < len; i++) {
		s->value = s->value * 8 + (uint32_t)(text[i] - '0');
		if (s->value > ALL_BITS)
			return false;
	}
	s->mentioned = len < 5 ? s->value : ALL_BITS;
	m->n = 1;
	return true;
}

static uint32_t who_bits(char who)
{
	switch (who) {
	case 'u':
		return S_ISUID | S_IRWXU;
	case 'g':
		return S_ISGID | S_IRWXG;
	case 'o':
		return S_ISVTX | S_IRWXO;
	case 'a':
		return ALL_BITS;
	default:
		return 0;
	}
}

/* What follows an operator: one of u, g, o, or any of rwxXst. */
static const char *parse_bits(const char *p, struct modes_step *s)
{
	static const struct {
		char letter;
		uint32_t bits;
	} letters[] = {
		{'r', S_IRUSR | S_IRGRP | S_IROTH},
		{'w', S_IWUSR | S_IWGRP | S_IWOTH},
		{'x', S_IXUSR | S_IXGRP | S_IXOTH},
		{'s', S_ISUID | S_ISGID},
		{'t', S_ISVTX},
		{'X', 0},
	};

	if (*p == 'u' || *p == 'g' || *p == 'o') {
		s->copy = true;
		s->value = who_bits(*p) & 0777;
		return p + 1;
	}
	for (;; p++) {
		size_t i = 0;

		while (i < sizeof(letters) / sizeof(*letters) && letters[i].letter != *p)
			i++;
		if (i == sizeof(letters) / sizeof(*letters))
			return p;
		s->value |= letters[i].bits;
		s->execute_if_any |= *p == 'X';
	}
}

bool modes_parse(const char *text, struct modes *m)
{
	const char *p = text;

	m->n = 0;
	if (*p >= '0' && *p <= '7')
		return parse_octal(text, m);
	for (;; p++) {
		uint32_t affected = 0;

		for (; who_bits(*p); p++)
			affected |= who_bits(*p);
		if (*p != '+' && *p != '-' && *p != '=')
			return false;
		while (*p == '+' || *p == '-' || *p == '=') {
			struct modes_step *s = &m->steps[m->n];

			if (m->n++ == MODES_MAX)
				return false;
			*s = (struct modes_step){.op = *p, .affected = affected};
			p = parse_bits(p + 1, s);
			s->mentioned = affected ? affected & s->value : s->value;
		}
		if (*p != ',')
			return !*p;
	}
}

/* The bits that u, g or o has, for each of the three. */
static uint32_t copy_bits(uint32_t mode, uint32_t from)
{
	unsigned shift = from == S_IRWXU ? 6 : from == S_IRWXG ? 3 : 0;

	return (mode >> shift & 7) * 0111;
}

static uint32_t apply_step(const struct modes_step *s, uint32_t mode, bool is_dir)
{
	uint32_t kept = is_dir ? SET_IDS & ~s->mentioned : 0;
	uint32_t value = s->copy ? copy_bits(mode, s->value) : s->value;

	if (s->execute_if_any && (is_dir || (mode & 0111)))
		value |= 0111;
	value &= (s->affected ? s->affected : ~MODES_UMASK) & ~kept;
	switch (s->op) {
	case '+':
		return mode | value;
	case '-':
		return mode & ~value;
	default:
		return (mode & ((s->affected ? ~s->affected : 0) | kept)) | value;
	}
}

uint32_t modes_apply(const struct modes *m, uint32_t mode, bool is_dir)
{
	mode &= ALL_BITS;
	for (unsigned i = 0; i < m->n; i++)
		mode = apply_step(&m->steps[i], mode, is_dir);
	return mode & ALL_BITS;
}
