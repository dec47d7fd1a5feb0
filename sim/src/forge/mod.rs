//! The simulated forge: GitHub's and Azure DevOps' endpoints for runners and agents, their queue, a control plane, and
//! faults to order.
//!
//! One port serves everything: GitHub's REST API at `/` and at `/api/v3`, what its runner speaks (see `wire`), Azure DevOps and its
//! agents below `/{organisation}/_apis/`, the directory of service principals at `/{tenant}/oauth2/v2.0/token`, the packages of agents,
//! the control plane below `/_sim/`, and in it the side channel to the stand-in agents (see [`crate::protocol`]). [`Forge::start`] runs
//! it in the calling process, on a thread of its own; the handle's methods are synchronous, so that plain tests use them.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

mod agents;
mod api;
pub mod app;
mod azure;
mod containers;
pub mod contract;
mod control;
mod faults;
mod gate;
mod log;
mod orders;
mod packages;
mod renamed;
mod scope;
mod secrets;
mod side;
mod state;
mod wire;

pub use containers::ContainerSpec;
pub use faults::{Cut, Fault, Match};
pub use orders::{
    ListenerExit, ListenerTrouble, LostAssignments, Orders, PackageFault, Refresh, Refusals, Removal, ServicePrincipal,
};
pub(crate) use packages::AGENT_DIR;
pub use scope::Scope;
pub(crate) use state::event_line;
pub use state::{Capabilities, Event, Job, JobSpec, JobStatus, Label, RequestRecord, RunnerView, Snapshot};
pub(crate) use wire::runner_key;

use crate::patience::patient;
use state::{Registration, State};

/// A random name for files and processes.
pub(crate) fn random_id() -> String {
    state::random_token(16).to_lowercase()
}

/// The personal access token that is valid when no other is named.
pub const DEFAULT_PAT: &str = "ghp_simulated0000000000000000000000000000";

/// How a forge starts.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The orders in force from the start. Without a token in `pats`, [`DEFAULT_PAT`] is valid.
    pub orders: Orders,
    /// Print one line per event on standard output.
    pub echo: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 0)), orders: Orders::default(), echo: false }
    }
}

/// State, and the two ways to wait for its changes: tasks by the channel, threads by the condition variable.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    changed_sync: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks without waking anybody.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the state, draws the consequences, wakes all who wait.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        state.settle();
        drop(state);
        self.changed.send_modify(|version| *version += 1);
        self.changed_sync.notify_all();
        result
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits, in a task, until `ready` gives something or the time is over.
    pub(crate) async fn wait_for<T>(&self, timeout: Duration, mut ready: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let deadline = tokio::time::Instant::now() + timeout;
        let mut changes = self.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(found) = self.read(&mut ready) {
                return Some(found);
            }
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }
}

/// A simulated forge. See [`Forge::start`].
#[derive(Debug)]
pub struct Forge;

impl Forge {
    /// Starts a forge on a thread of its own.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    pub fn start(mut options: Options) -> io::Result<ForgeHandle> {
        if options.orders.pats.is_empty() {
            options.orders.pats.push(DEFAULT_PAT.into());
        }
        let shared = Arc::new(Shared {
            state: Mutex::new(State { orders: options.orders, echo: options.echo, ..State::default() }),
            changed: watch::Sender::new(0),
            changed_sync: Condvar::new(),
        });
        let server = Server::start(&shared, options.listen)?;
        Ok(ForgeHandle { address: server.address, shared, server: Mutex::new(Some(server)) })
    }

    /// Starts one at port 80 of a loopback address that it has alone, so that its URL names no port: GitHub's runner drops one.
    ///
    /// # Errors
    ///
    /// When we may not have that port, or somebody has it at all addresses.
    pub fn start_at_port_80() -> io::Result<ForgeHandle> {
        let mut tries = 0..100;
        loop {
            let [a, b, c, ..] = RandomState::new().hash_one(()).to_ne_bytes();
            let listen = SocketAddr::from(([127, a.max(1), b, c.clamp(1, 254)], 80));
            match Self::start(Options { listen, ..Options::default() }) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries.next().is_some() => {}
                started => return started,
            }
        }
    }
}

/// The thread that serves; gone with the value.
#[derive(Debug)]
struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(shared: &Arc<Shared>, listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("forge".into()).spawn(move || {
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("the socket is non-blocking");
                tokio::select! {
                    () = gate::serve(&shared, listener) => {}
                    () = tick(&shared) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}

/// Lets leases and silent sessions run out.
async fn tick(shared: &Shared) {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        shared.change(|_| ());
    }
}

/// A running forge. It ends with the value.
#[derive(Debug)]
pub struct ForgeHandle {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: Mutex<Option<Server>>,
}

impl ForgeHandle {
    /// `http://127.0.0.1:PORT`; port 80 is not named.
    #[must_use]
    pub fn url(&self) -> String {
        match self.address.port() {
            80 => format!("http://{}", self.address.ip()),
            _ => format!("http://{}", self.address),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The first valid personal access token.
    #[must_use]
    pub fn pat(&self) -> String {
        self.shared.read(|s| s.orders.pats.first().cloned().unwrap_or_default())
    }

    /// All tokens that were ever given out: for registrations, removals, to an App, and to service principals.
    #[must_use]
    pub fn issued(&self) -> Vec<String> {
        self.shared
            .read(|s| s.tokens.keys().chain(s.app_tokens.keys()).chain(s.access_tokens.keys()).cloned().collect())
    }

    /// Stops listening and drops all connections; what the forge knows stays.
    pub fn go_down(&self) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(server);
    }

    /// Listens again, at the same address.
    ///
    /// # Errors
    ///
    /// When the address was taken meanwhile, for longer than a process that another thread is just starting keeps a copy of the
    /// old socket.
    pub fn come_back(&self) -> io::Result<()> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let given_up = Instant::now() + Duration::from_secs(10);
        while server.is_none() {
            match Server::start(&self.shared, self.address) {
                Ok(started) => *server = Some(started),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < given_up => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Changes the orders.
    pub fn order(&self, change: impl FnOnce(&mut Orders)) {
        self.shared.change(|s| change(&mut s.orders));
    }

    /// The orders in force.
    #[must_use]
    pub fn orders(&self) -> Orders {
        self.shared.read(|s| s.orders.clone())
    }

    /// Gives a repository or an organisation (`repos/o/r`, `orgs/o`; of Azure DevOps `o`) another name. Its runners stay.
    pub fn rename(&self, old: &str, new: &str) {
        self.shared.change(|s| {
            s.orders.renamed.insert(old.to_owned(), new.to_owned());
            for runner in s.runners.values_mut() {
                match (&mut runner.scope, Scope::parse(new)) {
                    (Scope::Pool(organization, _), _) if organization == old => new.clone_into(organization),
                    (scope, Some(renamed)) if scope.to_string() == old => *scope = renamed,
                    _ => {}
                }
            }
        });
    }

    /// Adds a fault; the first that matches a request is the one that it meets.
    pub fn add_fault(&self, fault: Fault) {
        self.shared.change(|s| s.faults.push(fault));
    }

    /// Takes all faults away.
    pub fn clear_faults(&self) {
        self.shared.change(|s| s.faults.clear());
    }

    /// Queues a job and gives its id.
    #[must_use]
    pub fn submit(&self, spec: JobSpec) -> u64 {
        self.shared.change(|s| s.submit(spec))
    }

    /// Cancels a job as a user would. False when there is none of that id.
    pub fn cancel_job(&self, id: u64) -> bool {
        self.shared.change(|s| s.cancel(id))
    }

    /// A job.
    #[must_use]
    pub fn job(&self, id: u64) -> Option<Job> {
        self.shared.read(|s| s.jobs.get(&id).cloned())
    }

    /// All jobs.
    #[must_use]
    pub fn jobs(&self) -> Vec<Job> {
        self.snapshot().jobs
    }

    /// All registrations.
    #[must_use]
    pub fn runners(&self) -> Vec<RunnerView> {
        self.snapshot().runners
    }

    /// All requests since the start or the last [`Self::clear_requests`].
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.snapshot().requests
    }

    /// The requests that did not come from an agent, a stand-in or GitHub's own.
    #[must_use]
    pub fn api_requests(&self) -> Vec<RequestRecord> {
        self.requests().into_iter().filter(|r| !r.agent).collect()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.shared.change(|s| s.requests.clear());
    }

    /// All events.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.snapshot().events
    }

    /// Where a request or an answer broke GitHub's OpenAPI description, a request broke Azure DevOps' reference, or a secret
    /// came where none belongs. Answers that a fault made are not counted.
    #[must_use]
    pub fn contract_violations(&self) -> Vec<String> {
        self.shared.read(|s| s.violations.clone())
    }

    /// Everything at once.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.read(State::snapshot)
    }

    /// Plants a registration without an agent, as a predecessor may have left it.
    #[must_use]
    pub fn plant_runner(&self, scope: &Scope, name: &str, ephemeral: bool) -> u64 {
        let ask = Registration { name: name.into(), ephemeral, ..Registration::default() };
        let labels = ["self-hosted".into(), "Linux".into(), "X64".into()];
        self.shared.change(|s| s.add_runner(scope.clone(), &labels, &ask))
    }

    /// Plants an agent of a pool, so many hours old, with these user capabilities.
    #[must_use]
    pub fn plant_agent(&self, pool: &Scope, name: &str, hours: i64, user: &[(&str, &str)]) -> u64 {
        let id = self.plant_runner(pool, name, false);
        self.shared.change(|s| {
            if let Some(runner) = s.runners.get_mut(&id) {
                runner.created -= jiff::SignedDuration::from_hours(hours);
                let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
                runner.capabilities.user = user.iter().map(pair).collect();
            }
        });
        id
    }

    /// Takes a registration away as an administrator would, busy or not.
    pub fn unregister(&self, id: u64) {
        self.shared.change(|s| s.unregister(id, "removed by an administrator"));
    }

    /// Gives a runner up at once, as after a silence that was too long: its session is over, and its job is abandoned, or
    /// offered anew if it was not begun. False when there is none of that id.
    pub fn let_go(&self, id: u64) -> bool {
        self.shared.change(|s| s.let_go(id))
    }

    /// Waits until the state is as wanted; none when the time, as long as this machine needs it, is over.
    #[must_use]
    pub fn try_wait(&self, timeout: Duration, ready: impl Fn(&Snapshot) -> bool) -> Option<Snapshot> {
        let deadline = Instant::now() + patient(timeout);
        let mut state = self.shared.lock();
        loop {
            let snapshot = state.snapshot();
            if ready(&snapshot) {
                return Some(snapshot);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.shared.changed_sync.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the state is as wanted.
    ///
    /// # Panics
    ///
    /// When the time is over, with what the forge saw.
    #[track_caller]
    pub fn wait(&self, what: &str, timeout: Duration, ready: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let Some(snapshot) = self.try_wait(timeout, ready) else {
            let seen = self.snapshot();
            let events: Vec<String> = seen.events.iter().map(state::event_line).collect();
            let requests: Vec<String> =
                seen.requests.iter().map(|r| format!("{} {} {:?}", r.method, r.path, r.status)).collect();
            panic!(
                "not within {timeout:?}: {what}\nevents:\n  {}\nrequests:\n  {}\nrunners: {:#?}",
                events.join("\n  "),
                requests.join("\n  "),
                seen.runners
            );
        };
        snapshot
    }

    /// Waits until a job is over.
    ///
    /// # Panics
    ///
    /// When the time is over or there is no such job.
    #[track_caller]
    pub fn wait_job(&self, id: u64, timeout: Duration) -> Job {
        let done = |s: &Snapshot| s.jobs.iter().any(|j| j.id == id && j.status == JobStatus::Completed);
        let snapshot = self.wait(&format!("job {id} is over"), timeout, done);
        snapshot.jobs.into_iter().find(|j| j.id == id).expect("it was there a moment ago")
    }

    /// Waits until so many runners listen and are idle; gives them.
    ///
    /// # Panics
    ///
    /// When the time is over.
    #[track_caller]
    pub fn wait_idle(&self, count: usize, timeout: Duration) -> Vec<RunnerView> {
        let idle = |r: &&RunnerView| r.status == "online" && !r.busy;
        let enough = |s: &Snapshot| s.runners.iter().filter(idle).count() == count;
        let snapshot = self.wait(&format!("{count} idle runners"), timeout, enough);
        snapshot.runners.into_iter().filter(|r| idle(&r)).collect()
    }
}
