//! The clean slate: places that a job can write are emptied and restored, so that no job finds anything of an earlier one.
//!
//! Deletion works on directory descriptors only: it never follows a link, never crosses a mount, and never leaves the tree
//! that it was given, whatever a job made of it.

mod caches;
mod clean;
pub(crate) mod command;
mod error;
pub(crate) mod evict;
mod marks;
mod origin;
mod owner;
mod pristine;
mod roots;
mod slate;
pub(crate) mod space;
pub(crate) mod sysv;
pub(crate) mod taint;
mod trash;
pub(crate) mod trial;
mod wipe;

pub(crate) use error::SlateError;
pub(crate) use origin::FirstMarks;
pub(crate) use owner::{Owned, could_take, could_take_for_root, take_for_root};
pub(crate) use roots::RootsLock;
pub(crate) use slate::Slate;
pub use space::Space;
pub(crate) use trash::Trash;
pub(crate) use wipe::{Reins, Spare, Wiped, wipe};
