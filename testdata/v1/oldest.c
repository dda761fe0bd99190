/* A scoring policy: least recently used, and of two images of which one is
 * pinned, that one later. */
#include "module.h"

struct record {
	uint64_t key, size, hits;
	int64_t admitted_ns, accessed_ns;
	uint32_t fetch_ms, flags;
};

int32_t EXPORT(imgcache_manifest)(char *buf, uint32_t cap)
{
	static const char json[] = "{\"name\":\"oldest\",\"version\":\"1.0.0\",\"kind\":\"policy\",\"capabilities\":[\"score\"]}";

	return give(buf, cap, json, sizeof json - 1);
}

uint32_t EXPORT(imgcache_score)(const char *frame, double *scores)
{
	const struct frame *f = (const void *)frame;

	for (uint32_t i = 0; i < f->count; i++) {
		const struct record *r = (const void *)(frame + f->header_size + i * f->stride);
		scores[i] = (double)r->accessed_ns;
		if (r->flags & 1)
			scores[i] += 1e18;
	}
	return 0;
}
