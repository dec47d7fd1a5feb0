//! A request: who asks, and what is sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use crate::config::Secret;
use crate::provider::fault::Fault;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Authorization<'a> {
    /// A token.
    Bearer(&'a Secret),
    /// A password without a user's name.
    Password(&'a Secret),
    /// Nobody in particular.
    Nobody,
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// Nothing.
    Empty,
    /// JSON.
    Json(&'a serde_json::Value),
    /// Resolver and values, which may be secret.
    Form(&'a [(&'a str, &'a str)]),
}

impl Authorization<'_> {
    /// The header that says so.
    ///
    /// # Errors
    /// For a secret that no header can carry.
    pub(super) fn header(self) -> Result<Option<HeaderValue>, Fault> {
        let text = match self {
            Self::Bearer(token) => Zeroizing::new(format!("Bearer {}", token.expose())),
            // Encoded it could be sent, and would be refused as if it were a wrong one.
            Self::Password(password) if password.expose().contains(char::is_control) => return Err(unsendable()),
            Self::Password(password) => {
                let pair = Zeroizing::new(format!(":{}", password.expose()));
                let encoded = Secret::new(STANDARD.encode(pair.as_bytes()));
                Zeroizing::new(format!("Basic {}", encoded.expose()))
            }
            Self::Nobody => return Ok(None),
        };
        let mut header = HeaderValue::try_from(text.as_str()).map_err(|_| unsendable())?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

fn unsendable() -> Fault {
    Fault::denied(
        "the credential holds characters that no HTTP header can carry",
        "check that the secret is the token alone, on one line",
    )
}
