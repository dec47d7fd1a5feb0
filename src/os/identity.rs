//! The user that a process runs as, and how a child becomes it.

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// The user that a child becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: Uid,
    /// Primary group.
    pub gid: Gid,
    /// All supplementary groups; the parent's are dropped.
    pub groups: Vec<Gid>,
}

/// Groups first and user last: each step needs the privilege that the next one gives up.
pub(super) fn become_user(identity: &Identity) -> nix::Result<()> {
    setgroups(&identity.groups)?;
    setgid(identity.gid)?;
    setuid(identity.uid)
}
