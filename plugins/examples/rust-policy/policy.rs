//! slru: the segmented least-recently-used policy. New images are on
//! probation; one that is read again is protected. Those on probation leave
//! first, and in each segment those that were not read for longest. When the
//! protected ones outgrow their share, the oldest of them are on probation
//! again. So a scan of images that nobody wants twice costs none that are.
//!
//! Cache is the policy; what follows it is the ABI.

use std::alloc::{alloc, dealloc, Layout};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::slice;

#[link_section = "imgcache.manifest"]
#[used]
static MANIFEST: [u8; include_bytes!("manifest.json").len()] = *include_bytes!("manifest.json");

const PROBATION: usize = 0;
const PROTECTED: usize = 1;

struct Image {
    size: u64,
    segment: usize,
    turn: u64, // the place in the segment
}

#[derive(Default)]
struct Segment {
    keys: BTreeMap<u64, u64>, // by turn: the first was not read for longest
    bytes: u128,              // no sum of sizes overflows it
}

struct Cache {
    images: BTreeMap<u64, Image>, // by key
    segments: [Segment; 2],
    last_turn: u64,
    capacity: u64,
    protected_percent: f64,
}

impl Cache {
    fn new() -> Cache {
        Cache {
            images: BTreeMap::new(),
            segments: Default::default(),
            last_turn: 0,
            capacity: 0,
            protected_percent: 80.0,
        }
    }

    fn observe(&mut self, e: &Event) {
        match e.kind {
            ADMITTED => {
                self.leave(e.key); // another version of it
                self.enter(e.key, e.size, PROBATION);
            }
            ACCESSED => self.renew(e.key, |_| PROTECTED),
            REFUSED => self.renew(e.key, |segment| segment), // propose others first
            REMOVED => {
                self.leave(e.key);
            }
            CAPACITY => self.capacity = e.size,
            _ => {}
        }
        self.demote();
    }

    /// Adds an image as the youngest of a segment.
    fn enter(&mut self, key: u64, size: u64, segment: usize) {
        self.last_turn += 1;
        let turn = self.last_turn;
        self.segments[segment].keys.insert(turn, key);
        self.segments[segment].bytes += u128::from(size);
        self.images.insert(key, Image { size, segment, turn });
    }

    fn leave(&mut self, key: u64) -> Option<Image> {
        let image = self.images.remove(&key)?;
        let segment = &mut self.segments[image.segment];
        segment.keys.remove(&image.turn);
        segment.bytes -= u128::from(image.size);
        Some(image)
    }

    /// Makes a known image the youngest of the segment that `to` chooses.
    fn renew(&mut self, key: u64, to: impl Fn(usize) -> usize) {
        if let Some(image) = self.leave(key) {
            self.enter(key, image.size, to(image.segment));
        }
    }

    /// Moves the oldest protected images until the others have their share.
    fn demote(&mut self) {
        let share = (self.capacity as f64 * self.protected_percent / 100.0) as u128;
        while self.segments[PROTECTED].bytes > share {
            let oldest = *self.segments[PROTECTED].keys.values().next().unwrap();
            self.renew(oldest, |_| PROBATION);
        }
    }

    /// Writes keys until their sizes add up to `need`, and counts them.
    fn select(&self, need: u64, keys: &mut [u64]) -> usize {
        let mut left = need;
        let mut count = 0;
        for key in self.segments.iter().flat_map(|s| s.keys.values()) {
            if left == 0 || count == keys.len() {
                break;
            }
            keys[count] = *key;
            count += 1;
            left = left.saturating_sub(self.images[key].size);
        }
        count
    }
}

const OK: u32 = 0;
const INVALID: u32 = 2;

const ADMITTED: u32 = 1;
const ACCESSED: u32 = 2;
const REMOVED: u32 = 3;
const REFUSED: u32 = 4;
const CAPACITY: u32 = 5;

#[repr(C)]
pub struct Frame {
    header_size: u32,
    stride: u32,
    count: u32,
    flags: u32,
    now_ns: i64,
    need_bytes: u64,
}

#[repr(C)]
pub struct Event {
    key: u64,
    size: u64,
    at_ns: i64,
    kind: u32,
    arg: u32,
}

#[link(wasm_import_module = "imgcache")]
extern "C" {
    fn log(level: u32, text: *const u8, len: usize);
}

const ERROR: u32 = 3; // a level

thread_local! {
    // A module has one thread.
    static CACHE: RefCell<Cache> = RefCell::new(Cache::new());
}

#[no_mangle]
pub extern "C" fn imgcache_abi_version() -> u32 {
    1
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

#[no_mangle]
pub extern "C" fn imgcache_alloc(size: usize) -> *mut u8 {
    unsafe { alloc(layout(size)) }
}

/// # Safety
/// `p` comes from `imgcache_alloc`, with the same size.
#[no_mangle]
pub unsafe extern "C" fn imgcache_free(p: *mut u8, size: usize) {
    dealloc(p, layout(size));
}

/// # Safety
/// `options` has `len` bytes: a name, a zero byte, its value, a zero byte, ...
#[no_mangle]
pub unsafe extern "C" fn imgcache_configure(options: *const u8, len: usize) -> u32 {
    if len == 0 {
        return OK;
    }
    let mut texts = slice::from_raw_parts(options, len)
        .split(|b| *b == 0)
        .map(String::from_utf8_lossy);
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        if name != "protected_percent" {
            continue;
        }
        match value.parse() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => {
                CACHE.with(|c| c.borrow_mut().protected_percent = percent);
            }
            _ => {
                let why = "protected_percent must be from 0 to 100";
                log(ERROR, why.as_ptr(), why.len());
                return INVALID;
            }
        }
    }
    OK
}

/// # Safety
/// `events` is a frame of events.
#[no_mangle]
pub unsafe extern "C" fn imgcache_observe(events: *const Frame) -> u32 {
    let frame = &*events;
    let first = events.cast::<u8>().add(frame.header_size as usize);
    CACHE.with(|c| {
        let mut cache = c.borrow_mut();
        for i in 0..frame.count as usize {
            cache.observe(&*first.add(i * frame.stride as usize).cast());
        }
    });
    OK
}

/// # Safety
/// `keys` has room for `cap` keys.
#[no_mangle]
pub unsafe extern "C" fn imgcache_select(need: u64, _now_ns: i64, keys: *mut u64, cap: usize) -> i32 {
    if cap == 0 {
        return 0;
    }
    let keys = slice::from_raw_parts_mut(keys, cap);
    CACHE.with(|c| c.borrow().select(need, keys) as i32)
}
