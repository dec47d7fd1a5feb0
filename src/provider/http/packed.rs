//! Answers that something on the way has packed, although they are asked for as they are.

use std::io::Read;

use flate2::read::GzDecoder;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};
use zeroize::Zeroizing;

/// The body as it was before, if it is no longer than `most`.
///
/// # Errors
/// Why it cannot be had.
pub(super) fn unpacked(
    headers: &HeaderMap,
    body: Zeroizing<Vec<u8>>,
    most: usize,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let coding =
        headers.get(CONTENT_ENCODING).map(|coding| String::from_utf8_lossy(coding.as_bytes()).to_ascii_lowercase());
    match coding.as_deref().map(str::trim) {
        None | Some("" | "identity") => Ok(body),
        _ if body.is_empty() => Ok(body),
        Some("gzip" | "x-gzip") => {
            let mut plain = Zeroizing::new(Vec::new());
            let length = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
            let read = GzDecoder::new(body.as_slice()).take(length).read_to_end(&mut plain);
            match read {
                Ok(read) if read > most => Err(format!("has more than {most} bytes")),
                Ok(_) => Ok(plain),
                Err(error) => Err(format!("says that it is packed with gzip, and cannot be unpacked: {error}")),
            }
        }
        Some(other) => Err(format!(
            "is packed with {:?}, although it was asked for as it is: something between us and the forge does that",
            crate::plain::plain(other)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn unpack(coding: &str, body: &[u8]) -> Result<Vec<u8>, String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, coding.parse().unwrap());
        unpacked(&headers, Zeroizing::new(body.to_vec()), 1000).map(|body| body.to_vec())
    }

    fn packed(body: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        writer.write_all(body).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn what_is_packed_is_unpacked_or_told() {
        assert_eq!(unpack("gzip", &packed(b"{}")), Ok(b"{}".to_vec()));
        assert_eq!(unpack(" X-GZIP", &packed(b"{}")), Ok(b"{}".to_vec()));
        assert_eq!(unpack("identity", b"{}"), Ok(b"{}".to_vec()));
        assert_eq!(unpack("br", b""), Ok(Vec::new()));
        assert!(unpack("br", b"{}").unwrap_err().contains("packed with \"br\""));
        assert!(unpack("gzip, br", b"{}").is_err());
        assert!(unpack("gzip", b"{}").unwrap_err().contains("cannot be unpacked"));
        assert!(unpack("gzip", &packed(&[b' '; 100_000])).unwrap_err().contains("more than 1000 bytes"));
    }
}
