//! The allocator of a plugin: small, quick, and good enough for an instance, which lives for a
//! transaction, for a log entry, or for a thousand reads.
//!
//! Invariants:
//! * A block has the size of a power of two, from 16 bytes on, and is aligned to 16 bytes. A freed one goes
//!   onto the list of its size and is given out again; blocks are never split or joined, so less than half
//!   of the memory is lost, and what has been in use once can be used again. Where more alignment is asked
//!   for, which hardly anybody does, the block is a new one.
//! * Memory that was never in use lies between `next` and `end`, at the end of the memory that there is.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr;

const PAGE_BYTES: usize = 64 * 1024;
const SMALLEST_BITS: u32 = 4;
const ALIGN: usize = 1 << SMALLEST_BITS;
const SIZES: usize = 32 - SMALLEST_BITS as usize;

#[global_allocator]
static ALLOCATOR: Allocator =
    Allocator(UnsafeCell::new(Heap { next: 0, end: 0, free: [ptr::null_mut(); SIZES] }));

struct Allocator(UnsafeCell<Heap>);

struct Heap {
    next: usize,
    end: usize,
    /// The first free block of each size; its first word points to the next.
    free: [*mut u8; SIZES],
}

// SAFETY: a plugin has one thread.
unsafe impl Sync for Allocator {}

// SAFETY: blocks are as large and as aligned as is asked for, and given out once until they are freed.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: there is one thread, and nothing in here allocates.
        let heap = unsafe { &mut *self.0.get() };
        let Some(class) = class(layout) else { return ptr::null_mut() };
        let block = heap.free[class];
        if block.is_null() || layout.align() > ALIGN {
            return heap.take(1 << (class as u32 + SMALLEST_BITS), layout.align().max(ALIGN));
        }
        // SAFETY: it is on the list, hence a block that nobody uses and that begins with a pointer.
        heap.free[class] = unsafe { block.cast::<*mut u8>().read() };
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        let heap = unsafe { &mut *self.0.get() };
        let Some(class) = class(layout) else { return };
        // SAFETY: it was given out for this layout, hence is at least 16 bytes long.
        unsafe { block.cast::<*mut u8>().write(heap.free[class]) };
        heap.free[class] = block;
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller's: `bytes`, rounded up, fits.
        let wanted = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
        if class(wanted) == class(layout) {
            return block;
        }
        // SAFETY: the caller's.
        let other = unsafe { self.alloc(wanted) };
        if !other.is_null() {
            // SAFETY: both are as long as that, and they are different.
            unsafe {
                ptr::copy_nonoverlapping(block, other, layout.size().min(bytes));
                self.dealloc(block, layout);
            }
        }
        other
    }
}

/// The list that blocks of this layout are on; `None` if there is no such memory.
fn class(layout: Layout) -> Option<usize> {
    let bytes = layout.size().max(ALIGN).checked_next_power_of_two()?;
    Some((bytes.trailing_zeros() - SMALLEST_BITS) as usize)
}

impl Heap {
    /// Memory that was never in use; null if there is no more of it.
    fn take(&mut self, bytes: usize, align: usize) -> *mut u8 {
        if self.end == 0 {
            self.next = first_free();
            self.end = std::arch::wasm32::memory_size(0) * PAGE_BYTES;
        }
        let Some(start) = self.next.checked_next_multiple_of(align) else { return ptr::null_mut() };
        let Some(end) = start.checked_add(bytes) else { return ptr::null_mut() };
        if end > self.end {
            let pages = (end - self.end).div_ceil(PAGE_BYTES);
            if std::arch::wasm32::memory_grow(0, pages) == usize::MAX {
                return ptr::null_mut();
            }
            self.end += pages * PAGE_BYTES;
        }
        self.next = end;
        start as *mut u8
    }
}

/// Where the linker says that nothing of its own is any more.
fn first_free() -> usize {
    unsafe extern "C" {
        static __heap_base: u8;
    }
    (&raw const __heap_base) as usize
}
