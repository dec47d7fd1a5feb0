//! What is said of a holder to those who may not open its ticket.

use serde::{Deserialize, Serialize};

use super::claim::Claim;

/// The content of a file of its own, because who can open a ticket can hold it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ShownHolder {
    /// The inode of the ticket that it is about.
    pub ticket: u64,
    /// Who has it.
    pub claim: Claim,
}
