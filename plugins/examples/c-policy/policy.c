/*
 * half-life: every hit is worth one point when it is new, and half as much
 * after each half_life. The image with the fewest points leaves first. Hits
 * are taken as spread evenly from the admission of the image to its last
 * access.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "imgcache_policy.h"

IMGCACHE_MANIFEST({
	"name": "half-life",
	"version": "1.0.0",
	"kind": "policy",
	"capabilities": ["score"],
	"options": [{
		"name": "half_life_hours",
		"type": "number",
		"default": "24",
		"description": "hours after which a hit counts half"
	}]
})

static double half_life_hours = 24;

uint32_t imgcache_abi_version(void)
{
	return IMGCACHE_ABI_VERSION;
}

void *imgcache_alloc(uint32_t size)
{
	return malloc(size);
}

void imgcache_free(void *p, uint32_t size)
{
	(void)size;
	free(p);
}

/* options is name NUL value NUL ... */
uint32_t imgcache_configure(const char *options, uint32_t len)
{
	const char *end = options + len;
	while (options < end) {
		const char *value = options + strlen(options) + 1;
		if (strcmp(options, "half_life_hours") == 0)
			half_life_hours = strtod(value, NULL);
		options = value + strlen(value) + 1;
	}
	if (half_life_hours > 0)
		return IMGCACHE_OK;
	static const char why[] = "half_life_hours must be above 0";
	imgcache_log(IMGCACHE_ERROR, why, sizeof why - 1);
	return IMGCACHE_INVALID;
}

static double hours(int64_t from_ns, int64_t to_ns)
{
	double h = ((double)to_ns - (double)from_ns) / 3.6e12;
	return h > 0 ? h : 0;
}

uint32_t imgcache_score(const struct imgcache_frame *f, double *scores)
{
	for (uint32_t i = 0; i < f->count; i++) {
		const struct imgcache_record *r = imgcache_record(f, i);
		double middle = hours(r->accessed_ns, f->now_ns) + hours(r->admitted_ns, r->accessed_ns) / 2;
		scores[i] = ((double)r->hits + 1) * exp2(-middle / half_life_hours);
	}
	return IMGCACHE_OK;
}
