// density: the images go first whose space saves the least waiting: what
// fetching an image again would take, times its hits, for each byte of it and
// each hour since it was last read. size_weight says how much the bytes count.

const manifest = `{
  "name": "density",
  "version": "1.0.0",
  "kind": "policy",
  "capabilities": ["score"],
  "options": [{
    "name": "size_weight",
    "type": "number",
    "default": "1",
    "description": "0: sizes do not count; 1: twice the size, half the score"
  }]
}`;

const OK: u32 = 0;
const INVALID: u32 = 2;
const ERROR: u32 = 3; // a level of the log

@external("imgcache", "log")
declare function log(level: u32, text: usize, len: u32): void;

let sizeWeight: f64 = 1;

export function imgcache_abi_version(): u32 {
  return 1;
}

export function imgcache_alloc(size: u32): usize {
  return heap.alloc(size);
}

export function imgcache_free(p: usize, size: u32): void {
  heap.free(p);
}

// The compiler writes no custom sections. All of the text is ASCII.
export function imgcache_manifest(buf: usize, cap: u32): i32 {
  const length = manifest.length;
  if (cap >= <u32>length) {
    for (let i = 0; i < length; i++) store<u8>(buf + i, <u8>manifest.charCodeAt(i));
  }
  return length;
}

// Options are a name, a zero byte, its value, a zero byte, and so on.
export function imgcache_configure(options: usize, len: u32): u32 {
  if (len == 0) return OK;
  const texts = String.UTF8.decodeUnsafe(options, len).split("\0");
  for (let i = 0; i + 1 < texts.length; i += 2) {
    if (texts[i] == "size_weight") sizeWeight = parseFloat(texts[i + 1]);
  }
  if (sizeWeight >= 0 && isFinite(sizeWeight)) return OK;
  const why = String.UTF8.encode("size_weight must not be below 0");
  log(ERROR, changetype<usize>(why), why.byteLength);
  return INVALID;
}

export function imgcache_score(records: usize, scores: usize): u32 {
  const stride = load<u32>(records, 4);
  const count = load<u32>(records, 8);
  const now = <f64>load<i64>(records, 16);
  let record = records + load<u32>(records);
  for (let i: u32 = 0; i < count; i++) {
    store<f64>(scores + ((<usize>i) << 3), score(record, now));
    record += stride;
  }
  return OK;
}

function score(record: usize, now: f64): f64 {
  const size = <f64>load<u64>(record, 8);
  const hits = <f64>load<u64>(record, 16);
  const accessed = <f64>load<i64>(record, 32);
  const fetchMs = <f64>load<u32>(record, 40);
  const hours = max(0, (now - accessed) / 3.6e12);
  return ((hits + 1) * (fetchMs + 1)) / (Math.pow(size + 1, sizeWeight) * (hours + 1));
}
