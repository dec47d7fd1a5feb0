//! The certificates in a file, and nothing else that may stand there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::x509;

/// The kinds of blocks that are certificates. The second has a note of what it is trusted for, and is OpenSSL's.
const KINDS: [&[u8]; 3] = [b"CERTIFICATE", b"TRUSTED CERTIFICATE", b"X509 CERTIFICATE"];

/// How long a line of Base64 is.
const LINE: usize = 64;

/// What was found in a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Certificates {
    /// The certificates.
    pub der: Vec<Vec<u8>>,
    /// How many blocks say that they are certificates and are none.
    pub unreadable: usize,
    /// Whether a private key stands in the file, too.
    pub private_key: bool,
}

impl Certificates {
    /// Looks through the content of a file: PEM, with or without a byte order mark, or one certificate in DER. What lies outside
    /// of a certificate's block is left out, whatever it is, and so is a block without an end, or with something else in it than
    /// a certificate.
    #[must_use]
    pub(crate) fn of(content: &[u8]) -> Self {
        if let Some(certificate) = x509::first(content) {
            return Self { der: vec![certificate.to_vec()], ..Self::default() };
        }
        let mut found = Self::default();
        let mut open: Option<(&[u8], Vec<u8>)> = None;
        let text = in_bytes(content);
        for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
            let line = line.trim_ascii();
            if let Some(kind) = marked(line, b"-----BEGIN ") {
                found.private_key |= kind.windows(11).any(|words| words == b"PRIVATE KEY");
                // One block within another is the end of neither.
                found.unreadable += usize::from(open.is_some());
                open = KINDS.contains(&kind).then(|| (kind, Vec::new()));
                continue;
            }
            let Some((kind, block)) = &mut open else { continue };
            if let Some(end) = marked(line, b"-----END ") {
                let decoded = STANDARD.decode(&*block).ok().filter(|_| end == *kind);
                match decoded.as_deref().and_then(x509::first) {
                    Some(certificate) => found.der.push(certificate.to_vec()),
                    None => found.unreadable += 1,
                }
                open = None;
            } else {
                block.extend(line);
            }
        }
        found.unreadable += usize::from(open.is_some());
        found
    }

    /// The certificates as PEM, in the form that everybody reads.
    #[must_use]
    pub(crate) fn pem(&self) -> Vec<u8> {
        let mut pem = Vec::new();
        for certificate in &self.der {
            pem.extend(b"-----BEGIN CERTIFICATE-----\n");
            for line in STANDARD.encode(certificate).as_bytes().chunks(LINE) {
                pem.extend(line);
                pem.push(b'\n');
            }
            pem.extend(b"-----END CERTIFICATE-----\n");
        }
        pem
    }

    /// Those that a server's certificate can be held against, and how many cannot serve for that.
    #[must_use]
    pub(crate) fn roots(&self) -> (RootCertStore, usize) {
        let mut roots = RootCertStore::empty();
        let (_, useless) =
            roots.add_parsable_certificates(self.der.iter().map(|it| CertificateDer::from(it.as_slice())));
        (roots, useless)
    }
}

/// What makes a file of certificates out of one that is none, by what it is instead.
pub(super) fn cure(content: &[u8]) -> &'static str {
    let text = in_bytes(content);
    let has = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
    // Containers in DER: PKCS#7 begins with the name of what is in it, PKCS#12 with its version.
    let begins = |tag: u8| content.first() == Some(&0x30) && content.iter().skip(1).take(6).any(|byte| *byte == tag);
    if has(b"-----BEGIN PKCS7-----") {
        "take the certificates out of it (openssl pkcs7 -print_certs -in FILE), or unset it"
    } else if begins(0x06) {
        "take the certificates out of it (openssl pkcs7 -inform der -print_certs -in FILE), or unset it"
    } else if begins(0x02) {
        "take the certificates out of it (openssl pkcs12 -nokeys -in FILE), or unset it"
    } else {
        "put a certificate there as PEM (-----BEGIN CERTIFICATE-----) or DER, or unset it"
    }
}

/// A text without its byte order mark, and one byte for each character of Base64: Windows writes two.
fn in_bytes(content: &[u8]) -> Vec<u8> {
    match content {
        [0xef, 0xbb, 0xbf, rest @ ..] => rest.to_vec(),
        [0xff, 0xfe, rest @ ..] | [0xfe, 0xff, rest @ ..] => rest.iter().copied().filter(|byte| *byte != 0).collect(),
        _ => content.to_vec(),
    }
}

/// The kind of block that a line begins or ends.
fn marked<'a>(line: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(mark)?.strip_suffix(b"-----")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = include_str!("../../tests/faults/certificates/own.pem");
    const ONE_TRUSTED: &str = include_str!("../../tests/faults/certificates/own-trusted.pem");
    const TWO: &str = include_str!("../../tests/faults/certificates/ca.pem");

    fn block(kind: &str, content: &str) -> String {
        format!("-----BEGIN {kind}-----\n{content}\n-----END {kind}-----\n")
    }

    /// What `openssl` says a file is, by the same bytes.
    fn der(pem: &str) -> Vec<u8> {
        STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap()
    }

    #[test]
    fn certificates_are_kept_and_all_else_is_left_out() {
        let wanted = Certificates { der: vec![der(ONE), der(TWO)], ..Certificates::default() };
        let around = format!("# of our proxy\n{ONE}subject=CN = x\n{}{TWO}trailing", block("X509 CRL", "bm8="));
        assert_eq!(Certificates::of(around.as_bytes()), wanted);
        assert_eq!(String::from_utf8(wanted.pem()).unwrap(), format!("{ONE}{TWO}"), "as OpenSSL writes them");
        assert_eq!(wanted.roots().0.len(), 2);
        for kind in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"]
        {
            let file = format!("{ONE}{}{TWO}", block(kind, "c2VjcmV0"));
            let wanted = Certificates { private_key: true, ..wanted.clone() };
            assert_eq!(Certificates::of(file.as_bytes()), wanted, "{kind}");
        }
    }

    #[test]
    fn a_certificate_is_one_however_it_is_written() {
        let wanted = Certificates { der: vec![der(ONE)], ..Certificates::default() };
        let wide: Vec<u8> = ONE.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let narrow = ONE.replace('\n', "").replace("-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE-----\n");
        let narrow = narrow.replace("-----END", "\n-----END");
        for (how, file) in [
            ("a byte order mark", [b"\xef\xbb\xbf", ONE.as_bytes()].concat()),
            ("two bytes for each character", [b"\xff\xfe".as_slice(), &wide].concat()),
            ("lines of Windows", ONE.replace('\n', "\r\n").into_bytes()),
            ("lines of an old Macintosh", ONE.replace('\n', "\r").into_bytes()),
            ("indented", ONE.replace('\n', "\n  ").into_bytes()),
            ("blank lines", ONE.replace('\n', "\n\n").into_bytes()),
            ("one long line", narrow.into_bytes()),
            ("OpenSSL's older name", ONE.replace("CERTIFICATE", "X509 CERTIFICATE").into_bytes()),
            ("with remarks on trust", ONE_TRUSTED.as_bytes().to_vec()),
            ("DER", der(ONE)),
            ("DER with remarks on trust", der(ONE_TRUSTED)),
            ("DER with a line's end", [der(ONE), b"\n".to_vec()].concat()),
        ] {
            assert_eq!(Certificates::of(&file), wanted, "{how}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_a_cure_by_what_it_is() {
        let key = block("PRIVATE KEY", "c2VjcmV0");
        for (file, blocks, words) in [
            (Vec::new(), 0, "PEM"),
            (b"\xef\xbb\xbf".to_vec(), 0, "PEM"),
            (b"ours".to_vec(), 0, "PEM"),
            (key.into_bytes(), 0, "PEM"),
            (block("CERTIFICATE", "").into_bytes(), 1, "PEM"),
            (block("CERTIFICATE", "b25l").into_bytes(), 1, "PEM"),
            (block("CERTIFICATE", "b n e").into_bytes(), 1, "PEM"),
            (ONE[..ONE.len() / 2].into(), 1, "PEM"),
            (block("PKCS7", "b25l").into_bytes(), 0, "pkcs7 -print"),
            (b"\x30\x82\x01\x0a\x06\x09\x2a".to_vec(), 0, "pkcs7 -inform der"),
            (b"\x30\x82\x01\x0a\x02\x01\x03".to_vec(), 0, "pkcs12"),
            (der(ONE)[..100].into(), 0, "PEM"),
        ] {
            let found = Certificates::of(&file);
            assert_eq!((found.der.len(), found.unreadable), (0, blocks), "{file:?}");
            assert!(cure(&file).contains(words), "{file:?}: {}", cure(&file));
        }
    }

    #[test]
    fn a_key_is_left_out_wherever_a_block_has_no_end() {
        let key = block("PRIVATE KEY", "c2VjcmV0");
        for file in [
            format!("-----BEGIN CERTIFICATE-----\nbm8=\n{key}{ONE}"),
            format!("{key}{ONE}-----BEGIN CERTIFICATE-----\nbm8="),
            format!("-----BEGIN CERTIFICATE-----\nbm8=\n-----END PRIVATE KEY-----\nc2VjcmV0\n{key}{ONE}"),
            format!("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n{ONE}"),
            format!("{ONE}{key}{}", block("CERTIFICATE", " -----BEGIN PRIVATE KEY-----\nc2VjcmV0")),
        ] {
            let found = Certificates::of(file.as_bytes());
            assert_eq!((found.pem(), found.private_key), (ONE.as_bytes().to_vec(), true), "{file}");
        }
        assert_eq!(Certificates::of(b"\x30\x82\x01\x0a"), Certificates::default());
    }

    #[test]
    fn facts_are_read_as_they_were_written() {
        let of = |pem: &str| {
            let der = der(pem);
            let facts = x509::facts(&der).unwrap();
            let day = crate::encode::day;
            let name = facts.common_name.unwrap_or_default().to_owned();
            (facts.extended, facts.by_itself, day(facts.begins), day(facts.ends), name)
        };
        let day = |day: &str| day.to_owned();
        let name = "localhost".to_owned();
        assert_eq!(of(ONE), (true, true, day("2025-01-01"), day("2126-01-01"), name.clone()));
        let expired = include_str!("../../tests/faults/certificates/own-expired.pem");
        assert_eq!(of(expired), (true, true, day("2020-01-01"), day("2020-02-01"), name.clone()));
        let first = of(include_str!("../../tests/faults/certificates/version-1.pem"));
        assert_eq!((first.0, first.1, first.4), (false, true, name));
        let signed = of(include_str!("../../tests/faults/certificates/good.pem"));
        assert_eq!((signed.0, signed.1, signed.4), (true, false, "good".to_owned()));
    }

    #[test]
    fn fuzz_certificates() {
        crate::fuzz::run("certificates", |bytes| {
            let found = Certificates::of(bytes);
            let again = Certificates::of(&found.pem());
            assert_eq!(again, Certificates { der: found.der.clone(), ..Certificates::default() });
            let _ = cure(bytes);
            let facts = found.der.iter().filter_map(|der| x509::facts(der)).count();
            Some((found.der.is_empty(), found.private_key, found.unreadable, facts, found.roots().1))
        });
    }
}
