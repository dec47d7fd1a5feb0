//! Tokens as the runner reads them: three parts, claims, and a signature that nobody looks at.

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use super::super::Shared;
use super::super::state::{Runner, State};
use super::ids::{self, Id};

/// How long tokens are good, by their own words.
const LIFE: i64 = 24 * 3600;

/// A token with these claims.
pub(super) fn jwt(s: &State, claims: Value) -> String {
    let now = s.now().as_second();
    let mut all = json!({"iss": "forge", "aud": "forge", "nbf": now - 60, "exp": now + LIFE});
    if let (Value::Object(all), Value::Object(claims)) = (&mut all, claims) {
        all.extend(claims);
    }
    let head = json!({"typ": "JWT", "alg": "RS256"});
    [head.to_string(), all.to_string(), "no signature".into()].map(|part| BASE64.encode(part)).join(".")
}

/// What a token says.
fn claims(token: &str) -> Option<Value> {
    serde_json::from_slice(&BASE64.decode(token.split('.').nth(1)?).ok()?).ok()
}

/// The runner or agent that a bearer token names.
pub(crate) fn runner(headers: &HeaderMap) -> Option<u64> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    claims(given.strip_prefix("Bearer ")?)?["runner"].as_u64()
}

/// A token for the runner or agent whose client id is the subject of the assertion in a form, unless its registration is gone:
/// `POST /_oauth/token`, and Azure DevOps' own address for it.
pub(crate) fn grant(shared: &Shared, form: &[u8]) -> Response {
    let form = String::from_utf8_lossy(form);
    let assertion = form.split('&').find_map(|pair| pair.strip_prefix("client_assertion=")).unwrap_or_default();
    let client = claims(assertion).and_then(|claims| ids::number(Id::Client, claims["sub"].as_str()?)).unwrap_or(0);
    let known = |s: &State| s.runners.get(&client).is_some_and(Runner::is_known);
    let Some(token) = shared.read(|s| known(s).then(|| jwt(s, json!({"runner": client})))) else {
        let refusal = json!({"error": "invalid_client", "error_description": "The client is not known."});
        return (StatusCode::BAD_REQUEST, Json(refusal)).into_response();
    };
    Json(json!({"access_token": token, "expires_in": 3600, "token_type": "bearer"})).into_response()
}
