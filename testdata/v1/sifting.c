/* A stateful policy with snapshots: SIEVE on an array, the oldest image first,
 * with a hand that walks from the oldest to the newest and round again. */
#include "module.h"

enum { ADMITTED = 1, ACCESSED, REMOVED, REFUSED };
enum { EVICTED = 1 };

struct event {
	uint64_t key, size;
	int64_t at_ns;
	uint32_t kind, arg;
};

struct image {
	uint64_t key, size, visited;
};

#define MOST 4096

static struct state {
	uint64_t count, hand;
	struct image images[MOST];
} state, ahead;

int32_t EXPORT(imgcache_manifest)(char *buf, uint32_t cap)
{
	static const char json[] =
	    "{\"name\":\"sifting\",\"version\":\"1.0.0\",\"kind\":\"policy\",\"capabilities\":[\"stateful\",\"snapshot\"]}";

	return give(buf, cap, json, sizeof json - 1);
}

/* size_of is what of the state is in use. */
static uint32_t size_of(const struct state *s)
{
	return offsetof(struct state, images) + (uint32_t)s->count * sizeof(struct image);
}

static uint64_t find(const struct state *s, uint64_t key)
{
	uint64_t i = 0;

	while (i < s->count && s->images[i].key != key)
		i++;
	return i;
}

static void walk(struct state *s)
{
	if (++s->hand >= s->count)
		s->hand = 0;
}

/* victim is the index of the image that leaves next; there is one. */
static uint64_t victim(struct state *s)
{
	while (s->images[s->hand].visited) {
		s->images[s->hand].visited = 0;
		walk(s);
	}
	return s->hand;
}

static void drop(struct state *s, uint64_t i)
{
	s->count--;
	for (uint64_t j = i; j < s->count; j++)
		s->images[j] = s->images[j + 1];
	if (i < s->hand)
		s->hand--;
	if (s->hand >= s->count)
		s->hand = 0;
}

static uint32_t observe(const struct event *e)
{
	uint64_t i = find(&state, e->key);

	if (e->kind == ADMITTED) {
		if (i < state.count)
			drop(&state, i);
		if (state.count == MOST)
			return 4;
		state.images[state.count++] = (struct image){e->key, e->size, 0};
	} else if (i == state.count) {
		return 0;
	} else if (e->kind == ACCESSED) {
		state.images[i].visited = 1;
	} else if (e->kind == REMOVED) {
		if (e->arg == EVICTED)
			victim(&state);
		drop(&state, i);
	} else if (e->kind == REFUSED && victim(&state) == i) {
		walk(&state);
	}
	return 0;
}

uint32_t EXPORT(imgcache_observe)(const char *frame)
{
	const struct frame *f = (const void *)frame;

	for (uint32_t i = 0; i < f->count; i++) {
		uint32_t status = observe((const void *)(frame + f->header_size + i * f->stride));
		if (status != 0)
			return status;
	}
	return 0;
}

int32_t EXPORT(imgcache_select)(uint64_t need, int64_t now, uint64_t *keys, uint32_t cap)
{
	uint32_t n = 0;

	(void)now;
	give((char *)&ahead, sizeof ahead, &state, size_of(&state));
	while (need > 0 && n < cap && ahead.count > 0) {
		uint64_t i = victim(&ahead);
		uint64_t size = ahead.images[i].size;
		keys[n++] = ahead.images[i].key;
		need -= size < need ? size : need;
		drop(&ahead, i);
	}
	return (int32_t)n;
}

int32_t EXPORT(imgcache_snapshot)(char *buf, uint32_t cap)
{
	return give(buf, cap, &state, size_of(&state));
}

uint32_t EXPORT(imgcache_restore)(const char *buf, uint32_t len)
{
	const struct state *from = (const void *)buf;

	if (len < offsetof(struct state, images) || from->count > MOST || len != size_of(from) ||
	    (from->hand >= from->count && from->hand != 0))
		return 2;
	give((char *)&state, len, buf, len);
	return 0;
}
