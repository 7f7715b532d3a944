// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Drawing of a picture of a disk: SVG, HTML with the same SVG inside, and blocks for a terminal. Each
 * cell has the colour of what is mostly stored in it, paler when it is only a part of the cell. Names
 * come from images and files: they are cleaned and escaped.
 */
#include "picture.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/size.h"

#define CELL   12 /* pixels */
#define MARGIN 16
#define TOP    56 /* above the cells */
#define LINE   22 /* of the legend */

static const struct {
	const char *name, *colour;
	unsigned terminal; /* colour of 256 */
} classes[PICTURE_CLASSES] = {
	[PICTURE_DATA] = {"data", "#1f6feb", 33},
	[PICTURE_COMPRESSED] = {"compressed data", "#8250df", 98},
	[PICTURE_BACKING1] = {"in the backing file", "#bf8700", 136},
	[PICTURE_BACKING2] = {"in its backing file", "#d1741f", 172},
	[PICTURE_BACKING3] = {"deeper in the chain", "#b35900", 130},
	[PICTURE_ZERO] = {"zeros", "#6e7781", 244},
	[PICTURE_HOLE] = {"not allocated", "#d8dee4", 252},
};

/* Text for XML, after cli_clean. */
static void put_escaped(const struct cli *cli, const char *text)
{
	CLEANUP_FREE char *clean = cli_clean(cli, text);

	for (const char *p = clean ? clean : ""; *p; p++) {
		switch (*p) {
		case '&':
			fputs("&amp;", stdout);
			break;
		case '<':
			fputs("&lt;", stdout);
			break;
		case '>':
			fputs("&gt;", stdout);
			break;
		case '"':
			fputs("&quot;", stdout);
			break;
		default:
			/* What cli_clean lets through for the peer is not XML. */
			putchar((unsigned char)*p < 32 || *p == 127 ? '?' : *p);
		}
	}
}

static double percent(const struct picture *p, uint64_t bytes)
{
	return p->end > p->start ? 100.0 * (double)bytes / (double)(p->end - p->start) : 0;
}

/* 4 … 10 tenths: in steps, so that runs of cells look the same and become one rectangle. */
static unsigned opacity(const struct picture_cell *cell)
{
	return 4 + (unsigned)(picture_share(cell) * 6 + 0.5);
}

static bool looks_same(const struct picture_cell *a, const struct picture_cell *b)
{
	return picture_main(a) == picture_main(b) && opacity(a) == opacity(b);
}

/* Cells i … i+n-1, which are in one row and look the same. */
static void put_rect(const struct picture *p, unsigned i, unsigned n)
{
	uint64_t start = p->start + i * p->per_cell;
	uint64_t end = start + n * p->per_cell < p->end ? start + n * p->per_cell : p->end;
	const struct picture_cell *cell = &p->cell[i];
	unsigned tenths = opacity(cell); /* SVG 1.1 knows numbers only, no percentages */

	printf("<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"%s\" "
	       "fill-opacity=\"%u.%u\">"
	       "<title>%" PRIu64 " - %" PRIu64 ": %s</title></rect>\n",
	       MARGIN + i % PICTURE_COLUMNS * CELL, TOP + i / PICTURE_COLUMNS * CELL, n * CELL - 1,
	       CELL - 1, classes[picture_main(cell)].colour, tenths / 10, tenths % 10, start, end,
	       classes[picture_main(cell)].name);
}

static void put_cells(const struct picture *p)
{
	for (unsigned i = 0, n; i < p->n; i += n) {
		for (n = 1; i + n < p->n && (i + n) % PICTURE_COLUMNS; n++)
			if (!looks_same(&p->cell[i], &p->cell[i + n]))
				break;
		put_rect(p, i, n);
	}
}

static void put_legend(const struct picture *p, unsigned y)
{
	char size[32];

	for (unsigned i = 0; i < PICTURE_CLASSES; i++) {
		if (!p->total[i])
			continue;
		printf("<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"%s\"/>\n"
		       "<text x=\"%u\" y=\"%u\">%s: %s (%.2f%%)</text>\n",
		       MARGIN, y, CELL, CELL, classes[i].colour, MARGIN + 2 * CELL, y + CELL - 1,
		       classes[i].name, size_format(p->total[i], size, sizeof(size)),
		       percent(p, p->total[i]));
		y += LINE;
	}
}

static unsigned legend_lines(const struct picture *p)
{
	unsigned n = 0;

	for (unsigned i = 0; i < PICTURE_CLASSES; i++)
		n += p->total[i] != 0;
	return n;
}

static void put_svg(const struct cli *cli, const struct img *img, const struct picture *p)
{
	unsigned rows = (p->n + PICTURE_COLUMNS - 1) / PICTURE_COLUMNS;
	unsigned width = 2 * MARGIN + PICTURE_COLUMNS * CELL, bottom = TOP + rows * CELL + MARGIN;
	unsigned height = bottom + legend_lines(p) * LINE + MARGIN;
	char size[32], cell[32];

	printf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" "
	       "viewBox=\"0 0 %u %u\" font-family=\"sans-serif\" font-size=\"13\">\n<title>",
	       width, height, width, height);
	put_escaped(cli, img->io.name);
	printf("</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n"
	       "<text x=\"%u\" y=\"24\" font-size=\"16\" font-weight=\"bold\">",
	       MARGIN);
	put_escaped(cli, img->io.name);
	printf("</text>\n<text x=\"%u\" y=\"44\">%s, %s; a cell is %s</text>\n", MARGIN,
	       img->fmt->name, size_format(p->end - p->start, size, sizeof(size)),
	       size_format(p->per_cell, cell, sizeof(cell)));
	put_cells(p);
	put_legend(p, bottom);
	puts("</svg>");
}

void picture_svg(const struct cli *cli, const struct img *img, const struct picture *p)
{
	puts("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
	put_svg(cli, img, p);
}

void picture_html(const struct cli *cli, const struct img *img, const struct picture *p)
{
	puts("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">");
	printf("<title>");
	put_escaped(cli, img->io.name);
	puts("</title>\n<style>body { margin: 1em; font-family: sans-serif } "
	     "td { padding: 0 1em 0 0; text-align: right } td:first-child { text-align: left }"
	     "</style>\n</head>\n<body>");
	put_svg(cli, img, p);
	puts("<table>");
	for (unsigned i = 0; i < PICTURE_CLASSES; i++)
		if (p->total[i])
			printf("<tr><td>%s</td><td>%" PRIu64 " bytes</td><td>%.2f%%</td></tr>\n",
			       classes[i].name, p->total[i], percent(p, p->total[i]));
	puts("</table>\n</body>\n</html>");
}

/* ---- for terminals ---- */

static const char *shade(const struct picture *p, unsigned i)
{
	static const char *const shades[] = {"\u00b7", "\u2591", "\u2592", "\u2593", "\u2588"};
	uint64_t start = p->start + i * p->per_cell;
	uint64_t len = p->end - start < p->per_cell ? p->end - start : p->per_cell;
	uint64_t stored = picture_stored(&p->cell[i]);

	if (!stored)
		return picture_main(&p->cell[i]) == PICTURE_ZERO ? "0" : shades[0];
	return shades[1 + (stored == len ? 3 : stored * 3 / len)];
}

void picture_bar(const struct cli *cli, const struct img *img, const struct picture *p)
{
	bool colours = isatty(STDOUT_FILENO);
	char size[32];

	(void)cli;
	(void)img;
	for (unsigned i = 0; i < p->n; i++) {
		if (i % PICTURE_COLUMNS == 0)
			printf("%10s  ",
			       size_format(p->start + i * p->per_cell, size, sizeof(size)));
		if (colours)
			printf("\033[38;5;%um", classes[picture_main(&p->cell[i])].terminal);
		fputs(shade(p, i), stdout);
		if (i % PICTURE_COLUMNS == PICTURE_COLUMNS - 1 || i + 1 == p->n)
			fputs(colours ? "\033[m\n" : "\n", stdout);
	}
	printf("A cell is %s. ", size_format(p->per_cell, size, sizeof(size)));
	puts("\u2588 stored, \u2593\u2592\u2591 in part, 0 zeros, \u00b7 not allocated.");
	for (unsigned i = 0; i < PICTURE_CLASSES; i++)
		if (p->total[i])
			printf("%20s %10s %6.2f%%\n", classes[i].name,
			       size_format(p->total[i], size, sizeof(size)),
			       percent(p, p->total[i]));
}
