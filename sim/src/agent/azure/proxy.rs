//! The variables of the agent's proxy.

use ureq::http::Uri;
use ureq::{Proxy, ProxyProtocol};

use crate::agent::proxy::{Target, Variables};

/// The agent's own, unless a pattern of `no_proxy` is found in the target. A name in the address is none.
pub(super) fn proxy(target: &Target, set: &Variables) -> Option<Proxy> {
    let address: Uri = set("VSTS_HTTP_PROXY")?.parse().ok().filter(|address: &Uri| address.scheme().is_some())?;
    let passed = set("no_proxy").unwrap_or_default();
    if passed.split(',').filter_map(|entry| pieces(entry.trim())).any(|pieces| found(&pieces, &target.text())) {
        return None;
    }
    let mut proxy = Proxy::builder(ProxyProtocol::Http).host(address.host()?).port(address.port_u16().unwrap_or(80));
    if let (Some(name), Some(password)) = (set("VSTS_HTTP_PROXY_USERNAME"), set("VSTS_HTTP_PROXY_PASSWORD")) {
        proxy = proxy.username(&name).password(&password);
    }
    proxy.build().ok()
}

/// A pattern's literal pieces, between which anything may be. None of an entry that is empty, no pattern, or one with more in it
/// than `.*` and `\`, which is not understood here. A dot before anything but a star is a dot: the agent itself escapes it.
fn pieces(entry: &str) -> Option<Vec<String>> {
    let mut pieces = vec![String::new()];
    let mut rest = entry.chars().peekable();
    while let Some(character) = rest.next() {
        let literal = match character {
            '.' if rest.next_if_eq(&'*').is_some() => {
                pieces.push(String::new());
                continue;
            }
            '\\' => rest.next()?,
            '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' | '$' => return None,
            other => other,
        };
        pieces.last_mut()?.extend(literal.to_lowercase());
    }
    (!entry.is_empty()).then_some(pieces)
}

/// Whether the pieces follow one another anywhere in a text.
fn found(pieces: &[String], text: &str) -> bool {
    let text = text.to_lowercase();
    let mut rest = text.as_str();
    pieces.iter().all(|piece| match rest.split_once(piece.as_str()) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}
