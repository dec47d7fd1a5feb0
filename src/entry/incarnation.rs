//! The story of an incarnation, in order: clean slate, register, listen, job, unregister, clean slate, exit.
//!
//! Every phase can be cut short by a request to stop, and none of them loses what it holds: the state file knows of each
//! registration before the forge does.

use std::rc::Rc;

use tokio::time::{sleep, sleep_until};

use super::backoff::Backoff;
use super::cleaning::Keeper;
use super::docker::JobsDocker;
use super::ending::{Ending, Why};
use super::gate::Gate;
use super::listening::listen;
use super::means::Means;
use super::patience::Patience;
use super::registering::Ready;
use super::registrar::Registrar;
use super::session::Parts;
use super::space::enough_space;
use super::stop::Urgency;
use super::teardown::end_processes;
use super::update::Update;
use crate::control::Phase;
use crate::exit;

/// One life of the container.
pub(super) struct Incarnation {
    means: Rc<Means>,
    registrar: Registrar,
    patience: Patience,
    keeper: Keeper,
    /// The Docker that jobs use.
    docker: JobsDocker,
    gate: Gate,
    /// What is going on about a newer agent.
    update: Update,
}

impl Incarnation {
    pub(super) fn new(means: Rc<Means>, mut registrar: Registrar, mut keeper: Keeper, gate: Gate) -> Self {
        let patience = Patience::new(Rc::clone(&means), &registrar.state);
        let docker = JobsDocker::new(Rc::clone(&means));
        let update = Update::new(Rc::clone(&means));
        update.take_up(&mut registrar.state, &mut keeper.outside);
        Self { means, registrar, patience, keeper, docker, gate, update }
    }

    /// Lives, and returns the exit code.
    pub(super) async fn live(mut self) -> u8 {
        self.greet();
        self.keeper.outside.begin();
        self.spread_start().await;
        let code = self.take_jobs().await;
        self.leave().await;
        code
    }

    /// Until there is a reason to leave.
    async fn take_jobs(&mut self) -> u8 {
        let Self { means, registrar, patience, keeper, docker, gate, update } = self;
        loop {
            let clean = keeper.clean(patience, &mut registrar.state).await;
            if !keeper.owes_report() {
                registrar.forget_job();
            }
            if !clean || !enough_space(means).await {
                return exit::DONE;
            }
            if !docker.before_listening(patience, &mut registrar.state).await {
                return exit::DONE;
            }
            update.before_registering(&mut registrar.state, &mut keeper.outside).await;
            if !gate.before_listening(patience, &mut registrar.state).await {
                return exit::DONE;
            }
            let Some(Ready { directory, run }) = registrar.register(patience).await else {
                gate.release().await;
                return if registrar.cut_off { exit::TEMPORARY } else { exit::DONE };
            };
            docker.remember_label(&directory, &mut registrar.state);
            let ending = match keeper.knows_outside().await {
                Ok(()) => {
                    let parts = Parts { means, registrar, patience, keeper, docker, gate, update };
                    listen(parts, &directory, run).await
                }
                Err(why) => Ending::Stopped(why),
            };
            docker.stop_engine(&mut registrar.state).await;
            end_processes(&[]).await;
            gate.release().await;
            docker.sweep(&mut registrar.state).await;
            means.board.set_job(None);
            // Cleaning comes next then, and nothing else asks for what is outside.
            if matches!(ending, Ending::JobDone { .. }) {
                keeper.outside.look_ahead();
            }
            registrar.unregister(&directory, &ending).await;
            patience.hear_of(&ending);
            match ending {
                Ending::JobDone { .. } if means.common.persistent && means.stop.urgency() == Urgency::None => {
                    patience.forget_failures(&mut registrar.state);
                }
                Ending::JobDone { .. } => {
                    patience.forget_failures(&mut registrar.state);
                    registrar.state.content.alone = means.stop.urgency() == Urgency::None;
                    return exit::DONE;
                }
                Ending::JobBroken(why) => {
                    tracing::error!("the job was lost: {why}");
                    return exit::TEMPORARY;
                }
                Ending::Stopped(Why::Yield) => {
                    tracing::info!("gave the hardware to somebody who waits; joining the queue again");
                }
                // Waited out before anything else is asked for.
                Ending::Stopped(Why::Full | Why::Unclean) => {}
                Ending::Stopped(Why::Update) => tracing::info!("registering again, with the newer agent"),
                Ending::Stopped(Why::Idle) => {
                    patience.forget_failures(&mut registrar.state);
                    return exit::DONE;
                }
                Ending::Stopped(Why::Asked) => return exit::DONE,
                Ending::Stopped(Why::CutOff) => return exit::TEMPORARY,
                Ending::Stopped(Why::Replace(why)) | Ending::Lost(why) | Ending::Again(why) => {
                    let wait = patience.backoff.after_fault();
                    patience.wait_out(&mut registrar.state, Phase::BackingOff, &why, wait).await;
                }
                Ending::Refused { what, causes } => {
                    patience.wait_out_refusal(&mut registrar.state, &what, causes).await;
                }
                Ending::Outdated(why) => {
                    means.board.keep_reason(Phase::Outdated, &why);
                    let cure = match update.another_version(&mut registrar.state, &mut keeper.outside).await {
                        Ok(version) => {
                            tracing::warn!("{why}: going on with version {version}, which was fetched");
                            continue;
                        }
                        Err(cure) => cure,
                    };
                    let wait = patience.backoff.after_denial();
                    let trouble = format!("{why}; {cure}");
                    patience.wait_out(&mut registrar.state, Phase::Outdated, &trouble, wait).await;
                }
                Ending::Fatal(why) => {
                    let wait = patience.backoff.after_denial();
                    patience.wait_out(&mut registrar.state, Phase::Denied, &why, wait).await;
                }
            }
        }
    }

    fn greet(&self) {
        let Means { common, provider, .. } = &*self.means;
        tracing::info!(
            "oscr-entry {} starts a {} for {}",
            env!("CARGO_PKG_VERSION"),
            provider.agent().title,
            provider.scope()
        );
        // The drain, the cancelled job, its registration, an earlier one's; killing and wiping.
        let needed = (common.stop_timeout + common.kill_timeout * 3).as_secs() + 20;
        tracing::info!(
            "when this container is stopped, a running job gets {} to finish: Docker must allow for it \
             (stop_grace_period: {needed}s, docker stop -t {needed})",
            humantime::format_duration(common.stop_timeout),
        );
    }

    /// Containers that were started together would ask the forge together. One that comes back after its job is alone.
    async fn spread_start(&mut self) {
        let state = &mut self.registrar.state;
        // Written down with the registration, before its first request.
        if std::mem::take(&mut state.content.alone) {
            return;
        }
        let wait = Backoff::jitter(self.means.common.start_jitter);
        tracing::debug!("waiting {} ms, in case others start with us (OSCR_START_JITTER)", wait.as_millis());
        tokio::select! {
            () = sleep(wait) => {}
            () = self.means.stop.reached(Urgency::Finish) => {}
        }
    }

    /// The end: nothing registered that could be let go, a clean slate, and the shortest life waited out.
    async fn leave(&mut self) {
        let Self { means, registrar, keeper, docker, .. } = self;
        let Means { board, stop, .. } = &**means;
        docker.stop_engine(&mut registrar.state).await;
        registrar.leave().await;
        keeper.clean_at_last().await;
        registrar.forget_job();
        keeper.outside.stay_tainted(means).await;
        if stop.parks() && !keeper.outside.is_tainted() {
            board.enter(Phase::Drained);
            tracing::info!("drained: no job is taken until this container is stopped");
            stop.signal_came().await;
        }
        board.enter(Phase::Resting);
        if !stop.signalled() {
            tokio::select! {
                () = sleep_until(means.born + means.common.min_uptime) => {}
                () = stop.signal_came() => {}
            }
        }
        keeper.emptier.finish().await;
        means.numbers.end(board, stop.signalled()).await;
        tracing::info!("leaving");
    }
}
