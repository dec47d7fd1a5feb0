//! What an older kernel, an engine's filter of system calls or a sandbox does not have.

use std::fs;
use std::path::Path;

use libc::{ENOSYS, EPERM};

use crate::harness::{Container, Forge, each};

#[test]
fn a_mount_in_a_cache_is_nobodys_to_empty_without_openat2() {
    each(&[ENOSYS, EPERM], |error| {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        let (cache, others) = (container.path("cache"), container.path("others"));
        let fill = |folder: &Path| {
            fs::create_dir_all(folder).expect("a directory");
            fs::write(folder.join("data"), vec![1; 700 << 10]).expect("the file");
        };
        for folder in [cache.join("one"), cache.join("two"), others.clone()] {
            fill(&folder);
        }
        fs::create_dir(cache.join("mounted")).expect("a directory");
        container.mount(&others, &cache.join("mounted"));
        container.set_all(&[("OSCR_CACHE_DIRS", &container.text("cache")), ("OSCR_CACHE_MAX", "100k")]);
        container.deny(libc::SYS_openat2, *error);
        container.start();
        container.wait_line("removed 2 entries");
        assert_eq!(container.names("others"), ["data"]);
    });
}

#[test]
fn a_token_in_a_variable_needs_a_file_in_memory_and_says_so() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.unset("GITHUB_PAT_FILE");
    container.set("GITHUB_PAT", &forge.pat());
    container.deny(libc::SYS_memfd_create, EPERM);
    container.start();
    assert_eq!(container.exit_code(), 70);
    let said = container.wait_line("memfd_create");
    assert!(said.contains("give GITHUB_PAT as files"), "{said}");
}
