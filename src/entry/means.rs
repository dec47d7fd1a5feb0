//! What every part of a life works with and none of them owns.

use std::rc::Rc;

use tokio::time::Instant;

use super::children::Starter;
use super::in_use::InUse;
use super::numbers::Numbers;
use super::routes::Routes;
use super::state::StateFile;
use super::stop::Stop;
use crate::config::Common;
use crate::control::Board;
use crate::os::Identity;
use crate::provider::Provider;

/// The settings, the forge, the agent, what is shown to others, and requests to stop.
pub(super) struct Means {
    pub(super) common: Common,
    pub(super) provider: Rc<dyn Provider>,
    /// How the agent's processes are started.
    pub(super) starter: Starter,
    /// The agent's user, who may be our own.
    pub(super) agent: Identity,
    pub(super) board: Board,
    pub(super) stop: Stop,
    /// Where metrics go.
    pub(super) numbers: Numbers,
    /// Where this container's network led when this life began.
    pub(super) routes: Routes,
    /// When this life began.
    pub(super) born: Instant,
}

impl Means {
    /// The agent that is run with this state.
    pub(super) fn in_use(&self, state: &StateFile) -> InUse {
        InUse::of(&self.common.places, self.provider.agent().listener, state.content.agent.as_ref())
    }
}
