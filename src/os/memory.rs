//! Memory that holds nothing once it is given back, and is given back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;

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
/// What every page is a multiple of.
const PIECE: usize = 4096;
/// What this function and the calls that it makes take of the stack at most, and more.
const FOR_A_CALL: usize = 4096;
/// As much of the kernel's list of mappings is read. Ours has some twenty, of at most a hundred bytes.
const LIST: usize = 8 * 1024;

/// Gives back what this process owns of memory and has no use for: its pages would stay its own for ever. That is what the main thread's
/// stack needed at its deepest, which is a request with all its layers or the reading of the settings, and pages of the heap
/// in which nothing is left. Leaves the stack alone when another thread calls, and the heap while there is another one.
pub(crate) fn give_back() {
    // SAFETY: sysconf takes an integer.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(LARGEST_PAGE);
    let stack = give_heap_back(page);
    if let Some(stack) = stack {
        give_stack_back(stack, page);
    }
}

/// Whether this is the only thread.
fn is_alone() -> bool {
    // A directory for each, and the two links that every directory has.
    nix::sys::stat::stat(c"/proc/self/task").is_ok_and(|tasks| tasks.st_nlink == 3)
}

/// What is mapped, in the words of `/proc/PID/maps`. Nothing is allocated, so it stays as it is while somebody goes through it.
fn mappings(text: &mut [u8]) -> &str {
    let mut length = 0;
    if let Ok(mut list) = File::open("/proc/self/maps") {
        while let Ok(read @ 1..) = list.read(&mut text[length..]) {
            length += read;
        }
    }
    // What did not fit is left as it is, the last line in part.
    let whole = text[..length].iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    std::str::from_utf8(&text[..whole]).unwrap_or_default()
}

/// Tells where the main thread's stack is. In a call of its own, whose part of the stack is given back after it.
#[inline(never)]
fn give_heap_back(page: usize) -> Option<Range<usize>> {
    let memory = if is_alone() { File::open("/proc/self/mem").ok() } else { None };
    let mut text = [0; LIST];
    let maps = mappings(&mut text);
    for mapping in maps.lines().filter_map(anonymous) {
        let Some(memory) = &memory else { break };
        // SAFETY: it is memory without a file and not shared. This is the only thread, no handler of a signal writes to memory (the one
        // that there is runs on threads that wait for locks), and nothing is allocated or freed meanwhile.
        unsafe { give_zeros_back(memory, mapping, page) };
    }
    maps.lines().find_map(main_stack)
}

/// Gives back each page of a mapping that has nothing but zeros, as what was freed has here: the kernel gives zeros when it is used again,
/// and so nobody can tell.
///
/// # Safety
/// The mapping is anonymous and private, and nobody writes to it meanwhile.
unsafe fn give_zeros_back(memory: &File, mapping: Range<usize>, page: usize) {
    let is_zeros = |start: usize| {
        // By the kernel, because what the heap has in it is nobody's to read, and part of it may never have been written.
        let mut content = [0; PIECE];
        memory.read_exact_at(&mut content, start as u64).is_ok() && content.iter().all(|byte| *byte == 0)
    };
    for start in mapping.step_by(page) {
        if (start..start + page).step_by(PIECE).all(is_zeros) {
            // SAFETY: the page has zeros before and after.
            unsafe { libc::madvise(std::ptr::without_provenance_mut(start), page, libc::MADV_DONTNEED) };
        }
    }
}

/// Below where it is now.
#[inline(never)]
fn give_stack_back(stack: Range<usize>, page: usize) {
    let here = black_box(0_u8);
    let here = (&raw const here).addr();
    let end = here.saturating_sub(FOR_A_CALL) / page * page;
    if stack.contains(&here) && end > stack.start {
        let start = std::ptr::without_provenance_mut(stack.start);
        // SAFETY: the range is of the stack that this very thread is on, and wholly below the frames in use, the one of the call
        // included. What lies there belongs to calls that have returned. The kernel gives pages of zeros when it is used again.
        unsafe { libc::madvise(start, end - stack.start, libc::MADV_DONTNEED) };
    }
}

/// Where the main thread's stack is, if this is its line.
fn main_stack(line: &str) -> Option<Range<usize>> {
    line.strip_suffix("[stack]").and_then(place)
}

/// Where a mapping is that has no file and is ours alone, if this line is one's.
fn anonymous(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (place_of, rights, inode) = (words.next()?, words.next()?, words.nth(2)?);
    (rights == "rw-p" && inode == "0" && matches!(words.next(), None | Some("[heap]"))).then(|| place(place_of))?
}

fn place(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "00400000-00401000 r--p 00000000 fe:00 1                  /oscr-entry
00858000-0085c000 rw-p 00458000 fe:00 1                  /oscr-entry
0085c000-0085e000 rw-p 00000000 00:00 0
19523000-19525000 rw-p 00000000 00:00 0                  [heap]
7f0000000000-7f0000001000 ---p 00000000 00:00 0
7f0000001000-7f0000002000 rw-s 00000000 00:01 7          /memfd:x (deleted)
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0          [stack]
7ffc00021000-7ffc00023000 r-xp 00000000 00:00 0          [vdso]";

    #[test]
    fn the_stack_and_the_heap_are_where_the_kernel_says() {
        assert_eq!(MAPS.lines().find_map(main_stack), Some(0x7ffc_0000_0000..0x7ffc_0002_1000));
        let heap: Vec<_> = MAPS.lines().filter_map(anonymous).collect();
        assert_eq!(heap, [0x0085_c000..0x0085_e000, 0x1952_3000..0x1952_5000]);
        let mut text = [0; LIST];
        assert!(mappings(&mut text).lines().any(|line| line.ends_with("[stack]")));
        let mut little = [0; 200];
        assert!(mappings(&mut little).lines().all(|line| place(line).is_some()), "a line in part is none");
    }

    #[test]
    fn pages_of_zeros_are_given_back_and_no_byte_changes() {
        let page = 4096;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at a place that the kernel chooses touches nothing that is there.
        let memory =
            unsafe { libc::mmap(std::ptr::null_mut(), 4 * page, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        assert_ne!(memory, libc::MAP_FAILED);
        // SAFETY: it is this long, of bytes that are zero, and this test's own.
        let bytes = unsafe { std::slice::from_raw_parts_mut(memory.cast::<u8>(), 4 * page) };
        bytes.fill(7);
        bytes[page..3 * page].fill(0);
        bytes[3 * page - 1] = 1;
        let before = bytes.to_vec();
        let all = File::open("/proc/self/mem").unwrap();
        // SAFETY: as above, and nobody writes to it.
        unsafe { give_zeros_back(&all, memory.addr()..memory.addr() + 4 * page, page) };
        let mut resident = [0_u8; 4];
        // SAFETY: a byte for each page of the mapping.
        assert_eq!(unsafe { libc::mincore(memory, 4 * page, resident.as_mut_ptr()) }, 0);
        assert_eq!(resident.map(|flags| flags & 1), [1, 0, 1, 1]);
        assert_eq!(bytes, before);
        // SAFETY: nobody uses it any more.
        unsafe { libc::munmap(memory, 4 * page) };
    }
}
