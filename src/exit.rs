//! Exit codes, after `sysexits.h` where it has one.

/// The job ran, or a stop was clean.
pub const DONE: u8 = 0;
/// Bad arguments.
pub const USAGE: u8 = 64;
/// A fault in OSCR itself, or of the system that it runs on.
pub const SOFTWARE: u8 = 70;
/// What was wanted is taken, and was not waited for any longer.
pub const TAKEN: u8 = 73;
/// Something passing: start again.
pub const TEMPORARY: u8 = 75;
/// The configuration is wrong.
pub const CONFIG: u8 = 78;
