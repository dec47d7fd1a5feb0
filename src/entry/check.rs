//! `oscr-entry check`: what the configuration comes to, without asking anybody.

use std::io;
use std::process::ExitCode;

use super::complain::misconfigured;
use super::docker_findings;
use super::judge::judge;
use super::posture::Posture;
use super::proof::invisible;
use super::silent::configure_in_time;
use super::update::Rule;
use crate::agent::worker;
use crate::config::{Environment, Problem};
use crate::exit;
use crate::log;
use crate::provider::{Configured, Forges};

/// Validates, and prints what is in force.
///
/// # Errors
/// When standard output is gone.
pub fn check(forges: Forges, out: &mut dyn io::Write) -> io::Result<ExitCode> {
    if let Err(blind) = worker::prove_mounted() {
        return Ok(misconfigured(&[Problem::of("/proc", &blind, blind.cure())]));
    }
    let environment = Environment::new(std::env::vars_os());
    let configured = match configure_in_time(forges, &environment) {
        Ok(configured) => configured,
        Err(problems) => return Ok(misconfigured(&problems)),
    };
    let Configured { common, provider, .. } = &configured;
    let judged = judge(forges, &environment, common, provider.as_ref());
    let (identity, warnings) = (judged.identity.clone(), judged.warnings.clone());
    let invisible = invisible(identity.as_ref());
    let problems: Vec<Problem> = judged.into_problems().into_iter().chain(invisible).collect();
    let verdict =
        if problems.is_empty() { "The configuration is complete." } else { "The configuration is not in order." };
    writeln!(out, "{verdict} Registers with {}.", provider.scope())?;
    let rule = Rule::of(common, provider.as_ref());
    let mut effective = configured.effective.clone();
    effective.insert("OSCR_AGENT_UPDATE".to_owned(), rule.to_string());
    for (name, value) in &effective {
        writeln!(out, "  {name:<26} {}", log::redacted(value))?;
    }
    for note in &configured.notes {
        writeln!(out, "Note: {}", log::redacted(note))?;
    }
    for warning in &configured.warnings {
        writeln!(out, "Warning: {}", log::redacted(warning))?;
    }
    for warning in &warnings {
        writeln!(out, "Warning: {}", log::redacted(&warning.to_string()))?;
    }
    if docker_findings::endpoint(&configured.common).is_some() {
        for warning in docker_findings::warnings(docker_findings::groups(&configured.common.places).as_slice()) {
            writeln!(out, "Warning: {warning}")?;
        }
    }
    if !problems.is_empty() {
        return Ok(misconfigured(&problems));
    }
    let posture = Posture::look(common, &provider.secrets(), identity.as_ref());
    write!(out, "The posture of this process, and of jobs:\n{posture}")?;
    Ok(ExitCode::from(exit::DONE))
}
