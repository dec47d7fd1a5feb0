//! A network that has no way out any more, and does not get one back: that of a container which shares it with another one that
//! was started anew. Only a restart of this container mends that.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};

use super::means::Means;
use super::routes::Routes;
use super::state::StateFile;
use crate::config::Watch;
use crate::encode::seconds;

/// For how long all requests must have failed.
const SILENCE: Duration = Duration::from_secs(5 * 60);
/// How often the network is looked at after that.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(60);
/// No container leaves for its network more often, in seconds.
const PAUSE: u64 = 30 * 60;

/// When the network of a listener is looked at.
#[derive(Debug, Default)]
pub(super) struct WayOut {
    pub(super) at: Option<Instant>,
}

impl WayOut {
    /// Resolves when the network should be looked at; never while requests are answered.
    pub(super) async fn time_to_look(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// For how long all requests must have failed, where the forge is asked by these settings.
pub(super) fn patience(watch: &Watch) -> Duration {
    watch.interval.map_or(SILENCE, |interval| SILENCE.min(interval / 2))
}

/// Whether nobody has answered for as long as it takes, the network has no way out, and this container has not left for that of
/// late. That it is about to is kept.
pub(super) fn leaves_for_network(means: &Means, state: &mut StateFile) -> bool {
    let silent = means.provider.http().silent_since().map(|since| since.elapsed()).unwrap_or_default();
    if silent < patience(&means.common.watch) || silent.is_zero() || !Routes::read().is_lost_since(means.routes) {
        return false;
    }
    let now = seconds(SystemTime::now());
    if state.content.left_for_network.is_some_and(|last| now.abs_diff(last) < PAUSE) {
        tracing::debug!("the network has no way out, but this container has left for that a short while ago");
        return false;
    }
    state.content.left_for_network = Some(now);
    state.save_or_warn();
    tracing::error!(
        "nobody has answered for {}, and this container's network has no way out any more: leaving (75), so that a restart \
         gives it another. A container that shares another one's network loses it when that one is started anew",
        humantime::format_duration(Duration::from_secs(silent.as_secs()))
    );
    true
}
