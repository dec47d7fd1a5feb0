//! What stands between us and an answer, told apart by the words of an error.

use std::error::Error as _;

use crate::provider::fault::Fault;

/// What stands between us and an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// The client cannot be made.
    Client(Fault),
    /// The name has no address.
    Name(String),
    /// No connection comes about.
    Connection(String),
    /// Whoever answers cannot be trusted, or speaks no TLS.
    Trust(String),
}

impl Obstacle {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let why = chain(error);
        let lower = why.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        if says(&["dns error", "lookup", "no record found"]) {
            Self::Name(why)
        } else if says(&["certificate", "tls", "handshake", "corrupt message"]) {
            Self::Trust(why)
        } else {
            Self::Connection(why)
        }
    }
}

/// Nobody answered at `url`, or not to the end.
pub(super) fn unreachable(url: &str, error: &reqwest::Error) -> Fault {
    let text = chain(error);
    let cure = CURES.iter().find(|(words, _)| text.contains(words)).map_or("", |(_, cure)| cure);
    Fault::Unreachable(format!("{url}: {text}{cure}"))
}

/// What helps against some errors, by words in them.
const CURES: [(&str, &str); 3] = [
    (
        "UnknownIssuer",
        " (nobody whom this image trusts has signed its certificate: name the one who has in OSCR_CA_FILE)",
    ),
    ("certificate expired", " (check this machine's clock, and who it is that answers there)"),
    ("InvalidContentType", " (what answers there speaks no TLS)"),
];

/// No client can be made with these settings.
pub(super) fn no_client(error: &reqwest::Error) -> Fault {
    let text = chain(error);
    if text.contains("No CA certificates") {
        return Fault::denied(
            "this image has no CA certificates, so no forge can be trusted",
            "install the package ca-certificates in the image, or set OSCR_CA_FILE",
        );
    }
    Fault::denied(text, "check OSCR_CA_FILE and the proxy settings")
}

/// The reasons behind an error, outermost first, without its URL (which our own text names) and without repetitions.
fn chain(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut source = error.source();
    if error.is_timeout() {
        parts.push("timed out".to_owned());
    }
    while let Some(cause) = source {
        let text = cause.to_string();
        if parts.last().is_none_or(|last| !last.contains(&text)) {
            parts.push(text);
        }
        source = cause.source();
    }
    if parts.is_empty() {
        parts.push("the request could not be sent".to_owned());
    }
    parts.join(": ")
}
