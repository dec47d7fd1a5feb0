//! How long tests wait for what comes, unless something is broken.

use std::sync::LazyLock;
use std::time::Duration;

/// Longer than anything takes that a test waits for, so that only a defect meets it.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A wait on this machine: so long, times `OSCR_TEST_PATIENCE`, a number for machines on which [`LIMIT`] is not long.
///
/// # Panics
///
/// When the variable's value is no number above zero.
#[must_use]
pub fn patient(wait: Duration) -> Duration {
    static FACTOR: LazyLock<f64> = LazyLock::new(|| factor(std::env::var("OSCR_TEST_PATIENCE").ok().as_deref()));
    wait.mul_f64(*FACTOR)
}

/// The factor that a value of the variable is; empty is as unset.
fn factor(value: Option<&str>) -> f64 {
    let Some(text) = value.filter(|text| !text.is_empty()) else { return 1.0 };
    let factor = text.parse().ok().filter(|factor: &f64| factor.is_finite() && *factor > 0.0);
    factor.unwrap_or_else(|| panic!("OSCR_TEST_PATIENCE is a number above zero, such as 2 or 0.5, not {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_one_unless_a_number_above_zero_is_given() {
        assert_eq!([None, Some("")].map(factor), [1.0, 1.0]);
        assert_eq!(["3", "0.5"].map(|text| factor(Some(text))), [3.0, 0.5]);
        for wrong in ["0", "-1", "much", "inf", "NaN"] {
            assert!(std::panic::catch_unwind(|| factor(Some(wrong))).is_err(), "{wrong}");
        }
    }
}
