//! A GitHub App: its proof is verified, and the tokens that it is given are good for what they were asked for.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Shared;
use super::api::error;
use super::scope::Scope;
use super::state::{State, random_token};

/// The private key of the App that [`AppOrders::default`] describes, as GitHub hands keys out (PKCS#1).
pub const KEY: &str = include_str!("../../fixtures/app.pkcs1.pem");
/// The same key as OpenSSL writes it (PKCS#8).
pub const KEY_PKCS8: &str = include_str!("../../fixtures/app.pkcs8.pem");
/// The key of another App.
pub const OTHER_KEY: &str = include_str!("../../fixtures/other.pkcs1.pem");

/// A GitHub App and its one installation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AppOrders {
    /// Its id.
    pub id: u64,
    /// Its client id.
    pub client_id: String,
    /// The public half of its key, as PEM (`RSA PUBLIC KEY`).
    pub public_key: String,
    /// The id of its installation.
    pub installation: u64,
    /// The organisation or user that it is installed for.
    pub account: String,
    /// The repositories of that account that it may see; all when empty.
    pub repositories: Vec<String>,
    /// What it was granted: name of the permission, `read` or `write`.
    pub permissions: BTreeMap<String, String>,
    /// Whether the installation is suspended.
    pub suspended: bool,
    /// Life of the tokens that it is given.
    pub token_lifetime_s: i64,
}

impl Default for AppOrders {
    fn default() -> Self {
        let write = |name: &str| (name.to_owned(), "write".to_owned());
        Self {
            id: 4711,
            client_id: "Iv1.0123456789abcdef".into(),
            public_key: include_str!("../../fixtures/app.public.pem").into(),
            installation: 77,
            account: "o".into(),
            repositories: Vec::new(),
            permissions: ["administration", "organization_self_hosted_runners", "contents"].map(write).into(),
            suspended: false,
            token_lifetime_s: 3600,
        }
    }
}

/// A token that the App was given.
#[derive(Debug, Clone)]
pub(crate) struct AppToken {
    permissions: BTreeMap<String, String>,
    /// None: all that the installation has.
    repositories: Option<Vec<String>>,
    expires: Timestamp,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenRequest {
    repositories: Option<Vec<String>>,
    permissions: Option<BTreeMap<String, String>>,
}

/// Answers what only an App may ask; `None` for everything else.
pub(crate) fn answer(
    shared: &Shared,
    method: &Method,
    headers: &HeaderMap,
    segments: &[&str],
    body: &[u8],
) -> Option<Response> {
    let concerned = matches!(segments, ["app", ..] | ["orgs", _, "installation"] | ["repos", _, _, "installation"]);
    if !concerned {
        return None;
    }
    let app = match shared.read(|s| prove(s, headers)) {
        Ok(app) => app,
        Err(refusal) => return Some(*refusal),
    };
    Some(match (method, segments) {
        (&Method::GET, ["orgs", owner, "installation"]) => installation(&app, owner, None),
        (&Method::GET, ["repos", owner, name, "installation"]) => installation(&app, owner, Some(name)),
        (&Method::POST, ["app", "installations", id, "access_tokens"]) if *id == app.installation.to_string() => {
            new_token(shared, &app, serde_json::from_slice(body).unwrap_or_default())
        }
        _ => error(StatusCode::NOT_FOUND, "Not Found"),
    })
}

/// The App that the token in the header proves to be, by signature and claims.
fn prove(state: &State, headers: &HeaderMap) -> Result<AppOrders, Box<Response>> {
    let refuse = |status, text: &str| Box::new(error(status, text));
    let undecodable = || refuse(StatusCode::UNAUTHORIZED, "A JSON web token could not be decoded");
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|given| given.strip_prefix("Bearer ")).ok_or_else(undecodable)?;
    let (signed, signature) = token.rsplit_once('.').ok_or_else(undecodable)?;
    let (head, claims) = signed.split_once('.').ok_or_else(undecodable)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    let json = |part: &str| decode(part).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let (head, claims) = json(head).zip(json(claims)).ok_or_else(undecodable)?;
    if head["alg"] != "RS256" {
        return Err(undecodable());
    }
    let issuer = claims["iss"].as_str().map_or_else(|| claims["iss"].to_string(), str::to_owned);
    let app = state.orders.app.clone().filter(|app| issuer == app.id.to_string() || issuer == app.client_id);
    let app = app.ok_or_else(|| refuse(StatusCode::NOT_FOUND, "Integration not found"))?;
    let pem: String = app.public_key.lines().filter(|line| !line.starts_with('-')).collect();
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, STANDARD.decode(pem).unwrap_or_default());
    let signature = decode(signature).ok_or_else(undecodable)?;
    key.verify(signed.as_bytes(), &signature).map_err(|_| undecodable())?;
    let now = state.now().as_second();
    let wrong = |text| Err(refuse(StatusCode::UNAUTHORIZED, text));
    match (claims["iat"].as_i64(), claims["exp"].as_i64()) {
        (Some(issued), _) if issued > now => {
            wrong("'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued")
        }
        (_, Some(ends)) if ends > now + 600 => wrong("'Expiration time' claim ('exp') is too far in the future"),
        (Some(_), Some(ends)) if ends > now => Ok(app),
        _ => wrong(
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
        ),
    }
}

fn sees(app: &AppOrders, name: &str) -> bool {
    app.repositories.is_empty() || app.repositories.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn installation(app: &AppOrders, owner: &str, repository: Option<&str>) -> Response {
    if !app.account.eq_ignore_ascii_case(owner) || !repository.is_none_or(|name| sees(app, name)) {
        return error(StatusCode::NOT_FOUND, "Not Found");
    }
    let (login, id) = (&app.account, app.installation);
    let api = "https://api.github.com";
    let time = "2026-01-01T00:00:00Z";
    let mut account = json!({ "login": login, "id": 1, "type": "Organization", "site_admin": false });
    for name in [
        "avatar_url",
        "events_url",
        "followers_url",
        "following_url",
        "gists_url",
        "gravatar_id",
        "html_url",
        "node_id",
        "organizations_url",
        "received_events_url",
        "repos_url",
        "starred_url",
        "subscriptions_url",
        "url",
    ] {
        account[name] = format!("{api}/users/{login}").into();
    }
    Json(json!({
        "id": id,
        "account": account,
        "app_id": app.id,
        "client_id": app.client_id,
        "app_slug": "simulated",
        "target_id": 1,
        "target_type": "Organization",
        "single_file_name": null,
        "repository_selection": if app.repositories.is_empty() { "all" } else { "selected" },
        "access_tokens_url": format!("{api}/app/installations/{id}/access_tokens"),
        "html_url": format!("https://github.com/organizations/{login}/settings/installations/{id}"),
        "repositories_url": format!("{api}/installation/repositories"),
        "events": [],
        "permissions": app.permissions,
        "created_at": time,
        "updated_at": time,
        "suspended_by": null,
        "suspended_at": app.suspended.then_some(time),
    }))
    .into_response()
}

fn new_token(shared: &Shared, app: &AppOrders, ask: TokenRequest) -> Response {
    if app.suspended {
        return error(StatusCode::FORBIDDEN, "This installation has been suspended");
    }
    let permissions = ask.permissions.unwrap_or_else(|| app.permissions.clone());
    let granted =
        |(name, level): (&String, &String)| app.permissions.get(name).is_some_and(|has| has == level || has == "write");
    if !permissions.iter().all(granted) {
        let text = "The permissions requested are not granted to this installation.";
        return error(StatusCode::UNPROCESSABLE_ENTITY, text);
    }
    if !ask.repositories.iter().flatten().all(|name| sees(app, name)) {
        let text =
            "There is at least one repository that does not exist or is not accessible to the parent installation.";
        return error(StatusCode::UNPROCESSABLE_ENTITY, text);
    }
    shared.change(|s| {
        let life = jiff::SignedDuration::from_secs(app.token_lifetime_s);
        let expires = s.now().checked_add(life).unwrap_or(Timestamp::MAX);
        let value = format!("ghs_{}", random_token(36));
        let rights: Vec<String> = permissions.iter().map(|(name, level)| format!("{name}:{level}")).collect();
        let places = ask.repositories.as_ref().map_or("all".to_owned(), |names| names.join(","));
        s.event("app_token", None, None, Some(format!("{} for {places}", rights.join(" "))));
        let body = json!({
            "token": value,
            "expires_at": expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "permissions": permissions,
            "repository_selection": if ask.repositories.is_some() { "selected" } else { "all" },
        });
        s.app_tokens.insert(value, AppToken { permissions, repositories: ask.repositories, expires });
        (StatusCode::CREATED, Json(body)).into_response()
    })
}

/// Whether a token is one of an App that has not ended.
pub(crate) fn knows(state: &State, token: &str) -> bool {
    state.app_tokens.get(token).is_some_and(|known| known.expires > state.now())
}

/// Refuses an App's token at a scope that it was not made for.
pub(crate) fn refuse(shared: &Shared, headers: &HeaderMap, scope: &Scope) -> Option<Response> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    shared.read(|s| {
        let token = s.app_tokens.get(given)?;
        let app = s.orders.app.as_ref()?;
        let may = |name: &str| token.permissions.get(name).is_some_and(|level| level == "write");
        let (known, allowed) = match scope {
            Scope::Repository(owner, name) => {
                let in_token = |names: &Vec<String>| names.iter().any(|known| known.eq_ignore_ascii_case(name));
                let sees = sees(app, name) && token.repositories.as_ref().is_none_or(in_token);
                (app.account.eq_ignore_ascii_case(owner) && sees, may("administration"))
            }
            Scope::Organization(owner) => {
                (app.account.eq_ignore_ascii_case(owner), may("organization_self_hosted_runners"))
            }
            Scope::Enterprise(_) | Scope::Pool(..) => (false, false),
        };
        match (known, allowed) {
            (true, true) => None,
            (true, false) => Some(error(StatusCode::FORBIDDEN, "Resource not accessible by integration")),
            (false, _) => Some(error(StatusCode::NOT_FOUND, "Not Found")),
        }
    })
}
