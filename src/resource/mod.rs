//! Shared hardware: one holder at a time, first come, first served, across containers and organisations that share one
//! lock directory of the host.
//!
//! [`Locks`] is all that others see of it: what they ask for has names, and no file. `command` is the same for people and scripts.
//!
//! # The files
//!
//! | file | what it is |
//! | --- | --- |
//! | `<id>.lock` | the lock: a plain `flock(2)` file. Who holds its lock has the resource; `flock(1)` users count like any other |
//! | `<id>.queue/<number>` | a ticket: a waiter's place. Its owner holds an exclusive `flock` on it from before it got its name |
//! | `<id>.queue/.mutex` | held for the moment in which a number is drawn; its content is the last number |
//! | `<id>.holder` | the ticket of the holder, moved here when it got the lock; the lock on it tells a record from a stale one |
//!
//! | `<id>.shown` | what those who may not open a ticket can read of the holder |
//!
//! `<id>.aside-<key>` and the lock `turn-<key>` are of [`aside`]: the protocol knows neither.
//!
//! A ticket's content says who owns it, for people; nothing depends on it. All but what is shown are closed to who may not use the
//! hardware: a file that can be opened, if only for reading, can be locked. They are open to the group of a directory that its
//! group may write.
//!
//! # The protocol
//!
//! 1. Make a ticket under a temporary name and lock it. Under the mutex, sweep what nobody locks, draw the next number,
//!    and give the ticket that name.
//! 2. While there is a ticket with a smaller number: open the one with the largest of those, wait for a shared lock on it,
//!    remove it if its name is still there, and look again.
//! 3. Wait for an exclusive lock on `<id>.lock`. If there is a `<id>.holder`, its owner was killed: wait a moment more, until
//!    the rest of its container is dead too. Move the ticket to `<id>.holder`.
//! 4. To let go: remove `<id>.holder`, close the lock, close the ticket. The kernel does the last two for the dead.
//!
//! # On a full disk
//!
//! A lock needs no room, nor a disk that can be written, and what is only for people must not keep anybody from one. A ticket that cannot be written is an empty
//! one. A number that cannot be written down is taken from the clock in nanoseconds, which lies above all that were
//! counted, so that no number is drawn twice. Where
//! there is no file for the mutex, its directory is. Where no ticket can be made, the wait is for the lock itself, beside the queue, as
//! with `flock(1)`.
//!
//! # Why it cannot deadlock
//!
//! Every wait in step 2 is for a smaller number in the same queue, numbers are drawn under a mutex and never change, so
//! waits form a chain that ends at the smallest number, which waits for nobody but the holder. The holder waits for nobody
//! in this queue. With several resources, all are taken in the order of their names, so a wait is always by a holder of
//! smaller names for a larger one: no cycle. For one of a pool, a waiter waits in several queues but holds nothing while it
//! waits, and the mutex is never held during a wait.
//!
//! # Why no wake-up is lost
//!
//! Every wait is a blocking `flock`: the kernel checks the lock and queues the waiter in one step, so there is no moment
//! between looking and sleeping. What was true before the wait (which ticket is the predecessor) is looked at again after
//! it. A ticket has its lock before it has its name, so a named ticket without a lock is dead, never unborn. A death
//! closes descriptors, which is a release.
//!
//! # Why whoever is asked to give up does
//!
//! It is a thread that waits, and the signal that asks it makes its next call fail, the one that it is in or the one that it is
//! about to make ([`crate::os::interrupt`]). A lock that it won in the same moment belongs to a seat that nobody has any more, and is
//! let go with it. No step but a wait takes long, and the mutex is let go like any lock.

mod aside;
mod attempt;
mod claim;
pub(crate) mod command;
mod directory;
mod locks;
#[cfg(test)]
mod model;
mod mounted;
mod person;
mod queue;
mod sharing;
mod shown;
mod survey;
mod wanted;
mod watch;

pub(crate) use self::wanted::{MOST, Wanted};
pub use self::wanted::{ResourceId, WantedError};
pub use aside::Aside;
pub(crate) use aside::Shelf;
pub(crate) use attempt::{AttemptError, Held, Missing};
pub use claim::{Claim, Tell};
pub use directory::{DirectoryError, LockPlace};
pub use locks::Locks;
pub use survey::{Certainty, Occupancy, Waiting};
