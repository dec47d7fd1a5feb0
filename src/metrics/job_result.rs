//! How a job ended.

/// How a job ended, as its listener said. A job runs as the same user as the listener and could write such a line itself, so
/// nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum JobResult {
    /// All went well.
    Succeeded,
    /// A step failed.
    Failed,
    /// It was cancelled.
    Canceled,
    /// It was never begun.
    Skipped,
    /// The forge gave it up.
    Abandoned,
    /// The listener died under it.
    Lost,
    /// The listener did not say, or said a word that we do not know.
    Unknown,
}

impl JobResult {
    /// All of them.
    pub(crate) const ALL: [Self; 7] =
        [Self::Succeeded, Self::Failed, Self::Canceled, Self::Skipped, Self::Abandoned, Self::Lost, Self::Unknown];

    /// Reads the listener's word.
    #[must_use]
    pub(crate) fn read(word: &str) -> Self {
        match word.trim().to_ascii_lowercase().as_str() {
            "succeeded" | "succeededwithissues" => Self::Succeeded,
            "failed" => Self::Failed,
            "canceled" | "cancelled" => Self::Canceled,
            "skipped" => Self::Skipped,
            "abandoned" => Self::Abandoned,
            _ => Self::Unknown,
        }
    }

    /// Its name in metrics and in the job's summary.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Skipped => "skipped",
            Self::Abandoned => "abandoned",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listeners_words_are_read() {
        assert_eq!(JobResult::read("Succeeded"), JobResult::Succeeded);
        assert_eq!(JobResult::read("SucceededWithIssues"), JobResult::Succeeded);
        assert_eq!(JobResult::read(" Canceled\r"), JobResult::Canceled);
        assert_eq!(JobResult::read("Exploded"), JobResult::Unknown);
        for result in JobResult::ALL.into_iter().filter(|result| *result != JobResult::Lost) {
            assert_eq!(JobResult::read(result.name()), result);
        }
    }
}
