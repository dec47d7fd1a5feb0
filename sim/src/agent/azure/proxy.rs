//! The variables of the agent's proxy.

use ureq::http::Uri;
use ureq::{Proxy, ProxyProtocol};

use crate::agent::proxy::{Target, Variables};

/// The agent's own, unless a pattern of its file or of `no_proxy` is found in the target. A name in the address is none.
pub(super) fn proxy(target: &Target, set: &Variables) -> Option<Proxy> {
    let address: Uri = set("VSTS_HTTP_PROXY")?.parse().ok().filter(|address: &Uri| address.scheme().is_some())?;
    let (file, passed) = (set(".proxybypass").unwrap_or_default(), set("no_proxy").unwrap_or_default());
    let patterns = file.lines().chain(passed.split([',', ';'])).filter_map(|entry| pieces(entry.trim()));
    let text: Vec<char> = target.text().to_lowercase().chars().collect();
    if patterns.into_iter().any(|pieces| (0..=text.len()).any(|at| found(&pieces, &text, at))) {
        return None;
    }
    let mut proxy = Proxy::builder(ProxyProtocol::Http).host(address.host()?).port(address.port_u16().unwrap_or(80));
    if let (Some(name), Some(password)) = (set("VSTS_HTTP_PROXY_USERNAME"), set("VSTS_HTTP_PROXY_PASSWORD")) {
        proxy = proxy.username(&name).password(&password);
    }
    proxy.build().ok()
}

/// A piece of a pattern.
#[derive(Clone, Copy)]
enum Piece {
    Character(char),
    Anything,
    Digits,
    Start,
    End,
}

/// A pattern's pieces. None of an entry that is empty, no pattern, or one with more in it than `.*`, `\d+`, `^`, `$` and `\`, which is
/// not understood here. A dot before anything but a star is a dot: the agent itself escapes it.
fn pieces(entry: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = entry.chars().peekable();
    while let Some(character) = rest.next() {
        pieces.push(match character {
            '.' if rest.next_if_eq(&'*').is_some() => Piece::Anything,
            '\\' if rest.next_if_eq(&'d').is_some() => rest.next_if_eq(&'+').map(|_| Piece::Digits)?,
            '\\' => Piece::Character(rest.next()?),
            '^' => Piece::Start,
            '$' => Piece::End,
            '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' => return None,
            other => Piece::Character(other.to_ascii_lowercase()),
        });
    }
    (!pieces.is_empty()).then_some(pieces)
}

/// Whether the pieces follow one another in a text from here on.
fn found(pieces: &[Piece], text: &[char], at: usize) -> bool {
    let Some((piece, after)) = pieces.split_first() else { return true };
    match piece {
        Piece::Start => at == 0 && found(after, text, at),
        Piece::End => at == text.len() && found(after, text, at),
        Piece::Character(character) => text.get(at) == Some(character) && found(after, text, at + 1),
        Piece::Anything => (at..=text.len()).any(|next| found(after, text, next)),
        Piece::Digits => {
            let digits = text[at..].iter().take_while(|character| character.is_ascii_digit()).count();
            (at + 1..=at + digits).any(|next| found(after, text, next))
        }
    }
}
