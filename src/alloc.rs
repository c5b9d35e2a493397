//! The global allocator: counts the memory that each thread needs, and returns large freed blocks to the kernel.
//!
//! The one file with `unsafe`: it passes every call on unchanged, to one of two allocators that is chosen by the block's size alone.
//! Small blocks go to mimalloc on musl, whose own allocator is slower with two threads than with one. Large blocks go to the C library,
//! which maps each by itself, returns it to the kernel when any thread frees it, and grows it without a copy. So resident memory is what
//! is counted, and no thread keeps the pages of a body that it has read.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[cfg(target_env = "musl")]
const SMALL: mimalloc::Mimalloc = mimalloc::Mimalloc;
#[cfg(not(target_env = "musl"))]
const SMALL: System = System;
/// Size in bytes from which on the C library allocates. musl maps blocks of at least 128 KiB one by one, smaller ones a few at a time.
const LARGE: usize = 16 << 10;

/// Size classes of blocks smaller than [`LARGE`]: multiples of 16 up to 64, then two per power of two. mimalloc has four; but each class
/// that a thread uses costs it a page of 4 KiB at least, and half of them cost each of the sixty worker threads 40 KiB less.
const CLASSES: usize = 20;

/// The size class of a block, by its size in words of eight bytes.
static CLASS_OF_WORDS: [u8; LARGE / 8 + 1] = {
    let mut classes = [0; LARGE / 8 + 1];
    let mut words = 0;
    while words < classes.len() {
        classes[words] = class(words).0 as u8;
        words += 1
    }
    classes
};

/// The bytes of a block of each class.
static BYTES: [usize; CLASSES] = {
    let mut bytes = [0; CLASSES];
    let mut words = 0;
    while words <= LARGE / 8 {
        let (class, all) = class(words);
        bytes[class] = all;
        words += 1
    }
    bytes
};

/// What a thread needs. A page of small blocks serves one size class, and a single block keeps it resident. So for each class the largest
/// number of blocks live at once since [`start_counting`] counts, whatever was freed since. Large blocks count until they are freed.
struct Account {
    live: [Cell<isize>; CLASSES],
    most: [Cell<isize>; CLASSES],
    needed: Cell<isize>,
}

thread_local! {
    // initialised at compile time and without a destructor, so that the allocator may use it at any time
    static ACCOUNT: Account = const {
        Account {
            live: [const { Cell::new(0) }; CLASSES],
            most: [const { Cell::new(0) }; CLASSES],
            needed: Cell::new(0),
        }
    };
}

/// The size class of a block, and the bytes of a block of this class.
const fn class(words: usize) -> (usize, usize) {
    if words <= 8 {
        let number = words.saturating_sub(1) / 2;
        return (number, 16 * (number + 1));
    }
    let words = words - 1;
    let log = words.ilog2() as usize;
    let half = words >> (log - 1);
    (2 * log + (half & 1) - 2, (8 * (half + 1)) << (log - 1))
}

#[inline]
fn class_of(size: usize) -> usize {
    usize::from(CLASS_OF_WORDS[size.div_ceil(8)])
}

/// The layout of the whole block in which a small block is allocated.
#[inline]
fn whole(layout: Layout) -> Layout {
    // SAFETY: a power of two, as it is a layout's; and at most 16 KiB, rounded up to it, do not exceed isize::MAX
    unsafe { Layout::from_size_align_unchecked(BYTES[class_of(layout.size())], layout.align()) }
}

#[inline]
fn count_alloc(size: usize) {
    ACCOUNT.with(|account| {
        if size >= LARGE {
            return account.needed.set(account.needed.get() + size as isize);
        }
        let class = class_of(size);
        let live = account.live[class].get() + 1;
        account.live[class].set(live);
        if live > account.most[class].get() {
            account.most[class].set(live);
            account.needed.set(account.needed.get() + BYTES[class] as isize)
        }
    })
}

#[inline]
fn count_dealloc(size: usize) {
    ACCOUNT.with(|account| {
        if size >= LARGE {
            return account.needed.set(account.needed.get() - size as isize);
        }
        let live = &account.live[class_of(size)];
        live.set(live.get() - 1)
    })
}

/// Starts a new count for this thread, at 0.
pub(crate) fn start_counting() {
    ACCOUNT.with(|account| {
        account.most.iter().zip(&account.live).for_each(|(most, live)| most.set(live.get()));
        account.needed.set(0)
    })
}

/// Bytes that this thread has needed since [`start_counting`]; negative if it has freed older large blocks.
#[inline]
pub(crate) fn needed_bytes() -> isize {
    ACCOUNT.with(|account| account.needed.get())
}

/// Returns the pages that this thread has freed to the kernel.
pub(crate) fn return_freed_pages() {
    #[cfg(target_env = "musl")]
    // SAFETY: takes no pointers, and may be called at any time
    unsafe {
        libmimalloc_sys::mi_collect(true)
    }
}

pub(crate) struct Counting;

// SAFETY: every call is passed on to SMALL or System, that of a small block with the size of its class. Which of them, and which size,
// follow from the layout alone, and GlobalAlloc's caller passes the layout that a block was allocated with; so each block is freed and
// resized by the allocator that returned it, with the layout that it was asked for.
// Counting touches only thread-local integers: it allocates nothing and cannot panic.
unsafe impl GlobalAlloc for Counting {
    #[inline(never)] // else the counting stands at thousands of places
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_alloc(layout.size());
        // SAFETY: the caller's promise about the layout
        unsafe { if layout.size() < LARGE { SMALL.alloc(whole(layout)) } else { System.alloc(layout) } }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_alloc(layout.size());
        // SAFETY: the caller's promise about the layout
        unsafe { if layout.size() < LARGE { SMALL.alloc_zeroed(whole(layout)) } else { System.alloc_zeroed(layout) } }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count_dealloc(layout.size());
        // SAFETY: `block` was allocated with this layout, so by the same allocator
        unsafe {
            if layout.size() < LARGE { SMALL.dealloc(block, whole(layout)) } else { System.dealloc(block, layout) }
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: `block` was allocated with this layout, so by the same allocator, which also serves the new size
        let new = unsafe {
            match (layout.size() < LARGE, size < LARGE) {
                (true, true) if class_of(size) == class_of(layout.size()) => return block,
                (true, true) => SMALL.realloc(block, whole(layout), BYTES[class_of(size)]),
                (false, false) => System.realloc(block, layout, size),
                _ => return self.move_block(block, layout, size),
            }
        };
        if !new.is_null() {
            count_alloc(size);
            count_dealloc(layout.size())
        }
        new
    }
}

impl Counting {
    /// Resizes a block whose old and new size belong to different allocators.
    #[cold]
    unsafe fn move_block(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller of `realloc` promises that `size`, rounded up to the alignment, does not overflow; the new block has at
        // least the bytes that are copied, and does not overlap the old one
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                std::ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                self.dealloc(block, layout)
            }
            new
        }
    }
}

/// mimalloc without the crate of that name, which asks for an alignment with every block: blocks of most sizes then come from a larger
/// class, and by a slower way.
#[cfg(target_env = "musl")]
mod mimalloc {
    use libmimalloc_sys as sys;
    use std::alloc::{GlobalAlloc, Layout};

    /// Every block whose size is a multiple of this is aligned to it.
    const ALIGNMENT: usize = 16;

    pub(super) struct Mimalloc;

    // SAFETY: mimalloc's functions are those of C, and need no size to free a block. Blocks are aligned to ALIGNMENT, or as they were
    // asked for: the sizes that come here are those of size classes, all of them multiples of ALIGNMENT.
    unsafe impl GlobalAlloc for Mimalloc {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let (size, align) = (layout.size(), layout.align());
            // SAFETY: every size is allowed, and every alignment of a layout
            unsafe { if align <= ALIGNMENT { sys::mi_malloc(size) } else { sys::mi_malloc_aligned(size, align) } }
                .cast()
        }
        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            let (size, align) = (layout.size(), layout.align());
            // SAFETY: as above
            unsafe { if align <= ALIGNMENT { sys::mi_zalloc(size) } else { sys::mi_zalloc_aligned(size, align) } }
                .cast()
        }
        unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
            // SAFETY: the block is one of ours
            unsafe { sys::mi_free(block.cast()) }
        }
        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            let (block, align) = (block.cast(), layout.align());
            // SAFETY: the block is one of ours
            let new = unsafe {
                if align <= ALIGNMENT {
                    sys::mi_realloc(block, size)
                } else {
                    sys::mi_realloc_aligned(block, size, align)
                }
            };
            new.cast()
        }
    }
}

/// `tests/image` runs these under valgrind.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_class_is_one_of_mimalloc_and_wastes_at_most_a_third() {
        for size in 1..LARGE {
            let bytes = BYTES[class_of(size)];
            // SAFETY: a pure function
            let theirs = unsafe { libmimalloc_sys::mi_good_size(bytes) };
            assert_eq!((bytes, bytes % 16), (theirs, 0), "a block of {size} bytes");
            assert!((size..size + (size / 2).max(16)).contains(&bytes), "{size} bytes take {bytes}");
        }
        assert!(BYTES.is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn the_most_of_each_class_counts_and_large_blocks_while_they_live() {
        start_counting();
        let small = vec![0u8; 100];
        assert_eq!(needed_bytes(), 128);
        drop(small);
        assert_eq!(needed_bytes(), 128, "its page may stay resident");
        drop(vec![1u8; 97]);
        assert_eq!(needed_bytes(), 128, "the same class again");
        let large = vec![2u8; LARGE];
        assert_eq!(needed_bytes(), 128 + LARGE as isize);
        drop(large);
        assert_eq!(needed_bytes(), 128);
        start_counting();
        assert_eq!(needed_bytes(), 0);
    }

    #[test]
    fn blocks_keep_their_contents_however_they_are_resized() {
        start_counting();
        let before = needed_bytes();
        for (from, to) in [(10, 100), (100, 10), (100, LARGE), (LARGE, 100), (LARGE, 9 * LARGE), (9 * LARGE, LARGE + 1)]
        {
            let mut bytes: Vec<u8> = Vec::with_capacity(from);
            bytes.extend((0..from).map(|at| at as u8));
            bytes.truncate(to);
            bytes.shrink_to_fit();
            bytes.reserve_exact(to - bytes.len());
            bytes.resize(to, 7);
            let kept = from.min(to);
            assert!(bytes[..kept].iter().enumerate().all(|(at, byte)| *byte == at as u8), "{from} to {to}");
            assert!(bytes[kept..].iter().all(|byte| *byte == 7), "{from} to {to}");
        }
        assert!(needed_bytes() >= before);
    }

    #[test]
    fn blocks_may_be_freed_by_another_thread() {
        let blocks: Vec<Vec<u8>> = [1, 1000, LARGE, 200_000].map(|size| vec![3; size]).into();
        let freed = std::thread::spawn(move || {
            start_counting();
            assert!(blocks.iter().all(|block| block.iter().all(|byte| *byte == 3)));
            drop(blocks);
            needed_bytes()
        });
        assert!(freed.join().unwrap() <= -(LARGE as isize));
    }
}
