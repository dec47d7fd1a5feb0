//! A doubt about a listener: it said that it lost its connection, and GitHub's does not say when its polls work again.

use std::time::Duration;

use tokio::time::Instant;

/// When the forge is asked about such a listener: after the words, and then after each answer that does not clear it up, the
/// last one again and again.
const DOUBTS: [Duration; 5] = [
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(240),
    Duration::from_secs(480),
];
/// How long it is called cut off if nobody can ask the forge.
const LAPSE: Duration = Duration::from_secs(5 * 60);

/// Since when it is doubted, and when the forge is asked next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    since: Instant,
    /// How often the forge was to be asked because of it.
    asked: usize,
    at: Instant,
}

impl Doubt {
    /// It begins. The first question comes no later than after the `longest` wait; `chance` is a number from 0 to 1.
    pub(super) fn begin(longest: Option<Duration>, chance: f64) -> Self {
        Self { since: Instant::now(), asked: 0, at: after(0, longest, chance) }
    }

    /// The forge was asked, or could not be, and it is not cleared up.
    pub(super) fn go_on(&mut self, longest: Option<Duration>, chance: f64) {
        self.asked += 1;
        self.at = after(self.asked, longest, chance);
    }

    /// When the forge is asked.
    pub(super) fn asks_at(&self) -> Instant {
        self.at
    }

    /// When nobody can say any more whether it is founded, unless the forge can be asked.
    pub(super) fn lapses_at(&self) -> Instant {
        self.since + LAPSE
    }
}

/// The wait before a question, give or take a third: a fleet loses its connection together.
fn after(asked: usize, longest: Option<Duration>, chance: f64) -> Instant {
    let wait = DOUBTS[asked.min(DOUBTS.len() - 1)].mul_f64((2.0 + 2.0 * chance) / 3.0);
    Instant::now() + longest.map_or(wait, |longest| wait.min(longest))
}
