//! Memory that holds nothing once it is given back.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, overwriting what is freed. Types that wipe themselves cover what this crate holds; this covers the
/// copies in between, which libraries make: buffers of HTTP and TLS, of JSON and of keys, and vectors that grew.
#[derive(Debug, Clone, Copy)]
pub struct Wiping;

// SAFETY: every call is the system allocator's with the same arguments. `dealloc` writes only to the block that it was given,
// all of which the caller owns until then. `realloc` is the trait's own, which allocates, copies and calls `dealloc`.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same promises to us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same promises to us.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block has this many bytes and is the caller's to give away.
        unsafe { libc::explicit_bzero(block.cast(), layout.size()) };
        // SAFETY: the caller keeps the same promises to us.
        unsafe { System.dealloc(block, layout) }
    }
}
