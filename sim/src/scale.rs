//! One scale for all times that the official agents have fixed, so that tests of minutes take seconds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long the stand-ins' times are, as a part of the official agents': with 0.1 a pause of 30 s takes 3 s.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scale(pub f64);

impl Scale {
    /// As the official agents.
    pub const REAL: Self = Self(1.0);

    /// How long a stand-in takes for what takes an official agent so long.
    #[must_use]
    pub fn of(self, real: Duration) -> Duration {
        real.mul_f64(self.0.max(0.0))
    }

    /// The same in milliseconds.
    #[must_use]
    pub fn ms(self, real: u64) -> Duration {
        self.of(Duration::from_millis(real))
    }
}

impl Default for Scale {
    fn default() -> Self {
        Self(0.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_a_part_of_the_real_time() {
        assert_eq!(Scale(0.1).ms(30_000), Duration::from_secs(3));
        assert_eq!(Scale::REAL.ms(7), Duration::from_millis(7));
        assert_eq!(Scale(-1.0).ms(7), Duration::ZERO);
    }
}
