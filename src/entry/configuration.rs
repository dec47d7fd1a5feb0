//! The files that configure a kept registration: what the forge has its agent change of them is kept too, as long as no job can have
//! written it.

use super::session::{Parts, Session};
use super::state::StateFile;

impl Session<'_> {
    /// Keeps the files as they are now, if no job has begun in this directory yet. A listener that has `ended` has said all that it had
    /// to say.
    pub(super) fn keep_configuration(&mut self, ended: bool) {
        if !self.parts.means.common.persistent || self.job.seen() {
            return;
        }
        let names = self.parts.means.provider.agent().configuration;
        let files = StateFile::configuration(self.directory, names);
        // They were read before a job of which nothing shows even now.
        self.look();
        let announced = self.job.seen() || self.hearing.announces_job();
        if announced || !(ended || self.job.listener_lives()) {
            return;
        }
        let Parts { registrar, .. } = &self.parts;
        if let Err(error) = registrar.state.keep_changes(&files) {
            tracing::warn!("what the agent changed of its configuration is not kept: {error}");
        }
    }
}
