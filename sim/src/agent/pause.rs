//! Pauses of a length that chance decides, so that a fleet does not knock in step.

/// Milliseconds from `low` to `high`.
pub(super) fn between(low: u64, high: u64) -> u64 {
    let random = getrandom::u64().expect("the kernel gives random bytes");
    low + random % (high - low + 1)
}
