//! Pauses of a length that chance decides, so that a fleet does not knock in step.

/// Milliseconds from `low` to `high`.
pub(super) fn between(low: u64, high: u64) -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    low + u64::from_le_bytes(bytes) % (high - low).max(1)
}
