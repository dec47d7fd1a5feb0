//! What stands between us and an answer, told apart by an error and its reasons.

use std::error::Error as StdError;
use std::io;

use rustls::AlertDescription as Alert;
use rustls::{CertificateError, Error as TlsError, InvalidMessage, OtherError};

use super::trust::Distrust;
use crate::config::Network;
use crate::encode::day;
use crate::plain::plain;
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
    Trust {
        /// Why.
        why: String,
        /// What to change.
        cure: String,
    },
    /// The proxy leads no further: why, and the cure.
    Proxy(Fault),
    /// Something between us and the forge answers: its status, and what it says.
    Stranger(u16, String),
}

impl Obstacle {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        if let Some((why, cure)) = refusal(error) {
            return Self::Trust { why, cure: cure.to_owned() };
        }
        let why = chain(error);
        let lower = why.to_ascii_lowercase();
        if ["dns error", "lookup", "no record found"].iter().any(|word| lower.contains(word)) {
            Self::Name(why)
        } else {
            Self::Connection(why)
        }
    }
}

/// Nobody answered at `url`, or not to the end.
pub(super) fn unreachable(network: &Network, url: &str, error: &reqwest::Error) -> Fault {
    let way = network.proxy_to(url).map(|(_, proxy)| format!(" (by way of the proxy {proxy})")).unwrap_or_default();
    match refusal(error) {
        Some((why, cure)) => Fault::Unreachable(format!("{url}: TLS: {why}{way} ({cure})")),
        None => Fault::Unreachable(format!("{url}: {}{way}", chain(error))),
    }
}

/// Something answered that is not the forge.
pub(super) fn not_the_forge(url: &str, status: u16, what: &str) -> Fault {
    Fault::Unreachable(format!(
        "{url}: something between us and the forge answered {status} with {what}, and not the forge itself (a proxy, a gateway or a \
         portal: whoever runs it must let this address through)"
    ))
}

/// No client can be made with these settings.
pub(super) fn no_client(error: &reqwest::Error) -> Fault {
    Fault::denied(chain(error), "check OSCR_CA_FILE and the proxy settings")
}

const NAME_IT: &str =
    "name the certificate of whoever signed it in OSCR_CA_FILE: your authority's, or your proxy's if that reads along";
const NAME_ITSELF: &str = "if the server is yours, name this very certificate in OSCR_CA_FILE";
const CLOCK: &str = "check this machine's clock; if that is right, the server needs a new certificate";
const NO_TLS: &str = "check the address and its port; http:// is for a server without TLS";
const VERSIONS: &str = "the server, or a proxy before it, must speak TLS 1.2 or 1.3 with a cipher of today";
const ANEW: &str = "the server needs another certificate";
const WITH_NAMES: &str =
    "the server needs a certificate with its host in it: openssl req -x509 … -addext subjectAltName=DNS:HOST";

/// Why TLS did not come about, and what to change; `None` if it is not TLS that failed.
fn refusal(error: &reqwest::Error) -> Option<(String, &'static str)> {
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(now) = cause {
        if let Some(error) = now.downcast_ref() {
            return Some(words(error));
        }
        // What such an error holds is not among its reasons, but stands for it.
        let held = now.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if held.is_none() && now.to_string() == "tls handshake eof" {
            return Some(("the connection was closed before it was encrypted".to_owned(), NO_TLS));
        }
        cause = match held {
            Some(held) => Some(held),
            None => now.source(),
        };
    }
    None
}

/// A refusal in words, and its cure.
fn words(error: &TlsError) -> (String, &'static str) {
    let says = |words: &str, cure| (words.to_owned(), cure);
    match error {
        TlsError::InvalidCertificate(error) => certificate(error),
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            says("what answers there speaks no TLS", NO_TLS)
        }
        TlsError::InvalidMessage(_)
        | TlsError::InappropriateMessage { .. }
        | TlsError::AlertReceived(Alert::UnexpectedMessage) => {
            (format!("what answers there speaks no TLS that we understand ({error})"), NO_TLS)
        }
        TlsError::PeerIncompatible(_)
        | TlsError::AlertReceived(Alert::ProtocolVersion | Alert::InsufficientSecurity) => {
            (format!("no version of TLS is common to the server and us ({error})"), VERSIONS)
        }
        TlsError::AlertReceived(Alert::HandshakeFailure) => {
            (format!("nothing is common to the server and us ({error})"), VERSIONS)
        }
        TlsError::AlertReceived(Alert::UnrecognisedName) => says(
            "the server does not know the host that it was asked for (unrecognised_name)",
            "check the spelling of the host in the address",
        ),
        TlsError::AlertReceived(Alert::CertificateRequired) => says(
            "the server wants a certificate from its clients, and OSCR has none",
            "have the server, or a proxy before it, ask none of this machine",
        ),
        TlsError::General(why) => {
            (why.clone(), "install the package ca-certificates in the image, or set OSCR_CA_FILE")
        }
        other => (other.to_string(), "check the address and its port, and any proxy before the server"),
    }
}

/// What is wrong with a certificate, and its cure.
fn certificate(error: &CertificateError) -> (String, &'static str) {
    let says = |words: &str, cure| (words.to_owned(), cure);
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            (format!("the server's certificate expired on {}", day(not_after.as_secs())), CLOCK)
        }
        CertificateError::Expired => says("the server's certificate has expired", CLOCK),
        CertificateError::NotValidYetContext { not_before, .. } => {
            (format!("the server's certificate is not valid before {}", day(not_before.as_secs())), CLOCK)
        }
        CertificateError::NotValidYet => says("the server's certificate is not valid yet", CLOCK),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            says("the server's certificate names no host (subjectAltName)", WITH_NAMES)
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let named: Vec<_> = presented.iter().map(|name| bare(name)).collect();
            let why = format!("the server's certificate is not valid for this host, but for {}", named.join(", "));
            (
                plain(&why),
                "check the host in the address: write it as the certificate has it, or give the server one for this host",
            )
        }
        CertificateError::NotValidForName => says("the server's certificate is not valid for this host", WITH_NAMES),
        CertificateError::UnknownIssuer => {
            says("nobody whom this image trusts has signed the server's certificate", NAME_IT)
        }
        CertificateError::Revoked => says("the server's certificate was revoked", ANEW),
        CertificateError::BadEncoding => says("the server's certificate cannot be read", ANEW),
        CertificateError::BadSignature | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            says(
                "the signature of the server's certificate is not its authority's",
                "name the authority's present certificate in OSCR_CA_FILE; one of the same name may be an older one",
            )
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. } => {
            says("the server's certificate is signed in a way that is no longer safe (SHA-1, or a short key)", ANEW)
        }
        CertificateError::InvalidPurposeContext { .. } | CertificateError::InvalidPurpose => {
            says("the server's certificate is not one for servers (extendedKeyUsage)", ANEW)
        }
        CertificateError::Other(OtherError(other)) => match other.downcast_ref() {
            Some(Distrust::BySelf) => says("the server's certificate is signed by itself", NAME_ITSELF),
            Some(Distrust::Authority) => says(
                "the server shows an authority's certificate as its own",
                "name this very certificate in OSCR_CA_FILE, or give the server one that is no authority's (CA:FALSE)",
            ),
            Some(Distrust::Version1) => {
                says("the server's certificate is of version 1 (X.509), which cannot name a host", WITH_NAMES)
            }
            None => (format!("the server's certificate is not valid ({other})"), ANEW),
        },
        other => (format!("the server's certificate is not valid ({other})"), ANEW),
    }
}

/// A name out of the library's words for it: `DnsName("forge.example")`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// The reasons behind an error, outermost first, without its URL (which our own text names) and without repetitions.
pub(super) fn chain(error: &reqwest::Error) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// No server here can show such ones: nothing that revokes is asked, and the library has two words for each of the others.
    #[test]
    fn what_no_server_here_can_show_has_its_words_and_its_cure_too() {
        for (error, words, cured) in [
            (CertificateError::Revoked, "was revoked", ANEW),
            (CertificateError::InvalidPurpose, "not one for servers", ANEW),
            (CertificateError::BadEncoding, "cannot be read", ANEW),
            (CertificateError::Expired, "has expired", CLOCK),
            (CertificateError::NotValidYet, "not valid yet", CLOCK),
            (CertificateError::NotValidForName, "not valid for this host", WITH_NAMES),
            (CertificateError::ApplicationVerificationFailure, "is not valid (", ANEW),
        ] {
            let (why, cure) = certificate(&error);
            assert!(why.starts_with("the server's certificate ") && why.contains(words), "{why}");
            assert_eq!(cure, cured, "{why}");
        }
    }
}
