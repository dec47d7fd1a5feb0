//! Registration tokens: asked for, or found where another replica left one.

use std::time::{Duration, SystemTime};

use reqwest::Method;
use serde::Deserialize;

use super::ask::{Api, Asker};
use crate::config::Secret;
use crate::provider::fault::Fault;
use crate::provider::github::token_cache::{Minted, Unspent};

#[derive(Deserialize)]
pub(super) struct Token {
    token: Secret,
    #[serde(default)]
    expires_at: String,
}

impl Api {
    /// One for a configure step: that of the last try, where it was not what failed, or another.
    pub(crate) async fn registration_token(&self) -> Result<Secret, Fault> {
        let credential = match &self.account {
            Asker::Pat(source) => source,
            Asker::App(app) => app.source(),
            Asker::Nobody => return self.mint().await.map(|minted| minted.token),
        };
        match &self.cache {
            Some(cache) => {
                let credential = credential.read()?;
                cache.token(&self.scope_url(), &credential, self.mint()).await
            }
            None => {
                let credential = credential.read()?;
                let kept = self.kept.take().filter(|kept| kept.is_good(&credential));
                let kept = match kept {
                    Some(kept) => kept,
                    None => {
                        let minted = self.mint().await?;
                        Unspent::new(minted, credential)
                    }
                };
                let token = kept.token();
                self.kept.replace(Some(kept));
                Ok(token)
            }
        }
    }

    /// A runner was registered with the token in use: the next one will have another.
    pub(crate) fn spend_token(&self) {
        self.kept.take();
    }

    /// The registration token in use was refused: no replica shall use it again, nor the next try.
    pub(crate) fn forget_token(&self) {
        self.kept.take();
        if let Some(cache) = &self.cache {
            cache.forget();
        }
    }

    /// A new one.
    pub(super) async fn mint(&self) -> Result<Minted, Fault> {
        let reply = self.ask(Method::POST, &format!("{}/runners/registration-token", self.scope_url()), None).await?;
        let token: Token = self.expect(&reply, 201, "register a runner")?.json()?;
        // By the forge's clock, which need not be ours. Without a date that makes sense it is not shared.
        let lives =
            moment(&token.expires_at).and_then(|until| until.duration_since(self.http.now()).ok()).unwrap_or_default();
        Ok(Minted { token: token.token, lives })
    }
}

/// A time as GitHub writes it: `2026-11-21T05:00:00.000-08:00`, or with `Z`.
fn moment(text: &str) -> Option<SystemTime> {
    let at = text.len().checked_sub(6)?;
    let (local, offset) = if text.is_char_boundary(at) { text.split_at(at) } else { return None };
    let (sign, hours, minutes) = match offset.as_bytes() {
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => (*sign, offset[1..3].parse().ok()?, offset[4..].parse().ok()?),
        _ => return humantime::parse_rfc3339(text).ok(),
    };
    let (hours, minutes): (u64, u64) = (hours, minutes);
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let offset = Duration::from_secs((hours * 60 + minutes) * 60);
    if sign == b'+' { local.checked_sub(offset) } else { local.checked_add(offset) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_wherever_on_earth_they_were_written() {
        let utc = humantime::parse_rfc3339("2026-11-21T13:00:00Z").unwrap();
        for text in [
            "2026-11-21T05:00:00.000-08:00",
            "2026-11-21T13:00:00Z",
            "2026-11-21T13:00:00.000+00:00",
            "2026-11-21T18:30:00+05:30",
        ] {
            assert_eq!(moment(text), Some(utc), "{text}");
        }
        for text in
            ["", "soon", "2026-11-21", "2026-11-21T05:00:00.000-8:00", "2026-11-21T05:00:00.000-aa:bb", "ééééééé"]
        {
            assert_eq!(moment(text), None, "{text}");
        }
    }
}
