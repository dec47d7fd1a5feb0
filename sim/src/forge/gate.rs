//! What every request passes: the log, the faults, the rate limit, the contract, the headers of all answers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::faults::{Cut, CutSwitch, CuttableListener, Fault};
use super::state::RequestRecord;
use super::{Shared, api, azure, contract, control, packages, renamed, secrets, wire};

/// The largest body that is looked at.
pub(crate) const BODY_LIMIT: usize = 16 << 20;

pub(crate) async fn serve(shared: &Arc<Shared>, listener: tokio::net::TcpListener) {
    let app = Router::new()
        .nest("/_sim", control::routes())
        .fallback(answer)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(Arc::clone(shared), gate))
        .with_state(Arc::clone(shared))
        .into_make_service_with_connect_info::<CutSwitch>();
    if let Err(error) = axum::serve(CuttableListener(listener), app).await {
        eprintln!("forge: {error}");
    }
}

/// The path without GitHub Enterprise Server's prefix.
fn bare(path: &str) -> &str {
    match path.strip_prefix("/api/v3") {
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

/// Whose request it is that neither agents nor the control plane have.
async fn answer(state: State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path();
    if wire::is_mine(request.headers(), bare(path)) {
        return wire::answer(state, request).await;
    }
    if azure::is_mine(path) {
        return azure::answer(state, request).await;
    }
    if packages::named(path).is_some() {
        return packages::download(state, request).await;
    }
    api::answer(state, request).await
}

/// Whether an agent asks, a stand-in or GitHub's own.
fn is_agent(headers: &HeaderMap, path: &str) -> bool {
    let name = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    name.starts_with(azure::AGENT) || wire::is_mine(headers, path)
}

async fn gate(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(switch): ConnectInfo<CutSwitch>,
    request: Request,
    next: Next,
) -> Response {
    let full = request.uri().path().to_owned();
    let path = bare(&full).to_owned();
    if path.starts_with("/_sim/") {
        return next.run(request).await;
    }
    let method = request.method().clone();
    let agent = is_agent(request.headers(), &path);
    let n = log_arrival(&shared, &request, &full, agent);
    let request = checked(&shared, request, agent).await;
    let fault = take_fault(&shared, n, &method, &path, agent);
    if let Some(fault) = &fault {
        tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
        if fault.cut == Some(Cut::Before) {
            switch.arm(Cut::Before);
            return StatusCode::OK.into_response();
        }
        if let Some(status) = fault.status {
            let mut answer = dated(&shared, faulty_answer(fault, status));
            // A page is what something between would put in the forge's place.
            if !matches!(fault.body, Some(serde_json::Value::String(_))) {
                mark(answer.headers_mut(), &path, n);
            }
            log_status(&shared, n, answer.status());
            return answer;
        }
    }
    let is_github =
        !(wire::is_mine(request.headers(), &path) || azure::is_mine(&path) || packages::named(&path).is_some());
    let answer = if is_github { api_request(&shared, request, next, &path).await } else { next.run(request).await };
    let mut answer = dated(&shared, answer);
    mark(answer.headers_mut(), &path, n);
    if let Some(fault) = &fault {
        if let Some(cut) = fault.cut {
            switch.arm(cut);
            return answer;
        }
        if let Some(body) = &fault.body {
            *answer.body_mut() = Body::from(fault_body(body));
            answer.headers_mut().remove(header::CONTENT_LENGTH);
            // It is the tag of what the forge had to say.
            answer.headers_mut().remove(header::ETAG);
            if body.is_string() {
                MARKS.iter().for_each(|(_, mark)| drop(answer.headers_mut().remove(*mark)));
            }
        }
        add_headers(answer.headers_mut(), fault);
        if fault.truncate {
            answer = truncated(answer).await;
        }
    }
    log_status(&shared, n, answer.status());
    answer
}

/// The request, after a look for what must not be in any.
async fn checked(shared: &Shared, request: Request, agent: bool) -> Request {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_LIMIT).await.unwrap_or_default();
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    let at = format!("{} {path}", parts.method);
    let mut found = shared.read(|s| secrets::leaks(s, &at, query, &parts.headers, &body));
    if !agent && azure::is_mine(path) {
        found.extend(azure::contract::check(&parts.method, path, query, &parts.headers));
    }
    if !found.is_empty() {
        shared.change(|s| s.violations.extend(found));
    }
    Request::from_parts(parts, Body::from(body))
}

/// A request to GitHub's REST API: limits, contract and validators around the answer.
async fn api_request(shared: &Shared, request: Request, next: Next, path: &str) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_LIMIT).await.unwrap_or_default();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let method = parts.method.clone();
    let described = renamed::described_path(path);
    let mut violations = described
        .as_deref()
        .map_or_else(Vec::new, |path| contract::check_request(method.as_str(), path, &query, &parts.headers, &body));
    let if_none_match = parts.headers.get(header::IF_NONE_MATCH).cloned();

    let (limit, used, reset) = shared.change(|s| {
        s.orders.rate_used = (s.orders.rate_used + 1).min(s.orders.rate_limit + 1);
        let reset = s.now().as_second() + s.orders.rate_reset_s;
        (s.orders.rate_limit, s.orders.rate_used, reset)
    });
    let answer = if used > limit {
        api::error(StatusCode::FORBIDDEN, "API rate limit exceeded for user ID 1.")
    } else if parts.headers.get(header::USER_AGENT).is_none_or(HeaderValue::is_empty) {
        api::error(
            StatusCode::FORBIDDEN,
            "Request forbidden by administrative rules. Please make sure your request has a User-Agent header.",
        )
    } else {
        next.run(Request::from_parts(parts, Body::from(body))).await
    };

    let (mut head, body) = answer.into_parts();
    let mut body = to_bytes(body, BODY_LIMIT).await.unwrap_or_default();
    if let Some(path) = described {
        violations.extend(contract::check_answer(method.as_str(), &path, head.status.as_u16(), &body));
    }
    if !violations.is_empty() {
        shared.change(|s| s.violations.extend(violations));
    }
    if method == Method::GET && head.status == StatusCode::OK {
        let tag = entity_tag(&body);
        if if_none_match.is_some_and(|given| given == tag) {
            head.status = StatusCode::NOT_MODIFIED;
            head.headers.remove(header::CONTENT_LENGTH);
            head.headers.remove(header::CONTENT_TYPE);
            body = Bytes::new();
            // GitHub does not count conditional requests that change nothing.
            shared.change(|s| s.orders.rate_used = s.orders.rate_used.saturating_sub(1));
        }
        head.headers.insert(header::ETAG, tag);
    }
    for (name, value) in [
        ("x-ratelimit-limit", limit),
        ("x-ratelimit-remaining", limit.saturating_sub(used)),
        ("x-ratelimit-used", used.min(limit)),
        ("x-ratelimit-reset", u64::try_from(reset).unwrap_or(0)),
    ] {
        head.headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
    head.headers.insert("x-github-media-type", HeaderValue::from_static("github.v3; format=json"));
    Response::from_parts(head, Body::from(body))
}

fn entity_tag(body: &[u8]) -> HeaderValue {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(body);
    let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    HeaderValue::from_str(&format!("W/\"{hex}\"")).expect("hexadecimal digits are valid in a header")
}

fn log_arrival(shared: &Shared, request: &Request, path: &str, agent: bool) -> u64 {
    let text = |name: HeaderName| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let auth_kind = text(header::AUTHORIZATION).map_or_else(
        || "none".into(),
        |v| v.split(' ').next().filter(|_| v.contains(' ')).unwrap_or("bare").to_lowercase(),
    );
    shared.change(|s| {
        let n = s.next_request();
        s.requests.push(RequestRecord {
            n,
            at: Timestamp::now(),
            method: request.method().to_string(),
            path: path.to_owned(),
            query: request.uri().query().map(str::to_owned),
            status: None,
            answered: None,
            auth_kind,
            user_agent: text(header::USER_AGENT),
            agent,
            fault: false,
        });
        n
    })
}

fn with_record(shared: &Shared, n: u64, change: impl FnOnce(&mut RequestRecord)) {
    shared.change(|s| {
        if let Some(record) = s.requests.iter_mut().rev().find(|r| r.n == n) {
            change(record);
        }
    });
}

fn log_status(shared: &Shared, n: u64, status: StatusCode) {
    with_record(shared, n, |r| {
        r.status = Some(status.as_u16());
        r.answered = Some(Timestamp::now());
    });
}

fn take_fault(shared: &Shared, n: u64, method: &Method, path: &str, agent: bool) -> Option<Fault> {
    let fault = shared.change(|s| {
        let mut found = None;
        for fault in &mut s.faults {
            if fault.times == Some(0) || !fault.matching.hits(method.as_str(), path, agent) {
                continue;
            }
            if fault.skip == 0 {
                found = Some(fault);
                break;
            }
            fault.skip -= 1;
        }
        let fault = found?;
        fault.times = fault.times.map(|t| t - 1);
        Some(fault.clone())
    })?;
    with_record(shared, n, |r| r.fault = true);
    Some(fault)
}

fn fault_body(body: &serde_json::Value) -> String {
    match body {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn faulty_answer(fault: &Fault, status: u16) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = match &fault.body {
        Some(body) => {
            (status, [(header::CONTENT_TYPE, "application/json; charset=utf-8")], fault_body(body)).into_response()
        }
        None => api::error(status, status.canonical_reason().unwrap_or("Unknown")),
    };
    add_headers(answer.headers_mut(), fault);
    answer
}

/// The headers by which an answer is known to be the forge's own, and whose they are.
const MARKS: [(Owner, &str); 6] = [
    (Owner::GitHub, "x-github-request-id"),
    (Owner::Azure, "activityid"),
    (Owner::Azure, "x-tfs-processid"),
    (Owner::Azure, "x-vss-e2eid"),
    (Owner::Directory, "x-ms-request-id"),
    (Owner::Directory, "x-ms-ests-server"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    GitHub,
    Azure,
    /// Microsoft Entra ID.
    Directory,
}

/// Marks an answer as those of its server are.
fn mark(headers: &mut HeaderMap, path: &str, n: u64) {
    let owner = match azure::is_mine(path) {
        true if path.contains("/oauth2/") => Owner::Directory,
        true => Owner::Azure,
        false => Owner::GitHub,
    };
    for (_, mark) in MARKS.iter().filter(|(whose, _)| *whose == owner) {
        headers.entry(HeaderName::from_static(mark)).or_insert_with(|| HeaderValue::from(n));
    }
}

fn add_headers(headers: &mut HeaderMap, fault: &Fault) {
    for (name, value) in &fault.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
}

async fn truncated(answer: Response) -> Response {
    let (mut head, body) = answer.into_parts();
    let body = to_bytes(body, BODY_LIMIT).await.unwrap_or_default();
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from(body.slice(..body.len() / 2)))
}

/// Sets `Date` by the forge's clock; the server adds its own only where there is none.
fn dated(shared: &Shared, mut answer: Response) -> Response {
    let now = shared.read(super::state::State::now);
    let text = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(value) = HeaderValue::from_str(&text) {
        answer.headers_mut().insert(header::DATE, value);
    }
    answer
}
