//! What a certificate (X.509, in DER) says of itself, as far as we must know it.

use crate::encode::seconds;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version, which only later ones than the first say.
const VERSION: u8 = 0xa0;
/// The attribute of a name that is its common name: 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// One element: its tag, what is in it, all of it, and what follows.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
    rest: &'a [u8],
}

/// What is said of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateFacts<'a> {
    /// Whether it is of a later version than the first, and so may have names.
    pub extended: bool,
    /// Whether whom it is of has signed it.
    pub by_itself: bool,
    /// From when to when it is good, in seconds since 1970.
    pub begins: u64,
    pub ends: u64,
    /// The last common name of whom it is of.
    pub common_name: Option<&'a str>,
}

/// The certificate that these bytes begin with, without what is put after it, as OpenSSL's remarks on trust are.
pub(super) fn first(bytes: &[u8]) -> Option<&[u8]> {
    let certificate = element(bytes).filter(|it| it.tag == SEQUENCE)?;
    // What is signed, and how. Other containers of certificates begin with a number or an object's name.
    let signed = element(certificate.content).filter(|it| it.tag == SEQUENCE)?;
    element(signed.rest).filter(|it| it.tag == SEQUENCE)?;
    Some(certificate.whole)
}

/// Reads a certificate. `None` if it is none.
pub(crate) fn facts(certificate: &[u8]) -> Option<CertificateFacts<'_>> {
    let mut next = element(element(certificate)?.content)?.content;
    let mut take = || {
        let taken = element(next)?;
        next = taken.rest;
        Some(taken)
    };
    let mut serial = take()?;
    let extended = serial.tag == VERSION;
    if extended {
        serial = take()?;
    }
    let (_serial, _algorithm, issuer, validity, subject) = (serial, take()?, take()?, take()?, take()?);
    let begins = element(validity.content)?;
    let ends = element(begins.rest)?;
    Some(CertificateFacts {
        extended,
        by_itself: issuer.whole == subject.whole,
        begins: time(&begins)?,
        ends: time(&ends)?,
        common_name: common_name(subject.content),
    })
}

fn common_name(mut names: &[u8]) -> Option<&str> {
    let mut found = None;
    while let Some(set) = element(names) {
        names = set.rest;
        let pair = element(set.content).filter(|_| set.tag == SET);
        let Some(kind) = pair.and_then(|pair| element(pair.content)) else { continue };
        if kind.tag == OBJECT && kind.content == COMMON_NAME {
            found = element(kind.rest).and_then(|text| std::str::from_utf8(text.content).ok());
        }
    }
    found
}

fn time(element: &Element<'_>) -> Option<u64> {
    let text = std::str::from_utf8(element.content).ok()?.strip_suffix('Z').filter(|text| text.is_ascii())?;
    let text = match element.tag {
        UTC_TIME if text.len() == 12 => format!("{}{text}", if text < "50" { "20" } else { "19" }),
        GENERALIZED_TIME if text.len() == 14 => text.to_owned(),
        _ => return None,
    };
    let (day, hour) = text.split_at(8);
    let written = format!("{}-{}-{}T{}:{}:{}Z", &day[..4], &day[4..6], &day[6..], &hour[..2], &hour[2..4], &hour[4..]);
    humantime::parse_rfc3339(&written).ok().map(seconds)
}

fn element(bytes: &[u8]) -> Option<Element<'_>> {
    let (&tag, rest) = bytes.split_first()?;
    let (&length, mut rest) = rest.split_first()?;
    let mut size = usize::from(length);
    if length & 0x80 != 0 {
        let (digits, after) =
            rest.split_at_checked(usize::from(length & 0x7f)).filter(|(it, _)| (1..4).contains(&it.len()))?;
        size = digits.iter().fold(0, |size, digit| size << 8 | usize::from(*digit));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(size)?;
    Some(Element { tag, content, whole: &bytes[..bytes.len() - rest.len()], rest })
}
