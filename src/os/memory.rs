//! Memory that holds nothing once it is given back, and is given back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::hint::black_box;
use std::ops::Range;

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

/// What a page is at most, on the machines that this program is for.
const LARGEST_PAGE: usize = 64 * 1024;
/// What this function and the call that it makes take of the stack at most, and more.
const FOR_A_CALL: usize = 4096;

/// Gives back what the main thread's stack needed at its deepest, below where it is now: its pages would stay this process' own for
/// ever. The deepest are a request with all its layers and the reading of the settings. Does nothing in other threads.
pub(crate) fn give_stack_back() {
    let here = black_box(0_u8);
    let here = (&raw const here).addr();
    let Some(stack) = main_stack(&fs::read_to_string("/proc/self/maps").unwrap_or_default()) else { return };
    // SAFETY: sysconf takes an integer.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(LARGEST_PAGE);
    let end = here.saturating_sub(FOR_A_CALL) / page * page;
    if stack.contains(&here) && end > stack.start {
        let start = std::ptr::without_provenance_mut(stack.start);
        // SAFETY: the range is of the stack that this very thread is on, and wholly below the frames in use, the one of the call
        // included. What lies there belongs to calls that have returned. The kernel gives pages of zeros when it is used again.
        unsafe { libc::madvise(start, end - stack.start, libc::MADV_DONTNEED) };
    }
}

/// Where the main thread's stack is, in the words of `/proc/PID/maps`.
fn main_stack(maps: &str) -> Option<Range<usize>> {
    let line = maps.lines().find(|line| line.ends_with("[stack]"))?;
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_is_where_the_kernel_says() {
        let maps = "00400000-00401000 r--p 00000000 fe:00 1 /oscr-entry\n7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0   [stack]\n";
        assert_eq!(main_stack(maps), Some(0x7ffc_0000_0000..0x7ffc_0002_1000));
        assert_eq!(main_stack("00400000-00401000 r--p 00000000 fe:00 1 /x\n"), None);
    }
}
