//! `oscr-entry check`: what the configuration comes to, without asking anybody.

use std::io;
use std::process::ExitCode;

use super::accounts::agent_account;
use super::complain::misconfigured;
use super::posture::Posture;
use super::proof::{closed_above, invisible, lasting_temporary, locks};
use super::setup::slate;
use super::update::Rule;
use crate::config::Environment;
use crate::exit;
use crate::log;
use crate::provider::{Forges, configure};

/// Validates, and prints what is in force.
///
/// # Errors
/// When standard output is gone.
pub fn check(forges: Forges, out: &mut dyn io::Write) -> io::Result<ExitCode> {
    let environment = Environment::new(std::env::vars_os());
    let configured = match configure(forges, &environment) {
        Ok(configured) => configured,
        Err(problems) => return Ok(misconfigured(&problems)),
    };
    writeln!(out, "The configuration is complete. Registers with {}.", configured.provider.scope())?;
    let mut effective = configured.effective;
    let rule = Rule::of(&configured.common, configured.provider.as_ref());
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
    let mut problems = Vec::new();
    let (account, identity) = agent_account(&configured.common, &mut problems);
    problems.extend(invisible(identity.as_ref()));
    problems.extend(closed_above(&configured.common, identity.as_ref()));
    problems.extend(lasting_temporary(&slate(&configured.common, &account), &environment));
    problems.extend(locks(&configured.common, identity.as_ref()).err().into_iter().flatten());
    if !problems.is_empty() {
        return Ok(misconfigured(&problems));
    }
    let posture = Posture::look(&configured.common, &configured.provider.secrets(), identity.as_ref());
    write!(out, "The posture of this process, and of jobs:\n{posture}")?;
    Ok(ExitCode::from(exit::DONE))
}
