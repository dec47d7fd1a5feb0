//! Which jobs may run here.
//!
//! A job is judged in PID 1, before its first step, by what the agent tells its hook: the event, the repository, the ref, and
//! the event's payload as the forge wrote it. Whoever opens a pull request chooses much of that text, so nothing in it is
//! taken for granted: what cannot be read or does not fit together is denied.
//!
//! This is a belt. The fence is at the forge: who may use a runner is for the settings of its repository, organisation
//! and group to say.

mod evidence;
mod judge;
mod pattern;

pub(crate) use evidence::{Evidence, Facts, LARGEST_PAYLOAD, Origin, ReadOrigin, Whose};
pub(crate) use judge::{Denial, Policy};
pub(crate) use pattern::{LONGEST, Pattern};
