//! The address of a proxy, proved as far as it can be without asking anybody.

use std::fmt::Write as _;

use reqwest::Url;

use super::reader::Reader;
use crate::log;

/// What is wrong with an address: what, and the cure. Nothing of a user or a password is in it.
type Flaw = (String, String);

/// How it is written, where that is all there is to say.
const HOW: &str = "write http://host:port, or http://user:password@host:port";

/// Takes an address if it can be used; else the reader knows why it cannot.
pub(crate) fn proved(reader: &mut Reader<'_>, name: &str, value: String) -> Option<String> {
    // It must not reach the log by way of somebody's error message.
    passwords(&value).iter().for_each(|password| log::redact(password));
    match prove(&value) {
        Ok(()) => Some(value),
        Err((what, cure)) => {
            reader.problem(name, what, cure);
            None
        }
    }
}

/// Proves that requests can be sent by way of this address.
///
/// # Errors
/// Why they cannot.
fn prove(value: &str) -> Result<(), Flaw> {
    let flaw = |what: &str, cure: &str| Err((what.to_owned(), cure.to_owned()));
    // No part of it is repeated: which one is the password is not known while something is wrong.
    let Some((scheme, rest)) = value.split_once("://") else {
        return flaw("it is no proxy URL: it does not begin with http://", HOW);
    };
    let scheme = scheme.to_ascii_lowercase();
    if scheme.starts_with("socks") {
        return flaw(
            "it is the address of a SOCKS proxy, which neither OSCR nor the agents can use",
            "name an HTTP proxy: http://host:port",
        );
    }
    if scheme != "http" && scheme != "https" {
        return flaw("it is no proxy URL: it begins neither with http:// nor with https://", HOW);
    }
    // The last @ ends who asks, whatever is in there.
    let (who, place) = rest.rsplit_once('@').map_or((None, rest), |(who, place)| (Some(who), place));
    if let Some(codes) = who.and_then(codes) {
        return Err((
            format!("the user or the password in it has characters that end or change an address ({})", codes.0),
            format!("write them percent-encoded ({}), and every % of it that is meant as such as %25", codes.1),
        ));
    }
    let place = place.strip_suffix('/').unwrap_or(place);
    let host_and_port = place.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let (host, port) = match host_and_port.rfind(':').filter(|at| !host_and_port[*at..].contains(']')) {
        Some(at) => (&host_and_port[..at], Some(&host_and_port[at + 1..])),
        None => (host_and_port, None),
    };
    if host.is_empty() {
        return flaw("it names no host", HOW);
    }
    if let Some(port) = port
        && !port.parse::<u16>().is_ok_and(|port| port > 0)
    {
        return flaw("what follows its last colon is no port, which is a number from 1 to 65535", HOW);
    }
    if host_and_port.len() < place.len() {
        // Without a user nobody knows whether what follows was meant to be one.
        return flaw(
            "there is more in it than a host and a port, and a proxy has no path (a file of rules, .pac, is for browsers)",
            HOW,
        );
    }
    match Url::parse(value) {
        Ok(url) if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(()),
        _ => flaw("what it names is no host", HOW),
    }
}

/// The characters that cannot stand in a user's name or a password as they are, and what to write for them.
fn codes(who: &str) -> Option<(String, String)> {
    let special =
        |c: &char| matches!(c, '#' | '/' | '?' | '@' | '\\' | '[' | ']') || c.is_whitespace() || c.is_control();
    let mut found: Vec<char> = who.chars().filter(special).collect();
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        return None;
    }
    let (mut shown, mut codes) = (String::new(), String::new());
    for c in found {
        let mut bytes = [0; 4];
        let code = c.encode_utf8(&mut bytes).bytes().fold(String::new(), |mut code, byte| {
            let _ = write!(code, "%{byte:02X}");
            code
        });
        let name = if c.is_whitespace() || c.is_control() { "a blank".to_owned() } else { c.to_string() };
        let separator = if shown.is_empty() { "" } else { ", " };
        let _ = write!(shown, "{separator}{name}");
        let _ = write!(codes, "{separator}{code} for {name}");
    }
    Some((shown, codes))
}

/// The passwords in an address: as it stands there, and as it is meant.
fn passwords(value: &str) -> Vec<String> {
    let who = value.split_once("://").map_or(value, |(_, rest)| rest).rsplit_once('@').map(|(who, _)| who);
    let Some((_, password)) = who.and_then(|who| who.split_once(':')) else { return Vec::new() };
    vec![password.to_owned(), decoded(password)]
}

/// What `%XX` in a part of an address stands for.
pub(crate) fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.extend(u8::try_from(high * 16 + low));
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_used_is_proved() {
        for good in [
            "http://proxy",
            "http://proxy:3128",
            "HTTP://proxy.example:3128/",
            "https://proxy.example:8443",
            "http://10.0.0.1:3128",
            "http://[2001:db8::1]:3128",
            "http://[2001:db8::1]",
            "http://me@proxy:3128",
            "http://me:word@proxy:3128",
            "http://cor%5Cme:p%40s%23s%2Fw%25@proxy:3128/",
            "http://me:100%@proxy:3128",
            "http://me:a:b!$&'()*+,;=~@proxy:3128",
        ] {
            assert_eq!(prove(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_cure_and_no_password() {
        for (wrong, what, cure) in [
            ("proxy:3128", "is no proxy URL", "http://host:port"),
            ("me:hidden@proxy:3128", "is no proxy URL", "http://host:port"),
            ("ftp://me:hidden@proxy", "is no proxy URL", "http://host:port"),
            ("socks5://me:hidden@proxy:1080", "SOCKS", "HTTP proxy"),
            ("socks4a://proxy", "SOCKS", "HTTP proxy"),
            ("http://me:hid#den@proxy:3128", "(#)", "%23 for #"),
            ("http://me:12#hidden@proxy:3128", "(#)", "%23 for #"),
            ("http://me:hid/den@proxy:3128", "(/)", "%2F for /"),
            ("http://me:hid@den@proxy:3128", "(@)", "%40 for @"),
            ("http://me:hid?d#n@proxy:3128", "(#, ?)", "%23 for #, %3F for ?"),
            ("http://me:hid den@proxy:3128", "(a blank)", "%20 for a blank"),
            ("http://cor\\me:hidden@proxy:3128", "(\\)", "%5C for \\"),
            ("http://", "no host", "http://host:port"),
            ("http:///", "no host", "http://host:port"),
            ("http://:3128", "no host", "http://host:port"),
            ("http://me:hidden@", "no host", "http://host:port"),
            ("http://me:hidden@:3128", "no host", "http://host:port"),
            ("http://proxy:", "no port", "http://host:port"),
            ("http://proxy:http", "no port", "http://host:port"),
            ("http://proxy:0", "no port", "http://host:port"),
            ("http://proxy:65536", "no port", "http://host:port"),
            ("http://http://proxy:3128", "no port", "http://host:port"),
            ("http://proxy/proxy.pac", "has no path", "http://host:port"),
            ("http://proxy:3128?x", "has no path", "http://host:port"),
            ("http://proxy#x", "has no path", "http://host:port"),
            ("http://pro xy:3128", "no host", "http://host:port"),
            ("http://[::1:3128", "no host", "http://host:port"),
        ] {
            let (said, help) = prove(wrong).expect_err(wrong);
            assert!(said.contains(what) && help.contains(cure), "{wrong}: {said}; {help}");
            for hidden in ["hid", "den", "me:"] {
                assert!(!said.contains(hidden) && !help.contains(hidden), "{wrong}: {said}; {help}");
            }
        }
    }

    #[test]
    fn passwords_are_known_as_they_stand_and_as_they_are_meant() {
        assert_eq!(passwords("http://me:p%40ss@proxy"), ["p%40ss", "p@ss"]);
        assert_eq!(passwords("http://me:p@s/s@proxy"), ["p@s/s", "p@s/s"]);
        assert!(passwords("http://me@proxy:3128").is_empty() && passwords("http://proxy:3128").is_empty());
    }
}
