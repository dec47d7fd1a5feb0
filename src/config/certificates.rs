//! The certificates in a PEM file, and nothing else that may stand there.

/// The kinds of blocks that are certificates. The second has a note of what it is trusted for, and is OpenSSL's.
const KINDS: [&[u8]; 3] = [b"CERTIFICATE", b"TRUSTED CERTIFICATE", b"X509 CERTIFICATE"];

/// What was found in a PEM file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Certificates {
    /// The certificates' blocks, whole, one after the other.
    pub pem: Vec<u8>,
    /// Whether a private key stands in the file, too.
    pub private_key: bool,
}

impl Certificates {
    /// Looks through the content of a file. What lies outside of a certificate's block is left out, whatever it is, and so is a
    /// block without an end, or with something else in it than Base64.
    #[must_use]
    pub(crate) fn of(content: &[u8]) -> Self {
        let mut found = Self::default();
        let mut open: Option<(&[u8], Vec<u8>)> = None;
        for line in content.split(|byte| *byte == b'\n') {
            let line = line.trim_ascii_end();
            if let Some(kind) = marked(line, b"-----BEGIN ") {
                found.private_key |= kind.windows(11).any(|words| words == b"PRIVATE KEY");
                open = KINDS.contains(&kind).then(|| (kind, Vec::new()));
            }
            let Some((kind, block)) = &mut open else { continue };
            block.extend(line);
            block.push(b'\n');
            let first = block.len() == line.len() + 1;
            if let Some(end) = marked(line, b"-----END ") {
                if end == *kind {
                    found.pem.append(block);
                }
                open = None;
            } else if !first && !line.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte)) {
                open = None;
            }
        }
        found
    }
}

/// The kind of block that a line begins or ends.
fn marked<'a>(line: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(mark)?.strip_suffix(b"-----")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: &str, content: &str) -> String {
        format!("-----BEGIN {kind}-----\n{content}\n-----END {kind}-----\n")
    }

    #[test]
    fn certificates_are_kept_and_all_else_is_left_out() {
        let (one, two) = (block("CERTIFICATE", "b25l\nMQ=="), block("TRUSTED CERTIFICATE", "dHdv"));
        let wanted = Certificates { pem: format!("{one}{two}").into_bytes(), private_key: false };
        let around = format!("# of our proxy\n{one}subject=CN = x\n{}{two}trailing", block("X509 CRL", "bm8="));
        assert_eq!(Certificates::of(around.as_bytes()), wanted);
        assert_eq!(Certificates::of(around.replace('\n', "\r\n").as_bytes()), wanted);
        for kind in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"]
        {
            let file = format!("{one}{}{two}", block(kind, "c2VjcmV0"));
            assert_eq!(
                Certificates::of(file.as_bytes()),
                Certificates { private_key: true, ..wanted.clone() },
                "{kind}"
            );
        }
    }

    #[test]
    fn a_key_is_left_out_wherever_a_block_has_no_end() {
        let (one, key) = (block("CERTIFICATE", "b25l"), block("PRIVATE KEY", "c2VjcmV0"));
        for file in [
            format!("-----BEGIN CERTIFICATE-----\nbm8=\n{key}{one}"),
            format!("{key}{one}-----BEGIN CERTIFICATE-----\nbm8="),
            format!("-----BEGIN CERTIFICATE-----\nbm8=\n-----END PRIVATE KEY-----\nc2VjcmV0\n{key}{one}"),
            format!("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n{one}"),
            format!("{one}{key}{}", block("CERTIFICATE", " -----BEGIN PRIVATE KEY-----\nc2VjcmV0")),
        ] {
            let found = Certificates::of(file.as_bytes());
            assert_eq!((String::from_utf8(found.pem).unwrap(), found.private_key), (one.clone(), true), "{file}");
        }
        assert_eq!(Certificates::of(b"\x30\x82\x01\x0a"), Certificates::default());
    }

    #[test]
    fn fuzz_certificates() {
        crate::fuzz::run("certificates", |bytes| {
            let found = Certificates::of(bytes);
            let again = Certificates::of(&found.pem);
            assert_eq!(again, Certificates { pem: found.pem.clone(), private_key: false });
            Some((found.pem.is_empty(), found.private_key))
        });
    }
}
