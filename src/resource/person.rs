//! Who runs a command, for those who wait for the same.

use std::ffi::OsStr;
use std::path::Path;

use nix::unistd::{gethostname, getuid};

use crate::init::account::Accounts;

/// No login is known of this process.
const NO_LOGIN: u32 = u32::MAX;

/// `alice on bench (picocom, process 4711)`: the person, where, and the program's name alone. What it is told may be
/// nobody else's business.
pub(super) fn introduce(program: &OsStr) -> String {
    let sudo = std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty());
    let name = Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
    let host = gethostname().ok().and_then(|host| host.into_string().ok()).unwrap_or_default();
    format!("{} on {host} ({name}, process {})", sudo.unwrap_or_else(login), std::process::id())
}

/// Who logged in, whoever they have become since; else who we are.
fn login() -> String {
    let audited = std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse().ok());
    let number = audited.filter(|number| *number != NO_LOGIN).unwrap_or_else(|| getuid().as_raw());
    let number = number.to_string();
    Accounts::default().resolve(&number).map_or(number, |account| account.name)
}
