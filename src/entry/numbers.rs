//! Where the metrics of an incarnation go: an address, a file, and what the next incarnation goes on counting from.

use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::config::name::hostname;
use crate::config::{Common, Problem};
use crate::control::Board;
use crate::metrics::{self, MetricsFile, RateLimit};
use crate::os::Identity;
use crate::os::access::{WRITE, may};
use crate::provider::http::Allowance;

/// How often the file is written at least, so that its age tells whether anybody lives.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// How much time lies between two writes at least.
const CALM: Duration = Duration::from_secs(1);

/// Where metrics go.
#[derive(Debug)]
pub(super) struct Numbers {
    listener: Option<TcpListener>,
    file: Option<MetricsFile>,
    kept: PathBuf,
    replica: String,
}

impl Numbers {
    /// Takes the address, proves the file, and goes on counting where the last incarnation ended. `agent` is the user that jobs
    /// run as, if it is another than ours.
    pub(super) fn prepare(common: &Common, agent: Option<&Identity>, problems: &mut Vec<Problem>) -> Self {
        let replica = hostname();
        let mut problem = |setting: &str, what: String, cure: &str| {
            problems.push(Problem::of(setting, what, cure));
        };
        let listener = common.metrics_address.and_then(|address| {
            let bound = TcpListener::bind(address)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
                .map_err(|error| {
                    let cure = "choose another port; replicas that share the host's network cannot share one";
                    problem("OSCR_METRICS_ADDR", format!("{address} cannot be served: {error}"), cure);
                });
            bound.ok()
        });
        let file = common.metrics_file.as_ref().map(|setting| MetricsFile::at(setting, &replica));
        if let Some(file) = &file {
            let directory = file.path().parent().unwrap_or(file.path());
            if agent.is_some_and(|agent| may(agent, directory, WRITE)) {
                let what = format!("{} can be written by the agent's user, and so by every job", directory.display());
                problem("OSCR_METRICS_FILE", what, "give that directory to root, with mode 0755");
            } else if let Err(error) = file.write("") {
                let what = format!("{} cannot be written: {error}", file.path().display());
                problem("OSCR_METRICS_FILE", what, "mount a directory there that root in the container can write");
            }
        }
        let kept = common.places.state().join("metrics.json");
        metrics::resume(&kept);
        Self { listener, file, kept, replica }
    }

    /// Serves and writes from now on.
    pub(super) fn start(&mut self, board: &Board) {
        if let Some(listener) = self.listener.take() {
            let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    tracing::info!("metrics are served at http://{address}/metrics");
                    let (board, replica) = (board.clone(), self.replica.clone());
                    let page = move || metrics::render(&board.now(&replica));
                    tokio::task::spawn_local(metrics::serve(listener, Rc::new(page)));
                }
                Err(error) => tracing::error!("metrics cannot be served at {address}: {error}"),
            }
        }
        if let Some(file) = self.file.clone() {
            tracing::info!("metrics are written to {}", file.path().display());
            tokio::task::spawn_local(write_on_change(file, board.clone(), self.replica.clone()));
        }
    }

    /// Keeps the counts for the next incarnation.
    pub(super) fn keep(&self) {
        if let Err(error) = metrics::keep(&self.kept) {
            tracing::debug!("the counts cannot be kept: {error}");
        }
    }

    /// The end of the incarnation. The file of one that was stopped goes; another life overwrites it.
    pub(super) fn end(&self, board: &Board, stopped: bool) {
        self.keep();
        match &self.file {
            Some(file) if stopped => file.remove(),
            Some(file) => {
                let _ = file.write(&metrics::render(&board.now(&self.replica)));
            }
            None => {}
        }
    }
}

/// The HTTP client's observer: counts a request, and shows what the forge says of its limits.
pub(super) fn count_request(code: Option<u16>, left: Option<Allowance>) {
    let limit = left.map(|Allowance { remaining, limit, reset }| RateLimit { remaining, limit, reset });
    metrics::api_request(code, limit);
}

async fn write_on_change(file: MetricsFile, board: Board, replica: String) {
    let mut watcher = board.watch();
    let mut failing = false;
    loop {
        let written = file.write(&metrics::render(&board.now(&replica)));
        if let Err(error) = &written
            && !failing
        {
            tracing::warn!("metrics cannot be written to {}: {error}", file.path().display());
        }
        failing = written.is_err();
        sleep(CALM).await;
        // An error would mean that the board is gone, and it is ours.
        let _ = timeout(HEARTBEAT, watcher.changed()).await;
    }
}
