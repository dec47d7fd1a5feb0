//! What `oscr-entry doctor` finds: one line each, with the cure.

use std::fmt;

use super::fault::Fault;

/// How good something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It could not be looked at, because something before it is wrong.
    Skip,
    /// It works, but somebody should know.
    Warn,
    /// No job can run like this.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in one word.
    pub topic: &'static str,
    /// How good it is.
    pub verdict: Verdict,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub cure: Option<String>,
}

impl Finding {
    /// It is as it should be.
    pub fn ok(topic: &'static str, what: impl Into<String>) -> Self {
        Self { topic, verdict: Verdict::Ok, what: what.into(), cure: None }
    }

    /// It could not be looked at.
    pub fn skip(topic: &'static str, why: impl Into<String>) -> Self {
        Self { topic, verdict: Verdict::Skip, what: why.into(), cure: None }
    }

    /// It works, but somebody should know.
    pub fn warn(topic: &'static str, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { topic, verdict: Verdict::Warn, what: what.into(), cure: Some(cure.into()) }
    }

    /// The same, in words that say what helps.
    pub(crate) fn warning(topic: &'static str, words: &str) -> Self {
        Self { topic, verdict: Verdict::Warn, what: words.to_owned(), cure: None }
    }

    /// No job can run like this.
    pub fn fail(topic: &'static str, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { topic, verdict: Verdict::Fail, what: what.into(), cure: Some(cure.into()) }
    }

    /// The forge did not do what it was asked.
    pub fn fault(topic: &'static str, fault: &Fault) -> Self {
        match fault {
            Fault::Denied { what, cure } => Self::fail(topic, what, cure),
            Fault::Limited { .. } => Self::fail(topic, fault.to_string(), "wait, or use a token that is less busy"),
            Fault::Unreachable(what) => Self::fail(topic, what, "see whether the forge is well, and what is between"),
            Fault::NameTaken { .. } => Self::fail(topic, fault.to_string(), "unset RUNNER_NAME"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Skip => "skip",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        write!(f, "{verdict:<5} {:<11} {}", self.topic, self.what)?;
        match &self.cure {
            Some(cure) => write!(f, "\n{:18}cure: {cure}", ""),
            None => Ok(()),
        }
    }
}

/// Whether a version is newer than another one, number by number. What consists of other things than numbers is not.
#[must_use]
pub fn is_newer(version: &str, than: &str) -> bool {
    let numbers = |version: &str| version.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>();
    match (numbers(version), numbers(than)) {
        (Some(version), Some(than)) => version > than,
        _ => false,
    }
}

/// What there is to say about the agent's version, `ours`, when the forge offers `theirs`.
#[must_use]
pub fn compare_versions(ours: Option<&str>, theirs: &str, forge: &str, policy: &str) -> Finding {
    let topic = "agent";
    let Some(ours) = ours else {
        return Finding::skip(topic, format!("{forge} offers {theirs}; the version here is not known"));
    };
    if is_newer(theirs, ours) {
        return Finding::warn(
            topic,
            format!("{ours} is here, and {forge} offers {theirs}; {policy}"),
            "pull a newer image, or let OSCR_AGENT_UPDATE fetch it",
        );
    }
    Finding::ok(topic, format!("{ours} is here, and {forge} offers {theirs}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let verdict = |ours, theirs| compare_versions(ours, theirs, "X", "").verdict;
        assert_eq!(verdict(Some("2.99.0"), "2.100.0"), Verdict::Warn);
        assert_eq!(verdict(Some("2.100.0"), "2.99.1"), Verdict::Ok);
        assert!(is_newer("2.100.0", "2.99.9") && is_newer("3.0", "2.9.9") && is_newer("2.338.0.1", "2.338.0"));
        assert!(!is_newer("2.338.0", "2.338.0") && !is_newer("2.337.9", "2.338.0"));
        assert!(!is_newer("latest", "2.338.0") && !is_newer("2.339.0", "") && !is_newer("2.339.0-rc1", "2.338.0"));
        assert_eq!(verdict(Some("2.100.0"), "2.100.0"), Verdict::Ok);
        assert_eq!(verdict(None, "2.100.0"), Verdict::Skip);
    }
}
