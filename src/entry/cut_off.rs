//! An idle listener that is cut off: when its network is looked at, and its end where only a restart of the container helps.

use std::ops::ControlFlow;

use tokio::time::Instant;

use super::ending::Why;
use super::means::Means;
use super::session::Session;
use super::way_out::{LOOK_EVERY, leaves_for_network, patience};
use crate::init::Ended;

impl Session<'_> {
    /// The forge was asked, or could not be.
    pub(super) fn note_silence(&mut self) {
        let Means { common, provider, .. } = self.parts.means;
        let since = provider.http().silent_since().filter(|_| self.watchdog.is_cut_off());
        self.way_out.at = since.map(|since| self.way_out.at.unwrap_or(since + patience(&common.watch)));
    }

    /// Ends an idle listener whose network has no way out: nobody can be asked first, and no job can come.
    pub(super) async fn look_for_way_out(&mut self) -> ControlFlow<Ended> {
        self.way_out.at = None;
        if !self.watchdog.is_cut_off() || self.job.runs_after_all(&mut self.hearing) {
            return ControlFlow::Continue(());
        }
        if !leaves_for_network(self.parts.means, &mut self.parts.registrar.state) {
            self.way_out.at = Some(Instant::now() + LOOK_EVERY);
            return ControlFlow::Continue(());
        }
        self.retirement.why = Some(Why::CutOff);
        self.interrupted = true;
        self.interrupt().await
    }
}
