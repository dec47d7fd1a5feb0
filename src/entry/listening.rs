//! Listening: one listener from its start to its end, the job under it, and requests to stop meanwhile.
//!
//! [`Session::next`] waits for what happens and changes nothing; [`Session::handle`] does what it asks for.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::admission::{Objection, turn_away_stranger};
use super::docker::JobsDocker;
use super::ended_by::EndedBy;
use super::ending::{Ending, Past, Why};
use super::hardware::HardwareError;
use super::hearing::Hearing;
use super::means::Means;
use super::report::JobReport;
use super::session::{Event, LOOK_AT_SPACE, Parts, Session};
use super::set_up::{ended_without_hook, reached_hook};
use super::stop::Urgency;
use super::teardown::{end_processes, interrupt};
use super::watchdog::Due;
use crate::agent::words::{Marker, Voice};
use crate::control::server::Hooked;
use crate::control::{HookAnswer, Job, Phase};
use crate::init::Ended;
use crate::metrics::JobResult;
use crate::os::memory;
use crate::provider::{Sign, Step};
use crate::resource::Held;

/// How long the listener may take to end by itself once its only job's worker is gone.
const FAREWELL: Duration = Duration::from_secs(60);
/// The same where it has to tell the forge of the job's end first, and tries again if that fails.
const REPORT: Duration = Duration::from_secs(120);
/// So long after the agent listens for the first time, what was begun beside its start is over.
const SETTLED: Duration = Duration::from_secs(1);
/// A listener that has listened for so long, and has not lost its connection, is well: earlier failures are history.
const WELL_AFTER: Duration = Duration::from_secs(30);
/// After how long they are tried again at most.
const LEFTOVERS_LAST: Duration = Duration::from_secs(60);
/// How long that may keep a job that just comes waiting.
const LOOK_AT_LEFTOVERS: Duration = Duration::from_secs(5);
/// Listens, sees a job through, and obeys requests to stop, until the listener has ended.
pub(super) async fn listen(parts: Parts<'_>, directory: &Path, run: Step) -> Ending {
    let mut starter = parts.means.starter.clone();
    if let Some(held) = &parts.gate.held {
        starter.env.push(("OSCR_RESOURCE".into(), held.names().into()));
    }
    let (listener, markers) = match starter.start(directory, &run, Voice::Listener) {
        Ok(started) => started,
        Err(error) => return Ending::Fatal(error.to_string()),
    };
    // Its secrets have done their work.
    drop(run);
    parts.update.next_step(&mut parts.registrar.state, &parts.keeper.outside);
    let mut session = Session::new(parts, directory, listener, Hearing::new(markers));
    let ended = loop {
        let event = session.next().await;
        if let ControlFlow::Break(ended) = session.handle(event).await {
            break ended;
        }
    };
    session.finish(ended).await
}

impl Session<'_> {
    /// Does what an event asks for. Breaks with the listener's end.
    async fn handle(&mut self, event: Event) -> ControlFlow<Ended> {
        match event {
            Event::Ended(ended) => return ControlFlow::Break(ended),
            Event::Cancel => {
                if self.job.runs() {
                    tracing::warn!("cancelling the running job");
                    self.ends_job(if self.parts.means.stop.timed_out() {
                        EndedBy::StopTimeout
                    } else {
                        EndedBy::Signal
                    });
                }
                self.interrupted = true;
                self.end_wait("the runner was told to stop").await;
                return self.interrupt().await;
            }
            Event::WorkerGone => {
                tracing::info!("the job's worker is gone");
                self.job_over().await;
            }
            Event::Released => {
                self.releasing = None;
                self.parts.means.board.set_resource(None);
            }
            Event::Said(Marker::Sign(Sign::Cancelled, _)) => return self.cancelled().await,
            Event::Said(marker) => self.heard(marker).await,
            Event::Asked(hooked) => return self.asked(*hooked).await,
            Event::Granted(result) => return self.granted(result).await,
            Event::Due(due) => return self.obey_watchdog(due).await,
            Event::Standing(standing) => {
                self.asking = None;
                self.parts.means.provider.rest();
                let doubted = self.watchdog.doubts();
                self.watchdog.told(&standing);
                self.note_silence();
                if doubted && !self.watchdog.doubts() {
                    tracing::info!("the forge sees the agent again");
                    self.parts.means.board.connected();
                }
            }
            Event::Wanted => self.retirement.begin(Why::Yield),
            Event::Look => self.look(),
            Event::WayOut => return self.look_for_way_out().await,
            Event::LookAtStopped => return self.look_at_stopped().await,
            Event::Finish => {
                self.parts.update.halt();
                self.retirement.begin(Why::Asked);
            }
            Event::Retire => return self.retire().await,
            Event::Leftovers => self.look_at_leftovers().await,
            Event::Space => {
                self.space_at = Some(Instant::now() + LOOK_AT_SPACE);
                if let Some(why) = self.parts.means.board.shortage() {
                    tracing::warn!("no job is taken any more: {why}");
                    self.parts.means.board.keep_reason(Phase::Full, &why);
                    self.retirement.begin(Why::Full);
                }
            }
            Event::Emptied(result) => {
                if let Err(error) = self.parts.keeper.emptier.tell(result) {
                    tracing::error!("no job is taken any more: {error}");
                    self.parts.means.board.keep_reason(Phase::Dirty, &error.to_string());
                    self.retirement.begin(Why::Unclean);
                }
            }
            Event::Well => self.proves_well(),
            Event::Volume(volume) => JobsDocker::remember_volume(volume, &mut self.parts.registrar.state),
            Event::Update(turn) => {
                let Parts { registrar, keeper, update, .. } = &mut self.parts;
                if update.take_turn(turn, &mut registrar.state, &mut keeper.outside) {
                    self.retirement.begin(Why::Update);
                }
            }
            Event::Overstays => {
                tracing::warn!("the listener does not end although its job is over: interrupting it");
                return self.interrupt().await;
            }
        }
        ControlFlow::Continue(())
    }

    pub(super) async fn interrupt(&mut self) -> ControlFlow<Ended> {
        self.made_to_end = true;
        ControlFlow::Break(interrupt(self.parts.means, &mut self.listener).await)
    }

    /// The job is to end before its steps are over; the first reason stays.
    pub(super) fn ends_job(&mut self, why: EndedBy) {
        self.ended_by.get_or_insert(why);
    }

    /// A job is there, or must be about to come.
    fn enter_job(&self) {
        self.parts.means.board.enter(if self.retirement.begun() { Phase::Draining } else { Phase::Running });
    }

    /// It works: what went wrong before is over.
    fn proves_well(&mut self) {
        self.well_at = None;
        self.parts.patience.forget_failures(&mut self.parts.registrar.state);
    }

    pub(super) fn job_runs(&mut self) {
        // From now on a job may write to its output.
        self.listener.works(true);
        self.watchdog.running();
        self.stopped.begin();
        self.parts.docker.job_runs();
        self.parts.registrar.is_rightly_busy();
        self.parts.means.board.connected();
        self.proves_well();
        self.parts.registrar.note_job();
    }

    pub(super) fn look(&mut self) {
        if self.job.look() {
            self.job_runs();
        }
    }

    async fn heard(&mut self, marker: Marker) {
        // What is said later may be a job's words; the first of them are its name's.
        let no_job_yet = !self.job.ran() && !self.job.is_named();
        match marker {
            Marker::Sign(sign, words) if no_job_yet => self.heard_sign(sign, &words),
            Marker::Listening if self.job.runs_by_word() => {
                tracing::info!("the job is over: the listener listens again");
                self.job_over().await;
            }
            Marker::Listening if no_job_yet => {
                self.keep_configuration(false);
                self.watchdog.listening();
                if self.connected.is_none() {
                    self.connected = Some(Instant::now());
                    // Nothing wakes an idle runner without need.
                    let failures = self.parts.patience.has_failures(&self.parts.registrar.state);
                    self.well_at = failures.then(|| Instant::now() + WELL_AFTER);
                    self.parts.means.board.connected();
                }
                if !self.job.seen() && !self.retirement.begun() {
                    self.parts.means.board.enter(Phase::Listening);
                    self.yielding.begin();
                    // What led here is the most that a life does until its job, and this is where a runner waits. Not at once: what was
                    // done beside it ends in these moments.
                    tokio::task::spawn_local(async {
                        sleep(SETTLED).await;
                        memory::give_back();
                    });
                }
            }
            Marker::Version(version) if self.connected.is_none() => self.parts.means.board.set_agent(version),
            // Its first is its own, whenever it is read: it stands before all that its job can write.
            Marker::Running(name) if !self.job.is_named() => self.begins(name),
            // The last one counts, which is written once the worker is gone.
            Marker::Completed(job, result) => self.job.completed(job, result),
            Marker::Finished(process, code) => self.job.finished(process, code),
            late => tracing::debug!("is not believed, because a job may have written it: {late:?}"),
        }
    }

    fn heard_sign(&mut self, sign: Sign, words: &str) {
        self.ghosts.heard(sign);
        match sign {
            Sign::Acquiring | Sign::Reconfigured => self.keep_configuration(false),
            Sign::Skipped => self.retirement.passed_over(),
            trouble if trouble.is_trouble() && self.connected.is_none() => {
                self.parts.means.board.cannot_listen(words, Duration::ZERO);
            }
            Sign::Disconnected if !self.job.seen() => self.parts.means.board.disconnected(),
            Sign::Reconnected => self.parts.means.board.connected(),
            Sign::Refused => self.farewell = Some(Instant::now() + FAREWELL),
            Sign::Updating => {
                let Parts { registrar, keeper, update, .. } = &mut self.parts;
                update.urged(&mut registrar.state, &keeper.outside);
            }
            _ => {}
        }
        self.watchdog.heard(sign);
    }

    /// The listener says that it begins a job.
    fn begins(&mut self, name: String) {
        tracing::info!("agent: Running job: {name}");
        self.job.begins(&name);
        self.parts.registrar.use_up();
        self.watchdog.acquiring();
        self.enter_job();
        self.parts.means.board.describe_job(Job { name: Some(name), ..Job::default() });
        self.parts.gate.record(self.parts.registrar.name());
        self.parts.registrar.note_job();
        if self.job.runs_by_word() {
            self.job_runs();
        }
    }

    /// The job is over, and its listener should end too.
    async fn job_over(&mut self) {
        self.admission.give_up();
        self.give_back();
        self.job.ended();
        self.listener.works(false);
        self.watchdog.done();
        // A persistent runner's listener ends after its one job too.
        let patience = if self.parts.means.provider.listener_reports() { REPORT } else { FAREWELL };
        self.farewell = Some(Instant::now() + patience);
        if let Some(guard) = self.parts.gate.guard.clone()
            && let Some(held) = self.parts.gate.held.take()
        {
            // What the job left could still use the hardware, containers in an engine of our own too.
            self.parts.docker.stop_engine(&mut self.parts.registrar.state).await;
            end_processes(&[self.listener.pid]).await;
            self.releasing = Some(Box::pin(async move { guard.release(held).await }));
        }
    }

    /// A job's hook asks whether the job may begin: the policy judges it, then it gets its hardware.
    async fn asked(&mut self, hooked: Hooked) -> ControlFlow<Ended> {
        self.look();
        let ours = self.job.includes(hooked.peer);
        if hooked.failed {
            if ours {
                self.ends_job(EndedBy::Hook);
            }
            let _ = hooked.answers.send(HookAnswer::Go { resource: None });
            return ControlFlow::Continue(());
        }
        if ours || self.job.seen() {
            self.hooked = true;
            reached_hook(&mut self.parts.registrar.state);
        }
        if !ours && self.may_be_the_jobs(&hooked) {
            return self.fail_unknown(hooked).await;
        }
        let Means { common, provider, .. } = self.parts.means;
        match self.admission.judge(&hooked, ours, &common.policy, provider.agent().read_origin()) {
            Ok(()) => {}
            Err(Objection::Stranger) => {
                turn_away_stranger(&hooked);
                return ControlFlow::Continue(());
            }
            Err(Objection::Denied(denial)) => {
                self.parts.registrar.use_up();
                tracing::warn!("the job is not run: {denial}");
                self.ends_job(EndedBy::Policy);
                return self.fail_job(hooked.answers, &hooked.told, format!("this job is not run: {denial}")).await;
            }
        }
        self.job.expect();
        self.parts.registrar.use_up();
        self.enter_job();
        if self.admission.admit(hooked, ours, self.parts.gate, self.parts.registrar.name()) && !self.retirement.begun()
        {
            self.parts.means.board.enter(Phase::Waiting);
        }
        self.parts.registrar.note_job();
        self.end_if_cancelled().await
    }

    async fn granted(&mut self, result: Result<Held, HardwareError>) -> ControlFlow<Ended> {
        let Some((answers, told)) = self.admission.end_wait() else { return ControlFlow::Continue(()) };
        match result {
            Ok(new) => {
                self.parts.means.board.set_resource(Some(new.names()));
                self.enter_job();
                let _ = answers.send(HookAnswer::Go { resource: Some(new.names()) });
                self.parts.gate.held = Some(new);
                ControlFlow::Continue(())
            }
            Err(HardwareError::Abandoned) => {
                tracing::error!("the job is failed: its hook was killed while it waited for the hardware");
                self.ends_job(EndedBy::Hook);
                self.hook_gone().await
            }
            Err(error) => {
                tracing::error!("the job is failed: {error}");
                self.ends_job(EndedBy::Lock);
                self.fail_job(answers, &told, format!("this job is failed: {error}")).await
            }
        }
    }

    async fn obey_watchdog(&mut self, due: Due) -> ControlFlow<Ended> {
        match due {
            Due::Ask if self.parts.registrar.nearly_used_up() => {
                tracing::debug!("the forge is not asked about the registration: its limit is nearly used up");
                self.watchdog.not_asked();
            }
            Due::Silent(long) => {
                let long_for = humantime::format_duration(long);
                let why = format!("it has not begun to listen for {long_for}, and does not say why");
                tracing::warn!("{why}");
                self.parts.means.board.cannot_listen(&why, long);
                self.watchdog.silent();
            }
            Due::Ask => {
                self.asking = self.parts.registrar.ask();
                // A job that crossed a removal has no registration to ask about.
                if self.asking.is_none() {
                    self.watchdog.not_asked();
                }
            }
            Due::Lapse => {
                tracing::info!(
                    "it is not known whether the agent has its connection again: nothing here may ask the forge"
                );
                self.watchdog.forget_doubt();
                self.parts.means.board.connection_unknown();
            }
            Due::Idle => {
                tracing::info!("no job came for as long as OSCR_MAX_IDLE allows");
                self.retirement.begin(Why::Idle);
            }
            Due::Replace(why) => {
                if self.watchdog.acquires_until().is_some() {
                    self.ghosts.vanished();
                }
                tracing::warn!("replacing the listener: {why}");
                self.retirement.begin(Why::Replace(why));
            }
            Due::Overdue => return self.cancel_overdue().await,
            Due::GivenUp(limit) => return self.forge_gave_up(limit).await,
        }
        ControlFlow::Continue(())
    }

    /// Only while idle: the client's memory is let go afterwards, and a job's start is not delayed.
    async fn look_at_leftovers(&mut self) {
        self.leftovers_at = None;
        if self.job.seen() || self.retirement.begun() {
            return;
        }
        if let Ok(Err(fault)) = timeout(LOOK_AT_LEFTOVERS, self.parts.registrar.release_leftovers()).await {
            tracing::debug!("an earlier registration cannot be removed yet: {fault}");
        }
        self.parts.means.provider.rest();
        self.leftovers_wait = (self.leftovers_wait * 2).min(LEFTOVERS_LAST);
        self.leftovers_at = self.parts.registrar.has_leftovers().then(|| Instant::now() + self.leftovers_wait);
    }

    /// What is left to do once the listener has ended, and what its end means.
    async fn finish(mut self, ended: Ended) -> Ending {
        // The listener's last lines may still be unread; a job that they announce did run, and a short one may be all in them.
        let words = self.listener.tail.last_words().await;
        while let Some(marker) = self.hearing.said() {
            match marker {
                Marker::Running(name) if !self.job.is_named() => self.begins(name),
                Marker::Listening if self.job.runs_by_word() => self.job.ended(),
                Marker::Completed(job, result) => self.job.completed(job, result),
                Marker::Finished(process, code) => self.job.finished(process, code),
                // A listener whose job never was ends with the word of it.
                Marker::Sign(sign, _) if !self.job.ran() && !self.job.is_named() => self.ghosts.heard(sign),
                _ => {}
            }
        }
        let outlived = self.job.outlived();
        self.keep_configuration(true);
        self.job.tell();
        self.parts.update.cut_short(&mut self.parts.registrar.state);
        self.admission.end();
        self.give_back();
        if let Some(work) = self.releasing.take() {
            work.await;
            self.parts.means.board.set_resource(None);
        }
        tracing::debug!("the listener ended ({ended})");
        self.parts.means.board.listener_gone();
        let asked = self.parts.means.stop.urgency() > Urgency::None;
        let ended_by_us = self.retirement.begun() || asked;
        let agent = self.parts.means.provider.agent();
        let stands =
            !outlived && (self.made_to_end || matches!(ended, Ended::Code(code) if agent.own_codes.contains(&code)));
        let result = self.job.told_result(agent);
        let past = Past {
            why: self.retirement.why.take(),
            interrupted: self.interrupted,
            asked,
            job_seen: self.job.was(),
            job_ran: self.job.ran(),
            job_stands: stands && result.is_some(),
            by_us: self.made_to_end,
        };
        let ending = Ending::of(past, ended, &words, self.parts.means.provider.as_ref());
        // What it says on its way out after an end that it chose tells nothing.
        let words = words.last().filter(|_| ended != Ended::Code(0));
        let ending =
            ending.saying(words.map(String::as_str)).knowing(self.parts.registrar.state.content.update.newer());
        if ending.loses_registration() {
            self.parts.registrar.forget_lost();
        }
        let soon = !self.job.ran() && self.connected.is_none_or(|since| since.elapsed() < WELL_AFTER);
        // One that leaves because its job was taken back is no sign of trouble here.
        if ending.is_trouble() && soon && !ended_by_us && self.farewell.is_none() {
            self.parts.means.board.ended_early();
        }
        let lost = !stands || matches!(ending, Ending::JobBroken(_));
        self.report(&ending, if lost { JobResult::Lost } else { result.unwrap_or(JobResult::Unknown) });
        if !self.job.was() {
            self.parts.registrar.forget_job();
        }
        ending
    }

    /// Leaves the job's summary to be completed once the slate is clean.
    fn report(&mut self, ending: &Ending, result: JobResult) {
        let Some(spans) = self.job.spans(self.connected, self.admission.waited) else { return };
        let by_forge = !self.made_to_end && matches!(result, JobResult::Canceled | JobResult::Abandoned);
        let ended_by = self.ended_by.or(by_forge.then_some(EndedBy::Forge));
        if !self.hooked && ended_by.is_none() {
            ended_without_hook(self.parts.means, &mut self.parts.registrar.state, ending, result);
        }
        let status = self.parts.means.board.status();
        let runner = status.runner.map(|runner| runner.name).unwrap_or_default();
        self.parts.keeper.job_over(JobReport::new(status.job.unwrap_or_default(), runner, result, ended_by, spans));
    }
}
