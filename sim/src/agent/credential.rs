//! Who a configured agent is for its forge: the key that it registers, and the tokens that it gets for assertions.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::{Client, Refusal};
use super::listener::{field, text};

/// The modulus and the exponent that an agent registers. All have the same key, because nobody checks what is signed.
pub(super) fn public_key() -> [String; 2] {
    let key = crate::forge::runner_key();
    ["modulus", "exponent"].map(|name| text(&key, name).to_owned())
}

/// What `.credentials` says.
#[derive(Debug)]
pub(super) struct Credential {
    client_id: String,
    /// Where tokens are asked for.
    pub(super) address: String,
}

impl Credential {
    pub(super) fn of(credentials: &Value) -> Self {
        let data = field(credentials, "data").unwrap_or(&Value::Null);
        Self { client_id: text(data, "clientId").to_owned(), address: text(data, "authorizationUrl").to_owned() }
    }

    /// Asks for a token, by an assertion that the agent would sign with its key. Nobody looks at the signature. The client is
    /// one for [`Self::address`].
    pub(super) fn token(&self, client: &Client) -> Result<String, Refusal> {
        let now = Timestamp::now().as_second();
        let claims = json!({
            "sub": self.client_id,
            "iss": self.client_id,
            "aud": self.address,
            "nbf": now,
            "exp": now + 300,
            "jti": crate::forge::random_id(),
        });
        let head = json!({"typ": "JWT", "alg": "RS256"});
        let assertion = [head.to_string(), claims.to_string(), "no signature".into()].map(|part| BASE64.encode(part));
        let form = format!(
            "grant_type=client_credentials&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type\
             %3Ajwt-bearer&client_assertion={}",
            assertion.join(".")
        );
        let answer: Value = client.post_form("", form)?;
        Ok(text(&answer, "access_token").to_owned())
    }
}
