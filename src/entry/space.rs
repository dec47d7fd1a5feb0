//! Disk space for a job: where it is needed, and waiting until there is enough.

use std::time::Duration;

use tokio::time::sleep;

use super::means::Means;
use super::stop::Urgency;
use crate::config::Common;
use crate::control::Phase;
use crate::workspace::Space;

/// How often the disk is looked at while there is too little space for a job.
const LOOK_FOR_SPACE: Duration = Duration::from_secs(5);

/// Where jobs need disk space.
pub(super) fn space(common: &Common) -> Space {
    let [temporary, ..] = common.places.temporary();
    Space::new(common.min_free, &common.work_directory, [common.places.agent_directories(), temporary])
}

/// Waits until there is disk space for a job. `false` when asked to stop before.
pub(super) async fn enough_space(means: &Means) -> bool {
    let mut full = false;
    while let Some(why) = means.board.shortage() {
        let why = format!("no job is taken: {why}");
        means.board.waits(&why, LOOK_FOR_SPACE);
        means.board.keep_reason(Phase::Full, &why);
        if !std::mem::replace(&mut full, true) {
            means.board.enter(Phase::Full);
            tracing::error!("{why}");
        }
        tokio::select! {
            () = sleep(LOOK_FOR_SPACE) => {}
            () = means.stop.reached(Urgency::Finish) => return false,
        }
    }
    means.board.drop_reason(Phase::Full);
    if full {
        tracing::info!("there is enough disk space again");
    }
    true
}
