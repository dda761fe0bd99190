/*
 * imgcache_policy.h - the WebAssembly ABI of imgcache-host policies, version 1.
 * ABI.md says what everything means; this file says it to a C compiler.
 *
 *   clang --target=wasm32-wasi -mexec-model=reactor -O2 -s -o NAME.wasm NAME.c
 *
 * wasm32, little-endian, IEEE 754. Times are Unix nanoseconds, sizes bytes.
 */
#ifndef IMGCACHE_POLICY_H
#define IMGCACHE_POLICY_H

#include <stdint.h>

#define IMGCACHE_ABI_VERSION 1u

#ifdef __wasm__
#define IMGCACHE_EXPORT(name) __attribute__((export_name(#name)))
#define IMGCACHE_IMPORT(name) __attribute__((import_module("imgcache"), import_name(#name)))
#else /* for tests that run elsewhere */
#define IMGCACHE_EXPORT(name)
#define IMGCACHE_IMPORT(name)
#endif

/*
 * Puts the manifest into the custom section imgcache.manifest. Use it once,
 * outside of functions, with plain JSON:
 *
 *   IMGCACHE_MANIFEST({"name": "tiny", "version": "1.0.0", "kind": "policy",
 *                      "capabilities": ["score"]})
 */
#define IMGCACHE_MANIFEST(...) \
	__asm__(".section .custom_section.imgcache.manifest,\"\",@\n" \
	        ".ascii " IMGCACHE_QUOTED(#__VA_ARGS__) "\n.text\n");
#define IMGCACHE_QUOTED(text) #text

/* What an export answers; with its sign turned, the failure of one that
 * answers a number. */
enum imgcache_status {
	IMGCACHE_OK          = 0,
	IMGCACHE_NOT_FOUND   = 1,
	IMGCACHE_INVALID     = 2,
	IMGCACHE_UNSUPPORTED = 3,
	IMGCACHE_UNAVAILABLE = 4
};

/* The flags of a record, or-ed together. Ignore bits that you do not know. */
enum imgcache_flag {
	IMGCACHE_PINNED = 1 << 0, /* hosts of version 1 never set it: pinned images do not leave */
	IMGCACHE_IN_USE = 1 << 1  /* being read now */
};

/* What happened. Ignore kinds that you do not know. */
enum imgcache_kind {
	IMGCACHE_ADMITTED = 1, /* the image was committed; size */
	IMGCACHE_ACCESSED = 2, /* it was read; arg: how often */
	IMGCACHE_REMOVED  = 3, /* it left; arg: why */
	IMGCACHE_REFUSED  = 4, /* the host keeps an image that you proposed */
	IMGCACHE_CAPACITY = 5  /* the cache may hold size bytes */
};

/* Why an image left. */
enum imgcache_reason {
	IMGCACHE_EVICTED  = 1,
	IMGCACHE_DELETED  = 2,
	IMGCACHE_REPLACED = 3,
	IMGCACHE_CORRUPT  = 4
};

/* The levels of imgcache_log. */
enum imgcache_level {
	IMGCACHE_DEBUG = 0,
	IMGCACHE_INFO  = 1,
	IMGCACHE_WARN  = 2,
	IMGCACHE_ERROR = 3
};

/* In front of records and events. Elements begin at header_size and are
 * stride bytes apart: reach them with the functions below, not by sizeof. */
struct imgcache_frame {
	uint32_t header_size; /*  0: at least 32, a multiple of 8 */
	uint32_t stride;      /*  4: at least the size of the element, a multiple of 8 */
	uint32_t count;       /*  8: number of elements, at most 65536 */
	uint32_t flags;       /* 12: zero */
	int64_t  now_ns;      /* 16: the time of the call; 0 with events */
	uint64_t need_bytes;  /* 24: zero in version 1 */
};

struct imgcache_record {
	uint64_t key;         /*  0: the image, for ever the same */
	uint64_t size;        /*  8 */
	uint64_t hits;        /* 16: complete downloads from the cache */
	int64_t  admitted_ns; /* 24: when it was committed */
	int64_t  accessed_ns; /* 32: last read; admitted_ns before the first */
	uint32_t fetch_ms;    /* 40: what fetching it took, 0: unknown */
	uint32_t flags;       /* 44: enum imgcache_flag */
};

struct imgcache_event {
	uint64_t key;   /*  0 */
	uint64_t size;  /*  8 */
	int64_t  at_ns; /* 16 */
	uint32_t kind;  /* 24: enum imgcache_kind */
	uint32_t arg;   /* 28: depends on kind */
};

_Static_assert(sizeof(struct imgcache_frame) == 32, "frame header");
_Static_assert(sizeof(struct imgcache_record) == 48, "record");
_Static_assert(sizeof(struct imgcache_event) == 32, "event");

static inline const void *imgcache_element(const struct imgcache_frame *f, uint32_t i)
{
	return (const char *)f + f->header_size + (uintptr_t)i * f->stride;
}

static inline const struct imgcache_record *imgcache_record(const struct imgcache_frame *f, uint32_t i)
{
	return (const struct imgcache_record *)imgcache_element(f, i);
}

static inline const struct imgcache_event *imgcache_event(const struct imgcache_frame *f, uint32_t i)
{
	return (const struct imgcache_event *)imgcache_element(f, i);
}

/* Every module defines these three. */
IMGCACHE_EXPORT(imgcache_abi_version)
uint32_t imgcache_abi_version(void); /* IMGCACHE_ABI_VERSION */
IMGCACHE_EXPORT(imgcache_alloc)
void *imgcache_alloc(uint32_t size); /* aligned to 8; 0: no memory */
IMGCACHE_EXPORT(imgcache_free)
void imgcache_free(void *p, uint32_t size); /* what imgcache_alloc returned, and its size */

/* Optional: options as name NUL value NUL name NUL ... */
IMGCACHE_EXPORT(imgcache_configure)
uint32_t imgcache_configure(const char *options, uint32_t len);

/* Optional: the manifest, for toolchains without custom sections. */
IMGCACHE_EXPORT(imgcache_manifest)
int32_t imgcache_manifest(char *json, uint32_t cap);

/* A scoring policy defines this one: one score for each record, the lowest
 * leaves first. */
IMGCACHE_EXPORT(imgcache_score)
uint32_t imgcache_score(const struct imgcache_frame *records, double *scores);

/* A stateful policy defines these two instead, */
IMGCACHE_EXPORT(imgcache_observe)
uint32_t imgcache_observe(const struct imgcache_frame *events);
IMGCACHE_EXPORT(imgcache_select)
int32_t imgcache_select(uint64_t need_bytes, int64_t now_ns, uint64_t *keys, uint32_t cap);

/* and these if it declares the capability snapshot. */
IMGCACHE_EXPORT(imgcache_snapshot)
int32_t imgcache_snapshot(void *p, uint32_t cap);
IMGCACHE_EXPORT(imgcache_restore)
uint32_t imgcache_restore(const void *p, uint32_t len);

/* What the host offers. A module imports only what it calls. */
IMGCACHE_IMPORT(log)
void imgcache_log(uint32_t level, const char *text, uint32_t len);

#endif
