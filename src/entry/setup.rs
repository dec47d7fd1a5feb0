//! The set-up: everything that a life needs, proved and made before it begins.

use std::ffi::OsString;
use std::rc::Rc;

use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;

use super::children::{Children, Starter, attend};
use super::cleaning::Keeper;
use super::gate::Gate;
use super::ground::shared;
use super::hardware::Guard;
use super::incarnation::Incarnation;
use super::judge::{judge, slate};
use super::means::Means;
use super::numbers::{Numbers, count_request};
use super::orders::obey;
use super::outside::Outside;
use super::posture::Posture;
use super::proof::{locks, roots_alone};
use super::registrar::Registrar;
use super::routes::Routes;
use super::space::space;
use super::state::StateFile;
use super::stop::Stop;
use super::{secrets, trust};
use crate::agent::{env, hooks, system_env};
use crate::config::{Common, Environment, Problem, SecretSource};
use crate::control::{self, Board};
use crate::exit;
use crate::init::{Role, Signals, adopt_orphans};
use crate::os::Identity;
use crate::provider::{Configured, Forges, Provider};
use crate::resource::Locks;
use crate::workspace::{Owned, Slate, take_for_root};

/// Everything that can be proved and set up before the first event.
pub(super) struct Prepared {
    pub(super) common: Common,
    provider: Box<dyn Provider>,
    /// The user to become; `None` when we are not root.
    pub(super) identity: Option<Identity>,
    agent_env: Vec<(OsString, OsString)>,
    state: StateFile,
    owned: Owned,
    slate: Slate,
    locks: Option<Locks>,
    board: Board,
    numbers: Numbers,
}

impl Prepared {
    pub(super) fn new(forges: Forges, environment: &Environment, configured: Configured) -> Result<Self, Vec<Problem>> {
        let Configured { common, provider, notes, warnings, .. } = configured;
        let board = Board::new(provider.name(), &provider.scope());
        for note in notes {
            tracing::info!("{note}");
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let judged = judge(forges, environment, &common, provider.as_ref());
        for warning in &judged.warnings {
            tracing::warn!("{warning}");
        }
        let (account, identity) = (judged.account.clone(), judged.identity.clone());
        let mut problems = judged.into_problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        // From here on things are changed. What is still in the way came in between.
        for source in &secrets::given(forges, environment) {
            if let Some(identity) = &identity
                && let Err(problem) = secrets::guard(source, identity)
            {
                problems.push(problem);
            }
        }
        // Before anything is read from them or written into them.
        for place in [common.places.state(), common.places.run()] {
            if let Err(error) = take_for_root(&place) {
                problems.push(Problem::of("image", &error, "give the container the capability CHOWN"));
            }
        }
        let state = StateFile::open(&common.places.state())
            .map_err(|error| {
                problems.push(Problem::of("image", &error, "make that place writable for this container's user"))
            })
            .ok();
        let owned = Owned::take(&common.work_directory)
            .map_err(|error| {
                let cure = "give each container a directory of its own, best none at all: /work inside the container";
                problems.push(Problem::of("RUNNER_WORKDIR", &error, cure));
            })
            .ok();
        let bundle = trust::bundle(&common)
            .map_err(|error| problems.push(Problem::of("OSCR_CA_FILE", &error, "check that it is a readable PEM file")))
            .ok()
            .flatten();
        let shims = hooks::write_shims(&common.places, provider.name())
            .map_err(|error| {
                problems.push(Problem::of("image", &error, "make /run/oscr writable for this container's user"))
            })
            .ok();
        let shared = shared(&common, provider.as_ref());
        problems.extend(shared.into_iter().filter_map(|directory| roots_alone(&directory, identity.as_ref())));
        let locks = locks(&common, identity.as_ref()).map_err(|found| problems.extend(found)).ok().flatten();
        let slate = slate(&common, &account);
        provider.http().observe(count_request);
        let numbers = Numbers::prepare(&common, identity.as_ref(), &mut problems);
        let (Some(state), Some(owned), Some(shims), true) = (state, owned, shims, problems.is_empty()) else {
            return Err(problems);
        };
        let system_file = common.places.system_environment();
        let system = system_env::read(&system_file).unwrap_or_else(|why| {
            tracing::warn!("{} has no effect: {why}", system_file.display());
            Vec::new()
        });
        let agent_env = env::build(&env::Sources {
            environment,
            system: &system,
            account: &account,
            facts: provider.agent(),
            forges,
            job_env: &common.job_env,
            network: &common.network,
            ca_bundle: bundle.as_deref(),
            hooks: Some((&shims.job_started, &shims.job_completed)),
        });
        Ok(Self { common, provider, identity, agent_env, state, owned, slate, locks, board, numbers })
    }

    /// What is weaker here than it could be, once, at start.
    pub(super) fn say_posture(&self, secrets: &[SecretSource]) {
        let sources: Vec<&SecretSource> = secrets.iter().collect();
        let posture = Posture::look(&self.common, &sources, self.identity.as_ref());
        for weakness in &posture.weaknesses {
            tracing::warn!("{weakness}");
        }
        let secrets = sources.into_iter().map(ToString::to_string).collect();
        self.board.set_posture(&posture, secrets, posture.weaknesses.clone());
    }

    pub(super) async fn live(mut self, signals: Signals) -> u8 {
        let children = Children::default();
        let stop = Stop::new(self.common.stop_timeout);
        if adopt_orphans() == Role::Bystander {
            tracing::warn!("not PID 1 and not allowed to be a subreaper: what a job leaves behind may escape");
        }
        let socket = control::socket(&self.common.places);
        let listener = match control::server::bind(&socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!("the control socket {} cannot be made: {error}", socket.display());
                return exit::SOFTWARE;
            }
        };
        let (orders_sender, orders) = unbounded_channel();
        tokio::task::spawn_local(control::server::serve(listener, self.board.clone(), orders_sender));
        self.board.set_space(space(&self.common));
        self.numbers.start(&self.board);
        let starter =
            Starter::new(children.clone(), self.identity, self.agent_env, self.provider.agent(), self.common.sudo);
        let guard = self.common.hardware.clone().zip(self.locks).map(|(hardware, locks)| {
            Rc::new(Guard::new(hardware, locks, starter.clone(), &self.common.places, self.board.clone()))
        });
        let outside = Outside::of(&self.common, &*self.provider, &self.slate, starter.identity.as_ref());
        let means = Rc::new(Means {
            common: self.common,
            provider: Rc::from(self.provider),
            starter,
            agent: self.slate.agent.clone(),
            board: self.board.clone(),
            stop: stop.clone(),
            numbers: self.numbers,
            routes: Routes::read(),
            born: Instant::now(),
        });
        let registrar = Registrar::new(Rc::clone(&means), self.state);
        let (hooked, hooks) = unbounded_channel();
        tokio::task::spawn_local(obey(orders, self.board, stop.clone(), hooked));
        let keeper = Keeper::new(Rc::clone(&means), self.slate, outside);
        let gate = Gate::new(Rc::clone(&means), guard, hooks);
        let incarnation = Incarnation::new(means, registrar, keeper, gate);
        let _owned = self.owned;
        tokio::select! {
            code = incarnation.live() => code,
            fault = attend(signals, children, stop) => {
                // The loop ends only when the kernel takes the signal descriptor away from us.
                tracing::error!("signals cannot be read any more: {fault:?}");
                exit::SOFTWARE
            }
        }
    }
}
