//! The directory that knows service principals: it gives an access token for a client's secret.

use std::collections::HashMap;

use axum::Json;
use axum::extract::Query;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use jiff::SignedDuration;
use serde_json::json;

use crate::forge::Shared;
use crate::forge::state::random_token;

/// Azure DevOps itself, for which a token is asked.
const SCOPE: &str = "499b84ac-1321-427f-aa17-267ca6975798/.default";

fn refuse(status: StatusCode, error: &str, description: &str) -> Response {
    (status, Json(json!({"error": error, "error_description": description, "error_codes": []}))).into_response()
}

/// `POST /{tenant}/oauth2/v2.0/token`.
pub(super) fn token(shared: &Shared, tenant: &str, method: &Method, body: &[u8]) -> Response {
    if method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    // A form is written as a query is.
    let form = String::from_utf8_lossy(body);
    let form: HashMap<String, String> = format!("/?{form}")
        .parse::<Uri>()
        .ok()
        .and_then(|uri| Query::try_from_uri(&uri).ok())
        .map(|query: Query<HashMap<String, String>>| query.0)
        .unwrap_or_default();
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    if field("grant_type") != "client_credentials" {
        return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type", "AADSTS70003: unsupported grant type.");
    }
    if field("scope") != SCOPE {
        return refuse(
            StatusCode::BAD_REQUEST,
            "invalid_scope",
            "AADSTS70011: The provided value for scope is not valid.",
        );
    }
    shared.change(|s| {
        let principals = &s.orders.service_principals;
        if !principals.iter().any(|p| p.tenant == tenant) {
            let text = format!("AADSTS90002: Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID.");
            return refuse(StatusCode::BAD_REQUEST, "invalid_request", &text);
        }
        let Some(found) = principals.iter().find(|p| p.tenant == tenant && p.client_id == field("client_id")) else {
            let text = format!("AADSTS700016: Application with identifier '{}' was not found.", field("client_id"));
            return refuse(StatusCode::UNAUTHORIZED, "unauthorized_client", &text);
        };
        if found.client_secret != field("client_secret") {
            let text = "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the \
                        client secret value, not the client secret ID.";
            return refuse(StatusCode::UNAUTHORIZED, "invalid_client", text);
        }
        let life = s.orders.access_token_lifetime_s;
        let until = s.now().checked_add(SignedDuration::from_secs(life)).unwrap_or(jiff::Timestamp::MAX);
        let token = format!("eyJ0.{}", random_token(60));
        s.access_tokens.insert(token.clone(), until);
        Json(json!({"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": token}))
            .into_response()
    })
}
