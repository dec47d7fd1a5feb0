//! Tokens as the runner reads them: three parts, claims, and a signature that nobody looks at.

use axum::Json;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use super::super::state::State;
use super::Asked;
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

/// The runner that a bearer token names.
pub(super) fn runner(headers: &HeaderMap) -> Option<u64> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    claims(given.strip_prefix("Bearer ")?)?["runner"].as_u64()
}

/// `POST /_oauth/token`: a token for the runner whose client id is the subject of the assertion. A runner whose registration is
/// gone gets one too, and learns of it at its session.
pub(super) fn grant(asked: &Asked) -> Response {
    let form = String::from_utf8_lossy(&asked.body);
    let assertion = form.split('&').find_map(|pair| pair.strip_prefix("client_assertion=")).unwrap_or_default();
    let client = claims(assertion).and_then(|claims| ids::number(Id::Client, claims["sub"].as_str()?)).unwrap_or(0);
    let token = asked.shared.read(|s| jwt(s, json!({"runner": client})));
    Json(json!({"access_token": token, "expires_in": 3600, "token_type": "bearer"})).into_response()
}
