/* What both modules need of version 1 of the ABI, and no more of C than the
 * compiler has by itself. */
#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(#name))) name

struct frame {
	uint32_t header_size, stride, count, flags;
	int64_t now_ns;
	uint64_t need_bytes;
};

extern unsigned char __heap_base;

/* Memory is handed out and not taken back: a host keeps its buffers. */
static uintptr_t next;

uint32_t EXPORT(imgcache_abi_version)(void) { return 1; }

void *EXPORT(imgcache_alloc)(uint32_t size)
{
	uintptr_t p;

	if (next == 0)
		next = ((uintptr_t)&__heap_base + 7) & ~(uintptr_t)7;
	p = next;
	next += (size + 7) & ~(uint32_t)7;
	while (next > (uintptr_t)__builtin_wasm_memory_size(0) * 65536)
		if (__builtin_wasm_memory_grow(0, 1) == (size_t)-1)
			return NULL;
	return (void *)p;
}

void EXPORT(imgcache_free)(void *p, uint32_t size)
{
	(void)p;
	(void)size;
}

/* give copies len bytes if they fit, and answers how many there are. */
static int32_t give(char *buf, uint32_t cap, const void *from, uint32_t len)
{
	if (cap >= len)
		for (uint32_t i = 0; i < len; i++)
			buf[i] = ((const char *)from)[i];
	return (int32_t)len;
}
