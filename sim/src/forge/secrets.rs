//! Whether a secret arrives where it does not belong: in an address, a header, a body, a capability.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

use super::State;

/// Shorter ones would be found by chance.
const SHORTEST: usize = 8;

/// What was found, without any of it.
pub(crate) fn leaks(s: &State, at: &str, query: &str, headers: &HeaderMap, body: &[u8]) -> Vec<String> {
    let body = String::from_utf8_lossy(body);
    let (path, for_token) = (at, at.ends_with("/oauth2/v2.0/token"));
    let mut found = Vec::new();
    let mut look = |what: &str, secret: &str, in_its_place: bool| {
        if secret.len() < SHORTEST {
            return;
        }
        let encoded = [BASE64.encode(secret), BASE64.encode(format!(":{secret}"))];
        let has = |text: &str| {
            let plain = decoded(text);
            text.contains(secret) || plain.contains(secret) || encoded.iter().any(|e| text.contains(e.as_str()))
        };
        if has(path) || has(query) {
            found.push(format!("{at}: {what} in the address"));
        }
        if !in_its_place && has(&body) {
            found.push(format!("{at}: {what} in the body"));
        }
        for (name, value) in headers.iter().filter(|(name, _)| *name != "authorization") {
            if value.to_str().is_ok_and(has) {
                found.push(format!("{at}: {what} in the header {name}"));
            }
        }
    };
    for pat in &s.orders.pats {
        look("a personal access token", pat, false);
    }
    for principal in &s.orders.service_principals {
        look("a client secret", &principal.client_secret, for_token);
    }
    for token in s.access_tokens.keys() {
        look("an access token", token, false);
    }
    for token in s.app_tokens.keys() {
        look("an installation token", token, false);
    }
    found
}

/// A text without its percent signs.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        let digits = others.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()).filter(|_| first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::Orders;

    fn found(at: &str, query: &str, body: &str) -> Vec<String> {
        let orders = Orders { pats: vec!["pat/0123456789".into()], ..Orders::default() };
        let state = State { orders, ..State::default() };
        leaks(&state, at, query, &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn a_token_is_found_however_it_is_written_and_never_repeated() {
        assert_eq!(found("PUT /x", "a=b", r#"{"systemCapabilities":{"PATH":"/bin"}}"#), Vec::<String>::new());
        for (query, body) in [
            ("t=pat%2f0123456789", ""),
            ("", "x pat/0123456789 y"),
            ("", "OnBhdC8wMTIzNDU2Nzg5"),
            ("", "cGF0LzAxMjM0NTY3ODk="),
        ] {
            let found = found("PUT /x", query, body);
            assert_eq!(found.len(), 1, "{query} {body}: {found:?}");
            assert!(!found[0].contains("0123456789"), "{found:?}");
        }
    }
}
