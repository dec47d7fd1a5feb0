//! Where the metrics of an incarnation go: an address, a file, and what the next incarnation goes on counting from.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::silent::{PATIENCE, silence};
use super::work::{Work, within};
use crate::config::name::hostname;
use crate::config::{Common, Problem};
use crate::control::Board;
use crate::metrics::{self, MetricsFile, RateLimit};
use crate::os::Identity;
use crate::os::access::{WRITE, may};
use crate::provider::http::Allowance;
use crate::workspace::trial::could_write;

/// The setting that names the file.
const SETTING: &str = "OSCR_METRICS_FILE";

/// How often the file is written at least, so that its age tells whether anybody lives.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// How much time lies between two writes at least.
const CALM: Duration = Duration::from_secs(1);

/// How long it may take before that is said.
const UNREMARKABLE: Duration = Duration::from_secs(5);
/// How long the end waits for it.
const LAST: Duration = Duration::from_secs(1);

/// Where metrics go.
#[derive(Debug)]
pub(super) struct Numbers {
    listener: Option<TcpListener>,
    file: Option<Rc<File>>,
    kept: PathBuf,
    replica: String,
}

/// The file, which one thread at a time changes.
#[derive(Debug)]
struct File {
    file: MetricsFile,
    turn: Semaphore,
}

/// How the file is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// By another one beside it, which goes again.
    Beside,
    /// By writing it.
    Written,
}

/// Proves the file that `setting` means. The error is what is wrong, and the cure.
fn prove(
    setting: &Path,
    replica: &str,
    agent: Option<&Identity>,
    how: Proof,
) -> Result<MetricsFile, (String, &'static str)> {
    let file = MetricsFile::at(setting, replica);
    let directory = file.path().parent().unwrap_or(file.path());
    if agent.is_some_and(|agent| may(agent, directory, WRITE)) {
        let what = format!("{} can be written by the agent's user, and so by every job", directory.display());
        return Err((what, "give that directory to root, with mode 0755"));
    }
    let proved = match how {
        // It is made nowhere but in a directory that is there.
        Proof::Beside => fs::metadata(directory).and_then(|_| could_write(directory)),
        Proof::Written => file.write(""),
    };
    match proved {
        Ok(()) => Ok(file),
        Err(error) => {
            let what = format!("{} cannot be written: {error}", file.path().display());
            Err((what, "mount a directory there that root in the container can write"))
        }
    }
}

/// The same within a time, as a problem.
fn prove_in_time(setting: &Path, agent: Option<&Identity>, how: Proof) -> Result<MetricsFile, Problem> {
    let (place, name, user) = (setting.to_owned(), hostname(), agent.cloned());
    match within(PATIENCE, move || prove(&place, &name, user.as_ref(), how)) {
        Some(proved) => proved.map_err(|(what, cure)| Problem::of(SETTING, what, cure)),
        None => Err(silence(SETTING, setting)),
    }
}

/// The address that metrics are served at, taken.
fn bind(common: &Common) -> Result<Option<TcpListener>, Problem> {
    let Some(address) = common.metrics_address else { return Ok(None) };
    let bound = TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound.map(Some).map_err(|error| {
        let cure = "choose another port; replicas that share the host's network cannot share one";
        Problem::of("OSCR_METRICS_ADDR", format!("{address} cannot be served: {error}"), cure)
    })
}

impl Numbers {
    /// What would be in the way of [`Numbers::prepare`]. The address of a runner that `lives` here is in use by it; a file that is not
    /// to be `written` is not tried.
    pub(super) fn could_prepare(common: &Common, agent: Option<&Identity>, lives: bool, written: bool) -> Vec<Problem> {
        let address = if lives { None } else { bind(common).err() };
        let file = common.metrics_file.as_ref().filter(|_| written);
        let file = file.and_then(|setting| prove_in_time(setting, agent, Proof::Beside).err());
        address.into_iter().chain(file).collect()
    }

    /// Takes the address, proves the file, and goes on counting where the last incarnation ended. `agent` is the user that jobs
    /// run as, if it is another than ours.
    pub(super) fn prepare(common: &Common, agent: Option<&Identity>, problems: &mut Vec<Problem>) -> Self {
        let replica = hostname();
        let listener = bind(common).map_err(|problem| problems.push(problem)).ok().flatten();
        let file = common.metrics_file.as_ref().and_then(|setting| {
            let proved = prove_in_time(setting, agent, Proof::Written);
            proved.map_err(|problem| problems.push(problem)).ok()
        });
        let kept = common.places.state().join("metrics.json");
        metrics::resume(&kept);
        let file = file.map(|file| Rc::new(File { file, turn: Semaphore::new(1) }));
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
            tokio::task::spawn_local(file.write_on_change(board.clone(), self.replica.clone()));
        }
    }

    /// Keeps the counts for the next incarnation.
    pub(super) fn keep(&self) {
        if let Err(error) = metrics::keep(&self.kept) {
            tracing::debug!("the counts cannot be kept: {error}");
        }
    }

    /// The end of the incarnation. The file of one that was stopped goes; another life overwrites it.
    pub(super) async fn end(&self, board: &Board, stopped: bool) {
        self.keep();
        let Some(file) = &self.file else { return };
        let page = (!stopped).then(|| metrics::render(&board.now(&self.replica)));
        if timeout(LAST, file.settle(page)).await.is_err() {
            tracing::warn!("{} does not answer: it stays as it is", file.path().display());
        }
    }
}

/// The HTTP client's observer: counts a request, and shows what the forge says of its limits.
pub(super) fn count_request(code: Option<u16>, left: Option<Allowance>) {
    let limit = left.map(|Allowance { remaining, limit, reset }| RateLimit { remaining, limit, reset });
    metrics::api_request(code, limit);
}

impl File {
    fn path(&self) -> &Path {
        self.file.path()
    }

    /// Does something with it, on a thread: it may lie on a mount whose server does not answer.
    fn begin<T: Send + 'static>(&self, work: impl FnOnce(&MetricsFile) -> T + Send + 'static) -> io::Result<Work<T>> {
        let file = self.file.clone();
        Work::try_begin(move || work(&file))
    }

    /// Writes it until the incarnation ends. One that hangs is waited for, by nobody but this.
    async fn write_on_change(self: Rc<Self>, board: Board, replica: String) {
        let mut watcher = board.watch();
        let mut failing = false;
        loop {
            let Ok(turn) = self.turn.acquire().await else { return };
            let page = metrics::render(&board.now(&replica));
            let written = self.write(page, &mut failing).await;
            drop(turn);
            if let Err(error) = &written
                && !failing
            {
                tracing::warn!("metrics cannot be written to {}: {error}", self.path().display());
            }
            failing = written.is_err();
            sleep(CALM).await;
            // An error would mean that the board is gone, and it is ours.
            let _ = timeout(HEARTBEAT, watcher.changed()).await;
        }
    }

    async fn write(&self, page: String, failing: &mut bool) -> io::Result<()> {
        let mut work = self.begin(move |file| file.write(&page))?;
        if let Ok(written) = timeout(UNREMARKABLE, work.done()).await {
            return written;
        }
        if !std::mem::replace(failing, true) {
            tracing::warn!("metrics cannot be written to {}: it does not answer", self.path().display());
        }
        work.done().await
    }

    /// Writes this page as the last one, or takes the file away. To be waited for no longer than the end may take.
    async fn settle(&self, page: Option<String>) {
        let Ok(_turn) = self.turn.acquire().await else { return };
        // Nobody has another turn.
        self.turn.close();
        let last = self.begin(move |file| match page {
            Some(page) => {
                let _ = file.write(&page);
            }
            None => file.remove(),
        });
        if let Ok(mut last) = last {
            last.done().await;
        }
    }
}
