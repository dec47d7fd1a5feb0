//! The settings about shared hardware.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use crate::resource::{LockPlace, MOST, Tell, Wanted, WantedError};

/// Shared hardware that a job needs.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Which.
    pub wanted: Wanted,
    /// Where its locks are.
    pub place: LockPlace,
    /// When the resource is taken; `None` leaves it to the agent's abilities.
    pub scope: Option<LockScope>,
    /// How long a job may wait.
    pub timeout: Option<Duration>,
    /// How long a holder may listen without a job.
    pub idle: Duration,
    /// What jobs of other repositories are told of who has it.
    pub tell: Tell,
    /// How long a hook between holders may take.
    pub hook_timeout: Duration,
}

/// When a resource is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockScope {
    /// By a job, before its first step.
    Job,
    /// Before listening.
    Listener,
}

impl Hardware {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let directory = PathBuf::from(reader.text("RUNNER_LOCK_DIR").unwrap_or_else(|| LockPlace::USUAL.to_owned()));
        if !directory.is_absolute() {
            reader.problem("RUNNER_LOCK_DIR", "is not an absolute path", "write /var/lock/oscr, and mount it");
        }
        let words = [("job", Some(LockScope::Job)), ("listener", Some(LockScope::Listener))];
        let scope = reader.choice("OSCR_LOCK_SCOPE", &words, None);
        let timeout = reader.optional_duration("OSCR_LOCK_TIMEOUT");
        let idle = reader.duration("OSCR_LOCK_IDLE", Duration::from_secs(60));
        let hook_timeout = reader.duration("OSCR_LOCK_HOOK_TIMEOUT", Duration::from_secs(60));
        let tell = reader.choice("OSCR_LOCK_TELL", &[("owner", Tell::Owner), ("all", Tell::All)], Tell::Owner);
        let allow_nfs = reader.flag("OSCR_LOCK_ALLOW_NFS").unwrap_or(false);
        let wanted = reader.text("RUNNER_RESOURCE_ID")?;
        let wanted: Wanted = match wanted.parse() {
            Ok(wanted) => wanted,
            Err(error) => {
                let error: WantedError = error;
                reader.problem(
                    "RUNNER_RESOURCE_ID",
                    error.to_string(),
                    "write board-1, or a,b for all of several, or a|b for any",
                );
                return None;
            }
        };
        if wanted.ids().len() > MOST {
            reader.problem("RUNNER_RESOURCE_ID", format!("names more than {} resources", MOST), "name fewer");
        }
        let place = LockPlace { directory, allow_nfs };
        Some(Self { wanted, place, scope, timeout, idle, tell, hook_timeout })
    }
}
