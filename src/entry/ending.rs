//! What the end of a listener means, by what went before it.

use crate::init::Ended;
use crate::provider::{Provider, Reading};

/// How the time with one listener ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// A job ran and is over; `by_us` where we made its listener end.
    JobDone { by_us: bool },
    /// A job ran, and the listener died under it.
    JobBroken(String),
    /// It was stopped.
    Stopped(Why),
    /// No job ran, and another try may do.
    Again(String),
    /// No job ran, and the forge does not have the registration any more.
    Lost(String),
    /// The forge wants another version of the agent.
    Outdated(String),
    /// No job ran, and the forge refuses the listener without saying why.
    Refused {
        /// What it did, for people.
        what: String,
        /// What it can mean once it does so again and again.
        causes: &'static str,
    },
    /// The agent cannot work here.
    Fatal(String),
}

/// Why a listener is stopped. For all but a request to stop it must have no job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// Somebody asked us to stop.
    Asked,
    /// Somebody else waits for the hardware that it holds.
    Yield,
    /// The disk is full.
    Full,
    /// What an earlier job left cannot be removed.
    Unclean,
    /// There is a newer agent to run.
    Update,
    /// Its network has no way out, and only a restart of the container mends that.
    CutOff,
    /// It was idle for as long as it may be.
    Idle,
    /// The watchdog found that it can get no job.
    Replace(String),
}

/// What went before a listener's end.
#[derive(Debug, Clone)]
pub(super) struct Past {
    /// Why it was to be stopped, if it was.
    pub(super) why: Option<Why>,
    /// Whether it was interrupted because it was idle, or its job had to be cancelled.
    pub(super) interrupted: bool,
    /// Whether we are asked to stop.
    pub(super) asked: bool,
    /// Whether a job was announced.
    pub(super) job_seen: bool,
    /// Whether a job ran for certain.
    pub(super) job_ran: bool,
    /// Whether it was over, and its end told, before a listener's end that takes nothing back.
    pub(super) job_stands: bool,
    /// Whether we made the listener end, be it after its job.
    pub(super) by_us: bool,
}

impl Ending {
    /// Tells from what went before, and from the listener's own exit code and last words where that leaves it open.
    pub(super) fn of(past: Past, ended: Ended, words: &[String], provider: &dyn Provider) -> Self {
        let Past { why, interrupted, asked, job_seen, job_ran, job_stands, by_us } = past;
        match why {
            _ if interrupted && asked => return Self::Stopped(Why::Asked),
            Some(why @ (Why::Yield | Why::Full | Why::Unclean | Why::Update | Why::CutOff))
                if interrupted && !job_seen =>
            {
                return Self::Stopped(why);
            }
            // Nobody asked for it, and no job ran after all.
            Some(why @ (Why::Idle | Why::Replace(_))) if !job_ran && !asked => return Self::Stopped(why),
            _ => {}
        }
        match provider.read_exit(ended, job_seen, words) {
            Reading::Done => Self::JobDone { by_us },
            _ if job_stands => Self::JobDone { by_us },
            Reading::Retry(why)
            | Reading::Lost(why)
            | Reading::Outdated(why)
            | Reading::Refused { what: why, .. }
            | Reading::Fatal(why)
                if job_seen =>
            {
                Self::JobBroken(why)
            }
            Reading::Lost(why) => Self::Lost(why),
            Reading::Retry(why) => Self::Again(why),
            Reading::Outdated(why) => Self::Outdated(why),
            Reading::Refused { what, causes } => Self::Refused { what, causes },
            Reading::Fatal(why) => Self::Fatal(why),
        }
    }

    /// With the agent's last words, where nothing but its exit code tells why it ended.
    pub(super) fn saying(self, words: Option<&str>) -> Self {
        let told = |why: String| words.map_or_else(|| why.clone(), |words| format!("{why}: {words}"));
        match self {
            Self::Again(why) => Self::Again(told(why)),
            Self::Lost(why) => Self::Lost(told(why)),
            Self::Fatal(why) => Self::Fatal(told(why)),
            other => other,
        }
    }

    /// Whether a job ended as jobs do.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::JobDone { .. })
    }

    /// Whether its job ended by itself, so that the forge, if it does not know it yet, is about to.
    pub(super) fn is_known_soon(&self) -> bool {
        matches!(self, Self::JobDone { by_us: false })
    }

    /// A forge that offers a newer version may well refuse an older one for its age, whatever it says.
    pub(super) fn knowing(self, newer: Option<&str>) -> Self {
        match (self, newer) {
            (Self::Refused { what, .. }, Some(newer)) => Self::Outdated(format!("{what} (version {newer} is offered)")),
            (ending, _) => ending,
        }
    }

    /// Whether what is kept of the registration is worth nothing any more.
    pub(super) fn loses_registration(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Stopped(Why::Replace(_)))
    }

    /// Whether this process registers again after it, unless it is asked to stop.
    pub(super) fn goes_on(&self) -> bool {
        !matches!(self, Self::JobDone { .. } | Self::JobBroken(_) | Self::Stopped(Why::Idle | Why::Asked | Why::CutOff))
    }

    /// Whether it speaks of trouble, when it comes soon after the start and nobody wanted it.
    pub(super) fn is_trouble(&self) -> bool {
        matches!(self, Self::Again(_) | Self::Lost(_) | Self::Refused { .. } | Self::Fatal(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use crate::provider::{FORGES, configure};

    const IDLE: Past = Past {
        why: None,
        interrupted: false,
        asked: false,
        job_seen: false,
        job_ran: false,
        job_stands: false,
        by_us: false,
    };
    const DONE: Ending = Ending::JobDone { by_us: false };
    const WITH_JOB: Past = Past { job_seen: true, job_ran: true, ..IDLE };

    fn of(past: Past, code: i32) -> Ending {
        with_words(past, code, &[])
    }

    fn with_words(past: Past, code: i32, words: &[&str]) -> Ending {
        let words: Vec<String> = words.iter().map(|line| (*line).to_owned()).collect();
        let environment = Environment::from([("GITHUB_OWNER", "o"), ("GITHUB_PAT", "a-token")]);
        let configured = configure(FORGES, &environment).map_err(|problems| format!("{problems:?}")).unwrap();
        Ending::of(past, Ended::Code(code), &words, configured.provider.as_ref())
    }

    #[test]
    fn the_agents_last_words_are_added_where_its_code_alone_tells_why() {
        let words = Some("An error occurred: no space left");
        match of(IDLE, 1).saying(words) {
            Ending::Lost(why) => {
                assert!(why.contains("(code 1)") && why.ends_with(": An error occurred: no space left"), "{why}");
                assert!(!why.contains("registration"), "no cause that was not said: {why}");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(of(IDLE, 2).saying(words), Ending::Again(why) if why.contains("no space left")));
        assert!(matches!(of(IDLE, 3).saying(words), Ending::Outdated(why) if !why.contains("no space left")));
        assert_eq!(of(IDLE, 1).saying(None), of(IDLE, 1));
    }

    #[test]
    fn a_refusal_without_a_cause_is_outdated_only_where_a_newer_version_is_offered() {
        let words = ["An error occurred: Error: Forbidden Runner version v2.1.0 is deprecated"];
        let refused = || with_words(IDLE, 7, &words);
        assert!(matches!(refused(), Ending::Refused { .. }) && refused().is_trouble() && refused().goes_on());
        assert_eq!(refused().knowing(None), refused());
        match refused().knowing(Some("2.9.0")) {
            Ending::Outdated(why) => assert!(why.contains("2.9.0") && why.contains("Forbidden"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(of(IDLE, 2).knowing(Some("2.9.0")), of(IDLE, 2));
        assert!(matches!(with_words(WITH_JOB, 7, &words), Ending::JobBroken(_)));
    }

    #[test]
    fn a_listener_that_was_stopped_without_a_job_ended_for_the_reason_that_it_was_stopped_for() {
        for why in [Why::Yield, Why::Full, Why::Unclean, Why::Update] {
            let past = Past { why: Some(why.clone()), interrupted: true, ..IDLE };
            assert_eq!(of(past, 0), Ending::Stopped(why));
        }
        for why in [Why::Idle, Why::Replace("a ghost".to_owned())] {
            // By itself too: it was about to be.
            let past = Past { why: Some(why.clone()), ..IDLE };
            assert_eq!(of(past, 0), Ending::Stopped(why));
        }
    }

    #[test]
    fn a_job_that_came_meanwhile_counts_for_more_than_the_reason_to_stop() {
        for why in [Why::Yield, Why::Full, Why::Unclean, Why::Update, Why::Idle, Why::Replace(String::new())] {
            assert_eq!(of(Past { why: Some(why), ..WITH_JOB }, 0), DONE);
        }
        assert!(matches!(of(Past { why: Some(Why::Asked), ..WITH_JOB }, 5), Ending::JobBroken(_)));
    }

    #[test]
    fn a_job_whose_end_was_told_stands_whatever_its_listener_ends_with() {
        let told = Past { job_stands: true, ..WITH_JOB };
        for code in [0, 1, 2, 3, 4, 7] {
            assert_eq!(of(told.clone(), code), DONE, "{code}");
        }
        assert_eq!(of(Past { by_us: true, ..told }, 137), Ending::JobDone { by_us: true });
        for code in [1, 3, 4, 7] {
            assert!(matches!(of(WITH_JOB, code), Ending::JobBroken(_)), "{code}: nobody told its end");
        }
    }

    #[test]
    fn what_was_interrupted_because_we_are_asked_to_stop_is_stopped_with_or_without_a_job() {
        for past in [IDLE, WITH_JOB, Past { why: Some(Why::Idle), ..IDLE }] {
            assert_eq!(of(Past { interrupted: true, asked: true, ..past }, 0), Ending::Stopped(Why::Asked));
        }
        // One that ended by itself in that moment tells how.
        assert!(matches!(of(Past { asked: true, why: Some(Why::Asked), ..IDLE }, 0), Ending::Lost(_)));
    }

    #[test]
    fn a_registration_is_lost_by_an_end_that_tells_so_and_by_no_other() {
        let (lost, again) = (of(IDLE, 0), of(IDLE, 2));
        assert!(matches!((&lost, &again), (Ending::Lost(_), Ending::Again(_))), "{lost:?} {again:?}");
        assert!(lost.loses_registration() && !again.loses_registration());
        assert!(Ending::Stopped(Why::Replace(String::new())).loses_registration());
        // Another session under its name, a crash, a refusal, a version.
        for code in [3, 5, 6, 7, 99, 127] {
            assert!(!of(IDLE, code).loses_registration(), "{code}");
        }
        assert!(!Ending::Stopped(Why::Asked).loses_registration() && !DONE.loses_registration());
    }
}
