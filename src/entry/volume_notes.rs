//! Noting the anonymous volumes of a job's containers while the job runs.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::docker::{Docker, DockerError, Label};

/// Between two connections to Docker, at first and at most.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_LAST: Duration = Duration::from_secs(30);
/// How long what it is told last may take to be looked at.
const END: Duration = Duration::from_secs(2);

/// A connection to Docker that tells of the containers that a job is given.
pub(super) struct VolumeNotes {
    volumes: UnboundedReceiver<String>,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl VolumeNotes {
    pub(super) fn begin(docker: Docker, label: Label) -> Self {
        let (sender, volumes) = unbounded_channel();
        let (end, mut ended) = oneshot::channel();
        let task = tokio::task::spawn_local(async move {
            let mut wait = AGAIN;
            loop {
                let tell = |volume| drop(sender.send(volume));
                match docker.follow_volumes(&label, &mut ended, tell).await {
                    Ok(true) => return,
                    Err(refused @ DockerError::Refused { .. }) => {
                        tracing::warn!(
                            "anonymous volumes of this job's containers stay, because they are not told of: {refused}"
                        );
                        return;
                    }
                    Err(silent) => tracing::debug!("containers of this job are asked for again: {silent}"),
                    Ok(false) => tracing::debug!("containers of this job are asked for again: Docker hung up"),
                }
                tokio::select! {
                    () = sleep(wait) => {}
                    _ = &mut ended => return,
                }
                wait = (wait * 2).min(AGAIN_LAST);
            }
        });
        Self { volumes, end, task }
    }

    /// The next volume; never, once nothing more is told.
    pub(super) async fn next(&mut self) -> String {
        match self.volumes.recv().await {
            Some(volume) => volume,
            None => std::future::pending().await,
        }
    }

    /// The job is over: what was told of until now, and not yet taken.
    pub(super) async fn end(mut self) -> Vec<String> {
        let _ = self.end.send(());
        if timeout(END, &mut self.task).await.is_err() {
            self.task.abort();
        }
        let mut last = Vec::new();
        while let Ok(volume) = self.volumes.try_recv() {
            last.push(volume);
        }
        last
    }
}
