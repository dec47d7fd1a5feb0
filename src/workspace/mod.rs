//! The clean slate: places that a job can write are emptied and restored, so that no job finds anything of an earlier one.
//!
//! Deletion works on directory descriptors only: it never follows a link, never crosses a mount, and never leaves the tree
//! that it was given, whatever a job made of it.

mod caches;
mod clean;
pub mod command;
mod error;
pub mod evict;
pub mod ipc;
mod marks;
mod origin;
mod owner;
mod pristine;
mod slate;
pub mod space;
pub mod taint;
mod trash;
mod wipe;

pub use error::SlateError;
pub use origin::Origin;
pub use owner::{Owned, OwnerError, take_for_root};
pub use slate::Slate;
pub use space::Space;
pub use trash::Trash;
pub use wipe::{Reins, Spare, Wiped, wipe};
