//! The locks of shared hardware as others see them: what can be asked of them, by the names of resources.

use std::fmt;
use std::io;

use super::attempt::{Attempt, AttemptError, Held};
use super::claim::Claim;
use super::directory::{DirectoryError, LockDirectory, LockPlace};
use super::queue::wait_until_free;
use super::survey::Occupancy;
use super::wanted::{ResourceId, Wanted};
use super::watch;
use crate::os::Identity;

/// All locks of one place.
#[derive(Debug, Clone)]
pub struct Locks {
    directory: LockDirectory,
}

impl Locks {
    /// What to do about locks that are exposed.
    pub const CLOSE: &'static str = "on the host, give it to root, with mode 0755 for the directory and 0600 for its files, or to a group that jobs do not have, with 2770 and 0660";

    /// Checks that locks of this place exclude everybody else, in other containers too, and that we can make some.
    ///
    /// # Errors
    /// The reason and the cure.
    pub(crate) fn open(place: &LockPlace) -> Result<Self, DirectoryError> {
        LockDirectory::open(place).map(|directory| Self { directory })
    }

    /// The same for those who make no lock: they need not be able to.
    ///
    /// # Errors
    /// The reason and the cure.
    pub(crate) fn to_look_at(place: &LockPlace) -> Result<Self, DirectoryError> {
        LockDirectory::to_look_at(place).map(|directory| Self { directory })
    }

    /// The same without any check.
    #[must_use]
    pub fn unchecked(place: &LockPlace) -> Self {
        Self { directory: LockDirectory::checked(&place.directory) }
    }

    /// The directory.
    pub(super) fn path(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// In what way `user` could take or free one of these resources without asking, a sentence each; [`Self::CLOSE`] is the cure.
    #[must_use]
    pub(crate) fn exposed_to(&self, user: &Identity, wanted: &Wanted) -> Vec<String> {
        self.directory.exposed_to(user, wanted.ids())
    }

    /// Joins the queues of everything wanted. Does not block.
    ///
    /// # Errors
    /// When a queue cannot be used.
    pub(crate) fn begin(&self, wanted: &Wanted, claim: &Claim) -> Result<Attempt, AttemptError> {
        Attempt::begin(&self.directory, wanted, claim)
    }

    /// Who has a resource and who waits for it.
    #[must_use]
    pub fn look(&self, id: &ResourceId) -> Occupancy {
        Occupancy::of(&self.directory, id)
    }

    /// The resources that somebody has used here.
    ///
    /// # Errors
    /// When that cannot be read.
    pub(crate) fn known(&self) -> io::Result<Vec<ResourceId>> {
        Ok(self.directory.resources()?.into_iter().filter(|id| !id.is_turn()).collect())
    }

    /// Resolves once somebody else waits for something that we hold.
    pub(crate) async fn somebody_waits(&self, held: &Held) {
        watch::somebody_waits(&self.directory, held).await;
    }

    /// Waits until nobody has the resource and nobody waits for it, without joining the queue. Blocks for as long as that takes.
    ///
    /// # Errors
    /// When the queue cannot be used.
    pub(crate) fn wait_until_free(&self, id: &ResourceId) -> Result<(), AttemptError> {
        Ok(wait_until_free(&self.directory, id)?)
    }
}

impl fmt::Display for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.directory.path().display().fmt(f)
    }
}
